"""Where the lexemes that are under way began in a text, and what may follow there in words. It prints nothing.

A configuration does not know the bytes that it has read, since masks do not need them; explanations do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ctrldecode.grammar._machine import Configuration

if TYPE_CHECKING:
    from ctrldecode.grammar._position import Position
    from ctrldecode.grammar.potential import GrammarPotential

__all__ = ["Begun", "Lexemes"]


class Begun(NamedTuple):
    """Terminals that one of which goes on at a place.

    Attributes:
        terminals: as the grammar shows them, sorted; none if the lexeme is one that the parser does not see.
        text: the bytes that stand of it; empty if they are not known.
    """

    terminals: tuple[str, ...]
    text: bytes


class Lexemes(NamedTuple):
    """A text with the places at which its last lexemes begin.

    Attributes:
        text: the bytes so far.
        starts: for every configuration, where the lexeme begins that is under way or comes next.
    """

    text: bytes
    starts: dict[Configuration, int]

    @classmethod
    def at(cls, position: Position) -> Lexemes:
        """The place at which a text begins; what is under way there already has no known beginning."""
        return cls(b"", dict.fromkeys(position.configurations, 0))

    def read(self, potential: GrammarPotential, data: bytes) -> Lexemes:
        """The place behind more bytes."""
        machine, starts = potential.language.machine, self.starts
        for end, byte in enumerate(data, len(self.text) + 1):
            found: dict[Configuration, int] = {}
            delta = machine.automaton.delta
            for (node, lexer), start in starts.items():
                state = int(delta[lexer, byte])
                if state >= 0:
                    begin = end - 1 if machine.automaton.is_boundary(lexer) else start
                    here = Configuration(node, state)
                    found[here] = min(begin, found.get(here, begin))
            for here in list(found):
                for _, after in machine.ends(here):
                    found.setdefault(after, end)
            starts = {
                here: found[here] if here in found else _earliest(found, here.lexer, end)
                for here in machine.join(found)
            }
        return Lexemes(self.text + data, starts)

    def begun(self, potential: GrammarPotential, position: Position) -> tuple[tuple[str, ...], list[Begun]]:
        """What may follow at the position of this text: terminals that begin there, and those that go on."""
        machine = potential.language.machine
        fresh: set[int] = set()
        going: dict[bytes, set[int]] = {}
        for here in position.configurations:
            terminals = set(machine.expected(here))
            if machine.automaton.is_boundary(here.lexer):
                fresh |= terminals
            elif terminals:
                going.setdefault(self.text[self.starts.get(here, len(self.text)) :], set()).update(terminals)

        def names(terminals: set[int]) -> tuple[str, ...]:
            return tuple(sorted({machine.terminals[t].shown for t in terminals - machine.ignored}))

        return names(fresh), [Begun(names(terminals), text) for text, terminals in sorted(going.items())]


def _earliest(found: dict[Configuration, int], lexer: int, end: int) -> int:
    """The start of a configuration that stands for several of one lexer state."""
    return min((start for other, start in found.items() if other.lexer == lexer), default=end)
