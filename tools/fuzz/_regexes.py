"""Regular expressions: those that are compiled match what `re.fullmatch` matches, and the others are refused."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ctrldecode import automata
from ctrldecode.core.vocabulary import Vocabulary
from tools.fuzz._runner import TooLong, Wrong, within

if TYPE_CHECKING:
    import random

    from ctrldecode.automata.dfa import TokenDFA

__all__ = ["Regexes", "byte_vocabulary", "regex"]

_LETTERS = "abAB01_ -.\n\t\x00é\u0130ßſK\u212a\u2028\ud7ff\ue000\uffff𝔸😀\U0010ffff"
_ATOMS = (*[r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r".", r"\n", r"\t", r"\x41", r"\u00e9", r"\.", r"\\", r"\/", r"[a-c]", r"[^a-c]", r"[\d_]", r"[^\s]", r"[a-z0-9é-ü]", r"[^\x00-\x7f]", r"[\w-]", r"[]", r"[^]a]", r"[]a]", r"\N{BULLET}"], " ", "é", "😀", "ß", "K")  # fmt: skip
_REPEATS = ("*", "+", "?", "{2}", "{0,2}", "{1,}", "{,3}", "{0}", "*?", "+?", "??", "{1,3}?")
_REFUSED = ("^", "$", r"\b", r"\B", r"\A", r"\Z", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"(a)\1", "(?P<n>a)(?P=n)", "(?>a|b)", "a*+", "(a)?(?(1)b|c)")  # fmt: skip
_GROUPS = ("({})", "(?:{})", "(?i:{})", "(?s:{})", "(?x: {} )", "(?a:{})", "(?m:{})", "(?-i:{})", "(?i)({})")
_NASTY = ("(", ")", "[", "]", "{", "}", "*", "\\", "|", "?", "\x00", "\ud800", "\udcff", "(?", "[^", "{99999}", "{1,70000}", "(?P<", "\\u", "\\N{", "[z-a]", "(?L)", "(?u)", "#", "(" * 300, "{4294967296}")  # fmt: skip
_TEXTS = 8
_LIMIT = 3000


@cache
def byte_vocabulary() -> Vocabulary:
    """The 256 bytes and an end."""
    return Vocabulary([*(bytes([b]) for b in range(256)), None], {256})


def regex(rng: random.Random, depth: int = 3) -> str:
    """A regular expression, most often one that is regular."""
    kind = rng.random()
    if depth == 0 or kind < 0.25:
        return re.escape(rng.choice(_LETTERS)) if rng.random() < 0.4 else rng.choice(_ATOMS)
    if kind < 0.5:
        return "".join(regex(rng, depth - 1) for _ in range(rng.randint(1, 3)))
    if kind < 0.65:
        return "|".join(regex(rng, depth - 1) for _ in range(rng.randint(1, 3)))
    if kind < 0.82:
        return f"(?:{regex(rng, depth - 1)}){rng.choice(_REPEATS)}"
    if kind < 0.98:
        return rng.choice(_GROUPS).format(regex(rng, depth - 1))
    return rng.choice(_REFUSED)


def mutated(rng: random.Random, text: str, pieces: tuple[str, ...]) -> str:
    """The text with some places cut out, doubled, exchanged or put in."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randint(0, len(text)), rng.randint(0, 3)
        piece = rng.choice(("", rng.choice(pieces), text[at : at + 5] * 2, chr(rng.choice((rng.randrange(128), rng.randrange(0x110000))))))  # fmt: skip
        text = text[:at] + piece + text[at + length :]
    return text


class Regexes:
    """The target."""

    name = "regex"

    def make(self, rng: random.Random) -> dict[str, Any]:
        """A pattern, and the seed of the texts it is tried on."""
        pattern = regex(rng, rng.randint(1, 4))
        if rng.random() < 0.3:
            pattern = mutated(rng, pattern, _NASTY)
        return {"pattern": pattern, "seed": rng.randrange(2**32)}

    def run(self, case: dict[str, Any]) -> str:
        """Compile, and compare on texts that the automaton takes, on those with a change, and on others."""
        dfa = automata.regex(byte_vocabulary(), case["pattern"], limit=_LIMIT)
        matches = re.compile(case["pattern"]).fullmatch
        rng = np.random.default_rng(case["seed"])
        for text in _texts(dfa, rng):
            try:
                with within(2.0):
                    wanted = matches(text) is not None
            except TooLong:
                return "slow re"
            if dfa.accepts(text) != wanted:
                raise Wrong(f"regex and re.fullmatch disagree: {case['pattern']!a} on {text!a}, re says {wanted}")
        return "compiled"


def _texts(dfa: TokenDFA, rng: np.random.Generator) -> list[str]:
    """Walks through the automaton that end in acceptance, where they are UTF-8, and texts near them."""
    found = ["", *("".join(rng.choice(list(_LETTERS), rng.integers(1, 6))) for _ in range(_TEXTS))]
    for _ in range(_TEXTS):
        walked = bytearray()
        state = int(dfa.start)
        for _ in range(12):
            open_ = np.flatnonzero(dfa.step(np.full(256, state), np.arange(256)) >= 0)
            if not len(open_):
                break
            walked.append(int(rng.choice(open_)))
            state = int(dfa.step(np.array([state]), np.array([walked[-1]]))[0])
        text = walked.decode(errors="ignore")
        at = int(rng.integers(0, len(text) + 1))
        found += [text, text[:at], text[:at] + str(rng.choice(list(_LETTERS))) + text[at + 1 :], text[at:]]
    return found
