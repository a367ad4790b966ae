"""Bad and extreme grammars: the words, the line and the caret of every error; many rules, deep texts."""

from __future__ import annotations

import copy
import math
import pickle
from typing import TYPE_CHECKING

import pytest
import torch

import ctrldecode
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import ConflictError, GrammarError, GrammarLimitError, InputError
from ctrldecode.grammar import _lark, _parse_table, explain
from ctrldecode.grammar._places import at, definition, use
from ctrldecode.grammar.grammar import Grammar

if TYPE_CHECKING:
    from pathlib import Path

    from ctrldecode.grammar._stack import Node

VALUES = "a rule, terminal, string, regular expression or group"
ZERO = (
    "matches the empty text (it has zero width), which a lexer cannot take; make it match at least one character, and write NAME? where "
    "the terminal may be missing"
)
FOLLOW = "which is not followed while text is being generated; rewrite the terminal without it, for instance /a[^b]/ for /a(?!b)./"
DEFINE = "define it, since lexers of one's own (%declare, postlex) cannot be followed while text is generated"
LIBRARY = "imports are looked up beside the grammar's file and in lark's own library, for instance common"

# A grammar; what is said of it; and the line and column, from 1, of the caret.
PLACED = [
    # syntax
    ("start: [", f'syntax error: the line ends too early; expected {VALUES}, "|" or "]"', 1, 9),
    ('start: "a"\na: (start\n', 'syntax error: the line ends too early; expected ")"', 2, 10),
    ("start: a)", "syntax error: ) cannot stand here; expected the end of the line", 1, 9),
    ('start "a"', 'syntax error: "a" cannot stand here; expected ":"', 1, 7),
    ('start: "a" -> B', "syntax error: B cannot stand here; expected a rule's name, in lower case", 1, 15),
    ('start: "a"~', "syntax error: the line ends too early; expected a number", 1, 12),
    ('start: "x"\n  | "abc', "syntax error: a string that begins here does not end on its line", 2, 5),
    ("start: /ab", "syntax error: a regular expression that begins here does not end", 1, 8),
    ("start: 'a'", 'syntax error: strings stand in double quotes, as in "a"', 1, 8),
    ('start = "a"', "syntax error: a definition is written with a colon, as in name: ...", 1, 7),
    ('start: "a";', "syntax error: a definition ends with its line, without a sign", 1, 11),
    (
        "%foo x",
        "syntax error: the statements are %import, %ignore, %declare, %override and %extend",
        1,
        1,
    ),
    # names
    ('start: item "(itme)" itme // itme\nitem: "x"', "rule itme is used but not defined; did you mean item?", 1, 22),
    ("start: B", "terminal B is used but not defined; define it, or import it", 1, 8),
    ('start: A\nA: "x" B', "terminal B is used but not defined; define it, or import it", 2, 8),
    ('start: sep{"a"}', "rule sep is used but not defined; define it, or import it", 1, 8),
    ('start: "x"\n%ignore WS', "terminal WS is used but not defined; define it, or import it", 2, 9),
    ("%import common.NUMBER\nstart: NUMBR", "terminal NUMBR is used but not defined; did you mean NUMBER?", 2, 8),
    (
        "%import common.NUMBR\nstart: NUMBR",
        "NUMBR is imported, but the grammar it comes from does not define it; see to its spelling",
        1,
        16,
    ),
    (
        "%import nope.X\nstart: X",
        f"the grammar nope, from which this one imports, is not there; {LIBRARY}",
        1,
        9,
    ),
    ("%import common\nstart: X", "%import common names no rule or terminal; write %import common.NAME", 1, 9),
    (
        'start: a\na: "x"\na: "y"',
        "rule a is defined twice; join the definitions by |, or give one another name",
        3,
        1,
    ),
    (
        'start: A\nA: "x"\nA.2: "y"',
        "terminal A is defined twice; join the definitions by |, or give one another name",
        3,
        1,
    ),
    ('%override a: "x"\nstart: a', "a is overridden, but no import defines it; take %override away", 1, 11),
    ('%extend a: "x"\nstart: a', "a is extended, but not defined before; take %extend away", 1, 9),
    ('a{x}: x\nstart: a{"b","c"}', "template a takes 1 arguments, but gets 2", 2, 8),
    ('a{x}: x "a"\nstart: a', "template a is used without its arguments; write a{...}", 2, 8),
    # rules and terminals
    (
        'start: A\nb: "x"\nA: b "y"',
        "terminal A uses the rule b, which a terminal cannot; make it a rule by a name in lower case",
        3,
        4,
    ),
    (
        'start: A\nA: "x" A',
        "terminal A uses itself, which only rules can; make it a rule by a name in lower case",
        2,
        1,
    ),
    ("start: A\nA:", "terminal A is empty; give it a pattern", 2, 1),
    ('start: "x"\n%ignore', "%ignore names nothing; write %ignore and a terminal", 2, 1),
    ('start: "a"~5..2', "a range of repetitions goes down; write the lower bound first, as in ~ 2..5", 1, 11),
    ("start: T\nT: /a(?=b)/", f"terminal T: /a(?=b)/ uses lookahead or lookbehind, {FOLLOW}", 2, 1),
    ("start: T\n\nT: /(a)\\1/", f"terminal T: /(a)\\1/ uses a back-reference, {FOLLOW}", 3, 1),
    ('start: "x" /a$/', f"a terminal without a name: /a$/ uses an anchor or word boundary, {FOLLOW}", 1, 12),
    ("start: T\nT: /a*/", f"terminal T: /a*/ {ZERO}", 2, 1),
    ('start: T\nT: "x"? "y"?', f"terminal T: /(?:x)?(?:y)?/ {ZERO}", 2, 1),
    (
        "start: T\nT: /a(/",
        "terminal T: /a(/ is no regular expression: missing ), unterminated subpattern at position 1",
        2,
        1,
    ),
    (
        'start: T | U\nT: /a/\nU: ("x" | /b[/)+',
        "/b[/ is no regular expression: unterminated character set",
        3,
        13,
    ),
    (
        "%declare X\nstart: X",
        f"terminal X is declared but has no pattern, so no text can spell it; {DEFINE}",
        1,
        10,
    ),
]


@pytest.mark.parametrize(("text", "told", "line", "column"), PLACED)
@pytest.mark.parametrize("parser", ["lalr", "earley"])
def test_errors_show_their_place(text: str, told: str, line: int, column: int, parser: str) -> None:
    with pytest.raises(GrammarError) as caught:
        Grammar(text, parser=parser)
    wanted = [told, f"line {line}, column {column} of the grammar:", f"  {text.splitlines()[line - 1]}"]
    assert str(caught.value).split("\n") == [*wanted, " " * (column + 1) + "^"]


def test_a_path_is_no_grammar() -> None:
    with pytest.raises(InputError, match=r"'grammars/json\.lark' is a path and no grammar; Grammar\.from_file\("):
        Grammar("grammars/json.lark")


def test_what_has_no_place() -> None:
    with pytest.raises(GrammarError) as caught:
        Grammar('satrt: a\na: "x"', parser="lalr")
    assert str(caught.value) == (
        "the start rule start is not defined; the grammar has the rules satrt, a: pass one as start; did you mean satrt?"
    )
    with pytest.raises(GrammarError, match=r"has no rules: write start: \.\.\."):
        Grammar("// nothing", parser="lalr")
    with pytest.raises(GrammarError, match="no text of the grammar"):
        Grammar('start: "a" start', parser="lalr").compile(Vocabulary([b"a", None], {1}))


def test_errors_of_an_imported_file(tmp_path: Path) -> None:
    (tmp_path / "part.lark").write_text("x: ")
    (tmp_path / "whole.lark").write_text("%import .part.y\nstart: y")
    with pytest.raises(
        GrammarError, match=r"^y is imported(.|\n)*line 1, column 15 of the grammar:\n  %import .part.y\n"
    ):
        Grammar.from_file(tmp_path / "whole.lark", parser="lalr")


def test_the_caret_is_below_the_place() -> None:
    assert at('start: "漢\u0301"\tb', 12).splitlines()[1:] == ['  start: "漢\u0301" b', "              ^"]
    long = f'start: "{"x" * 300}" b | "{"y" * 300}"'
    _, shown, caret = at(long, 310).splitlines()
    assert shown[len(caret) - 1] == "b"
    assert shown.startswith("  ...x")
    assert shown.endswith("y...")
    assert at("a", 5).splitlines()[-1] == "   ^"
    text = 'a: "b: x" b /c b/ // b\nb{x, y} .2 : b'
    assert (definition(text, "b"), use(text, "b"), use(text, "b", "b")) == (23, 10, 36)
    assert definition(text, "x") is None


def test_reduce_reduce_conflict() -> None:
    text = 'start: x "c" | y "c" | "d" y\nx: T\ny: T\nT: /a+/'
    with pytest.raises(ConflictError) as caught:
        Grammar(text, parser="lalr")
    assert isinstance(caught.value, ctrldecode.GrammarError)
    assert str(caught.value).split("\n") == [
        'Reduce/Reduce conflict, which one terminal of lookahead cannot decide: before "c" any of these rules could end:',
        "  x: T",
        "  y: T",
        'join the rules, give one a higher priority (as in name.2: ...), or pass parser="earley", which takes such grammars',
        "line 2, column 1 of the grammar:",
        "  x: T",
        "  ^",
    ]
    assert Grammar(text.replace("x:", "x.2:"), parser="lalr")._tables.conflicts == ()


def test_conflicts_of_repetitions_are_shown_as_written() -> None:
    with pytest.raises(ConflictError) as caught:
        Grammar('start: ("a" "b")* start "c" | "a"', parser="lalr")
    assert str(caught.value).split("\n")[1:5] == [
        '  start: ("a" "b")+ start "c"',
        '  start: start "c"',
        'before "a" this could end in several ways:',
        '  ("a" "b")+ in start',
    ]


def conflicts(text: str) -> tuple[str, ...]:
    return _lark.load(text, "start")[1].conflicts


def test_shift_reduce_conflicts() -> None:
    dangling = 'start: "if" start | "if" start "else" start | "x"'
    assert conflicts(dangling) == (
        'before "else" this rule could end or the text go on inside it, and lark goes on: start: "if" start',
    )
    assert conflicts('start: (e ",")*\ne: e OP e | "1"\nOP: "+" | "-"') == (
        "before OP this rule could end or the text go on inside it, and lark goes on: e: e OP e",
    )
    told = conflicts('start: x*\nx: "a" ("b" "c")* | "b" "d"')
    assert [line.split(" goes on: ")[1] for line in told] == ['x: "a" ("b" "c")+', 'x: "a"']
    assert conflicts('start: "(" start ")" | ("x" | "y")* "z"') == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('start: a\na: "x"\nb: "y"\nC: "z"', ("b", "C")),
        ('start: a\na: "x"\nb: c\nc: b', ("b", "c")),  # lark itself keeps those that use one another
        ('%import common.WS\n%import common.NUMBER\nstart: "x"', ()),
        ('start: A\nA: B "x"\nB: C\nC: "c"\n%ignore D\nD: E+\nE: "e"', ()),
        ('start: "if" NAME\nIF: "if"\nNAME: /[a-z]+/', ()),
        ('start: s{A, b}\ns{x, y}: x (y x)*\nu{x}: x\nA: "a"\nb: "b"', ("u",)),
        ('%import common.NUMBER\n%override NUMBER: "1"\nstart: "x"', ()),
        ('start: "x"\n%ignore /a/\n%declare Q', ("Q",)),
    ],
)
def test_unused_names(text: str, names: tuple[str, ...]) -> None:
    assert _lark.load(text, "start")[1].unused == _lark.load_rules(text, "start")[1].unused == names


@pytest.mark.parametrize(
    ("text", "told", "column"),
    [
        (f"start: {'(' * 10_000}A{')' * 10_000}\nA: /a/", "groups are nested 10000 deep", 10_007),
        (f"start: {'[' * 2000}A{']' * 2000}\nA: /a/", "groups are nested 2000 deep", 2007),
        (f"start: /{'(' * 1000}a{')' * 1000}/", "is nested too deeply for Python to read", 8),
        (f"start: A\nA: {'(' * 3000}/a/{')' * 3000}", "groups are nested 3000 deep", 3003),
    ],
)
def test_what_is_nested_too_deeply_for_lark(text: str, told: str, column: int) -> None:
    with pytest.raises(GrammarError, match=told) as caught:
        Grammar(text, parser="lalr")
    message = str(caught.value)
    assert f"column {column} of the grammar:" in message
    assert max(map(len, message.splitlines())) < 400


def test_limit_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parse_table, "_MAX_ENTRIES", 100)
    with pytest.raises(GrammarLimitError, match="more than 100 entries"):
        Grammar(many("levels", 20), parser="lalr")


def many(shape: str, n: int) -> str:
    """Grammars of n rules or alternatives; each has a text "x...z" or so."""
    every = range(n)
    rules = {
        "chain": "".join(f'r{i}: "x" r{i + 1} | "y"\n' for i in every) + f'r{n}: "z"\n',
        "flat": "r0: " + " | ".join(f"q{i}" for i in every) + "\n" + "".join(f'q{i}: "k{i}" "z"\n' for i in every),
        "units": "".join(f"r{i}: r{i + 1}\n" for i in every) + f'r{n}: "z"\n',
        "alternatives": "r0: " + " | ".join(f'"{i:b}" "z"' for i in every) + "\n",
        "keywords": "r0: k+\nk: " + " | ".join(f'"k{i}"' for i in every) + ' | NAME\nNAME: /[a-z0-9]+/\n%ignore " "\n',
        "sequence": "r0: " + '"x" ' * n + "\n",
        "stars": "".join(f'r{i}: ("x" "y")* "z" r{i + 1}\n' for i in every) + f'r{n}: "z"\n',
        "levels": "".join(f'r{i}: r{i + 1} | r{i} "{i}" r{i + 1}\n' for i in every) + f'r{n}: "z"\n',
    }
    return f"start: r0\n{rules[shape]}"


TEXTS = {
    "chain": ("xxxy", "xxx"),
    "flat": ("k9z", "k9"),
    "units": ("z", "zz"),
    "alternatives": ("101z", "101"),
    "keywords": ("k1 k2 abc", "k1 +"),
    "sequence": ("x", ""),
    "stars": ("xyz", "xyy"),
}


def check_many(shape: str, n: int) -> None:
    grammar = Grammar(many(shape, n), parser="lalr")
    inside, outside = TEXTS[shape]
    inside = inside * n if shape == "sequence" else inside + "z" * n if shape == "stars" else inside
    potential = explain.over_bytes(grammar)
    for text, wanted in ((inside, True), (outside, False)):
        assert grammar.accepts(text) == potential.accepts(text) == wanted, text[:50]


@pytest.mark.parametrize("shape", TEXTS)
def test_a_thousand_rules(shape: str) -> None:
    check_many(shape, 1000)


@pytest.mark.soak
@pytest.mark.parametrize("shape", TEXTS)
def test_ten_thousand_rules(shape: str) -> None:
    check_many(shape, 10_000)


DEEP = 10_000
BYTES = Vocabulary([*(bytes([b]) for b in range(256)), None], {256})


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ('start: "(" start ")" |', "(" * DEEP + ")" * DEEP),
        ('start: "[" [start ("," start)*] "]" | /[0-9]/', "[" * DEEP + "1" + "]" * DEEP),
    ],
)
def test_ten_thousand_levels(grammar: str, text: str) -> None:
    language = Grammar(grammar, parser="lalr")
    potential = language.compile(BYTES)
    assert language.accepts(text)
    assert potential.accepts(text)
    assert not potential.accepts(text[:-1])
    half = potential.language.after(potential.language.start(), text[:DEEP].encode())
    assert half is not None
    assert half.cost == DEEP
    state = potential.init(torch.zeros(1, 1, dtype=torch.long), budget=torch.tensor([float(len(text))]))
    for byte in text[:DEEP].encode():
        state = potential.step(state, torch.tensor([byte]))
    assert potential.log_weights(state)[0, text[DEEP].encode()[0]] == 0
    assert math.isinf(float(potential.log_weights(state)[0, ord(text[0])]))  # no room for one more level
    for copied in (pickle.loads(pickle.dumps(half.configurations[0].node)), copy.deepcopy(half.configurations[0].node)):  # noqa: S301  our own pickle
        assert depth(copied) == depth(half.configurations[0].node) == DEEP + 1


def depth(node: Node | None) -> int:
    count = 0
    while node is not None:
        count, node = count + 1, node.below
    return count


@pytest.mark.soak
def test_explaining_ten_thousand_levels() -> None:
    potential = explain.over_bytes(Grammar('start: "(" start ")" |', parser="lalr"))
    text = "(" * DEEP + ")" * DEEP
    assert explain.check(potential, text) is None
    assert explain.check(potential, text[:-1]) == explain.Mismatch(2 * DEEP - 1, 1, 2 * DEEP, ('")"',))


@pytest.mark.parametrize(
    ("text", "told", "place"),
    [
        ('start: "a" "\\x"', "has an escape", "line 1, column 12"),
        ('start: "a"\n  | "\\"\n', "has an escape", "line 2, column 5"),
        ('start: "a\0b"', "a character that Python does not read", "line 1, column 8"),
        ('start: "a" p\np: "b"\n%ignore p', "%ignore names the rule p, but takes only terminals", "line 3, column 1"),
    ],
)
def test_what_python_and_ignore_do_not_take(text: str, told: str, place: str) -> None:
    with pytest.raises(GrammarError) as caught:
        Grammar(text)
    assert told in str(caught.value)
    assert place in str(caught.value)
