"""β, num, den and ψ against every string and every hidden path: H ≤ 3, V ≤ 5, at most six tokens."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.kernels import hmm
from ctrldecode.kernels.hmm import _numba, _torch
from tests.kernels.hmm.problems import Problem, problem

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

EOS = 0
variants = pytest.mark.parametrize("variant", [_numba, _torch], ids=lambda module: module.__name__.rpartition("_")[2])
hmms = given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 5),
    states=st.integers(1, 3),
    automaton=st.integers(1, 3),
    zeros=st.sampled_from([0.0, 0.5]),
)


def probability(case: Problem, belief: NDArray[np.float64], text: tuple[int, ...]) -> float:
    """P(text) for z of the first token from `belief` (H,), one hidden path after another."""
    paths = hidden_paths(len(belief), len(text))
    matrix, step = case.matrix.numpy(), case.transition.numpy()
    found = belief[paths[0]] * matrix[text[0]][paths[0]]
    for t in range(1, len(text)):
        found = found * step[paths[t - 1], paths[t]] * matrix[text[t]][paths[t]]
    return float(found.sum())


@cache
def hidden_paths(states: int, length: int) -> NDArray[np.intp]:
    """(length, H ** length)."""
    return np.array(list(product(range(states), repeat=length))).reshape(-1, length).T.copy()


def texts(size: int, length: int) -> list[tuple[int, ...]]:
    """All bodies of fewer than `length` tokens, with the end behind them."""
    return [(*body, EOS) for n in range(length) for body in product(range(1, size), repeat=n)]


def state_after(case: Problem, start: int, body: tuple[int, ...]) -> int:
    state = start
    for token in body:
        state = int(case.table[state, case.classes[token]]) if state >= 0 else -1
    return state


def worth(case: Problem, start: int, text: tuple[int, ...]) -> float:
    """Φ: the product of the weights of a text that the automaton accepts, else 0."""
    state = state_after(case, start, text[:-1])
    accepted = state >= 0 and bool(case.accepting[state])
    return float(np.prod(case.weights.double().numpy()[list(text[:-1])])) if accepted else 0.0


def expected(case: Problem, belief: NDArray[np.float64], start: int, length: int) -> float:
    """E[Φ] over what may still come within `length` tokens."""
    return sum(worth(case, start, text) * probability(case, belief, text) for text in texts(len(case.matrix), length))


def tables(
    case: Problem, variant: ModuleType, length: int, dtype: str = "float32"
) -> tuple[hmm.Edges, list[torch.Tensor]]:
    """β_0 to β_length, (Q, H) float64 each."""
    emission = hmm.encode(case.matrix, dtype)
    edges = variant.edge_sums(emission, case.classes, case.table, case.accepting, [EOS], case.weights)
    future, log_scale = torch.zeros_like(edges.final), torch.full((len(case.table),), -torch.inf)
    found = [future.double()]
    for _ in range(length):
        future, log_scale = variant.table_step(edges, case.transition, future, log_scale)
        found.append(future.double() * log_scale.double().exp().unsqueeze(1))
    return edges, found


@variants
@settings(max_examples=15, deadline=None)
@hmms
def test_table(variant: ModuleType, **kinds: Any) -> None:
    case = problem(**kinds)
    _, found = tables(case, variant, 4)
    step = case.transition.double().numpy()
    for length, beta in enumerate(found):
        for q, h in product(range(beta.shape[0]), range(beta.shape[1])):
            assert beta[q, h].item() == pytest.approx(expected(case, step[h], q, length), rel=1e-5, abs=1e-30)


@variants
def test_table_of_six_tokens(variant: ModuleType) -> None:
    case = problem(11, size=5, states=3, automaton=2, zeros=0.1)
    _, found = tables(case, variant, 6)
    step = case.transition.double().numpy()
    for q, h in product(range(2), range(3)):
        assert found[6][q, h].item() == pytest.approx(expected(case, step[h], q, 6), rel=1e-5)


@variants
@settings(max_examples=15, deadline=None)
@hmms
def test_psi(variant: ModuleType, **kinds: Any) -> None:
    """ψ(x·v) = w(v)·num(v)/den(v) is E[Φ | x·v], ψ(x) = Σ_v w(v)·num(v) + the end's share is E[Φ | x]; both lie in [0, 1]."""
    case = problem(**kinds, rows=1)
    length, start = 4, 0
    edges, beta = tables(case, variant, length)
    belief = case.predicted[0].double().numpy()
    tilted = (case.predicted * beta[length - 1]).float()
    emission = hmm.encode(case.matrix)
    num, den = variant.vocabulary_pass(emission, case.predicted, tilted, case.table[[start]], case.classes)
    num, den = num[0].double() * case.weights, den[0].double()
    for v in range(1, len(case.matrix)):
        rest = [text for text in texts(len(case.matrix), length) if text[0] == v]
        joint = sum(worth(case, start, text) * probability(case, belief, text) for text in rest)
        assert den[v].item() == pytest.approx(probability(case, belief, (v,)), rel=1e-5, abs=1e-30)
        assert num[v].item() == pytest.approx(joint, rel=1e-5, abs=1e-30)
        assert 0 <= num[v] <= den[v] * (1 + 1e-6)
    whole = num.sum() + (case.predicted[0].double() @ edges.final[start].double())
    assert whole.item() == pytest.approx(expected(case, belief, start, length), rel=1e-5, abs=1e-30)
    assert 0 <= whole <= 1 + 1e-6


@variants
@pytest.mark.parametrize("dtype", hmm.DTYPES)
@pytest.mark.parametrize("seed", range(5))
def test_probabilities_stay_probabilities(variant: ModuleType, dtype: str, seed: int) -> None:
    """After a hundred steps no β exceeds 1, in any code, as far as the code's columns add up to 1."""
    case = problem(seed, size=60, states=33, automaton=4)
    _, found = tables(case, variant, 100, dtype)
    columns = hmm.dense(hmm.encode(case.matrix, dtype)).double().sum(0).max().item()
    assert max(beta.max().item() for beta in found) <= columns**100 * (1 + 1e-4)
