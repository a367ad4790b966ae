"""What a grammar says of a text: where it leaves the language, what may follow a prefix, and random examples.

It reads positions of a compiled grammar; it does not print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import BudgetError, InputError

if TYPE_CHECKING:
    import numpy as np

    from ctrldecode.grammar._position import Position
    from ctrldecode.grammar.grammar import Grammar
    from ctrldecode.grammar.potential import GrammarPotential

__all__ = ["Continuations", "Mismatch", "check", "continuations", "expected", "over_bytes", "sample"]

_PRINTABLE = range(0x20, 0x7F)


@dataclass(frozen=True)
class Mismatch:
    """The place where a text leaves a language.

    Attributes:
        offset: characters of the text that can still be continued to a text of the language.
        line: of the first character that cannot, from 1.
        column: of that character, from 1.
        expected: what could stand there, as the grammar shows it, sorted; "end of text" among them if the text may end.
    """

    offset: int
    line: int
    column: int
    expected: tuple[str, ...]


@dataclass(frozen=True)
class Continuations:
    """What may follow a prefix.

    Attributes:
        accepts: whether the text may end.
        tokens: for every set of terminals, those that a token ends or can still become, the ids of such tokens.
    """

    accepts: bool
    tokens: dict[tuple[str, ...], list[int]]


def over_bytes(grammar: Grammar, *, max_ignored: int | None = None) -> GrammarPotential:
    """The grammar over the 256 bytes, as tokens 0 to 255; token 256 ends a text."""
    return grammar.compile(Vocabulary([*(bytes([b]) for b in range(256)), None], {256}), max_ignored=max_ignored)


def check(potential: GrammarPotential, text: str) -> Mismatch | None:
    r"""Where a text leaves the language of a grammar over bytes; None if it belongs to it.

    Args:
        potential: of `over_bytes`.
        text: the whole text.

    Example:
        >>> from ctrldecode.grammar import Grammar
        >>> sums = over_bytes(Grammar('start: N ("+" N)*\nN: /[0-9]+/'))
        >>> check(sums, "1+2") is None
        True
        >>> check(sums, "1+*2")
        Mismatch(offset=2, line=1, column=3, expected=('N',))
    """
    position = potential.language.start()
    for offset, character in enumerate(text):
        following = potential.language.after(position, character.encode(errors="surrogatepass"))
        if following is None:
            return _mismatch(potential, position, text, offset)
        position = following
    return None if position.accepts else _mismatch(potential, position, text, len(text))


def _mismatch(potential: GrammarPotential, position: Position, text: str, offset: int) -> Mismatch:
    before = text[:offset]
    line_start = before.rfind("\n") + 1
    return Mismatch(offset, before.count("\n") + 1, offset - line_start + 1, expected(potential, position))


def expected(potential: GrammarPotential, position: Position) -> tuple[str, ...]:
    """What could stand at a position, as the grammar shows it, sorted; "end of text" at last if the text may end."""
    machine = potential.language.machine
    with potential.language.lock:
        terminals = {t for configuration in position.configurations for t in machine.expected(configuration)}
    return (*_names(potential, terminals), *(["end of text"] if position.accepts else []))


def _names(potential: GrammarPotential, terminals: set[int]) -> tuple[str, ...]:
    machine = potential.language.machine
    seen = {machine.terminals[t].shown for t in terminals - machine.ignored}
    return tuple(sorted(seen or ({"ignored text"} if terminals else ())))


def continuations(potential: GrammarPotential, prefix: str) -> Continuations:
    """The tokens that may follow a prefix, grouped by terminal.

    Args:
        potential: a compiled grammar.
        prefix: the text so far; it need not be made of whole lexemes.

    Raises:
        InputError: no text of the language begins with the prefix.
    """
    language = potential.language
    position = language.after(language.start(), prefix.encode()) if prefix else language.start()
    if position is None:
        raise InputError(
            f"no text of {potential.describe()} begins with {prefix!r}, or not with so much ignored text in a row as it has; `ctrldecode "
            "grammar check` shows where it leaves the language, and --max-ignored is the bound"
        )
    groups: dict[tuple[str, ...], list[int]] = {}
    trie = language.machine.trie
    with language.lock:
        for arrival in language.arrivals(position):
            possible = set(arrival.ended or language.machine.expected(arrival.configuration))
            groups.setdefault(_names(potential, possible), []).extend(trie.tokens_at(arrival.reached.nodes))
    return Continuations(position.accepts, {names: sorted(set(ids)) for names, ids in groups.items() if ids})


def sample(potential: GrammarPotential, rng: np.random.Generator, longest: int = 200) -> str:
    """A random text of the language: at each byte a uniform choice among terminals, then among printable bytes.

    Args:
        potential: of `over_bytes`.
        rng: the source of randomness.
        longest: the most bytes that a text may have.

    Raises:
        BudgetError: the shortest text has more than `longest` bytes.
    """
    start = potential.language.start()
    if start.cost > longest:
        raise BudgetError(
            f"the shortest text of {potential.describe()} has {start.cost:.0f} bytes, but only {longest} are allowed; allow more (--max-bytes)"
        )
    position: Position | None = start
    data = bytearray()
    while position is not None:
        groups = _byte_groups(potential, position, longest - len(data))
        if not groups or (position.accepts and int(rng.integers(len(groups) + 1)) == 0):
            break
        choices = groups[int(rng.integers(len(groups)))]
        data.append(choices[int(rng.integers(len(choices)))])
        position = position.step(data[-1])
    return data.decode()


def _byte_groups(potential: GrammarPotential, position: Position, left: int) -> list[list[int]]:
    """The bytes that may follow and leave enough room to finish, by terminal; printable ones where there are such."""
    groups: dict[tuple[int, ...], set[int]] = {}
    language = potential.language
    with language.lock:
        for arrival in language.arrivals(position):
            if arrival.cost <= left - 1:
                possible = arrival.ended or language.machine.expected(arrival.configuration)
                groups.setdefault(possible, set()).update(language.machine.trie.tokens_at(arrival.reached.nodes))
    return [sorted(found & set(_PRINTABLE)) or sorted(found) for _, found in sorted(groups.items()) if found]
