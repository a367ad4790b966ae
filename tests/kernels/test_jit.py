"""The word on stderr while kernels are compiled for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctrldecode.kernels import _jit

if TYPE_CHECKING:
    import pytest


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
