"""The E-step of EM in torch, on CPU and CUDA: scaled forward-backward over packed sequences.

Rows are sorted by length and stored a time step after the other, so that rows of different lengths cost what they hold and
every step is one GEMM over the rows that are still running. With filtered â_t, evidence c_t and backward b_t of Rabiner (1989),

    R_t = E[x_t] ∘ b_t / c_t        b_{t−1} = A R_t        γ_t = â_t ∘ b_t        Σ_t ξ_t = A ∘ Σ_t â_{t−1}ᵀ R_t

where the last sum is one GEMM a batch, and the emission counts are sums of rows of γ grouped by token. Nothing of the size of
E is made but the counts themselves.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Counts", "expected_counts", "log_likelihood", "zero_counts"]


class Counts(NamedTuple):
    """Expected sufficient statistics of a set of sequences, as in `_em_reference`.

    Attributes:
        initial: (H,).
        transition: (H, H).
        emission: (V, H).
        log_likelihood: () float64.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor
    log_likelihood: Tensor


class _Packed(NamedTuple):
    """Sequences a time step after the other, longest first within a step.

    Attributes:
        order: (B,) which row stands where.
        bounds: T + 1 offsets; step t holds positions bounds[t] to bounds[t + 1], of rows 0, 1, 2 ... in `order`.
        tokens: (N,) their tokens, 0 where missing.
        missing: (N,) bool, or None if no token is.
    """

    order: Tensor
    bounds: list[int]
    tokens: Tensor
    missing: Tensor | None


def zero_counts(states: int, size: int, device: torch.device | str = "cpu") -> Counts:
    """Counts of no sequences, float32, to be added to."""
    shapes = ((states,), (states, states), (size, states))
    initial, transition, emission = (torch.zeros(shape, device=device) for shape in shapes)
    return Counts(initial, transition, emission, torch.zeros((), dtype=torch.float64, device=device))


def expected_counts(
    initial: Tensor, transition: Tensor, emission: Tensor, tokens: Tensor, lengths: Tensor, into: Counts
) -> None:
    """Add the expected counts of a batch to those of `into`, in place; its emission counts may be larger than memory allows twice.

    Args:
        initial: (H,) float32 or float64 P(z_0).
        transition: (H, H) P(z_{t+1} = column | z_t = row).
        emission: (V, H) P(x_t = row | z_t = column).
        tokens: (B, T) integers, −1 where a token is missing: its emission is 1 in every state.
        lengths: (B,) how many positions of each row belong to it.
        into: counts so far. A row that cannot be emitted makes the log-likelihood −inf and adds nothing else.
    """
    packed = _pack(tokens, lengths)
    if not packed.bounds[-1]:
        return
    filtered, evidence = _forward(initial, transition, emission, packed)
    into.log_likelihood.add_(evidence.double().log().sum())
    ratios, posterior = _backward(transition, emission, packed, filtered, evidence)
    first, after = packed.bounds[1], packed.bounds[-1]
    into.initial.add_(posterior[:first].sum(0))
    if after > first:
        into.transition.addcmul_(transition, _before(filtered, packed.bounds).T @ ratios[first:])
    _add_by_token(into.emission, packed, posterior)


def log_likelihood(initial: Tensor, transition: Tensor, emission: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """log P(x) of every row, (B,) float64; arguments as for `expected_counts`."""
    packed = _pack(tokens, lengths)
    _, evidence = _forward(initial, transition, emission, packed, keep=False)
    total = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    logs = evidence.double().log()
    for start, end in pairwise(packed.bounds):
        total[: end - start] += logs[start:end]
    return torch.empty_like(total).index_copy_(0, packed.order, total)


def _pack(tokens: Tensor, lengths: Tensor) -> _Packed:
    lengths, order = lengths.sort(descending=True, stable=True)
    steps = int(lengths[0]) if len(lengths) else 0
    running = torch.arange(steps, device=tokens.device)[:, None] < lengths  # (T, B), each row of it True, then False
    bounds = [0, *running.sum(1).cumsum(0).tolist()]
    flat = tokens[order, :steps].T[running].long()
    missing = flat < 0
    return _Packed(order, bounds, flat.clamp_(min=0), missing if bool(missing.any()) else None)


def _likelihoods(emission: Tensor, packed: _Packed, start: int, end: int) -> Tensor:
    """(n, H) P(x_t | z_t = h) of the positions of one step, ones where the token is missing."""
    rows = emission.index_select(0, packed.tokens[start:end])
    return rows if packed.missing is None else rows.masked_fill_(packed.missing[start:end, None], 1.0)


def _forward(
    initial: Tensor, transition: Tensor, emission: Tensor, packed: _Packed, *, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """(N, H) P(z_t | x_≤t), empty unless kept, and (N,) P(x_t | x_<t); both 0 from where a row becomes impossible."""
    states, total = len(initial), packed.bounds[-1]
    filtered = initial.new_empty(total if keep else 0, states)
    evidence = initial.new_empty(total)
    joint = initial
    for step, (start, end) in enumerate(pairwise(packed.bounds)):
        rows = end - start
        predicted = initial.expand(rows, -1) if step == 0 else joint[:rows] @ transition
        out = filtered[start:end] if keep else None
        joint = torch.mul(predicted, _likelihoods(emission, packed, start, end), out=out)
        mass = evidence[start:end].copy_(joint.sum(1))
        joint.div_(mass.masked_fill(mass == 0, 1.0)[:, None])
    return filtered, evidence


def _backward(
    transition: Tensor, emission: Tensor, packed: _Packed, filtered: Tensor, evidence: Tensor
) -> tuple[Tensor, Tensor]:
    """R and γ, both (N, H); see the module."""
    ratios, posterior = torch.empty_like(filtered), torch.empty_like(filtered)
    bounds = packed.bounds
    possible = torch.ones(bounds[1], dtype=filtered.dtype, device=filtered.device)
    for start, end in pairwise(bounds):
        possible[: end - start] *= evidence[start:end] > 0
    scale = torch.where(evidence > 0, 1.0 / evidence, 0.0)
    backward = possible.new_empty(0, len(transition))
    for start, end in reversed(list(pairwise(bounds))):
        ending = possible[len(backward) : end - start, None].expand(
            -1, len(transition)
        )  # rows whose last position this is
        backward = torch.cat([backward, ending]) if len(ending) else backward
        torch.mul(filtered[start:end], backward, out=posterior[start:end])
        ratio = torch.mul(_likelihoods(emission, packed, start, end), backward, out=ratios[start:end])
        ratio.mul_(scale[start:end, None])
        backward = ratio @ transition.T
    return ratios, posterior


def _before(filtered: Tensor, bounds: list[int]) -> Tensor:
    """(N − n_0, H): for every position but the first of each row, what was filtered one step before it."""
    widths = [end - start for start, end in pairwise(bounds)]
    if widths[-1] == widths[0]:
        return filtered[: -widths[0]]
    steps = zip(bounds, widths[1:], strict=False)
    return torch.cat([filtered[start : start + width] for start, width in steps])


def _add_by_token(counts: Tensor, packed: _Packed, posterior: Tensor) -> None:
    """Σ of the rows of posterior (N, H) that have a token, added to that token's row of counts (V, H).

    Rows are summed token by token first: a sum of few terms before it is added to a large one, as float32 wants it.
    """
    order = packed.tokens.argsort(stable=True)
    if packed.missing is not None:
        order = order[~packed.missing[order]]
    present, sizes = packed.tokens[order].unique_consecutive(return_counts=True)
    if len(present):
        sums = torch.nn.functional.embedding_bag(order, posterior, sizes.cumsum(0) - sizes, mode="sum")
        counts.index_add_(0, present, sums)
