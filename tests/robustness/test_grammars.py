"""Grammars that grow without end are stopped by limits that errors name, and what lark itself cannot open is told."""

from __future__ import annotations

import pytest

from ctrldecode.errors import GrammarError, GrammarLimitError
from ctrldecode.grammar import Grammar, explain
from ctrldecode.grammar import _reference as reference


def doubling(levels):
    steps = "".join(f"g{at}{{x, y}}: g{at + 1}{{h{{x, y}}, h{{x, y}}}}\n" for at in range(1, levels))
    return f'start: g1{{A, A}}\n{steps}g{levels}{{x, y}}: x y\nh{{x, y}}: x y\nA: "a"\n'


def nested(levels):
    inner = "A?"
    for _ in range(levels):
        inner = f"({inner} {inner} {inner})~0..4"
    return f'start: {inner}\nA: "a"\n'


def terminals(levels):
    return f"start: A{levels}\n" + "".join(f"A{at + 1}: A{at} A{at}\n" for at in range(levels)) + 'A0: "a"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (doubling(40), "template g.. makes a rule whose arguments take more than 10,000 characters"),
        ('start: t{A}\nt{x}: "a" | t{s{x}}\ns{x}: x\nA: "a"\n', "template t makes a rule"),
        (nested(2), "rule start has more than 50,000 alternatives"),
        ("start: " + " ".join(f'"a{at}"?' for at in range(30)), "rule start has more than 50,000 alternatives"),
        ('start: "x" (a? b? c? d?)~0..9\na: "a"\nb: "b"\nc: "c"\nd: "d"\n', "rule start has more than 50,000"),
        (terminals(60), "terminal A.. uses other terminals so often"),
        (terminals(2000), "terminal A.. uses other terminals so often"),
    ],
)
@pytest.mark.parametrize("parser", ["lalr", "earley"])
def test_growth_is_stopped_by_a_limit_that_the_error_names(text, told, parser):
    with pytest.raises(GrammarLimitError, match=told):
        Grammar(text, parser=parser)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (doubling(4), "a" * 16),
        (nested(1), "a" * 12),
        (terminals(6), "a" * 64),
        ('start: (A|B)~10\nA: "a"\nB: "b"', "ab" * 5),  # 1,024 alternatives
        ("start: A?" + " A?" * 7 + '\nA: "a"', "aaa"),  # 256 as they are written out, 9 that differ
        ('start: (A B?)~3..99\nA: "a"\nB: "b"', "abaab"),
        ("start: " + "|".join(f'"word{at}"' for at in range(3000)), "word2999"),
    ],
)
def test_what_is_large_in_order_is_read(text, accepted):
    grammar = Grammar(text, parser="earley")
    assert grammar.accepts(accepted)
    assert not grammar.accepts(accepted + "!")


def test_flags_of_the_whole_expression_are_refused_where_lark_joins_terminals():
    text = 'start: A B\nA: "x"\nB: /(?i)a/\n'
    with pytest.raises(GrammarError, match=r"terminal B: /\(\?i\)a/ sets flags .*\(\?i:") as caught:
        Grammar(text, parser="lalr")
    assert "line 3" in str(caught.value)
    assert Grammar(text, parser="earley").accepts("xA")
    assert Grammar('start: A B\nA: "x"\nB: /(?i:a)/\n', parser="lalr").accepts("xA")


@pytest.mark.parametrize("parser", ["lalr", "earley"])
def test_a_range_that_goes_down_is_refused(parser):
    with pytest.raises(GrammarError, match="bad character range"):
        Grammar('start: A\nA: "x" | "z".."a"\n', parser=parser)


def test_lark_that_cannot_be_opened_is_told(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("unterminated character set")

    monkeypatch.setattr(reference, "Lark", refuse)
    with pytest.raises(GrammarError, match="cannot judge a text: unterminated"):
        Grammar('start: "a"').accepts("a")


@pytest.mark.parametrize("pattern", [r"[\x80-\xff]+", r"\xff", "é+", r"[^\x00-\x7f]"])
@pytest.mark.parametrize("parser", ["lalr", "earley"])
def test_terminals_of_characters_beyond_ascii_are_characters_and_no_bytes(pattern, parser):
    potential = explain.over_bytes(Grammar(f"start: /{pattern}/", parser=parser))
    language = potential.language
    assert language.after(language.start(), b"\xff") is None  # no UTF-8 begins so
    character = "é" if "é" in pattern else "ÿ"
    assert explain.check(potential, character) is None
    assert explain.check(potential, "a") is not None
