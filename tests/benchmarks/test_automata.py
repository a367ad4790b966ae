"""Time and size of compiled token automata at 50,000 tokens.

"5 clauses" are five clauses of four words each, every word two tokens of GPT-2. Times are medians over interleaved rounds, with the
token trie and the kernels at hand, as they are from the second automaton of a process on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from transformers import AutoTokenizer

from ctrldecode.automata import TokenDFA, contains, contains_all, forbids, regex, word_count
from ctrldecode.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.benchmarks.report import Report

ROUNDS = 7
WORDS_A_CLAUSE, CLAUSES = 4, 5
CANDIDATES = [
    "snowflake",
    "dragonfly",
    "butterfly",
    "honeycomb",
    "wheelbarrow",
    "sunflower",
    "moonbeam",
    "teacup",
    "teapot",
    "birdhouse",
    "treehouse",
    "doghouse",
    "playmate",
    "classmate",
    "toothbrush",
    "hairbrush",
    "paintbrush",
    "bookworm",
    "earthworm",
    "goldfish",
    "starfish",
    "jellyfish",
    "catfish",
    "swordfish",
    "ladybug",
    "bumblebee",
    "grasshopper",
    "woodpecker",
    "nightingale",
    "hummingbird",
    "blackberry",
    "strawberry",
    "cupcake",
    "pancake",
    "cheesecake",
    "raincoat",
    "raindrop",
    "snowman",
    "snowdrift",
    "seashell",
    "seaweed",
    "sandcastle",
    "lighthouse",
    "sailboat",
    "rowboat",
]


@pytest.fixture(scope="module")
def gpt2(shared: Path) -> tuple[Vocabulary, list[list[str]]]:
    """GPT-2's vocabulary, and clauses of words that it writes with two tokens."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / "gpt2")
    words = [word for word in CANDIDATES if len(tokenizer.encode(" " + word)) == 2]
    assert len(words) >= WORDS_A_CLAUSE * CLAUSES
    clauses = [words[i * WORDS_A_CLAUSE : (i + 1) * WORDS_A_CLAUSE] for i in range(CLAUSES)]
    return Vocabulary.from_tokenizer(tokenizer), clauses


@pytest.mark.bench
def test_compiling(gpt2: tuple[Vocabulary, list[list[str]]], tinytales_vocabulary: Vocabulary, report: Report) -> None:
    large, clauses = gpt2
    cases: dict[str, Callable[[], TokenDFA]] = {
        "5 clauses of 4 two-token words, GPT-2": lambda: contains_all(large, clauses),
        "contains dog or dogs, GPT-2": lambda: contains(large, ["dog", "dogs"]),
        "forbids 8 words, GPT-2": lambda: forbids(large, clauses[0] + clauses[1]),
        "20 to 30 words, GPT-2": lambda: word_count(large, 20, 30),
        r"regex `\w+( \w+)*\.`, GPT-2": lambda: regex(large, r"\w+( \w+)*\."),
        "3 words in any order, GPT-2": lambda: contains_all(large, ["dog", "red ball", "happy"]),
        "3 words in any order, tinytales": lambda: contains_all(tinytales_vocabulary, ["dog", "red ball", "happy"]),
        "the same, and 20 to 30 words": lambda: (
            contains_all(tinytales_vocabulary, ["dog", "red ball", "happy"]) & word_count(tinytales_vocabulary, 20, 30)
        ),
    }
    built = {name: build() for name, build in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, build in cases.items():
            begin = time.perf_counter()
            build()
            seconds[name].append(time.perf_counter() - begin)
    rows = [
        [name, f"{1e3 * np.median(seconds[name]):.0f}", str(dfa.states), str(dfa.table.shape[1]), str(len(dfa.edges()))]
        for name, dfa in built.items()
    ]
    report.add("automata", ["automaton", "ms", "states", "classes", "edges"], rows)
    story = " ".join(clause[-1] for clause in clauses)
    assert built["5 clauses of 4 two-token words, GPT-2"].accepts(story)
