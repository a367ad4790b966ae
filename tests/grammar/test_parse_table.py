"""LALR tables: state for state those of lark."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from lark import Lark
from lark.exceptions import LarkError
from lark.parsers.lalr_analysis import Shift

from ctrldecode.errors import ConflictError
from ctrldecode.grammar import _lark
from ctrldecode.grammar._parse_table import ParseTable, bits, build
from tests.grammar.strategies import grammars
from tests.grammars import golden


def built(lark: Lark) -> tuple[ParseTable, list[str]]:
    conf = lark.parser.parser_conf
    names = [t.name for t in lark.parser.lexer_conf.terminals]
    rules = [
        (r.origin.name, tuple(("t", names.index(s.name)) if s.is_term else ("n", s.name) for s in r.expansion))
        for r in conf.rules
    ]
    return build(rules, [r.options.priority or 0 for r in conf.rules], "start", len(names)), [*names, "$END"]


def row(table: ParseTable, state: int, names: list[str], rules: list) -> dict:
    found: dict = {names[t]: to for t, to in table.shifts[state].items()} | dict(table.gotos[state])
    for ahead, rule in table.reduces[state]:
        for terminal in bits(ahead):
            assert names[terminal] not in found
            found[names[terminal]] = rules[rule]
    return found


def assert_equals(lark: Lark) -> None:
    """Walk both automata from their starts; states that are reached together have equal rows."""
    table, names = built(lark)
    theirs = lark.parser.parser._parse_table
    match = {0: theirs.start_states["start"]}
    waiting = [0]
    while waiting:
        state = waiting.pop()
        ours = row(table, state, names, lark.parser.parser_conf.rules)
        assert set(ours) == set(theirs.states[match[state]])
        for name, (action, argument) in theirs.states[match[state]].items():
            if action is Shift:
                if ours[name] not in match:
                    match[ours[name]] = argument
                    waiting.append(ours[name])
                assert match[ours[name]] == argument
            else:
                assert ours[name] == argument
    assert len(match) == len(table.shifts) == len(theirs.states)
    assert match[table.end_state] == theirs.end_states["start"]


@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.lark")), ids=lambda path: path.stem)
def test_shipped_grammars(path) -> None:
    assert_equals(Lark(path.read_text(encoding="utf-8"), parser="lalr", source_path=str(path)))


@settings(max_examples=200, deadline=None)
@given(grammars())
def test_random_grammars(text: str) -> None:
    try:
        lark = Lark(text, parser="lalr")
    except LarkError as error:
        if "Reduce/Reduce" in str(error):
            with pytest.raises(ConflictError):
                _lark.load(text, "start")
        return
    assert_equals(lark)


def test_bits() -> None:
    assert bits(0) == []
    assert bits(0b1001_0110 | 1 << 200) == [1, 2, 4, 7, 200]
