"""What lark knows of a grammar, as plain tables: terminals, contextual lexers, LALR actions and rules.

lark reads the grammar and says what its terminals and rules are; from there on the tables are our own, equal to lark's. It
does not know bytes, automata or tokens.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lark.common import LexerConf
from lark.lexer import BasicLexer, PatternStr
from lark.load_grammar import GrammarBuilder

from ctrldecode.grammar import _bad_input, _conflicts, _sizes
from ctrldecode.grammar._derivations import unending
from ctrldecode.grammar._parse_table import ParseTable, PlainRules, bits, build
from ctrldecode.grammar._reference import Reference, plugins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NOTHING", "Rules", "Tables", "Terminal", "load", "load_rules"]

NOTHING = -1  # the number that stands for the end of the text where a terminal is expected

# common.ESCAPED_STRING and its like with other quotes, as regular expressions in the making of a regular expression.
_ESCAPED = re.compile(r"""(["'`])\.\*\?\(\?<!\\\\\)\(\\\\\\\\\)\*\?\1""")


@dataclass(frozen=True)
class Terminal:
    """A terminal: its number, name, pattern for `re`, and how an error message should show it."""

    number: int
    name: str
    pattern: str
    shown: str


@dataclass(frozen=True)
class Tables:
    """A grammar as tables.

    Attributes:
        terminals: by number.
        ignored: numbers of the terminals that `%ignore` names.
        unless: for a terminal, the keyword terminals that replace a match of equal text, in order of preference.
        shifts: for each parser state, terminal → next state.
        reduces: for each parser state, terminal (`NOTHING` at the end of the text) → (symbols popped, nonterminal).
        gotos: for each parser state, nonterminal → next state.
        kernels: for each parser state, its items that have read something: (rule, symbols read). The rule after the last
            one of `rules` stands for the whole text; it reads `start`.
        lexers: for each parser state, the terminals of its lexer in order of preference.
        keywords: for each parser state, the keywords among its terminals.
        rules: (nonterminal, symbols); a symbol is ("t", number) or ("n", name).
        start_state: where parsing begins.
        end_state: the state in which the parser stands when the text is complete.
        start: the start rule's name.
        conflicts: one line for each rule that could end where the parser, as lark's does, reads on.
        faithful: whether each stack can be completed: no conflict was resolved, and all rules derive finite texts.
        unused: rules and terminals that the grammar's own text defines and no text needs.
    """

    terminals: tuple[Terminal, ...]
    ignored: frozenset[int]
    unless: Mapping[int, tuple[int, ...]]
    shifts: tuple[Mapping[int, int], ...]
    reduces: tuple[Mapping[int, tuple[int, str]], ...]
    gotos: tuple[Mapping[str, int], ...]
    kernels: tuple[Sequence[tuple[int, int]], ...]
    lexers: tuple[tuple[int, ...], ...]
    keywords: tuple[tuple[int, ...], ...]
    rules: PlainRules
    start_state: int
    end_state: int
    start: str
    conflicts: tuple[str, ...]
    faithful: bool
    unused: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """A grammar as its rules, for a general parser.

    Attributes:
        terminals: by number.
        ignored: numbers of the terminals that `%ignore` names.
        rules: (nonterminal, symbols); a symbol is ("t", number) or ("n", name).
        start: the start rule's name.
        unused: rules and terminals that the grammar's own text defines and no text needs.
    """

    terminals: tuple[Terminal, ...]
    ignored: frozenset[int]
    rules: PlainRules
    start: str
    unused: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """A grammar as lark has read it: its own object, and what can be reached from the start, terminals in lexer order."""

    grammar: Any
    terminals: list[Any]
    rules: list[Any]
    ignored: frozenset[int]
    plain: tuple[Terminal, ...]
    plain_rules: PlainRules
    unused: tuple[str, ...]


def load(text: str, start: str, source: str | None = None) -> tuple[Reference, Tables]:
    """Read a grammar for lark's LALR parser and contextual lexer.

    Args:
        text: the grammar in lark's notation.
        start: the start rule.
        source: the file it came from, against which relative imports are resolved.

    Returns:
        lark's own parser, and the tables.

    Raises:
        GrammarError: the grammar is refused; the message shows the place in its text where there is one.
        ConflictError: two rules could end at the same place, and one symbol of lookahead does not tell them apart.
    """
    read = _read(text, start, source, joined=True)
    priorities = [rule.options.priority or 0 for rule in read.rules]
    table = build(read.plain_rules, priorities, start, len(read.plain))
    shown = [*(terminal.shown for terminal in read.plain), "the end of the text"]
    if table.undecided:
        raise _conflicts.undecided(text, table.undecided, read.plain_rules, shown)
    conflicts = _conflicts.reading_on(table.reading_on, read.plain_rules, shown)
    names = [terminal.name for terminal in read.plain]
    reference = Reference(read.grammar, parser="lalr", start=start, _plugins=plugins(table, start, names, read.rules))
    return reference, _tables(read, table, start, conflicts)


def load_rules(text: str, start: str, source: str | None = None) -> tuple[Reference, Rules]:
    """The same for lark's Earley parser and its complete dynamic lexer; see `load`."""
    read = _read(text, start, source, joined=False)
    reference = Reference(read.grammar, parser="earley", lexer="dynamic_complete", start=start)
    return reference, Rules(read.plain, read.ignored, read.plain_rules, start, read.unused)


class _Definitions(dict[str, Any]):
    """lark's definitions. It first goes through them when all are there, and what is too large is to be refused before that."""

    checked = False

    def items(self) -> Any:
        if not self.checked:
            self.checked = True
            _sizes.check(self)
        return super().items()


class _Builder(GrammarBuilder):
    """lark's reader of grammars, which also notes what was imported."""

    def __init__(self) -> None:
        super().__init__()
        self._definitions = _Definitions()
        self.imported: set[str] = set()

    def do_import(self, *args: Any, **kwargs: Any) -> None:
        before = set(self._definitions)
        super().do_import(*args, **kwargs)
        self.imported |= set(self._definitions) - before


def _read(text: str, start: str, source: str | None, *, joined: bool) -> _Read:
    """The grammar; `joined` says whether lark will join its terminals in one regular expression."""
    with _bad_input.explained(text):
        builder = _Builder()
        builder.load_grammar(text, source or "<string>")
        grammar = builder.build()
        # All rules count as starts, since lark takes out unused ones in as many rounds as they are deep.
        everything = [start, *(name for name, parameters, _, _ in grammar.rule_defs if not parameters)]
        terminals, rules, ignored = grammar.compile(everything, "*")
    definitions: Mapping[str, Any] = builder._definitions  # noqa: SLF001  lark has no public name for them
    rules = _reachable(rules, start)
    if not rules:
        raise _bad_input.no_start(start, [str(n) for n, d in definitions.items() if not d.is_term and not d.params])
    _bad_input.check_rules(
        text, {s.name for rule in rules for s in rule.expansion if not s.is_term}, {rule.origin.name for rule in rules}
    )
    used = {s.name for rule in rules for s in rule.expansion if s.is_term} | set(ignored)
    conf = LexerConf([t for t in terminals if t.name in used], re, ignored)
    conf.skip_validation = True
    patterns = {t.name: _followable(t.pattern.to_regexp()) for t in conf.terminals}
    _bad_input.check_terminals(text, conf.terminals, patterns, used, joined=joined)
    ordered = BasicLexer(conf).terminals
    plain = tuple(Terminal(i, t.name, patterns[t.name], _shown(t)) for i, t in enumerate(ordered))
    number = {t.name: t.number for t in plain}
    return _Read(
        grammar,
        list(ordered),
        rules,
        frozenset(number[name] for name in ignored),
        plain,
        tuple((str(r.origin.name), tuple(_symbol(s, number) for s in r.expansion)) for r in rules),
        _unused(definitions, builder.imported, {rule.origin.name.split("{")[0] for rule in rules} | used),
    )


def _reachable(rules: list[Any], start: str) -> list[Any]:
    own: dict[str, list[Any]] = {}
    for rule in rules:
        own.setdefault(rule.origin.name, []).append(rule)
    reached, waiting = {start}, [start]
    while waiting:
        for rule in own.get(waiting.pop(), ()):
            new = {s.name for s in rule.expansion if not s.is_term} - reached
            reached |= new
            waiting.extend(new)
    return [rule for rule in rules if rule.origin.name in reached]


def _unused(definitions: Mapping[str, Any], imported: set[str], used: set[str]) -> tuple[str, ...]:
    """Names that are not used; a terminal inside another one has become a part of its tree."""
    name_of = {id(d.tree): name for name, d in definitions.items() if d.is_term and d.tree is not None}
    used = set(used)
    trees = [definitions[name].tree for name in used if name in definitions and definitions[name].is_term]
    while trees:
        for child in getattr(trees.pop(), "children", ()):
            name = name_of.get(id(child))
            if name not in used:
                trees.append(child)
                used.update([name] if name is not None else [])
    return tuple(str(n) for n in definitions if n not in used and n not in imported and not n.startswith("__"))


def _tables(read: _Read, table: ParseTable, start: str, conflicts: tuple[str, ...]) -> Tables:
    keywords, embedded = _keywords(read)
    heard = _heard_although_ignored(len(read.plain), keywords, read.ignored)
    ahead_of = [sum(1 << t for t in row) for row in table.shifts]
    ahead_of = [
        shifted | sum(ahead for ahead, _ in reduces) for shifted, reduces in zip(ahead_of, table.reduces, strict=True)
    ]
    always = sum(1 << t for t in read.ignored)
    end = 1 << len(read.plain)
    made: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for ahead in ahead_of:
        if ahead not in made:
            made[ahead] = _lexer((ahead & ~end) | always, keywords, embedded, heard)
    return Tables(
        terminals=(*read.plain, *(replace(read.plain[n], number=alias) for n, alias in heard.items())),
        ignored=read.ignored,
        unless={label: tuple(heard.get(k, k) for k in bits(found)) for label, found in keywords.items()},
        shifts=tuple({n: to for t, to in row.items() for n in ((t, heard[t]) if t in heard else (t,))} for row in table.shifts)
        if heard
        else tuple(table.shifts),
        reduces=_reduces(read, table, heard),
        gotos=tuple(table.gotos),
        kernels=tuple(table.kernels),
        lexers=tuple(made[ahead][0] for ahead in ahead_of),
        keywords=tuple(made[ahead][1] for ahead in ahead_of),
        rules=read.plain_rules,
        start_state=0,
        end_state=table.end_state,
        start=start,
        conflicts=conflicts,
        faithful=not (table.reading_on or table.outranked or unending(read.plain_rules)),
        unused=read.unused,
    )  # fmt: skip


def _reduces(read: _Read, table: ParseTable, heard: Mapping[int, int]) -> tuple[Mapping[int, tuple[int, str]], ...]:
    """Reductions by terminal; states that do the same share them, since a list of n keywords has n of n entries each."""
    made: dict[tuple[tuple[int, int, str], ...], dict[int, tuple[int, str]]] = {}
    rows: list[dict[int, tuple[int, str]]] = []
    for reduces in table.reduces:
        key = tuple((ahead, len(read.plain_rules[rule][1]), read.plain_rules[rule][0]) for ahead, rule in reduces)
        if key not in made:
            row = made[key] = {t: (count, name) for ahead, count, name in key for t in bits(ahead)}
            if len(read.plain) in row:  # first, since aliases are numbered from there on
                row[NOTHING] = row.pop(len(read.plain))
            row.update({alias: row[n] for n, alias in heard.items() if n in row})
        rows.append(made[key])
    return tuple(rows)


def _followable(pattern: str) -> str:
    """The pattern, with the string idiom of lark's own library written without its lookbehind.

    The idiom ends at the first quote that stands behind an even number of backslashes; so does the replacement.
    """
    return _ESCAPED.sub(lambda m: rf"{m[1]}(?:[^{m[1]}\\\n]|\\.)*{m[1]}", pattern)


def _symbol(symbol: Any, number: Mapping[str, int]) -> tuple[str, Any]:
    return ("t", number[symbol.name]) if symbol.is_term else ("n", str(symbol.name))


def _shown(terminal: Any) -> str:
    pattern = terminal.pattern
    if isinstance(pattern, PatternStr):
        return json.dumps(pattern.value, ensure_ascii=False)
    return f"/{pattern.value}/" if terminal.name.startswith("__") else terminal.name


def _keywords(read: _Read) -> tuple[dict[int, int], dict[int, int]]:
    """lark's rule for keywords: a string that a regular expression of its priority matches takes that match over.

    Returns:
        For each terminal, the set of keywords, and that of strings which its lexers then need not look for. lark ignores by
        the type before a keyword replaces it, so the keywords of an ignored terminal do nothing.
    """
    keywords: dict[int, int] = {}
    embedded: dict[int, int] = {}
    strings = [(i, t) for i, t in enumerate(read.terminals) if isinstance(t.pattern, PatternStr)]
    for number, terminal in enumerate(read.terminals):
        if strings and not isinstance(terminal.pattern, PatternStr):
            match = re.compile(terminal.pattern.to_regexp()).match
            for i, string in strings:
                text = string.pattern.value
                found = match(text) if string.priority == terminal.priority else None
                if found and found.end() == len(text):
                    keywords[number] = keywords.get(number, 0) | 1 << i
                    if string.pattern.flags <= terminal.pattern.flags:
                        embedded[number] = embedded.get(number, 0) | 1 << i
    return {label: found for label, found in keywords.items() if label not in read.ignored}, embedded


def _heard_although_ignored(count: int, keywords: Mapping[int, int], ignored: frozenset[int]) -> dict[int, int]:
    """For the same reason an ignored keyword that replaces another terminal reaches the parser: it gets a second number."""
    found = sorted({k for own in keywords.values() for k in bits(own)} & ignored)
    return {keyword: count + i for i, keyword in enumerate(found)}


def _lexer(
    present: int, keywords: Mapping[int, int], embedded: Mapping[int, int], heard: Mapping[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The terminals of a lexer in order of preference, and its keywords."""
    remaining, replaced = present, 0
    for label, strings in embedded.items():
        if present >> label & 1:
            remaining &= ~strings
    for label, strings in keywords.items():
        if present >> label & 1:
            replaced |= strings
    return tuple(bits(remaining)), tuple(heard.get(t, t) for t in bits(present & replaced))
