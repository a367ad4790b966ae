"""Files that are either whole or not there: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A name to write to, which takes the place of `path` once the block has ended without an error.

    No reader ever sees a part, and whatever stops the writing leaves the old file as it was. The file gets the permissions that
    new files of the process have, whatever the writer gave it.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the system refuses, or the path is a device or a pipe, in whose place a file would be put.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is no file, and would be replaced by one", str(path))
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
