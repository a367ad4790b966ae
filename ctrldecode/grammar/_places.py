"""Places in a grammar's text: where a name is defined or used, and how a message shows a place."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from lark.load_grammar import TERMINALS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["at", "definition", "definitions", "literals", "use", "uses"]

# Strings, regular expressions and comments are stepped over as lark reads them, so that no name is found inside.
_WORD = re.compile(
    rf"(?P<literal>{TERMINALS['STRING']}|{TERMINALS['REGEXP']})|{TERMINALS['COMMENT']}|(?P<name>{TERMINALS['RULE']}|{TERMINALS['TERMINAL']})"
)
_DEFINES = re.compile(r"[ \t]*(\{[^}]*\})?[ \t]*(\.[ \t]*[+-]?\d+)?[ \t]*:")
# Characters of a long line that are shown on either side of the place.
_MARGIN = 60


def at(text: str, offset: int) -> str:
    r"""A place in a grammar: line and column, the line, and a caret below the character.

    Example:
        >>> print(at("start: a\na: b", 12))
        line 2, column 4 of the grammar:
          a: b
             ^
    """
    offset = min(offset, len(text))
    begin = text.rfind("\n", 0, offset) + 1
    line = text[begin:].split("\n", 1)[0].rstrip("\r")
    column = min(offset - begin, len(line))
    cut = max(0, column - _MARGIN)
    before = ("..." if cut else "") + _visible(line[cut:column])
    after = _visible(line[column : column + _MARGIN]) + ("..." if len(line) > column + _MARGIN else "")
    number = text.count("\n", 0, offset) + 1
    return f"line {number}, column {offset - begin + 1} of the grammar:\n  {before}{after}\n  {' ' * _cells(before)}^"


def definitions(text: str) -> Iterator[tuple[str, int]]:
    """Every name with the offset where the text defines it."""
    for match in _WORD.finditer(text):
        if match["name"] and _DEFINES.match(text, match.end()):
            yield match["name"], match.start()


def definition(text: str, name: str, which: int = 0) -> int | None:
    """The offset where a name is defined; `which` counts from 0, −1 is the last one; None if the text does not define it."""
    found = [offset for defined, offset in definitions(text) if defined == name]
    return found[which] if found else None


def uses(text: str) -> Iterator[tuple[str, str, int]]:
    """Every use of a name: the name being defined there, "" in a %statement, the name used, and the offset."""
    inside = ""
    for match in _WORD.finditer(text):
        if not match["name"]:
            continue
        if text[match.start() - 1 : match.start()] == "%":
            inside = ""
        elif _DEFINES.match(text, match.end()):
            inside = match["name"]
        else:
            yield inside, match["name"], match.start()


def use(text: str, name: str, inside: str | None = None) -> int | None:
    """The offset of the first use of a name, inside the definition of another if one is given."""
    found = (offset for where, used, offset in uses(text) if used == name and inside in (None, where))
    return next(found, None)


def literals(text: str) -> Iterator[tuple[str, int]]:
    """Every string and regular expression as it stands there, with its offset."""
    return ((match["literal"], match.start()) for match in _WORD.finditer(text) if match["literal"])


def _visible(line: str) -> str:
    """The line with a blank for each tab and a mark for each control character."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)


def _cells(text: str) -> int:
    """The width of a text in a terminal, where some letters take two cells and accents none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
