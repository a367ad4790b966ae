"""Masks from compiled kernels against the machine in Python, which asks the parser about each configuration by itself."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import BudgetError, GrammarLimitError
from ctrldecode.grammar import Grammar, _explorer, _language
from ctrldecode.grammar._explorer import BOUND, COUNT
from ctrldecode.grammar._lalr import LalrMachine
from ctrldecode.grammar._language import Language
from ctrldecode.grammar._position import Position
from ctrldecode.kernels.tokens import masks, stacks
from tests.grammar.enumeration import PIECES, compiled
from tests.grammar.strategies import grammars, language

if TYPE_CHECKING:
    from ctrldecode.grammar._machine import Configuration

pytestmark = pytest.mark.filterwarnings("ignore::ctrldecode.errors.GrammarWarning")  # random grammars have unused names


def positions(own: Language, most: int) -> list[Position]:
    """Some positions that the start leads to, breadth first."""
    found = [own.start()]
    for position in found:  # grows
        allowed = np.flatnonzero(masks.bits(position.mask(), own.vocabulary.size))
        following = [position.step(int(token)) for token in allowed if token not in own.vocabulary.eos_token_ids]
        found += [p for p in dict.fromkeys(following) if p is not None and p not in found]
        if len(found) > most:
            break
    return found[:most]


def equal_the_machine(own: Language, found: list[Position]) -> None:
    """The mask without a bound, the mask within what is said to be enough for all of it, and where texts lead."""
    for position in found:
        assert position.accepts == any(map(own.machine.accepts, position.configurations))
        for token in own.vocabulary.tokens:
            if token:
                assert own.after(position, token) is own._advanced(position, token)  # asked nowhere else in lalr mode
        costs, wanted = own.mask(position, None, math.inf)
        assert (position.mask() == wanted).all()
        assert (position.mask(100_000) == wanted).all()
        told: list[float] = []
        for counting in (0, COUNT, BOUND):
            words, enough = own.whole_mask(position, counting=counting)
            assert words is not None
            assert (words == wanted).all()
            told.append(enough)
        exact, bound = told[1:]
        assert exact <= bound < math.inf
        assert (own.mask(position, None, exact)[1] == wanted).all()
        assert not costs or min(costs) <= exact
        for budget in {exact, exact + 1, bound, bound + 1}:  # with the token itself
            assert (
                Position(own, position.configurations, accepts=position.accepts).mask(budget)
                == own.mask(position, None, budget - 1)[1]
            ).all()


def kernels_equal_the_machine(text: str, most: int) -> None:
    """The same for a random grammar, if it is LALR(1)."""
    potential = None if language(text, 0, "lalr") is None else compiled(text, PIECES, "lalr")
    if potential is not None:
        equal_the_machine(potential.language, positions(potential.language, most))


@settings(max_examples=60, deadline=None)
@given(grammars())
def test_random_grammars(text: str) -> None:
    kernels_equal_the_machine(text, 12)


@pytest.mark.soak
@settings(max_examples=2000, deadline=None)
@given(grammars())
def test_many_random_grammars(text: str) -> None:
    kernels_equal_the_machine(text, 20)


NESTED = """
start: item+
item: "(" start ")" | NAME "," | "let" NAME "=" item
NAME: /[a-c]+/
%ignore " "
"""
SOME = Vocabulary(
    [*(bytes([b]) for b in range(256)), b"((", b"))", b" a", b"ab,", b"let a", b"),(", b",),)", b"=(", None], {264}
)


def test_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks and walks that are forgotten again and again change nothing."""
    plenty = positions(Grammar(NESTED, parser="lalr").compile(SOME).language, 60)
    monkeypatch.setattr(_explorer, "_STACKS", 4)
    monkeypatch.setattr(_explorer, "_WALKS", 1)
    monkeypatch.setattr(_explorer, "_PLACES", 1)
    monkeypatch.setattr(_explorer, "_PIECE", 2)
    monkeypatch.setattr(stacks, "_SHIFTS", 1)
    scarce = Grammar(NESTED, parser="lalr").compile(SOME, mask_bytes=1).language
    found = positions(scarce, 60)
    assert [p.mask().tolist() for p in found] == [p.mask().tolist() for p in plenty]
    equal_the_machine(scarce, found)


def test_what_is_prepared_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name and the beginning of a keyword end alike, and leave to the next lexeme that they must not go on."""
    found: list[tuple[int, int]] = []
    after_tokens = _explorer.Explorer._after_tokens

    def watched(explorer: _explorer.Explorer, *of: Any) -> list[Configuration]:
        ways = after_tokens(explorer, *of)
        found.extend((explorer._machine.lexer_of[way.node.state], way.lexer) for way in ways)
        return ways

    monkeypatch.setattr(_explorer.Explorer, "_after_tokens", watched)
    text = 'start: (NAME "." | "let" NAME "=" | "-" NAME)+\nNAME: /[a-z]+(-[a-z]+)?/'
    Grammar(text, parser="lalr").compile(Vocabulary([*(bytes([byte]) for byte in range(128)), None], {128}))
    assert len(found) > 4
    assert len(found) == len(set(found))


def made(own: Language) -> list[int]:
    """How much of the room for walks is used."""
    assert own._explorer is not None  # what is made is seen nowhere else
    return own._explorer._walks.used.tolist()


def test_masks_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lexeme begins or is under way, masks find their walks and steps all answers; a bound leaves them to be found."""
    texts = (b"", b"(", b"((", b"a,", b"let", b"let a=", b"(a,)", b"a", b"le", b"((a", b"(let a")
    found: list[list[list[int]]] = []
    asked: list[int] = []
    answer = _explorer.Explorer._answer
    monkeypatch.setattr(_explorer.Explorer, "_answer", lambda *of: (asked.append(of[1]), answer(*of)))
    for most in (512, 2):
        monkeypatch.setattr(_explorer, "_AHEAD", most)
        own = Grammar(NESTED, parser="lalr").compile(SOME).language
        before, _ = made(own), asked.clear()
        ways = [own.after(own.start(), text) if text else own.start() for text in texts]
        found.append([way.mask().tolist() for way in ways if way is not None])
        assert (made(own) == before) == (most == 512)
        assert (not asked) == (most == 512)
    assert len(found[0]) == len(texts)
    assert found[0] == found[1]


# After an `x` that ends, the next lexeme has 7 · 5 states: the `x` must not go on.
ENTANGLED = """
start: C D | A B | "c" start
A: /x((aaaaaaa)*b)?/
B: /(aaaaa)*c/
C: /a(bb)?/
D: /bc/
"""


def test_a_limit_of_lexer_states_is_for_texts() -> None:
    """What is prepared may need more; and a text that does leaves nothing behind that others would meet."""
    vocabulary = Vocabulary([b"a", b"b", b"c", b"x", None], {4})
    grammar = Grammar(ENTANGLED, parser="lalr")
    texts = [b"cx" + b"a" * count for count in range(37)]

    def masks_after(own: Language) -> list[list[int] | None]:
        ways = [own.after(own.start(), text) for text in texts]
        return [None if way is None else way.mask().tolist() for way in ways]

    wanted, refused = masks_after(grammar.compile(vocabulary).language), list[int]()
    for limit in range(25, 80):  # with fewer nothing can be spelled
        own = grammar.compile(vocabulary, max_lexer_states=limit).language
        assert isinstance(own.machine, LalrMachine)
        assert len(own.machine.automaton) == 25 or limit >= 50  # half of them are left to texts
        try:
            found = masks_after(own)
        except GrammarLimitError:
            refused.append(limit)
            own.machine.automaton.limit = 1000
            found = masks_after(own)
        assert found == wanted
    assert 20 < len(refused) < 40


def test_equal_masks_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept once and never overwritten, nor are all positions kept that had one."""
    own = Grammar(NESTED, parser="lalr").compile(SOME).language
    one, other, ended = (own.after(own.start(), text) for text in (b"(", b"((", b"a,"))
    assert one is not None
    assert other is not None
    assert ended is not None
    first = one.mask()
    before = first.copy()
    assert other.mask() is first
    assert ended.mask() is not first
    assert (first == before).all()
    monkeypatch.setattr(masks, "digest", lambda _: 0)  # then masks that differ have one place
    found = positions(Grammar(NESTED, parser="lalr").compile(SOME).language, 60)
    assert [p.mask().tolist() for p in found] == [p.mask().tolist() for p in positions(own, 60)]
    monkeypatch.setattr(_language, "_MAX_POSITIONS", 3)
    positions(own, 60)
    assert len(own._kept) == 3


def test_digests_of_small_masks_differ() -> None:
    """Masks with one digest would be kept again and again, and the bound on their memory would count one."""
    chosen = [tokens for count in (1, 2) for tokens in combinations(range(128), count)]
    digests: set[int] = set()
    for tokens in chosen:
        words = masks.empty(128)
        for token in tokens:
            masks.allow(words, token)
        digests.add(masks.digest(words))
    assert len(digests) == len(chosen)


def test_positions_that_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts begin on another stack then; what is known of the first is of no use, nor does it stay."""
    own = Grammar(NESTED, parser="lalr").compile(SOME).language
    first, old = own.start(), positions(own, 60)
    monkeypatch.setattr(_language, "_MAX_POSITIONS", 10)
    start = own.start()
    assert start is not first
    assert own._explorer is not None
    assert first.configurations[0].node not in own._explorer._numbers
    monkeypatch.undo()
    equal_the_machine(own, positions(own, 60))
    for position in old[:5]:
        after, wanted = own.after(position, b"(a,"), own._advanced(position, b"(a,")
        assert (after is None) == (wanted is None)
        assert after is None or wanted is None or after.mask().tolist() == wanted.mask().tolist()


def test_terminals_that_cannot_stand_everywhere() -> None:
    """Two names side by side cannot be told apart, so what can be completed is a question of costs."""
    text = 'start: NAME NAME | "(" start ")" | NAME "," start | "-" NAME\nNAME: /[a-c]+/'
    odd = Grammar(text, parser="lalr").compile(SOME).language
    equal_the_machine(odd, positions(odd, 60))


def test_deep_stacks() -> None:
    nested = Grammar(NESTED, parser="lalr").compile(SOME).language
    position = nested.after(nested.start(), b"(" * 10_000 + b"a,")
    assert position is not None
    equal_the_machine(nested, [position])


@pytest.mark.parametrize("room", range(2, 9))
def test_stacks_forgotten_between_two_configurations(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Where the pool is full amid the numbers of one position, those before are numbers of nothing, and the kernel trusts them."""
    monkeypatch.setattr(_explorer, "_STACKS", room)
    own = Grammar(NESTED, parser="lalr").compile(SOME, mask_bytes=1).language
    explorer, explore = own._explorer, _explorer.kernels.explore  # the numbers are seen nowhere else
    assert explorer is not None

    def watched(*arguments: Any) -> int:
        assert position is not None
        numbers = arguments[1][:, 0].tolist()
        assert [explorer._nodes.get(n) for n in numbers] == [c.node for c in position.configurations]
        return explore(*arguments)

    monkeypatch.setattr(_explorer.kernels, "explore", watched)
    for text in (b"a", b"(a", b"((ab", b"(((let a=b", b"((((abc", b"(((((a"):
        position = own.after(own.start(), text)
        assert position is not None
        equal_the_machine(own, [position])


@pytest.mark.parametrize("levels", [999, 1000, 1001])
def test_bounds_near_what_counts_as_infinite(levels: int) -> None:
    """Each level may cost 536,870 bytes, so that of 1,000 the bound is finite, and with the rest of a lexeme it is not."""
    most = 536_870
    doubled = "\n".join(f"x{k}: x{k - 1} x{k - 1}" for k in range(1, most.bit_length()))
    costly = " ".join(f"x{k}" for k in range(most.bit_length()) if most >> k & 1)
    text = f'start: "(" start ")" | "(" t {costly} | A\nt: "d"\nA: /a{{1000}}/\nx0: "c"\n{doubled}'
    vocabulary = Vocabulary([bytes([byte]) for byte in range(128)] + [None], {128})
    own = Grammar(text, parser="lalr").compile(vocabulary).language
    position = own.after(own.start(), b"(" * levels + b"a")
    assert position is not None
    for budget in (10**7, math.inf, 999 + levels, 998 + levels):
        assert np.flatnonzero(masks.bits(position.mask(budget), 129)).tolist() == [ord("a")] * (budget >= 999 + levels)


def test_tokens_across_lexemes_lead_on_where_none_begins_anew() -> None:
    """Eleven c cannot be spelled by `cc`, but behind the one in `abc` ten can, with a budget for just that, too."""
    tokens = [b"ab", b"b", b"cc", b"abc", None]
    potential = Grammar('start: "a" start T | "b"\nT: /c{11}/', parser="lalr").compile(Vocabulary(tokens, {4}))
    start = potential.language.start()
    equal_the_machine(potential.language, positions(potential.language, 8))
    for budget, allowed in ((5, [1]), (6, [1, 3]), (math.inf, [1, 3])):
        assert np.flatnonzero(masks.bits(potential.language.mask(start, None, budget - 1)[1], 5)).tolist() == allowed
        assert np.flatnonzero(masks.bits(start.mask(budget), 5)).tolist() == allowed


def test_a_budget_too_small_is_told_where_not_every_end_of_a_text_can_be_spelled() -> None:
    """Of the shortest text, cccc, the last c is no token."""
    potential = Grammar("start: U U\nU: /c.?/", parser="lalr").compile(Vocabulary([b"ab", b"cc", b"b", None], {3}))
    with pytest.raises(BudgetError, match="needs 2 tokens, but only 1 are allowed"):
        potential.init(torch.zeros(1, 0, dtype=torch.long), budget=torch.tensor([1]))


def test_a_budget_for_which_a_token_spans_all_lexemes() -> None:
    """By lexemes two tokens are needed, and `a)` is the whole text."""
    vocabulary = Vocabulary([b"a)", b")", b"abc", None], {3})
    potential = Grammar('start: U ")"\nU: /a(bc)?/', parser="lalr").compile(vocabulary)
    state = potential.init(torch.zeros(1, 0, dtype=torch.long), budget=torch.tensor([1]))
    assert np.flatnonzero(masks.bits(potential.mask(state)[0], 4)).tolist() == [0]


def test_what_is_counted_anyway_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a terminal cannot be spelled, costs are counted for every mask, and a tight budget asks for no second one."""
    potential = Grammar('start: "a" start T | "b"\nT: /c{11}/', parser="lalr").compile(Vocabulary([b"ab", b"b", b"cc", b"abc", None], {4}))  # fmt: skip
    own, asked = potential.language, list[int]()
    monkeypatch.setattr(own, "whole_mask", lambda at, *, counting: (asked.append(counting), Language.whole_mask(own, at, counting=counting))[1])  # fmt: skip
    for budget in (5, 6, 3):
        own.start().mask(budget)
    assert asked == [COUNT]
