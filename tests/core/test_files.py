from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from ctrldecode.core._files import replacing


def test_the_file_takes_its_place_at_the_end_with_usual_permissions(tmp_path):
    path, usual = tmp_path / "x.safetensors", tmp_path / "usual"
    usual.touch()
    path.write_text("old")
    with replacing(path) as part:
        save_file({"a": torch.zeros(2)}, part)  # which makes a file of mode 0600
        assert path.read_text() == "old"
    assert path.stat().st_mode == usual.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [usual, path]


def test_an_error_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def write():
        with replacing(path) as part:
            part.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FileExistsError, match="would be replaced by one"), replacing(path) as part:
        part.write_text("x")
    assert path.is_fifo()
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]
