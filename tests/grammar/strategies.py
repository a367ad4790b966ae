"""Random small grammars for property tests, and lark as the oracle."""

from __future__ import annotations

from itertools import product

from hypothesis import strategies as st
from lark import Lark
from lark.exceptions import LarkError

ALPHABET = "abc"

# Terminals that overlap, nest, and match leftmost-first in ways that differ from longest match.
PATTERNS = [
    '"a"',
    '"b"',
    '"c"',
    '"ab"',
    '"ba"',
    '"abc"',
    "/a+/",
    "/[ab]+/",
    "/a|ab/",
    "/ab|a/",
    "/a*b/",
    "/b+?c/",
    "/(ab)+/",
    "/a(bc)?/",
    "/c.?/",
    "/[^a]/",
    "/(a|b)c/",
    '"a"i',
]


@st.composite
def grammars(draw: st.DrawFn) -> str:
    """A grammar of one to three rules over two to four terminals, sometimes with an ignored terminal."""
    names = ["T", "U", "W", "X"][: draw(st.integers(2, 4))]
    patterns = draw(st.lists(st.sampled_from(PATTERNS), min_size=len(names), max_size=len(names), unique=True))
    priorities = draw(st.lists(st.sampled_from(["", "", "", ".1", ".-1"]), min_size=len(names), max_size=len(names)))
    rules = ["start", "p", "q"][: draw(st.integers(1, 3))]
    symbol = st.sampled_from([*names, *rules, *names])
    quantified = st.tuples(symbol, st.sampled_from(["", "", "", "?", "*", "+"])).map("".join)
    sequence = st.lists(quantified, min_size=0, max_size=3).map(" ".join)
    lines = [f"{rule}: " + " | ".join(draw(st.lists(sequence, min_size=1, max_size=3))) for rule in rules]
    lines += [
        f"{name}{priority}: {pattern}" for name, priority, pattern in zip(names, priorities, patterns, strict=True)
    ]
    if draw(st.booleans()):
        lines.append("%ignore " + draw(st.sampled_from(['"c"', "/c+/", "/ca?/", "/bb/"])))
    return "\n".join(lines) + "\n"


def texts(longest: int) -> list[str]:
    """Every text over the alphabet up to a length, shortest first."""
    return ["".join(letters) for length in range(longest + 1) for letters in product(ALPHABET, repeat=length)]


def language(text: str, longest: int) -> set[str] | None:
    """The texts up to a length that lark's LALR parser takes; None if lark refuses the grammar."""
    try:
        lark = Lark(text, parser="lalr")
    except LarkError:
        return None
    return {candidate for candidate in texts(longest) if _parses(lark, candidate)}


def _parses(lark: Lark, text: str) -> bool:
    try:
        lark.parse(text)
    except LarkError:
        return False
    return True
