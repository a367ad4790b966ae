"""HMM: what it takes, how it is stored, and its file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ctrldecode.core import _tensor_files as _files
from ctrldecode.errors import InputError, ModelError, VocabularyError
from ctrldecode.hmm import HMM
from ctrldecode.kernels import hmm as kernels
from tests.hmm.models import Parameters, random_parameters, stored, vocabulary

DTYPES = ["float32", "float16", "uint8"]


@pytest.fixture
def parameters() -> Parameters:
    return random_parameters(np.random.default_rng(0), 11, 60, eos=(0, 7), ends=2)


def test_every_form_of_the_arrays(parameters):
    hmm = parameters.hmm()
    initial, transition, emission, eos = parameters
    assert HMM(torch.tensor(initial), torch.tensor(transition).float(), torch.tensor(emission), eos) == hmm
    assert HMM(initial.tolist(), transition.tolist(), emission.tolist(), list(eos)) == hmm
    assert HMM.from_token_major(initial, transition, emission.T, eos) == hmm
    assert HMM.from_token_major(initial, transition, torch.tensor(emission).T.contiguous(), eos) == hmm
    assert HMM(initial, transition, np.asfortranarray(emission), eos) == hmm
    assert hmm.emission.values.shape == (60, 13)
    assert hmm.emission.values.is_contiguous()
    assert hmm.transition.is_contiguous()
    assert (hmm.states, hmm.size, hmm.eos_token_ids) == (13, 60, (0, 7))
    assert hmm.eos_states.tolist() == [False] * 11 + [True] * 2
    assert {hmm: 1}[parameters.hmm()] == 1
    assert hmm != parameters.hmm(dtype="uint8")
    assert hmm != 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_in_its_precision_and_summing_to_one(parameters, dtype):
    hmm = parameters.hmm(dtype=dtype)
    assert hmm.dtype == dtype
    assert hmm.emission.values.dtype == getattr(torch, dtype)
    dense = kernels.dense(hmm.emission).double()
    torch.testing.assert_close(dense.sum(0), torch.ones(13).double(), rtol=0, atol=1e-6)
    error = {"float32": 1e-7, "float16": 2**-11, "uint8": 2 / 255}[dtype]  # of a square root of 255 steps: 2 / 255
    largest = parameters.emission.max(0)[:, None]
    np.testing.assert_allclose(dense, parameters.emission.T, rtol=0, atol=error * largest.max())
    assert (dense.numpy()[parameters.emission.T == 0] == 0).all()
    ends = dense[list(hmm.eos_token_ids)].sum(0)
    np.testing.assert_allclose(ends, [0] * 11 + [1] * 2, atol=1e-6)


def test_kernels_know_the_factors_of_rounded_states(parameters):
    """The factors that make float16 and uint8 sum to 1 must not be left out by any kernel."""
    for dtype in DTYPES:
        hmm = parameters.hmm(dtype=dtype)
        belief = torch.rand(3, 13, generator=torch.Generator().manual_seed(0))
        tilted, classes = belief[:1] * 0.5, torch.zeros(60, dtype=torch.int32)
        columns = torch.zeros(3, 1, dtype=torch.int32)
        num, den = kernels.vocabulary_pass(hmm.emission, belief, tilted, columns, classes)
        dense = kernels.dense(hmm.emission)
        torch.testing.assert_close(den, belief @ dense.T, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(num, (tilted @ dense.T).expand(3, -1), rtol=1e-5, atol=1e-7)


def test_changing_precision(parameters):
    hmm = parameters.hmm()
    assert hmm.as_dtype("float32") is hmm
    for dtype in DTYPES[1:]:
        assert hmm.as_dtype(dtype) == parameters.hmm(dtype=dtype)
        back = hmm.as_dtype(dtype).as_dtype("float32")
        torch.testing.assert_close(kernels.dense(back.emission), kernels.dense(hmm.as_dtype(dtype).emission))
    with pytest.raises(InputError, match="dtype must be one of float32, float16, uint8, got 'int4'"):
        hmm.as_dtype("int4")
    with pytest.raises(InputError, match="dtype must be one of"):
        parameters.hmm(dtype="int4")


def test_rows_within_the_tolerance_are_normalised(parameters):
    initial, transition, emission, eos = parameters
    hmm = HMM(initial * 1.0009, transition * 0.9991, emission * 1.0005, eos)
    np.testing.assert_allclose(stored(hmm).emission, parameters.emission, rtol=1e-6)
    np.testing.assert_allclose(hmm.transition.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(hmm.initial.sum(), 1, rtol=1e-6)


def _changed(parameters, name, index, value):
    arrays = {key: np.array(getattr(parameters, key)) for key in ("initial", "transition", "emission")}
    arrays[name][index] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("initial", 3, np.nan, "initial of state 0 holds nan"),
        ("initial", 3, -0.1, "initial of state 0 holds -0.1"),
        ("transition", (2, 4), np.inf, "transition of state 2 holds inf"),
        ("transition", (5, 1), -1e-9, "transition of state 5 holds -1e-09"),
        ("transition", 6, 0.0, "transition of state 6 sums to 0, wanted 1 within 0.001"),
        ("emission", (7, 3), np.nan, "emission of state 7 holds nan"),
        ("emission", 8, 0.1, "emission of state 8 sums to 6, wanted 1 within 0.001; divide each state"),
        ("emission", (4, 0), 2e-4, "state 4 emits an end of sequence with probability 0.000199.* and other tokens too"),
        ("emission", (12, 3), 2e-4, "state 12 emits an end of sequence .* and other tokens too; .*absorbing"),
        (
            "transition",
            (11, 2),
            5e-4,
            "state 11 emits the end of sequence, but goes on to other states with probability 0.00049",
        ),
    ],
)
def test_parameters_that_are_none(parameters, name, index, value, message):
    with pytest.raises(InputError, match=message):
        HMM(**_changed(parameters, name, index, value), eos_token_ids=parameters.eos)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([1.0], [[1.0]], [[1.0, 0.0]], []), "eos_token_ids must be at least one id in 0 to 1"),
        (([1.0], [[1.0]], [[1.0, 0.0]], [2]), "eos_token_ids must be at least one id in 0 to 1, got \\[2\\]"),
        (([1.0], [[1.0]], [[1.0, 0.0]], -1), "got \\[-1\\]"),
        (([1.0], [[1.0]], [[1.0, 0.0]], "a"), "eos_token_ids must be token ids"),
        (([1.0, 0.0], [[1.0]], [[1.0, 0.0]], 1), "an HMM of H states over V tokens needs"),
        (([1.0], [[1.0]], [1.0, 0.0], 1), "an HMM of H states over V tokens needs"),
        (([1.0], [[1.0]], 1.0, 1), "eos_token_ids must be"),
        (([[1.0]], [[1.0]], [[1.0, 0.0]], 1), "an HMM of H states over V tokens needs"),
        (([], np.zeros((0, 0)), np.zeros((0, 2)), 1), "an HMM of H states over V tokens needs"),
        (([1.0], [["a"]], [[1.0, 0.0]], 1), "transition must be an array of numbers"),
        (([1j], [[1.0]], [[1.0, 0.0]], 1), "initial must hold probabilities, got torch.complex128"),
        (([True], [[1.0]], [[1.0, 0.0]], 1), "initial must hold probabilities, got torch.bool"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message):
    with pytest.raises(InputError, match=message):
        HMM(*arrays)


def test_immutable(parameters):
    hmm = parameters.hmm(metadata={"a": 1})
    with pytest.raises(AttributeError, match="HMM is immutable, initial cannot be set"):
        hmm.initial = hmm.initial
    with pytest.raises(AttributeError, match="HMM is immutable, dtype cannot be deleted"):
        del hmm.dtype
    before = torch.tensor(parameters.initial).float()
    given = before.clone()
    hmm = HMM(given, parameters.transition, parameters.emission, parameters.eos)
    given.zero_()
    torch.testing.assert_close(hmm.initial, before / before.sum())
    with pytest.raises(InputError, match="metadata must be what JSON can hold"):
        parameters.hmm(metadata={"a": {1, 2}})


@pytest.mark.parametrize("dtype", DTYPES)
def test_save_load_compare(parameters, dtype, tmp_path):
    hmm = parameters.hmm(dtype=dtype, vocabulary_fingerprint="abc", metadata={"model": "Zoë", "steps": [1, 2.5]})
    path = tmp_path / "one.safetensors"
    hmm.save(path, {"steps": [3], "more": None})
    found = HMM.load(path)
    assert found == hmm
    assert found.dtype == dtype
    assert found.emission.values.dtype == getattr(torch, dtype)
    assert found.vocabulary_fingerprint == "abc"
    assert found.eos_token_ids == (0, 7)
    assert found.metadata == {"model": "Zoë", "steps": [3], "more": None}
    for mine, theirs in zip(
        (hmm.initial, hmm.transition, *hmm.emission), (found.initial, found.transition, *found.emission), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert torch.equal(found.log_prob([[1, 2, 0]]), hmm.log_prob([[1, 2, 0]]))
    size = path.stat().st_size
    found.save(path)
    assert path.stat().st_size <= size
    assert [item.name for item in tmp_path.iterdir()] == ["one.safetensors"]
    body = {"float32": 4, "float16": 2, "uint8": 1}[dtype] * 60 * 13
    assert size < body + 4 * (13 * 13 + 60 + 2 * 13) + 3000


def test_loading_for_a_vocabulary(parameters, tmp_path):
    path = tmp_path / "one.safetensors"
    right = vocabulary(60, (0, 7))
    parameters.hmm(vocabulary_fingerprint=right.fingerprint).save(path)
    assert HMM.load(path, right).size == 60
    with pytest.raises(VocabularyError, match="over 60 token ids with the ends \\[0, 7\\], but the model has 61"):
        HMM.load(path, vocabulary(61, (0, 7)))
    with pytest.raises(VocabularyError, match="but the model has 60 with the ends \\[0\\]"):
        HMM.load(path, vocabulary(60, (0,)))
    other = type(right)([*right.tokens[:-1], b"other"], eos_token_ids=(0, 7))
    with pytest.raises(VocabularyError, match="as many ids, but other tokens"):
        HMM.load(path, other)
    parameters.hmm().save(path)
    assert HMM.load(path, other).vocabulary_fingerprint is None


def test_files_that_are_damaged(parameters, tmp_path):
    path = tmp_path / "one.safetensors"
    parameters.hmm(dtype="uint8").save(path)
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"is damaged or no safetensors file .* copy or download it again"):
            HMM.load(path)
    for place in (len(whole) - 1, len(whole) - 400):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ModelError, match="its contents do not match the fingerprint in it"):
            HMM.load(path)


@pytest.mark.parametrize("missing", ["initial", "emission.scale", "fingerprint", "eos_token_ids", "made"])
def test_files_that_lack_something(parameters, tmp_path, missing):
    path = tmp_path / "one.safetensors"
    parameters.hmm().save(path)
    tensors, header = _files.read(path, "hmm", 1)
    tensors.pop(missing, None)
    header.pop(missing, None)
    _files.write(path, "hmm", tensors, header)
    with pytest.raises(ModelError, match="its contents do not match"):
        HMM.load(path)


def test_files_with_parts_of_other_shapes(parameters, tmp_path):
    """The fingerprint is right, but the kernels would read something else."""
    path = tmp_path / "one.safetensors"
    hmm = parameters.hmm(dtype="uint8")
    flat = hmm._with(hmm.initial, hmm.transition, hmm.emission._replace(scale=hmm.emission.scale.flatten()), "uint8")
    other = hmm._with(hmm.initial, hmm.transition, hmm.emission, "float16")
    for strange in (flat, other):
        strange.save(path)
        with pytest.raises(ModelError, match="its contents do not match"):
            HMM.load(path)


def test_files_of_other_kinds(parameters, tmp_path):
    path = tmp_path / "one.safetensors"
    with pytest.raises(InputError, match="there is no file"):
        HMM.load(path)
    with pytest.raises(InputError, match="there is no file"):
        HMM.load(tmp_path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="holds kind None, format None; wanted kind 'hmm', format 1"):
        HMM.load(path)
    save_file({"a": torch.zeros(1)}, path, {"ctrldecode": "[1"})
    with pytest.raises(ModelError, match="holds kind None"):
        HMM.load(path)
    parameters.hmm().save(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["ctrldecode"])
    save_file(load_file(path), path, {"ctrldecode": json.dumps({**header, "format": 2})})
    with pytest.raises(ModelError, match="format 2; wanted kind 'hmm', format 1; make it anew, or use the version"):
        HMM.load(path)


def test_writing_that_fails_leaves_the_old_file(parameters, tmp_path, monkeypatch):
    path = tmp_path / "one.safetensors"
    parameters.hmm().save(path)
    before = path.read_bytes()

    def full(tensors, part, header):
        Path(part).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "save_file", full)
    with pytest.raises(ModelError, match="No space left on device; see to the space left"):
        parameters.hmm().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["one.safetensors"]  # noqa: PTH208  names only
    with pytest.raises(InputError, match="wanted a file in a folder that exists; create"):
        parameters.hmm().save(tmp_path / "nothing" / "one.safetensors")
    with pytest.raises(InputError, match="cannot write"):
        parameters.hmm().save(tmp_path)


def test_another_device(parameters):
    hmm = parameters.hmm(dtype="uint8", metadata={"a": 1})
    moved = hmm.to("cpu")
    assert moved == hmm
    assert (moved.metadata, moved.dtype, moved.device) == ({"a": 1}, "uint8", torch.device("cpu"))


@pytest.mark.cuda
def test_cuda_gives_the_same(parameters):
    for dtype in DTYPES:
        hmm = parameters.hmm(dtype=dtype)
        moved = hmm.to("cuda")
        assert moved.fingerprint == hmm.fingerprint
        tokens = hmm.sample(50, 8, np.random.default_rng(0))
        assert torch.equal(moved.sample(50, 8, np.random.default_rng(0)).cpu(), tokens)
        torch.testing.assert_close(moved.log_prob(tokens).cpu(), hmm.log_prob(tokens), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(moved.posterior(tokens).cpu(), hmm.posterior(tokens), rtol=1e-9, atol=1e-12)
        assert torch.equal(moved.viterbi(tokens).states.cpu(), hmm.viterbi(tokens).states)


def test_top_tokens(parameters):
    hmm = parameters.hmm()
    ids, probs = hmm.top_tokens(torch.tensor([4, 2]), 3)
    wanted = np.sort(parameters.emission[[4, 2]], 1)[:, :-4:-1]
    np.testing.assert_allclose(probs, wanted, rtol=1e-6)
    np.testing.assert_allclose(parameters.emission[[[4], [2]], ids], wanted, rtol=1e-6)
    assert hmm.top_tokens(torch.tensor([0]), 100)[0].shape == (1, 60)
