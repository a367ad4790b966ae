"""Signals whose exception is lost on the way come again."""

from __future__ import annotations

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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_within_a_destructor_ends_the_command(run, monkeypatch, number, code):
    reached = []

    def work(_):
        Trap(number)
        reached.append("behind it")  # the exception is gone, and the command goes on for a while
        time.sleep(30)
        return 0

    monkeypatch.setattr(cli, "_run", work)
    began = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run("grammar", "list")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == code
    assert reached
    assert "Traceback" not in result.err
    assert time.monotonic() - began < 20


def test_other_exceptions_that_are_lost_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Breaks:
        def __del__(self):
            raise ValueError("a destructor")

    with losing_none():
        Breaks()
    assert [lost.exc_type for lost in told] == [ValueError]
