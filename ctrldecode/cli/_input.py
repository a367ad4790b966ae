"""What commands share in reading arguments: texts, given as such or on standard input, names, paths, and the range of seeds."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ctrldecode.errors import InputError

__all__ = ["MAX_SEED", "Parser", "ParserOption", "filled", "filled_path", "read_text", "without_newline"]

MAX_SEED = 2**64 - 1  # the largest that torch takes

# Bytes of a text on standard input. The longest contexts hold some million tokens, and a tokenizer takes twenty times a text's memory.
_MOST = 16 * 2**20


class Parser(StrEnum):
    """The mode of lark whose language a grammar has."""

    AUTO = "auto"
    LALR = "lalr"
    EARLEY = "earley"


ParserOption = Annotated[
    Parser,
    typer.Option(
        help="The mode of lark whose language is meant; auto takes earley where lalr cannot tell rules apart."
    ),
]


def filled(text: str) -> str:
    """A name or a path as it was given, for `parser=` of an option; an empty one, most often a variable without a value, is refused.

    Raises:
        BadParameter: it is empty, or no system can have a file of that name; typer says of which option.
    """
    if "\0" in text:
        raise typer.BadParameter("it has a character of code 0, as no path has; give another one.")
    if not text:
        raise typer.BadParameter("it is empty; give a name or a path, or leave the option out.")
    return text


def filled_path(text: str | Path) -> Path:
    """As `filled`, as a path: of an empty one `Path` would make the working folder. Defaults come as paths."""
    return Path(filled(str(text)))


def read_text(argument: str, *, whole: bool = False) -> str:
    """The argument itself, or standard input for `-`, less the newline that ends it unless the whole is wanted.

    Raises:
        InputError: it is not UTF-8 (bytes of an argument that are none come as lone surrogates), it is too long, or there is no
            input.
    """
    if argument != "-":
        return _checked(argument)
    if getattr(sys, "stdin", None) is None:  # as Python leaves it if the shell closed it: <&-
        raise InputError("the text was to come from standard input, which is closed; give the text itself, or a pipe")
    try:
        data = sys.stdin.buffer.read(_MOST + 1)
        if len(data) > _MOST:
            raise InputError(
                f"the text on standard input has more than {_MOST // 2**20} MiB, which no model reads as one text; give a shorter one"
            )
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the text on standard input is not UTF-8: {error.reason} at byte {error.start}") from error
    return text if whole else without_newline(text)


def without_newline(text: str) -> str:
    """The text less one newline at its end, which may be CRLF."""
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _checked(argument: str) -> str:
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text {argument!a} is not UTF-8 at character {error.start + 1}; give the text in UTF-8"
        ) from error
    return argument
