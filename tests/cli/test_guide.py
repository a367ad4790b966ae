"""`ctrldecode generate --guide`: classes lean texts their way, together with the other conditions, and what cannot be is refused."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from ctrldecode import Grammar
from ctrldecode._resources import grammar_path, model_path
from ctrldecode.cli._conditions import Conditions
from ctrldecode.guidance import ForbiddenTokens


def with_codes(folder, into, codes, **more):
    """A copy of a model's folder whose config names class codes."""
    shutil.copytree(folder, into)
    config = json.loads((into / "config.json").read_text())
    config["gedi"] = {"codes": codes, "scale": 3.0, "bias": {}, "start": [], "normalise": True, **more}
    (into / "config.json").write_text(json.dumps(config))
    return into


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "moods"
    return with_codes(model_path(), folder, {"happy": [1], "sad": [2]}, start=[0])


@pytest.fixture(scope="module")
def letters(tmp_path_factory, model_folder):
    return with_codes(model_folder, tmp_path_factory.mktemp("letters") / "judge", {"x": [120, 120], "y": [121, 121]})


def texts(result):
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def test_classes_change_what_is_written(generate, letters):
    common = ["--class-lm", letters, "--num", 8, "--seed", 1, "--max-new-tokens", 12, "--jsonl"]
    plain, one, other = (
        [text["text"] for text in texts(generate(*common[2:], *more))]
        for more in ([], ["--class-lm", letters, "--guide", "x=20"], ["--class-lm", letters, "--guide", "y=20"])
    )
    assert len({*map(tuple, (plain, one, other))}) == 3
    again = texts(generate(*common, "--guide", "x=20"))
    assert [text["text"] for text in again] == one
    assert any(text["log_weight"] != 0 for text in again)


@pytest.mark.parametrize("how", [[], ["--beams", 3], ["--temperature", 0.7], ["--particles", 8]])
def test_guides_compose_with_the_other_conditions(run, judge, how):
    conditions = ["--contains", "dragon", "--attribute", "happy", "--guide", "happy=5", "--class-lm", judge]
    common = ["--num", 2, "--seed", 2, "--max-new-tokens", 24, "--prompt", "Once upon a time", "--jsonl"]
    for text in texts(run("generate", *conditions, *common, *how)):
        assert re.search(r"\bdragon\b", text["text"])


def test_guides_compose_with_a_grammar(run, judge):
    grammar = Grammar.from_file(grammar_path("card"))
    common = ["--num", 4, "--seed", 2, "--max-new-tokens", 64, "--prompt", "Tom had a cat.<|card|>", "--jsonl"]
    found = texts(run("generate", "--grammar", "card", "--guide", "sad=40", "--class-lm", judge, *common))
    assert all(grammar.accepts(text["text"]) for text in found)


def test_samplers_take_guides(run, judge):
    common = ["--num", 3, "--seed", 2, "--max-new-tokens", 8, "--prompt", "Once upon a time"]
    result = run("sample", "--guide", "happy=2", "--class-lm", judge, *common)
    assert len(texts(result)) == 3
    assert "log Z" in result.err


def test_the_ban_on_codes_is_asked_for_by_guides():
    banned = ForbiddenTokens([1], size=3, eos_token_ids=[2])
    assert Conditions(guides=("happy=3", "sad")).asked(banned) == "--guide happy=3 --guide sad"


def test_codes_of_the_class_lm_are_never_written(run):
    common = ["--prompt", "", "--num", 12, "--seed", 5, "--max-new-tokens", 3, "--jsonl"]
    found = texts(run("generate", "--guide", "happy=30", *common))
    assert not [text["text"] for text in found if {1, 2} & set(text["tokens"])]
    plain = texts(run("generate", *common))
    assert [text["text"] for text in plain if {1, 2} & set(text["tokens"])]  # the model itself writes them


@pytest.mark.parametrize("how", [["generate"], ["generate", "--particles", 2], ["sample", "--num", 2], ["explain"]])
def test_a_text_that_the_class_lm_cannot_hold_is_refused_at_once(run, judge, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)  # explain writes a page
    command, *more = how
    prompt = "the dog " * 251  # 504 tokens, before which the class LM puts a start and a code
    common = ["--guide", "happy=1", "--class-lm", judge, "--prompt", prompt, "--seed", 1, *more]
    result = run(command, *common, "--max-new-tokens", 7)
    assert (result.code, result.out) == (2, "")
    assert "has 506 tokens and 7 new ones may follow, but the class LM reads at most 512" in result.err
    assert run(command, *common, "--max-new-tokens", 6).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guide", "x=30"], "none is known for"),
        (["--guide", "z=30", "--class-lm", "LETTERS"], "--guide must name one of the classes x, y, got 'z'"),
        (["--guide", "x=much", "--class-lm", "LETTERS"], "such as happy=30, got 'x=much'"),
        (
            ["--guide", "x=1e9", "--class-lm", "LETTERS"],
            "the strength of --guide must be a positive number, at most 1e+06",
        ),
        (["--guide", "x=-1", "--class-lm", "LETTERS"], "positive strength"),
        (["--guide", "=3", "--class-lm", "LETTERS"], "wants a class"),
        (["--guide", "x=nan", "--class-lm", "LETTERS"], "positive strength"),
        (["--class-lm", "LETTERS"], "say which class"),
        (["--guide", "x", "--class-lm", "nowhere/at/all"], "cannot be loaded"),
        (["--guide", "happy", "--class-lm", "tinytales"], "another tokenizer"),
    ],
)
def test_what_cannot_be_is_refused(generate, letters, words, message):
    result = generate(*(letters if word == "LETTERS" else word for word in words))
    assert result.code == 2
    assert message in result.err
    assert result.out == ""
