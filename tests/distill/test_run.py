"""The driver: that it learns, that it stops, that it resumes to the same bits however it was killed, and what it refuses."""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from ctrldecode.distill import corpus
from ctrldecode.distill import fit as fitting
from ctrldecode.distill import run as driver
from ctrldecode.distill._files import read_tensors, write_tensors
from ctrldecode.errors import DistillationError
from tests.conftest import ROOT
from tests.distill.runs import RECIPE, run
from tests.toys import EOS, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from ctrldecode.distill.em import Parameters


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder where all is done, with its result and events."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, *run(folder)


def same(first: Parameters, second: Parameters) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def lines(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl but for how long things took."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_it_learns_and_says_so(finished):
    folder, result, events = finished
    assert {event.stage for event in events} == {"sample", "cluster", "fit"}
    assert [record["pass_ends"] for record in lines(folder)] == [0, 0, 0, 1, 0, 0, 0, 1, 1]
    assert [event.done for event in events if event.stage == "fit"] == list(range(1, 10))
    assert {event.total for event in events if event.stage == "fit"} == {9}
    assert [record["update"] for record in result.records] == list(range(1, 10))
    assert result.held_out < result.records[0]["held_out"]
    assert 0 < result.language_model < result.held_out
    assert [record["rate"] for record in result.records][-1] == 1
    assert result.held_out == min(result.records[number]["held_out"] for number in (3, 7, 8))
    assert result.model.emission.shape == (tiny_llama().config.vocab_size, RECIPE.states)
    assert float(result.model.emission[EOS, -1]) == 1


def test_the_language_models_figure_is_its_own(finished):
    folder, result, _ = finished
    kinds = [(kind.sequences, kind.length) for kind in RECIPE.samples]
    shards = [s for s in corpus.plan(kinds, RECIPE.held_out, RECIPE.batch, RECIPE.clustered) if s.held_out]
    texts = [corpus.read(folder / "samples", shard) for shard in shards]
    total = -sum(float(text.log_probs.sum()) for text in texts)
    assert result.language_model == pytest.approx(total / sum(int((text.tokens >= 0).sum()) for text in texts))


def test_a_second_run_is_the_same(finished, tmp_path):
    _, result, _ = finished
    assert same(run(tmp_path)[0].model, result.model)


def test_another_seed_is_another_model(finished, tmp_path):
    _, result, _ = finished
    assert not same(run(tmp_path, replace(RECIPE, seed=1, passes=1))[0].model, result.model)


def test_what_is_done_is_not_done_again(finished, tmp_path):
    folder, result, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    again, events = run(tmp_path)
    assert same(again.model, result.model)
    assert not [event for event in events if event.stage == "fit"]
    assert again.records == result.records


def test_without_the_best_parameters_it_fits_anew(finished, tmp_path):
    folder, result, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "best.safetensors").unlink()
    assert same(run(tmp_path)[0].model, result.model)
    assert lines(tmp_path) == lines(folder)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def of_another_recipe(path: Path) -> None:
    write_tensors(path, read_tensors(path), {"digest": "other"})


@pytest.mark.parametrize("name", ["best.safetensors", "checkpoint.safetensors", "start.safetensors"])
@pytest.mark.parametrize(
    ("damage", "told"), [(cut_off, "remove it, and --resume"), (of_another_recipe, "remove it to fit")]
)
def test_what_is_damaged_is_told_and_removing_it_helps(finished, tmp_path, name, damage, told):
    folder, result, _ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    if name == "start.safetensors":  # read only where nothing else is
        (tmp_path / "best.safetensors").unlink()
    damage(tmp_path / name)
    with pytest.raises(DistillationError, match=f"{name} .*{told}"):
        run(tmp_path)
    (tmp_path / name).unlink()
    assert same(run(tmp_path)[0].model, result.model)


@pytest.mark.parametrize("damage", [cut_off, of_another_recipe])
def test_damaged_parameters_are_told_before_more_is_fitted(finished, tmp_path, monkeypatch, damage):
    step = fitting._step

    def stopping(task, now, model, *, whole):
        if now.state.updates == 4:
            raise Stop
        return step(task, now, model, whole=whole)

    monkeypatch.setattr(fitting, "_step", stopping)
    with pytest.raises(Stop):
        run(tmp_path)
    damage(tmp_path / "best.safetensors")
    with pytest.raises(DistillationError, match=r"best\.safetensors"):
        run(tmp_path)
    (tmp_path / "best.safetensors").unlink()
    monkeypatch.setattr(fitting, "_step", step)
    assert same(run(tmp_path)[0].model, finished[1].model)


class Stop(Exception):  # noqa: N818  it is no error
    """What ends a run in a test."""


@pytest.mark.parametrize("updates", [None, 0, 1, 4, 6, 8])
def test_it_goes_on_from_where_it_stopped(finished, tmp_path, monkeypatch, updates):
    """Left while it clusters, or after some updates, with a checkpoint after each or at the ends of passes."""
    folder, result, _ = finished
    monkeypatch.setattr(fitting, "_CHECKPOINT_SECONDS", 0.0 if updates == 6 else 1e9)
    step = fitting._step

    def stopping(task, now, model, *, whole):
        if now.state.updates == updates:
            raise Stop
        return step(task, now, model, whole=whole)

    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(*((driver, "_start", stop) if updates is None else (fitting, "_step", stopping)))
        with pytest.raises(Stop):
            run(tmp_path)
    if updates:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"update": 1, "trai')  # as a crash may leave it
    assert same(run(tmp_path)[0].model, result.model)
    assert lines(tmp_path) == lines(folder)


def test_it_stops_when_little_is_gained(tmp_path):
    """The last two passes in small steps show it, and the one over all texts follows."""
    result, _ = run(tmp_path, replace(RECIPE, passes=30, tolerance=0.05))
    passes = [record["held_out"] for record in result.records if record["pass_ends"]]
    *gains, last, _ = [before - after for before, after in itertools.pairwise(passes)]
    assert len(passes) < 30
    assert all(gain >= 0.05 for gain in gains)
    assert last < 0.05
    assert result.records[-1]["rate"] == 1


def test_one_pass_is_plain_em(tmp_path):
    result, _ = run(tmp_path, replace(RECIPE, passes=1))
    assert [(record["rate"], record["pass_ends"]) for record in result.records] == [(1, 1)]


def test_another_recipe_is_refused(finished, tmp_path):
    folder, *_ = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    with pytest.raises(DistillationError, match="another recipe"):
        run(tmp_path, replace(RECIPE, states=9))
    with pytest.raises(DistillationError, match="another model"):
        run(tmp_path, replace(RECIPE, seed=5))


def test_more_states_than_data_are_refused(tmp_path):
    with pytest.raises(DistillationError, match=r"fewer\s+--states"):
        run(tmp_path, replace(RECIPE, states=720))


def test_a_disk_without_room_is_refused_before_anything_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(driver.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DistillationError, match=r"GB are free.*--work"):
        run(tmp_path)
    assert not list((tmp_path / "samples").iterdir())


def test_a_broken_model_leaves_no_shard(tmp_path):
    broken = copy.deepcopy(tiny_llama())
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(DistillationError, match="NaN"):
        run(tmp_path, model=broken)
    assert not list((tmp_path / "samples").iterdir())


# ---------------------------------------------------------------------------------------------------------- processes


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.distill.runs", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_at_random(folder: Path, kills: int, rng: random.Random) -> int:
    """Run, and kill it with SIGKILL while files are being made; then let it finish. How often it was killed."""
    done = 0
    for _ in range(kills):
        process = start(folder)
        before = set(folder.rglob("*"))
        deadline = time.monotonic() + 120
        while process.poll() is None and set(folder.rglob("*")) <= before and time.monotonic() < deadline:
            time.sleep(0.005)  # importing torch takes seconds, in which there is nothing to interrupt
        time.sleep(rng.random() * 0.4)
        done += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _, complaint = (process := start(folder)).communicate(timeout=300)
    assert process.returncode == 0, complaint.decode()
    return done


@pytest.mark.parametrize("kills", [pytest.param(20, marks=pytest.mark.soak)])
def test_it_survives_being_killed(finished, tmp_path, kills):
    folder, *_ = finished
    assert killed_at_random(tmp_path, kills, random.Random(0)) > 0
    for name in ("best.safetensors", "checkpoint.safetensors"):
        wanted = read_tensors(folder / name)
        assert all(torch.equal(wanted[key], got) for key, got in read_tensors(tmp_path / name).items())
    assert lines(tmp_path) == lines(folder)


def test_it_survives_being_killed_once(finished, tmp_path):
    test_it_survives_being_killed(finished, tmp_path, 1)
