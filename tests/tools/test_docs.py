"""Pages and pictures that are made from the code: what is committed is what the code makes, and its numbers are right."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from typer.main import get_command

from ctrldecode.cli._app import app
from tests.docs.pages import ROOT
from tools.docs import cli_reference, concepts

SUN, RAIN = concepts.SUN, concepts.RAIN


def next_prob(before: tuple[int, ...], token: int) -> float:
    rain = 0.2 if not before else 0.7 if before[-1] == RAIN else 0.1
    return rain if token == RAIN else 1 - rain


def prob(text: tuple[int, ...]) -> float:
    return math.prod(next_prob(text[:at], token) for at, token in enumerate(text))


def texts(length: int, start: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    return [start + rest for rest in itertools.product((SUN, RAIN), repeat=length - len(start))]


@pytest.fixture(scope="module")
def tree():
    return concepts.tree()


def test_psi_of_the_picture_is_the_expected_future(tree):
    prefixes = [prefix for length in range(concepts.DAYS + 1) for prefix in texts(length)]
    assert set(tree.psi) == set(prefixes)
    for prefix in prefixes:
        wanted = [prob(text) for text in texts(concepts.DAYS, prefix) if text.count(RAIN) >= 2]
        assert tree.psi[prefix] == pytest.approx(sum(wanted) / prob(prefix), rel=1e-5, abs=1e-12)


def test_distributions_of_the_picture_are_those_of_enumeration(tree):
    wet = [text for text in texts(concepts.DAYS) if text.count(RAIN) >= 2]
    total = sum(prob(text) for text in wet)
    assert tree.probs == pytest.approx({text: prob(text) for text in texts(concepts.DAYS)}, rel=1e-5)
    assert tree.aligned == pytest.approx({text: prob(text) / total for text in wet}, rel=1e-5)
    masked = {}
    for text in wet:  # the mask: a word is drawn among those after which two days of rain are still possible
        value = 1.0
        for at, token in enumerate(text):
            allowed = [v for v in (SUN, RAIN) if (*text[:at], v).count(RAIN) + concepts.DAYS - at - 1 >= 2]
            value *= next_prob(text[:at], token) / sum(next_prob(text[:at], v) for v in allowed)
        masked[text] = value
    assert tree.masked == pytest.approx(masked, rel=1e-5)


def test_picture_is_the_one_that_is_committed(tree):
    assert concepts.PICTURE.read_text(encoding="utf-8") == concepts.draw(tree), "run: python -m tools.docs.concepts"


def leaves(command, name):
    """Commands that do something, by name, with their parameters."""
    if not hasattr(command, "commands"):
        return [(name, command.params)]
    return [leaf for word, below in command.commands.items() for leaf in leaves(below, f"{name} {word}")]


def test_command_reference_is_the_one_that_is_committed():
    made = cli_reference.reference()
    assert cli_reference.PAGE.read_text(encoding="utf-8") == made, "run: python -m tools.docs.cli_reference"


def test_command_reference_has_every_option_of_every_command():
    sections = {
        part.split("`")[1]: part
        for part in re.split(r"^#+ ", cli_reference.PAGE.read_text("utf-8"), flags=re.MULTILINE)[2:]
    }
    found = leaves(get_command(app), "ctrldecode")
    assert len(found) >= 16
    for name, params in found:
        for param in params:
            option = param.param_type_name == "option"
            names = [*param.opts, *param.secondary_opts] if option else [param.metavar or param.name]
            for word in names:
                assert re.search(rf"[`/ ]{re.escape(word)}[` ]", sections[name]), f"{name} {word}"
        defaults = [
            param.default for param in params if type(param.default) in {int, float, str} and param.show_default is True
        ]
        for default in defaults:
            assert str(default) in sections[name], f"{name}: {default}"


def test_the_architecture_names_every_module_of_the_folders_that_it_goes_through():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| module of `(\w+)/` \|.*\n(?:\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 7
    for name in tables:
        table = re.search(rf"^\| module of `{name}/` \|.*\n(?:\|.*\n)+", text, re.MULTILINE)[0]
        named = set(re.findall(r"`(\w+\.(?:py|html|css|js))`", table))
        folder = ROOT / "ctrldecode" / name
        there = {path.name for path in folder.iterdir() if path.suffix in {".py", ".html", ".css", ".js"}}
        assert named == there - {"__init__.py"}, name
