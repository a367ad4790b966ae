"""The one interface of the project: `Potential`, its algebra, and how states are indexed and joined.

It knows nothing of models, tokenizers, grammars or Hugging Face. To write a potential of your own, subclass `Potential`,
set `size`, and write `init`, `log_weights` and `step`; then run `ctrldecode.laws.check` on it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ctrldecode.core._records import cat, take
from ctrldecode.errors import InputError, PotentialError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Potential", "Product", "Support", "cat", "check_potential", "per_row", "take"]

S = TypeVar("S")


class Potential(ABC, Generic[S]):
    """A function ψ from token prefixes to [0, ∞), given by the increments of its logarithm.

    ψ(prefix) estimates E_p[Φ(x) | x starts with prefix], where Φ is what the user wants of the finished text; the ideal
    next-token distribution is p(v | prefix) ψ(prefix·v) / ψ(prefix).

    Law: along any sequence, Σ_t log_weights(state_t)[x_t] = log ψ(x) − log ψ(ε). A row that has ended (an end-of-sequence
    token was stepped) is neutral: all its weights are 0. The weight of the end-of-sequence token carries the terminal Φ.

    A state is an immutable record with the batch on axis 0: tensors and arrays (axis 0), lists (one item a row), and
    tuples, named tuples or frozen dataclasses of these. `take` and `cat` work on any such record.

    Attributes:
        size: V, the number of token ids that a model's head scores.
        rows: None if any number of rows is fine; n if the rows belong to n different constraints in equal blocks, in
            order (see `per_row`).
        hard: whether every log-weight is 0 or −inf; consumers may then save a pass over the vocabulary.
        parallel: whether `step_all` costs less than one `step` after the other, as it does where a network reads.
        fingerprint: hex digest of all that decides the log-weights, so that what was learned of a potential is not used for
            another; "" if it cannot tell.
    """

    size: int
    rows: int | None = None
    hard: bool = False
    parallel: bool = False
    fingerprint: str = ""

    @abstractmethod
    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> S:
        """State after the prompts.

        Args:
            prompts: (B, P) token ids.
            mask: (B, P) bool, False where a position is padding; None means no padding.
            budget: (B,) how many new tokens may still come, the end-of-sequence token among them; None means no limit.
        """

    @abstractmethod
    def log_weights(self, state: S, tokens: Tensor | None = None) -> Tensor:
        """log ψ(x·v) − log ψ(x) for every row.

        Args:
            state: a state of B rows.
            tokens: (B, K) candidate ids, or None for all V.

        Returns:
            (B, V) or (B, K) float32. −inf is allowed; NaN and +inf never are.
        """

    @abstractmethod
    def step(self, state: S, tokens: Tensor) -> S:
        """State after one more token a row, tokens (B,). The old state stays valid."""

    def step_all(self, state: S, tokens: Tensor) -> list[S]:
        """The states after each of K ≥ 1 more tokens a row, tokens (B, K), as K calls of `step` give them."""
        states: list[S] = []
        for token in tokens.unbind(1):
            state = self.step(state, token)
            states.append(state)
        return states

    def add_log_weights(self, state: S, scores: Tensor) -> None:
        """Add the log-weights to scores (B, V) in place. Hard masks override it to apply their packed bits."""
        scores += self.log_weights(state).to(scores.device)

    def add_power(self, state: S, scores: Tensor, power: float) -> None:
        """As `add_log_weights`, for ψ^power with power > 0; `Product` calls it. A potential that heeds the scores overrides it."""
        if power == 1 or self.hard:
            self.add_log_weights(state, scores)
        else:
            scores += power * self.log_weights(state).to(scores.device)

    def describe(self) -> str:
        """One line for error messages."""
        return type(self).__name__

    # What is no potential, or no number, gets NotImplemented: Python then names both types in a TypeError of its own.

    def __mul__(self, other: Potential[Any]) -> Product:
        if not isinstance(other, Potential):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
            return NotImplemented
        return Product([*_factors(self), *_factors(other)], [_size(self), _size(other)])

    def __truediv__(self, other: Potential[Any]) -> Product:
        if not isinstance(other, Potential):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
            return NotImplemented
        return self * other**-1.0

    def __pow__(self, exponent: float) -> Product:
        if not isinstance(exponent, Real):
            return NotImplemented
        return Product([(factor, power * exponent) for factor, power in _factors(self)], [_size(self)])


def check_potential(given: object, who: str) -> None:
    """Refuse what is no potential, and a potential that does not say its size.

    Args:
        given: what a caller without types gave.
        who: what it was given to, for the message.

    Raises:
        InputError: it is no potential.
        PotentialError: it has no size.
    """
    if not isinstance(given, Potential):
        got = f"the class {given.__name__}" if isinstance(given, type) else f"an object of type {type(given).__name__}"
        raise InputError(
            f"{who} wants a potential, got {got}; compile a grammar with grammar.compile(vocabulary), wrap an automaton in "
            "AutomatonPotential(automaton) and a model of transformers in CausalLM(model), make an object of a class, and join several "
            "potentials with *"
        )
    _size(given)  # pyright: ignore[reportUnknownArgumentType]  of whatever state


def _size(potential: Potential[Any]) -> int:
    """V of a potential, if it says it."""
    size: object = getattr(potential, "size", None)  # a class that only inherits the annotation has none
    if not isinstance(size, Integral) or size < 1:
        got = "none" if size is None else repr(size)
        raise PotentialError(
            f"{potential.describe()} must have a size, a whole number above 0, got {got}; set self.size (or size in its class) to the number "
            "of token ids that the model's head scores"
        )
    return int(size)


def _factors(potential: Potential[Any]) -> tuple[tuple[Potential[Any], float], ...]:
    return potential.factors if isinstance(potential, Product) else ((potential, 1.0),)


class Product(Potential[tuple[Any, ...]]):
    """Π_i ψ_i^{a_i}: the only combinator that `*`, `/` and `**` need, since exponents of products multiply.

    A weight of zero under a factor with a positive exponent is zero, whatever the others say. Zero to a negative power
    with no positive factor at zero is +inf, which no potential may return: it raises `PotentialError`. An exponent of zero
    removes the factor: 0⁰ = 1.
    """

    def __init__(self, factors: Sequence[tuple[Potential[Any], float]], sizes: Sequence[int] = ()) -> None:
        """A product of (potential, exponent); `sizes` are those of products whose factors all had exponent zero."""
        kept = tuple((factor, float(power)) for factor, power in factors if power != 0)
        for factor, _ in factors:
            check_potential(factor, "a product")
        found = {*sizes, *(factor.size for factor, _ in factors)}
        if len(found) != 1:
            raise InputError(
                f"a product needs potentials over one vocabulary, got sizes {sorted(found)}; build them from the same "
                "Vocabulary(size=model.config.vocab_size)"
            )
        if not all(math.isfinite(power) for _, power in factors):
            raise InputError("an exponent of a potential must be a finite number")
        blocks = {factor.rows for factor, _ in kept} - {None}
        if len(blocks) > 1:
            raise InputError(
                f"per_row potentials for different numbers of rows cannot be multiplied: {sorted(map(str, blocks))}"
            )
        self.size: int = found.pop()
        self.rows: int | None = blocks.pop() if blocks else None
        self.factors = kept
        self.hard: bool = all(factor.hard and power > 0 for factor, power in kept)
        self.parallel: bool = any(factor.parallel for factor, _ in kept)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # some factors work theirs out on demand, at a price
        """Hex digest of the factors' and their exponents; "" if one cannot tell."""
        prints = [factor.fingerprint for factor, _ in self.factors]
        if not all(prints):
            return ""
        parts = "*".join(f"{own}^{power!r}" for own, (_, power) in zip(prints, self.factors, strict=True))
        return hashlib.sha256(parts.encode()).hexdigest()

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> tuple[Any, ...]:
        rows = torch.zeros(len(prompts), dtype=torch.int8)  # carries the batch size when every exponent is zero
        return (rows, *(factor.init(prompts, mask, budget) for factor, _ in self.factors))

    def log_weights(self, state: tuple[Any, ...], tokens: Tensor | None = None) -> Tensor:
        width = self.size if tokens is None else tokens.shape[1]
        device = None if tokens is None else tokens.device
        total = torch.zeros(len(state[0]), width, device=device)
        poles = None
        for (factor, power), inner in self.in_order(state):
            weights = factor.log_weights(inner, tokens)
            total = total.to(weights.device)
            if power < 0:
                pole = torch.isneginf(weights) & ~torch.isneginf(total)
                poles = pole if poles is None else poles | pole
                weights = weights.masked_fill(pole | torch.isneginf(total), 0.0)
            total = total + power * weights
        if poles is not None:
            _check_poles(poles, tokens)
        return total

    def in_order(self, state: tuple[Any, ...]) -> list[tuple[tuple[Potential[Any], float], Any]]:
        """Factors with their states, hard ones first, so that others need not heed what they forbid.

        Negative exponents come last, so that the zeros of the others are known before a quotient is taken.
        """
        pairs = zip(self.factors, state[1:], strict=True)
        return sorted(pairs, key=lambda pair: (pair[0][1] < 0, not pair[0][0].hard))

    def step(self, state: tuple[Any, ...], tokens: Tensor) -> tuple[Any, ...]:
        inner = (factor.step(part, tokens) for (factor, _), part in zip(self.factors, state[1:], strict=True))
        return (state[0], *inner)

    def step_all(self, state: tuple[Any, ...], tokens: Tensor) -> list[tuple[Any, ...]]:
        inner = [factor.step_all(part, tokens) for (factor, _), part in zip(self.factors, state[1:], strict=True)]
        return [(state[0], *(part[at] for part in inner)) for at in range(tokens.shape[1])]

    def add_log_weights(self, state: tuple[Any, ...], scores: Tensor) -> None:
        self.add_power(state, scores, 1.0)

    def add_power(self, state: tuple[Any, ...], scores: Tensor, power: float) -> None:
        for (factor, exponent), inner in self.in_order(state):
            if exponent > 0:
                factor.add_power(inner, scores, power * exponent)
                continue
            weights = factor.log_weights(inner).to(scores.device)
            gone = torch.isneginf(scores)  # forbidden by the others, or by the model
            _check_poles(torch.isneginf(weights) & ~gone, None)
            scores += power * exponent * weights.masked_fill(gone, 0.0)

    def describe(self) -> str:
        return " * ".join(f.describe() if a == 1 else f"{f.describe()}**{a:g}" for f, a in self.factors) or "1"


def _check_poles(poles: Tensor, tokens: Tensor | None) -> None:
    """Refuse a quotient that is infinite somewhere: poles (B, V), or (B, K) for candidates (B, K)."""
    if not bool(poles.any()):
        return
    row, column = (int(i) for i in poles.nonzero()[0])
    token = column if tokens is None else int(tokens[row, column])
    raise PotentialError(
        f"row {row}: token {token} has weight 0 under a potential that is divided by, so the quotient is infinite; "
        "multiply by a potential that also forbids the token, or give the divisor support everywhere"
    )


class PerRowState(NamedTuple):
    """State of `per_row`: for each row, which potential it has and that potential's state of one row."""

    which: list[int]
    states: list[Any]


class PerRow(Potential[PerRowState]):
    """A different constraint for every prompt of a batch; see `per_row`."""

    def __init__(self, potentials: Sequence[Potential[Any]]) -> None:
        for potential in potentials:
            check_potential(potential, "per_row")
        sizes = {potential.size for potential in potentials}
        if len(sizes) != 1:
            raise InputError(
                f"per_row needs at least one potential, all over one vocabulary; got sizes {sorted(sizes)}"
            )
        if any(potential.rows is not None for potential in potentials):
            raise InputError("per_row cannot be nested; pass one flat list")
        self.potentials: tuple[Potential[Any], ...] = tuple(potentials)
        self.size: int = sizes.pop()
        self.rows: int | None = len(self.potentials)
        self.hard: bool = all(potential.hard for potential in potentials)
        self.parallel: bool = any(potential.parallel for potential in potentials)

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> PerRowState:
        block, rest = divmod(len(prompts), len(self.potentials))
        if rest or not block:
            raise InputError(
                f"per_row has {len(self.potentials)} potentials, one a prompt, but the batch has {len(prompts)} rows; it needs "
                "a multiple (beams or return sequences of each prompt side by side)"
            )
        which = [row // block for row in range(len(prompts))]
        states = [
            self.potentials[i].init(*(None if x is None else x[row : row + 1] for x in (prompts, mask, budget)))  # type: ignore[arg-type]
            for row, i in enumerate(which)
        ]
        return PerRowState(which, states)

    def log_weights(self, state: PerRowState, tokens: Tensor | None = None) -> Tensor:
        rows = [
            self.potentials[i].log_weights(inner, None if tokens is None else tokens[row : row + 1])
            for row, (i, inner) in enumerate(zip(*state, strict=True))
        ]
        return torch.cat(rows)

    def step(self, state: PerRowState, tokens: Tensor) -> PerRowState:
        states = [
            self.potentials[i].step(inner, tokens[row : row + 1])
            for row, (i, inner) in enumerate(zip(*state, strict=True))
        ]
        return PerRowState(state.which, states)

    def step_all(self, state: PerRowState, tokens: Tensor) -> list[PerRowState]:
        rows = [
            self.potentials[i].step_all(inner, tokens[row : row + 1])
            for row, (i, inner) in enumerate(zip(*state, strict=True))
        ]
        return [PerRowState(state.which, [reached[at] for reached in rows]) for at in range(tokens.shape[1])]

    def add_log_weights(self, state: PerRowState, scores: Tensor) -> None:
        self.add_power(state, scores, 1.0)

    def add_power(self, state: PerRowState, scores: Tensor, power: float) -> None:
        for row, (i, inner) in enumerate(zip(*state, strict=True)):
            self.potentials[i].add_power(inner, scores[row : row + 1], power)

    def describe(self) -> str:
        return f"per_row of {len(self.potentials)}"


def per_row(potentials: Sequence[Potential[Any]]) -> PerRow:
    """One potential for every prompt of a batch, in order.

    With beams or several return sequences the rows of one prompt stand side by side, as `generate` lays them out, so the
    batch may have any multiple of `len(potentials)` rows.
    """
    return PerRow(potentials)


class Support(NamedTuple):
    """A rule for which tokens stay possible that reads the model's own scores, so it is no potential.

    GeDi's ρ/τ filter, the plausibility cut of contrastive decoding (Li et al. 2023, eq. 3) and top-p are of this kind. A
    consumer (`ControlProcessor`) applies it after the potential.

    Attributes:
        keep: maps the model's log-probabilities (B, V) and the potential's log-weights (B, V) to a bool mask (B, V) of the
            tokens to keep. A row may not come back empty. With a factor it gets the factor's state of the rows, too.
        name: for reports and errors.
        factor: a potential whose state the rule reads; the consumer's potential is this one, or a product with it.
    """

    keep: Callable[..., Tensor]
    name: str = "support"
    factor: Potential[Any] | None = None

    def kept(self, potential: Potential[Any], state: Any, log_probs: Tensor, log_weights: Tensor) -> Tensor:
        """The mask (B, V) for a consumer's potential and its state."""
        if self.factor is None:
            return self.keep(log_probs, log_weights)
        return self.keep(log_probs, log_weights, self._state(potential, state))

    def check(self, potential: Potential[Any]) -> None:
        """Refuse a potential in which the factor does not occur.

        Raises:
            InputError: it does not.
        """
        if self.factor is not None and all(factor is not self.factor for factor, _ in _factors(potential)):
            raise InputError(
                f"{self.name} reads the state of {self.factor.describe()}, which is no factor of {potential.describe()}; give the "
                "support of a potential that is in the product, and not within per_row"
            )

    def _state(self, potential: Potential[Any], state: Any) -> Any:
        if potential is self.factor:
            return state
        pairs = zip(_factors(potential), state[1:], strict=True)
        return next(inner for (factor, _), inner in pairs if factor is self.factor)
