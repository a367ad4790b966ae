"""Files that are either whole or not there: written under a temporary name, then renamed.

What is written is safetensors with metadata of strings, or text. It knows nothing of what is in them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ctrldecode.core._files import replacing
from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = ["read_metadata", "read_tensors", "write_bytes", "write_tensors"]


def write_bytes(path: Path, data: bytes) -> None:
    """Write the whole file or none of it: a crash leaves the old file, an error removes the temporary one.

    Raises:
        DistillationError: the system refuses, most often because the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DistillationError(
            f"{path} could not be written, {len(data):,} bytes: {error.strerror}. Free some space, or see to the "
            "permissions, then go on with --resume; what was written before is whole"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As `write_bytes`, in the format of safetensors."""
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata)))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        DistillationError: it is not there, or no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file, without its tensors.

    Raises:
        DistillationError: it is not there, or no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DistillationError:
    return DistillationError(f"{path} cannot be read: {error}; remove it, and --resume makes it again")
