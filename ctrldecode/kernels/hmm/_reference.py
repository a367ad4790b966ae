"""The oracle: every kernel in numpy float64, as close to its equation as it can be written. Slow, and never dispatched to.

Arguments may be tensors or arrays; results are float64 arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ctrldecode.kernels.hmm._edges import Edges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ctrldecode.kernels.hmm._emission import Emission

    F64 = NDArray[np.float64]

__all__ = ["candidate_pass", "dense", "edge_sums", "filter_step", "table_step", "vocabulary_pass"]


def dense(emission: Emission) -> F64:
    """E, (V, H)."""
    values = _array(emission.values)
    level = values**2 if str(emission.values.dtype) == "torch.uint8" else values
    scale = _array(emission.scale)
    return level * np.tile(scale, (1, level.shape[1] // scale.shape[1])) * _array(emission.state_scale)


def filter_step(emission: Emission, transition: Tensor, predicted: Tensor, tokens: Tensor) -> tuple[F64, F64, F64]:
    """P(z_t | x_≤t), P(z_{t+1} | x_≤t), log P(x_t | x_<t): (B, H), (B, H), (B,)."""
    matrix, prior, step = dense(emission), _array(predicted), _array(transition)
    posterior, log_evidence = prior.copy(), np.zeros(len(prior))
    for b, token in enumerate(_array(tokens).astype(int)):
        if token < 0:
            continue
        joint = prior[b] * matrix[token]
        evidence = joint.sum()
        log_evidence[b] = np.log(evidence) if evidence > 0 else -np.inf
        if evidence > 0:
            posterior[b] = joint / evidence
    return posterior, posterior @ step, log_evidence


def vocabulary_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor
) -> tuple[F64, F64]:
    """num, den: (B, V)."""
    every = np.broadcast_to(np.arange(len(emission.values)), (len(predicted), len(emission.values)))
    return candidate_pass(emission, predicted, tilted, columns, classes, every)


def candidate_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor, tokens: Any
) -> tuple[F64, F64]:
    """num, den: (B, K)."""
    matrix, prior, tilt = dense(emission), _array(predicted), _array(tilted)
    column, kind, chosen = _array(columns).astype(int), _array(classes).astype(int), _array(tokens).astype(int)
    num, den = np.zeros(chosen.shape), np.zeros(chosen.shape)
    for b, row in enumerate(chosen):
        for k, v in enumerate(row):
            den[b, k] = matrix[v] @ prior[b]
            if column[b, kind[v]] >= 0:
                num[b, k] = matrix[v] @ tilt[column[b, kind[v]]]
    return num, den


def edge_sums(
    emission: Emission,
    classes: Tensor,
    table: Tensor,
    accepting: Tensor,
    eos_token_ids: Sequence[int],
    weights: Tensor | None = None,
) -> Edges:
    """The edges of every state in order of their targets; float64 arrays in the place of tensors."""
    matrix, delta, kind = dense(emission), _array(table).astype(int), _array(classes).astype(int)
    weighted = matrix if weights is None else matrix * _array(weights)[:, None]
    found: dict[tuple[int, int], F64] = {}
    for q in range(len(delta)):
        for v in range(len(matrix)):
            target = int(delta[q, kind[v]])
            if target >= 0:
                found[q, target] = found.get((q, target), np.zeros(matrix.shape[1])) + weighted[v]
    pairs = np.array(sorted(found), int).reshape(-1, 2)
    sums = np.array([found[pair] for pair in sorted(found)]).reshape(-1, matrix.shape[1])
    ends = matrix[list(eos_token_ids)].sum(0)
    final = np.outer(_array(accepting), ends)
    made: Any = (pairs[:, 0], pairs[:, 1], sums, final)
    return Edges(*made)


def table_step(edges: Edges, transition: Tensor, future: Any, log_scale: Any) -> tuple[F64, F64]:
    """β_r = A·G_r with the greatest entry of each row 1, and the logarithm of what it was: (Q, H), (Q,).

    Everything is done in logarithms, so that no product can underflow.
    """
    with np.errstate(divide="ignore"):
        beta = np.log(_array(future)) + _array(log_scale)[:, None]
        total, sums = np.log(_array(edges.final)), np.log(_array(edges.sums))
        step = np.log(_array(transition))
    for m, (source, target) in enumerate(zip(_array(edges.source), _array(edges.target), strict=True)):
        total[int(source)] = np.logaddexp(total[int(source)], sums[m] + beta[int(target)])
    found = np.logaddexp.reduce(step[None] + total[:, None, :], axis=2)
    log_largest = found.max(1) if found.size else np.full(len(found), -np.inf)
    safe = np.where(np.isfinite(log_largest), log_largest, 0.0)
    return np.exp(found - safe[:, None]), log_largest


def _array(values: Any) -> F64:
    return np.asarray(values, np.float64)
