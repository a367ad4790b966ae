"""The kernels in torch, on any device: matrix products over the whole vocabulary. For CUDA and for very large batches.

Arguments were validated by the package; nothing is checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctrldecode.kernels.hmm._edges import Edges
from ctrldecode.kernels.hmm._emission import Emission, rows
from ctrldecode.kernels.hmm._product import product

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["candidate_pass", "edge_sums", "filter_step", "scaled_product", "table_step", "vocabulary_pass"]

# Entries of E that are gathered at once: 16 MiB in float32, as much again for each step of decoding.
_BLOCK = 1 << 22

# A class with a quarter of all tokens is multiplied with all of them: to gather its rows of E would cost as much.
_GREAT = 4
# From this many tokens on a class has a matrix product of its own.
_MANY = 16


def filter_step(
    emission: Emission, transition: Tensor, predicted: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the forward filter; see the package."""
    known = tokens >= 0
    seen = rows(emission, tokens.clamp(min=0)).double() * predicted  # a product of float32 cannot underflow in double
    evidence = torch.where(known, seen.sum(1), 1.0)
    update = known & (evidence > 0)
    posterior = seen / torch.where(update, evidence, 1.0).unsqueeze(1)
    posterior = torch.where(update.unsqueeze(1), posterior, predicted).float()
    return posterior, posterior @ transition, evidence.log().float()


def vocabulary_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """All tokens; see the package.

    One matrix product gives den, and num for the classes that hold a quarter of V or more. The tokens of smaller ones are
    gathered: where many of them share a class in a product of their own, the rest one by one.
    """
    counts = torch.bincount(classes, minlength=columns.shape[1])
    great = (counts >= max(1, len(classes) // _GREAT)).nonzero().flatten().tolist()
    found = product(emission, torch.cat([predicted, *(_picked(tilted, columns[:, kind]) for kind in great)]))
    den, *parts = found.unflatten(0, (1 + len(great), len(predicted)))
    num = parts[0] if parts else torch.empty_like(den)
    for kind, part in zip(great[1:], parts[1:], strict=True):
        torch.where(classes == kind, part, num, out=num)
    small = counts < max(1, len(classes) // _GREAT)
    many = small & (counts >= _MANY)
    for kind in many.nonzero().flatten().tolist():
        for tokens in _split((classes == kind).nonzero().flatten(), emission):
            num[:, tokens] = _picked(tilted, columns[:, kind]) @ rows(emission, tokens).T
    few = (small & ~many)[classes].nonzero().flatten()
    for tokens in few.split(max(1, _BLOCK // max(predicted.numel(), 1))):
        chosen = _picked(tilted, columns[:, classes[tokens]])  # (B, n, H)
        num[:, tokens] = torch.einsum("nh,bnh->bn", rows(emission, tokens), chosen)
    return num, den


def _picked(tilted: Tensor, columns: Tensor) -> Tensor:
    """tilted[columns], and zeros where a column is −1: (..., H)."""
    if not len(tilted):
        return tilted.new_zeros((*columns.shape, tilted.shape[1]))
    return torch.where((columns >= 0).unsqueeze(-1), tilted[columns.clamp(min=0)], 0.0)


def _split(tokens: Tensor, emission: Emission) -> tuple[Tensor, ...]:
    return tokens.split(max(1, _BLOCK // max(emission.values.shape[1], 1)))


def candidate_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Some tokens of every row; see the package."""
    matrix = rows(emission, tokens)  # (B, K, H)
    den = torch.einsum("bkh,bh->bk", matrix, predicted)
    column = columns.gather(1, classes[tokens].long())
    return torch.einsum("bkh,bkh->bk", matrix, _picked(tilted, column)), den


def edge_sums(
    emission: Emission,
    classes: Tensor,
    table: Tensor,
    accepting: Tensor,
    eos_token_ids: Sequence[int],
    weights: Tensor | None = None,
) -> Edges:
    """Class sums, then edge sums; see the package."""
    sums = _class_sums(emission, classes, table.shape[1], weights)
    size = len(table)
    taken = torch.bincount(classes, minlength=table.shape[1]) > 0
    source, kind = ((table >= 0) & taken).nonzero(as_tuple=True)
    pairs, place = (source * size + table[source, kind]).unique(return_inverse=True)
    totals = sums.new_zeros((len(pairs), sums.shape[1]))
    step = max(1, _BLOCK // max(sums.shape[1], 1))
    for low in range(0, len(kind), step):
        totals.index_add_(0, place[low : low + step], sums[kind[low : low + step]])
    ends = rows(emission, torch.tensor(list(eos_token_ids), device=table.device)).sum(0)
    final = torch.where(accepting.unsqueeze(1), ends, 0.0)
    return Edges(pairs // size, pairs % size, totals.float(), final)


def _class_sums(emission: Emission, classes: Tensor, count: int, weights: Tensor | None) -> Tensor:
    """Σ_{v∈c} w(v) E[v], (C, H) float64: a class may hold all of V, and float32 would lose digits."""
    states = emission.values.shape[1]
    totals = torch.zeros((count, states), dtype=torch.float64, device=classes.device)
    step = max(1, _BLOCK // max(states, 1))
    every = torch.arange(len(classes), device=classes.device)
    for tokens in every.split(step):
        block = rows(emission, tokens).double()
        if weights is not None:
            block *= weights[tokens].unsqueeze(1)
        totals.index_add_(0, classes[tokens].long(), block)
    return totals


def table_step(edges: Edges, transition: Tensor, future: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """One more remaining token; see the package."""
    return scaled_product(*_gathered(edges, future, log_scale), transition)


def scaled_product(total: Tensor, log_total: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """A·G for G = total (Q, H) times e**log_total (Q,): rows with a largest entry of 1, and the logarithm of what it was."""
    found = total @ transition.T
    largest = found.amax(1)
    return found / torch.where(largest > 0, largest, 1.0).unsqueeze(1), log_total + largest.log()


def _gathered(edges: Edges, future: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """G_r, (Q, H) float32 with the greatest term of each row 1, and the logarithm of what that was, (Q,)."""
    terms = edges.sums.double() * future[edges.target]  # double: a product of float32 never underflows there
    terms = torch.cat([terms, edges.final.double()])
    own = torch.arange(len(edges.final), device=future.device)
    source = torch.cat([edges.source, own])
    scale = torch.cat([log_scale[edges.target].double(), log_scale.new_zeros(len(own), dtype=torch.float64)])
    largest = terms.amax(1)
    log_term = scale + largest.log()  # −inf where a term is zero in every state
    log_total = log_term.new_full((len(own),), -torch.inf).scatter_reduce(0, source, log_term, "amax")
    gap = torch.where(largest > 0, log_term - log_total[source], -torch.inf).exp()
    terms *= (gap / torch.where(largest > 0, largest, 1.0)).unsqueeze(1)
    total = terms.new_zeros(edges.final.shape).index_add_(0, source, terms)
    return total.float(), log_total.to(log_scale.dtype)
