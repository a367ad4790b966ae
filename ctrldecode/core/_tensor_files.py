"""Reads and writes one kind of file: tensors and JSON metadata in safetensors. Knows nothing of what the tensors mean."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ctrldecode.core._files import replacing
from ctrldecode.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

__all__ = ["as_json", "digest", "read", "write"]

_KEY = "ctrldecode"  # the entry of the safetensors header that holds our JSON


def write(path: str | Path, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write in one step: no reader ever sees a part, and whatever stops the writing leaves the old file as it was.

    Args:
        path: the file; its folder must exist.
        kind: what the file holds, such as "hmm".
        tensors: what to store, by name.
        metadata: what JSON can hold.

    Raises:
        InputError: the folder does not exist, the path is a folder, or JSON cannot hold the metadata.
        ModelError: the system cannot write there.
    """
    path = Path(path)
    header = {_KEY: as_json({**metadata, "kind": kind})}
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(
            f"cannot write {str(path)!r}: wanted a file in a folder that exists; create {path.parent} first"
        )
    try:
        with replacing(path) as part:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, header)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot write {str(path)!r}: {error}; see to the space left and to permissions, or choose another folder"
        ) from error


def read(path: str | Path, kind: str, version: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `write` made.

    Raises:
        InputError: there is no such file.
        ModelError: it is damaged, or no file of this kind and version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; wanted a safetensors file of kind {kind!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{str(path)!r} is damaged or no safetensors file ({error}); copy or download it again, or make it anew"
        ) from error
    metadata = _parsed(header.get(_KEY, "{}"))
    if (metadata.get("kind"), metadata.get("format")) != (kind, version):
        raise ModelError(
            f"{str(path)!r} holds kind {metadata.get('kind')!r}, format {metadata.get('format')!r}; wanted kind {kind!r}, "
            f"format {version}; make it anew, or use the version of ctrldecode that wrote it"
        )
    return tensors, metadata


def as_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON text.

    Raises:
        InputError: JSON cannot hold it.
    """
    try:
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"metadata must be what JSON can hold ({error}); pass strings, numbers, lists and dicts"
        ) from error


def digest(tensors: Iterable[Tensor], *rest: object) -> str:
    """SHA-256 of types, shapes and bytes of tensors, and of the repr of the rest."""
    result = hashlib.sha256(repr(rest).encode())
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        result.update(repr((array.dtype.str, array.shape)).encode())
        result.update(array.data)
    return result.hexdigest()


def _parsed(text: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
