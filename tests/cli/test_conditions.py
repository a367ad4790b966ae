"""`ctrldecode generate` with words, counts and attributes: what was asked for comes, and what cannot be is refused."""

from __future__ import annotations

import json
import re

import pytest
import torch

from ctrldecode import Grammar
from ctrldecode._resources import grammar_path
from ctrldecode.cli import _models
from ctrldecode.cli._conditions import Conditions
from ctrldecode.hmm.attributes import AttributeWeights
from ctrldecode.lm import CausalLM


def texts(result) -> list[str]:
    assert result.code == 0, result.err
    return [json.loads(line)["text"] for line in result.out.splitlines()]


@pytest.mark.parametrize("how", [["--hmm", "none"], [], ["--strength", 2], ["--hmm", "none", "--beams", 3]])
def test_words_come_and_others_do_not(run, how):
    words = ["--contains", "dragon|dragons", "--contains", "red ball", "--avoid", "the", "--words", ":20"]
    found = texts(run("generate", *words, *how, "--num", 3, "--seed", 1, "--max-new-tokens", 30, "--jsonl"))
    assert len(found) == 3
    for text in found:
        assert re.search(r"\bdragons?\b", text)
        assert re.search(r"\bred ball\b", text)
        assert not re.search(r"\bthe\b", text)
        assert len(text.split()) <= 20


def test_a_grammar_and_an_automaton_hold_together(run):
    both = ["--grammar", "arithmetic", "--avoid", "1", "--avoid", "2", "--hmm", "none"]
    grammar = Grammar.from_file(grammar_path("arithmetic"))
    for text in texts(run("generate", *both, "--num", 4, "--seed", 3, "--max-new-tokens", 12, "--jsonl")):
        assert grammar.accepts(text)
        assert not re.search(r"\b[12]\b", text)


def test_words_are_weighed_against_the_model_restricted_to_them(run):
    loaded, budget = _models.load("tinytales"), 24
    options = ["--contains", "dog", "--avoid", "the", "--prompt", "Once upon", "--max-new-tokens", budget]
    found = [
        json.loads(line) for line in run("generate", *options, "--num", 4, "--seed", 1, "--jsonl").out.splitlines()
    ]
    potential = Conditions(contains=("dog",), avoid=("the",)).potential(loaded, budget)
    lm, ids = CausalLM(loaded.model), torch.tensor([loaded.tokenizer("Once upon").input_ids])
    for text in found:
        state, inner, log_q = lm.init(ids), potential.init(ids, None, torch.tensor([budget])), 0.0
        for token in text["tokens"]:
            scores = lm.log_weights(state)
            potential.add_log_weights(inner, scores)
            log_q += float(scores.log_softmax(-1)[0, token])
            state, inner = (one.step(at, torch.tensor([token])) for one, at in ((lm, state), (potential, inner)))
        assert text["log_weight"] == pytest.approx(text["log_prob"] - log_q, abs=1e-3)


def test_an_attribute_changes_what_is_written(run, tmp_path):
    loaded = _models.load("tinytales")
    values = torch.ones(loaded.vocabulary.size)
    values[loaded.tokenizer(" a").input_ids] = 1e-6
    AttributeWeights(values, loaded.eos_token_ids, vocabulary_fingerprint=loaded.vocabulary.fingerprint).save(
        tmp_path / "without.safetensors"
    )
    common = ["generate", "--prompt", "Once upon", "--num", 4, "--seed", 1, "--max-new-tokens", 16, "--jsonl"]
    assert any(" a " in text for text in texts(run(*common)))
    assert not any(" a " in text for text in texts(run(*common, "--attribute", tmp_path / "without.safetensors")))
    shipped = [json.loads(line) for line in run(*common, "--attribute", "happy", "--strength", 30).out.splitlines()]
    assert [text["log_weight"] != 0 for text in shipped] == [True] * 4  # few tokens change so early, their weights do


def test_a_model_without_an_hmm_is_masked(generate):
    found = texts(generate("--contains", "ab", "--num", 2, "--seed", 1, "--max-new-tokens", 6, "--jsonl"))
    assert len(found) == 2
    assert all(re.search(r"(?<!\w)ab(?!\w)", text, re.ASCII) for text in found)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--attribute", "happy"], "distilled with ctrldecode distill"),
        (["--strength", 2], "nothing to look for"),
        (["--hmm", "none"], "nothing to look for"),
        (["--contains", "a", "--strength", 2], "name one by --hmm"),
        (["--words", "few"], "a range such as 20:30"),
        (["--words", ":"], "a range such as 20:30"),
        (["--words", "9:3"], "--words 9:3 holds no number; write the lower one first"),
        (["--contains", ""], "empty"),
        (["--contains", "ab", "--avoid", "ab"], "exclude one another"),
        (["--contains", "abcdefgh", "--max-new-tokens", 4], "raise --max-new-tokens"),
        (["--hmm", "nothing", "--contains", "a"], "there is no HMM 'nothing'"),
        (["--hmm", "tinytales-256", "--contains", "a"], "token ids"),
    ],
)
def test_what_cannot_be_is_refused(generate, words, told):
    result = generate(*words)
    assert result.code == 2
    assert told in result.err
    assert "Traceback" not in result.err


def test_a_lookahead_for_conditions_that_exclude_one_another_is_refused(run):
    result = run("generate", "--contains", "dog", "--avoid", "dog")
    assert result.code == 2
    assert "the lookahead accepts no text" in " ".join(result.err.split())
    assert "max_new_tokens" not in result.err


def test_no_condition_is_no_potential():
    assert Conditions().potential(_models.load("tinytales"), 8) is None


@pytest.mark.parametrize(
    "more", [["--num", "6"], ["--beams", "4"], ["--particles", "8"], ["--particles", "16", "--likeliest"]]
)
@pytest.mark.parametrize("words", [["dragon"], ["ball", "dragon"]])
def test_words_find_their_place_in_a_grammar(run, words, more):
    """Each side alone would close the lists that they must stand in."""
    asked = [part for word in words for part in ("--contains", word)]
    result = run(
        "generate",
        "--grammar",
        "card",
        "--prompt",
        "Tom had a red kite.<|card|>",
        *asked,
        "--max-new-tokens",
        "60",
        "--seed",
        "1",
        *more,
    )
    assert result.code == 0, result.err
    texts = result.out.splitlines()
    assert texts
    grammar = Grammar.from_file(grammar_path("card"))
    for text in texts:
        assert grammar.accepts(text)
        assert all(word in text for word in words)


def test_words_that_a_grammar_cannot_say_are_refused_before_the_first_token(run):
    result = run("generate", "--grammar", "card", "--contains", "unicorn", "--max-new-tokens", "60")
    assert result.code == 2
    assert not result.out
    assert "no text of the grammar card within the automaton" in result.err.replace("\n", " ")
