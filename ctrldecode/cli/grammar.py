"""`ctrldecode grammar`: which grammars there are, and what a grammar says of a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len

from ctrldecode._resources import grammar_names, grammar_path
from ctrldecode.cli._command import OnceCommand
from ctrldecode.cli._input import MAX_SEED, Parser, ParserOption, filled, read_text, without_newline

if TYPE_CHECKING:
    from ctrldecode.grammar.explain import Mismatch

__all__ = ["app", "check", "following", "list_grammars", "sample"]

app: typer.Typer = typer.Typer(help="Grammars: list them, and see what they say of a text.", no_args_is_help=False)

_NAME = typer.Argument(parser=filled, help="A name of [b]grammar list[/b], or a lark file.", metavar="GRAMMAR")
_MAX_IGNORED = typer.Option(min=0, help="Most bytes of ignored text (white space) in a row.")


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list", cls=OnceCommand)
def list_grammars() -> None:
    """List the shipped grammars by name, with what they describe."""
    names = grammar_names()
    width = max(map(len, names), default=0)
    for name in names:
        print(f"{name:{width}}  {_summary(grammar_path(name).read_text(encoding='utf-8'))}")


@app.command("check", cls=OnceCommand)
def check(
    grammar: Annotated[str, _NAME],
    text: Annotated[str, typer.Argument(help="The text; [b]-[/b] reads it from standard input.")] = "-",
    parser: ParserOption = Parser.AUTO,
) -> None:
    """Say whether a text is in the language, and if not, where it leaves it and what was expected there."""
    content = read_text(text, whole=True)
    from ctrldecode.grammar import Grammar, explain

    potential = explain.over_bytes(Grammar.from_file(grammar_path(grammar), parser=parser))
    mismatch = explain.check(potential, content)
    if mismatch is not None and text == "-":  # files end in a newline that need not belong to the text
        content = without_newline(content)
        mismatch = explain.check(potential, content)
    if mismatch is None:
        print(f"in the language of {grammar}")
        return
    print(_shown(mismatch, content, grammar))
    raise typer.Exit(1)


def _shown(mismatch: Mismatch, text: str, grammar: str) -> str:
    """The line in question with a caret, and what could stand there."""
    line = _visible(text.split("\n")[mismatch.line - 1])
    what = "ends too early" if mismatch.offset == len(text) else "leaves the language"
    return "\n".join(
        [
            f"not in the language of {grammar}: the text {what} in line {mismatch.line}, column {mismatch.column}",
            f"  {line}",
            f"  {' ' * cell_len(line[: mismatch.column - 1])}^",
            f"expected: {', '.join(mismatch.expected)}",
        ]
    )


def _visible(line: str) -> str:
    """The line with a blank for each tab and a mark for each control character, so that a caret can stand below it."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)


@app.command("next", cls=OnceCommand)
def following(
    grammar: Annotated[str, _NAME],
    prefix: Annotated[str, typer.Argument(help="The text so far; [b]-[/b] reads it from standard input.")] = "",
    model: Annotated[
        str, typer.Option(parser=filled, help="Whose tokens: tinytales, a folder, or a model id.")
    ] = "tinytales",
    show: Annotated[int, typer.Option(min=1, help="Tokens shown of each group.")] = 12,
    max_ignored: Annotated[int, _MAX_IGNORED] = 16,
    parser: ParserOption = Parser.AUTO,
) -> None:
    """Show the tokens that may follow a prefix, grouped by terminal."""
    content = read_text(prefix)
    from ctrldecode.cli import _models
    from ctrldecode.grammar import Grammar, explain

    vocabulary = _models.load(model).vocabulary
    potential = Grammar.from_file(grammar_path(grammar), parser=parser).compile(vocabulary, max_ignored=max_ignored)
    found = explain.continuations(potential, content)
    print("the text may end here" if found.accepts else "the text may not end here")
    for names, tokens in sorted(found.tokens.items(), key=lambda group: -len(group[1])):
        pieces = (vocabulary.tokens[token] or b"" for token in tokens[:show])
        more = f" ... {len(tokens) - show} more" if len(tokens) > show else ""
        print(f"{' or '.join(names)}: {' '.join(repr(piece)[1:] for piece in pieces)}{more}")


@app.command("sample", cls=OnceCommand)
def sample(
    grammar: Annotated[str, _NAME],
    num: Annotated[int, typer.Option(min=1, help="How many texts.")] = 10,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same texts.", show_default="drawn")
    ] = None,
    longest: Annotated[int, typer.Option("--max-bytes", min=1, help="The most bytes a text may have.")] = 100,
    max_ignored: Annotated[int, _MAX_IGNORED] = 1,
    parser: ParserOption = Parser.AUTO,
) -> None:
    """Draw random texts of the language, without a model; each is printed as a JSON string."""
    import json

    import numpy as np

    from ctrldecode.grammar import Grammar, explain

    potential = explain.over_bytes(Grammar.from_file(grammar_path(grammar), parser=parser), max_ignored=max_ignored)
    rng = np.random.default_rng(seed)
    for _ in range(num):
        print(json.dumps(explain.sample(potential, rng, longest), ensure_ascii=False))


def _summary(text: str) -> str:
    r"""What the comment at the top of a grammar says first, up to the first stop, colon, semicolon or parenthesis.

    Example:
        >>> _summary("// Dates and times,\n// extended format (with -): no weeks.\nstart: ...")
        'Dates and times, extended format'
    """
    words: list[str] = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        words += line.removeprefix("//").split()
    return re.split(r"[.:;](?:\s|$)|,? \(", " ".join(words))[0]
