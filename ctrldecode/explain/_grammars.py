"""What a grammar knows of a place and why it masks a token there, in words. `reasons.py` says which potentials this is for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ctrldecode.explain._show import shortened, visible
from ctrldecode.grammar._lexemes import Lexemes

if TYPE_CHECKING:
    from ctrldecode.grammar._position import Position
    from ctrldecode.grammar.potential import GrammarPotential, GrammarState

__all__ = ["GrammarPlace", "place_of", "what_is_known", "why_not"]


class GrammarPlace(NamedTuple):
    """The one row of a grammar's state, and the text that led there.

    Attributes:
        position: None once no text of the language begins so.
        left: tokens that may still come.
        ended: whether an end-of-sequence token was read.
        lexemes: the text, and where its last lexemes begin.
    """

    position: Position | None
    left: float
    ended: bool
    lexemes: Lexemes


def place_of(
    potential: GrammarPotential, state: GrammarState | GrammarPlace, before: GrammarPlace | None, piece: bytes
) -> GrammarPlace:
    """The place of a state, behind the place before it and the bytes that came since."""
    if isinstance(state, GrammarPlace):
        return state
    position = state.positions[0]
    if before is not None:
        lexemes = before.lexemes.read(potential, piece)
    else:
        lexemes = Lexemes(b"", {}) if position is None else Lexemes.at(position)
    return GrammarPlace(position, state.left[0], state.ended[0], lexemes)


def what_is_known(potential: GrammarPotential, place: GrammarPlace) -> dict[str, float | str]:
    """What may follow, and what finishing takes."""
    if place.ended or place.position is None:
        return {}
    needed: dict[str, float | str] = {}
    if place.left < math.inf:
        needed = {"tokens left": place.left, "tokens that suffice to finish": place.position.cost}
    return {"expects": _expected(potential, place.position, place.lexemes), **needed}


def why_not(potential: GrammarPotential, place: GrammarPlace, token: int) -> str:
    """Why a token has weight 0."""
    position = place.position
    if position is None:
        return f"no text of {potential.describe()} begins with what stands before it"
    if token in potential.vocabulary.eos_token_ids:
        return f"the text cannot end here; expected: {_expected(potential, position, place.lexemes)}"
    piece = potential.vocabulary.tokens[token]
    if piece is None:
        return "it is no text: a special or unused token"
    following = position.step(token)
    if following is not None:
        more = f"{following.cost:.0f} token{'' if following.cost == 1 else 's'}"
        return f"it fits, but finishing may take {more} more, and {place.left - 1:.0f} would be left"
    return _where_it_leaves(potential, position, place.lexemes, piece)


def _where_it_leaves(potential: GrammarPotential, position: Position, lexemes: Lexemes, piece: bytes) -> str:
    """How many bytes of a token fit, and what is expected behind them."""
    fits = 0
    while fits < len(piece) and (after := potential.language.after(position, piece[fits : fits + 1])) is not None:
        position, fits = after, fits + 1
    said = _expected(potential, position, lexemes.read(potential, piece[:fits]))
    start = f"“{visible(piece[:fits])}” fits, then " if fits else ""
    return f"{start}“{visible(piece[fits:])}” cannot stand here; expected: {said}"


def _expected(potential: GrammarPotential, position: Position, lexemes: Lexemes) -> str:
    """What could stand at a position: terminals that begin there, those that go on with what stands of them, the end."""
    fresh, going = lexemes.begun(potential, position)
    seen = [one for one in going if one.terminals]
    said = [*fresh, *(_more_of(one.terminals, one.text) for one in seen)]
    if not said and position.configurations and not position.accepts:
        said = ["ignored text"]
    return ", ".join([*said, *(["end of text"] if position.accepts else [])]) or "nothing"


def _more_of(terminals: tuple[str, ...], text: bytes) -> str:
    names = " or ".join(terminals)
    return f"more of {names} (begun with “{shortened(visible(text))}”)" if text else f"more of {names}"
