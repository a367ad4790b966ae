"""The program as a process: exit codes, interrupts, closed pipes, and both ways to start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ctrldecode
from ctrldecode._resources import grammar_names, grammar_path, model_names, model_path
from ctrldecode.errors import InputError

MODULE = [sys.executable, "-m", "ctrldecode"]
SCRIPT = [str(Path(sys.executable).with_name("ctrldecode"))]


@pytest.mark.parametrize("program", [MODULE, SCRIPT], ids=["module", "script"])
def test_both_ways_to_start(program):
    result = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{ctrldecode.__version__}\n", "")


def test_no_arguments_shows_help(run):
    result = run()
    assert result.code == 0
    assert "generate" in result.out
    assert run("--help").out == result.out


@pytest.mark.parametrize("group", ["grammar", "hmm", "train"])
def test_a_group_without_a_command_shows_help(run, group):
    result = run(group)
    assert (result.code, result.err) == (0, "")
    assert result.out == run(group, "--help").out


def test_grammar_list(run):
    result = run("grammar", "list")
    assert [line.split()[0] for line in result.out.splitlines()] == grammar_names()
    assert all(len(line.split()) > 2 for line in result.out.splitlines())
    summaries = [line.split(maxsplit=1)[1] for line in result.out.splitlines()]
    assert len(set(summaries)) == len(summaries)


def test_unknown_command(run):
    result = run("generat")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert "generat" in result.err


def test_interrupt(model_folder):
    """Ctrl-C while texts come: exit code 130 and no traceback.

    A shell starts background jobs with SIGINT ignored, and programs inherit that: Python's own handler is set first.
    """
    program = "import signal; signal.signal(2, signal.default_int_handler); from ctrldecode.cli import main; main()"
    words = [sys.executable, "-c", program, "generate", "--model", str(model_folder), "--num", "1000000"]
    words += ["--max-new-tokens", "4"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "\n")


def test_reader_that_goes_away(model_folder):
    words = [*MODULE, "generate", "--model", str(model_folder), "--num", "1000000", "--max-new-tokens", "4"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["grammar", "list"], ["--version"], ["grammar", "check", "json", "["]], ids=" ".join)
def test_disk_that_is_full(words):
    with FULL.open("w") as full:
        result = subprocess.run([*MODULE, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    told = [line for line in result.stderr.splitlines() if not line.startswith("ctrldecode: preparing kernels")]
    assert told[0].startswith("error: the system could not read or write: ")
    assert len(told) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("words", ["grammar list", "generat"])
def test_output_that_is_closed(words):
    line = f'exec "{sys.executable}" -m ctrldecode {words} >&-'
    result = subprocess.run(["/bin/sh", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: standard output is closed")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_errors_do_not_go_to_standard_output():
    line = f'exec "{sys.executable}" -m ctrldecode generat 2>&-'
    result = subprocess.run(["/bin/sh", "-c", line], stdout=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")


def test_terminal_that_knows_only_ascii(model_folder):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    words = ["generate", "--model", str(model_folder), "--seed", "1", "--num", "4", "--max-new-tokens", "20"]
    result = subprocess.run([*MODULE, *words], capture_output=True, env=environment, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.isascii()


def test_grammar_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("json").write_text("start:")
    assert grammar_path("json").is_absolute()
    assert grammar_path("./json").read_text() == "start:"
    with pytest.raises(InputError, match="arithmetic"):
        grammar_path("nothing")


def test_model_paths():
    assert all((model_path(name) / "config.json").is_file() for name in model_names())
    with pytest.raises(InputError, match="tinytales"):
        model_path("nothing")
