"""All variants of the HMM kernels against the float64 reference, at sizes around the widths of blocks and registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.kernels import hmm
from ctrldecode.kernels.hmm import _numba, _reference, _torch
from tests.kernels.hmm.problems import Problem, close, granted, naive, naive_pass, problem, relative

if TYPE_CHECKING:
    from types import ModuleType

VARIANTS = [_numba, _torch]
SIZES = [
    (1, 1),
    (5, 3),
    (2, 31),
    (33, 32),
    (40, 33),
    (7, 64),
    (64, 65),
    (9, 127),
    (65, 128),
    (1000, 256),
    (30, 257),
    (5, 1024),
]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda module: module.__name__.rpartition("_")[2])
dtypes = pytest.mark.parametrize("dtype", hmm.DTYPES)


def passed(case: Problem) -> tuple[Any, ...]:
    return case.predicted, case.tilted, case.columns, case.classes


def check_vocabulary(variant: ModuleType, case: Problem, dtype: str) -> None:
    emission = hmm.encode(case.matrix, dtype)
    every = torch.arange(len(case.matrix)).expand(len(case.predicted), -1)
    exact = _reference.vocabulary_pass(emission, *passed(case))
    found = variant.vocabulary_pass(emission, *passed(case))
    for own, plain, oracle in zip(found, naive_pass(case, emission, every), exact, strict=True):
        assert own.dtype == torch.float32
        close(own, plain, oracle)


@variants
@dtypes
@pytest.mark.parametrize(("size", "states"), SIZES)
def test_vocabulary_pass(variant: ModuleType, dtype: str, size: int, states: int) -> None:
    for rows in (1, 3):
        check_vocabulary(variant, problem(size + states, size=size, states=states, rows=rows), dtype)


@variants
@dtypes
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 80),
    states=st.integers(1, 140),
    rows=st.integers(0, 4),
    tilts=st.integers(0, 5),
    classes=st.integers(1, 9),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_vocabulary_pass_of_anything(variant: ModuleType, dtype: str, **kinds: Any) -> None:
    check_vocabulary(variant, problem(**kinds), dtype)


@variants
def test_classes_of_many_tokens(variant: ModuleType) -> None:
    """Three classes of hundreds of tokens and three of a few."""
    case = problem(3, size=1000, states=48, rows=3, tilts=6, classes=6)
    kinds = torch.tensor([0, 1, 2]).repeat(334)[:1000].int()
    kinds[5:12] = torch.tensor([3, 4, 5, 3, 4, 5, 6]).int()
    check_vocabulary(variant, case._replace(classes=kinds), "float32")


@variants
@dtypes
@pytest.mark.parametrize(("size", "states"), SIZES)
@pytest.mark.parametrize("count", [1, 5])
def test_candidate_pass(variant: ModuleType, dtype: str, size: int, states: int, count: int) -> None:
    case = problem(size * states, size=size, states=states)
    emission, tokens = hmm.encode(case.matrix, dtype), case.tokens[:, :count]
    every = torch.arange(size).expand(2, -1)
    exact = _reference.vocabulary_pass(emission, *passed(case))
    found = variant.candidate_pass(emission, *passed(case), tokens)
    for own, plain, oracle in zip(found, naive_pass(case, emission, every), exact, strict=True):
        wanted = np.take_along_axis(oracle, tokens.numpy(), 1)
        assert relative(own, wanted) <= granted(plain, oracle)


@variants
def test_nothing_asked_is_nothing_found(variant: ModuleType) -> None:
    case = problem(0, size=6, states=5, rows=0)
    emission = hmm.encode(case.matrix)
    assert [tuple(part.shape) for part in variant.vocabulary_pass(emission, *passed(case))] == [(0, 6), (0, 6)]
    some = problem(0, size=6, states=5)
    none = torch.empty(2, 0, dtype=torch.long)
    assert [tuple(part.shape) for part in variant.candidate_pass(emission, *passed(some), none)] == [(2, 0), (2, 0)]


@dtypes
@pytest.mark.parametrize(("size", "states"), SIZES)
def test_filter_step(dtype: str, size: int, states: int) -> None:
    case = problem(size + states, size=size, states=states, rows=3)
    emission = hmm.encode(case.matrix, dtype)
    tokens = torch.tensor([0, -1, size - 1])
    exact = _reference.filter_step(emission, case.transition, case.predicted, tokens)
    posterior, after, log_evidence = hmm.filter_step(emission, case.transition, case.predicted, tokens)
    seen = hmm.rows(emission, tokens.clamp(min=0)).numpy() * case.predicted.numpy()
    plain = np.where(seen.sum(1, keepdims=True) > 0, seen / np.maximum(seen.sum(1, keepdims=True), 1e-45), 0)
    plain[1] = case.predicted[1]
    close(posterior[1:], plain[None, 1:].astype(np.float32), exact[0][1:])
    close(after[1:], naive(case.transition.T, torch.from_numpy(plain[1:, None].astype(np.float32))), exact[1][1:])
    assert relative(log_evidence.exp(), np.exp(exact[2])) < 1e-5


def test_a_token_that_no_state_emits_is_missing() -> None:
    emission = hmm.encode(torch.tensor([[0.0, 0.5], [1.0, 0.5]]))
    predicted = torch.tensor([[1.0, 0.0]])
    posterior, after, log_evidence = hmm.filter_step(emission, torch.eye(2), predicted, torch.tensor([0]))
    assert posterior.tolist() == after.tolist() == predicted.tolist()
    assert log_evidence.tolist() == [-torch.inf]


def test_evidence_below_float32_is_no_zero() -> None:
    emission = hmm.encode(torch.tensor([[1e-30, 0.0], [1.0, 1.0]]))
    predicted = torch.tensor([[1e-30, 1.0]])
    posterior, _, log_evidence = hmm.filter_step(emission, torch.eye(2), predicted, torch.tensor([0]))
    assert posterior.tolist() == [[1.0, 0.0]]
    assert log_evidence.item() == pytest.approx(-60 * np.log(10), rel=1e-6)


@dtypes
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "states"), SIZES)
def test_edge_sums(dtype: str, weighted: bool, size: int, states: int) -> None:
    case = problem(size + states, size=size, states=states, automaton=4)
    emission = hmm.encode(case.matrix, dtype)
    given = (emission, case.classes, case.table, case.accepting, [0], case.weights if weighted else None)
    found, exact = hmm.edge_sums(*given), _reference.edge_sums(*given)
    assert found.source.tolist() == exact.source.tolist()
    assert found.target.tolist() == exact.target.tolist()
    assert relative(found.sums, exact.sums) < 4 * np.finfo(np.float32).eps  # decoding, the weight, and two roundings
    assert relative(found.final, exact.final) < 4 * np.finfo(np.float32).eps


@variants
@pytest.mark.parametrize(("size", "states"), [(size, states) for size, states in SIZES if states < 1000])
def test_table_steps(variant: ModuleType, size: int, states: int) -> None:
    case = problem(size + states, size=size, states=states, automaton=5)
    edges = hmm.edge_sums(hmm.encode(case.matrix), case.classes, case.table, case.accepting, [0], case.weights)
    future, log_scale = torch.zeros(5, states), torch.full((5,), -torch.inf)
    exact, exact_log = future.double().numpy(), log_scale.double().numpy()
    for _ in range(6):
        future, log_scale = variant.table_step(edges, case.transition, future, log_scale)
        exact, exact_log = _reference.table_step(edges, case.transition, exact, exact_log)
        # Six steps of 2·H roundings each, at random; log_scale is float32, of some tens.
        np.testing.assert_allclose(future.numpy(), exact, rtol=1e-4, atol=1e-30)
        np.testing.assert_allclose(log_scale.numpy(), exact_log, rtol=1e-5, atol=1e-5)


@variants
def test_table_steps_far_below_float32(variant: ModuleType) -> None:
    """Two thousand tokens, each of probability below 1e-20: the logarithm is exact all the way."""
    states = 3
    emission = hmm.encode(torch.tensor([[1.0] * states, [3e-21] * states]))
    classes, table = torch.tensor([0, 1]), torch.tensor([[-1, 1], [-1, 1]])
    edges = hmm.edge_sums(emission, classes, table, torch.tensor([False, True]), [0])
    edges = edges._replace(final=torch.zeros(2, states))
    future, log_scale = torch.ones(2, states), torch.tensor([-torch.inf, 0.0])
    for _ in range(2000):
        future, log_scale = variant.table_step(edges, torch.full((states, states), 1 / states), future, log_scale)
    assert future.tolist() == pytest.approx(np.ones((2, states)), rel=1e-5)
    assert log_scale.tolist() == pytest.approx([2000 * np.log(3e-21)] * 2, rel=1e-5)


@variants
def test_the_larger_scale_may_add_nothing(variant: ModuleType) -> None:
    """A target of scale 1 that no state here can reach must not drown one of scale e⁻⁷⁰⁰."""
    edges = hmm.Edges(
        torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([[1.0, 0.0], [0.5, 0.25]]), torch.zeros(3, 2)
    )
    future = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found, log_scale = variant.table_step(edges, torch.eye(2), future, torch.tensor([-torch.inf, 0.0, -700.0]))
    assert found.tolist() == [[1.0, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert log_scale.tolist() == pytest.approx([-700 + np.log(0.5), -np.inf, -np.inf])


@pytest.mark.cuda
@dtypes
@pytest.mark.parametrize(("size", "states"), SIZES)
def test_cuda(dtype: str, size: int, states: int) -> None:
    case = problem(size + states, size=size, states=states, rows=3)
    emission = hmm.encode(case.matrix, dtype)
    there = hmm.move(emission, "cuda")
    on = [part.cuda() for part in passed(case)]
    exact = _reference.vocabulary_pass(emission, *passed(case))
    every = torch.arange(size).expand(3, -1)
    for own, plain, oracle in zip(
        hmm.vocabulary_pass(there, *on), naive_pass(case, emission, every), exact, strict=True
    ):
        close(own.cpu(), plain, oracle)
    for own, plain, oracle in zip(
        hmm.candidate_pass(there, *on, every.cuda()), naive_pass(case, emission, every), exact, strict=True
    ):
        close(own.cpu(), plain, oracle)
