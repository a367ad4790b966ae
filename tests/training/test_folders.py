"""Publishing a folder, through links and onto other file systems; and which folders lie in which."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctrldecode.training._folders import contents, overlap, published

MEMORY = Path("/dev/shm")  # noqa: S108  a second file system, most often


def write(folder: Path) -> None:
    with published(folder, "last") as part:
        (part / "last").write_text("2")
        (part / "first").write_text("1")


def fail(folder: Path) -> None:
    with published(folder, "last") as part:
        (part / "last").write_text("2")
        raise ZeroDivisionError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_appears_at_once(tmp_path: Path) -> None:
    with published(tmp_path / "out", "last") as part:
        (part / "last").write_text("2")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["last"]


def test_into_a_folder_files_go_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (moved.append(self.name), replace(self, to)))
    write(tmp_path / "out")
    assert moved == ["first", "last"]
    assert names(tmp_path / "out") == ["first", "last"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("out", "there"):
        with pytest.raises(ZeroDivisionError):
            fail(tmp_path / name)
    assert names(tmp_path) == ["there"]
    assert names(tmp_path / "there") == []


def test_what_a_killed_process_left_is_no_content(tmp_path: Path) -> None:
    with published(tmp_path, "last") as part:
        kept = part.name
    (tmp_path / kept).mkdir()
    (tmp_path / kept / "half").write_text("1")
    assert contents(tmp_path) == []
    write(tmp_path)
    assert names(tmp_path) == ["first", "last"]
    assert names(tmp_path) == sorted(path.name for path in contents(tmp_path))


def test_the_temporary_folder_lies_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "out").symlink_to(tmp_path / "far" / "out")
    with published(tmp_path / "near" / "out", "last") as part:
        assert part.parent == tmp_path / "far"
        (part / "last").write_text("2")
    assert names(tmp_path / "near") == ["out"]
    assert (tmp_path / "near" / "out").is_symlink()
    assert names(tmp_path / "far" / "out") == ["last"]


@pytest.mark.skipif(not os.access(MEMORY, os.W_OK), reason="needs /dev/shm")
@pytest.mark.parametrize("there", [True, False], ids=["to a folder", "to nothing"])
def test_a_link_to_another_file_system(tmp_path: Path, there: bool) -> None:
    far = MEMORY / f"ctrldecode-{os.getpid()}-{tmp_path.name}"
    if MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("it is no other file system here")
    try:
        if there:
            far.mkdir()
        (tmp_path / "out").symlink_to(far)
        write(tmp_path / "out")
        assert names(far) == ["first", "last"]
    finally:
        for path in far.iterdir() if far.is_dir() else ():
            path.unlink()
        far.rmdir()


def test_overlap(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert overlap(tmp_path / "out", tmp_path / "out")
    assert overlap(tmp_path / "out", tmp_path / "link")
    assert overlap(tmp_path / "link" / "work", tmp_path / "out")
    assert overlap(tmp_path / "out", tmp_path)
    assert not overlap(tmp_path / "out", tmp_path / "out.train")
