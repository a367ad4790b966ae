"""The command line in this process: every command with arguments of every kind; it ends with 0, 1 or 2 and without a traceback.

A command that is asked for too much is interrupted, as by Ctrl-C, and must then end with 130, or with what it has.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from typer.main import get_command

from ctrldecode import cli
from ctrldecode.cli._app import app
from tools.fuzz._models import model_folder, small_hmm
from tools.fuzz._runner import Wrong, within

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["CommandLine"]

_SECONDS = 4.0  # before Ctrl-C
_ENDS = {0, 1, 2, 130}
_IGNORED = "Exception ignored "  # said by Python, in a later case too, if Ctrl-C came in a callback of numba or of a weak reference
_STRANGE = ("", "-", "--", " ", ".", "..", "/", "~", "\x00", "a\x00b", "\udcff", "é😀", "a\nb", "-1", "0", "1", "99999999999999999999999", "-99999999999999999999999", "1e309", "nan", "inf", "-inf", "1_000", "٣", "true", "None", "[]", "{}", "x" * 5000, "happy", "happy=nan", "x=1e400", "x=", "=3", "2:1", ":", "::", "a|", "|", "/dev/null", "/dev/full", "/nothing/there", "/proc/self/mem", "FOLDER", "WHOLE.safetensors", "texts.jsonl", "labelled.jsonl", "latin.txt", "empty", "mine.lark", "bad.lark", "damaged.safetensors", "recipe.toml", "MODEL", "~root/x", "http://localhost:1/x", "a/b/c/d")  # fmt: skip
_NUMBERS = ("0", "1", "2", "3", "-1", "4", "7", "99999999999", "18446744073709551615", "18446744073709551616", "1.5", "nan", "inf", "-0.0", "1e-30", "1e30", "")  # fmt: skip
_SENSIBLE: dict[str, tuple[str, ...]] = {
    "grammar": ("json", "card", "arithmetic", "mine.lark", "bad.lark", "latin.txt"),
    "model": ("MODEL",),
    "base": ("MODEL",),
    "hmm": ("WHOLE.safetensors", "WHOLE.safetensors", "damaged.safetensors", "other.safetensors", "none"),
    "source": ("WHOLE.safetensors", "MODEL", "FOLDER"),
    "out": ("out.safetensors", "new", "FOLDER", "FOLDER/out.safetensors", "/nothing/out.safetensors"),
    "data": ("labelled.jsonl", "named.jsonl", "named.jsonl", "texts.jsonl", "latin.txt", "empty"),
    "texts": ("texts.jsonl", "latin.txt", "empty", "mine.lark"),
    "text": ("ab", "{}", "1+2", "-", ""),
    "prefix": ("", "{", "a"),
    "prompt": ("", "ab", "-", "a\nb"),
    "contains": ("ab", "a|b", "day"),
    "avoid": ("z", "q|w"),
    "words": ("2", "1:3", ":3", "2:"),
    "attribute": ("happy", "good.safetensors"),
    "guide": ("x", "x=3", "y=0.1"),
    "class_lm": ("MODEL",),
    "num": ("1", "2"),
    "max_new_tokens": ("1", "4", "8"),
    "length": ("1", "4"),
    "sequences": ("1", "4"),
    "states": ("2", "4"),
    "prompts": ("texts.jsonl", "empty"),
    "recipe": ("recipe.toml", "labelled.jsonl"),
    "longest": ("1", "20"),
    "codes": ("x,y", "x,y", "y,x", "x", ","),
    "steps": ("1", "2"),
    "batch_size": ("1", "2"),
    "max_length": ("8", "16"),
    "report": ("report", "FOLDER", "texts.jsonl"),
    "trie": ("trie", "texts.jsonl", "FOLDER"),
    "work": ("work", "FOLDER", "texts.jsonl"),
    "epochs": ("0.5", "1"),
    "method": ("importance", "asap", "cars", "rejection", "smc", "branching", "mcmc"),
    "device": ("cpu", "cuda", "meta", "cpu:3"),
    "seed": ("0", "1"),
    "max_lm_calls": ("1", "20"),
    "moves": ("0", "2"),
    "json": ("record.json", "-", "FOLDER", "/nothing/record.json"),
    "dtype": ("float32", "float16", "uint8"),
    "held_out": ("named.jsonl", "texts.jsonl"),
    "separator": ("b", "\\n\\n"),
    "name": ("good", "happy"),
    "holdout": ("0.5", "0.2", "0", "1"),
    "temperature": ("0.5", "1", "0"),
    "mix": ("0.2", "0", "1"),
    "prefixes": ("0.5", "0", "1"),
    "learning_rate": ("0.001", "0", "1"),
}
_INPUTS = ("", "ab\n", "{}", "a\x00b", "\udcff\udcfe", "é\r\n", "x" * 100_000)


@cache
def _commands() -> dict[tuple[str, ...], list[Any]]:
    """Every command with its parameters, and the groups, which show their help."""
    return dict(_leaves(get_command(app), ()))


def _leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    yield words, command.params
    for word, below in getattr(command, "commands", {}).items():
        yield from _leaves(below, (*words, word))


class CommandLine:
    """The target."""

    name = "cli"

    def make(self, rng: random.Random) -> dict[str, Any]:
        """Words and standard input: many arguments or few, all that are required, and up to two words that are strange."""
        words, parameters = rng.choice(list(_commands().items()))
        strange = rng.choice((0, 0, 1, 2))
        share = rng.choice((0.05, 0.25))  # many at once are nearly always refused, by one or for two together
        chosen = [each for each in parameters if each.required or rng.random() < share or each.name in _ALWAYS]
        chosen += [each for each in chosen if getattr(each, "multiple", False) and rng.random() < 0.3]
        odd = set(rng.sample(range(len(chosen)), min(strange, len(chosen))))
        rest: list[str] = []
        for place, parameter in enumerate(chosen):
            rest += _given(rng, parameter, odd=place in odd)
        if rng.random() < 0.08:
            rest.insert(rng.randint(0, len(rest)), rng.choice((*_STRANGE, "--help", "--nothing")))
        return {"words": [*words, *rest], "input": rng.choice(_INPUTS)}

    def run(self, case: dict[str, Any]) -> str:
        """Call the command in a folder of its own."""
        _warm()
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            _furnish(Path(place))
            code, told = _called(
                [str(model_folder()) if word == "MODEL" else word for word in case["words"]], case["input"]
            )
            left = sorted(path.name for path in Path(place).rglob("*.part"))
        if code not in _ENDS:
            raise Wrong(f"cli exit code {code}: {told[-300:]}")
        if code == 2 and not told.strip():
            raise Wrong("cli: refused without a word")
        if "Traceback" in told and _IGNORED not in told:
            raise Wrong(f"cli shows a traceback, {told.splitlines()[-1][:60]!r}: {told[-2000:]}")
        if left:
            raise Wrong(f"cli leaves parts of files: {left}")
        return f"exit {code}"


@cache
def _warm() -> None:
    """Compile the kernels, which may take minutes once on a machine, and import what commands import."""
    short = ["--model", str(model_folder()), "--num", "1", "--max-new-tokens", "4", "--words", ":3"]
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        _furnish(Path(place))
        for method in _SENSIBLE["method"]:
            _called(["sample", *short, "--method", method, "--hmm", "WHOLE.safetensors", "--grammar", "json"], "", 600)
        _called(["generate", *short, "--beams", "2", "--hmm", "WHOLE.safetensors"], "", 600)
        _called(["hmm", "convert", "WHOLE.safetensors", "new", "--dtype", "uint8"], "", 600)
        _called(
            ["distill", "--recipe", "recipe.toml", "--out", "out.safetensors", "--model", str(model_folder())], "", 600
        )


_ALWAYS = {
    "model",
    "num",
    "max_new_tokens",
    "sequences",
    "states",
    "length",
    "steps",
    "base",
}  # so that a case is short


def _given(rng: random.Random, parameter: Any, *, odd: bool) -> list[str]:
    """The words of one parameter."""
    flag = getattr(parameter, "is_flag", False)
    names = [*parameter.opts, *parameter.secondary_opts] if flag else parameter.opts
    before = [] if parameter.param_type_name == "argument" else [rng.choice(names)]
    if flag:
        return before
    if odd:
        return [*before, rng.choice(_STRANGE if rng.random() < 0.6 else _NUMBERS)]
    known = _SENSIBLE.get(parameter.name) or _choices(parameter)
    return [*before, rng.choice(known or _NUMBERS[:6])]


def _choices(parameter: Any) -> tuple[str, ...]:
    """The values of a parameter that is one of an enumeration."""
    kinds = [parameter.type_descriptor.annotation, *get_args(parameter.type_descriptor.annotation)]
    return tuple(str(value) for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for value in kind)


def _furnish(folder: Path) -> None:
    """Files of all kinds, whole and not."""
    (folder / "FOLDER").mkdir()
    small_hmm(size=260, eos=257).save(folder / "WHOLE.safetensors")  # of the model
    small_hmm().save(folder / "other.safetensors")
    (folder / "damaged.safetensors").write_bytes((folder / "WHOLE.safetensors").read_bytes()[:-9])
    (folder / "empty").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "texts.jsonl").write_text('{"text": "ab"}\n{"text": "a day"}\n', encoding="ascii")
    lines = [
        f'{{"text": "{"good" if label else "bad"} day {at}", "label": {label}}}\n'
        for at in range(6)
        for label in (0, 1)
    ]
    (folder / "labelled.jsonl").write_text("".join(lines), encoding="ascii")
    named = [f'{{"text": "day {at}", "label": "{label}"}}\n' for at in range(6) for label in ("x", "y")]
    (folder / "named.jsonl").write_text("".join(named), encoding="ascii")
    (folder / "mine.lark").write_text('start: "a" "b"?\n', encoding="ascii")
    (folder / "bad.lark").write_text("start: itme\n", encoding="ascii")
    (folder / "recipe.toml").write_text(
        'model = "MODEL"\nstates = 4\n[[samples]]\nsequences = 4\nlength = 4\n', encoding="ascii"
    )


def _called(words: list[str], given: str, seconds: float = _SECONDS) -> tuple[int, str]:
    """Exit code, and what was told on standard error."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    stdin = io.TextIOWrapper(io.BytesIO(given.encode(errors="surrogateescape")), encoding="utf-8")
    before = sys.stdin, os.environ.get("HF_HUB_OFFLINE")
    sys.stdin = stdin
    os.environ["HF_HUB_OFFLINE"] = "1"
    code: Any = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), within(seconds, KeyboardInterrupt):
            cli.main(words)
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.stdin = before[0]
    err.flush()
    return int(code), err.buffer.getvalue().decode()
