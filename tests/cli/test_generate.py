"""`ctrldecode generate` with a tiny random model: what is printed, and that the numbers are the right ones."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ctrldecode import CausalLM
from ctrldecode.cli import _decoding, _models


@pytest.fixture(scope="module")
def loaded(model_folder) -> Any:
    return _models.load(str(model_folder))


@pytest.fixture
def grammar(tmp_path):
    """Words over a, b and é between brackets, in a file of the user's own."""
    path = tmp_path / "words.lark"
    path.write_text('start: "[" (A | start)* "]"\nA: /[abé]/\n', encoding="utf-8")
    return path


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def log_prob(loaded: Any, prompt: str, tokens: list[int]) -> float:
    """The oracle: token by token with the model as a potential."""
    lm = CausalLM(loaded.model)
    state = lm.init(torch.tensor([loaded.tokenizer(prompt).input_ids or [256]]))
    total = 0.0
    for token in tokens:
        total += float(lm.log_weights(state)[0, token])
        state = lm.step(state, torch.tensor([token]))
    return total


def log_weight(loaded: Any, prompt: str, tokens: list[int], grammar: Any, temperature: float, budget: int) -> float:
    """The oracle: Σ_t log Σ_v p_T(v | x) ψ(x·v) / ψ(x) with T applied to the model alone."""
    lm, potential = CausalLM(loaded.model, temperature=temperature), loaded.compile(str(grammar))
    ids = torch.tensor([loaded.tokenizer(prompt).input_ids or [256]])
    state, inner = lm.init(ids), potential.init(ids, None, torch.tensor([budget]))
    total = 0.0
    for token in torch.tensor(tokens)[:, None]:
        total += float((lm.log_weights(state) + potential.log_weights(inner)).logsumexp(-1))
        state, inner = lm.step(state, token), potential.step(inner, token)
    return total


def test_plain_text_is_the_continuation(generate):
    first = generate("--prompt", "ab", "--seed", 1, "--max-new-tokens", 8)
    assert first.code == 0
    (again,) = lines(generate("--prompt", "ab", "--seed", 1, "--max-new-tokens", 8, "--jsonl").out)
    assert first.out == again["text"] + "\n"


def test_stream_shows_whole_characters(loaded):
    written: list[str] = []
    stream = _decoding.Stream(loaded, written.append)
    stream.put(torch.tensor([loaded.tokenizer("né").input_ids]))
    for token in loaded.tokenizer("aé😀").input_ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert written == ["a", "é", "😀"]


def test_stream_shows_what_was_never_completed(loaded):
    written: list[str] = []
    stream = _decoding.Stream(loaded, written.append)
    stream.put(torch.tensor([[256]]))
    stream.put(torch.tensor([loaded.tokenizer("é").input_ids[0]]))
    assert written == []
    stream.end()
    assert written == ["\ufffd"]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_numbers_of_samples(generate, loaded, grammar, temperature):
    words = ("--grammar", grammar, "--prompt", "x", "--num", 5, "--seed", 3, "--max-new-tokens", 9, "--jsonl")
    results = lines(generate(*words, "--temperature", temperature).out)
    assert len(results) == 5
    for result in results:
        assert list(result) == ["prompt", "text", "tokens", "log_prob", "log_weight", "finished"]
        assert result["log_prob"] == pytest.approx(log_prob(loaded, "x", result["tokens"]), abs=1e-4)
        expected = log_weight(loaded, "x", result["tokens"], grammar, temperature, 9)
        assert result["log_weight"] == pytest.approx(expected, abs=1e-4)
        assert result["text"].count("[") == result["text"].count("]") > 0


def test_without_a_grammar_samples_weigh_nothing(generate, loaded):
    for result in lines(generate("--num", 3, "--seed", 0, "--max-new-tokens", 6, "--jsonl").out):
        assert result["log_weight"] == 0
        assert result["log_prob"] == pytest.approx(log_prob(loaded, "", result["tokens"]), abs=1e-4)


@pytest.mark.parametrize("more", [["--beams", 4, "--num", 3], ["--temperature", 0], ["--beams", 3, "--temperature", 1]])
def test_texts_that_are_no_samples_have_no_weight(generate, loaded, grammar, more):
    results = lines(generate("--grammar", grammar, "--seed", 0, "--max-new-tokens", 7, "--jsonl", *more).out)
    assert results
    for result in results:
        assert result["log_weight"] is None
        assert result["log_prob"] == pytest.approx(log_prob(loaded, "", result["tokens"]), abs=1e-4)
        assert result["text"].count("[") == result["text"].count("]") > 0


def test_beams_find_fewer_texts_than_asked_for(generate, tmp_path):
    path = tmp_path / "two.lark"
    path.write_text('start: "a" | "b"\n', encoding="utf-8")
    results = lines(generate("--grammar", path, "--beams", 4, "--num", 4, "--max-new-tokens", 3, "--jsonl").out)
    assert sorted(result["text"] for result in results) == ["a", "b"]


def test_greedy_is_what_no_house_rule_changes(generate, loaded):
    (result,) = lines(generate("--prompt", "q", "--temperature", 0, "--max-new-tokens", 5, "--jsonl").out)
    ids = loaded.tokenizer("q").input_ids
    for token in result["tokens"]:
        assert token == int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax())
        ids = [*ids, token]


def test_seed_gives_the_same_and_leaves_the_global_generator_alone(generate):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    words = ("--num", 20, "--max-new-tokens", 3, "--jsonl")
    first, again, other = (generate(*words, "--seed", seed).out for seed in (1, 1, 2))
    assert first == again != other
    assert len(lines(first)) == 20  # more than one call of generate
    assert torch.equal(before, torch.get_rng_state())


def test_several_prompts_and_standard_input(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("né\n".encode())))
    out = generate("--prompt", "one", "--prompt", "-", "--max-new-tokens", 2, "--jsonl").out
    assert [result["prompt"] for result in lines(out)] == ["one", "né"]


def test_control_codes_are_shown_and_ends_are_not(loaded):
    assert _decoding.text_of(loaded, [256], [*loaded.tokenizer("a<|code|>b").input_ids, 257]) == "a<|code|>b"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grammar", "nothing"], "no grammar 'nothing'"),
        (["--max-new-tokens", "64"], "reads at most 64; shorten the prompt"),
        (["--num", "3", "--beams", "2"], "as many beams as texts"),
        (["--num", "2", "--temperature", "0"], "add --beams 2"),
        (["--num", "0"], "--num"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "1e-300"], "'--temperature': 1e-300 is neither 0"),
        (["--temperature", "inf"], "'--temperature': inf is neither 0"),
        (["--temperature", "nan"], "'--temperature': nan is neither 0"),
        (["--seed", "9" * 23], "'--seed'"),
        (["--beams", "100000"], "'--beams'"),
        (["--prompt", "caf\udce9"], r"the text 'caf\udce9' is not UTF-8 at character 4"),
        (["--frobnicate"], "--frobnicate"),
        (["--grammar", "json", "--max-new-tokens", "zero"], "--max-new-tokens"),
    ],
)
def test_refusals(generate, words, message):
    result = generate(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert message in result.err
    assert "Traceback" not in result.err


def test_budget_that_fits_no_text(generate, tmp_path):
    path = tmp_path / "long.lark"
    path.write_text('start: "abcdefgh"\n', encoding="utf-8")
    result = generate("--grammar", path, "--max-new-tokens", 3)
    assert result.code == 2
    assert result.err.startswith("error: ")


def test_grammar_with_a_syntax_error(generate, tmp_path):
    path = tmp_path / "broken.lark"
    path.write_text('start: ("a"\n', encoding="utf-8")
    result = generate("--grammar", path)
    assert result.code == 2
    assert "line 1" in result.err


def test_prompt_that_is_not_utf8(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xff")))
    assert "not UTF-8" in generate("--prompt", "-").err


def test_standard_input_that_is_closed(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    result = generate("--prompt", "-")
    assert (result.code, result.out) == (2, "")
    assert "standard input, which is closed" in result.err


@pytest.mark.parametrize("more", [["--seed", 2**64 - 1], ["--temperature", 0.01], ["--temperature", 100]])
def test_the_bounds_themselves_are_allowed(generate, more):
    assert generate("--num", 2, "--max-new-tokens", 3, *more).code == 0


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_folder_that_is_no_model(run, tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    result = run("generate", "--model", tmp_path)
    assert result.code == 2
    assert result.err.startswith(f"error: the model '{tmp_path}' cannot be loaded")
