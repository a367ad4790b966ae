"""Walks of the token trie from lexer states, kept and shared: where lexemes lead, whatever the parser says to them.

A run follows one lexer state, inside a lexeme, from some trie nodes downwards; the nodes that it reaches in one state are a group. A walk
begins before a lexeme: after one byte it is a few runs. Equal runs are made once, whatever they began as, so a name costs one
run, not one for each place where it may stand. The functions are compiled into the kernels that call them; numba
does not see when a function of another file changes, so whoever edits this file touches its callers, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from ctrldecode.kernels._borrow import Count, Flags, Line, Table  # noqa: TC001  read at run time
from ctrldecode.kernels._jit import jit
from ctrldecode.kernels.tokens.stacks import FULL, NONE
from ctrldecode.kernels.tokens.trie import BYTE, DEPTH, FIRST, SKIP, Trie

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lexers", "Walks", "allow", "child", "empty_walks", "from_group", "from_root", "include"]

I32 = NDArray[np.int32]

# Columns of groups, of walks that begin in them, and of runs.
STATE, WORDS, TOKENS, LOW, HIGH, EXITS, CHILD = range(7)
LEXER, WALK, SIBLING = range(3)
RUN_STATE, RUN_LOW, RUN_HIGH, RUN_FIRST, RUN_LAST, RUN_NEXT = range(6)
# Nodes from which on a packed mask is faster to add than the nodes one by one.
_MANY = 256
# What is used of each array.
ROWS, MEMBERS, GROUPS, CHILDREN, RUNS, NODES, MASKS = range(7)


class Lexers(NamedTuple):
    """The lexers of a grammar as an automaton of n states over bytes; carries and endings have numbers.

    Attributes:
        delta: (n, 256) the next state, or −1.
        match: (n,) ≥ 0 where a lexeme can end.
        again: (n,) where ignored text can end that hands nothing on.
        free: (n,) where the state stands before a lexeme and was handed nothing.
        ending: (n,) how a lexeme can end in a state, −1 if it cannot.
        endings: (E, 3) for each ending: terminal, whether it is ignored, and the carry of the next lexeme.
        edge_row: (n, 2) where the edges of a state begin and end, −1 before they are known.
        edge: (K, 2) endings that can be reached with at least one more byte, and with how many.
        starts: (lexers, carries) the state before a lexeme, −1 before it is known.
        slack: (lexers, carries) bytes at most that a carry adds to the parser's cost of a completion; UNSAFE where a parser's
            completion may not be spelled, UNKNOWN before it is known.
        whole: (1,) whether all bytes are tokens, so that what no edge leads to cannot be reached.
    """

    delta: Table
    match: Line
    again: Flags
    free: Flags
    ending: Line
    endings: Table
    edge_row: Table
    edge: Table
    starts: Table
    slack: Table
    whole: Flags


class Walks(NamedTuple):
    """Room for walks.

    Attributes:
        root: (n,) the walk of a lexer state from the trie's root, −1 before it was made.
        rows: (W, 2) the members of a walk.
        members: groups of walks.
        groups: (G, 7) lexer STATE; place of a packed mask in WORDS, −1 if tokens are few; how many TOKENS; from LOW to HIGH nodes, if
            the tokens are few, and from EXITS on those of them where another lexeme may begin; the first CHILD.
        children: (C, 3) LEXER, WALK, SIBLING: a walk that begins in a group, and the next one.
        runs: (R, 6) lexer state, nodes where it begins, groups, next run in its bucket.
        buckets: (2^k,) the first run of each bucket.
        nodes: trie nodes of all groups and runs.
        masks: (P, V / 32) packed masks.
        used: (7,) how much of rows, members, groups, children, runs, nodes and masks is used.
    """

    root: Line
    rows: Table
    members: Line
    groups: Table
    children: Table
    runs: Table
    buckets: Line
    nodes: Line
    masks: Table
    used: Count


def empty_walks(states: int, width: int, walks: int) -> Walks:
    """Room for about so many walks of some lexer states, with masks of a width."""
    return Walks(
        root=np.full(states, NONE, np.int32),
        rows=np.empty((walks, 2), np.int32),
        members=np.empty(8 * walks, np.int32),
        groups=np.empty((4 * walks, 7), np.int32),
        children=np.empty((walks, 3), np.int32),
        runs=np.empty((2 * walks, 6), np.int32),
        buckets=np.full(1 << walks.bit_length(), NONE, np.int32),
        nodes=np.empty(128 * walks, np.int32),
        masks=np.empty((walks // 8 + 1, width), np.int32),
        used=np.zeros(7, np.int64),
    )


@register_jitable
def _add(words: I32, table: I32, ids: I32, nodes: I32) -> None:
    """Set in a packed mask (W,) the bits of all tokens that end at some nodes."""
    for node in nodes:
        for i in range(table[FIRST, node], table[FIRST, node + 1]):
            words[ids[i] >> 5] |= np.int32(1) << np.int32(ids[i] & 31)


@register_jitable
def include(groups: I32, nodes: I32, masks: I32, table: I32, ids: I32, words: I32, group: int) -> None:
    """Set in a packed mask the bits of all tokens of a group; takes arrays of `Walks` and of a `Trie`."""
    if groups[group, WORDS] >= 0:
        words |= masks[groups[group, WORDS]]
    else:
        _add(words, table, ids, nodes[groups[group, LOW] : groups[group, HIGH]])


allow: Callable[[I32, I32, I32, I32, I32, I32, int], None] = jit(include)  # for Python


@register_jitable
def _by_state(states: I32, count: int, total: int) -> tuple[I32, I32, I32]:
    """States that occur among the first `count`, where each ends when they are sorted, and their order then."""
    sizes = np.zeros(total + 1, np.int32)
    for i in range(count):
        sizes[states[i] + 1] += 1
    present = np.flatnonzero(sizes[1:]).astype(np.int32)
    places = np.cumsum(sizes)
    ends = places[present + 1].astype(np.int32)
    order = np.empty(count, np.int32)
    for i in range(count):
        order[places[states[i]]] = i
        places[states[i]] += 1
    return present, ends, order


@register_jitable
def _descend(trie: Trie, lexers: Lexers, roots: I32, first: int) -> tuple[I32, I32, Flags, int]:
    """Nodes at and below some roots at which a token ends or the lexeme may, the states there, and which of them are exits.

    A node is an exit if it has a child that does not lead the same lexeme to another match. The others are none: where the lexeme was
    taken to end, it must not match again.
    """
    table, delta, match = trie.table, lexers.delta, lexers.match
    nodes, reached, exits = np.empty(1024, np.int32), np.empty(1024, np.int32), np.empty(1024, np.bool_)
    states, places = np.empty(trie.longest + 1, np.int32), np.empty(trie.longest + 1, np.int32)
    count = 0
    for root in roots:
        node, end, base = root, table[SKIP, root], table[DEPTH, root]
        if count + end - node > len(nodes):
            room = max(2 * len(nodes), count + end - node)
            more_nodes, more_reached, more_exits = (
                np.empty(room, np.int32),
                np.empty(room, np.int32),
                np.empty(room, np.bool_),
            )
            more_nodes[:count], more_reached[:count], more_exits[:count] = nodes[:count], reached[:count], exits[:count]
            nodes, reached, exits = more_nodes, more_reached, more_exits
        while node < end:
            level = table[DEPTH, node] - base
            state = first if level == 0 else delta[states[level - 1], table[BYTE, node]]
            if level > 0 and places[level - 1] >= 0 and (state < 0 or match[state] < 0):
                exits[places[level - 1]] = True
            if state < 0:
                node = table[SKIP, node]
                continue
            states[level], places[level] = state, NONE
            if table[FIRST, node + 1] > table[FIRST, node] or match[state] >= 0:
                nodes[count], reached[count], exits[count] = node, state, False
                places[level] = count
                count += 1
            node += 1
    return nodes, reached, exits, count


@register_jitable
def _keep_group(walks: Walks, trie: Trie, state: int, nodes: I32, exits: I32) -> bool:
    """Keep one group of a run that is being made; False if there is no room."""
    group, low, place = walks.used[GROUPS], walks.used[NODES], walks.used[MASKS]
    tokens = 0
    for node in nodes:
        tokens += trie.table[FIRST, node + 1] - trie.table[FIRST, node]
    listed = len(nodes) if 0 < tokens < _MANY else 0
    if group == len(walks.groups) or low + listed + len(exits) > len(walks.nodes) or place == len(walks.masks):
        return False
    row = walks.groups[group]
    row[STATE], row[WORDS], row[TOKENS], row[LOW], row[CHILD] = state, NONE, tokens, low, NONE
    if tokens >= _MANY:
        walks.masks[place] = 0
        _add(walks.masks[place], trie.table, trie.ids, nodes)
        row[WORDS] = place
        walks.used[MASKS] += 1
    elif tokens:
        walks.nodes[low : low + listed] = nodes
        low += listed
    row[HIGH] = low
    walks.nodes[low : low + len(exits)] = exits
    row[EXITS] = low + len(exits)
    walks.used[GROUPS] += 1
    walks.used[NODES] = low + len(exits)
    return True


@register_jitable
def _bucket(walks: Walks, state: int, starts: I32) -> int:
    """Where to look for a run."""
    key = np.int64(state)
    for node in starts:
        key = (key * 1000003 + node) & 0x7FFFFFFF
    return int((key ^ (key >> 15)) & (len(walks.buckets) - 1))


@register_jitable
def _find_run(walks: Walks, state: int, starts: I32, bucket: int) -> int:
    run = walks.buckets[bucket]
    while run >= 0:
        row = walks.runs[run]
        same = row[RUN_STATE] == state and row[RUN_HIGH] - row[RUN_LOW] == len(starts)
        if same and (walks.nodes[row[RUN_LOW] : row[RUN_HIGH]] == starts).all():
            return run
        run = row[RUN_NEXT]
    return NONE


@register_jitable
def _run(walks: Walks, lexers: Lexers, trie: Trie, state: int, starts: I32) -> int:
    """The run of a lexer state from some nodes, in ascending order; FULL if there is no room."""
    bucket = _bucket(walks, state, starts)
    run = _find_run(walks, state, starts, bucket)
    if run >= 0:
        return run
    run, low = walks.used[RUNS], walks.used[NODES]
    if run == len(walks.runs) or low + len(starts) > len(walks.nodes):
        return FULL
    nested = False  # then a node may be reached twice
    for i in range(1, len(starts)):
        nested |= starts[i] < trie.table[SKIP, starts[i - 1]]
    row = walks.runs[run]
    row[RUN_STATE], row[RUN_LOW], row[RUN_HIGH], row[RUN_FIRST] = state, low, low + len(starts), walks.used[GROUPS]
    walks.nodes[low : low + len(starts)] = starts
    walks.used[NODES] += len(starts)
    nodes, reached, exits, count = _descend(trie, lexers, starts, state)
    present, ends, order = _by_state(reached, count, len(lexers.match))
    begin = 0
    for i in range(len(present)):
        part = order[begin : ends[i]]
        begin = ends[i]
        own = nodes[part]
        leaving = own[exits[part]] if lexers.match[present[i]] >= 0 else own[:0]
        if not _keep_group(
            walks,
            trie,
            present[i],
            np.unique(own) if nested else own,
            np.unique(leaving) if nested else leaving,
        ):
            return FULL
    row[RUN_LAST], row[RUN_NEXT] = walks.used[GROUPS], walks.buckets[bucket]
    walks.buckets[bucket] = run
    walks.used[RUNS] += 1
    return run


@register_jitable
def _children(trie: Trie, lexers: Lexers, lexer: int, roots: I32) -> tuple[I32, I32]:
    """The children of some nodes that one byte leads to from a state, and the states there."""
    table = trie.table
    count = 0
    for root in roots:
        node = root + 1
        while node < table[SKIP, root]:
            count += lexers.delta[lexer, table[BYTE, node]] >= 0
            node = table[SKIP, node]
    nodes, states = np.empty(count, np.int32), np.empty(count, np.int32)
    count = 0
    for root in roots:
        node = root + 1
        while node < table[SKIP, root]:
            state = lexers.delta[lexer, table[BYTE, node]]
            if state >= 0:
                nodes[count], states[count] = node, state
                count += 1
            node = table[SKIP, node]
    return nodes, states


@register_jitable
def _make(walks: Walks, lexers: Lexers, trie: Trie, lexer: int, roots: I32) -> int:
    """The walk of a state before a lexeme that stands at some nodes; FULL if there is no room.

    Where ignored text can end that hands nothing on, the same state stands again; the walk goes on from there, too.
    """
    walk = walks.used[ROWS]
    if walk == len(walks.rows):
        return FULL
    walks.rows[walk, 0] = walks.used[MEMBERS]
    known = np.zeros(trie.table.shape[1] if lexers.free[lexer] else 0, np.bool_)
    while len(roots):
        if len(known):
            known[roots] = True
        nodes, states = _children(trie, lexers, lexer, roots)
        present, ends, order = _by_state(states, len(states), len(lexers.match))
        roots = roots[:0]
        begin = 0
        for i in range(len(present)):
            run = _run(walks, lexers, trie, present[i], np.sort(nodes[order[begin : ends[i]]]))
            begin = ends[i]
            if run == FULL or walks.used[MEMBERS] + walks.runs[run, RUN_LAST] - walks.runs[run, RUN_FIRST] > len(
                walks.members
            ):
                return FULL
            for group in range(walks.runs[run, RUN_FIRST], walks.runs[run, RUN_LAST]):
                walks.members[walks.used[MEMBERS]] = group
                walks.used[MEMBERS] += 1
                if len(known) and lexers.again[walks.groups[group, STATE]]:
                    further = walks.nodes[walks.groups[group, HIGH] : walks.groups[group, EXITS]]
                    roots = np.concatenate((roots, further[~known[further]]))
    walks.rows[walk, 1] = walks.used[MEMBERS]
    walks.used[ROWS] += 1
    return walk


@register_jitable
def from_root(walks: Walks, lexers: Lexers, trie: Trie, lexer: int) -> int:
    """The walk of whole tokens from a state; FULL if there is no room. Inside a lexeme it is one run."""
    if walks.root[lexer] < 0:
        walk = _make(walks, lexers, trie, lexer, np.zeros(1, np.int32))
        if walk == FULL:
            return FULL
        walks.root[lexer] = walk
    return walks.root[lexer]


@register_jitable
def child(groups: I32, children: I32, lexer: int, group: int) -> int:
    """The walk that was made of a state where the lexeme of a group has ended, or NONE."""
    place = groups[group, CHILD]
    while place >= 0 and children[place, LEXER] != lexer:
        place = children[place, SIBLING]
    return children[place, WALK] if place >= 0 else NONE


@register_jitable
def from_group(walks: Walks, lexers: Lexers, trie: Trie, lexer: int, group: int) -> int:
    """Make the walk of a state before a lexeme where the one of a group has ended; FULL if there is no room."""
    if walks.used[CHILDREN] == len(walks.children):
        return FULL
    walk = _make(walks, lexers, trie, lexer, walks.nodes[walks.groups[group, HIGH] : walks.groups[group, EXITS]])
    if walk == FULL:
        return FULL
    place = walks.used[CHILDREN]
    row = walks.children[place]
    row[LEXER], row[WALK], row[SIBLING] = lexer, walk, walks.groups[group, CHILD]
    walks.groups[group, CHILD] = place
    walks.used[CHILDREN] += 1
    return walk
