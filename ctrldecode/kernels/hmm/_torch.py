"""The kernels in torch, on any device: matrix products over the whole vocabulary. Fastest for large batches, and on CUDA.

Arguments were validated by the package; nothing is checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctrldecode.kernels.hmm._edges import Edges
from ctrldecode.kernels.hmm._emission import Emission, levels, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["candidate_pass", "edge_sums", "filter_step", "table_step", "vocabulary_pass"]

# Entries of E that are gathered at once: 64 MiB in float32.
_BLOCK = 1 << 24


def filter_step(
    emission: Emission, transition: Tensor, predicted: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the forward filter; see the package."""
    known = tokens >= 0
    seen = (
        rows(emission, tokens.clamp(min=0)).double() * predicted
    )  # double: a product of float32 never underflows there
    evidence = torch.where(known, seen.sum(1), 1.0)
    update = known & (evidence > 0)
    posterior = seen / torch.where(update, evidence, 1.0).unsqueeze(1)
    posterior = torch.where(update.unsqueeze(1), posterior, predicted).float()
    return posterior, posterior @ transition, evidence.log().float()


def vocabulary_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """All tokens; see the package."""
    matrix = levels(emission.values)
    den = (predicted * emission.state_scale) @ matrix.T
    num = torch.zeros_like(den)
    folded = tilted * emission.state_scale
    for b in range(len(predicted)):
        column = columns[b].long()[classes.long()]
        for n in column.unique().tolist():
            if n >= 0:
                num[b] = torch.where(column == n, matrix @ folded[n], num[b])
    return num * emission.scale, den * emission.scale


def candidate_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Some tokens of every row; see the package."""
    matrix = rows(emission, tokens)  # (B, K, H)
    den = torch.einsum("bkh,bh->bk", matrix, predicted)
    column = columns.long().gather(1, classes.long()[tokens])
    if not len(tilted):
        return torch.zeros_like(den), den
    num = torch.einsum("bkh,bkh->bk", matrix, tilted[column.clamp(min=0)])
    return torch.where(column >= 0, num, 0.0), den


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
    source, kind = (table >= 0).nonzero(as_tuple=True)
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
    total, log_total = _gathered(edges, future, log_scale)
    found = total @ transition.T
    largest = found.amax(1) if found.numel() else found.new_zeros(len(found))
    return found / torch.where(largest > 0, largest, 1.0).unsqueeze(1), log_total + largest.log()


def _gathered(edges: Edges, future: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """G_r, (Q, H) float32 with the greatest term of each row 1, and the logarithm of what that was, (Q,)."""
    terms = edges.sums.double() * future[edges.target]  # double: a product of float32 never underflows there
    terms = torch.cat([terms, edges.final.double()])
    own = torch.arange(len(edges.final), device=future.device)
    source = torch.cat([edges.source, own])
    scale = torch.cat([log_scale[edges.target].double(), log_scale.new_zeros(len(own), dtype=torch.float64)])
    largest = terms.amax(1) if terms.numel() else terms.new_zeros(len(terms))
    log_term = scale + largest.log()  # −inf where a term is zero in every state
    log_total = log_term.new_full((len(own),), -torch.inf).scatter_reduce(0, source, log_term, "amax")
    gap = torch.where(largest > 0, log_term - log_total[source], -torch.inf).exp()
    terms *= (gap / torch.where(largest > 0, largest, 1.0)).unsqueeze(1)
    total = terms.new_zeros(edges.final.shape).index_add_(0, source, terms)
    return total.float(), log_total.to(log_scale.dtype)
