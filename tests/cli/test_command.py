"""What holds for every command of the tree, which is walked, so that a new command is met too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typer.core import TyperOption
from typer.main import get_command

from ctrldecode.cli._app import app

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words that call each command, with the command itself."""
    command = get_command(app) if command is None else command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


def options(*, multiple: bool) -> list[Any]:
    """Parameters (words of the command, name of the option) of all options that take a value."""
    return [
        pytest.param(path, option.opts[0], id=" ".join([*path, option.opts[0]]))
        for path, command in commands()
        for option in command.params
        if isinstance(option, TyperOption) and not option.is_flag and option.multiple is multiple
    ]


def test_the_walk_meets_commands_of_all_depths():
    found = {path for path, _ in commands()}
    assert {("demo",), ("fit-attribute",), ("train", "class-lm"), ("hmm", "eval"), ("grammar", "next")} <= found


@pytest.mark.parametrize(("path", "option"), options(multiple=False))
def test_an_option_that_takes_one_value_is_refused_a_second_one(path, option, run):
    result = run(*path, option, "1", option, "1")
    assert (result.code, result.out) == (2, "")
    assert f"'{option}': it is given 2 times, and takes one value; give it once" in result.err


@pytest.mark.parametrize(("path", "option"), options(multiple=True))
def test_an_option_that_collects_values_takes_them(path, option):
    command = dict(commands())[path]
    context = command.make_context(path[-1], [option, "a", option, "b"])
    assert ["a", "b"] in context.params.values()
