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
        lines.append("%ignore " + draw(st.sampled_from(['"c"', "/c+/", "/ca?/", "/bb/", names[-1]])))
    return "\n".join(lines) + "\n"


def texts(longest: int) -> list[str]:
    """Every text over the alphabet up to a length, shortest first."""
    return ["".join(letters) for length in range(longest + 1) for letters in product(ALPHABET, repeat=length)]


def opened(text: str, parser: str) -> Lark | None:
    """lark in the mode of that name; None if lark refuses the grammar."""
    lexer = {"lalr": "contextual", "earley": "dynamic_complete"}[parser]
    try:
        return Lark(text, parser=parser, lexer=lexer)  # pyright: ignore[reportArgumentType]  lark wants literals
    except LarkError:
        return None


def language(text: str, longest: int, parser: str) -> set[str] | None:
    """The texts up to a length that lark takes; None if lark refuses the grammar."""
    lark = opened(text, parser)
    return None if lark is None else {candidate for candidate in texts(longest) if parses(lark, candidate)}


def parses(lark: Lark, text: str) -> bool:
    """Whether lark takes a text. A text that it takes in two ways and then trips over counts, as it does for `Grammar`."""
    try:
        lark.parse(text)
    except LarkError:
        return False
    except RuntimeError as error:
        if "multiple start symbol" not in str(error):
            raise
    return True
