"""Where commands write texts: files that are either whole or as they were, pipes, and standard output. It knows no formats."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ctrldecode.core._files import replacing
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Output", "check_file", "outputs", "write"]


class Output(NamedTuple):
    """A place to write to.

    Attributes:
        option: that named it.
        name: as the user wrote it.
        path: behind all links; None is standard output.
        streamed: whether it is a pipe or a device, which takes text and keeps nothing that could be written over.
    """

    option: str
    name: str
    path: Path | None
    streamed: bool


def outputs(named: Sequence[tuple[str, Path]], *, force: bool) -> list[Output]:
    """The places that options name, in order; `-` is standard output.

    Links are followed, as the shell's `>` does: what they point to is written, and they stay.

    Args:
        named: options with what they name.
        force: whether files that are there may be written over.

    Raises:
        InputError: a folder does not exist, a file is there, a path can take no text, or two options name one place.
    """
    found = [_output(option, path, force=force) for option, path in named]
    for at, one in enumerate(found):
        for other in found[:at]:
            if _same(one, other):
                said = one.name if one.name == other.name else f"{other.name} and {one.name}"
                raise InputError(f"{other.option} and {one.option} are one file, {said}; give two names")
    return found


def check_file(option: str, name: str) -> None:
    """Refuse, before the work, a path that a model could not be saved to after it; a file that is there is written over.

    Raises:
        InputError: its folder does not exist, or it is something else than a file.
    """
    if _output(option, Path(name), force=True).streamed:
        raise InputError(f"{option} {name} is not a file, and a model is stored in a file only; name one")


def _output(option: str, path: Path, *, force: bool) -> Output:
    name = str(path)
    try:
        status = None if name == "-" else path.expanduser().stat()
        target = path.expanduser().resolve()
    except FileNotFoundError:
        status, target = None, path.expanduser().resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, a folder that may not be read, a user that is none
        said = getattr(error, "strerror", None) or str(error).removesuffix(".")
        raise InputError(f"{option} {name} cannot be written to: {said}; name another file") from error
    if name == "-" or (status is not None and _is_stdout(status)):
        return Output(option, name, None, streamed=True)
    if status is None:
        if not target.parent.is_dir():
            lies = f"points to {target}, which lies" if path.expanduser().is_symlink() else "lies"
            raise InputError(f"{option} {name} {lies} in a folder that does not exist; make it, or name another one")
        return Output(option, name, target, streamed=False)
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return Output(option, name, path.expanduser(), streamed=True)  # /dev/fd/63 is opened by that name only
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{option} {name} is neither a file nor a pipe; name another one")
    if not force:
        raise InputError(f"{name} exists; give another {option}, or --force to write over it")
    return Output(option, name, target, streamed=False)


def _is_stdout(status: os.stat_result) -> bool:
    """Whether a file is where standard output goes, a file of the shell's `>` among them."""
    try:
        return not stat.S_ISCHR(status.st_mode) and os.path.samestat(status, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # closed, or none of the system's files
        return False


def _same(one: Output, other: Output) -> bool:
    """Whether two outputs would mix or write over one another; where nothing is kept they do not."""
    if one.path is None or other.path is None:
        return one.path is other.path
    if one.path.exists() and other.path.exists():
        return one.path.samefile(other.path) and not one.path.samefile(os.devnull)
    return one.path == other.path


def write(contents: Sequence[tuple[Output, str]]) -> None:
    """Write texts in UTF-8. Files come into being once all of them are written; pipes get theirs before that.

    Raises:
        OSError: the system refuses; files are then as they were.
    """
    with ExitStack() as stack:
        for output, text in contents:
            if output.path is None:
                sys.stdout.flush()
                sys.stdout.buffer.write(text.encode())  # whatever the locale says
                sys.stdout.buffer.flush()
            elif output.streamed:
                with output.path.open("w", encoding="utf-8") as stream:
                    stream.write(text)
            else:
                stack.enter_context(replacing(output.path)).write_text(text, encoding="utf-8")
