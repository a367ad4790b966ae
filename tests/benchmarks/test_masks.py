"""Time of a grammar's token masks on a JSON trace, with llguidance and xgrammar in the same process on the same tokens.

All three get JSON after RFC 8259 in a form of their own, and xgrammar also its built-in JSON grammar, which differs a little
(see the count of masks that differ); all get the 131,072 tokens that mistral-common ships. A step is: fill the
packed mask, then consume the token, Python calls included. "cold" is compiling the grammar anew and the first trace; "warm"
is the same trace again with everything kept. A token that a mask forbids is an error, and masks are compared.
"""

from __future__ import annotations

import base64
import json
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pytest
import torch

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.grammar import Grammar
from tests.grammars import golden

if TYPE_CHECKING:
    from collections.abc import Sequence

EOS = 2
ROUNDS = 5

DOCUMENT = {
    "name": "Alice Smith",
    "age": 31,
    "tags": ["a", "bb", "hello world"],
    "nested": {"x": [1, 2.5, -3e10], "ok": True, "none": None},
    "text": 'The quick brown fox jumps over the lazy dog, said "who"?',
}

# RFC 8259 in the two peers' own notations; white space as in grammars/json.lark.
LLGUIDANCE = r"""
%llguidance { "no_forcing": true }
start: ws value ws
value: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" ws "}" | "{" ws member (ws "," ws member)* ws "}"
member: STRING ws ":" ws value
array: "[" ws "]" | "[" ws value (ws "," ws value)* ws "]"
ws: WS?
WS: /[ \t\n\r]+/
STRING: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9A-Fa-f]{4}))*"/
NUMBER: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([Ee][+-]?[0-9]+)?/
"""
XGRAMMAR = r"""
root ::= ws value ws
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws "}" | "{" ws member (ws "," ws member)* ws "}"
member ::= string ws ":" ws value
array ::= "[" ws "]" | "[" ws value (ws "," ws value)* ws "]"
ws ::= [ \t\n\r]*
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" hex hex hex hex))* "\""
hex ::= [0-9A-Fa-f]
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([Ee] [+-]? [0-9]+)?
"""


class Engine(Protocol):
    """A toolkit under test: `restart` begins a text, `step` returns the packed mask and consumes a token."""

    def compile(self) -> None: ...
    def restart(self) -> None: ...
    def step(self, token: int) -> np.ndarray: ...


class Ours:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.text = (golden.FOLDER / "json.lark").read_text(encoding="utf-8")

    def compile(self) -> None:
        self.potential = Grammar(self.text).compile(self.vocabulary)

    def restart(self) -> None:
        self.state = self.potential.init(torch.zeros(1, 1, dtype=torch.long))

    def step(self, token: int) -> np.ndarray:
        mask = self.potential.mask(self.state)
        self.state = self.potential.step(self.state, torch.tensor([token]))
        return mask[0]


class LLGuidance:
    def __init__(self, vocabulary: Vocabulary) -> None:
        import llguidance
        import llguidance.numpy

        self.module, self.fill = llguidance, llguidance.numpy.fill_next_token_bitmask
        wrapped = llguidance.TokenizerWrapper(_Tokenizer(vocabulary))
        self.tokenizer = llguidance.LLTokenizer(wrapped, n_vocab=vocabulary.size)
        self.mask = llguidance.numpy.allocate_token_bitmask(1, vocabulary.size)

    def compile(self) -> None:
        self.grammar = self.module.LLMatcher.grammar_from_lark(LLGUIDANCE)
        self.first = self.module.LLMatcher(self.tokenizer, self.grammar)

    def restart(self) -> None:
        self.matcher = self.first.deep_copy()

    def step(self, token: int) -> np.ndarray:
        self.fill(self.matcher, self.mask, 0)
        assert self.matcher.consume_token(token), self.matcher.get_error()
        return self.mask[0]


class XGrammar:
    def __init__(self, vocabulary: Vocabulary, *, builtin: bool) -> None:
        import xgrammar

        self.builtin = builtin
        self.module = xgrammar
        tokens = [token or b"" for token in vocabulary.tokens]
        self.info = xgrammar.TokenizerInfo(tokens, vocab_size=vocabulary.size, stop_token_ids=[EOS])
        self.mask = xgrammar.allocate_token_bitmask(1, vocabulary.size)

    def compile(self) -> None:
        compiler = self.module.GrammarCompiler(self.info, max_threads=1, cache_enabled=False)
        self.compiled = compiler.compile_builtin_json_grammar() if self.builtin else compiler.compile_grammar(XGRAMMAR)

    def restart(self) -> None:
        self.matcher = self.module.GrammarMatcher(self.compiled)

    def step(self, token: int) -> np.ndarray:
        if not self.matcher.fill_next_token_bitmask(self.mask):
            self.mask.fill_(-1)
        assert self.matcher.accept_token(token)
        return self.mask[0].numpy()


class _Tokenizer:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [token or b"\xff<special>" for token in vocabulary.tokens]
        self.eos_token_id, self.bos_token_id = EOS, None
        self.special_token_ids = [i for i, token in enumerate(vocabulary.tokens) if token is None]

    def __call__(self, text: str) -> list[int]:
        raise TypeError(f"tokens come as ids here, got the text {text!r}")


class Timing(NamedTuple):
    cold: float  # milliseconds, compile and first trace
    warm: float  # microseconds, mean step
    worst: float  # microseconds, 99th percentile of the steps of the first trace


@pytest.mark.bench
def test_json_masks() -> None:
    vocabulary = tekken()
    trace = greedy(json.dumps(DOCUMENT, indent=1).encode(), vocabulary)
    engines: dict[str, Engine] = {
        "ctrldecode": Ours(vocabulary),
        "llguidance": LLGuidance(vocabulary),
        "xgrammar, its own JSON grammar": XGrammar(vocabulary, builtin=True),
        "xgrammar": XGrammar(vocabulary, builtin=False),
    }
    for engine in engines.values():  # kernels are loaded, memory is touched
        timed(engine, trace)
    rounds = [{name: timed(engine, trace) for name, engine in engines.items()} for _ in range(ROUNDS)]
    print(f"\nJSON, {len(trace)} tokens, V = {vocabulary.size}, median of {ROUNDS} interleaved rounds\n")
    print(
        "| toolkit | cold: compile and first trace, ms | warm step, µs | 99th percentile of cold steps, µs |\n|---|---|---|---|"
    )
    for name in engines:
        middle = [statistics.median(column) for column in zip(*(r[name] for r in rounds), strict=True)]
        print(f"| {name} {version(name)} | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.0f} |")
    print(f"\nmasks that differ from ours: {differences(engines, trace)}")


def timed(engine: Engine, trace: Sequence[int]) -> Timing:
    start = time.perf_counter()
    engine.compile()
    first = run(engine, trace)
    cold = time.perf_counter() - start
    warm = run(engine, trace)
    return Timing(cold * 1e3, statistics.mean(warm) * 1e6, float(np.percentile(first, 99)) * 1e6)


def run(engine: Engine, trace: Sequence[int]) -> list[float]:
    engine.restart()
    times: list[float] = []
    for token in trace:
        start = time.perf_counter()
        mask = engine.step(token)
        times.append(time.perf_counter() - start)
        assert int(mask[token >> 5]) >> (token & 31) & 1
    return times


def differences(engines: dict[str, Engine], trace: Sequence[int]) -> dict[str, int]:
    """In how many steps a peer's mask is another than ours, the end-of-sequence bit aside."""
    for engine in engines.values():
        engine.restart()
    count = dict.fromkeys(engines, 0)
    for token in trace:
        ours, *_ = masks = [np.array(engine.step(token)) for engine in engines.values()]
        for name, mask in zip(engines, masks, strict=True):
            other = ours ^ mask
            other[EOS >> 5] &= ~(1 << EOS)
            count[name] += bool(other.any())
    return count


def version(name: str) -> str:
    return metadata.version(name.split(",", maxsplit=1)[0])


def greedy(text: bytes, vocabulary: Vocabulary) -> list[int]:
    index = {token: i for i, token in enumerate(vocabulary.tokens) if token}
    tokens: list[int] = []
    while text:
        piece = next(text[:length] for length in range(min(len(text), 20), 0, -1) if text[:length] in index)
        tokens.append(index[piece])
        text = text[len(piece) :]
    return tokens


def tekken() -> Vocabulary:
    """The 131,072 tokens of mistral-common's tekken tokenizer."""
    import mistral_common

    path = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    data: Any = json.loads(path.read_text(encoding="utf-8"))
    special = data["config"]["default_num_special_tokens"]
    size = data["config"]["default_vocab_size"]
    pieces = [base64.b64decode(entry["token_bytes"]) for entry in data["vocab"][: size - special]]
    return Vocabulary([None] * special + pieces, {EOS})
