"""Errors in a grammar's text, in plain words and with the place; lark's own errors among them.

Only error paths come here, so that all of it may look through the whole text again.
"""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from lark.exceptions import LarkError, UnexpectedCharacters, UnexpectedToken, VisitError
from lark.load_grammar import _get_parser  # pyright: ignore[reportPrivateUsage]  # lark's grammar of grammars

from ctrldecode.automata._nfa import refusal
from ctrldecode.errors import GrammarError, GrammarLimitError
from ctrldecode.grammar._followable import why_not
from ctrldecode.grammar._places import at, definition, definitions, literals, use, uses

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

__all__ = ["check_rules", "check_terminals", "explained", "no_start"]

# lark's terminals of grammars, in plain words; those of one line are told as one.
_VALUES = {"RULE", "TERMINAL", "STRING", "REGEXP", "_LPAR", "_LBRA"}
_WORDS = {
    "RULE": "a rule's name, in lower case",
    "TERMINAL": "a terminal's name, in upper case",
    "STRING": 'a "string"',
    "REGEXP": "a /regular expression/",
    "RULE_MODIFIERS": "",  # a rule may begin with them; the rule itself is named
    "OP": "",  # what may be repeated needs no mention of all the ways to repeat it
    "TILDE": "",
    "_TO": "",
    "_DOT": "",
    "_LBRACE": "",
    "_NL_OR": "",  # as _OR
    "_OR": '"|"',
    "_LPAR": '"("',
    "_LBRA": '"["',
    "_RPAR": '")"',
    "_RBRA": '"]"',
    "_RBRACE": '"}"',
    "_COLON": '":"',
    "_COMMA": '","',
    "NUMBER": "a number",
    "_NL": "the end of the line",
    "_IMPORT": "a % statement",
    "$END": "the end of the grammar",
}
# What a character that lark cannot read is most often meant to be.
_MEANT = {
    '"': "a string that begins here does not end on its line",
    "/": "a regular expression that begins here does not end",
    "'": 'strings stand in double quotes, as in "a"',
    "=": "a definition is written with a colon, as in name: ...",
    ";": "a definition ends with its line, without a sign",
    "<": "names stand without angle brackets",
    "%": "the statements are %import, %ignore, %declare, %override and %extend",
}
_LIBRARY = "imports are looked up beside the grammar's file and in lark's own library, for instance common"


@contextmanager
def explained(text: str) -> Generator[None]:
    """Turn what lark raises while it reads a grammar into a `GrammarError`."""
    try:
        yield
    except RecursionError:
        raise _nested(text) from None
    except GrammarLimitError:
        raise
    except OSError as error:
        raise _not_there(text, str(error.filename)) from None
    except Exception as error:
        cause = error.orig_exc if isinstance(error, VisitError) else error
        told = _nested(text) if isinstance(cause, RecursionError) else _syntax(text) or _pattern(text)
        # Under a VisitError stands what lark met while it changed a tree: errors of re, or of the package regex if that is there.
        known = isinstance(cause, LarkError | AssertionError | re.error) or cause is not error
        if told is None and not known:
            raise
        raise told or _told(text, str(cause)) from None


def no_start(start: str, rules: Sequence[str]) -> GrammarError:
    """The start rule is not there."""
    some = ", ".join(rules[:5]) + (", ..." if len(rules) > 5 else "")
    there = (
        f"the grammar has the rules {some}: pass one as start"
        if rules
        else "the grammar has no rules: write start: ..."
    )
    return GrammarError(f"the start rule {start} is not defined; {there}{_close(start, rules)}")


def check_rules(text: str, used: set[str], rules: set[str]) -> None:
    """Refuse names that have no rule although they are defined: templates without their arguments."""
    for name in sorted(used - rules):
        raise _error(f"template {name} is used without its arguments; write {name}{{...}}", text, use(text, name))


def check_terminals(
    text: str, terminals: Iterable[Any], patterns: Mapping[str, str], used: set[str], *, joined: bool
) -> None:
    """Refuse terminals without a pattern, those that match the empty text, and those that cannot be followed.

    Args:
        text: the grammar.
        terminals: lark's, those that are used.
        patterns: the pattern of each, by name.
        used: their names, with those that lark has no pattern for.
        joined: whether lark will join them in one regular expression.
    """
    for name in sorted(used - set(patterns)):
        raise _error(
            f"terminal {name} is declared but has no pattern, so no text can spell it; define it, since lexers of one's own (%declare, "
            "postlex) cannot be followed while text is generated",
            text,
            use(text, name),
        )
    for terminal in terminals:
        if terminal.pattern.type == "re":
            why = why_not(patterns[terminal.name], joined=joined)
            if why:
                place, called = _terminal(text, terminal)
                raise _error(f"{called}: /{_short(patterns[terminal.name])}/ {why}", text, place)


def _terminal(text: str, terminal: Any) -> tuple[int | None, str]:
    """Where a terminal is defined, and what to call it: those that lark names itself stand inside a rule."""
    if not terminal.name.startswith("__"):
        return definition(text, terminal.name), f"terminal {terminal.name}"
    places = [offset for literal, offset in literals(text) if literal == terminal.pattern.raw]
    return (places[0] if places else None), "a terminal without a name"


def _error(told: str, text: str, offset: int | None) -> GrammarError:
    return GrammarError(told if offset is None else f"{told}\n{at(text, offset)}")


def _close(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, sorted(set(names) - {name}), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _short(pattern: str) -> str:
    return pattern if len(pattern) <= 200 else f"{pattern[:200]}..."


def _syntax(text: str) -> GrammarError | None:
    """The syntax error of a grammar, if it has one."""
    try:
        _get_parser().parse(text + "\n", "start")  # pyright: ignore[reportUnknownMemberType]
    except UnexpectedCharacters as error:
        offset: int = error.pos_in_stream
        told = _MEANT.get(text[offset], f"{text[offset]!r} means nothing here")
    except UnexpectedToken as error:
        offset = len(text) if error.token.type == "$END" else error.token.start_pos or 0
        told = f"{_found(str(error.token))}; expected {_expected(error.accepts)}"
    else:
        return None
    return GrammarError(f"syntax error: {told}\n{at(text, offset)}")


def _found(token: str) -> str:
    return f"{token.strip()} cannot stand here" if token.strip() else "the line ends too early"


def _expected(names: Iterable[str]) -> str:
    rest = set(names)
    values = rest >= _VALUES
    words = ["a rule, terminal, string, regular expression or group"] if values else []
    words += [w for name, w in _WORDS.items() if w and name in rest and not (values and name in _VALUES)]
    *first, last = words or ["nothing more"]
    return f"{', '.join(first)} or {last}" if first else last


def _pattern(text: str) -> GrammarError | None:
    """The first regular expression of the text that `re` cannot read."""
    for literal, offset in literals(text):
        body, slash, flags = literal.rpartition("/")
        if slash and literal.startswith("/"):
            try:
                refusal(f"(?{flags}:{body[1:]})" if flags else body[1:])
            except re.error as error:
                place = min((error.pos or 0) - (len(flags) + 3 if flags else 0), len(body) - 1)
                told = f"/{_short(body[1:])}/ is no regular expression: {error.msg}"
                return _error(told, text, offset + 1 + max(place, 0))
            except RecursionError:
                told = f"/{_short(body[1:])}/ is nested too deeply for Python to read; write parts of it as terminals of their own"
                return _error(told, text, offset)
    return None


def _nested(text: str) -> GrammarError:
    """The deepest place of a text that is nested too deeply for lark, which reads a rule by recursion."""
    found = _pattern(text)
    if found:
        return found
    depth = deepest = place = 0
    covered = {i for literal, offset in literals(text) for i in range(offset, offset + len(literal))}
    for offset, character in enumerate(text):
        if offset not in covered and character in "()[]":
            depth += 1 if character in "([" else -1
            if depth > deepest:
                deepest, place = depth, offset
    told = f"groups are nested {deepest} deep, which is more than Python's recursion limit lets lark read"
    return _error(f"{told}; give inner groups names, as rules of their own", text, place)


def _not_there(text: str, path: str) -> GrammarError:
    """The grammar that an import names is not there."""
    dotted = path.removesuffix(".lark").replace("\\", "/").replace("/", ".")
    found = re.search(rf"%import\s+(\.?{re.escape(dotted)})\b", text)
    told = f"the grammar {dotted}, from which this one imports, is not there; {_LIBRARY}"
    return _error(told, text, found.start(1) if found else None)


def _undefined(text: str, name: str) -> tuple[str, int | None]:
    """A name that is used and not defined, or imported from a grammar that has no such name."""
    imported = re.search(rf"^[ \t]*%import\b.*\b({re.escape(name)})\b", text, re.MULTILINE)
    if imported:
        return (
            f"{name} is imported, but the grammar it comes from does not define it; see to its spelling",
            imported.start(1),
        )
    known = {defined for defined, _ in definitions(text)} | {used for where, used, _ in uses(text) if not where}
    kind = "rule" if name.islower() else "terminal"
    return f"{kind} {name} is used but not defined{_close(name, known) or '; define it, or import it'}", use(text, name)


def _after(text: str, pattern: str) -> int | None:
    found = re.search(pattern, text)
    return found.start() if found else None


def _unread(text: str) -> int | None:
    """The first literal that Python would not read between its own quotes."""
    for literal, offset in literals(text):
        body = literal[1 : literal.rindex(literal[0])]
        try:
            ast.literal_eval(f'"""{body}"""' if literal[0] == '"' else repr(body))
        except (SyntaxError, ValueError):
            return offset
    return None


def _bad_range(text: str) -> int | None:
    ranges = re.finditer(r"~\s*(\d+)\s*\.\.\s*(\d+)", text)
    return next((found.start() for found in ranges if int(found[1]) > int(found[2])), None)


def _optional(text: str, told: re.Match[str]) -> tuple[str, int | None]:
    parts = told[2].split()
    shown = " ".join(parts)
    return (
        f"rule {told[1]} has the alternative {shown} twice, once ? and [] are written out; keep it once",
        definition(text, told[1]),
    )


# What lark says, and for each: what is wrong and what to do, and where in the text.
_TOLD: list[tuple[str, Callable[[str, re.Match[str]], tuple[str, int | None]]]] = [
    (r"(?:Rule|Terminal) '(\w+)' used but not defined", lambda t, m: _undefined(t, m[1])),
    (r"Template '(\w+)' used but not defined", lambda t, m: _undefined(t, m[1])),
    (r"Terminal used but not defined: (\w+)", lambda t, m: _undefined(t, m[1])),
    (
        r"Rules aren't allowed inside terminals \(NonTerminal\('(\w+)'\) in (\w+)\)",
        lambda t, m: (
            (f"%ignore names the rule {m[1]}, but takes only terminals", _after(t, rf"(?m)%ignore.*?\b(?={m[1]}\b)"))
            if m[2].startswith("__IGNORE")
            else (
                f"terminal {m[2]} uses the rule {m[1]}, which a terminal cannot; make it a rule by a name in lower case",
                use(t, m[1], m[2]),
            )
        ),
    ),
    (
        r"Literal ended unexpectedly|SyntaxError|null bytes",
        lambda t, _: (
            "a string or regular expression has an escape (\\) or a character that Python does not read",
            _unread(t),
        ),
    ),
    (
        r"(Rule|Terminal) '(\w+)' defined more than once",
        lambda t, m: (
            f"{m[1].lower()} {m[2]} is defined twice; join the definitions by |, or give one another name",
            definition(t, m[2], -1),
        ),
    ),
    (
        r"Cannot override a nonexisting \w+ (\w+)",
        lambda t, m: (f"{m[1]} is overridden, but no import defines it; take %override away", definition(t, m[1])),
    ),
    (
        r"Can't extend \w+ (\w+) as",
        lambda t, m: (f"{m[1]} is extended, but not defined before; take %extend away", definition(t, m[1])),
    ),
    (
        r"reserved \(Error at (\w+)\)",
        lambda t, m: (f"the name {m[1]} begins with two underscores, which lark keeps to itself", definition(t, m[1])),
    ),
    (
        r"Recursion in terminal '(\w+)'",
        lambda t, m: (
            f"terminal {m[1]} uses itself, which only rules can; make it a rule by a name in lower case",
            definition(t, m[1]),
        ),
    ),
    (r"Terminals \{'(\w+)'.*were marked to ignore", lambda t, m: _undefined(t, m[1])),
    (
        r"Terminals cannot be empty \(__IGNORE",
        lambda t, _: ("%ignore names nothing; write %ignore and a terminal", _after(t, r"(?m)%ignore[ \t]*$")),
    ),
    (
        r"Terminals cannot be empty \((\w+)\)",
        lambda t, m: (f"terminal {m[1]} is empty; give it a pattern", definition(t, m[1])),
    ),
    (
        r"Empty terminals are not allowed",
        lambda t, _: (
            "a string or regular expression is empty; leave it away, or write [...] or ? for what may be missing",
            next((offset for literal, offset in literals(t) if literal.strip("ilmsux") in ('""', "//")), None),
        ),
    ),
    (
        r"Aliasing not allowed in terminals",
        lambda t, _: (
            "a terminal cannot have an alias; -> is for the alternatives of rules",
            _after(t, r"(?m)(?<=[A-Z0-9_:]).*->"),
        ),
    ),
    (
        r"Wrong number of template arguments used for (\w+) \(expected (\d+), got (\d+)\)",
        lambda t, m: (f"template {m[1]} takes {m[2]} arguments, but gets {m[3]}", use(t, m[1])),
    ),
    (
        r"Rule (\w+) is marked for expansion",
        lambda t, m: (
            f"rule {m[1]} begins with an underscore, so it leaves no tree, and cannot have an alias (->); take one of them away",
            definition(t, m[1]),
        ),
    ),
    (
        r"Inlined rules \(_rule\) cannot use the \?rule modifier",
        lambda t, _: (
            "a rule whose name begins with an underscore cannot begin with ?, too; take one of them away",
            _after(t, r"(?m)^[ \t]*!?\?!?_"),
        ),
    ),
    (
        r"Bad Range",
        lambda t, _: ("a range of repetitions goes down; write the lower bound first, as in ~ 2..5", _bad_range(t)),
    ),
    (r"Rules defined twice:\s+\* <(\w+) :(.*?)>", _optional),
    (
        r"Nothing was imported from grammar `(\w+)`",
        lambda t, m: (
            f"%import {m[1]} names no rule or terminal; write %import {m[1]}.NAME",
            _after(t, rf"(?<=%import ){m[1]}\b"),
        ),
    ),
    (
        r"Conflicting flags for the same terminal",
        lambda _t, _m: (
            "one string or regular expression stands in the grammar with different flags (as i); define it as a terminal",
            None,
        ),
    ),
]


def _told(text: str, told: str) -> GrammarError:
    """What lark says of the grammar's names, in our words where we have some."""
    for pattern, explain in _TOLD:
        match = re.search(pattern, told)
        if match:
            return _error(*_where(text, explain(text, match)))
    return GrammarError(f"lark cannot load the grammar: {told}")


def _where(text: str, explanation: tuple[str, int | None]) -> tuple[str, str, int | None]:
    return explanation[0], text, explanation[1]
