"""`ctrldecode train class-lm`: what is refused before the work, what the card says, and how it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_train import data, lines, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

__all__ = ["data", "train"]  # fixtures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--codes", "plain"),
            "two or more different names of classes, got 'plain': one class cannot be told from others; write for example happy,sad",
        ),
        (("--codes", "plain,plain"), "error: --codes must be two or more different names"),
        (("--codes", "plain,"), "two or more different names"),
        (("--codes", "mixed,plain,odd"), "has no text of odd; take out that code, or add such texts"),
        (("--data", "nothing.jsonl"), "there is no file"),
        (("--out", "nowhere/out"), "the folder of --out, 'nowhere', does not exist; make it first"),
        (("--holdout", 0), "error: --holdout must lie between 0 and 1, got 0.0"),
        (("--max-length", 6), "codes take 6 of 6 positions, which leaves no text"),
        (("--learning-rate", -1), "error: --learning-rate must be a finite number above 0, got -1.0"),
        (("--codes", "mixed,pl=ain"), "'pl=ain' has a =, which parts class and strength in --guide pl=ain"),
        (("--codes", "mixed,,plain"), "one is empty"),
        (("--codes", "mixed,plain,mixed"), "'mixed' stands there twice"),
        (("--codes", "mixed,pl\x07ain"), "characters that cannot be printed"),
        (("--batch-size", 10**30), "error: --batch-size must be 1,000,000,000 at most"),
        (("--steps", 10**30), "error: --steps must be 1,000,000,000 at most"),
        (("--holdout", 0.01, "--calibrate"), "each class needs 2 held-out texts or more"),
    ],
)
def test_requests_that_are_wrong(
    train: Callable[..., Run], tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    code, out, err = train(*words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl"}


@pytest.mark.parametrize(
    ("out", "work"), [("out", "out"), ("out", "out/work"), ("out", "."), ("out", "link"), ("link/out", "out")]
)
def test_folders_in_one_another(train: Callable[..., Run], tmp_path: Path, out: str, work: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out").mkdir()
    result = train("--out", tmp_path / out, "--work", tmp_path / work)
    assert result.code == 2
    assert "must lie side by side" in result.err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_the_base_is_not_written_over(train: Callable[..., Run], model_folder: Path, option: str) -> None:
    before = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    result = train("--resume", option, model_folder)
    assert result.code == 2
    assert f"lies in {option}, which would be written over" in result.err
    assert {path.name: path.read_bytes() for path in model_folder.iterdir()} == before


def test_the_training_file_is_not_held_out(train: Callable[..., Run], data: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(data)
    for held_out in (data, tmp_path / "link.jsonl"):
        result = train("--held-out", held_out)
        assert result.code == 2
        assert "--held-out and --data are one file" in result.err


def test_held_out_texts_that_were_trained_on_are_told(train: Callable[..., Run], tmp_path: Path) -> None:
    some = [*lines()[:6], *(line.replace('"text": "', '"text": "new ') for line in lines()[:4])]
    (tmp_path / "some.jsonl").write_text("\n".join(some))
    result = train("--held-out", tmp_path / "some.jsonl")
    assert "of 10 texts (6 of them trained on, too), log loss" in result.out
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "10 texts of some.jsonl, 6 of which were trained on, too, which flatters the figures." in card
    assert "not trained on" not in card


def test_lines_nested_too_deep(train: Callable[..., Run], data: Path) -> None:
    data.write_text("\n".join([lines()[0], "[" * 100_000, *lines()]))
    assert "data.jsonl, line 2 is JSON nested too deep" in train().err


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "[]", '{"model_type": "llama", "hidden_size": "x"}'], ids=["deep", "list", "type"]
)
def test_a_base_whose_configuration_is_damaged(
    train: Callable[..., Run], model_folder: Path, tmp_path: Path, config: str
) -> None:
    (tmp_path / "base").mkdir()
    for file in model_folder.iterdir():
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "base" / "config.json").write_text(config)
    result = train("--base", tmp_path / "base")
    assert result.code == 2
    assert "base' cannot be loaded" in result.err


EMPTY = [
    ("train", "class-lm", "--data", "d", "--codes", "a,b", "--out", ""),
    ("train", "class-lm", "--data", "", "--codes", "a,b", "--out", "o"),
    ("train", "class-lm", "--data", "d", "--codes", "a,b", "--out", "o", "--base", ""),
    ("train", "class-lm", "--data", "d", "--codes", "a,b", "--out", "o", "--work", ""),
    ("train", "class-lm", "--data", "d", "--codes", "a,b", "--out", "o", "--held-out", ""),
    ("distill", "--out", ""),
    ("distill", "--out", "o.safetensors", "--work", ""),
    ("distill", "--out", "o.safetensors", "--recipe", ""),
    ("distill", "--out", "o.safetensors", "--prompts", ""),
    ("distill", "--out", "o.safetensors", "--model", ""),
    ("fit-attribute", "--data", "d", "--out", ""),
    ("fit-attribute", "--out", "o", "--data", ""),
    ("generate", "--hmm", ""),
    ("generate", "--model", ""),
    ("generate", "--grammar", ""),
    ("generate", "--class-lm", ""),
    ("generate", "--attribute", ""),
    ("explain", "--out", ""),
    ("explain", "--json", ""),
    ("sample", "--trie", ""),
    ("sample", "--report", ""),
    ("hmm", "info", "tinytales-256", "--model", ""),
]


@pytest.mark.parametrize("words", EMPTY, ids=lambda words: " ".join((words[0], words[words.index("") - 1])))
def test_empty_paths(run: Callable[..., Run], words: tuple[str, ...]) -> None:
    option = words[words.index("") - 1]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert f"Invalid value for '{option}': it is empty; give a name or a path" in err


def test_paths_that_cannot_be(run: Callable[..., Run]) -> None:
    code, out, err = run("fit-attribute", "--data", "d", "--out", "a\0b")
    assert (code, out) == (2, "")
    assert "Invalid value for '--out': it has a character of code 0" in err


def test_empty_arguments(run: Callable[..., Run]) -> None:
    for words in (
        ("hmm", "info", ""),
        ("hmm", "eval", "tinytales-256", ""),
        ("hmm", "convert", "x", ""),
        ("grammar", "check", "", "x"),
    ):
        code, _, err = run(*words)
        assert code == 2
        assert "it is empty; give a name or a path" in err


# Signals are sent by the process itself, at a known update; Python's own handler of SIGINT is set first, since a background job may
# have inherited that it is ignored.
STOPPED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ctrldecode.cli import main
from ctrldecode.training import trainer
at, number, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
end = trainer._Reports.on_step_end
def stop(self, args, state, control, **more):
    end(self, args, state, control, **more)
    if state.global_step == at:
        os.kill(os.getpid(), number)
trainer._Reports.on_step_end = stop
main(words)
"""


@pytest.mark.parametrize(
    ("number", "at", "code", "message"),
    [
        (signal.SIGINT, 4, 130, "goes on from the last checkpoint in"),
        (signal.SIGTERM, 4, 143, "goes on from the last checkpoint in"),
        (
            signal.SIGTERM,
            1,
            143,
            "interrupted before there was a checkpoint; the same command with --resume starts anew",
        ),
    ],
)
def test_interrupts(
    run: Callable[..., Run],
    model_folder: Path,
    data: Path,
    tmp_path: Path,
    number: int,
    at: int,
    code: int,
    message: str,
) -> None:
    words = ["train", "class-lm", "--base", model_folder, "--data", data, "--codes", "mixed,plain", "--steps", 20]
    words = [str(word) for word in (*words, "--device", "cpu")]
    whole = run(*words, "--out", tmp_path / "whole")
    command = [*words, "--out", str(tmp_path / "out")]
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, str(at), str(int(number)), *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert stopped.returncode == code, stopped.stderr
    assert message in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "out").exists()
    resumed = run(*command, "--resume")
    assert resumed.out == whole.out.replace("whole", "out")
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["gedi"]
        == json.loads((tmp_path / "whole" / "config.json").read_text())["gedi"]
    )


def test_out_through_a_link(train: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "far" / "model")
    assert train().code == 0
    assert (tmp_path / "far" / "model" / "config.json").is_file()
    assert (tmp_path / "out").is_symlink()
    assert "# model" in (tmp_path / "far" / "model" / "README.md").read_text(encoding="utf-8")
