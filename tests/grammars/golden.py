"""Reads golden files: one JSON string literal a line; `#` opens a comment line. Knows no grammar."""

import json
from pathlib import Path

__all__ = ["FOLDER", "names", "read"]

FOLDER = Path(__file__).resolve().parents[2] / "grammars"


def names() -> list[str]:
    """The name of every grammar in the folder, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.lark"))


def read(path: Path | str) -> list[str]:
    """The texts of a golden file, in order.

    Args:
        path: a `.accept` or `.reject` file in UTF-8.

    Returns:
        One text for each line that is neither blank nor a comment.

    Raises:
        ValueError: a line is not a JSON string literal; the message names the file, the line and the remedy.
    """
    texts = []
    # Split at newlines only: str.splitlines would also cut at U+2028, which JSON literals may hold unescaped.
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            texts.append(_literal(line, f"{path}:{number}"))
    return texts


def _literal(line: str, where: str) -> str:
    try:
        text = json.loads(line)
    except json.JSONDecodeError:
        text = None
    if isinstance(text, str):
        return text
    message = f"{where}: wanted a JSON string literal, got {line!r}; quote the text as json.dumps does"
    raise ValueError(message)
