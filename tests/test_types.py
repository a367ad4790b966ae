"""Type checkers of users know every public symbol: none is left for them to infer, each in its own way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.soak  # half a minute
def test_the_types_of_all_public_symbols_are_known():
    command = [sys.executable, "-m", "pyright", "--verifytypes", "ctrldecode", "--ignoreexternal", "--outputjson"]
    beside = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=ROOT, env=beside, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["typeCompleteness"]
    assert Path(found["packageRootDirectory"]) == ROOT / "ctrldecode"
    unknown = [
        f"{symbol['name']}: {problem['message']}"
        for symbol in found["symbols"]
        for problem in symbol["diagnostics"]
        if not symbol["isTypeKnown"]
    ]
    assert not unknown, "\n".join(unknown)
    assert found["completenessScore"] == 1.0
