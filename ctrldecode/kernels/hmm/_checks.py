"""Shapes, dtypes and devices of the kernels' arguments; values only where checking is cheap beside the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctrldecode.errors import InputError
from ctrldecode.kernels.hmm._emission import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.kernels.hmm._edges import Edges
    from ctrldecode.kernels.hmm._emission import Emission

__all__ = ["candidates", "edges", "filtering", "matrix", "passing", "stepping"]

_FLOAT = (torch.float32,)
_SCALE = (torch.float32, torch.float64)
_INTEGER = (torch.int32, torch.int64)


def matrix(entries: Tensor, dtype: str) -> None:
    """Arguments of `encode`."""
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
    _shape("matrix", entries, (None, None), (torch.float16, torch.float32, torch.float64), entries.device)
    if min(entries.shape) == 0:
        raise InputError(f"matrix must have tokens and states, got shape {tuple(entries.shape)}; pass at least (1, 1)")
    lowest, highest = entries.aminmax()
    if not (lowest >= 0 and torch.isfinite(highest)):
        raise InputError(
            f"matrix must hold finite probabilities ≥ 0, got entries from {lowest.item():g} to {highest.item():g}; exponentiate "
            "logarithms, and look for NaN"
        )


def filtering(emission: Emission, transition: Tensor, predicted: Tensor, tokens: Tensor) -> None:
    """Arguments of `filter_step`."""
    size, states = emission.values.shape
    device = emission.values.device
    _shape("transition", transition, (states, states), _FLOAT, device)
    _shape("predicted", predicted, (None, states), _FLOAT, device)
    _shape("tokens", tokens, (len(predicted),), _INTEGER, device)
    _range("tokens", tokens, -1, size)


def passing(emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor) -> None:
    """Arguments that `vocabulary_pass` and `candidate_pass` have in common."""
    size, states = emission.values.shape
    device = emission.values.device
    _shape("predicted", predicted, (None, states), _FLOAT, device)
    _shape("tilted", tilted, (None, states), _FLOAT, device)
    if not emission.values.is_contiguous():
        raise InputError(
            "emission.values must be contiguous, got a view with strides; call .contiguous(), or use encode"
        )
    _shape("columns", columns, (len(predicted), None), _INTEGER, device)
    _shape("classes", classes, (size,), _INTEGER, device)
    _range("columns", columns, -1, len(tilted))
    _range("classes", classes, 0, columns.shape[1])


def candidates(tokens: Tensor, predicted: Tensor, size: int) -> None:
    """The tokens of `candidate_pass`."""
    _shape("tokens", tokens, (len(predicted), None), _INTEGER, predicted.device)
    _range("tokens", tokens, 0, size)


def edges(
    emission: Emission,
    classes: Tensor,
    table: Tensor,
    accepting: Tensor,
    eos_token_ids: Sequence[int],
    weights: Tensor | None,
) -> None:
    """Arguments of `edge_sums`."""
    size = len(emission.values)
    device = emission.values.device
    _shape("classes", classes, (size,), _INTEGER, device)
    _shape("table", table, (None, None), _INTEGER, device)
    _shape("accepting", accepting, (len(table),), (torch.bool,), device)
    _range("classes", classes, 0, table.shape[1])
    _range("table", table, -1, len(table))
    wrong = [token for token in eos_token_ids if not 0 <= token < size]
    if wrong:
        raise InputError(f"eos_token_ids must lie in 0 to {size - 1}, got {wrong}; pass ids of the HMM's vocabulary")
    if weights is not None:
        _shape("weights", weights, (size,), _SCALE, device)


def stepping(edges: Edges, transition: Tensor, future: Tensor, log_scale: Tensor) -> None:
    """Arguments of `table_step`."""
    count, states = edges.final.shape
    device = edges.final.device
    _shape("transition", transition, (states, states), _FLOAT, device)
    _shape("future", future, (count, states), _FLOAT, device)
    _shape("log_scale", log_scale, (count,), _SCALE, device)


def _shape(
    name: str, given: Tensor, wanted: tuple[int | None, ...], dtypes: tuple[torch.dtype, ...], device: torch.device
) -> None:
    fits = given.ndim == len(wanted) and all(w in {None, n} for w, n in zip(wanted, given.shape, strict=True))
    if not fits:
        shape = ", ".join("any" if n is None else str(n) for n in wanted)
        raise InputError(f"{name} must have shape ({shape}), got {tuple(given.shape)}; see the shapes in the docstring")
    if given.dtype not in dtypes:
        kinds = " or ".join(map(str, dtypes))
        raise InputError(f"{name} must be {kinds}, got {given.dtype}; convert it with .to({dtypes[0]})")
    if given.device != device:
        raise InputError(
            f"{name} must be on {device} as the rest, got {given.device}; move it with .to({str(device)!r})"
        )


def _range(name: str, given: Tensor, low: int, end: int) -> None:
    """Ids in low to end − 1, on the CPU only: elsewhere to look would be to wait. numpy, as it wakes no threads."""
    if given.device.type != "cpu" or not given.numel():
        return
    values = given.numpy()
    lowest, highest = int(values.min()), int(values.max())
    if lowest < low or highest >= end:
        raise InputError(
            f"{name} must lie in {low} to {end - 1}, got {lowest} to {highest}; see the docstring for their meaning"
        )
