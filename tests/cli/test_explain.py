"""`ctrldecode explain`: the same text as `generate`, texts of the user's own, and what becomes of files."""

from __future__ import annotations

import json
from html import escape

import pytest

from ctrldecode.explain import from_json
from tests.cli.test_guide import with_codes


@pytest.fixture
def explain(run, model_folder, tmp_path):
    """Run the command with a page and a record in a folder of the test; returns the run, the page and the record."""

    def call(*words):
        out, record = tmp_path / "page.html", tmp_path / "record.json"
        files = ["--out", out, "--json", record, "--force"]
        budget = [] if "--max-new-tokens" in words else ["--max-new-tokens", 20]
        result = run("explain", "--model", model_folder, *budget, *files, *words)
        if not out.exists():
            return result, None, None
        return result, out.read_text(encoding="utf-8"), from_json(record.read_text(encoding="utf-8"))

    return call


@pytest.fixture
def grammar(tmp_path):
    path = tmp_path / "words.lark"
    path.write_text('start: "[" (A | start)* "]"\nA: /[abé]/\n', encoding="utf-8")
    return path


@pytest.mark.parametrize("how", [[], ["--temperature", 0.6], ["--temperature", 0], ["--beams", 3]])
def test_the_text_is_that_of_generate(explain, generate, grammar, how):
    common = ["--grammar", grammar, "--prompt", "x", "--max-new-tokens", 9, "--seed", 5, *how]
    told = json.loads(generate(*common, "--jsonl").out)
    result, page, record = explain(*common)
    assert result.code == 0
    assert [step.token.id for step in record.steps] == told["tokens"]
    assert (record.prompt, record.text) == ("x", told["text"])
    if told["log_weight"] is not None:
        assert record.steps[-1].log_weight == pytest.approx(told["log_weight"], abs=1e-4)
    if "--temperature" not in how:
        assert sum(step.log_prob for step in record.steps) == pytest.approx(told["log_prob"], abs=1e-3)
    assert page.startswith("<!DOCTYPE html>")
    assert "Log-weight" in result.out


def test_a_text_of_the_grammar(explain, grammar):
    result, _, record = explain("--grammar", grammar, "--text", "[aé[b]]", "--prompt", "so: ")
    assert result.code == 0
    assert record.ending == "ended"
    assert "".join(step.token.text for step in record.steps) == "[a\\xC3\\xA9[b]]<|end|>"


def test_why_a_text_cannot_be(explain, grammar):
    result, page, record = explain("--grammar", grammar, "--text", "[ab)]")
    assert result.code == 1
    assert record.ending == "forbidden"
    assert len(record.steps) == 4
    assert record.steps[-1].effects[0].verdict == '“)” cannot stand here; expected: "[", "]", A'
    told = f'The grammar words (--grammar {grammar}): “)” cannot stand here; expected: "[", "]", A.'
    assert f"Token 4, “)”, is impossible. {told} Not looked at: 1 token that stands behind it." in result.out
    assert record.rest == 1
    assert "Why this text cannot be" in page


def test_a_text_that_is_not_whole(explain, grammar):
    result, _, record = explain("--grammar", grammar, "--text", "[ab")
    assert (result.code, record.ending) == (1, "forbidden")
    assert record.steps[-1].effects[0].verdict.startswith("the text cannot end here")
    result, _, record = explain("--grammar", grammar, "--text", "[ab", "--unfinished")
    assert (result.code, record.ending, len(record.steps)) == (0, "open", 3)


def test_a_text_without_conditions(explain):
    result, _, record = explain("--text", "hello", "--unfinished", "--top", 2)
    assert (result.code, record.factors) == (0, ())
    assert all(step.log_weight == pytest.approx(0, abs=1e-5) for step in record.steps)
    assert all(2 <= len(step.candidates) <= 3 for step in record.steps)


def test_standard_input(explain, grammar, monkeypatch):
    import io
    import sys
    from types import SimpleNamespace

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"[a]\n")))
    _, _, record = explain("--grammar", grammar, "--text", "-")
    assert record.text == "[a]"


def test_conditions_that_shut_each_other_out_are_refused(explain, grammar):
    """Brackets around letters, and the word `cab`, which has a letter too many."""
    result, *_ = explain("--grammar", grammar, "--contains", "cab", "--max-new-tokens", 12, "--seed", 1)
    assert result.code == 2
    assert "no text of the grammar words within the automaton" in result.err.replace("\n", " ")


def test_a_dead_end_is_shown(explain, grammar, monkeypatch):
    """Conditions that know nothing of one another."""
    monkeypatch.setattr("ctrldecode.cli._conditions._joint", lambda *_: None)
    result, page, record = explain("--grammar", grammar, "--contains", "cab", "--max-new-tokens", 12, "--seed", 1)
    assert result.code == 1
    assert record.ending == "dead end"
    assert record.steps[-1].token is None
    assert [factor.kind for factor in record.factors] == ["grammar", "automaton"]
    assert (
        f"nothing can follow. The grammar words (--grammar {grammar}) forbids 259 tokens: it expects end of text."
        in result.out
    )
    assert (
        "The automaton (--contains cab) forbids all others: of “<|end|>”, the likeliest of them, it says that state"
        in result.out
    )
    assert "The automaton (--contains cab) forbids all others" in page


def test_a_text_ends_where_it_ends(explain):
    _, _, record = explain("--text", "ab<|end|>", "--prompt", "x")
    assert (record.ending, len(record.steps), record.rest) == ("ended", 3, 0)
    _, _, record = explain("--text", "ab<|end|>", "--unfinished", "--prompt", "x")
    assert (record.ending, len(record.steps)) == ("ended", 3)


def test_every_factor_says_what_was_asked_for(explain, model_folder, tmp_path, grammar):
    judge = with_codes(model_folder, tmp_path / "judge", {"x": [120, 120], "y y": [121, 121]})
    conditions = ["--contains", "a b|ab", "--contains", "é", "--avoid", "bb", "--words", "1:3"]
    guides = ["--guide", "y y=20", "--guide", "x", "--class-lm", judge]
    _, page, record = explain("--grammar", grammar, *conditions, *guides, "--text", "[", "--unfinished")
    assert [factor.asked for factor in record.factors] == [
        f"--grammar {grammar}",
        f"--grammar {grammar} --contains 'a b|ab' --contains 'é' --avoid bb --words 1:3",
        "--contains 'a b|ab' --contains 'é' --avoid bb --words 1:3",
        "--guide 'y y'=20",
        "--guide x=30",
    ]
    for factor in record.factors:
        options = '</code> <code translate="no">--'.join(escape(factor.asked).split(" --"))
        assert options in page.partition("<script")[0]


def test_conditions_of_the_embedded_model(run, tmp_path):
    out, record = tmp_path / "a.html", tmp_path / "a.json"
    words = ["--contains", "dragon", "--attribute", "happy", "--prompt", "Once upon a time"]
    result = run("explain", *words, "--seed", 2, "--max-new-tokens", 16, "--out", out, "--json", record)
    assert result.code == 0, result.err
    found = from_json(record.read_text(encoding="utf-8"))
    assert [factor.kind for factor in found.factors] == ["lookahead"]
    assert found.factors[0].asked == "--contains dragon --attribute happy"
    assert "dragon" in found.text
    facts = {fact.name for fact in found.steps[0].effects[0].facts}
    assert facts == {
        "log expectation by the HMM that it is accepted, times its attribute weights",
        "automaton state",
        "fewest tokens to acceptance",
        "tokens left",
    }
    assert found.factors[0].name.endswith(", detail 0.2, patience 8, urgency 0.8")
    assert (found.factors[0].power, found.ending) == (1.0, "complete")
    result = run("explain", *words, "--strength", 1.25, "--seed", 2, "--max-new-tokens", 16, "--out", out, "--force")
    assert result.code == 0, result.err
    assert "to the power of 1.25: " in out.read_text(encoding="utf-8").partition("<script")[0]


def test_guides_tell_their_posteriors(explain, model_folder, tmp_path):
    judge = with_codes(model_folder, tmp_path / "judge", {"x": [120, 120], "y": [121, 121]})
    result, page, record = explain("--guide", "x=20", "--class-lm", judge, "--seed", 1, "--max-new-tokens", 5)
    assert result.code == 0, result.err
    assert [factor.kind for factor in record.factors] == ["posterior"]
    facts = {fact.name: fact for fact in record.steps[0].effects[0].facts}
    assert facts["P(x)"].before + facts["P(y)"].before == pytest.approx(1)
    assert facts["P(x)"].after != facts["P(x)"].before
    assert "GeDi towards" in page


def test_files_are_not_overwritten(run, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["explain", "--model", model_folder, "--text", "ab", "--unfinished", "--max-new-tokens", 9]
    assert run(*common).out.splitlines()[0] == "wrote explain.html"
    before = (tmp_path / "explain.html").read_bytes()
    result = run(*common, "--prompt", "x")
    assert (result.code, result.out) == (2, "")
    assert "explain.html exists; give another --out, or --force to write over it" in result.err
    assert (tmp_path / "explain.html").read_bytes() == before
    assert run(*common, "--prompt", "x", "--force").code == 0
    assert (tmp_path / "explain.html").read_bytes() != before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "no/such/folder.html"], "lies in a folder that does not exist"),
        (["--json", "page.html", "--out", "page.html"], "are one file"),
        (["--unfinished"], "--unfinished is said of --text"),
        (["--text", "a", "--seed", 1], "leave --seed and --beams out"),
        (["--text", "a", "--beams", 2], "leave --seed and --beams out"),
        (["--text", "", "--unfinished"], "--text is empty"),
        (["--text", "abcdef", "--max-new-tokens", 3], "--text has 6 tokens, and the budget is 3"),
        (["--top", 0], "--top"),
        (["--prompt", "a", "--prompt", "b"], "'--prompt': it is given 2 times, and takes one value; give it once"),
        (["--grammar", "card", "--grammar=email"], "'--grammar': it is given 2 times"),
        (["--force", "--seed", 1, "--force", "--seed", 1, "--seed", 1], "'--seed': it is given 3 times"),
        (["--temperature", "-1"], "--temperature"),
        (["--text", "a", "--strength", 2, "--max-new-tokens", 9], "nothing to look for"),
        (["--text", "caf\udce9"], "is not UTF-8"),
        (["--text", "ab<|end|>cd"], "token 3 is <|end|>, and 2 tokens stand behind it; end the text there"),
        (["--text", "ab<|end|>c", "--prompt", "x", "--unfinished"], "and 1 token stands behind it"),
        (["--text", "<|end|><|end|>"], "token 1 is <|end|>, and 1 token stands behind it"),
    ],
)
def test_refusals(run, model_folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    budget = [] if "--max-new-tokens" in words else ["--max-new-tokens", 20]
    result = run("explain", "--model", model_folder, *budget, *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["explain", "generate", "sample"])
def test_an_option_that_takes_one_value_is_not_given_two(run, command):
    result = run(command, "--grammar", "card", "--grammar", "email")
    assert (result.code, result.out) == (2, "")
    assert "'--grammar': it is given 2 times, and takes one value; give it once" in result.err
    assert run(command, "--contains", "a", "--contains", "b", "--help").code == 0
