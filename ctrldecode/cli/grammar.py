"""`ctrldecode grammar`: what grammars there are. Reads grammar files as text and does not compile them."""

from __future__ import annotations

import re

import typer

from ctrldecode._resources import grammar_names, grammar_path

__all__ = ["app", "list_grammars"]

app = typer.Typer(help="Grammars that come with ctrldecode.", no_args_is_help=False)


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def list_grammars() -> None:
    """List the shipped grammars by name, with what they describe."""
    names = grammar_names()
    width = max(map(len, names), default=0)
    for name in names:
        print(f"{name:{width}}  {_summary(grammar_path(name).read_text(encoding='utf-8'))}")


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
