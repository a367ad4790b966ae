"""What blocks of the documentation give to `make`, `pip` and `torchrun` is run: by `.ci/run`, or here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ctrldecode.hmm import HMM
from tests.docs.pages import PAGES, ROOT, blocks, lines, words_of
from tests.docs.test_examples import runs

PROGRAMS = ("make", "pip", "torchrun")
BLOCKS = {name: [line for page in PAGES for line in lines(page) if line.startswith(f"{name} ")] for name in PROGRAMS}
# What makes distillation short.
SMALL = "--states 4 --sequences 600 --length 16 --device cpu --no-curves"


def done(words, folder, **environment):
    """A command in a process of its own, which has ended well."""
    found = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return found.stdout


def test_every_line_of_bash_is_run_somewhere():
    """All but the loop of docs/class-lm.md begin with a program that some test runs; the loop has one of its own."""
    for page in PAGES:
        for line in filter(str.strip, "".join(blocks(page, "bash")).replace("\\\n", " ").split("\n")):
            loop = line.startswith(("for mood", "  ctrldecode generate", "done > moods.jsonl"))
            assert loop or runs(line) or line.partition(" ")[0] in PROGRAMS, f"{page.name}: {line}"


def test_targets_are_made_by_continuous_integration():
    ran = (ROOT / ".ci" / "run").read_text(encoding="utf-8").split("\n")
    assert {" ".join(words_of(line)[0]) for line in BLOCKS["make"]} == {
        line for line in ran if line.startswith("make ")
    }


@pytest.mark.parametrize("line", dict.fromkeys(BLOCKS["pip"]))
def test_pip_installs(line, tmp_path):
    """Into an empty environment that finds this one's packages, so nothing is fetched."""
    done([sys.executable, "-m", "venv", tmp_path / "venv"], tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    here = Path(sysconfig.get_path("purelib"))
    there = Path(done([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip())
    (there / "here.pth").write_text(f"import sys; sys.path.insert(1, {str(here)!r})\n")  # before its own setuptools
    options = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done([python, "-m", *words_of(line)[0]], ROOT, **options)
    told = done([python, "-c", "import accelerate, ctrldecode; print(ctrldecode.__file__)"], tmp_path, PYTHONPATH="")
    assert Path(told.strip()) == there / "ctrldecode" / "__init__.py"
    assert done([python.parent / "ctrldecode", "grammar", "list"], tmp_path, PYTHONPATH="")


@pytest.mark.parametrize("line", dict.fromkeys(BLOCKS["torchrun"]))
def test_processes_together(line, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = words_of(line)[0]
    options = {"PET_MASTER_PORT": str(port), "PET_MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    told = done([sys.executable, "-m", "torch.distributed.run", *words[1:], *SMALL.split()], tmp_path, **options)
    assert told.count("nats a token held out") == 1
    assert HMM.load(tmp_path / words[words.index("--out") + 1]).initial.shape == (4,)
