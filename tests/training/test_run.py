"""Training on texts that are easily told apart; and going on where it was stopped."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from ctrldecode.errors import InputError, ModelError
from ctrldecode.training.card import card
from ctrldecode.training.data import split
from ctrldecode.training.posterior import Figures, Posterior, evidence, fit_posterior, measure
from ctrldecode.training.run import Data, Result, prepare, save, train
from ctrldecode.training.trainer import Settings
from tests.training.toy_texts import CODES, separable, small_model

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings(steps=40, batch=8, learning_rate=1e-2)


def data() -> Data:
    return Data(CODES, *split(separable(), CODES.names, 0.2, 0))


class Stopped(Exception):  # noqa: N818  it is no error
    """As Ctrl-C would."""


def test_it_learns_and_the_folder_loads(tmp_path: Path, tinytales_tokenizer) -> None:
    seen = []
    result = train(small_model(), data(), SETTINGS, tmp_path / "work", cpu=True, report=lambda *of: seen.append(of))
    assert result.figures.accuracy[-1] == 1
    assert result.figures.log_loss[-1] < 0.2
    assert result.figures.perplexity < 9  # 6 kinds of tokens, and an end; untrained 32
    assert result.updates == 40
    assert result.first
    assert seen[-1][:2] == (40, 40)
    assert any(set(logs) >= {"loss", "generative", "discriminative"} for *_, logs in seen)
    save(tmp_path / "out", result, CODES, tinytales_tokenizer, "# card\n")
    assert (tmp_path / "out" / "README.md").read_text() == "# card\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float16
    assert set(loaded.config.gedi) == {"codes", "scale", "bias", "start", "normalise"}
    assert loaded.config.gedi["codes"] == {"calm": [10], "wild": [11, 12]}
    assert loaded.config.gedi["start"] == [1]
    assert loaded.config.gedi["scale"] == result.posterior.scale
    assert loaded.config.gedi["scale"] != pytest.approx(10)
    for name, weight in result.model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_a_resumed_run_comes_to_the_same_result(tmp_path: Path) -> None:
    whole = train(small_model(), data(), SETTINGS, tmp_path / "whole", cpu=True)

    def stop(done: int, total: int, logs: dict[str, float]) -> None:
        if done == 23:
            raise Stopped

    with pytest.raises(Stopped):
        train(small_model(), data(), SETTINGS, tmp_path / "halves", cpu=True, report=stop)
    (tmp_path / "halves" / "checkpoint-23").mkdir()  # killed while it was writing one
    resumed = train(small_model(), data(), SETTINGS, tmp_path / "halves", cpu=True, resume=True)
    assert resumed.updates == 40
    assert resumed.posterior == whole.posterior
    assert resumed.figures == whole.figures
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_calibration_is_to_texts_that_are_not_measured(tmp_path: Path) -> None:
    settings = Settings(steps=3, batch=8, calibrate=True)
    result = train(small_model(), data(), settings, tmp_path, cpu=True)
    found = evidence(result.model.float(), CODES, data().held_out, 8)
    rest, half = split(found, CODES.names, 0.5, 0)
    assert result.posterior == fit_posterior(half)
    assert result.figures == measure(rest, result.posterior)
    assert result.figures.texts == 12


def test_calibration_is_refused_before_training(tmp_path: Path) -> None:
    few = data()
    few = Data(CODES, few.training, [*(text for text in few.held_out if text.label == 0), separable(1)[0]])
    with pytest.raises(InputError, match=r"each class needs 2 held-out texts or more.+: 'wild' has 1; hold out more"):
        train(small_model(), few, Settings(steps=3, batch=8, calibrate=True), tmp_path / "work", cpu=True)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("processes", "updates"), [(1, "5 of 8 texts"), (3, "5 of 24 texts")])
def test_the_card_tells_processes_and_the_whole_batch(processes: int, updates: str) -> None:
    figures = Figures(4, (None,), (1.0,), (0.1,), 1.0)
    result = Result(None, Posterior(2.0, (0.0, 0.1)), figures, 4, 0, 5, processes, first=True)
    text = card("name", "base", "data.jsonl", 90, CODES, Settings(steps=5, batch=8), result)
    assert f"| updates | {updates}, each behind every code |" in text
    assert f"| processes | {processes} |" in text
    assert "4 texts of data.jsonl, all of which were trained on, too" in text


def test_a_finished_run_is_read_again(tmp_path: Path) -> None:
    whole = train(small_model(), data(), Settings(steps=3, batch=8), tmp_path, cpu=True)
    seen = []
    again = train(
        small_model(),
        data(),
        Settings(steps=3, batch=8),
        tmp_path,
        cpu=True,
        resume=True,
        report=lambda *of: seen.append(of),
    )
    assert (again.updates, again.posterior, again.figures) == (3, whole.posterior, whole.figures)
    assert seen == []


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    short = Settings(steps=1, batch=8)
    train(small_model(), data(), short, tmp_path, cpu=True)
    with pytest.raises(InputError, match="other settings or texts"):
        train(small_model(), data(), Settings(steps=2, batch=8), tmp_path, cpu=True, resume=True)
    shutil.rmtree(tmp_path)
    assert train(small_model(), data(), short, tmp_path, cpu=True, resume=True).updates == 1  # nothing to go on with
    assert json.loads((tmp_path / "settings.json").read_text())["steps"] == 1


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6
    with pytest.raises(ModelError, match=r"norm\.weight does not fit into float16"):
        train(model, data(), Settings(steps=1, batch=8, learning_rate=1e-9), tmp_path, cpu=True)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(ModelError, match="the loss is nan at step 1"):
        train(model, data(), Settings(steps=3, batch=8), tmp_path, cpu=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mix", 1.5), ("prefixes", -1), ("holdout", 0.0), ("epochs", 0), ("learning_rate", float("nan"))],
)
def test_settings_that_are_wrong(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must"):
        Settings(**{name: value})


def test_codes_beyond_the_model(tinytales_tokenizer) -> None:
    with pytest.raises(InputError, match="the base knows 10 ids"):
        prepare(_narrow(), tinytales_tokenizer, 2, CODES, ([], []), SETTINGS)


def _narrow():
    model = small_model()
    model.resize_token_embeddings(10)
    return model
