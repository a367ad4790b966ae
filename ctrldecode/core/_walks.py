"""The random walk along which `laws` compares numbers. It knows no laws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctrldecode.core.potential import Potential

__all__ = ["TOLERANCE", "Walk", "choose", "prompts_for", "walked"]

# Batches of another size change the order of sums: a few units of float32, more behind layers. A real error is far larger.
TOLERANCE = 1e-3
_PROMPT_LENGTH = 3  # new tokens in a prompt that was not given


@dataclass(frozen=True)
class Walk:
    """A random walk of B rows over allowed tokens, and what the laws need beside it.

    Attributes:
        potential: the one that is checked.
        prompts: (B, P).
        budget: (B,) or None.
        tokens: (B, n), n ≤ `steps`; shorter if a row came to where nothing is allowed.
        states: n + 1 of them, the first after the prompts.
        weights: n + 1 copies (B, V) of the log-weights, taken when each state was new.
        eos_token_ids: ids that end a text.
        log_psi: log ψ of the new tokens of a row, or None.
        rng: for choices of the laws.
        tolerance: how far apart numbers that should be equal may lie.
    """

    potential: Potential[Any]
    prompts: Tensor
    budget: Tensor | None
    tokens: Tensor
    states: tuple[Any, ...]
    weights: tuple[Tensor, ...]
    eos_token_ids: tuple[int, ...]
    log_psi: Callable[[list[int]], float] | None
    rng: torch.Generator
    tolerance: float = TOLERANCE


def prompts_for(
    potential: Potential[Any], given: Tensor | None, batch: int, ends: tuple[int, ...], rng: torch.Generator
) -> Tensor:
    """(B, P) with B a multiple of the rows given, or of the potential's constraints, at least `batch`."""
    if batch < 2:
        raise InputError(f"batch must be at least 2, got {batch}: one row cannot be compared with another")
    unit = potential.rows or 1
    if given is None:
        others = torch.tensor([token for token in range(potential.size) if token not in ends])
        given = others[torch.randint(len(others), (unit, _PROMPT_LENGTH), generator=rng)] if unit > 1 else None
        if given is None:
            return others[torch.randint(len(others), (batch, _PROMPT_LENGTH), generator=rng)]
    if given.dim() != 2 or not given.numel() or len(given) % unit:
        raise InputError(
            f"prompts must be (n, P) with at least one token a row and n a multiple of {unit}, got {tuple(given.shape)}"
        )
    return given.repeat_interleave(-(-batch // len(given)), dim=0)


def walked(
    potential: Potential[Any],
    prompts: Tensor,
    budget: Tensor | None,
    steps: int,
    ends: tuple[int, ...],
    log_psi: Callable[[list[int]], float] | None,
    rng: torch.Generator,
    seen: Callable[[Tensor, str], None],
) -> Walk:
    """A walk of `steps` tokens, or of fewer; `seen` gets the log-weights as they come, and where that is."""
    states = [potential.init(prompts, None, budget)]
    weights: list[Tensor] = []
    tokens: list[Tensor] = []
    for at in range(steps + 1):
        new = potential.log_weights(states[-1])
        seen(new, f"after {at} tokens")
        weights.append(new.detach().cpu().clone())
        if at == steps or bool(weights[-1].isneginf().all(-1).any()):
            break
        tokens.append(choose(weights[-1], ends, rng))
        states.append(potential.step(states[-1], tokens[-1]))
    path = torch.stack(tokens, dim=1) if tokens else prompts[:, :0]
    return Walk(potential, prompts, budget, path, tuple(states), tuple(weights), ends, log_psi, rng)


def choose(weights: Tensor, ends: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """A random allowed token a row, no end of sequence unless there is nothing else; any token where none is allowed."""
    chance = (~weights.isneginf()).float()
    chance[:, list(ends)] *= 1e-9
    chance[chance.sum(-1) == 0] = 1.0
    return torch.multinomial(chance, 1, generator=rng)[:, 0]
