"""What the codes of an emission matrix keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrldecode._resources import hmm_path
from ctrldecode.hmm import HMM
from ctrldecode.kernels import hmm
from ctrldecode.kernels.hmm import _reference, _uint8

SHAPES = [(1, 1), (5, 3), (300, 64), (300, 128), (40, 192), (100, 256), (10, 4096), (9, 129)]


def sparse(size: int, states: int, seed: int = 0) -> torch.Tensor:
    """(V, H), each state with most of its probability on few tokens."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet(np.full(size, 0.05), states).T.copy()).float()


@pytest.mark.parametrize(("size", "states"), SHAPES)
def test_float32_is_exact(size: int, states: int) -> None:
    matrix = sparse(size, states)
    assert torch.equal(hmm.dense(hmm.encode(matrix)), matrix)


@pytest.mark.parametrize(("size", "states"), SHAPES)
def test_float16_has_eleven_bits(size: int, states: int) -> None:
    matrix = sparse(size, states)
    emission = hmm.encode(matrix, "float16")
    assert emission.values.dtype == torch.float16
    error = (hmm.dense(emission) - matrix).abs()
    assert torch.all(error <= 2.0**-11 * matrix + 2.0**-25 * emission.scale)


@pytest.mark.parametrize("largest", [1e-42, 1e-45])
def test_float16_of_a_token_that_is_hardly_ever_said(largest: float) -> None:
    matrix = torch.tensor([[0.0, largest], [1.0, 1.0]])
    found = hmm.dense(hmm.encode(matrix, "float16"))
    torch.testing.assert_close(found, matrix, rtol=2.0**-11, atol=1e-45)


@pytest.mark.parametrize(("size", "states"), SHAPES)
def test_uint8_keeps_what_states_add_up_to(size: int, states: int) -> None:
    matrix = sparse(size, states)
    emission = hmm.encode(matrix, "uint8")
    assert emission.values.dtype == torch.uint8
    assert emission.scale.shape == (size, _uint8.groups(states))
    torch.testing.assert_close(hmm.dense(emission).double().sum(0), matrix.double().sum(0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("states", [64, 128, 256, 1024])
def test_uint8_keeps_next_token_distributions(states: int) -> None:
    """Within 1e-3 of total variation, from mixtures of states as a filter predicts: a few states with most of the weight."""
    matrix = sparse(2000, states)
    beliefs = torch.from_numpy(np.random.default_rng(1).dirichlet(np.full(states, 10 / states), 500)).double()
    coded = hmm.dense(hmm.encode(matrix, "uint8")).double()
    variation = (beliefs @ (coded - matrix.double()).T).abs().sum(1) / 2
    assert variation.max() < 1e-3


def test_uint8_of_a_distilled_model() -> None:
    """The same, from every belief along texts that the shipped model itself makes up."""
    model = HMM.load(hmm_path("tinytales-256"))
    rng = torch.Generator().manual_seed(0)
    matrix, predicted = hmm.dense(model.emission), model.initial.expand(50, -1).contiguous()
    exact, coded = hmm.encode(matrix), hmm.dense(hmm.encode(matrix, "uint8"))
    for _ in range(40):
        probs = predicted @ matrix.T
        assert torch.all((predicted.double() @ (coded - matrix).double().T).abs().sum(1) / 2 < 1e-3)
        _, predicted, _ = hmm.filter_step(
            exact, model.transition, predicted, torch.multinomial(probs, 1, generator=rng)[:, 0]
        )


@pytest.mark.parametrize("dtype", hmm.DTYPES)
def test_zeros_stay(dtype: str) -> None:
    matrix = sparse(50, 130)
    matrix[7] = 0
    matrix[:, 3] = 0
    matrix[9, ::2] = 0
    assert torch.all(hmm.dense(hmm.encode(matrix, dtype))[matrix == 0] == 0)


@pytest.mark.parametrize("dtype", hmm.DTYPES)
@pytest.mark.parametrize("states", [1, 64, 256, 257])
def test_rows_and_reference_decode_alike(dtype: str, states: int) -> None:
    emission = hmm.encode(sparse(20, states), dtype)
    tokens = torch.tensor([[3, 0], [19, 3]])
    assert torch.equal(hmm.rows(emission, tokens), hmm.dense(emission)[tokens])
    np.testing.assert_allclose(hmm.dense(emission).numpy(), _reference.dense(emission), rtol=4e-7)


@pytest.mark.parametrize(
    ("states", "count"),
    [(1, 1), (127, 1), (128, 16), (257, 1), (1000, 1), (1008, 16), (2048, 32), (2064, 16), (4096, 32), (16384, 32)],
)
def test_groups_divide_the_states(states: int, count: int) -> None:
    assert _uint8.groups(states) == count
