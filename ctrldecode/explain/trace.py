"""Steps through a generation once more and records what every factor of a potential did to every token.

It knows models and potentials by their interfaces; what a class of potentials has to say for itself is in `reasons.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.core.potential import Potential, Product
from ctrldecode.errors import InputError
from ctrldecode.explain import reasons
from ctrldecode.explain._scores import View, view_of
from ctrldecode.explain._show import Namer
from ctrldecode.explain.record import Candidate, Effect, Fact, Factor, Removed, Setting, Step, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ctrldecode.core.language_model import LanguageModel
    from ctrldecode.core.potential import Support
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["trace"]

# Tokens that a factor made impossible and that get a reason: as many as a table shows without scrolling.
_REMOVED = 5

_Part = tuple[Potential[Any], float]


class _Place(NamedTuple):
    """A place in the text: the product's state, and what each factor in order explains itself by."""

    state: Any
    known: tuple[Any, ...]


def trace(
    lm: LanguageModel[Any],
    potential: Potential[Any] | None,
    prompt: Tensor,
    tokens: Sequence[int],
    *,
    vocabulary: Vocabulary,
    budget: int | None = None,
    support: Support | None = None,
    top: int = 8,
    look_ahead: bool = False,
    names: Callable[[int], str] | None = None,
    texts: tuple[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    asked: Callable[[Potential[Any]], str] | None = None,
) -> Trace:
    """What a potential did to every token of a text, one by one.

    The text may have been generated, or be any other. It is followed up to its end of sequence, or up to the first token of weight 0,
    that one included; how many tokens stand behind that is told as `Trace.rest`.

    Args:
        lm: the language model, at the temperature that is meant.
        potential: what controls the generation; a product is taken apart into its factors. None changes nothing.
        prompt: (1, P) token ids.
        tokens: the ids of the continuation.
        vocabulary: what tokens spell.
        budget: as `ControlProcessor.max_new_tokens`.
        support: as `ControlProcessor.support`; it comes behind the potential.
        top: how many candidates to record, before the potential and behind it.
        look_ahead: whether to record the place behind the last token, too, as a step without a token.
        names: how a token that is no text is shown; None shows its number.
        texts: prompt and continuation as text; None spells them by the vocabulary.
        settings: what else the record shall say about how the text came about.
        asked: what the user asked for that a factor brings about, such as the words; None knows nothing of that.

    Raises:
        InputError: sizes disagree, ids are out of range, there is nothing to explain, or more tokens than the budget.
        BudgetError: no text of the potential fits into the budget.
        PotentialError: a quotient is infinite, weights are NaN or +inf, or the support is of another potential.

    Example:
        >>> from ctrldecode.automata import TokenDFA
        >>> from ctrldecode.automata.potential import AutomatonPotential
        >>> from ctrldecode.core.vocabulary import Vocabulary
        >>> from ctrldecode.hmm.language_model import HMMLanguageModel
        >>> from ctrldecode.hmm.model import HMM
        >>> coins = HMM([1, 0], [[0.5, 0.5], [0, 1]], [[0.5, 0.5, 0], [0, 0, 1]], eos_token_ids=[2])
        >>> one_b = AutomatonPotential(TokenDFA([[0, 1, -1], [1, -1, -1]], start=0, accepting=[1], eos_token_ids=[2]))
        >>> vocabulary = Vocabulary([b"a", b"b", None], 2)
        >>> found = trace(HMMLanguageModel(coins), one_b, torch.tensor([[0]]), [1, 1], vocabulary=vocabulary)
        >>> found.ending, found.steps[1].effects[0].verdict
        ('forbidden', 'from state 1 it leads nowhere: no accepted text goes on that way')
    """
    tokens = list(tokens)
    walk = _Walk(lm, potential, support, top, Namer(vocabulary, names))
    walk.check(prompt, tokens, budget, look_ahead=look_ahead)
    steps, behind = walk.steps(prompt, tokens, budget, look_ahead=look_ahead)
    ending = walk.ending(steps, None if len(tokens) != budget else behind)
    rest = sum(token not in vocabulary.eos_token_ids for token in tokens[len(steps) :])
    # What stands behind an end of sequence is no part of the text; what stands behind a token of weight 0 was meant to be.
    meant = tokens[: len(steps)] if ending == "ended" else tokens
    said = texts or (_spelled(vocabulary, prompt[0].tolist()), _spelled(vocabulary, meant))
    pairs = tuple(Setting(name, value) for name, value in (settings or {}).items())
    return Trace(*said, ending, walk.factors(asked or _nothing), steps, pairs, rest)


def _nothing(potential: Potential[Any]) -> str:  # noqa: ARG001
    return ""


def _spelled(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return b"".join(vocabulary.tokens[token] or b"" for token in ids).decode(errors="replace")


class _Walk:
    """One text under one potential."""

    def __init__(
        self, lm: LanguageModel[Any], potential: Potential[Any] | None, support: Support | None, top: int, name: Namer
    ) -> None:
        # A potential by itself is a product, too: its state is then taken apart in one way.
        alone = Product([], [lm.size]) if potential is None else Product([(potential, 1.0)])
        self.product = potential if isinstance(potential, Product) else alone
        self.lm, self.support, self.top, self.name = lm, support, top, name

    def check(self, prompt: Tensor, tokens: Sequence[int], budget: int | None, *, look_ahead: bool) -> None:
        size = self.lm.size
        if {self.product.size, self.name.vocabulary.size} != {size}:
            raise InputError(
                f"model, potential and vocabulary must have one size, got {size}, {self.product.size} and "
                f"{self.name.vocabulary.size}; build all from Vocabulary(size=model.config.vocab_size)"
            )
        if prompt.dim() != 2 or len(prompt) != 1:
            raise InputError(f"one prompt is explained at a time, (1, P) ids, got shape {tuple(prompt.shape)}")
        if self.top < 1 or not (tokens or look_ahead):
            raise InputError("there is nothing to explain: give at least one token, and a top of at least 1")
        if any(not 0 <= token < size for token in tokens):
            raise InputError(f"tokens must be ids in [0, {size}), got {list(tokens)}")
        if budget is not None and len(tokens) > budget:
            raise InputError(f"the text has {len(tokens)} tokens, and the budget is {budget}; raise max_new_tokens")
        if self.support is not None:
            self.support.check(self.product)

    def factors(self, asked: Callable[[Potential[Any]], str]) -> tuple[Factor, ...]:
        order = self.product.in_order((None, *range(len(self.product.factors))))
        found = [
            Factor(reasons.name(factor), reasons.kind(factor), power, asked(factor)) for (factor, power), _ in order
        ]
        return (*found, *([] if self.support is None else [Factor(self.support.name, "support", 1.0)]))

    def ending(self, steps: tuple[Step, ...], cut: _Place | None) -> str:
        """How it ends; `cut` is the place behind the last token if that took the last of the budget."""
        last = steps[-1]
        if last.log_normaliser == -math.inf:
            return "dead end"
        if last.token is None:
            return "open"
        if last.log_final == -math.inf or last.token.kind == "end":
            return "forbidden" if last.log_final == -math.inf else "ended"
        return "complete" if cut is not None and self._may_end(cut) else "open"

    def _may_end(self, place: _Place) -> bool:
        """Whether every factor that judges ends of texts allows one here, and there is such a factor."""
        places = self.product.in_order(place.state)
        said = [reasons.may_end(factor, inner, self.name.vocabulary.eos_token_ids) for (factor, _), inner in places]
        return True in said and False not in said

    def steps(
        self, prompt: Tensor, tokens: Sequence[int], budget: int | None, *, look_ahead: bool
    ) -> tuple[tuple[Step, ...], _Place | None]:
        """A record of each token, and the place behind the last; None where there is none to go on from."""
        with torch.no_grad():
            told = self.lm.init(prompt)
            state = self.product.init(prompt.cpu(), None, None if budget is None else torch.tensor([budget]))
            place = _Place(state, self._known(state, None, b""))
            found: list[Step] = []
            following = None
            for token in [*tokens, *([None] if look_ahead else [])]:
                step, following = self._step(told, place, token, found[-1] if found else None)
                found.append(step)
                if following is None or token in self.name.vocabulary.eos_token_ids:
                    break
                place = following
                if len(found) < len(tokens) + look_ahead:
                    told = self.lm.step(told, torch.tensor([token]))
        return tuple(found), following

    def _known(self, state: Any, before: tuple[Any, ...] | None, piece: bytes) -> tuple[Any, ...]:
        """What each factor explains itself by, in order."""
        places = self.product.in_order(state)
        return tuple(
            reasons.placed(factor, inner, last, piece)
            for ((factor, _), inner), last in zip(places, before or [None] * len(places), strict=True)
        )

    def _behind(self, place: _Place, token: int) -> _Place:
        """The place behind a token."""
        state = self.product.step(place.state, torch.tensor([token]))
        return _Place(state, self._known(state, place.known, self.name.vocabulary.tokens[token] or b""))

    def _step(self, told: Any, place: _Place, token: int | None, last: Step | None) -> tuple[Step, _Place | None]:
        """The record of one place, and the place behind the token; None where there is none to go on from."""
        view = view_of(self.lm.log_weights(told), self.product, self.support, place.state)
        following = None
        if token is not None and view.scores[-1][token].item() > -math.inf:
            following = self._behind(place, token)
        effects = self._effects(view, place, following, token, last)
        own = effects[: len(self.product.factors)]
        gained = 0.0 if token is None else sum(effect.log_weight for effect in own)
        gone = view.scores[-1].isneginf() & ~view.log_probs.isneginf()
        step = Step(
            token=None if token is None else self.name(token),
            log_prob=_at(view.log_probs, token),
            log_final=_at(view.final, token),
            rank=0 if token is None else int((view.log_probs > view.log_probs[token]).sum()),
            log_normaliser=view.log_normaliser,
            log_weight=view.log_normaliser + (0.0 if last is None else last.log_weight),
            sum_log_weights=gained + (0.0 if last is None else last.sum_log_weights),
            masked=int(gone.sum()),
            mass=float(view.log_probs[gone].exp().sum()),
            moved=view.moved,
            candidates=self._candidates(view, token),
            effects=effects,
        )
        return step, following

    def _effects(
        self, view: View, place: _Place, following: _Place | None, token: int | None, last: Step | None
    ) -> tuple[Effect, ...]:
        places = self.product.in_order(place.state)
        behind = [None] * len(places) if following is None else following.known
        found: list[Effect] = []
        for at, (((factor, power), inner), known, after) in enumerate(zip(places, place.known, behind, strict=True)):
            weight = self._weight(view, at, (factor, power), inner, token)
            found.append(
                self._effect(
                    view,
                    at,
                    weight,
                    0.0 if last is None else last.effects[at].sum_log_weights,
                    facts=_paired(reasons.facts(factor, known), {} if after is None else reasons.facts(factor, after)),
                    why=_asker(factor, known),
                    token=token,
                )
            )
        if self.support is not None:
            inner = next((inner for (factor, _), inner in places if factor is self.support.factor), None)
            kept = math.nan if token is None else float(view.scores[-1][token]) - float(view.scores[-2][token])
            weight = 0.0 if math.isnan(kept) and token is not None else kept
            found.append(
                self._effect(
                    view, len(places), weight, 0.0, facts=(), why=_support_asker(self.support, inner), token=token
                )
            )
        return tuple(found)

    def _effect(
        self,
        view: View,
        at: int,
        weight: float,
        before: float,
        *,
        facts: tuple[Fact, ...],
        why: Callable[[int], str],
        token: int | None,
    ) -> Effect:
        """What the factor in a place of the order did; `before` is the sum of its log-weights up to here."""
        gone = view.scores[at + 1].isneginf() & ~view.scores[at].isneginf()
        likeliest = view.log_probs.masked_fill(~gone, -math.inf).topk(min(_REMOVED, int(gone.sum())))
        return Effect(
            log_weight=weight,
            sum_log_weights=before + (0.0 if math.isnan(weight) else weight),
            masked=int(gone.sum()),
            mass=float(view.log_probs[gone].exp().sum()),
            facts=facts,
            removed=tuple(
                Removed(self.name(other), value, why(other))
                for value, other in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
            ),
            verdict=why(token) if token is not None and weight == -math.inf else "",
            log_normaliser=float(view.scores[at + 1].double().logsumexp(-1)),
        )

    def _weight(self, view: View, at: int, part: _Part, inner: Any, token: int | None) -> float:
        """The log-weight of the chosen token; of one that was impossible already, what the factor itself says."""
        if token is None:
            return math.nan
        before, after = float(view.scores[at][token]), float(view.scores[at + 1][token])
        if before > -math.inf:
            return after - before
        factor, power = part
        alone = power * float(factor.log_weights(inner, torch.tensor([[token]]))[0, 0])
        return alone if alone < math.inf else 0.0

    def _candidates(self, view: View, token: int | None) -> tuple[Candidate, ...]:
        count = min(self.top, len(view.final))
        chosen = {*view.log_probs.topk(count).indices.tolist(), *([] if token is None else [token])}
        chosen |= {other for other in view.final.topk(count).indices.tolist() if float(view.final[other]) > -math.inf}
        order = sorted(chosen, key=lambda other: (-float(view.log_probs[other]), other))
        return tuple(
            Candidate(
                self.name(other),
                float(view.log_probs[other]),
                tuple(float(scores[other]) for scores in view.scores[1:]),
                float(view.final[other]),
            )
            for other in order
        )


def _at(values: Tensor, token: int | None) -> float:
    return math.nan if token is None else float(values[token])


def _paired(before: reasons.Facts, after: reasons.Facts) -> tuple[Fact, ...]:
    names = [*before, *(name for name in after if name not in before)]
    return tuple(Fact(name, before.get(name, ""), after.get(name, "")) for name in names)


def _asker(factor: Potential[Any], inner: Any) -> Callable[[int], str]:
    return lambda token: reasons.why(factor, inner, token)


def _support_asker(support: Support, inner: Any) -> Callable[[int], str]:
    return lambda token: reasons.support_why(support, inner, token)
