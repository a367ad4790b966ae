"""docs/cli-reference.md: every command with its options, as typer tells them.

    python -m tools.docs.cli_reference      # writes the page

The text is that of `typer ... utils docs`. It turns rich's bold, which stands for what is typed, into code, and says where the guide is.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["PAGE", "main", "reference"]

_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "cli-reference.md"

_TITLE = "Command reference"
_INTRODUCTION = """This page is made from the program by `python -m tools.docs.cli_reference`, and says what `--help` says. The [guide](cli.md)
explains the commands and gives examples. A default in parentheses is worked out when the command runs."""
_BOLD = re.compile(r'<span style="font-weight: bold">(.*?)</span>')


def reference() -> str:
    """The page, from the commands as they are now."""
    words = ["typer", "ctrldecode.cli._app", "utils", "docs", "--name", "ctrldecode", "--title", _TITLE]
    made = subprocess.run(
        [sys.executable, "-m", *words],
        check=True,
        capture_output=True,
        encoding="utf-8",
        cwd=_ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
    ).stdout
    text = _BOLD.sub(lambda found: f"`{html.unescape(found[1])}`", made).replace("&#x27;", "'").replace("&quot;", '"')
    title, _, rest = text.partition("\n\n")
    return f"{title}\n\n{_INTRODUCTION}\n\n{rest.strip()}\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
