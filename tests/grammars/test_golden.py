"""Every grammar in `grammars/` against its golden texts, with lark alone. Knows nothing of the package."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache

import pytest
from lark import Lark, Token, UnexpectedInput
from lark.common import ParserConf
from lark.parsers.lalr_analysis import LALR_Analyzer

from . import golden

# Lines a golden file holds at least: more where the language has more to get wrong.
LEAST = dict.fromkeys(golden.names(), 20) | {"json": 30, "sql_select": 30, "python_expr": 30}

# What a terminal must not use: look-around, atomic and conditional groups, back-references, possessive repeats, anchors.
# Escaped characters and character classes are blanked before the search.
OUTSIDE = re.compile(r"\(\?[=!>(]|\(\?<[=!]|\(\?P=|[*+?}]\+|[\^$]|\\[1-9AbBZ]")


@cache
def grammar(name: str) -> Lark:
    return Lark(_text(name), parser="lalr", strict=False)


@cache
def texts(name: str, kind: str) -> list[str]:
    return golden.read(golden.FOLDER / f"{name}.{kind}")


def parses(name: str, text: str) -> bool:
    try:
        grammar(name).parse(text)
    except UnexpectedInput:
        return False
    return True


def cases(kind: str) -> list:
    return [
        pytest.param(name, text, id=f"{name}-{number}")
        for name in golden.names()
        for number, text in enumerate(texts(name, kind))
    ]


def _text(name: str) -> str:
    return (golden.FOLDER / f"{name}.lark").read_text(encoding="utf-8")


every_grammar = pytest.mark.parametrize("name", golden.names())


@pytest.mark.parametrize(("name", "text"), cases("accept"))
def test_accepts(name: str, text: str) -> None:
    assert parses(name, text), text


@pytest.mark.parametrize(("name", "text"), cases("reject"))
def test_rejects(name: str, text: str) -> None:
    assert not parses(name, text), text


@every_grammar
@pytest.mark.parametrize("kind", ["accept", "reject"])
def test_there_are_enough_texts_and_none_twice(name: str, kind: str) -> None:
    found = texts(name, kind)
    assert len(found) >= LEAST[name]
    assert len(found) == len(set(found)), sorted(text for text in found if found.count(text) > 1)


@every_grammar
def test_no_text_is_both_accepted_and_rejected(name: str) -> None:
    assert not set(texts(name, "accept")) & set(texts(name, "reject"))


@every_grammar
def test_no_conflict_is_resolved_silently(name: str) -> None:
    # Lark's own strict mode also compares terminals and for that needs a further package; the analyser alone does not.
    lark = grammar(name)
    LALR_Analyzer(ParserConf(lark.rules, {}, lark.options.start), strict=True).compute_lalr()


@every_grammar
def test_no_two_terminals_of_a_state_collide(name: str) -> None:
    pytest.importorskip("interegular")
    Lark(_text(name), parser="lalr", strict=True)


@every_grammar
def test_no_terminal_matches_the_empty_string(name: str) -> None:
    empty = [terminal.name for terminal in grammar(name).terminals if re.fullmatch(terminal.pattern.to_regexp(), "")]
    assert not empty


@every_grammar
def test_terminals_keep_to_plain_regular_expressions(name: str) -> None:
    for terminal in grammar(name).terminals:
        if terminal.pattern.type == "re":
            bare = re.sub(r"\\[^1-9AbBZ]", "e", terminal.pattern.value)
            bare = re.sub(r"\[[^\]]*\]", "c", bare)
            assert not OUTSIDE.search(bare), terminal


@every_grammar
def test_every_terminal_is_used_by_an_accepted_text(name: str) -> None:
    lark = grammar(name)
    seen = {token.type for text in texts(name, "accept") for token, _ in _tokens(lark, text)}
    assert {terminal.name for terminal in lark.terminals} - set(lark.ignore_tokens) == seen


@every_grammar
@pytest.mark.parametrize("kind", ["accept", "reject"])
def test_no_terminal_hides_a_longer_match(name: str, kind: str) -> None:
    # Lark takes the first alternative that matches, an automaton the longest: a grammar must mean the same to both.
    lark = grammar(name)
    patterns = {terminal.name: re.compile(terminal.pattern.to_regexp()) for terminal in lark.terminals}
    for text in texts(name, kind):
        for token, choices in _tokens(lark, text):
            for end in range(token.end_pos + 1, len(text) + 1):
                longer = [choice for choice in choices if patterns[choice].fullmatch(text, token.start_pos, end)]
                assert not longer, (text, token, text[token.start_pos : end])


def test_the_words_of_the_card_are_those_of_the_lists() -> None:
    lists = tomllib.loads((golden.FOLDER.parent / "tools/tinytales/card_lists.toml").read_text(encoding="utf-8"))
    patterns = {terminal.name: terminal.pattern.to_regexp() for terminal in grammar("card").terminals}
    for name, terminal in {"kinds": "KIND", "animals": "ANIMAL", "things": "THING", "moods": "MOOD"}.items():
        assert sorted(re.findall("[a-z]+", patterns[terminal])) == sorted(lists[name])


def _tokens(lark: Lark, text: str) -> Iterator[tuple[Token, set[str]]]:
    """The tokens of the longest prefix that lark reads, each with the terminals it could have been."""
    interactive = lark.parse_interactive(text)
    terminals = {terminal.name for terminal in lark.terminals}
    try:
        for token in interactive.iter_parse():
            yield token, terminals & interactive.choices().keys() | set(lark.ignore_tokens)
    except UnexpectedInput:
        return
