"""The word on stderr while kernels are compiled for the first time, and signals that come meanwhile."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from ctrldecode.kernels import _jit


def test_a_compilation_says_so_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_jit, "_NOTICE_AFTER_SECONDS", 0.0)
    _jit._say.cache_clear()

    def double(x: int) -> int:
        return 2 * x

    def triple(x: int) -> int:
        return 3 * x

    kernels = [_jit.jit(double), _jit.jit(triple)]
    assert [kernel(21) for kernel in kernels] == [42, 63]
    assert capsys.readouterr().err.count("compiled once for this machine") == 1
    assert kernels[0](4) == 8
    assert capsys.readouterr().err == ""


def test_every_signature_is_one_kernel() -> None:
    def half(x: float) -> float:
        return x / 2

    kernel: Any = _jit.jit(half)
    assert (kernel(3), kernel(5.0), kernel(4)) == (1.5, 2.5, 2.0)
    assert len(kernel.signatures) == 2


@pytest.mark.parametrize("number", _jit._DELAYED)
def test_a_signal_within_a_compilation_comes_after_it(number: signal.Signals) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    done: list[str] = []

    def compiling() -> None:
        with _jit._signals_delayed():
            with _jit._signals_delayed():  # one kernel compiles another
                signal.raise_signal(number)
            done.append("compiled")

    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            compiling()
        assert done == ["compiled"]
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_what_the_system_does_with_a_signal_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_jit, "_DELAYED", (signal.SIGTERM,))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with _jit._signals_delayed():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
