"""Every Python block and every command of the documentation runs, as it stands, in an empty folder beside the checkout's data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from ctrldecode import cli
from ctrldecode.kernels import _jit

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "ctrldecode" / "tinytales" / "README.md"]
# What stands for the reader's own model, files or machines.
NOT_HERE = ("gpt2", "my-", "./my.lark", "torchrun", "< ", "moods.jsonl", "labelled.jsonl", "train.jsonl")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Lines of indented or bash blocks that call ctrldecode, in order; a line that ends in a backslash goes on."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    lines = [*fenced.split("\n"), *(line[4:] for line in text.split("\n") if line.startswith("    "))]
    found = [line.removeprefix("$ ") for line in lines]
    return [line for line in found if line.startswith("ctrldecode ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which the checkout's data can be found, as the examples name it."""
    for name in ("ctrldecode", "grammars", "hmm"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(_jit, "_NOTICE_AFTER_SECONDS", 3600.0)
    with torch.random.fork_rng():
        yield tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_python_blocks_run(page, folder):
    names = {"__name__": "example"}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)  # noqa: S102  what the page tells to run


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_run(page, folder, capsys):
    ran = 0
    for line in commands(page):
        if any(word in line for word in NOT_HERE):
            continue
        words = shlex.split(line, comments=True)
        with pytest.raises(SystemExit) as stop:
            cli.main(words[1:])
        said = capsys.readouterr()
        # These examples show what is said of a text that cannot be.
        impossible = words[1:3] == ["grammar", "check"] or (words[1] == "explain" and "--text" in words)
        wanted = 1 if impossible else 0
        assert (stop.value.code or 0) == wanted, f"{line}\n{said.out}\n{said.err}"
        ran += 1
    assert ran or page.name in {"index.md", "class-lm.md"}  # whose commands are for other models and data
