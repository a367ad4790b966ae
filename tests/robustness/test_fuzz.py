"""Every target of tools.fuzz, for a fixed number of cases that are the same on every machine; the long runs are in docs/robustness.md."""

from __future__ import annotations

import random

import pytest

from tools.fuzz import _cli, _runner
from tools.fuzz._damage import damaged
from tools.fuzz._targets import TARGETS

CASES = {"grammar": 60, "regex": 120, "files": 600, "classlm": 40, "cli": 25}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_found(name):
    tally = _runner.Tally()
    _runner.fuzz(TARGETS[name], tally, seed=0, start=0, cases=CASES[name])
    assert not tally.findings, "\n".join(found.told for found in tally.findings.values())
    assert tally.cases == CASES[name]
    assert len(tally.outcomes) > 1  # some are taken, and some refused


@pytest.mark.parametrize("name", TARGETS)
def test_a_case_is_known_by_its_number(name):
    first, again, other = (TARGETS[name].make(random.Random(seed)) for seed in ("1", "1", "2"))
    assert first == again != other


def test_every_argument_has_values_that_a_command_can_take():
    """Numbers are for what is a number; an enumeration and a switch bring their own."""
    for words, parameters in _cli._commands().items():
        for parameter in parameters:
            known = parameter.name in _cli._SENSIBLE or _cli._choices(parameter) or getattr(parameter, "is_flag", False)
            number = parameter.type_descriptor.annotation in {int, float}
            assert known or number, f"{' '.join(words)}: {parameter.name}"


def test_every_argument_is_given():
    given = {command: set() for command in _cli._commands()}
    for number in range(3000):
        words = _cli.CommandLine().make(random.Random(f"0:{number}"))["words"]
        command = max((name for name in given if tuple(words[: len(name)]) == name), key=len)
        given[command].update(words)
    for command, parameters in _cli._commands().items():
        for parameter in parameters:
            if parameter.param_type_name == "option":
                assert given[command] >= {*parameter.opts, *parameter.secondary_opts}, f"{command}: {parameter.name}"


class Breaking:
    name = "breaking"

    def make(self, rng):
        return {"value": rng.randrange(4)}

    def run(self, case):
        if case["value"] == 0:
            raise KeyError("x")
        if case["value"] == 1:
            while True:
                pass
        if case["value"] == 2:
            raise _runner.Wrong("two answers: 1 and 2")
        return "fine"


def test_what_is_no_error_of_ours_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(_runner, "_SECONDS", 0.05)
    tally = _runner.Tally()
    _runner.fuzz(Breaking(), tally, seed=0, start=0, cases=20, folder=tmp_path)
    assert {place.split()[0] for place in tally.findings} == {"KeyError", "TooLong", "Wrong:"}
    saved = [path for path in tmp_path.iterdir() if not path.name.startswith("running")]
    assert len(saved) == 3
    for path in saved:
        outcome, finding = _runner.replay({"breaking": Breaking()}, path)
        assert outcome == "finding"
        assert finding is not None


@pytest.mark.parametrize("kind", ["safetensors", "json", "text"])
def test_damage_is_damage(kind):
    whole = (
        b'\x12\x00\x00\x00\x00\x00\x00\x00{"a":{"dtype":""}}'
        if kind == "safetensors"
        else b'{"a": [1, 2, {"b": null}]}'
    )
    changed = [damaged(random.Random(seed), whole, kind) for seed in range(200)]
    assert sum(each != whole for each in changed) > 150
