"""Regular expressions as deterministic automata over bytes: the texts that match as a whole.

As a set of texts, which of several matches is preferred does not matter, so greedy and reluctant repeats are one.
"""

from __future__ import annotations

import re

import numpy as np

from ctrldecode.automata._bytes import ByteDFA, byte_classes, explored
from ctrldecode.automata._nfa import Nfa, refusal
from ctrldecode.errors import AutomatonError, AutomatonLimitError, GrammarLimitError

__all__ = ["full_match"]

_REMEDIES = {
    "an anchor or word boundary": "the pattern is matched against the whole text, so ^ and $ are not needed; for words use contains(...)",
    "an atomic group": "write it as a plain group",
    "a possessive repeat": "write it as a plain repeat",
}
_REMEDY = "a set of texts is meant: combine automata with & | ~ instead"


def full_match(pattern: str, limit: int) -> ByteDFA:
    """The texts that `re.fullmatch` matches.

    Raises:
        AutomatonError: it is no regular expression, or uses what is not regular.
        AutomatonLimitError: it needs more than `limit` states.
    """
    _check(pattern)
    nfa = Nfa(limit=10 * limit)  # a state of the subset construction holds several
    try:
        entry = nfa.add_pattern(pattern, 0, "pattern")
    except GrammarLimitError as error:
        raise AutomatonLimitError(
            f"the pattern needs more than limit={limit} states; shorten counted repeats such as {{0,1000}}, or pass a larger limit"
        ) from error
    closures = [_closure(nfa, state) for state in range(len(nfa.matches))]

    def step(states: frozenset[int], byte: int) -> frozenset[int] | None:
        targets = {target for state in states for low, high, target in nfa.reads[state] if low <= byte <= high}
        return frozenset().union(*(closures[target] for target in targets)) if targets else None

    def accepts(states: frozenset[int]) -> bool:
        return any(nfa.matches[state] >= 0 for state in states)

    return explored(closures[entry], step, accepts, byte_classes([_intervals(nfa)]), limit)


def _check(pattern: str) -> None:
    try:
        _, construct = refusal(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise AutomatonError(f"/{pattern}/ is no regular expression that Python's re can read: {error}") from error
    if construct:
        remedy = _REMEDIES.get(construct, _REMEDY)
        raise AutomatonError(f"/{pattern}/ uses {construct}, which no finite automaton follows; {remedy}")


def _closure(nfa: Nfa, state: int) -> frozenset[int]:
    """The states that read a byte or match, reached without input."""
    seen = {state}
    waiting = [state]
    while waiting:
        new = set(nfa.choices[waiting.pop()]) - seen
        seen |= new
        waiting.extend(new)
    return frozenset(s for s in seen if nfa.reads[s] or nfa.matches[s] >= 0)


def _intervals(nfa: Nfa) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(256,) the interval of each byte between all the bounds at which some transition begins or ends."""
    cuts = np.zeros(257, np.int64)
    for edges in nfa.reads:
        for low, high, _ in edges:
            cuts[[low, high + 1]] = 1
    return np.cumsum(cuts)[:256]
