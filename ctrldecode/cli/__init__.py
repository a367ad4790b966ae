"""The command line: `main`, and what becomes of errors, interrupts and closed pipes. Commands are in the modules beside.

Exit codes: 0 done, 2 the user's request cannot be met (one block on stderr says why), 130 interrupted, 141 the reader of
our output went away, 143 asked to end. Anything else is a bug of ours and shows a traceback.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ctrldecode.cli._interrupts import Terminated, exiting, heeding_signals, losing_none
from ctrldecode.cli._memory import is_of_memory
from ctrldecode.cli._panics import is_panic
from ctrldecode.cli._wording import in_options
from ctrldecode.errors import CtrldecodeError, GrammarWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_REFUSED = 2
_INTERRUPTED = 128 + 2  # as shells report SIGINT
_PIPE_CLOSED = 128 + 13  # as shells report SIGPIPE
_TERMINATED = 128 + 15  # as shells report SIGTERM


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: the words after the program's name; None for those of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows few characters still shows the rest
    if getattr(sys, "stdout", None) is None:  # as Python leaves it if the shell closed it: >&-
        sys.exit(_refuse("standard output is closed; leave it open, or send it to a file or to /dev/null"))
    sys.exit(_guarded(sys.argv[1:] if arguments is None else list(arguments)))


def _guarded(arguments: list[str]) -> int:
    """Run, flush, and turn what goes wrong into an exit code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", GrammarWarning)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            with heeding_signals(), losing_none():
                code = _run(arguments)
        sys.stdout.flush()
    except CtrldecodeError as error:
        return _refuse(in_options(str(error)))
    except (KeyboardInterrupt, Terminated) as stop:
        exiting()
        _silence(sys.stdout)
        _tell(str(stop))  # most often nothing: the shell's prompt starts on a line of its own
        return _TERMINATED if isinstance(stop, Terminated) else _INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout)
        return _PIPE_CLOSED
    except BaseException as error:
        told = _told(error)
        if told is None:
            raise
        if isinstance(error, OSError):
            _silence(sys.stdout)  # a full disk, most often
        return _refuse(told)
    return code


def _told(error: BaseException) -> str | None:
    """What to say of an error that is the machine's or a damaged file's; None of one that is a bug."""
    if is_of_memory(error):
        return "there is not enough memory for this; ask for less at a time, take a smaller model, or allow more memory"
    if isinstance(error, OSError):
        return f"the system could not read or write: {error}; see to the space left and to permissions"
    if is_panic(error):
        return f"a library gave up: {error}; most likely the files of the tokenizer are damaged, so copy or download them again"
    return None


def _show_warning(default: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A grammar's doubtful places are told as notes; other warnings are left to Python."""
    if issubclass(category, GrammarWarning):
        _tell(f"note: {in_options(str(message))}")
    else:
        default(message, category, *place)


def _run(arguments: list[str]) -> int:
    """Parse and call, without typer's own handling of errors, which would print panels and exit by itself."""
    from typer.exceptions import Exit, TyperException
    from typer.main import get_command

    from ctrldecode.cli._app import app

    try:
        with get_command(app).make_context("ctrldecode", arguments or ["--help"]) as context:
            context.command.invoke(context)
    except Exit as stop:  # --help and --version
        return stop.exit_code
    except TyperException as error:
        return _refuse(error.format_message(), hint="ctrldecode --help, or --help after a command, lists what there is")
    return 0


def _refuse(message: str, hint: str = "") -> int:
    try:
        if getattr(sys, "stdout", None) is not None:
            sys.stdout.flush()  # what was printed so far stands before the message
    except OSError:
        _silence(sys.stdout)
    _tell(f"error: {message}" + (f"\n  {hint}" if hint else ""))
    return _REFUSED


def _tell(text: str) -> None:
    """Print on standard error, if there is one that takes it; print itself would turn to standard output otherwise."""
    if getattr(sys, "stderr", None) is not None:
        with suppress(OSError):
            print(text, file=sys.stderr)


def _silence(stream: io.TextIOBase | object) -> None:
    """Point a stream to nowhere, so that the interpreter's last flush does not fail a second time."""
    with suppress(OSError):  # a stream in memory, as of a notebook, has no file behind it
        if isinstance(stream, io.TextIOWrapper):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
