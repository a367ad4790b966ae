"""What the arguments of a lookahead must be, each by itself and all of them together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.errors import AutomatonError, InputError
from ctrldecode.hmm.model import HMM

if TYPE_CHECKING:
    from torch import Tensor

    from ctrldecode.hmm.attributes import AttributeWeights

__all__ = ["check_belief", "check_kinds", "check_numbers", "check_parts", "check_patience"]

_LIMITS = ("eos", "open")


def check_kinds(hmm: object, automaton: object) -> None:
    """Raise `InputError` for what is no HMM, or neither None nor an automaton: callers without types."""
    wanted = (
        ("an HMM", hmm, HMM, "HMM.load(path, vocabulary) reads one, and ctrldecode distill makes one of a model"),
        ("a TokenDFA", automaton, TokenDFA, "the builders of ctrldecode.automata make one"),
    )
    for name, part, kind, remedy in wanted[: 1 if automaton is None else 2]:
        if not isinstance(part, kind):
            raise InputError(f"a lookahead wants {name}, got {type(part).__name__}; {remedy}")


def check_parts(hmm: HMM, automaton: TokenDFA, weights: AttributeWeights | None) -> None:
    """Raise unless all parts are over one vocabulary, and the automaton accepts something.

    Raises:
        InputError: sizes, vocabularies or ends of sequence differ.
        AutomatonError: the automaton accepts nothing.
    """
    parts = {"the HMM": hmm, "the automaton": automaton} | ({} if weights is None else {"the weights": weights})
    if len({part.size for part in parts.values()}) > 1:
        named = ", ".join(f"{name} {part.size}" for name, part in parts.items())
        raise InputError(
            f"a lookahead needs one vocabulary, got sizes: {named}; build all from the model's own vocabulary"
        )
    known = {hmm.vocabulary_fingerprint, None if weights is None else weights.vocabulary_fingerprint}
    known.add(None if automaton.vocabulary is None else automaton.vocabulary.fingerprint)
    if len(known - {None}) > 1:
        raise InputError(
            "HMM, automaton and weights were made for different vocabularies of one size; make all of them for the model in use"
        )
    if len({tuple(part.eos_token_ids) for part in parts.values()}) > 1:
        named = ", ".join(f"{name} {tuple(part.eos_token_ids)}" for name, part in parts.items())
        raise InputError(
            f"the parts of a lookahead must end a text by the same ids, got: {named}; make all of them with those of the model"
        )
    if automaton.is_empty:
        raise AutomatonError(
            "the automaton of the lookahead accepts no text, so nothing could be generated; its conditions exclude one another, or "
            "the vocabulary cannot spell what they ask for"
        )


def check_numbers(max_new_tokens: int, limit: Any, candidates: float | None, detail: float, strength: float) -> None:
    """Raise `InputError` for a number that is out of range."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if limit not in _LIMITS:
        raise InputError(f"limit must be one of {', '.join(_LIMITS)}, got {limit!r}")
    if not 0 <= detail <= 1:
        raise InputError(f"detail must be in 0 to 1, got {detail}")
    if not 0 < strength < math.inf:
        raise InputError(f"strength must be a positive number, got {strength}; leave the lookahead out for none")
    if candidates is not None and not (0 < candidates < 1 or (1 <= candidates < math.inf and candidates % 1 == 0)):
        raise InputError(f"candidates must be None, a number of tokens, or a tolerance in (0, 1); got {candidates}")


def check_patience(patience: float, urgency: float, *, alone: bool) -> None:
    """Raise `InputError` for numbers that are out of range, or beside what they cannot stand beside."""
    if not 1 <= patience < math.inf:
        raise InputError(f"patience must be a number of at least 1, got {patience}; 1 waits for nothing")
    if not 0 <= urgency < math.inf:
        raise InputError(f"urgency must be a number of at least 0, got {urgency}; 0 lets the exponent as it is")
    if not alone and (patience > 1 or urgency > 0):
        raise InputError(
            "patience and urgency weigh all tokens, by ψ itself; leave out candidates and strength (an exponent, lookahead ** 2, can stand beside them)"
        )


def check_belief(belief: Tensor, wanted: tuple[int, int]) -> None:
    """Raise `InputError` unless beliefs (B, H) of a prior can be divided by their sums."""
    if tuple(belief.shape) != wanted:
        raise InputError(f"the prior must return beliefs of shape {wanted}, got shape {tuple(belief.shape)}")
    sums = belief.sum(-1)
    if not bool((belief >= 0).all() & (sums > 0).all() & sums.isfinite().all()):  # false for NaN too
        raise InputError(
            f"the prior must return non-negative beliefs with a positive, finite sum, got values of {float(belief.min()):g} to "
            f"{float(belief.max()):g} and sums of {float(sums.min()):g} to {float(sums.max()):g}; return probabilities"
        )
