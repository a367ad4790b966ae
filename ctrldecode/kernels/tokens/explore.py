"""A token mask in one kernel: walks of the trie from lexer states, and a parser that is asked where lexemes end; and a step in another.

A walk follows one lexer state through the trie; the nodes that it reaches in one state are a group. Where the lexeme can end in
that state, and the parser shifts it, a further walk begins at the nodes of the group. Walks depend on lexer states only, so they
are kept, and a new stack costs what its parser says to the groups. What a state can end as, and where a lexer begins, is
found on demand by the caller: the kernel asks for all that it misses, and is run again.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from ctrldecode.kernels._borrow import Count, Table, borrowed
from ctrldecode.kernels._jit import jit
from ctrldecode.kernels.tokens.stacks import (
    END,
    FULL,
    NEVER,
    NONE,
    Parser,
    Pool,
    at_most,
    known_at_most,
    note,
    push,
    recalled,
    remaining,
    shift,
)
from ctrldecode.kernels.tokens.stacks import STATE as TOP
from ctrldecode.kernels.tokens.trie import Trie
from ctrldecode.kernels.tokens.walks import (
    EXITS,
    HIGH,
    STATE,
    TOKENS,
    Lexers,
    Walks,
    child,
    from_group,
    from_root,
    include,
)

__all__ = ["LENT", "Found", "advance", "climb", "explore"]

I32 = NDArray[np.int32]

UNSAFE, UNKNOWN = -2, -1  # in `Lexers.slack`
DONE, ASK, MORE_STACKS, MORE_WALKS, MORE_DOUBTS, MORE_PLACES = range(6)  # how a kernel ended
STARTS, SLACK, EDGES = range(3)  # what it asks for
NODE, LEXER, LIVES, ENDS = range(4)  # columns of `Found.places`
BOUND, COUNT = 1, 2  # what is told of completions
_UNSURE = NEVER + 1  # a cost that is not known, and may be infinite
_ROOM = 1024  # entries of a worklist or of a list of questions


class Found(NamedTuple):
    """What a mask leaves open, and where a step leads.

    Attributes:
        unsure: (U, 3) groups of tokens of which it is not known whether they can be completed: stack, lexer state, group.
        questions: (A, 3) what is missing: (STARTS, lexer, carry), (SLACK, lexer, carry) or (EDGES, lexer state, 0).
        places: (C, 4) configurations after a step: stack and lexer state, 1 where a text can surely be completed and else 0, and 1 where it
            may end.
        tally: (4,) how many there are of the first two, the most bytes that a completion needs, or a bound on them, and how many places.
    """

    unsure: Table
    questions: Table
    places: Table
    tally: Count


# What kernels borrow, and at which rows of the table.
LENT: tuple[type[tuple[Any, ...]], ...] = (Trie, Parser, Lexers, Pool, Walks, Found)
_TRIE, _PARSER, _LEXERS, _POOL, _WALKS, _FOUND, _ = accumulate((len(kind._fields) for kind in LENT), initial=0)


@register_jitable
def _ask(questions: I32, tally: NDArray[np.int64], what: int, a: int, b: int) -> None:
    if tally[1] < len(questions):
        questions[tally[1], 0], questions[tally[1], 1], questions[tally[1], 2] = what, a, b
        tally[1] += 1


@register_jitable
def _doubt(unsure: I32, tally: NDArray[np.int64], node: int, lexer: int, group: int) -> None:
    if tally[0] < len(unsure):
        unsure[tally[0], 0], unsure[tally[0], 1], unsure[tally[0], 2] = node, lexer, group
    tally[0] += 1


@register_jitable
def _inside(parser: Parser, lexers: Lexers, pool: Pool, found: Found, node: int, state: int, counting: int) -> int:
    """Bytes that complete a text inside a lexeme, one byte or more before its end, or more; 0 if they are not counted.

    NEVER if no end of the lexeme can follow; _UNSURE; or FULL. Everything but the costs is written out here, since a call that is not
    inlined copies all arrays of its tuples, which takes longer than what is done with them.
    """
    row, symbol, target, rule = parser.row, parser.symbol, parser.target, parser.rule
    nodes, buckets, used, endings = pool.nodes, pool.buckets, pool.used, lexers.endings
    if lexers.edge_row[state, 0] < 0:
        _ask(found.questions, found.tally, EDGES, state, 0)
        return _UNSURE
    best = NEVER if lexers.whole[0] else _UNSURE
    for edge in range(lexers.edge_row[state, 0], lexers.edge_row[state, 1]):
        ending = lexers.edge[edge, 0]
        after = node
        if not endings[ending, 1]:
            after = shift(row, symbol, target, rule, nodes, buckets, used, node, int(endings[ending, 0]))
        if after == FULL:
            return FULL
        if after == NONE:
            continue
        kind, carry = int(parser.lexer[nodes[after, TOP]]), int(endings[ending, 2])
        slack = int(lexers.slack[kind, carry])
        if slack >= 0 and not counting:
            return 0
        cost = NEVER
        if slack >= 0 and counting == BOUND:
            cost = slack + known_at_most(nodes, parser.rest, after)
        if cost >= NEVER:
            cost = _with_rest(parser, pool, slack, after, counting)
        if cost == FULL:
            return FULL
        if slack == UNKNOWN:
            _ask(found.questions, found.tally, SLACK, kind, carry)
        cost = cost if cost >= NEVER else cost + lexers.edge[edge, 1]
        if cost < NEVER:
            best = min(best, cost)
            if counting == BOUND:
                return best
        elif best >= NEVER:
            best = _UNSURE
    return best


@register_jitable
def _with_rest(parser: Parser, pool: Pool, slack: int, node: int, counting: int) -> int:
    """Bytes that complete a text before a lexeme, where a carry adds some, or more; _UNSURE or FULL."""
    if slack < 0:
        return _UNSURE
    rest = at_most(parser, pool, node) if counting == BOUND else NEVER if counting else 0
    if rest != FULL and slack + rest >= NEVER:
        rest = remaining(parser, pool, node)
    return FULL if rest == FULL else _UNSURE if slack + rest >= NEVER else slack + rest


@jit
def explore(lent: NDArray[np.int64], entries: I32, words: I32, counting: int) -> int:
    """Allow in a mask all tokens that lead from some configurations to such as can surely be completed.

    Args:
        lent: the table of the tuples in `LENT`: the tokens, the LALR tables, what is known of the lexers, stacks, walks so far, and what else
            there is to say.
        entries: (C, 2) stack and lexer state of each configuration.
        words: (V / 32,) the mask, in place.
        counting: COUNT to count the bytes that completions need, BOUND for a bound on them, which takes less; 0 for neither.

    Returns:
        DONE; ASK if there are questions; MORE_STACKS, MORE_WALKS or MORE_DOUBTS for lack of room. Only where it is done does the
        mask count.
    """
    trie, parser, lexers = borrowed(lent, _TRIE, Trie), borrowed(lent, _PARSER, Parser), borrowed(lent, _LEXERS, Lexers)
    pool, walks, found = borrowed(lent, _POOL, Pool), borrowed(lent, _WALKS, Walks), borrowed(lent, _FOUND, Found)
    row, symbol, target, rule, lexer_of = parser.row, parser.symbol, parser.target, parser.rule, parser.lexer
    rest = parser.rest
    nodes, buckets, used, shifted, groups = pool.nodes, pool.buckets, pool.used, pool.shifted, walks.groups
    endings, ending_of, slacks, begins, free = lexers.endings, lexers.ending, lexers.slack, lexers.starts, lexers.free
    rows, members, below, masks, children = walks.rows, walks.members, walks.nodes, walks.masks, walks.children
    table, ids = trie.table, trie.ids
    questions, tally = found.questions, found.tally
    words[:] = 0
    tally[:] = 0
    todo = np.empty((len(entries) + _ROOM, 3), np.int32)  # stack, lexer state, walk
    for top in range(len(entries)):
        todo[top, 0], todo[top, 1] = entries[top]
        todo[top, 2] = from_root(walks, lexers, trie, entries[top, 1])
        if todo[top, 2] == FULL:
            return MORE_WALKS
    top = len(entries)
    while top:
        top -= 1
        node, lexer, walk = todo[top, 0], todo[top, 1], todo[top, 2]
        first, last = rows[walk, 0], rows[walk, 1]
        if top + last - first > len(todo):
            longer = np.empty((2 * (top + last - first), 3), np.int32)
            longer[:top] = todo[:top]
            todo = longer
        for member in range(first, last):
            group = members[member]
            state, ending = groups[group, STATE], ending_of[groups[group, STATE]]
            inside = ended = NEVER
            after, kind, carry = NONE, 0, 0
            if ending >= 0:
                after = node
                if not endings[ending, 1]:
                    terminal = int(endings[ending, 0])
                    after = recalled(shifted, node, terminal)
                    if after == FULL:
                        after = shift(row, symbol, target, rule, nodes, buckets, used, node, terminal)
                        note(shifted, node, terminal, after)
            if after >= 0:
                kind, carry = int(lexer_of[nodes[after, TOP]]), int(endings[ending, 2])
            if groups[group, TOKENS]:
                if after >= 0:
                    slack = int(slacks[kind, carry])
                    if slack >= 0 and counting < COUNT:
                        ended = slack + known_at_most(nodes, rest, after) if counting else 0
                    if ended >= NEVER:
                        ended = _with_rest(parser, pool, slack, after, counting)
                    if slack == UNKNOWN:
                        _ask(questions, tally, SLACK, kind, carry)
                if ended >= NEVER:
                    inside = _inside(parser, lexers, pool, found, node, state, counting)
                if min(inside, ended) < NEVER and FULL not in (inside, ended):
                    tally[2] = max(tally[2], min(inside, ended))
                    include(groups, below, masks, table, ids, words, group)
                elif inside == _UNSURE:
                    _doubt(found.unsure, tally, node, state, group)
            if FULL in (inside, ended, after):
                return MORE_STACKS
            further = groups[group, EXITS] > groups[group, HIGH]
            doubtful = ended == _UNSURE and inside >= NEVER
            if after < 0 or not (further or doubtful):
                continue
            begin = begins[kind, carry]
            if begin < 0:
                _ask(questions, tally, STARTS, kind, carry)
                continue
            if doubtful:
                _doubt(found.unsure, tally, after, begin, group)
            if begin == lexer and after == node and free[lexer] and endings[ending, 1]:
                continue  # this walk has gone on from there by itself
            if further:
                walk = child(groups, children, begin, group)
                walk = from_group(walks, lexers, trie, begin, group) if walk == NONE else walk
                if walk == FULL:
                    return MORE_WALKS
                todo[top, 0], todo[top, 1], todo[top, 2] = after, begin, walk
                top += 1
    return ASK if tally[1] else MORE_DOUBTS if tally[0] > len(found.unsure) else DONE


@jit
def advance(lent: NDArray[np.int64], entries: I32, text: NDArray[np.uint8], counting: int) -> int:
    """Where a text leads from some configurations, in `Found.places`: each place once, those inside a lexeme first.

    Args:
        lent: the table of the tuples in `LENT`.
        entries: (C, 2) stack and lexer state of each configuration.
        text: one byte or more.
        counting: COUNT if what can be completed is a question of its cost, else 0.

    Returns:
        DONE; ASK if there are questions; MORE_STACKS or MORE_PLACES for lack of room.
    """
    parser, lexers = borrowed(lent, _PARSER, Parser), borrowed(lent, _LEXERS, Lexers)
    pool, found = borrowed(lent, _POOL, Pool), borrowed(lent, _FOUND, Found)
    row, symbol, target, rule, lexer_of = parser.row, parser.symbol, parser.target, parser.rule, parser.lexer
    nodes, buckets, used, delta = pool.nodes, pool.buckets, pool.used, lexers.delta
    endings, ending_of, begins = lexers.endings, lexers.ending, lexers.starts
    places, tally, questions = found.places, found.tally, found.questions
    tally[:] = 0
    here = np.empty((len(places), 3), np.int32)  # stack, lexer state, carry
    there = np.empty_like(here)
    count = inside = len(entries)
    if count > len(places):
        return MORE_PLACES
    here[:count, :2] = entries
    for byte in text:
        if 2 * count > len(places):
            return MORE_PLACES
        inside = 0
        for i in range(count):
            state = int(delta[here[i, 1], byte])
            if state >= 0:
                inside = _place(there, inside, here[i, 0], state, 0)
        count = inside
        for i in range(inside):
            ending = ending_of[there[i, 1]]
            if ending < 0:
                continue
            after = there[i, 0]
            if not endings[ending, 1]:
                after = shift(row, symbol, target, rule, nodes, buckets, used, after, int(endings[ending, 0]))
            if after == FULL:
                return MORE_STACKS
            if after == NONE:
                continue
            kind, carry = int(lexer_of[nodes[after, TOP]]), int(endings[ending, 2])
            begin = int(begins[kind, carry])
            if begin >= 0:
                count = _place(there, count, after, begin, carry)
            else:
                _ask(questions, tally, STARTS, kind, carry)
        if tally[1]:
            return ASK
        here, there = there, here
    for i in range(count):
        node, state, carry = here[i, 0], here[i, 1], here[i, 2]
        ends = NONE
        if i < inside:
            cost = _inside(parser, lexers, pool, found, node, state, counting)
        else:
            kind = int(lexer_of[nodes[node, TOP]])
            slack = int(lexers.slack[kind, carry])
            cost = 0 if slack >= 0 and not counting else _with_rest(parser, pool, slack, node, counting)
            if slack == UNKNOWN:
                _ask(questions, tally, SLACK, kind, carry)
            ends = shift(row, symbol, target, rule, nodes, buckets, used, node, END)
        if FULL in (cost, ends):
            return MORE_STACKS
        if cost != NEVER:
            place = places[tally[3]]
            place[NODE], place[LEXER], place[LIVES], place[ENDS] = node, state, cost < NEVER, ends >= 0
            tally[3] += 1
    return ASK if tally[1] else DONE


@register_jitable
def _place(places: I32, count: int, node: int, lexer: int, carry: int) -> int:
    """Add a configuration, unless it is there; how many there are."""
    for i in range(count):
        if places[i, 0] == node and places[i, 1] == lexer:
            return count
    places[count, 0], places[count, 1], places[count, 2] = node, lexer, carry
    return count + 1


@jit
def climb(lent: NDArray[np.int64], node: int, states: I32) -> I32:
    """The numbers of the stacks that one becomes by further states, one after another; NONE is no stack; or FULL at the end."""
    pool = borrowed(lent, _POOL, Pool)
    numbers = np.full(len(states), FULL, np.int32)
    for i in range(len(states)):
        node = push(pool.nodes, pool.buckets, pool.used, node, states[i])
        numbers[i] = node
        if node == FULL:
            break
    return numbers
