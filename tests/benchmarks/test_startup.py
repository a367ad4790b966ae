"""How long it takes until nothing has happened yet: importing the package, showing the help."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.benchmarks.report import Report

RUNS = 7
COMMANDS = {
    'python -c "import ctrldecode"': [sys.executable, "-c", "import ctrldecode"],
    "ctrldecode --help": [sys.executable, "-m", "ctrldecode", "--help"],
}


@pytest.mark.bench
@pytest.mark.parametrize("name", COMMANDS)
def test_startup(name: str, report: Report):
    middle = statistics.median(seconds(COMMANDS[name]) for _ in range(RUNS))
    report.add("startup", ["command", "seconds"], [[f"`{name}`", f"{middle:.2f}"]])


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
