"""`ctrldecode distill` with a tiny random model: files, messages, and that nothing is left of what was refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.distill.recipe import Recipe
from ctrldecode.hmm.model import HMM
from ctrldecode.kernels.hmm import dense
from tests.cli.conftest import SIZE, tokenizer, unless_given
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

RECIPE = """\
held_out = 20
clustered = 50
update = 30
passes = 2
batch = 30
"""


@pytest.fixture
def distill(run: Callable[..., Run], model_folder, tmp_path) -> Callable[..., Run]:
    """The command with a small recipe, which writes into the test's folder."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    small = {"--model": model_folder, "--recipe": recipe, "--states": 6, "--sequences": 60, "--length": 10}
    return lambda *words, out="out.safetensors": run(
        "distill", *unless_given({**small, "--out": tmp_path / out}, words)
    )


def test_model_recipe_card_and_curves(distill, model_folder, tmp_path):
    result = distill("--seed", 3, "--dtype", "uint8")
    assert result.code == 0, result.err
    vocabulary = Vocabulary.from_tokenizer(tokenizer(), size=SIZE, eos_token_ids=[257])
    hmm = HMM.load(tmp_path / "out.safetensors", vocabulary)
    assert (hmm.states, hmm.size, hmm.dtype, hmm.eos_token_ids) == (6, SIZE, "uint8", (257,))
    recipe = Recipe.from_toml(tmp_path / "out.toml")
    assert (recipe.states, recipe.sequences, recipe.seed, recipe.held_out) == (6, 60, 3, 20)
    figures = hmm.metadata["nats_per_token"]
    card = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert f"| nats a token, held out | {figures['held_out']:.3f} |" in card
    assert "![Nats a token over tokens seen](out.png)" in card
    assert "`ctrldecode distill --recipe out.toml --out again.safetensors`" in card  # --out is needed
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (tmp_path / "out.distill" / "metrics.jsonl").read_text().splitlines()]
    assert [record["update"] for record in records] == [1, 2, 3]
    assert f"{figures['held_out']:.3f} nats a token held out" in result.out


def test_the_recipe_makes_the_model_again(distill, run, tmp_path):
    assert distill("--no-curves").code == 0
    again = tmp_path / "again.safetensors"
    assert run("distill", "--recipe", tmp_path / "out.toml", "--out", again, "--no-curves").code == 0
    assert HMM.load(again) == HMM.load(tmp_path / "out.safetensors")
    assert not again.with_suffix(".png").exists()
    assert "png" not in again.with_suffix(".md").read_text(encoding="utf-8")


def test_resume_goes_on(distill, tmp_path):
    assert distill("--no-curves").code == 0
    first = (tmp_path / "out.safetensors").read_bytes()
    (tmp_path / "out.safetensors").unlink()
    (tmp_path / "out.distill" / "checkpoint.safetensors").unlink()
    refused = distill("--no-curves")
    assert refused.code == 2
    assert "--resume" in refused.err
    assert distill("--no-curves", "--resume").code == 0
    assert (tmp_path / "out.safetensors").read_bytes() == first


def test_prompts_are_continued(distill, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("ab\ncde\n")
    assert distill("--no-curves", "--prompts", prompts).code == 0
    hmm = HMM.load(tmp_path / "out.safetensors")
    first = torch.cat([hmm.log_prob([tokenizer()(letter).input_ids]) for letter in "acz"])
    assert float(first[:2].min()) > float(first[2])


def test_what_is_refused_leaves_nothing(distill, model_folder, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    bad = [
        (("--prompts", empty), "out.safetensors", "are empty; wanted one prompt a line"),
        (("--states", 100000), "out.safetensors", "there will be at most 500"),
        (("--length", 64), "out.safetensors", "do not fit into the 64 positions"),
        (("--device", "abacus"), "out.safetensors", "the device 'abacus' cannot be used"),
        (("--device", "meta"), "out.safetensors", "the device 'meta' cannot be used"),
        ((), "out.bin", "ends in .safetensors"),
        ((), "none/out.safetensors", "does not exist; make it first"),
        (("--model", tmp_path / "nowhere"), "out.safetensors", "cannot be loaded"),
    ]
    for words, out, message in bad:
        result = distill("--no-curves", *words, out=out)
        assert result.code == 2, words
        assert message in result.err.replace("\n", " ")
        assert not result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "recipe.toml"]


def test_without_matplotlib_it_says_so_at_once(distill, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "ctrldecode.distill._curves", raising=False)
    result = distill()
    assert result.code == 2
    assert "pip install 'ctrldecode[plots]'" in result.err
    assert "--no-curves" in result.err
    assert not (tmp_path / "out.distill" / "samples").exists()


def test_two_processes_make_the_same_model(distill, model_folder, tmp_path):
    """As torchrun starts them, over gloo: equal but for the order of sums."""
    assert distill("--no-curves").code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", "--master-addr=127.0.0.1"]
    together = tmp_path / "together.safetensors"
    words = [
        "ctrldecode",
        "distill",
        "--recipe",
        tmp_path / "out.toml",
        "--out",
        together,
        "--no-curves",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", *launcher, "-m", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nats a token held out") == 1
    for got, wanted in zip(parameters(together), parameters(tmp_path / "out.safetensors"), strict=True):
        torch.testing.assert_close(got, wanted, rtol=2e-3, atol=1e-5)  # what float16 rounds


def parameters(path: Path) -> tuple[torch.Tensor, ...]:
    hmm = HMM.load(path)
    return hmm.initial, hmm.transition, dense(hmm.emission)


@pytest.mark.parametrize("out", [".", "/", ".."])
def test_a_path_without_a_name_is_refused(run, out):
    result = run("distill", "--model", "tinytales", "--out", out)
    assert result.code == 2
    assert "ends in .safetensors" in result.err.replace("\n", " ")
