"""Every Python block and every command of the documentation runs, as it stands, in a folder beside the checkout's data.

Commands in sentences that are left out have a reason here; that they can be read at all is for `test_commands_are_right.py`.
Commands of other programs are for `test_programs_run.py`.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from dataclasses import asdict

import pytest
import torch

from ctrldecode import cli
from ctrldecode.distill.recipe import Recipe, Samples
from ctrldecode.kernels import _jit
from tests.docs.pages import PAGES, ROOT, answers, blocks, lines, mentions, prints, words_of
from tests.docs.stand_ins import provide

# Commands in sentences and tables that are not run, by how they begin; of those in blocks all are.
NOT_RUN_THERE = {
    "ctrldecode --help": "tests of the command line ask for it",
    "ctrldecode generate --num 100 |": "takes a minute; tests of the command line close the pipe",
    "ctrldecode distill --recipe small.toml": "takes as long as the command that made the recipe; tests of distillation compare the two",
    "ctrldecode sample --method cars --grammar card --prompt ...": "is not the whole command",
    "ctrldecode generate --contains ...": "is not the whole command",
}
SMALLER = {"--steps 150": "--steps 5", "--stories 4000": "--stories 40"}  # options that take long
READER = {"GRAMMAR": "arithmetic", "[TEXT]": "1+1", "[PREFIX]": "1+"}  # what a reader would write there


def runs(line: str) -> bool:
    return line.startswith(("ctrldecode ", "python -m tools."))


def smaller(line):
    for much, little in SMALLER.items():
        line = line.replace(much, little)
    return line


def commands(page):
    return [line for line in lines(page) if runs(line)]


def mentioned(page):
    """Commands in sentences that have arguments; others are only named."""
    found = [
        line for line in mentions(page) if line.startswith("ctrldecode ") and not line.startswith(tuple(NOT_RUN_THERE))
    ]
    return [line for line in found if any(word.startswith("-") or word in READER for word in words_of(line)[0])]


MENTIONED = sorted({line for page in PAGES for line in mentioned(page)})


# These show what is said of a text that cannot be.
SHOW_REFUSALS = {
    line
    for page in PAGES
    for line in commands(page)
    if line.startswith("ctrldecode grammar check") or (line.startswith("ctrldecode explain") and "--text" in line)
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which the checkout's data can be found, as the examples name it."""
    for name in ("ctrldecode", "grammars", "hmm"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CTRLDECODE_SHARED", str(tmp_path / "shared"))
    monkeypatch.setattr(_jit, "_NOTICE_AFTER_SECONDS", 3600.0)
    with torch.random.fork_rng():
        yield tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs a line in this process, with small files where it names the reader's own."""

    def tool(words):
        monkeypatch.setattr(sys, "argv", words[2:])
        importlib.import_module(words[2]).main()

    def call(line):
        provide(line, folder)
        words, read = words_of(smaller(line))
        words = [READER.get(word, word) for word in words]
        with (
            (folder / read).open(encoding="utf-8") if read else nullcontext(sys.stdin) as stdin,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdin", stdin)
            if words[0] == "python":
                tool(words)
                return capsys.readouterr().out
            with pytest.raises(SystemExit) as stop:
                cli.main(words[1:])
        said = capsys.readouterr()
        assert (stop.value.code or 0) == int(line in SHOW_REFUSALS), f"{line}\n{said.out}\n{said.err}"
        return said.out

    return call


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_python_blocks_run(page, folder, capsys):
    """What a page shows below a block is what the block prints."""
    names, shown = {"__name__": "example"}, prints(page)
    for number, block in enumerate(blocks(page), 1):
        capsys.readouterr()
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)  # noqa: S102  what the page tells to run
        assert shown.get(block, said := capsys.readouterr().out) == said


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_run(page, run):
    shown = answers(page)
    for line in commands(page):
        said = run(line)
        assert shown.get(line, said) == said


@pytest.mark.parametrize("line", MENTIONED)
def test_commands_in_sentences_run(line, run):
    run(line)


def test_answers_are_shown_somewhere():
    assert {page.name for page in PAGES if answers(page)} == {"cli.md"}
    assert {page.name for page in PAGES if prints(page)} == {"potentials.md"}
    for page in PAGES:
        assert answers(page).keys() <= set(commands(page))
        assert prints(page).keys() <= set(blocks(page))


def test_the_loop_of_the_shell_writes_labelled_texts(folder, run):
    """Of the first block of docs/class-lm.md: its command runs here once, and the loop is then given what that wrote."""
    block = next(block for block in blocks(ROOT / "docs" / "class-lm.md", "bash") if "for mood" in block)
    loop = block[block.index("for mood") : block.index("ctrldecode train")]
    line = next(line.strip() for line in loop.split("\n") if line.strip().startswith("ctrldecode generate"))
    (folder / "generated.jsonl").write_text(run(line.replace("$mood", "happy").replace("--num 60", "--num 2")))
    program = "ctrldecode() { cat generated.jsonl; }\n" + loop
    subprocess.run(["bash", "-euo", "pipefail", "-c", program], check=True)
    records = [json.loads(line) for line in (folder / "moods.jsonl").read_text().splitlines()]
    assert [record["label"] for record in records] == ["happy"] * 2 + ["sad"] * 2
    assert all(record["text"] for record in records)


def test_the_recipe_is_read(folder):
    """Of docs/distillation.md: it names every setting, at its default."""
    (block,) = blocks(ROOT / "docs" / "distillation.md", "toml")
    (folder / "recipe.toml").write_text(block, encoding="utf-8")
    provide(block, folder)
    recipe = Recipe.from_toml(folder / "recipe.toml")
    assert recipe == Recipe(samples=(Samples(12_000, 256, ("Does it rain?",)),))
    assert tomllib.loads(block).keys() == asdict(recipe).keys()


def test_blocks_of_no_other_language():
    """Of `console` is the command reference, which is made from the program; blocks without one are indented, and read by `lines`."""
    found = {page: re.findall(r"^```(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES}
    assert {page.name for page, languages in found.items() if "console" in languages} == {"cli-reference.md"}
    assert {language for languages in found.values() for language in languages} == {"python", "bash", "toml", "console"}


def test_what_is_not_run_is_there():
    shown = {line for page in PAGES for line in lines(page)}
    assert all(any(much in line for line in shown) for much in SMALLER)
    told = {line for page in PAGES for line in mentions(page)}
    assert all(any(line.startswith(left) for line in told) for left in NOT_RUN_THERE)
