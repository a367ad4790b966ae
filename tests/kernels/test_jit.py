"""The word on stderr while kernels are compiled for the first time, and signals that come meanwhile."""

from __future__ import annotations

import signal
import socket
from typing import Any

import numba
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


def _handled(seen: list[int]) -> Any:
    def handler(number: int, frame: object) -> None:
        assert frame is not None
        seen.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(1)

    return handler


def test_each_of_several_signals_is_handled() -> None:
    """A handler that raises does not make the others' signals go lost."""
    seen: list[int] = []

    def compiling() -> None:
        with _jit._signals_delayed():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert seen == []

    before = {number: signal.signal(number, _handled(seen)) for number in _jit._DELAYED}
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)) as raised:
            compiling()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert seen == [signal.SIGINT, signal.SIGTERM]
    assert raised.type is SystemExit


def test_a_handler_that_raises_before_the_block_leaves_none_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    real, own = signal.signal, _handled([])
    before = {number: real(number, own) for number in _jit._DELAYED}

    def interrupted(number: int, handler: Any) -> Any:
        if number == _jit._DELAYED[1] and handler is not own:
            raise KeyboardInterrupt
        return real(number, handler)

    try:
        monkeypatch.setattr(_jit.signal, "signal", interrupted)
        with pytest.raises(KeyboardInterrupt), _jit._signals_delayed():
            pass
        assert [signal.getsignal(number) for number in _jit._DELAYED] == [own, own]
    finally:
        for number, handler in before.items():
            real(number, handler)


def test_an_event_loop_hears_of_a_signal_once() -> None:
    """asyncio handles what Python writes into its socket whenever a signal comes; the handler itself does nothing there."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    other = signal.set_wakeup_fd(writer.fileno())
    try:
        with _jit._signals_delayed():
            signal.raise_signal(signal.SIGINT)
        assert reader.recv(16) == bytes([signal.SIGINT])
    finally:
        signal.set_wakeup_fd(other)
        signal.signal(signal.SIGINT, before)
        reader.close()
        writer.close()


def test_without_a_compiler_functions_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)

    def same(x: int) -> int:
        return x

    assert _jit.jit(same) is same
