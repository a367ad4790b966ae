"""The tree of commands. Importing it imports no heavy library: commands do that when they are called."""

from __future__ import annotations

from typing import Annotated

import typer

import ctrldecode
from ctrldecode.cli import demo, distill, explain, fit_attribute, generate, grammar, hmm, sample, train
from ctrldecode.cli._command import OnceCommand

__all__ = ["app"]

app = typer.Typer(
    help="Constrained and controlled decoding of language models.", add_completion=False, rich_markup_mode="rich"
)
app.command("generate", cls=OnceCommand)(generate.generate)
app.command("sample", cls=OnceCommand)(sample.sample)
app.command("explain", cls=OnceCommand)(explain.explain)
app.command("demo", cls=OnceCommand)(demo.demo)
app.command("distill", cls=OnceCommand)(distill.distill)
app.command("fit-attribute", cls=OnceCommand)(fit_attribute.fit_attribute)
app.add_typer(grammar.app, name="grammar")
app.add_typer(hmm.app, name="hmm")
app.add_typer(train.app, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(ctrldecode.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options that belong to no command."""
