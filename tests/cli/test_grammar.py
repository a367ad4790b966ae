"""`ctrldecode grammar`: list, check, next, sample."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ctrldecode._resources import grammar_names
from ctrldecode.grammar import Grammar
from tests.grammars import golden

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.fixture
def grammar(run: Callable[..., Run]) -> Callable[..., Run]:
    return lambda *words: run("grammar", *words)


def test_list_names_every_grammar(grammar: Callable[..., Run]) -> None:
    code, out, _ = grammar("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == grammar_names()


def test_check(grammar: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    assert grammar("check", "json", '{"a": [1, 2]}') == (0, "in the language of json\n", "")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"a":\n [1, }')))
    code, out, _ = grammar("check", "json")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "not in the language of json: the text leaves the language in line 2, column 6"
    assert lines[1:3] == ["   [1, }", "       ^"]
    assert "NUMBER" in lines[3]
    assert '"}"' not in lines[3]
    assert "ends too early in line 1, column 3" in grammar("check", "json", "[1")[1]


def test_next_groups_tokens_by_terminal(grammar: Callable[..., Run]) -> None:
    code, out, _ = grammar("next", "json", '{"a": 1')
    assert code == 0
    groups = dict(line.split(": ", 1) for line in out.splitlines()[1:])
    assert out.startswith("the text may not end here")
    assert "'}'" in groups['"}"']
    assert "'0'" in groups["NUMBER"]
    assert grammar("next", "json", "tru")[1].splitlines()[1].startswith('"true": ')
    code, _, err = grammar("next", "json", "}")
    assert code == 2
    assert "begins with" in err


def test_text_that_is_not_utf8(grammar: Callable[..., Run]) -> None:
    for command in ("check", "next"):
        code, out, err = grammar(command, "json", '"\udcff"')
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert "is not UTF-8 at character 2" in err


def test_seed_that_is_too_large(grammar: Callable[..., Run]) -> None:
    code, _, err = grammar("sample", "json", "--seed", 2**64)
    assert code == 2
    assert "--seed" in err


def test_samples_are_in_the_language(grammar: Callable[..., Run]) -> None:
    code, out, _ = grammar("sample", "sql_select", "--num", "20", "--seed", "3", "--max-bytes", "60")
    assert code == 0
    texts = [json.loads(line) for line in out.splitlines()]
    language = Grammar.from_file(golden.FOLDER / "sql_select.lark")
    assert len(texts) == 20
    assert len(set(texts)) > 10
    assert all(language.accepts(text) and len(text.encode()) <= 60 for text in texts)
    assert grammar("sample", "sql_select", "--num", "20", "--seed", "3", "--max-bytes", "60")[1] == out
    assert "has 73 bytes, but only 5" in grammar("sample", "card", "--max-bytes", "5")[2]


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("csv", "a,b\r\nc,d\r\n", 0),
        ("arithmetic", "1+2\r\n", 0),
        ("arithmetic", "1+2\n", 0),
        ("arithmetic", "1+2\n\n", 1),
    ],
)
def test_check_of_a_file(
    grammar: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, name: str, text: str, wanted: int
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert grammar("check", name).code == wanted


def test_the_caret_stands_below_the_character(grammar: Callable[..., Run]) -> None:
    for text, line, cells in (("[1,\t2,}", "  [1, 2,}", 8), ('{"漢": 1,}', '  {"漢": 1,}', 11)):  # 漢 is two cells wide
        lines = grammar("check", "json", text).out.splitlines()
        assert lines[1] == line
        assert lines[2] == " " * cells + "^"


def test_parser_chooses_the_language(grammar: Callable[..., Run], tmp_path: Path) -> None:
    """In lalr mode `ifx` is one name; in earley mode it is also `if` and `x`; what is doubtful is a note."""
    file = tmp_path / "keyword.lark"
    file.write_text('start: "if" NAME | NAME "!"\nNAME: /[a-z]+/\n%ignore " "\nlonely: "z"\n')
    codes = {parser: grammar("check", str(file), "ifx", "--parser", parser) for parser in ("auto", "lalr", "earley")}
    assert {parser: code for parser, (code, _, _) in codes.items()} == {"auto": 1, "lalr": 1, "earley": 0}
    assert all(err == "note: the grammar keyword: never used: lonely\n" for _, _, err in codes.values())
    code, _, err = grammar("check", str(file), "ifx", "--parser", "glr")
    assert code == 2
    assert "'auto', 'lalr', 'earley'" in err


def test_nothing_is_ignored_where_nothing_is(grammar: Callable[..., Run], tmp_path: Path) -> None:
    file = tmp_path / "ab.lark"
    file.write_text('start: "a" start | "b"\n')
    code, out, _ = grammar("check", str(file), "bx")
    assert code == 1
    assert out.splitlines()[-1] == "expected: end of text"
