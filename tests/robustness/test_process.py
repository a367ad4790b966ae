"""The command as a process of its own: signals, short memory, full disks, closed pipes, narrow and dumb terminals, other encodings."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tokenizers

from ctrldecode import cli
from ctrldecode.cli import _corpora
from ctrldecode.cli._memory import is_of_memory

LONG = {
    "generate": ["generate", "--num", "100000", "--contains", "dog", "--seed", "0"],
    "sample": ["sample", "--num", "100000", "--contains", "dog", "--report", "report"],
    "trie": ["sample", "--method", "asap", "--num", "100000", "--grammar", "card", "--trie", "t"],
    "distill": ["distill", "--out", "o.safetensors", "--sequences", "100000", "--states", "16"],
    "fit-attribute": ["fit-attribute", "--data", "big.jsonl", "--out", "a.safetensors"],
    "grammar": ["grammar", "sample", "json", "--num", "10000000"],
    "explain": ["explain", "--prompt", "a", "--words", "600:", "--max-new-tokens", "900", "--out", "x.html"],
    "hmm": ["hmm", "sample", "tinytales-256", "--num", "100000"],
}


def call(*words, **options):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **options.pop("env", {})}
    return subprocess.run([sys.executable, "-m", "ctrldecode", *words], capture_output=True, check=False, env=environment, timeout=300, **options)  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_without_a_traceback_and_without_parts_of_files(
    number, code, tmp_path, monkeypatch, capfd
):
    from ctrldecode.core import _files

    def writing(_):
        with _files.replacing(tmp_path / "x"):
            assert list(tmp_path.iterdir())
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)  # the handler comes before it is over

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "_run", writing)
    of_interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs behind ignore it
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main([])
    finally:
        signal.signal(signal.SIGINT, of_interrupts)
    assert stop.value.code == code
    assert "Traceback" not in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_within_a_string_of_code_ends_with_the_same_code(tmp_path):
    """CPython holds such an interrupt for one that nobody caught, and kills a process that runs a module."""
    lines = ["from ctrldecode import cli", "cli._run = lambda _: exec('raise KeyboardInterrupt')", "cli.main([])"]
    (tmp_path / "interrupted.py").write_text("\n".join(lines))
    found = subprocess.run([sys.executable, "-m", "interrupted"], capture_output=True, check=False, timeout=300, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})  # fmt: skip
    assert (found.returncode, found.stderr) == (130, b"\n")


def test_other_threads_hear_no_signals_and_run_commands(capsys):
    codes = []

    def run():
        try:
            cli.main(["grammar", "list"])
        except SystemExit as stop:
            codes.append(stop.code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), ImportError("x.so: failed to map segment from shared object"), OSError(12, "Cannot allocate memory")]
)  # fmt: skip
def test_short_memory_is_told(error, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is not enough memory for this; ")


def test_a_panic_of_a_library_is_told(monkeypatch, capsys):
    def fail(_):
        processors = tokenizers.processors.TemplateProcessing(single="$A $B", pair="$A $B", special_tokens=[])
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
        tokenizer.post_processor = processors
        tokenizer.encode("a")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "error: a library gave up: index out of bounds" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_short_memory(monkeypatch):
    def fail(_):
        raise RuntimeError("shapes differ")

    assert not is_of_memory(RuntimeError("shapes differ"))
    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli.main([])


@pytest.mark.parametrize("suppressed", [False, True])
def test_an_error_amid_one_of_memory_is_of_memory(suppressed):
    """As that of llvmlite is, whose library could not be mapped."""
    error = OSError("Could not find/load shared object file 'libllvmlite.so'")
    error.__context__ = OSError("libllvmlite.so: failed to map segment from shared object")
    error.__suppress_context__ = suppressed
    assert is_of_memory(error) is not suppressed


@pytest.mark.parametrize("mebibytes", [200, 300, 1000])
def test_limits_of_memory_end_in_a_message(mebibytes):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20,) * 2)

    found = call("generate", "--max-new-tokens", "2", preexec_fn=limit, env={"OMP_NUM_THREADS": "1"})
    assert found.returncode == 2, found.stderr
    assert b"Traceback" not in found.stderr
    assert b"not enough memory" in found.stderr


def test_a_text_on_standard_input_that_is_too_long_is_refused():
    found = call("grammar", "check", "json", "-", input=b"a" * 17 * 2**20)
    assert found.returncode == 2
    assert found.stderr.startswith(b"error: the text on standard input has more than 16 MiB")


def test_a_file_of_texts_that_is_too_large_is_refused(run, tmp_path):
    path = tmp_path / "texts.txt"
    with path.open("wb") as file:
        file.truncate(_corpora._MOST + 1)  # without taking up space
    code, _, err = run("hmm", "eval", "tinytales-256", path)
    assert code == 2
    assert "at most 512 are read" in err
    code, _, err = run("distill", "--out", tmp_path / "o.safetensors", "--prompts", path)
    assert code == 2
    assert "more than 64 MiB" in err
    code, _, err = run("grammar", "check", path, "x")
    assert code == 2
    assert "more than 16 MiB" in err


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii:strict"}, {"COLUMNS": "20"}, {"COLUMNS": "0"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}],
)  # fmt: skip
def test_terminals_of_all_kinds_are_written_to(environment, tmp_path):
    path = tmp_path / "mine.lark"
    path.write_text('start: "é😀"+\n', encoding="utf-8")
    found = call("grammar", "sample", str(path), "--num", "2", "--max-bytes", "6", env=environment)
    assert (found.returncode, found.stderr.count(b"Traceback")) == (0, 0), found.stderr
    found = call("grammar", "check", str(path), "é".encode(), env=environment)
    assert found.returncode in {1, 2}
    assert b"Traceback" not in found.stderr


def test_output_that_nobody_reads_ends_quietly():
    with subprocess.Popen([sys.executable, "-m", "ctrldecode", "grammar", "sample", "json", "--num", "100000", "--max-bytes", "9"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == 141
    assert b"Traceback" not in told
    assert b"Exception" not in told


def test_a_full_disk_is_told():
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run(
            [sys.executable, "-m", "ctrldecode", "grammar", "list"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert found.returncode == 2
    assert b"No space left" in found.stderr
    assert b"Traceback" not in found.stderr


@pytest.mark.parametrize(
    "out", ["/dev/full/x.safetensors", "/proc/x.safetensors", "missing/x.safetensors", "n" * 300, "FOLDER"]
)
def test_paths_that_cannot_be_written_are_told(run, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    code, _, err = run("hmm", "convert", "tinytales-256", out, "--dtype", "uint8")
    assert code == 2
    assert err.startswith("error: ")
    assert [path.name for path in tmp_path.rglob("*")] == ["FOLDER"]


@pytest.mark.parametrize(
    ("out", "said"),
    [("missing/x.safetensors", "in a folder that does not exist"), ("/dev/null", "is not a file"), ("-", "is not a file"), ("FOLDER", "neither a file nor a pipe")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("option", "words"),
    [("--out", ["fit-attribute", "--data", "absent.jsonl", "--out"]), ("OUT", ["hmm", "convert", "absent"])],
)
def test_where_models_go_is_looked_at_before_the_work(run, tmp_path, monkeypatch, option, words, out, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    code, _, err = run(*words, out)
    assert code == 2
    assert err.startswith(f"error: {option} {out} ")
    assert said in err


def test_standard_output_without_a_file_behind_it_can_be_interrupted(run, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", stop)
    assert run("grammar", "list").code == 130


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [0.5, 2, 5, 9])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", LONG)
def test_commands_are_interrupted_at_any_time(name, number, code, seconds, tmp_path):
    lines = [f'{{"text": "a day {at} in the park with a dog", "label": {at % 2}}}\n' for at in range(300_000)]
    (tmp_path / "big.jsonl").write_text("".join(lines), encoding="ascii")
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # what ignores it makes its children ignore it
    with subprocess.Popen([sys.executable, "-m", "ctrldecode", *LONG[name]], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # fmt: skip
        signal.signal(signal.SIGINT, heard)
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.send_signal(number)
            told = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    # sample keeps what it has at Ctrl-C, and in its first milliseconds Python itself knows no signal handlers.
    assert process.returncode in {code, -number}
    assert b"Traceback" not in told
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.soak
@pytest.mark.parametrize(
    "words",
    [["generate", "--prompt", "-"], ["grammar", "check", "json", "-"], ["explain", "--prompt", "-", "--out", "x.html"]],
)
def test_a_gigabyte_on_standard_input_takes_little_memory(words, tmp_path):
    feeder = "import sys\nfor _ in range(1024): sys.stdout.buffer.write(b'a' * 2**20)"
    # Its own peak; what the system counts for children is the most of all, and of the parent before they began.
    told = "atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()))"
    command = f"import atexit, sys; {told}; from ctrldecode.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", feeder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source:
        found = subprocess.run([sys.executable, "-c", command, *words], stdin=source.stdout, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip
        source.stdout.close()
    assert found.returncode == 2
    assert "more than 16 MiB" in found.stderr
    assert int(found.stderr.split("VmHWM:")[1].split()[0]) < 2**20  # KiB
