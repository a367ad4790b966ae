"""`ctrldecode fit-attribute`: from labelled lines to a file, and lines that are wrong."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from ctrldecode.cli._models import Loaded
from ctrldecode.core import _tensor_files
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.hmm import AttributeWeights, _regression
from tests.cli.conftest import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


def texts(num: int = 120) -> list[tuple[str, int]]:
    """Words of a, b and c; those with an x lack the attribute."""
    rng = np.random.default_rng(0)
    found = []
    for row in range(num):
        letters = rng.choice(list("abc"), 8).tolist()
        if row % 3 == 0:
            letters[row % 8] = "x"
        found.append(("".join(letters), int(row % 3 != 0)))
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": text, "label": label}) for text, label in texts()]
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n\n")
    return tmp_path / "data.jsonl"


@pytest.fixture
def fit(run: Callable[..., Run], model_folder: Path) -> Callable[..., Run]:
    return lambda *words: run("fit-attribute", "--model", model_folder, *words)


def test_fit(fit: Callable[..., Run], data: Path, tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "calm.safetensors"
    code, said, err = fit("--data", data, "--out", out)
    assert (code, err) == (0, "")
    vocabulary = Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(model_folder), size=SIZE)
    found = AttributeWeights.load(out, vocabulary)
    assert found.name == "calm"
    assert vocabulary.tokens[int(found.values.argmin())] == b"x"
    assert float(found.values.min()) < 0.1
    made = found.metadata
    assert (made["data"], made["inverted"], made["seed"], made["texts"]) == ("data.jsonl", False, 0, 96)
    assert made["held_out"]["texts"] == 24
    assert made["held_out"]["accuracy"] == made["held_out"]["auc"] == 1
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert lines["accuracy"] == lines["AUC"] == "1.000"
    assert lines["held"] == "out  24 texts, 96 fitted to"
    assert lines["lightest"].startswith("'x'")
    again = tmp_path / "again.safetensors"
    fit("--data", data, "--out", again)
    assert AttributeWeights.load(again) == found


def test_options(fit: Callable[..., Run], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "calm.safetensors"
    assert fit("--data", data, "--out", out, "--invert", "--holdout", 0, "--penalty", 0.5, "--seed", 4)[0] == 0
    found = AttributeWeights.load(out)
    assert found.name == "not calm"
    assert (found.metadata["penalty"], found.metadata["inverted"], found.metadata["seed"]) == (0.5, True, 4)
    assert found.metadata["held_out"] is None
    assert "none held out" in fit("--data", data, "--out", out, "--holdout", 0, "--name", "mine")[1]
    assert AttributeWeights.load(out).name == "mine"


def test_scores(fit: Callable[..., Run], tmp_path: Path) -> None:
    path, out = tmp_path / "scores.jsonl", tmp_path / "scored.safetensors"
    path.write_text("\n".join(json.dumps({"text": text, "score": 0.2 + 0.6 * label}) for text, label in texts()))
    code, said, _ = fit("--data", path, "--out", out)
    assert code == 0
    assert float(dict(line.split(maxsplit=1) for line in said.splitlines())["correlation"]) > 0.95


def test_what_spells_a_control_token_is_letters(fit: Callable[..., Run], tmp_path: Path) -> None:
    path, out = tmp_path / "codes.jsonl", tmp_path / "codes.safetensors"
    lines = [{"text": text.replace("x", "<|code|>"), "label": label} for text, label in texts()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    known = dict(line.split(maxsplit=1) for line in fit("--data", path, "--out", out)[1].splitlines())
    assert known["AUC"] == "1.000"
    assert set(known["lightest"].split()) <= {f"'{letter}'" for letter in "<|code>"}
    read = fit("--data", path, "--out", out, "--control-tokens")[1]
    assert read.splitlines()[1].split() == ["lightest"]  # a token that is no text has no weight


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2 is not JSON"),
        ("[1]", "line 2 is no JSON object, got [1]; wanted one object a line"),
        ('{"label": 1}', 'line 2: "text" must be a string, got None'),
        ('{"text": 3, "label": 1}', 'line 2: "text" must be a string, got 3'),
        (
            '{"text": "a \\ud800", "label": 1}',
            "line 2: \"text\" has half of a surrogate pair, '\\ud800', at character 3",
        ),
        ('{"text": "a"}', 'line 2 must have either a "label", 0 or 1, or a "score" in [0, 1]; got [\'text\']'),
        ('{"text": "a", "label": 1, "score": 1}', 'line 2 must have either a "label"'),
        ('{"text": "a", "label": 0.5}', 'line 2: "label" must be 0 or 1, got 0.5'),
        ('{"text": "a", "label": "1"}', "line 2: \"label\" must be 0 or 1, got '1'"),
        ('{"text": "a", "score": 1.5}', 'line 2: "score" must be a number in [0, 1], got 1.5'),
        ('{"text": "a", "score": NaN}', 'line 2: "score" must be a number in [0, 1], got nan'),
        ('{"text": "a", "score": null}', 'line 2: "score" must be a number in [0, 1], got None'),
    ],
)
def test_lines_that_are_wrong(fit: Callable[..., Run], tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "b", "label": 1}\n' + line + '\n{"text": "c", "label": 0}\n')
    code, out, err = fit("--data", path, "--out", tmp_path / "out.safetensors")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}, ")
    assert message in err
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("penalty", "told"),
    [
        ("inf", "error: --penalty must be a finite number above 0, got inf; without it one is chosen by held-out loss"),
        ("nan", "'--penalty'"),
    ],
)
def test_a_penalty_that_is_no_number_is_refused(
    fit: Callable[..., Run], data: Path, tmp_path: Path, penalty: str, told: str
) -> None:
    code, _, err = fit("--data", data, "--out", tmp_path / "out.safetensors", "--penalty", penalty)
    assert code == 2
    assert told in err
    assert not (tmp_path / "out.safetensors").exists()


def test_files_that_are_wrong(fit: Callable[..., Run], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert "there is no file" in fit("--data", tmp_path / "nothing", "--out", out)[2]
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "holds no lines" in fit("--data", tmp_path / "empty.jsonl", "--out", out)[2]
    (tmp_path / "same.jsonl").write_text('{"text": "a", "label": 1}\n' * 5)
    assert (
        "wanted texts with the attribute and texts without it"
        in fit("--data", tmp_path / "same.jsonl", "--out", out)[2]
    )
    assert "make it" in fit("--data", data, "--out", tmp_path / "nothing" / "out.safetensors")[2]
    assert not out.exists()


@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("place", "name"),
    [(Loaded, "encoded"), (_regression, "_minimised"), (_tensor_files, "save_file")],
    ids=["texts", "fit", "file"],
)
def test_interrupts_leave_what_was_there(
    fit: Callable[..., Run],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    number: signal.Signals,
    wanted: int,
) -> None:
    """While texts are read, while weights are fitted, and when the file is written but has not its name yet."""
    function = getattr(place, name)

    def interrupted(*words: Any, **options: Any) -> Any:
        found = function(*words, **options)
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 5)  # the handler comes before it is over
        return found

    out = tmp_path / "out.safetensors"
    out.write_bytes(b"of an earlier fit")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs behind ignore it
    monkeypatch.setattr(place, name, interrupted)
    try:
        code, said, err = fit("--data", data, "--out", out)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, said, err.strip()) == (wanted, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out.safetensors"]
    assert out.read_bytes() == b"of an earlier fit"
