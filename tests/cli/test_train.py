"""`ctrldecode train class-lm` with a tiny random model: the folder, messages, and that nothing is left of what was refused."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.cli.conftest import unless_given
from tests.cli.test_fit_attribute import texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

NAMES = ("mixed", "plain")


def lines() -> list[str]:
    """Words with an x are mixed, words of a, b and c alone are plain."""
    return [json.dumps({"text": text, "label": NAMES[label]}) for text, label in texts()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data.jsonl").write_text("\n".join(lines()) + "\n\n")
    return tmp_path / "data.jsonl"


@pytest.fixture
def train(run: Callable[..., Run], model_folder: Path, data: Path, tmp_path: Path) -> Callable[..., Run]:
    """The command, on a CPU and for a few steps; options that are given take the place of these."""
    small = {"--base": model_folder, "--data": data, "--codes": "mixed,plain", "--out": tmp_path / "out"}
    small |= {"--steps": 6, "--device": "cpu"}
    return lambda *words: run("train", "class-lm", *unless_given(small, words))


def test_folder_card_and_figures(train: Callable[..., Run], tmp_path: Path, model_folder: Path) -> None:
    code, said, err = train("--holdout", 0.2, "--dtype", "float32", "--mix", 0.3)
    assert code == 0, err
    out = tmp_path / "out"
    assert said.startswith(f"{out}: held-out accuracy ")
    assert said.count("\n") == 1
    assert "of 24 texts" in said
    assert "perplexity" in said
    loaded = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    gedi = loaded.config.gedi
    assert gedi["codes"] == {name: tokenizer(name).input_ids for name in NAMES}
    assert gedi["start"] == [256]
    assert set(gedi["bias"]) == set(NAMES)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"made from `{model_folder.name}`" in card
    assert "24 texts of data.jsonl that were not trained on" in card
    assert "| λ, part of the generative loss | 0.3 |" in card
    assert {path.name for path in out.iterdir()} >= {"config.json", "generation_config.json", "tokenizer.json"}
    assert not [path for path in out.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_texts_to_measure_on_and_calibration(train: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "fresh.jsonl").write_text(
        "\n".join(line.replace('"text": "', '"text": "new ') for line in lines()[:30])
    )
    code, said, err = train("--held-out", tmp_path / "fresh.jsonl", "--calibrate")
    assert code == 0, err
    assert "of 15 texts, log" in said
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "15 texts of fresh.jsonl that were not trained on. A figure" in card
    assert "fitted to 15 other held-out texts" in card
    assert "| texts | 120 |" in card


def test_resume(train: Callable[..., Run], tmp_path: Path) -> None:
    first = train()
    assert first.code == 0, first.err
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    refused = train()
    assert refused.code == 2
    assert "is not empty; go on with its training by --resume" in refused.err
    again = train("--resume")
    assert (again.code, again.out) == (0, first.out)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    other = train("--resume", "--mix", 0.9)
    assert other.code == 2
    assert "has other settings or texts than this one" in other.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', 'line 2: "label" must be one of mixed, plain, got none; add that class to --codes'),
        ('{"text": "a", "label": "odd"}', "line 2: \"label\" must be one of mixed, plain, got 'odd'"),
        ('{"text": "a", "label": 1}', 'line 2: "label" must be one of mixed, plain, got 1'),
        ('{"text": "a", "label": ["plain"]}', "got ['plain']"),
        ('{"label": "plain"}', 'line 2: "text" must be a string, got None'),
        ("{", "line 2 is not JSON"),
    ],
)
def test_lines_that_are_wrong(train: Callable[..., Run], data: Path, tmp_path: Path, line: str, message: str) -> None:
    data.write_text("\n".join([lines()[0], line, *lines()]))
    code, out, err = train()
    assert (code, out) == (2, "")
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_empty_file(train: Callable[..., Run], data: Path) -> None:
    data.write_text("\n")
    assert 'holds no lines; wanted {"text": "...", "label": "mixed"} in each' in train().err


def test_out_is_a_file(train: Callable[..., Run], data: Path) -> None:
    assert "--out must be a folder" in train("--out", data).err


def test_without_accelerate(train: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "ctrldecode.training._accelerate.find_spec", lambda name: None if name == "accelerate" else found(name)
    )
    code, _, err = train()
    assert code == 2
    assert "install it with: pip install 'ctrldecode[train]'" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--work", "--out"])
def test_going_on_does_not_touch_folders_of_others(run, tmp_path, option):
    strange = tmp_path / "strange"
    (strange / "checkpoint-500").mkdir(parents=True)
    data = tmp_path / "data.jsonl"
    lines = [f'{{"text": "text {n}", "label": "{name}"}}' for n in range(8) for name in ("happy", "sad")]
    data.write_text("\n".join(lines))
    places = {"--out": tmp_path / "out", "--work": tmp_path / "work", option: strange}
    words = [word for pair in places.items() for word in pair]
    result = run("train", "class-lm", "--data", data, "--codes", "happy,sad", "--resume", *words)
    assert result.code == 2
    assert "not of a run of train class-lm" in result.err
    assert (strange / "checkpoint-500").is_dir()
