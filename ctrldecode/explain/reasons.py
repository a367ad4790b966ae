"""What a potential knows of a place in a text, and why a token has weight 0 there: one function a question, by the potential's class.

`Potential` has no methods for this, since most potentials have nothing to say beyond their weights. For a potential of your own
register on `kind`, `facts` and `why`, on `name` and `may_end` if what they say by default is not enough, and on `placed` if these need to know
the text before the place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import torch

from ctrldecode.automata.dfa import UNREACHABLE
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.core.potential import PerRow, Support
from ctrldecode.explain._grammars import GrammarPlace, place_of, what_is_known, why_not
from ctrldecode.explain._show import percent
from ctrldecode.grammar.joint import JointPotential
from ctrldecode.grammar.potential import GrammarPotential
from ctrldecode.guidance import ForbiddenTokens, Fudge, GeDi
from ctrldecode.hmm.lookahead import Lookahead

if TYPE_CHECKING:
    from ctrldecode.automata.dfa import TokenDFA

__all__ = ["facts", "kind", "may_end", "name", "placed", "support_why", "why"]

Facts = dict[str, "float | str"]


@singledispatch
def kind(potential: Any) -> str:  # noqa: ARG001
    """What sort of thing a potential is, in a word or two."""
    return "potential"


@singledispatch
def name(potential: Any) -> str:
    """What a potential is called, with what decides its weights; its power stands elsewhere."""
    return potential.describe()


@singledispatch
def may_end(potential: Any, state: Any, eos_token_ids: Sequence[int]) -> bool | None:
    """Whether the text may end where the one row of a state stands; None of a potential that does not judge that, by default a soft one."""
    if not potential.hard:
        return None
    return not bool(potential.log_weights(state, torch.tensor([list(eos_token_ids)])).isneginf().all())


@singledispatch
def facts(potential: Any, state: Any) -> Facts:  # noqa: ARG001
    """What a potential knows of the place where the one row of a state stands: names to numbers or texts."""
    return {}


@singledispatch
def why(potential: Any, state: Any, token: int) -> str:  # noqa: ARG001
    """Why a token has weight 0 where the one row of a state stands; only asked if it has. It stands behind the potential's name."""
    return "it gives weight 0 and no reason"


@singledispatch
def placed(potential: Any, state: Any, before: Any, piece: bytes) -> Any:  # noqa: ARG001
    """A state with what else it takes to explain it, which is then what `facts` and `why` are given: by default the state alone.

    Args:
        potential: whose state it is.
        state: one row.
        before: what this gave for the place before it; None at the beginning.
        piece: the bytes that stand between the two.
    """
    return state


def support_why(support: Support, state: Any, token: int) -> str:
    """Why a support does not keep a token; `state` is that of its factor, or None if it has none."""
    if isinstance(support.factor, GeDi):
        after = float(support.factor.log_posteriors_after(state, torch.tensor([[token]]))[0, 0])
        return f"behind it the posterior of {support.factor.target} is {percent(after)}, too low for {support.name}"
    return "it does not keep the token"


def _tokens(count: float) -> str:
    return f"{count:.0f} token{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------------------------------------ grammars


@kind.register
def _(potential: GrammarPotential) -> str:  # noqa: ARG001
    return "grammar"


@placed.register
def _(potential: GrammarPotential, state: Any, before: Any, piece: bytes) -> GrammarPlace:
    return place_of(potential, state, before, piece)


@facts.register
def _(potential: GrammarPotential, state: Any) -> Facts:
    return what_is_known(potential, place_of(potential, state, None, b""))


@why.register
def _(potential: GrammarPotential, state: Any, token: int) -> str:
    return why_not(potential, place_of(potential, state, None, b""), token)


@kind.register
def _(potential: JointPotential) -> str:  # noqa: ARG001
    return "grammar within an automaton"


@facts.register
def _(potential: JointPotential, state: Any) -> Facts:
    fewest, left = potential.fewest(state)[0], float(state.grammar.left[0])
    known: Facts = {} if fewest == math.inf or state.grammar.ended[0] else {"fewest tokens to a text of both": fewest}
    return known if left == math.inf or not known else {**known, "tokens left": left}


@why.register
def _(potential: JointPotential, state: Any, token: int) -> str:  # noqa: ARG001
    left = float(state.grammar.left[0])
    within = "" if left == math.inf else f" within the {_tokens(left)} left"
    return f"no text of both that goes on with it can be finished{within}"


# ------------------------------------------------------------------------------------------------------------ automata


@kind.register
def _(potential: AutomatonPotential) -> str:  # noqa: ARG001
    return "automaton"


@facts.register
def _(potential: AutomatonPotential, state: Any) -> Facts:
    if state.ended[0]:
        return {}
    return _automaton_facts(potential.dfa, int(state.states[0]), float(state.left[0]))


@why.register
def _(potential: AutomatonPotential, state: Any, token: int) -> str:
    return _automaton_why(potential.dfa, int(state.states[0]), float(state.left[0]), token)


def _automaton_facts(dfa: TokenDFA, where: int, left: float) -> Facts:
    if where < 0:
        return {}
    known: Facts = {
        "automaton state": f"{where} of {dfa.states}{', accepting' if dfa.accepting[where] else ''}",
        "fewest tokens to acceptance": float(dfa.accept_distance[where]),
    }
    return known if left == math.inf else {**known, "tokens left": left}


def _automaton_why(dfa: TokenDFA, where: int, left: float, token: int, ends: int = 0) -> str:
    """Why an automaton in a state forbids a token; `ends` is 1 if the end of sequence must fit into what is left, too."""
    if where < 0:
        return "no accepted text begins with what stands before it"
    if token in dfa.eos_token_ids:
        return f"state {where} does not accept: at least {_tokens(dfa.accept_distance[where])} more before the end"
    if not dfa.text[token]:
        return "it is no text: a special or unused token"
    target = int(dfa.table[where, dfa.classes[token]])
    if target < 0 or dfa.accept_distance[target] == UNREACHABLE:
        return f"from state {where} it leads nowhere: no accepted text goes on that way"
    needed = int(dfa.accept_distance[target]) + ends
    if needed > left - 1:
        return f"it leads from state {where} to {target}, {_tokens(needed)} from the end, and {max(left - 1, 0):.0f} would be left"
    return ""


# ---------------------------------------------------------------------------------------------------------- lookaheads


@kind.register
def _(potential: Lookahead) -> str:  # noqa: ARG001
    return "lookahead"


@name.register
def _(potential: Lookahead) -> str:
    others = {"patience": potential.patience, "urgency": potential.urgency, "strength": potential.strength}
    usual = {"patience": 1, "urgency": 0, "strength": 1}
    said = "".join(f", {name} {value:g}" for name, value in others.items() if value != usual[name])
    return f"{potential.describe()}, detail {potential.detail:g}{said}"


@may_end.register
def _(potential: Lookahead, state: Any, eos_token_ids: Sequence[int]) -> bool:  # noqa: ARG001
    where = int(state.node[0])
    return bool(state.finished[0]) or (where >= 0 and bool(potential.automaton.accepting[where]))


def _expectation(potential: Lookahead) -> str:
    """What `log_psi` is of a lookahead: always of the exact form, whatever the detail of the weights."""
    what = "that the text comes to be accepted"
    if potential.log_token_weights is not None:
        what = "that it is accepted, times its attribute weights"
    said = f"log {'probability' if potential.log_token_weights is None else 'expectation'} by the HMM {what}"
    return said if potential.strength == 1 else f"{said}, under strength {potential.strength:g}"


@facts.register
def _(potential: Lookahead, state: Any) -> Facts:
    known: Facts = {_expectation(potential): float(potential.log_psi(state)[0])}
    if bool(state.finished[0]):
        return known
    return {**known, **_automaton_facts(potential.automaton, int(state.node[0]), float(state.left[0]))}


@why.register
def _(potential: Lookahead, state: Any, token: int) -> str:
    ends = int(potential.limit == "eos")
    said = _automaton_why(potential.automaton, int(state.node[0]), float(state.left[0]), token, ends)
    if said:
        return said
    if bool(potential.log_weights(state, torch.tensor([[token]])).isneginf()):
        return "ψ is 0 behind it: its own weight is 0, or the HMM sees no way to go on"
    return "it is not among the candidates that were weighed"


# ------------------------------------------------------------------------------------------- posteriors and other judges


@kind.register
def _(potential: GeDi) -> str:  # noqa: ARG001
    return "posterior"


@facts.register
def _(potential: GeDi, state: Any) -> Facts:
    log_posteriors: list[float] = potential.log_posteriors(state)[0].tolist()
    return {f"P({name})": math.exp(value) for name, value in zip(potential.classes.names, log_posteriors, strict=True)}


@why.register
def _(potential: GeDi, state: Any, token: int) -> str:  # noqa: ARG001
    if token >= potential.class_lm.size:
        return f"the class LM knows ids below {potential.class_lm.size} only"
    return f"the class LM behind {potential.target} gives it probability 0"


@kind.register
def _(potential: Fudge) -> str:  # noqa: ARG001
    return "classifier"


@facts.register
def _(potential: Fudge, state: Any) -> Facts:  # noqa: ARG001
    return {"P(attribute)": math.exp(float(state.log_prob[0]))}


@why.register
def _(potential: Fudge, state: Any, token: int) -> str:
    if bool(potential.log_weights(state, torch.tensor([[token]])).isneginf()):
        return "the classifier gives the text behind it probability 0"
    return f"it is not among the {potential.candidates} likeliest tokens, which are all that the classifier is asked of"


@kind.register(LanguageModel)
def _(potential: Any) -> str:  # noqa: ARG001
    return "language model"


@may_end.register
def _(potential: ForbiddenTokens, state: Any, eos_token_ids: Sequence[int]) -> None:
    """A ban judges tokens and no texts: of one that was cut off it does not know."""


# ------------------------------------------------------------------------------------ one of several constraints, by row


@kind.register
def _(potential: PerRow) -> str:
    return kind(potential.potentials[0])


@placed.register
def _(potential: PerRow, state: Any, before: Any, piece: bytes) -> Any:
    inner = None if before is None else before.states[0]
    return state._replace(states=[placed(potential.potentials[state.which[0]], state.states[0], inner, piece)])


@facts.register
def _(potential: PerRow, state: Any) -> Facts:
    return facts(potential.potentials[state.which[0]], state.states[0])


@may_end.register
def _(potential: PerRow, state: Any, eos_token_ids: Sequence[int]) -> bool | None:
    return may_end(potential.potentials[state.which[0]], state.states[0], eos_token_ids)


@why.register
def _(potential: PerRow, state: Any, token: int) -> str:
    return why(potential.potentials[state.which[0]], state.states[0], token)
