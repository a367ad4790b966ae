"""What the benchmarks run on: texts, random walks of a grammar over bytes and over tokens, and their tokens.

It knows our package, which draws the walks, but no other toolkit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ctrldecode.grammar import Grammar
from ctrldecode.grammar.explain import over_bytes, sample
from ctrldecode.kernels.tokens import masks
from tests.benchmarks import notations
from tests.grammars import golden

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.grammar.potential import GrammarPotential

BYTE_WALKS, LONGEST = 6, 160  # how many of each grammar, and the most bytes of one
TOKEN_WALKS, STEPS = 6, 32

RECORD = {
    "name": "Alice Smith",
    "age": 31,
    "tags": ["a", "bb", "hello world"],
    "nested": {"x": [1, 2.5, -3e10], "ok": True, "none": None},
    "text": 'The quick brown fox jumps over the lazy dog, said "who"?',
}
NESTED = {"a": [[[], [[1], [2, [3, {"b": {"c": {"d": [None, False]}}}]]]], {}], "e": [{"f": [{"g": [0]}]}]}
PROSE = {
    "title": "On the measurement of small durations",
    "abstract": "We time a function by calling it often. Each call is timed alone, since a mean hides the slow ones; "
    "what remains is noise of the machine, which a median removes.\nTabs\tand \\ are escaped, \u0007 too.",
}
FOREIGN = {"città": "Zürich — 東京", "emoji": ["😀", "👩‍💻", "🇨🇭"], "Ελληνικά": "Ωμέγα", "русский": "да или нет"}
DOCUMENTS = (
    json.dumps(RECORD, indent=1),
    '{"a": 1}',
    json.dumps(NESTED, separators=(",", ":")),
    json.dumps(NESTED, indent=4),
    json.dumps(PROSE),
    json.dumps(FOREIGN, ensure_ascii=False, indent=2),
    json.dumps(FOREIGN, separators=(",", ":")),
    json.dumps([{"id": i, "score": i / 7, "ok": i % 2 == 0} for i in range(6)]),
)
QUERIES = (
    (
        "SELECT u.name, COUNT(*) AS n\nFROM users u\n  JOIN orders AS o ON o.user_id = u.id\nWHERE o.total >= 9.99\n"
        "GROUP BY u.name\nHAVING COUNT(*) > 1\nORDER BY n DESC\nLIMIT 5;"
    ),
    "select id, first || ' ' || last AS full_name from people where born is not null and city in ('Rome', 'Oslo') limit 10",
    "SELECT CASE WHEN a > 0 THEN 'pos' WHEN a < 0 THEN 'neg' ELSE 'zero' END AS s, COALESCE(b, c, 0) * -1.5 FROM t",
    (
        "SELECT DISTINCT d.title FROM departments AS d WHERE NOT (d.budget BETWEEN 100 AND 2000 OR d.title LIKE 'A%') AND "
        'EXISTS (SELECT 1 FROM staff s WHERE s.dept = d.id AND s.pay > (SELECT AVG(pay) FROM staff)) ORDER BY "d".title ASC'
    ),
)
DEFINITIONS = (
    "(define-fun max3 ((x Int) (y Int) (z Int)) Int (ite (and (>= x y) (>= x z)) x (ite (>= y z) y z)))",
    "(define-fun f\n    ((x Int) (y Int))\n    Int\n  (ite (>= x y)\n       (+ (* 2 x) (- y) 17)\n       (div (- x 1 y) 3)))",
    "(define-fun inv ((count Int) (limit Int)) Bool (and (<= 0 count limit) (or (= count 0) (not (= (mod count 2) 1)))))",
    (
        "(define-fun g ((n Int)) Int (let ((half (div n 2)) (odd (mod n 2))) (+ half odd)))\n"
        "(define-fun h ((n Int)) Bool (=> (distinct n 0 (- 1)) (xor true (< n 10))))"
    ),
)
SUMS = (
    "(1 + 2) * 3 - 4 / 5",
    "-2 ^ 10 + 3.14159 * (271828 - 0.5) / 12",
    "((((1+2)*3-4)/5)^6-7)*8+9/10",
    "1 + 22 - 333 * 4444 / 55555 ^ 666666 - -7777777",
)


@dataclass(frozen=True)
class Case:
    """A grammar and texts of it.

    Attributes:
        name: for tables.
        grammar: its file in grammars/, without the suffix.
        notation: the same for the peers.
        texts: what is written in it; the first one is the first trace.
    """

    name: str
    grammar: str
    notation: notations.Notation
    texts: Sequence[str]


# Regular languages in what all notations share, with texts of each.
MAIL = r"[0-9A-Za-z!#$%&'*+=?^_`{|}~-]+(\.[0-9A-Za-z!#$%&'*+=?^_`{|}~-]+)*@([0-9A-Za-z]+(-+[0-9A-Za-z]+)*\.)+[A-Za-z]+"
REGEXES = {
    "mail": (MAIL, ["jane.doe+lists@mail.example.org", "x@y.zz", "o'reilly_99@a-b.c-d.example.com"]),
    "time": (
        r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})",
        ["2024-02-29T23:59:59Z", "1999-12-31T00:00:00.123456789+05:30"],
    ),
    "record": (
        r'\{"name": "[^"\\\x00-\x1f]{1,40}", "age": (0|[1-9][0-9]{0,2}), "mood": "(happy|sad|calm)", "tags": \["[a-z]{1,12}"(, "[a-z]{1,12}"){0,3}\]\}',
        [
            '{"name": "Alice Smith-Jones of Zürich", "age": 31, "mood": "happy", "tags": ["reader", "hiking", "tea"]}',
            '{"name": "Bob", "age": 0, "mood": "sad", "tags": ["x"]}',
        ],
    ),
}

CASES = (
    Case("JSON", "json", notations.JSON, DOCUMENTS),
    Case("SQL", "sql_select", notations.SQL, QUERIES),
    Case("s-expressions", "sygus_lia", notations.SYGUS, DEFINITIONS),
    Case("arithmetic", "arithmetic", notations.ARITHMETIC, SUMS),
)


def traces(case: Case, vocabulary: Vocabulary, seed: int = 1) -> dict[str, list[list[int]]]:
    """Tokens of the case's texts, and of random walks over bytes and over tokens."""
    grammar = Grammar.from_file(golden.FOLDER / f"{case.grammar}.lark")
    index = {token: i for i, token in enumerate(vocabulary.tokens) if token}
    rng = np.random.default_rng(seed)
    by_byte = over_bytes(grammar, max_ignored=2)  # else most of a walk is white space
    potential = grammar.compile(vocabulary)
    samples = (sample(by_byte, rng, LONGEST) for _ in range(BYTE_WALKS))
    return {
        "texts": [greedy(text.encode(), index) for text in case.texts],
        "walks over bytes": [greedy(text.encode(), index) for text in samples if text],
        "walks over tokens": [walk(potential, rng, STEPS) for _ in range(TOKEN_WALKS)],
    }


def greedy(text: bytes, index: dict[bytes, int]) -> list[int]:
    """The longest token first."""
    tokens: list[int] = []
    while text:
        piece = next(text[:length] for length in range(min(len(text), 20), 0, -1) if text[:length] in index)
        tokens.append(index[piece])
        text = text[len(piece) :]
    return tokens


def walk(potential: GrammarPotential, rng: np.random.Generator, steps: int) -> list[int]:
    """Random allowed tokens, every other one of a single byte where there is such: long ones seldom leave a string."""
    vocabulary = potential.vocabulary
    single = np.array([token is not None and len(token) == 1 for token in vocabulary.tokens])
    state = potential.init(torch.zeros(1, 1, dtype=torch.long))
    tokens: list[int] = []
    for step in range(steps):
        allowed = masks.bits(potential.mask(state)[0], vocabulary.size)
        allowed[list(vocabulary.eos_token_ids)] = False
        (choices,) = np.nonzero(allowed & single if step % 2 and (allowed & single).any() else allowed)
        if not len(choices):
            break
        tokens.append(int(rng.choice(choices)))
        state = potential.step(state, torch.tensor(tokens[-1:]))
    return tokens
