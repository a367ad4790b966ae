"""Every command that the documentation names can be read: by the Makefile, the tools, pytest, torchrun, the command line.

Nothing is done but to parse: `test_examples.py` runs what takes seconds.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest
import typer
from torch.distributed.run import get_args_parser
from typer.core import TyperGroup
from typer.main import get_command

from ctrldecode.cli._app import app
from tests.docs.pages import ROOT, TEXTS, shown, words_of

UsageError = typer.BadParameter.__mro__[1]  # which typer does not name
# What a reader puts in the place of a word of capitals, where not any word will do.
READER = {"GRAMMAR": "json", "TARGET": "all", "M": "1", "N": "1", "S": "1"}
LINES = {line: page for page in TEXTS for line in shown(page)}


class Parsed(Exception):  # noqa: N818  no error
    """A tool has read its arguments, and would begin to work."""


def check(line):
    words, _ = words_of(line)
    words = [READER.get(word.strip("[]"), word) for word in words]
    if len(words) > 1:  # else the program is only named
        CHECKS[words[0]](words[1:])


def check_ctrldecode(words):
    command, name = get_command(app), "ctrldecode"
    while words and isinstance(command, TyperGroup) and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"ctrldecode has no command {name}"
        command = command.commands[name]
    if not words:
        return  # the command is only named
    open_ended = words[-1] == "..." and not (words[-2:-1] and words[-2].startswith("-"))
    if open_ended or isinstance(command, TyperGroup):
        context = command.make_context(name, [], resilient_parsing=True)
        command.make_parser(context).parse_args(args=words[:-1] if open_ended else words)
    else:
        command.make_context(name, words)  # this wants all that is needed, and values of the right kind


def check_make(words):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    for word in words:
        name, is_set, _ = word.partition("=")
        if is_set:
            assert re.search(rf"^{name} \?=", makefile, re.MULTILINE), f"the Makefile has no variable {name}"
        else:
            assert name in phony, f"the Makefile has no target {name}"
            assert re.search(rf"^{name}:", makefile, re.MULTILINE)


def check_pip(words):
    """`install`, of this project, with extras that it has."""
    command, target = words
    assert command == "install"
    name, _, extras = target.removesuffix("]").partition("[")
    assert name in {".", "ctrldecode"}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(filter(None, extras.split(","))) <= known.keys()


def check_pytest(words):
    """Something is collected: files and marks exist, and the options are known."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def check_python(words):
    option, what, *rest = words
    if option == "-c":
        compile(what, "an example", "exec")
        return
    assert option == "-m"
    if what == "ctrldecode":
        check_ctrldecode(rest)
    else:
        check_tool(what, rest)


def check_tool(name, words):
    """The tool's own parser takes the words; where there are none, the tool may be only named."""
    assert importlib.util.find_spec(name), f"there is no {name}"
    if importlib.util.find_spec(name).submodule_search_locations:
        name += ".__main__"
    module = importlib.import_module(name)
    assert '\nif __name__ == "__main__":\n' in (ROOT / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    if "argparse" not in vars(module):
        assert not words, f"{name} takes no arguments"
    elif words:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *words])
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
            with pytest.raises(Parsed):
                module.main()


def parse_and_stop(parser):
    _, unknown = parser.parse_known_args()
    assert not unknown, f"no such arguments: {unknown}"
    raise Parsed


def check_torchrun(words):
    given = get_args_parser().parse_args(words)
    assert given.module
    assert given.training_script == "ctrldecode"
    check_ctrldecode(given.training_script_args)


def check_towncrier(words):
    """It says what it would write."""
    command = [sys.executable, "-m", "towncrier", *words, "--draft"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CHECKS = {
    "ctrldecode": check_ctrldecode,
    "make": check_make,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
    "torchrun": check_torchrun,
    "towncrier": check_towncrier,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # which some tools set when they are imported


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{page.name}: {line[:60]}") for line, page in LINES.items()])
def test_command_can_be_read(line):
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        "ctrldecode dream",
        "ctrldecode generate --colour red",
        "ctrldecode generate --num many",
        "ctrldecode distill --states 3",
        "ctrldecode train class-lm --colour ...",
        "make tea",
        "make COLOUR=red test",
        "pip install '.[tea]'",
        "pytest tests/nowhere.py",
        "python -m tools.nowhere",
        "python -m tools.moods.truncate --colour red --out folder",
        "python -m tools.docs.concepts --colour red",
        "torchrun --nproc-per-node 2 -m ctrldecode distill --colour red",
        "torchrun --colour red -m ctrldecode distill ...",
        "towncrier burn",
    ],
)
def test_wrong_commands_are_found(line):
    with pytest.raises((AssertionError, SystemExit, UsageError)):
        check(line)


def test_all_programs_are_named_somewhere():
    assert {line.partition(" ")[0] for line in LINES} == CHECKS.keys()
