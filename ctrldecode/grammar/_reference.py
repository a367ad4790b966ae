"""lark itself as a parser of texts, opened when it is first asked: most grammars are compiled and never parse anything.

It gets the tables that are at hand, and looks at a parser state or builds a lexer only where a text leads there. It does not
know the grammar's own text.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from lark import Lark
from lark.lexer import ContextualLexer
from lark.parsers.lalr_analysis import IntParseTable, Reduce, Shift
from lark.parsers.lalr_parser import LALR_Parser
from lark.parsers.lalr_parser import _Parser as Parser  # pyright: ignore[reportPrivateUsage]  # the loop that runs on a table

from ctrldecode.errors import GrammarError
from ctrldecode.grammar._parse_table import ParseTable, bits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Reference", "plugins"]


class Reference:
    """A parser of lark."""

    def __init__(self, grammar: Any, **options: Any) -> None:
        """Keep what `Lark` will be called with."""
        self._grammar, self._options = grammar, options
        self._lark: Lark | None = None

    def parse(self, text: str) -> object:
        """The tree of a text; lark's errors about the text pass.

        Raises:
            GrammarError: lark's parser cannot be opened: it reads regular expressions by the package regex where that is installed,
                and rules by recursion.
        """
        if self._lark is None:
            try:
                self._lark = Lark(self._grammar, **self._options)
            except Exception as error:
                raise GrammarError(
                    f"lark's own parser of this grammar cannot be opened, so it cannot judge a text: {error}"
                ) from error
        return self._lark.parse(text)


def plugins(table: ParseTable, start: str, terminals: Sequence[str], rules: Sequence[Any]) -> dict[str, Any]:
    """What makes lark use a table, by lark's names of terminals and its own rules."""
    rows = _Rows(lambda state: _row(table, state, [*terminals, "$END"], rules))

    def parser(conf: Any, **_: Any) -> LALR_Parser:
        return _Driver(conf, rows, {start: 0}, {start: table.end_state})

    def lexer(conf: Any, _states: Any, **_: Any) -> ContextualLexer:
        return _Lexers(conf, rows)

    return {"LALR_Parser": parser, "ContextualLexer": lexer}


class _Rows(dict[int, Any]):
    """A dict that is filled when it is asked."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, state: int) -> Any:
        self[state] = self._make(state)
        return self[state]


def _row(table: ParseTable, state: int, terminals: Sequence[str], rules: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    shifts = {terminals[t]: (Shift, to) for t, to in table.shifts[state].items()}
    gotos = {name: (Shift, to) for name, to in table.gotos[state].items()}
    return {
        **shifts,
        **gotos,
        **{terminals[t]: (Reduce, rules[rule]) for ahead, rule in table.reduces[state] for t in bits(ahead)},
    }


class _Driver(LALR_Parser):
    """lark's parser on a table that it need not compute."""

    def __init__(self, conf: Any, rows: _Rows, starts: dict[str, int], ends: dict[str, int]) -> None:
        self._parse_table = IntParseTable(rows, starts, ends)
        self.parser_conf = conf
        self.parser = Parser(self._parse_table, conf.callbacks)


class _Lexers(ContextualLexer):
    """lark's contextual lexer, without its checks of all terminals in all states; those that matter were made before."""

    def __init__(self, conf: Any, rows: _Rows) -> None:
        self._conf = copy(conf)
        self._conf.skip_validation = True
        self._made: dict[frozenset[str], Any] = {}
        self.lexers = _Rows(lambda state: self._lexer(frozenset(rows[state]) | set(conf.ignore)))
        self.root_lexer = self.BasicLexer(self._conf)

    def _lexer(self, accepted: frozenset[str]) -> Any:
        conf = copy(self._conf)
        conf.terminals = [t for t in conf.terminals if t.name in accepted]
        return self._made.setdefault(accepted, self.BasicLexer(conf))
