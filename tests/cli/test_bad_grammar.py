"""What the command line says of a grammar that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


def test_a_grammar_that_cannot_be_read(run: Callable[..., Run], tmp_path: Path) -> None:
    path = tmp_path / "mine.lark"
    path.write_text('start: itme\nitem: "x"\n')
    for words in (["check", path, "x"], ["sample", path], ["next", path]):
        code, out, err = run("grammar", *words)
        assert (code, out) == (2, "")
        assert err.splitlines()[-4:] == [
            "error: rule itme is used but not defined; did you mean item?",
            "line 1, column 8 of the grammar:",
            "  start: itme",
            "         ^",
        ]
