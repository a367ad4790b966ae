"""What lark knows of a grammar, as plain tables: terminals, contextual lexers, LALR actions and rules.

The only module that touches lark. It does not know bytes, automata or tokens.
"""

from __future__ import annotations

import json
import re
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lark import Lark
from lark.exceptions import LarkError, UnexpectedInput
from lark.lexer import ContextualLexer, PatternStr, _create_unless  # pyright: ignore[reportPrivateUsage]  # the lexer's own order is the point
from lark.parsers.lalr_analysis import Shift

from ctrldecode.errors import GrammarError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        lexers: for each parser state, the terminals of its lexer in order of preference.
        keywords: for each parser state, the keywords among its terminals.
        rules: (nonterminal, symbols); a symbol is ("t", number) or ("n", name).
        start_state: where parsing begins.
        end_state: the state in which the parser stands when the text is complete.
        start: the start rule's name.
    """

    terminals: tuple[Terminal, ...]
    ignored: frozenset[int]
    unless: Mapping[int, tuple[int, ...]]
    shifts: tuple[Mapping[int, int], ...]
    reduces: tuple[Mapping[int, tuple[int, str]], ...]
    gotos: tuple[Mapping[str, int], ...]
    lexers: tuple[tuple[int, ...], ...]
    keywords: tuple[tuple[int, ...], ...]
    rules: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]
    start_state: int
    end_state: int
    start: str


@dataclass(frozen=True)
class Rules:
    """A grammar as its rules, for a general parser.

    Attributes:
        terminals: by number.
        ignored: numbers of the terminals that `%ignore` names.
        rules: (nonterminal, symbols); a symbol is ("t", number) or ("n", name).
        start: the start rule's name.
    """

    terminals: tuple[Terminal, ...]
    ignored: frozenset[int]
    rules: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]
    start: str


def load_rules(text: str, start: str, source: str | None = None) -> tuple[Lark, Rules]:
    """The same with lark's Earley parser and its complete dynamic lexer; see `load`."""
    lark = _opened(text, parser="earley", lexer="dynamic_complete", start=start, source_path=source)
    lexer_conf, rules = lark.parser.lexer_conf, lark.parser.parser_conf.rules  # pyright: ignore[reportUnknownMemberType]
    _check_terminals(lexer_conf.terminals)
    terminals = tuple(
        Terminal(i, t.name, _followable(t.pattern.to_regexp()), _shown(t)) for i, t in enumerate(lexer_conf.terminals)
    )
    number = {t.name: t.number for t in terminals}
    _check_patterns(rules, number)
    return lark, Rules(
        terminals, frozenset(number[name] for name in lexer_conf.ignore), _plain_rules(rules, number), start
    )


def load(text: str, start: str, source: str | None = None) -> tuple[Lark, Tables]:
    """Read a grammar with lark's LALR parser and contextual lexer.

    Args:
        text: the grammar in lark's notation.
        start: the start rule.
        source: the file it came from, against which relative imports are resolved.

    Returns:
        lark's own parser, and the tables.

    Raises:
        GrammarError: lark refuses the grammar; the message shows the line and what lark says.
    """
    lark = _opened(
        text, parser="lalr", start=start, source_path=source, _plugins={"ContextualLexer": _unchecked_lexer}
    )
    return lark, _tables(lark, start)


def _opened(text: str, **options: Any) -> Lark:
    """lark's parser; whatever lark raises becomes a `GrammarError`."""
    try:
        return Lark(text, **options)
    except UnexpectedInput as error:
        context = error.get_context(text) if error.pos_in_stream is not None else ""
        raise GrammarError(
            f"syntax error in line {error.line}, column {error.column} of the grammar:\n{context}"
        ) from None
    except OSError as error:
        raise GrammarError(
            f"the grammar imports from {error.filename}, which is not there; imports are looked up beside the grammar's file and in "
            "lark's own library"
        ) from None
    except LarkError as error:
        told = re.sub(r"NonTerminal\('(\w+)'\)", r"'\1'", str(error))
        raise GrammarError(f"lark cannot load the grammar: {told}") from None
    except Exception as error:  # lark lets the error of whichever regular-expression module it uses pass
        if type(error).__name__ not in ("error", "PatternError"):
            raise
        pattern = getattr(error, "pattern", None)
        raise GrammarError(f"a terminal's pattern /{pattern}/ is no regular expression: {error}") from None


def _unchecked_lexer(conf: Any, states: Any, always_accept: Any = ()) -> ContextualLexer:
    """lark's lexer without its checks, which it makes once for every parser state; `_check_terminals` makes them once.

    With interegular installed lark also looks for terminals that collide, only to log them: most of the loading time.
    """
    conf = copy(conf)
    conf.skip_validation = True
    return ContextualLexer(conf, states, always_accept=always_accept)


def _check_terminals(terminals: Any) -> None:
    for terminal in terminals:
        pattern = terminal.pattern.to_regexp()
        if terminal.pattern.min_width == 0:
            raise GrammarError(
                f"terminal {terminal.name}: /{pattern}/ matches the empty text (it has zero width), which a lexer cannot take; make it "
                f"match at least one character, and write {terminal.name}? where it may be missing"
            )


def _tables(lark: Lark, start: str) -> Tables:
    frontend: Any = lark.parser
    table = frontend.parser._parse_table  # noqa: SLF001  lark has no public name for it
    lexer_of: Mapping[int, Any] = frontend.lexer.lexers
    _check_terminals(frontend.lexer_conf.terminals)
    patterns = {t.name: t for t in frontend.lexer_conf.terminals}
    plain = [
        Terminal(i, t.name, _followable(t.pattern.to_regexp()), _shown(t)) for i, t in enumerate(patterns.values())
    ]
    number = {t.name: t.number for t in plain}
    _check_patterns(frontend.parser_conf.rules, number)
    ignored = frozenset(number[name] for name in frontend.lexer_conf.ignore)
    unless = _unless(frontend.lexer.root_lexer.terminals, number, ignored)
    heard = _heard_although_ignored(plain, unless, ignored)
    unless = {label: tuple(heard.get(k, k) for k in keywords) for label, keywords in unless.items()}
    orders = {id(lexer): _lexer_order(lexer.terminals, number, unless, heard) for lexer in lexer_of.values()}
    numbers = {name: (n, heard[n]) if n in heard else (n,) for name, n in number.items()} | {"$END": (NOTHING,)}
    states = range(len(table.states))
    return Tables(
        terminals=(*plain, *(replace(plain[n], number=alias) for n, alias in heard.items())),
        ignored=ignored,
        unless=unless,
        shifts=tuple(_shifts(table.states[s], numbers) for s in states),
        reduces=tuple(_reduces(table.states[s], numbers) for s in states),
        gotos=tuple(_gotos(table.states[s], numbers) for s in states),
        lexers=tuple(orders[id(lexer_of[s])][0] for s in states),
        keywords=tuple(orders[id(lexer_of[s])][1] for s in states),
        rules=_plain_rules(frontend.parser_conf.rules, number),
        start_state=table.start_states[start],
        end_state=table.end_states[start],
        start=start,
    )


def _shifts(actions: Mapping[str, Any], numbers: Mapping[str, tuple[int, ...]]) -> dict[int, int]:
    return {n: to for name, (action, to) in actions.items() if action is Shift for n in numbers.get(name, ())}


def _reduces(actions: Mapping[str, Any], numbers: Mapping[str, tuple[int, ...]]) -> dict[int, tuple[int, str]]:
    rules = [(name, rule) for name, (action, rule) in actions.items() if action is not Shift]
    return {n: (len(rule.expansion), str(rule.origin.name)) for name, rule in rules for n in numbers[name]}


def _gotos(actions: Mapping[str, Any], numbers: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {str(name): to for name, (action, to) in actions.items() if action is Shift and name not in numbers}


def _check_patterns(rules: Any, number: Mapping[str, int]) -> None:
    for name in sorted({s.name for rule in rules for s in rule.expansion if s.is_term} - set(number)):
        raise GrammarError(
            f"terminal {name} is declared but has no pattern, so no text can spell it; define it, since lexers of one's own (%declare, "
            "postlex) cannot be followed while text is generated"
        )


def _followable(pattern: str) -> str:
    """The pattern, with the string idiom of lark's own library written without its lookbehind.

    The idiom ends at the first quote that stands behind an even number of backslashes; so does the replacement.
    """
    return _ESCAPED.sub(lambda m: rf"{m[1]}(?:[^{m[1]}\\\n]|\\.)*{m[1]}", pattern)


def _plain_rules(rules: Any, number: Mapping[str, int]) -> tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]:
    return tuple((str(r.origin.name), tuple(_symbol(s, number) for s in r.expansion)) for r in rules)


def _symbol(symbol: Any, number: Mapping[str, int]) -> tuple[str, Any]:
    return ("t", number[symbol.name]) if symbol.is_term else ("n", str(symbol.name))


def _shown(terminal: Any) -> str:
    pattern = terminal.pattern
    return json.dumps(pattern.value, ensure_ascii=False) if isinstance(pattern, PatternStr) else terminal.name


def _unless(terminals: Any, number: Mapping[str, int], ignored: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """lark's rule for keywords, evaluated over all terminals at once; it looks at pairs only, so lexers share it.

    lark ignores by the type before a keyword replaces it, so the keywords of an ignored terminal do nothing.
    """
    _, callbacks = _create_unless(terminals, 0, re, use_bytes=False)
    keywords = {
        number[name]: tuple(number[t.name] for t in callback.scanner.terminals) for name, callback in callbacks.items()
    }
    return {label: found for label, found in keywords.items() if label not in ignored}


def _heard_although_ignored(
    terminals: list[Terminal], unless: Mapping[int, tuple[int, ...]], ignored: frozenset[int]
) -> dict[int, int]:
    """For the same reason an ignored keyword that replaces another terminal reaches the parser: it gets a second number."""
    keywords = sorted({k for found in unless.values() for k in found} & ignored)
    return {keyword: len(terminals) + i for i, keyword in enumerate(keywords)}


def _lexer_order(
    terminals: Any, number: Mapping[str, int], unless: Mapping[int, tuple[int, ...]], heard: Mapping[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    remaining, _ = _create_unless(terminals, 0, re, use_bytes=False)
    present = [number[t.name] for t in terminals]
    replaced = {keyword for label in present for keyword in unless.get(label, ())}
    keywords = (heard.get(t, t) for t in present)
    return tuple(number[t.name] for t in remaining), tuple(t for t in keywords if t in replaced)
