"""Signals whose exception is lost on the way come again."""

from __future__ import annotations

import importlib
import signal
import sys
import time

import pytest

from ctrldecode import cli
from ctrldecode.cli._interrupts import losing_none


class Trap:
    """Sends a signal where its exception cannot be raised."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)
        time.sleep(0)  # the handler is run here


@pytest.fixture(params=[(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["interrupt", "request to end"])
def ends(request, run, monkeypatch):
    """Run what sends a signal to the process, then waits; the command ends by that signal, and soon."""
    number, code = request.param

    def ends(send):
        reached = []

        def work(_):
            send(number)
            reached.append("behind it")  # the exception is not raised there, and the command goes on for a while
            time.sleep(30)
            return 0

        monkeypatch.setattr(cli, "_run", work)
        began = time.monotonic()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            result = run("grammar", "list")
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGINT, before)
        assert result.code == code
        assert reached
        assert "Traceback" not in result.err
        assert time.monotonic() - began < 20

    return ends


def test_a_signal_within_a_destructor_ends_the_command(ends):
    ends(Trap)


def test_a_signal_waits_for_an_import_that_must_not_be_interrupted(ends, tmp_path, monkeypatch):
    lines = [
        "import signal, time",
        *["signal.raise_signal(signal.Signals(NUMBER))"] * 5,
        "time.sleep(0.2)",
        "whole = True",
    ]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ctrldecode.cli._interrupts._FRAGILE", ("fragile",))

    def send(number):
        (tmp_path / "fragile.py").write_text("\n".join(lines).replace("NUMBER", str(int(number))))
        monkeypatch.delitem(sys.modules, "fragile", raising=False)
        assert importlib.import_module("fragile").whole

    ends(send)


def test_other_exceptions_that_are_lost_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Breaks:
        def __del__(self):
            raise ValueError("a destructor")

    with losing_none():
        Breaks()
    assert [lost.exc_type for lost in told] == [ValueError]
