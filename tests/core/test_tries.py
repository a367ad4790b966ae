"""Tries on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ctrldecode.core import _tries
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.kernels.tokens import trie as tries

if TYPE_CHECKING:
    from pathlib import Path

PIECES = Vocabulary([*(bytes([b]) for b in range(256)), *(b"%d" % n for n in range(10, 5000)), None], {5246})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ctrldecode"


def fresh() -> tries.Trie:
    _tries.trie_of.cache_clear()
    return _tries.trie_of(PIECES)


def same(trie: tries.Trie) -> bool:
    built = tries.build(PIECES.tokens)
    return (
        np.array_equal(trie.table, built.table)
        and np.array_equal(trie.ids, built.ids)
        and trie.longest == built.longest
    )


def test_a_trie_is_read_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert same(fresh())
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(tries, "build", None)  # it must come from the file
    read = fresh()
    monkeypatch.undo()
    assert same(read)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None])
def test_a_damaged_file_is_built_anew(folder: Path, damage: bytes | None) -> None:
    fresh()
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1000] if damage is None else damage)
    assert same(fresh())
    assert same(fresh())


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert same(fresh())
