"""A progress bar on standard error, where that is a terminal; elsewhere nothing. Commands import it when called."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import track as rich_track

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

__all__ = ["bar", "stages", "track"]

T = TypeVar("T")


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a bar that says how many are done; gone when all are."""
    console = Console(stderr=True)
    return rich_track(items, what, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def bar(what: str) -> Generator[Callable[[int, int], None]]:
    """A function that shows how many of how many are done, in a bar that is gone at the end."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def stages(width: int, *, hidden: bool) -> Progress:
    """Bars of a long run, one a stage, which stay: name of `width` characters, how many are done, `figures`, time, and time left.

    Args:
        width: of the column of names.
        hidden: whether nothing is shown, as in all processes but the first.
    """
    columns = (
        TextColumn(f"{{task.description:{width}}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=hidden)
