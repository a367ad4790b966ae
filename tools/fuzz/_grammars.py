"""Grammars: those that are read and compiled draw texts that lark parses, and the others are refused."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from lark import Lark
from lark.exceptions import LarkError

from ctrldecode._resources import grammar_names, grammar_path
from ctrldecode.errors import BudgetError
from ctrldecode.grammar import Grammar, explain
from tools.fuzz._regexes import byte_vocabulary, mutated, regex
from tools.fuzz._runner import TooLong, Wrong, within

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["Grammars"]

_PIECES = re.compile(r'"(?:[^"\\\n]|\\.)*"i?|/(?!/)(?:[^/\\\n]|\\.)+/[a-z]*|//[^\n]*|[\w.]+|\s+|->|.', re.DOTALL)
_NASTY = ("start", "start: start", '""', "//", "%import common.WS", "%ignore", "%declare X", '%override start: "x"', '%extend start: "y"', "%import .nothing.X", "%import common (INT, WS)", "~ 3", "~ 2..1", "~ 0..99999", "?", "*", "+", "|", "(", ")", "[", "]", "{a}", "t{x}: x x\n", "t{t{t{A}}}", "\n", "\x00", "\ufeff", "\ud800", '"\\ud800"', '"\\xff"', "/\\xff/", '"a".."z"', '"z".."a"', '"ab".."c"', ".5", ".-3", ".99999999999999999999", "_", '__X: "a"', "!", "-> name", '"\\"', "/(?i)x/", "/x/imslux", "/(/", "/a*/", "/[/", "/a{70000}/", "/(a{200}){200}/", "\\", "é", "😀", "\t", "$END", "$root_start", "__anon_star_0", "%", "/.*/s", "/(?=a)b/", "_NL: /\\n+/\n")  # fmt: skip
_IMPORTS = ("INT", "WS", "WS_INLINE", "ESCAPED_STRING", "NUMBER", "SIGNED_INT", "CNAME", "NEWLINE", "LETTER", "CPP_COMMENT", "SQL_COMMENT", "_STRING_ESC_INNER")  # fmt: skip
_LONGEST = 24  # bytes of a text; lark's Earley parser is slow
_TEXTS = 3
_RULES = 400
_SECONDS = 8.0  # of drawing a text


@cache
def _shipped() -> list[str]:
    return [grammar_path(name).read_text(encoding="utf-8") for name in grammar_names()]


class Grammars:
    """The target."""

    name = "grammar"

    def make(self, rng: random.Random) -> dict[str, Any]:
        """A grammar: one of ours with changes, or one of chance."""
        _warm_up()
        kind = rng.random()
        text = _random(rng) if kind < 0.5 else rng.choice(_shipped())
        if kind > 0.4:
            text = _cut(rng, text) if rng.random() < 0.7 else mutated(rng, text, _NASTY)
        parser = rng.choice(("auto", "lalr", "earley"))
        return {"text": text, "parser": parser, "seed": rng.randrange(2**32)}

    def run(self, case: dict[str, Any]) -> str:
        """Read, compile, draw, and let lark judge what was drawn and changed versions of it."""
        try:
            grammar = Grammar(case["text"], parser=case["parser"])
        except TooLong:  # lark takes longer for such; without tables it is fast
            if len(Lark(case["text"], parser="earley").rules) > _RULES:
                return "many rules"
            raise
        potential = grammar.compile(byte_vocabulary(), max_lexer_states=2000, max_search=5000)
        if len(grammar._tables.rules) > _RULES:  # noqa: SLF001
            return "many rules"  # which are ambiguous, most often, and take a minute
        try:
            with within(_SECONDS):
                judge = _judge(grammar)
        except TooLong:  # its search for terminals that collide
            return "slow lark"
        rng = np.random.default_rng(case["seed"])
        outcome = "compiled"
        for _ in range(_TEXTS):
            try:
                with within(_SECONDS):
                    text = explain.sample(potential, rng, _LONGEST)
            except BudgetError:
                return "long texts only"
            except TooLong:
                if grammar.parser == "lalr":
                    raise
                return "slow earley"  # very ambiguous grammars take seconds a byte, as they do in lark
            for each in (text, _changed(text, rng)):
                ours = explain.check(potential, each) is None
                try:
                    with within(3.0):
                        theirs = judge(each)
                except TooLong:
                    outcome = "slow lark"
                    continue
                if each is text and not ours:
                    raise Wrong(f"a drawn text is not accepted: {each!a}")
                if ours != theirs:
                    raise Wrong(f"check and lark disagree ({grammar.parser}): on {each!a} lark says {theirs}")
        return outcome


@cache
def _warm_up() -> None:
    """Compile the kernels, so that no case has to wait for them."""
    for name in ("json", "python_expr"):
        potential = Grammar.from_file(grammar_path(name)).compile(byte_vocabulary())
        for seed in range(3):
            explain.check(potential, explain.sample(potential, np.random.default_rng(seed), _LONGEST))


def _judge(grammar: Grammar) -> Callable[[str], bool]:
    """lark on its own in lalr mode, with no table of ours; in earley mode as `Grammar.accepts` calls it."""
    if grammar.parser == "earley":
        return grammar.accepts
    try:
        lark = Lark(grammar.text, parser="lalr")  # if it refuses what is read here, that is a finding
    except Exception as error:
        if not type(error).__module__.startswith("regex"):
            raise
        return grammar.accepts  # lark reads by the package regex where it is installed; this tells so

    def accepts(text: str) -> bool:
        try:
            lark.parse(text)
        except (LarkError, re.error):  # re's is of lark's message, for which it joins terminals that cannot be joined
            return False
        return True

    return accepts


def _changed(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(0, len(text) + 1))
    letters = [*text, *' \n(a0"é,']
    return text[:at] + str(rng.choice(letters)) * int(rng.integers(0, 2)) + text[at + int(rng.integers(0, 2)) :]


def _cut(rng: random.Random, text: str) -> str:
    """The grammar with some of its signs and names cut out, doubled, exchanged or put in."""
    pieces = _PIECES.findall(text)
    others = _PIECES.findall(rng.choice(_shipped()))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(pieces) + 1)
        new = rng.choice(([], [rng.choice(_NASTY)], [rng.choice(others)], [rng.choice(pieces or [""])]))
        pieces[at : at + rng.randint(0, 2)] = new
    return "".join(pieces)


def _random(rng: random.Random) -> str:
    """A small grammar that is most often in order."""
    rules = ["start", *rng.sample(["a", "b", "c", "_d", "?e"], rng.randint(0, 3))]
    terminals = rng.sample(["A", "B", "C", "_D", "AB.2", "E.-1"], rng.randint(1, 4))
    names = [name.strip("?") for name in rules] + [name.split(".")[0] for name in terminals]
    lines = [f"{rule}: {_choices(rng, names, 2)}" for rule in rules]
    lines += [f"{terminal}: {_terminal(rng, names[len(rules) :])}" for terminal in terminals]
    if rng.random() < 0.3:
        imported = rng.choice(_IMPORTS)
        lines.append(f"%import common.{imported}" + rng.choice(("", " -> A", " -> Z")))
        lines.append(f"%ignore {imported}" if rng.random() < 0.7 else f"x: {imported}")
    if rng.random() < 0.2:
        lines.append("%ignore " + rng.choice(('" "', "/[ \\t]+/", rng.choice(terminals).split(".")[0])))
    if rng.random() < 0.15:
        lines.append("t{x, y}: x (y x)*\n" + f"f: t{{{rng.choice(names)}, {rng.choice(names)}}}")
        lines[0] = "start: f " + lines[0].removeprefix("start: ")
    return "\n".join(lines) + rng.choice(("\n", "", "\r\n"))


def _choices(rng: random.Random, names: list[str], depth: int) -> str:
    return " | ".join(_sequence(rng, names, depth) for _ in range(rng.randint(1, 3)))


def _sequence(rng: random.Random, names: list[str], depth: int) -> str:
    return " ".join(_item(rng, names, depth) for _ in range(rng.randint(0 if rng.random() < 0.2 else 1, 3)))


def _item(rng: random.Random, names: list[str], depth: int) -> str:
    kind = rng.random()
    if depth and kind < 0.15:
        return f"({_choices(rng, names, depth - 1)}){rng.choice(('', '', '*', '+', '?', '~2'))}"
    if depth and kind < 0.2:
        return f"[{_choices(rng, names, depth - 1)}]"
    if kind < 0.55:
        return rng.choice(names) + rng.choice(("", "", "", "?", "*", "+", rng.choice(("", "~1..3"))))
    if kind < 0.85:
        return _quoted(rng)
    return f"/{_slashed(regex(rng, 1))}/"


def _terminal(rng: random.Random, terminals: list[str]) -> str:
    kind = rng.random()
    if kind < 0.5:
        return f"/{_slashed(regex(rng, 2))}/{rng.choice(('', '', 'i', 's'))}"
    if kind < 0.8:
        return " | ".join(_quoted(rng) for _ in range(rng.randint(1, 3)))
    if kind < 0.9:
        return '"a".."f"'
    return f"{rng.choice(terminals)} {_quoted(rng)}"


def _quoted(rng: random.Random) -> str:
    return '"' + "".join(rng.choice(("a", "b", "ab", "0", "(", ")", ",", "é", "\\n", "if", " ", "😀")) for _ in range(rng.randint(1, 2))) + '"' + rng.choice(("", "", "", "i"))  # fmt: skip


def _slashed(pattern: str) -> str:
    r"""As it can stand between slashes: in one line, and with \/ for /."""
    return re.sub(r"(?<!\\)/", r"\/", pattern.replace("\n", "n")) or "x"
