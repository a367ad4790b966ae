"""What --resume refuses: another base, another number of processes, damaged files. Each message names what is wrong."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from ctrldecode.errors import InputError, ModelError
from ctrldecode.training._resume import describe, last_checkpoint, remember, weights_digest
from ctrldecode.training.data import split
from ctrldecode.training.run import Data, train
from ctrldecode.training.trainer import Settings
from tests.training.toy_texts import CODES, separable, small_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = Settings(steps=10, batch=4)


def data() -> Data:
    return Data(CODES, *split(separable(30), CODES.names, 0.2, 0))


def going_on(folder: Path, seed: int = 0) -> object:
    return train(small_model(seed), data(), SETTINGS, folder, cpu=True, resume=True)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints 5 and 6 of 10 updates."""
    folder = tmp_path_factory.mktemp("stopped")

    def stop(done: int, total: int, logs: dict[str, float]) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_model(), data(), SETTINGS, folder, cpu=True, report=stop)
    return folder


@pytest.fixture
def work(stopped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stopped, tmp_path / "work")


def test_another_base(work: Path) -> None:
    with pytest.raises(InputError, match="the base has other weights, so give the same --base"):
        going_on(work, seed=1)
    assert going_on(work).updates == 10


def test_the_digest_is_of_every_weight() -> None:
    model = small_model()
    before = weights_digest(model)
    assert weights_digest(small_model()) == before
    assert weights_digest(small_model().half()) != before
    for _, weight in model.named_parameters():
        with torch.no_grad():
            weight.view(-1)[-1] += 1e-3
        assert weights_digest(model) != before
        before = weights_digest(model)


@pytest.mark.parametrize(
    ("processes", "device", "message"),
    [(2, "cpu", "processes is 1 there, 2 here"), (1, "cuda", "device is cpu there, cuda here")],
)
def test_other_processes_or_devices(tmp_path: Path, processes: int, device: str, message: str) -> None:
    remember(tmp_path, describe(SETTINGS, data(), small_model(), 1, "cpu"))
    with pytest.raises(InputError, match=message):
        last_checkpoint(tmp_path, describe(SETTINGS, data(), small_model(), processes, device))


def test_settings_of_an_older_version(work: Path) -> None:
    known = json.loads((work / "settings.json").read_text())
    del known["base"]
    (work / "settings.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match="the base has other weights"):
        going_on(work)


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def written(content: str) -> Callable[[Path], None]:
    return lambda file: file.write_text(content) and None


@pytest.mark.parametrize(
    "name", ["model.safetensors", "posterior.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
@pytest.mark.parametrize("damage", [halved, written(""), written("nonsense")], ids=["half", "empty", "nonsense"])
def test_files_of_a_checkpoint_that_are_damaged(work: Path, name: str, damage: Callable[[Path], None]) -> None:
    last = work / "checkpoint-7" if (work / "checkpoint-7").exists() else work / "checkpoint-6"
    damage(last / name)
    with pytest.raises(ModelError, match=rf"{last / name} is damaged: .+\n  Remove {last}, and --resume goes on"):
        going_on(work)
    shutil.rmtree(last)
    assert going_on(work).updates == 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer_state.json", "{}"),
        ("trainer_state.json", '{"a": }'),
        ("trainer_state.json", '{"unknown": 1}'),
        ("trainer_state.json", '{"global_step": "x", "max_steps": null}'),
        ("trainer_state.json", '{"a":' * 50_000 + "1" + "}" * 50_000),
    ],
)
def test_json_of_a_checkpoint_that_is_damaged(work: Path, name: str, content: str) -> None:
    (work / "checkpoint-6" / name).write_text(content)
    with pytest.raises(ModelError, match=r"checkpoint-6\S* is damaged"):
        going_on(work)


@pytest.mark.parametrize("content", ["{}", "["])
def test_the_configuration_of_a_checkpoint_is_not_read(work: Path, content: str) -> None:
    (work / "checkpoint-6" / "config.json").write_text(content)  # of a model of any size, if it were read
    assert going_on(work).updates == 10


def test_weights_that_are_missing(work: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = work / "checkpoint-6" / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"checkpoint-6 is damaged: it lacks weights: \['model.norm.weight'\]"):
        going_on(work)


def test_a_checkpoint_without_a_file_was_never_whole(work: Path) -> None:
    (work / "checkpoint-6" / "rng_state.pth").unlink()
    described = json.loads((work / "settings.json").read_text())
    assert last_checkpoint(work, described) == str(work / "checkpoint-5")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 100_000, "\xff"], ids=["empty", "half", "list", "deep", "latin"]
)
def test_settings_that_are_damaged(work: Path, content: str) -> None:
    (work / "settings.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"settings\.json is damaged: .+ remove the folder, or name another"):
        going_on(work)
