"""Where `explain` writes: through links, to pipes and standard output, and never twice to one place."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctrldecode.cli._outputs import outputs, write
from ctrldecode.errors import InputError
from ctrldecode.explain import from_json


@pytest.fixture
def explain(run, model_folder, tmp_path, monkeypatch):
    """Run the command in the folder of the test, on a text of two tokens unless there is another."""
    monkeypatch.chdir(tmp_path)
    common = ["explain", "--model", model_folder, "--max-new-tokens", 9]
    return lambda *words: run(*common, *([] if "--text" in words else ["--text", "ab"]), *words)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder in which two names are one file in every way that there is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "file").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").symlink_to(".")
    (tmp_path / "dangling").symlink_to("new")
    os.link(tmp_path / "file", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def planned(*names, force=True):
    return outputs([(f"--{at}", Path(name)) for at, name in enumerate(names)], force=force)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file", "file"),
        ("file", "./file"),
        ("file", "deep/../file"),
        ("file", "link"),
        ("file", "folder/file"),
        ("file", "hard"),
        ("new", "./new"),
        ("new", "dangling"),
        ("new", "folder/new"),
        ("pipe", "./pipe"),
        ("-", "-"),
    ],
)
def test_two_names_of_one_file_are_refused(files, one, other):
    with pytest.raises(InputError, match="are one file"):
        planned(one, other)
    assert (files / "file").read_text(encoding="utf-8") == "old"


def test_two_names_of_two_files(files):
    assert [output.path for output in planned("file", "deep/file")] == [files / "file", files / "deep" / "file"]
    assert len(planned(os.devnull, os.devnull)) == 2  # nothing is kept there, so nothing is lost


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/file", "--0 no/such/file lies in a folder that does not exist"),
        ("lost", "--0 lost points to .*/no/file, which lies in a folder that does not exist"),
        ("file/below", "--0 file/below cannot be written to: Not a directory; name another file"),
        ("circle", "--0 circle cannot be written to: Too many levels of symbolic links; name"),
        ("~no-such-user/file", "cannot be written to: Could not determine home directory; name"),
        ("deep", "is neither a file nor a pipe"),
        ("socket", "is neither a file nor a pipe"),
    ],
)
def test_what_can_take_no_text(files, name, message):
    import socket

    (files / "circle").symlink_to("circle")
    (files / "lost").symlink_to("no/file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InputError, match=message):
            planned(name)


def test_a_file_is_kept_unless_told_so(files):
    for name in ("file", "link", "hard"):
        with pytest.raises(InputError, match=f"{name} exists; give another --0, or --force"):
            planned(name, force=False)
    assert planned("dangling", force=False)[0].path == files / "new"


def test_a_link_stays_and_what_it_points_to_is_written(explain, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "page.html").write_text("old", encoding="utf-8")
    (tmp_path / "page.html").symlink_to("kept/page.html")
    (tmp_path / "record.json").symlink_to("kept/record.json")
    result = explain("--out", "page.html", "--json", "record.json", "--force")
    assert result.out.splitlines()[:2] == ["wrote page.html", "wrote record.json"]
    assert (tmp_path / "page.html").is_symlink()
    assert (tmp_path / "kept" / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert from_json((tmp_path / "kept" / "record.json").read_text(encoding="utf-8")).text == "ab"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["page.html", "record.json"]


def test_a_pipe_is_written_to_and_stays(explain, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text(encoding="utf-8")))
    reader.start()
    explain("--out", "page.html", "--json", "pipe")
    reader.join()
    assert from_json(read[0]).text == "ab"
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_takes_it_without_force(explain, tmp_path):
    assert f"wrote {os.devnull}" in explain("--out", os.devnull).out
    assert list(tmp_path.iterdir()) == []
    assert Path(os.devnull).is_char_device()


def test_standard_output_has_nothing_else(explain, tmp_path):
    result = explain("--out", "page.html", "--json", "-")
    assert from_json(result.out).text == "ab"
    assert result.err.splitlines()[0] == "wrote page.html"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_of_a_shell(model_folder, tmp_path, name):
    """A file that the shell opened is not replaced by another of its name."""
    words = [sys.executable, "-m", "ctrldecode", "explain", "--model", model_folder, "--text", "é", "--out", name]
    with (tmp_path / "page.html").open("wb") as page:
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run(
            [*map(str, words), "--max-new-tokens", "9"],
            stdout=page,
            stderr=subprocess.PIPE,
            check=True,
            env=environment,
        )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert text.endswith("</html>\n")
    assert "ψ" in text  # no escapes, whatever the locale says
    assert b"Log-weight" in done.stderr


def test_files_come_into_being_together(files):
    """What cannot be written in the end takes the other file back, too."""
    page, record = planned("page", "deep/record")
    (files / "deep").rmdir()
    with pytest.raises(OSError, match="deep"):
        write([(page, "a"), (record, "b")])
    assert not (files / "page").exists()


def test_standard_input_is_read_once(explain, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"[a]\n")))
    result = explain("--text", "-", "--prompt", "-")
    assert (result.code, result.out) == (2, "")
    assert "--prompt and --text both read standard input, which can be read once" in result.err
    assert list(tmp_path.iterdir()) == []
