"""`ctrldecode sample` and `generate --particles`: texts, weights, reports, and what is refused."""

from __future__ import annotations

import json
import math
import re

import pytest

from ctrldecode import samplers
from ctrldecode.cli import sample as command
from ctrldecode.samplers import Trie


def records(result) -> list[dict]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.fixture
def sample(run, model_folder):
    return lambda *words: run("sample", "--model", model_folder, *words)


BITS = ["--max-new-tokens", 3, "--seed", 1]


@pytest.fixture
def bits(tmp_path):
    path = tmp_path / "bits.lark"
    path.write_text('start: BIT BIT?\nBIT: "0" | "1"\n')
    return path


def test_every_sampler_is_a_method():
    assert set(command._METHODS) == set(samplers.SAMPLERS)


@pytest.mark.parametrize("method", command._METHODS)
def test_texts_are_of_the_grammar_and_weights_estimate_z(sample, bits, method):
    result = sample("--method", method, "--grammar", bits, "--num", 20, *BITS)
    found = records(result)
    assert 0 < len(found) <= 20
    for text in found:
        assert re.fullmatch("[01]{1,2}", text["text"])
    assert f"{len(found)} texts" in result.err
    assert "log Z" in result.err
    again = sample("--method", method, "--grammar", bits, "--num", 20, *BITS)
    assert again.out == result.out


def test_reports_hold_samples_figures_and_plots(sample, bits, tmp_path):
    folder = tmp_path / "deep" / "report"
    result = sample("--method", "cars", "--grammar", bits, "--num", 200, "--exact", "--report", folder, *BITS)
    found = records(result)
    assert [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()] == found
    metrics = json.loads((folder / "metrics.json").read_text())
    (own,) = metrics["prompts"]
    assert metrics["task"]["method"] == "cars"
    assert own["texts"] == 200
    assert own["lower"] <= own["log_z"] + 0.5
    assert own["lower"] <= own["upper"] + 1e-4
    assert 0 <= own["kl"][0] < 0.1
    assert own["total_variation"][0] < 0.2
    assert 0 < own["acceptance"] <= 1
    for name in ("log_z.png", "weights.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "total variation" in result.err


def test_several_prompts_are_sampled_one_by_one(sample, bits):
    result = sample("--grammar", bits, "--num", 2, "--prompt", "a", "--prompt", "b", *BITS)
    assert [text["prompt"] for text in records(result)] == ["a", "a", "b", "b"]
    assert "'a': 2 texts" in result.err


def test_a_trie_is_kept_and_gone_on_from(sample, bits, tmp_path):
    path = tmp_path / "trie.safetensors"
    common = ["--method", "asap", "--grammar", bits, "--num", 3, "--trie", path, *BITS]
    sample(*common)
    first = Trie.load(path)
    result = sample(*common[:-1], 2)
    assert result.code == 0
    assert Trie.load(path).nodes >= first.nodes
    assert "model calls" in result.err
    other = sample(*[*common[:2], "--contains", "ab", *common[4:]])
    assert other.code == 2
    assert "learned for something else" in other.err


def test_words_are_foreseen_by_the_twist(run):
    common = ["--contains", "dragon", "--contains", "castle", "--num", 2, "--seed", 1, "--max-new-tokens", 24]
    found = records(run("sample", "--method", "branching", *common))
    for text in found:
        assert re.search(r"\bdragon\b.*\bcastle\b|\bcastle\b.*\bdragon\b", text["text"], re.DOTALL)


def test_particles_write_what_was_asked_for(run):
    common = [
        "generate",
        "--contains",
        "dragon",
        "--contains",
        "castle",
        "--seed",
        1,
        "--max-new-tokens",
        24,
        "--jsonl",
    ]
    drawn = records(run(*common, "--particles", 16, "--num", 2))
    best = records(run(*common, "--particles", 16, "--likeliest"))
    for text in drawn + best:
        assert "dragon" in text["text"]
        assert "castle" in text["text"]
    assert drawn[0]["log_weight"] == drawn[1]["log_weight"] < 0
    assert best[0]["log_weight"] is None
    assert best[0]["log_prob"] >= max(text["log_prob"] for text in drawn) - 1e-6
    plain = records(run(*common, "--hmm", "none", "--particles", 4))
    assert "dragon" in plain[0]["text"]


def test_a_grammar_can_be_grown(generate, bits):
    found = records(generate("--grammar", bits, "--particles", 8, "--seed", 1, "--max-new-tokens", 3, "--jsonl"))
    assert re.fullmatch("[01]{1,2}", found[0]["text"])
    assert math.isfinite(found[0]["log_weight"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample"], "nothing to sample under"),
        (["sample", "--method", "magic", "--grammar", "json"], "none of importance"),
        (["sample", "--grammar", "json", "--trie", "x"], "--trie is of asap and cars"),
        (["sample", "--grammar", "json", "--report", "/dev/null/x"], "cannot be made"),
        (["sample", "--grammar", "json", "--exact", "--num", 1, "--max-new-tokens", 24], "too many to enumerate"),
        (["sample", "--contains", "red ball", "--max-new-tokens", 1], "raise --max-new-tokens"),
        (["sample", "--grammar", "json", "--temperature", 0], "temperature"),
        (["generate", "--contains", "a", "--likeliest"], "--likeliest chooses among particles"),
        (["generate", "--contains", "a", "--particles", 4, "--beams", 2], "--particles samples"),
        (["generate", "--contains", "a", "--particles", 4, "--temperature", 0], "--particles samples"),
        (["generate", "--contains", "a", "--particles", 4, "--num", 5, "--likeliest"], "of 4 particles"),
        (["generate", "--particles", 4], "give --grammar"),
    ],
)
def test_wrong_options_say_what_is_wanted(run, words, message):
    result = run(*words)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""


def test_limits_and_interruptions_leave_a_report(sample, bits, tmp_path, monkeypatch):
    result = sample("--method", "mcmc", "--grammar", bits, "--max-lm-calls", 5, "--num", 20, *BITS)
    assert "stopped: max_lm_calls" in result.err
    steps, own = [], type(samplers.cars).step

    def interrupted(self, problem, state, rng):
        steps.append(1)
        if len(steps) > 5:
            raise KeyboardInterrupt
        return own(self, problem, state, rng)

    monkeypatch.setattr(type(samplers.cars), "step", interrupted)
    result = sample("--method", "cars", "--grammar", bits, "--num", 50, "--report", tmp_path / "r", *BITS)
    assert result.code == 130
    assert "stopped: interrupted" in result.err
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["prompts"][0]["stopped"] == "interrupted"
