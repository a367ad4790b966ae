"""`import ctrldecode` is light, and its names are complete."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import ctrldecode
from ctrldecode import errors, hmm

HEAVY = ("torch", "transformers", "numba", "lark", "scipy", "pomegranate", "numpy")


def loaded_after(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has imported after running the code."""
    program = (
        f"{code}\nimport sys, json\nprint('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def test_import_is_light():
    assert loaded_after("import ctrldecode; ctrldecode.DeadEnd; ctrldecode.__version__; dir(ctrldecode)") == []


LIGHT = (
    "",
    "--help",
    "generate --help",
    "grammar list",
    "demo --help",
    "explain --help",
    "hmm",
    "hmm list",
    "hmm eval --help",
    "fit-attribute --help",
    "distill --help",
    "train class-lm --help",
)


@pytest.mark.parametrize("words", LIGHT)
def test_help_is_light(words: str):
    code = f"from ctrldecode.cli import main\ntry:\n    main({words.split()!r})\nexcept SystemExit as stop:\n    assert not stop.code"
    assert loaded_after(code) == []


def test_all_names_exist():
    for name in ctrldecode.__all__:
        assert getattr(ctrldecode, name) is not None
    assert set(ctrldecode.__all__) <= set(dir(ctrldecode))


def test_every_error_is_public():
    assert set(errors.__all__) <= set(ctrldecode.__all__)


def test_laws_is_a_module():
    assert ctrldecode.laws.__name__ == "ctrldecode.core.laws"
    assert callable(ctrldecode.laws.check)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ctrldecode.nothing


def test_version_is_that_of_the_distribution():
    assert ctrldecode.__version__ == version("ctrldecode")


def test_a_lookahead_needs_nothing_of_fitting_or_exchange():
    code = "import ctrldecode\nctrldecode.Lookahead\nimport sys\nprint([n for n in ('scipy.stats', 'scipy.optimize', 'pomegranate') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_names_of_hmm_exist():
    assert all(getattr(hmm, name) is not None for name in hmm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hmm.nothing
