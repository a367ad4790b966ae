"""Tables of lookaheads in memory and on disk."""

from __future__ import annotations

import pytest
import torch

from ctrldecode.core import _tensor_files
from ctrldecode.errors import InputError
from ctrldecode.hmm import _table
from ctrldecode.hmm.lookahead import Lookahead
from tests.hmm.stories import both_of, story_hmm


def test_tables_are_kept_continued_and_read_from_disk(tmp_path):
    _table._kept.clear()
    automaton = both_of(3, 7)

    def table(length):
        return Lookahead(story_hmm(), automaton, max_new_tokens=length, cache_dir=tmp_path).table

    short = table(5)
    assert table(4) is short
    longer = table(8)
    torch.testing.assert_close(longer.future[:6], short.future)
    assert len(list(tmp_path.iterdir())) == 1
    _table._kept.clear()
    again = table(8)
    torch.testing.assert_close(again.future, longer.future)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"cut off")
    _table._kept.clear()
    torch.testing.assert_close(table(8).future, longer.future)


def test_a_table_on_disk_serves(tmp_path, monkeypatch):
    """What is in a file is not computed again; what is in memory is written too."""
    Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6)
    made = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6, cache_dir=str(tmp_path / "a" / "b")).table
    _table._kept.clear()
    monkeypatch.setattr(_table.kernels, "table_step", None)
    found = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6, cache_dir=tmp_path / "a" / "b").table
    assert torch.equal(found.future, made.future)
    assert torch.equal(found.log_scale, made.log_scale)


def spoilt(tensors, header):
    tensors["future"][2, 0, 0] += 0.25
    return tensors, header


def foreign(tensors, header):
    """What a table of another problem would be, under this one's name."""
    other = Lookahead(story_hmm(), both_of(4, 7), max_new_tokens=6, cache_dir=None).table
    return {"future": other.future, "log_scale": other.log_scale}, header


@pytest.mark.parametrize("change", [spoilt, foreign, lambda tensors, _: (tensors, {"format": _table._FORMAT})])
def test_a_damaged_table_on_disk_is_made_anew(tmp_path, change):
    _table._kept.clear()
    made = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6, cache_dir=tmp_path).table
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    _tensor_files.write(path, _table._KIND, *change(*_tensor_files.read(path, _table._KIND, _table._FORMAT)))
    assert path.read_bytes() != whole
    _table._kept.clear()
    again = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6, cache_dir=tmp_path).table
    torch.testing.assert_close(again.future, made.future)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    _table._kept.clear()
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner", "\0", 3):
        with pytest.raises(InputError, match="cache_dir must be a folder"):
            Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6, cache_dir=folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_tensor_files, "save_file", full)
    with pytest.raises(InputError, match=r"kept in cache_dir.*No space left.*None keeps tables in memory"):
        Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=6, cache_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
