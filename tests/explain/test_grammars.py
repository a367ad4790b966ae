"""What a grammar says of a place inside a terminal: which one it is, and what stands of it."""

from __future__ import annotations

import pytest
import torch

from ctrldecode import HMM, Grammar, HMMLanguageModel, Vocabulary
from ctrldecode.core.potential import per_row
from ctrldecode.explain import reasons, trace

# White space between items is ignored, white space inside strings is not; `true` is a name, too, until it goes on otherwise.
LISTS = r"""
start: "[" (item ("," item)*)? "]"
item: STRING | "true" | NAME | start
STRING: /"[^"]*"/
NAME: /[a-z]+/
%ignore /[ ]+/
"""
PROMPT = torch.tensor([[0]])
LONG = '["' + "m" * 60
HALF = "m" * 18

PLACES = {
    "": '"["',
    "[": '"[", "]", "true", NAME, STRING',
    "[ ": '"[", "]", "true", NAME, STRING',
    '["': 'more of STRING (begun with “"”)',
    '[ "ab", "c d': 'more of STRING (begun with “"c␣d”)',
    '["ab"': '",", "]"',
    "[tr": '",", "]", more of "true" or NAME (begun with “tr”)',
    "[[x],xy": '",", "]", more of NAME (begun with “xy”)',
    "[xy ": '",", "]"',
    "[] ": "end of text",
    LONG: f'more of STRING (begun with “"{HALF}…m{HALF}”)',
}


def over(text):
    """Every byte, and the text as one token; its ids by bytes, and as one."""
    pieces = [bytes([byte]) for byte in range(256)] + ([text.encode()] if len(text) > 1 else [])
    return Vocabulary([*pieces, None], len(pieces)), [list(text.encode()), *([[256]] if len(text) > 1 else [])]


def uniform(size):
    """A language model under which everything may be."""
    emission = [[1 / (size - 1)] * (size - 1) + [0], [0] * (size - 1) + [1]]
    return HMMLanguageModel(HMM([1, 0], [[0.9, 0.1], [0, 1]], emission, eos_token_ids=[size - 1]))


@pytest.mark.parametrize("parser", ["lalr", "earley"])
@pytest.mark.parametrize("text", PLACES)
def test_what_stands_of_a_begun_terminal(parser, text):
    """Byte by byte, and with all bytes in one token: lexemes begin inside tokens, too."""
    words, ways = over(text)
    potential, lm = Grammar(LISTS, parser=parser).compile(words), uniform(words.size)
    for tokens in ways:
        found = trace(lm, potential, PROMPT, tokens, vocabulary=words, look_ahead=True)
        (fact,) = found.steps[-1].effects[0].facts
        assert (fact.name, fact.before) == ("expects", PLACES[text])
        if len(found.steps) > 1:
            assert found.steps[-2].effects[0].facts[0].after == PLACES[text]


@pytest.mark.parametrize("text", [text for text in PLACES if "more of STRING" not in PLACES[text]])
def test_verdicts_say_so_too(text):
    """By row, too, which hands the text on; strings take the sign that nothing else does."""
    words, ways = over(text)
    potential = per_row([Grammar(LISTS).compile(words)])
    for tokens in ways:
        found = trace(uniform(words.size), potential, PROMPT, [*tokens, ord("?")], vocabulary=words)
        assert found.steps[-1].effects[0].verdict == f"“?” cannot stand here; expected: {PLACES[text]}"


def test_a_token_that_begins_a_terminal_and_leaves_it():
    words = Vocabulary([*(bytes([byte]) for byte in range(256)), b'["a",b?', None], 257)
    found = trace(uniform(258), Grammar(LISTS).compile(words), PROMPT, [256], vocabulary=words)
    assert (
        found.steps[0].effects[0].verdict
        == '“["a",b” fits, then “?” cannot stand here; expected: ",", "]", more of NAME (begun with “b”)'
    )


def test_a_state_without_its_text_is_explained_as_well():
    words = Vocabulary([b"a", b"b", b" ", None], 3)
    potential = Grammar('start: A " " B\nA: "a"+\nB: "b"').compile(words)
    state = potential.step(potential.init(PROMPT), torch.tensor([0]))
    assert reasons.facts(potential, state)["expects"] == '" ", more of A'
    assert reasons.why(potential, state, 1) == '“b” cannot stand here; expected: " ", more of A'


def test_ignored_text_alone():
    """A place inside white space that has to go on names no terminal, as the parser sees none."""
    words = Vocabulary([b"a", b"-", None], 2)
    potential = Grammar('start: "a" "a"\n%ignore "--"').compile(words)
    found = trace(uniform(3), potential, PROMPT, [0, 1], vocabulary=words, look_ahead=True)
    assert found.steps[-1].effects[0].facts[0].before == "ignored text"
