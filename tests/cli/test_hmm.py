"""`ctrldecode hmm`: list, info, eval, convert, sample."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctrldecode._resources import hmm_names
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.hmm import HMM
from tests.cli.conftest import SIZE
from tests.hmm.models import random_parameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

EOS = 257


@pytest.fixture
def command(run: Callable[..., Run]) -> Callable[..., Run]:
    return lambda *words: run("hmm", *words)


@pytest.fixture(scope="module")
def words(model_folder: Path) -> Vocabulary:
    return Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(model_folder), size=SIZE)


@pytest.fixture(scope="module")
def toy(model_folder: Path, words: Vocabulary) -> HMM:
    parameters = random_parameters(np.random.default_rng(0), 4, SIZE, eos=(EOS,))
    emission = 0.5 * parameters.emission
    emission[:4] += 0.5 / (SIZE - 1)  # so that every text is possible
    emission[:4, EOS], emission[4] = 0, parameters.emission[4]
    emission /= emission.sum(1, keepdims=True)
    made = {"model": str(model_folder), "sequences": 10}
    return HMM(*parameters[:2], emission, EOS, vocabulary_fingerprint=words.fingerprint, metadata=made)


@pytest.fixture
def path(toy: HMM, tmp_path: Path) -> Path:
    toy.save(tmp_path / "toy.safetensors")
    return tmp_path / "toy.safetensors"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("one\n\n two \nthree\n")
    return tmp_path / "texts.txt"


def test_list(command: Callable[..., Run]) -> None:
    code, out, _ = command("list")
    assert code == 0
    assert out.split() == hmm_names()


def test_help_without_a_command(command: Callable[..., Run]) -> None:
    assert "convert" in command()[1]


def test_info(command: Callable[..., Run], path: Path, toy: HMM, model_folder: Path) -> None:
    code, out, err = command("info", path, "--show", 2, "--tokens", 3)
    assert (code, err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line and line[0] != " ")
    assert rows["states"] == "5, of which 1 emit the end of sequence"
    assert rows["tokens"] == "260, ends of sequence [257]"
    assert rows["fingerprint"] == toy.fingerprint
    assert rows["vocabulary"] == toy.vocabulary_fingerprint
    assert rows["sequences"] == "10"
    assert rows["model"] == str(model_folder)
    shown = out.splitlines()[-2:]
    state = int(shown[0].split()[0])
    ids, _ = toy.top_tokens(torch.tensor([state]), 3)
    assert all(f"[{token}]" in shown[0] for token in ids[0].tolist())  # no embedded model, so no tokens
    named = command("info", path, "--model", model_folder, "--show", 1)[1].splitlines()[-1]
    assert f"[{ids[0, 0]}]" not in named
    assert "%" in named


def test_eval(command: Callable[..., Run], path: Path, toy: HMM, texts: Path, model_folder: Path) -> None:
    ids = [[*text.encode(), EOS] for text in ("one", "two", "three")]
    nats = -float(toy.log_prob(_ids(model_folder, ids)).sum()) / 14
    code, out, err = command("eval", path, texts)
    assert (code, err) == (0, "")
    assert out == f"3 texts, 14 tokens\nHMM  {nats:.4f} nats a token\n"
    out = command("eval", path, texts, "--model", model_folder)[1]
    assert out.splitlines()[2] == f"{model_folder}  {_model_nats(model_folder, ids):.4f} nats a token"
    assert command("eval", path, texts, "--length", 200)[1] == f"3 texts, 14 tokens\nHMM  {nats:.4f} nats a token\n"
    short = command("eval", path, texts, "--length", "3", "--limit", "2")[1]
    assert short.startswith("2 texts, 6 tokens\n")


def _ids(folder: Path, rows: list[list[int]]) -> list[list[int]]:
    """Bytes as the ids of the tokenizer, whose alphabet is sorted by another order."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [[*tokenizer(bytes(row[:-1]).decode()).input_ids, EOS] for row in rows]


def _model_nats(folder: Path, rows: list[list[int]]) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = 0.0
    for row in _ids(folder, rows):
        with torch.no_grad():
            log_probs = model(torch.tensor([[256, *row]])).logits[0, :-1].log_softmax(-1)
        total -= float(log_probs[range(len(row)), row].sum())
    return total / sum(map(len, rows))


def test_eval_of_json_lines_and_of_separated_texts(
    command: Callable[..., Run], path: Path, texts: Path, tmp_path: Path
) -> None:
    wanted = command("eval", path, texts)[1]
    lines = tmp_path / "texts.jsonl"
    lines.write_text("\n".join(json.dumps({"text": text}) for text in ("one", "two", "three")))
    assert command("eval", path, lines)[1] == wanted
    separated = tmp_path / "separated.txt"
    separated.write_text("one\n<|end|>\ntwo<|end|>three<|end|>\n")
    assert command("eval", path, separated, "--separator", "<|end|>")[1] == wanted


def test_eval_reads_what_spells_a_control_token_as_letters(
    command: Callable[..., Run], path: Path, toy: HMM, tmp_path: Path, model_folder: Path
) -> None:
    texts = tmp_path / "codes.txt"
    texts.write_text("a<|code|>b<|end|>\n")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    apart = [token for letter in "a<|code|>b<|end|>" for token in tokenizer(letter).input_ids]
    nats = -float(toy.log_prob([[*apart, EOS]])[0]) / 18
    assert command("eval", path, texts)[1] == f"1 text, 18 tokens\nHMM  {nats:.4f} nats a token\n"
    texts.write_text("a<|code|>b\n")
    a, b = (tokenizer(letter).input_ids[0] for letter in "ab")
    nats = -float(toy.log_prob([[a, 258, b, EOS]])[0]) / 4
    assert command("eval", path, texts, "--control-tokens")[1] == f"1 text, 4 tokens\nHMM  {nats:.4f} nats a token\n"


def test_eval_of_half_a_character_is_refused(command: Callable[..., Run], path: Path, tmp_path: Path) -> None:
    lines = tmp_path / "texts.jsonl"
    lines.write_text('{"text": "one"}\n{"text":"good \\ud800"}\n')
    code, out, err = command("eval", path, lines)
    assert (code, out) == (2, "")
    assert f"{lines}, line 2" in err
    assert "half of a surrogate pair" in err


def test_eval_of_impossible_texts(command: Callable[..., Run], texts: Path, tmp_path: Path, toy: HMM) -> None:
    emission = np.zeros((2, SIZE))
    emission[0, 0], emission[1, EOS] = 1, 1
    strict = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], emission, EOS, metadata=toy.metadata)
    strict.save(tmp_path / "strict.safetensors")
    out = command("eval", tmp_path / "strict.safetensors", texts)[1]
    assert out.splitlines()[1] == "HMM  infinitely many nats a token: 3 texts have probability 0 under it"


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_convert(command: Callable[..., Run], path: Path, tmp_path: Path, toy: HMM, dtype: str) -> None:
    out = tmp_path / "out.safetensors"
    code, said, err = command("convert", path, out, "--dtype", dtype)
    assert (code, err) == (0, "")
    assert said == f"{out}: 5 states, 260 tokens, {dtype}, 0.0 MB\n"
    assert HMM.load(out) == toy.as_dtype(dtype)
    assert HMM.load(out).metadata == toy.metadata


def test_convert_keeps_the_precision_and_checks_the_model(
    command: Callable[..., Run], path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    assert command("convert", path, out)[0] == 0
    assert HMM.load(out) == HMM.load(path)
    code, _, err = command("convert", path, tmp_path / "other.safetensors", "--model", "tinytales")
    assert code == 2
    assert "is over 260 token ids" in err
    assert not (tmp_path / "other.safetensors").exists()


def test_convert_from_a_folder(
    command: Callable[..., Run], tmp_path: Path, toy: HMM, words: Vocabulary, model_folder: Path
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    dense = toy.emission.values.T.contiguous()
    tensors = {"alpha_exp": toy.transition, "beta": dense.log(), "gamma": toy.initial.log()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"eos_token_id": EOS}))
    out = tmp_path / "out.safetensors"
    assert command("convert", folder, out, "--model", model_folder)[0] == 0
    found = HMM.load(out, words)
    torch.testing.assert_close(found.log_prob([[1, 2, 3, EOS]]), toy.log_prob([[1, 2, 3, EOS]]), rtol=1e-5, atol=0)
    assert found.vocabulary_fingerprint == words.fingerprint
    assert command("convert", folder, out, "--dtype", "uint8")[0] == 0
    assert HMM.load(out).vocabulary_fingerprint is None


def test_sample(command: Callable[..., Run], path: Path, toy: HMM, model_folder: Path) -> None:
    code, out, err = command("sample", path, "--num", 5, "--length", 6, "--seed", 3)
    assert (code, err) == (0, "")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    rows = toy.sample(5, 6, np.random.default_rng(3)).tolist()
    wanted = [tokenizer.decode(row[: row.index(EOS)] if EOS in row else row) for row in rows]
    assert [json.loads(line) for line in out.splitlines()] == wanted
    assert command("sample", path, "--num", 5, "--length", 6, "--seed", 3)[1] == out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("info nothing", "there is no HMM 'nothing'"),
        ("eval {path} nothing.txt", "there is no file 'nothing.txt'"),
        ("eval {path} {empty}", "holds no text"),
        ("eval {path} {latin}", "is not UTF-8 at byte 0"),
        ("eval {path} {texts} --model tinytales", "is over 260 token ids with the ends [257], but the model has 3072"),
        ("eval {path} {texts} --length 64 --model {model}", "--length 64 is more than"),
        ("sample {nameless}", "does not say which model it was made from; name one by --model"),
        ("convert {path} {empty}/out.safetensors", "cannot be written to: Not a directory"),
        ("convert {path} out --dtype int4", "int4"),
        ("convert {folder} out", "there is no config.json in"),
        ("info {latin}", "is damaged or no safetensors file"),
    ],
)
def test_what_cannot_be(
    command: Callable[..., Run],
    path: Path,
    texts: Path,
    toy: HMM,
    tmp_path: Path,
    model_folder: Path,
    line: str,
    message: str,
) -> None:
    places = {
        "path": path,
        "texts": texts,
        "folder": tmp_path,
        "empty": tmp_path / "empty.txt",
        "latin": tmp_path / "latin.txt",
    }
    places["model"] = model_folder
    places["empty"].write_text("\n \n")
    places["latin"].write_bytes(b"\xe9")
    places["nameless"] = tmp_path / "nameless.safetensors"
    HMM(toy.initial, toy.transition, toy.emission.values.T, EOS).save(places["nameless"])
    code, _, err = command(*(word.format(**places) for word in line.split()))
    assert code == 2
    assert err.startswith("error: ")
    assert message in err


def test_the_model_may_be_told_by_the_name(command: Callable[..., Run], tmp_path: Path) -> None:
    parameters = random_parameters(np.random.default_rng(0), 2, 3072)
    path = tmp_path / "tinytales-3.safetensors"
    parameters.hmm().save(path)
    assert len(command("sample", path, "--num", 2, "--length", 4, "--seed", 0)[1].splitlines()) == 2
    assert "'" in command("info", path, "--show", 1)[1].splitlines()[-1]


def test_the_model_may_be_told_by_the_recipe(
    command: Callable[..., Run], tmp_path: Path, toy: HMM, model_folder: Path
) -> None:
    path = tmp_path / "toy.safetensors"
    recipe = f'model = "{model_folder}"\nstates = 5\n'
    HMM(toy.initial, toy.transition, toy.emission.values.T, EOS, metadata={"recipe": recipe}).save(path)
    assert len(command("sample", path, "--num", 2, "--length", 4, "--seed", 0)[1].splitlines()) == 2
    lines = command("info", path)[1].splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("recipe"))
    assert lines[place].endswith(f'model = "{model_folder}"')
    assert lines[place + 1].strip() == "states = 5"
