"""Folders: publishing a whole one, and whether one lies in another. It knows no model, and imports nothing heavy."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["contents", "overlap", "published", "real"]

_PART = ".class-lm.part"  # one name: what a killed process left is cleared away by the next


def real(path: Path) -> Path:
    """Where a path leads, through all links; what does not exist yet included."""
    return Path(os.path.realpath(path))


def overlap(first: Path, second: Path) -> bool:
    """Whether two folders are one, or one lies in the other."""
    first, second = real(first), real(second)
    return first.is_relative_to(second) or second.is_relative_to(first)


def contents(folder: Path) -> list[Path]:
    """What stands in a folder, without the remains of a publication that was stopped; nothing if there is no folder."""
    return [path for path in folder.iterdir() if path.name != _PART] if folder.is_dir() else []


@contextmanager
def published(folder: Path, last: str) -> Generator[Path]:
    """A folder to write to, which becomes `folder` once the block has ended without an error.

    It lies where a link leads, so that renaming does not leave the file system: in `folder` if that exists, as it may be a mount of
    its own, else beside it. A new folder appears at once; into one that exists, files go one by one, and `last` at the end.

    Raises:
        OSError: the system refuses.
    """
    target = real(folder)
    there = target.is_dir()
    part = target / _PART if there else target.with_name(f".{target.name}{_PART}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        if there:
            for file in sorted(part.iterdir(), key=lambda path: path.name == last):
                file.replace(target / file.name)
        else:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
