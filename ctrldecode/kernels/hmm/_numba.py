"""The kernels in compiled loops on the CPU: E is read once, whatever its dtype and however many columns there are.

Arguments were validated by the package; nothing is checked here. As many threads as torch uses; a filter step and the sums of
edges have nothing to gain and are torch's.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrldecode.kernels.hmm import _gather, _simd
from ctrldecode.kernels.hmm._torch import edge_sums, filter_step, scaled_product

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctrldecode.kernels.hmm._edges import Edges
    from ctrldecode.kernels.hmm._emission import Emission

__all__ = ["candidate_pass", "edge_sums", "filter_step", "table_step", "vocabulary_pass"]

# Multiplications below which a second thread is not worth waking, some 50 µs.
_ALONE = 1 << 20
# The same for a list of candidates: torch has just chosen them, its threads still wait actively on our cores, and two threads then take 2.2 ms
# for what one does in 0.9.
_FEW = 1 << 24


def vocabulary_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """All tokens; see the package."""
    size = len(emission.values)
    given = _given(emission, predicted, tilted, columns, classes)
    num, den = predicted.new_empty((2, len(predicted), size))
    loops = _simd.vocabulary_in_pairs if len(predicted) > 1 else _simd.vocabulary

    def run(low: int, high: int) -> None:
        loops(*given, low, high, num.numpy(), den.numpy())

    _in_parallel(run, size, emission.values.numel() * len(predicted))
    return num, den


def candidate_pass(
    emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Some tokens of every row; see the package."""
    given = _given(emission, predicted, tilted, columns, classes)
    num, den = predicted.new_empty((2, *tokens.shape))
    chosen = tokens.long().contiguous().numpy()

    def run(low: int, high: int) -> None:
        _simd.candidates(*given, chosen, low, high, num.numpy(), den.numpy())

    _in_parallel(run, tokens.shape[1], tokens.numel() * emission.values.shape[1], _FEW)
    return num, den


def table_step(edges: Edges, transition: Tensor, future: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """One more remaining token; see the package."""
    total = torch.empty_like(edges.final)
    log_total = torch.empty(len(total), dtype=torch.float64)
    arrays = [part.contiguous().numpy() for part in (*edges, future, log_scale.double(), total, log_total)]
    _gather.gather(*arrays)
    return scaled_product(total, log_total.to(log_scale.dtype), transition)


class _Given(NamedTuple):
    """The first arguments of the compiled loops."""

    values: Any
    scale: Any
    vectors: Any
    slots: Any
    classes: Any


def _given(emission: Emission, predicted: Tensor, tilted: Tensor, columns: Tensor, classes: Tensor) -> _Given:
    """All vectors in one array: the predictions, what is tilted, and zeros for the columns that are −1.

    numpy, since torch would wake its threads for this, which then spin for milliseconds on the cores that the loops want.
    """
    ours = [part.numpy() for part in (predicted, tilted, predicted.new_zeros((1, predicted.shape[1])))]
    vectors = np.concatenate(ours) * emission.state_scale.numpy()
    slots = columns.numpy().astype(np.int64)
    slots = np.where(slots >= 0, slots + len(predicted), len(vectors) - 1)
    values = emission.values.view(torch.uint16) if emission.values.dtype == torch.float16 else emission.values
    return _Given(values.numpy(), emission.scale.numpy(), vectors, slots, classes.numpy().astype(np.int32))


def _in_parallel(run: Callable[[int, int], None], size: int, work: int, alone: int = _ALONE) -> None:
    """run(low, high) over parts of 0..size−1, by one thread for so much work or less."""
    threads = torch.get_num_threads() if work > alone else 1
    if threads == 1:
        run(0, size)
        return
    part = -(-size // threads)
    others = [_pool(threads - 1).submit(run, low, min(low + part, size)) for low in range(part, size, part)]
    run(0, part)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ctrldecode-hmm")


# A forked process has none of the threads of its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
