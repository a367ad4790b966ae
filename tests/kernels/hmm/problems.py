"""Random HMMs, automata and vectors for the kernels, and what plain float32 makes of a dot product."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ctrldecode.kernels import hmm

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Problem(NamedTuple):
    matrix: Tensor  # (V, H), columns sum to 1
    transition: Tensor  # (H, H)
    predicted: Tensor  # (B, H)
    tilted: Tensor  # (N, H)
    columns: Tensor  # (B, C)
    classes: Tensor  # (V,)
    table: Tensor  # (Q, C)
    accepting: Tensor  # (Q,)
    weights: Tensor  # (V,)
    tokens: Tensor  # (B, K)


def problem(
    seed: int,
    *,
    size: int,
    states: int,
    rows: int = 2,
    tilts: int = 4,
    classes: int = 3,
    automaton: int = 3,
    zeros: float = 0.2,
) -> Problem:
    """Entries over many magnitudes, a share of zeros; token 0 is in a class of its own, which is dead everywhere."""
    rng = np.random.default_rng(seed)
    matrix = magnitudes(rng, size, states, zeros)
    matrix[-1] += 1e-3  # no state without a token
    table = rng.integers(-1, automaton, (automaton, classes + 1))
    table[:, classes] = -1
    kinds = rng.integers(0, classes, size)
    kinds[0] = classes
    columns = rng.integers(-1, tilts, (rows, classes + 1)) if tilts else np.full((rows, classes + 1), -1)
    columns[:, classes] = -1
    return Problem(
        floats(matrix / matrix.sum(0)),
        floats(distributions(rng, states, states)),
        floats(distributions(rng, rows, states)),
        floats(magnitudes(rng, tilts, states, zeros)),
        torch.from_numpy(columns.astype(np.int32)),
        torch.from_numpy(kinds.astype(np.int32)),
        torch.from_numpy(table.astype(np.int32)),
        torch.from_numpy(rng.random(automaton) < 0.5),
        floats(rng.random(size)),
        torch.from_numpy(rng.integers(0, size, (rows, 5))),
    )


def magnitudes(rng: np.random.Generator, count: int, states: int, zeros: float) -> NDArray[np.float64]:
    """(count, H), log-uniform in 10⁻⁶ to 1, and zeros."""
    return 10.0 ** rng.uniform(-6, 0, (count, states)) * (rng.random((count, states)) >= zeros)


def distributions(rng: np.random.Generator, count: int, states: int) -> NDArray[np.float64]:
    return rng.dirichlet(np.full(states, 0.3), count)


def floats(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).float()


def naive(matrix: Tensor, vectors: Tensor) -> NDArray[np.float32]:
    """Dot products of rows (..., H) with vectors (..., H), added up one by one in float32: (orders, ...).

    The error of a single order of the states is a matter of luck, so there are several, the more the fewer products.
    """
    products = matrix.numpy() * vectors.numpy()
    rng = np.random.default_rng(0)
    count = int(np.clip(2**19 // max(products.size, 1), 4, 64))
    orders = [rng.permutation(products.shape[-1]) for _ in range(count)]
    return np.stack([products[..., order].cumsum(-1, dtype=np.float32)[..., -1] for order in orders])


def naive_pass(
    case: Problem, emission: hmm.Emission, tokens: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """num and den of tokens (B, K)."""
    rows = hmm.rows(emission, tokens)
    column = case.columns.long().gather(1, case.classes.long()[tokens])
    tilted = torch.cat([case.tilted, torch.zeros(1, rows.shape[-1])])[column]  # −1 is the last, the zeros
    return naive(rows, tilted), naive(rows, case.predicted.unsqueeze(1))


def relative(found: Tensor | NDArray[np.floating], exact: NDArray[np.float64]) -> float:
    """The largest error relative to the exact value; where that is 0, so must be what was found."""
    given = np.asarray(found, np.float64)
    assert given.shape == exact.shape
    assert np.all(given[exact == 0] == 0)
    return float(np.max(np.abs(given - exact)[exact != 0] / np.abs(exact[exact != 0]), initial=0.0))


def granted(plain: NDArray[np.float32], exact: NDArray[np.float64]) -> float:
    """Twice the error of plain float32 (orders, ...).

    A term is a value times two scales times an entry of a vector, three roundings of half an eps each, which a sum of very few terms
    may escape by luck; they are always granted.
    """
    return 2 * max(1.5 * np.finfo(np.float32).eps, *(relative(order, exact) for order in plain))


def close(found: Tensor, plain: NDArray[np.float32], exact: NDArray[np.float64]) -> None:
    assert relative(found, exact) <= granted(plain, exact)
