r"""The benchmark's grammars as llguidance and xgrammar want them: one set of rules, whose terminals are written twice.

The languages are those of grammars/*.lark as far as a context-free grammar can say it. What `%ignore` does there, explicit
white space does here; llguidance takes the longest lexeme and xgrammar has no lexemes at all, where lark has an ordered
choice. That makes no difference in JSON, s-expressions and arithmetic. In SQL three things remain:

* a name `select` directly behind a parenthesis: our lexer reads `(select ` as the keyword, peers also as a name;
* two words without white space between them: xgrammar reads `notexists(` as NOT EXISTS too, lexers as one name;
* `.5` behind such a word, for the same reason.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Where case does not matter, Python's `re` takes these for I, i, s and k, and so lark does: ı is a name.
ODD = "\u0130\u0131\u017f\u212a"
LETTER, WORD = f"[A-Za-z{ODD}]", f"[0-9A-Za-z_{ODD}]"
NAME = f"[A-Za-z_{ODD}]{WORD}*"


@dataclass(frozen=True)
class Notation:
    """A grammar for the peers.

    Attributes:
        rules: one a line, `name: body`, in what the two notations share: literals, groups, |, *, +, ?.
        terminals: name -> as llguidance writes its body, and as xgrammar does.
        more: further rules for xgrammar, which its terminals use.
    """

    rules: str
    terminals: dict[str, tuple[str, str]]
    more: str = ""

    def llguidance(self) -> str:
        """Lark's notation."""
        terminals = (f"{name}: {body}" for name, (body, _) in self.terminals.items())
        return "\n".join([self.rules.strip(), *terminals])

    def xgrammar(self) -> str:
        """Its EBNF, which starts at `root`."""
        rules = re.sub(r"^(\w+):", r"\1 ::=", self.rules.strip(), flags=re.MULTILINE)
        terminals = (f"{name} ::= {body}" for name, (_, body) in self.terminals.items())
        return "\n".join([f"root ::= start\n{rules}", *terminals, self.more])


def folded(letter: str) -> str:
    """The characters that Python's `re` takes for a letter where case does not matter."""
    return "".join(c for c in f"{letter.upper()}{letter}{ODD}" if re.fullmatch(letter, c, re.IGNORECASE))


def keyword(word: str) -> tuple[str, str]:
    """A word in any case."""
    classes = "".join(f"[{folded(letter)}]" for letter in word)
    return f"/{classes}/", classes


def name_except(name: str, words: Iterable[str]) -> tuple[tuple[str, str], str]:
    """A terminal for names that are none of the words, in any case, and the rules of xgrammar that spell that out."""
    words = sorted(words)
    llguidance = f"/{NAME}/ & ~/{'|'.join(keyword(word)[1] for word in words)}/"
    prefixes = sorted({word[:length] for word in words for length in range(len(word) + 1)})
    rules = [f"{name}_{prefix} ::= {_behind(name, prefix, prefixes, words)}" for prefix in prefixes]
    return (llguidance, f"{name}_"), "\n".join(rules)


def _behind(name: str, prefix: str, prefixes: list[str], words: list[str]) -> str:
    """How a name that is none of the words goes on behind a prefix of one of them."""
    following = [other[-1] for other in prefixes if other and other[:-1] == prefix]
    letters = "".join(folded(letter) for letter in string.ascii_lowercase if letter not in following)
    first = f"[{letters}_{'0-9' if prefix else ''}] {WORD}*"
    ways = [first, *(f"[{folded(letter)}] {name}_{prefix}{letter}" for letter in following)]
    return " | ".join([*ways, *([] if not prefix or prefix in words else ['""'])])


JSON = Notation(
    """
start: ws value ws
value: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" ws "}" | "{" ws member (ws "," ws member)* ws "}"
member: STRING ws ":" ws value
array: "[" ws "]" | "[" ws value (ws "," ws value)* ws "]"
""",
    {
        "ws": ("WS?", "WS?"),
        "WS": (r"/[ \t\n\r]+/", r"[ \t\n\r]+"),
        "STRING": (
            r'/"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9A-Fa-f]{4}))*"/',
            r'"\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" HEX HEX HEX HEX))* "\""',
        ),
        "NUMBER": (
            r"/-?(0|[1-9][0-9]*)(\.[0-9]+)?([Ee][+-]?[0-9]+)?/",
            '"-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([Ee] [+-]? [0-9]+)?',
        ),
    },
    "HEX ::= [0-9A-Fa-f]",
)

ARITHMETIC = Notation(
    """
start: ws sum ws
sum: product (ws ("+" | "-") ws product)*
product: unary (ws ("*" | "/") ws unary)*
unary: power | "-" ws unary
power: atom (ws "^" ws unary)?
atom: NUMBER | "(" ws sum ws ")"
""",
    {
        "ws": ("WS?", "WS?"),
        "WS": ("/ +/", "[ ]+"),
        "NUMBER": (r"/(0|[1-9][0-9]*)(\.[0-9]+)?/", '("0" | [1-9] [0-9]*) ("." [0-9]+)?'),
    },
)

SYGUS = Notation(
    """
start: definition (WS definition)*
definition: "(" "define-fun" WS SYMBOL WS "(" parameters? ")" WS body ")"
body: "Int" WS integer | "Bool" WS boolean
parameters: parameter (WS parameter)*
parameter: "(" SYMBOL WS "Int" ")"
integer: constant | varying
constant: NUMERAL | "(" "-" WS constant ")"
varying: SYMBOL | "(" compound ")"
compound: negative | sum | product | quotient | "abs" WS integer | choice | "let" WS bindings WS integer
negative: "-" WS varying
sum: ("-" | "+") WS integer (WS integer)+
product: "*" WS constant WS integer | "*" WS varying WS constant
quotient: ("div" | "mod") WS integer WS constant
choice: "ite" WS boolean WS integer WS integer
boolean: "true" | "false" | "(" proposition ")"
proposition: comparison | "not" WS boolean | connected | alternative | "let" WS bindings WS boolean
comparison: ("=" | "distinct" | "<" | "<=" | ">" | ">=") WS integer (WS integer)+
connected: ("and" | "or" | "xor" | "=>") WS boolean (WS boolean)+
alternative: "ite" WS boolean WS boolean WS boolean
bindings: "(" binding (WS binding)* ")"
binding: "(" SYMBOL WS integer ")"
""",
    {
        "SYMBOL": ("/[A-Za-z][0-9A-Za-z_.!-]*/", "[A-Za-z] [0-9A-Za-z_.!-]*"),
        "NUMERAL": ("/0|[1-9][0-9]*/", '"0" | [1-9] [0-9]*'),
        "WS": (r"/[ \t\r\n]+/", r"[ \t\r\n]+"),
    },
)

# Words that our lexer takes for keywords, by what may stand there: any value; the first one of SELECT or of an aggregate;
# the first of a condition.
VALUE_WORDS = ("null", "case", "count", "sum", "avg", "min", "max")
RESERVED = {
    "V": VALUE_WORDS,
    "S": (*VALUE_WORDS, "distinct", "all"),
    "C": (*VALUE_WORDS, "not", "exists"),
}

SQL_RULES = """
start: ws select ws (";" ws)?
select: SELECT WS (columns | (DISTINCT | ALL) ws columns_v) WS FROM WS sources where? group? having? order? limit?
columns: "*" | column_s (ws "," ws column_v)*
columns_v: "*" | column_v (ws "," ws column_v)*
sources: source (ws "," ws source)*
source: table join*
table: name (ws "." ws name)? alias? | "(" ws select ws ")" alias
alias: WS AS WS name | ws (ALIAS | QUOTED)
join: WS joiner WS table WS ON WS condition | WS CROSS WS JOIN WS table
joiner: (INNER WS | (LEFT | RIGHT | FULL) WS (OUTER WS)?)? JOIN
where: WS WHERE WS condition
group: WS GROUP WS BY WS value_v (ws "," ws value_v)*
having: WS HAVING WS condition
order: WS ORDER WS BY WS key (ws "," ws key)*
key: value_v (WS (ASC | DESC))?
limit: WS LIMIT WS INTEGER (WS OFFSET WS INTEGER)?
condition: conjunction (WS OR WS conjunction)*
conjunction: negation (WS AND WS negation)*
negation: predicate | NOT ws negation
predicate: "(" ws condition ws ")" | value_c ending | EXISTS ws "(" ws select ws ")"
ending: ws comparison ws value_v | WS not BETWEEN WS value_v WS AND WS value_v | inside | WS not LIKE WS value_v | is
inside: WS not IN ws "(" ws (value_v (ws "," ws value_v)* | select) ws ")"
is: WS IS WS not NULL
not: (NOT WS)?
comparison: "=" | "<>" | "!=" | "<" | "<=" | ">" | ">="
unsigned: primary_v (ws ("*" | "/") ws factor_v)*
tail: (ws "." ws name | ws "(" ws (value_v (ws "," ws value_v)* ws)? ")")?
other: INTEGER | DECIMAL | STRING | NULL | aggregate | case | "(" ws select ws ")" | QUOTED tail
case: CASE when+ (WS ELSE WS value_v)? WS END
when: WS WHEN WS condition WS THEN WS value_v
aggregate: COUNT ws "(" ws "*" ws ")" | (COUNT | SUM | AVG | MIN | MAX) ws "(" ws argument ws ")"
argument: value_s | (DISTINCT | ALL) ws value_v
name: NAME | QUOTED
"""
# For a value whose first word is not of RESERVED[{X}]; inside its parentheses stands a value of kind {y}.
SQL_VALUE = """
column_{x}: value_{x} (WS AS WS name)? | (NAME_{X} | QUOTED) ws "." ws "*"
value_{x}: sum_{x} (ws "||" ws sum_v)*
sum_{x}: product_{x} (ws ("+" | "-") ws unsigned)*
product_{x}: factor_{x} (ws ("*" | "/") ws factor_v)*
factor_{x}: primary_{x} | ("+" | "-") ws primary_v
primary_{x}: NAME_{X} tail | other | "(" ws value_{y} ws ")"
"""


def _sql() -> Notation:
    values = (SQL_VALUE.format(x=x, X=x.upper(), y="c" if x == "c" else "v") for x in "vsc")
    names = {f"NAME_{kind}": name_except(f"NAME_{kind}", words) for kind, words in RESERVED.items()}
    terminals = {
        **{word: keyword(word.lower()) for word in re.findall(r"\b[A-Z]+\b", SQL_RULES)},  # less those named below
        "ws": ("WS?", "WS?"),
        "WS": (r"/[ \t\r\n]+/", r"[ \t\r\n]+"),
        **{name: terminal for name, (terminal, _) in names.items()},
        "NAME": (f"/{NAME}/", NAME),
        "ALIAS": (f"/{LETTER}[0-9]*/", f"{LETTER} [0-9]*"),
        "QUOTED": (r'/"([^"\x00]|"")+"/', r'"\"" ([^"\x00] | "\"\"")+ "\""'),
        "STRING": (r"/'([^'\x00]|'')*'/", r""" "'" ([^'\x00] | "''")* "'" """),
        "INTEGER": ("/[0-9]+/", "[0-9]+"),
        "DECIMAL": (r"/[0-9]+\.[0-9]+/", '[0-9]+ "." [0-9]+'),
    }
    return Notation("".join([SQL_RULES, *values]), terminals, "\n".join(rules for _, rules in names.values()))


SQL = _sql()
