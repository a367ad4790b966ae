"""Token tries of vocabularies, kept in memory and on disk.

The folder is `ctrldecode` under XDG_CACHE_HOME, by default ~/.cache. A file there that cannot be read is built anew, and a
folder that cannot be written costs time only.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ctrldecode.core._files import replacing
from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["trie_of"]

_FORMAT = "2"  # raise it when the table changes
# Below this many tokens building is faster than reading.
_WORTH_KEEPING = 4096


@lru_cache(maxsize=4)  # one process rarely has more vocabularies; a trie of 150k tokens takes 5 MB
def trie_of(vocabulary: Vocabulary) -> tries.Trie:
    """The trie of a vocabulary's tokens."""
    if vocabulary.size < _WORTH_KEEPING:
        return tries.build(vocabulary.tokens)
    path = _folder() / f"trie-{_FORMAT}-{vocabulary.fingerprint}.safetensors"
    known = _load(path, vocabulary)
    if known is None:
        known = tries.build(vocabulary.tokens)
        _save(path, known)
    return known


def _folder() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen) / "ctrldecode"
    try:
        return Path.home() / ".cache" / "ctrldecode"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "ctrldecode"


def _load(path: Path, vocabulary: Vocabulary) -> tries.Trie | None:
    """The trie of a file; None where there is none, or what is there does not fit the vocabulary."""
    try:
        with safe_open(path, framework="numpy") as file:
            table, ids = file.get_tensor("table"), file.get_tensor("ids")
            said = (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError):
        return None
    count = sum(1 for token in vocabulary.tokens if token)
    whole = table.ndim == 2 and table.shape[0] == 4 and table.dtype == ids.dtype == np.int32 and ids.shape == (count,)
    whole = whole and said == _digest(table, ids)  # a link that goes astray would send the kernels into other memory
    return tries.Trie(table, ids, int(table[tries.DEPTH].max())) if whole else None


def _save(path: Path, trie: tries.Trie) -> None:
    """Write in one step, so that no reader ever sees a part; a folder that cannot be written is left alone."""
    with suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            save_file({"table": trie.table, "ids": trie.ids}, part, {"digest": _digest(trie.table, trie.ids)})


def _digest(*arrays: NDArray[np.int32]) -> str:
    """SHA-256 of shapes and bytes."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(repr(array.shape).encode())
        result.update(np.ascontiguousarray(array).data)
    return result.hexdigest()
