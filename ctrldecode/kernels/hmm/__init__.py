"""Kernels of an HMM beside a token automaton: arrays in, arrays out. Validates, then dispatches by device and batch size.

The functions have several variants of one signature: `_reference` (numpy float64, the oracle), `_numba` (CPU) and `_torch`
(very large batches, and CUDA). V tokens, H states of the HMM, B rows of a batch, Q states of the automaton, C classes of
tokens that the automaton does not tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctrldecode.kernels.hmm import _checks, _numba, _torch
from ctrldecode.kernels.hmm._edges import Edges
from ctrldecode.kernels.hmm._emission import DTYPES, Emission, dense, move, rows
from ctrldecode.kernels.hmm._emission import encode as _encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = [
    "DTYPES",
    "Edges",
    "Emission",
    "candidate_pass",
    "dense",
    "edge_sums",
    "encode",
    "filter_step",
    "move",
    "rows",
    "table_step",
    "vocabulary_pass",
]

# From this many rows on a matrix product over the vocabulary takes the place of the compiled loops on the CPU. Which is faster depends
# on the machine (tests/benchmarks/test_lookahead.py): on an AMD EPYC the loops are, up to 128 rows, there by 10 to 20 %; on the Intel
# Xeon of docs/benchmarks.md products are from 32 rows on, at 128 by 1.8 to 2.6 times. There the AMD loses least by products, and the Intel most by loops.
_ROWS_FOR_PRODUCT = 128


def encode(matrix: Tensor, dtype: str = "float32") -> Emission:
    """Store an emission matrix in the given code.

    Args:
        matrix: (V, H) finite entries ≥ 0, E(v, h) = P(token v | state h).
        dtype: "float32", "float16" or "uint8".

    Raises:
        InputError: another dtype, shape, or entries that are negative or not finite.

    Example:
        >>> import torch
        >>> emission = encode(torch.tensor([[0.25, 0.0], [0.75, 1.0]]), "uint8")
        >>> emission.values.dtype, [round(p, 3) for p in rows(emission, torch.tensor(1)).tolist()]
        (torch.uint8, [0.75, 1.0])
    """
    _checks.matrix(matrix, dtype)
    return _encode(matrix, dtype)


def filter_step(
    emission: Emission, transition: Tensor, predicted: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the forward filter (Rabiner 1989, section III.A, scaled).

    Args:
        emission: E.
        transition: A, (H, H) float32, rows sum to 1.
        predicted: (B, H) float32, P(z_t | x_<t).
        tokens: (B,) x_t; −1 is a missing token, with emission 1.

    Returns:
        P(z_t | x_≤t), (B, H); P(z_{t+1} | x_≤t), (B, H); log P(x_t | x_<t), (B,). Where that probability is 0 its logarithm is
        −inf, and the token counts as missing.

    Raises:
        InputError: shapes, dtypes or devices that do not fit.
    """
    _checks.filtering(emission, transition, predicted, tokens)
    return _torch.filter_step(emission, transition, predicted, tokens)


def vocabulary_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """num and den of all tokens in one pass over E, however many states the automaton has.

    den(b, v) = Σ_h E(v, h) · predicted(b, h);  num(b, v) = Σ_h E(v, h) · tilted(columns(b, classes(v)), h), and 0 where the
    column is −1.

    Args:
        emission: E.
        predicted: (B, H) float32.
        tilted: (N, H) float32.
        columns: (B, C) integers, −1 to N − 1.
        classes: (V,) integers, 0 to C − 1.

    Returns:
        num, den: (B, V) float32.

    Raises:
        InputError: shapes, dtypes or devices that do not fit.

    Example:
        >>> import torch
        >>> emission = encode(torch.tensor([[0.25, 0.0], [0.75, 1.0]]))
        >>> predicted, tilted = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.0]])
        >>> num, den = vocabulary_pass(emission, predicted, tilted, torch.tensor([[0, -1]]), torch.tensor([0, 1]))
        >>> num.tolist(), den.tolist()
        ([[0.125, 0.0]], [[0.125, 0.875]])
    """
    _checks.passing(emission, predicted, tilted, columns, classes)
    variant = _torch if emission.values.is_cuda or len(predicted) >= _ROWS_FOR_PRODUCT else _numba
    return variant.vocabulary_pass(emission, predicted, tilted, columns, classes)


def candidate_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """As `vocabulary_pass`, for tokens (B, K) of each row only: num, den (B, K)."""
    _checks.passing(emission, predicted, tilted, columns, classes)
    _checks.candidates(tokens, predicted, len(emission.values))
    variant = _torch if emission.values.is_cuda else _numba
    return variant.candidate_pass(emission, predicted, tilted, columns, classes, tokens)


def edge_sums(
    emission: Emission,
    classes: Tensor,
    table: Tensor,
    accepting: Tensor,
    eos_token_ids: Sequence[int],
    weights: Tensor | None = None,
) -> Edges:
    """What `table_step` needs to know of the vocabulary, summed over the tokens of every edge of the automaton.

    Memory beside the result: class sums (C, H) float64, edge sums (M, H) float64, and some 100 MiB of blocks.

    Args:
        emission: E.
        classes: (V,) integers, 0 to C − 1.
        table: (Q, C) integers, δ; −1 is dead.
        accepting: (Q,) bool.
        eos_token_ids: the tokens that end a text; δ has no edge for them.
        weights: (V,) w ≥ 0 of every token of the body; None means 1.

    Raises:
        InputError: shapes, dtypes or devices that do not fit.
    """
    _checks.edges(emission, classes, table, accepting, eos_token_ids, weights)
    return _torch.edge_sums(emission, classes, table, accepting, eos_token_ids, weights)


def table_step(edges: Edges, transition: Tensor, future: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """One more token to come: β_r = A·G_r with G_r(q, h) = final(q, h) + Σ_edges sums(h) · β_{r−1}(target, h).

    β is held as future · e**log_scale, the largest entry of each row of future being 1, so that no length underflows; a row
    of zeros has log_scale −inf.

    Args:
        edges: of `edge_sums`.
        transition: A, (H, H) float32.
        future: (Q, H) float32.
        log_scale: (Q,) float32 or float64.

    Returns:
        future and log_scale of β_r.

    Raises:
        InputError: shapes, dtypes or devices that do not fit.
    """
    _checks.stepping(edges, transition, future, log_scale)
    variant = _torch if future.is_cuda else _numba
    return variant.table_step(edges, transition, future, log_scale)
