"""Reads files of texts for the commands: plain ones, and JSON lines. It imports no heavy library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_classes", "read_labelled", "read_texts"]

_MOST = 512 * 2**20  # bytes of a file of texts; they are held in memory, where they take several times as much


def read_texts(path: str | Path, separator: str | None = None) -> list[str]:
    """The texts of a file, without empty ones and outer white space.

    Args:
        path: a file of JSON lines with a "text" each if its name ends in .jsonl, else a plain file.
        separator: what stands between the texts of a plain file; None makes each line a text.

    Raises:
        InputError: there is no such file, it is not UTF-8, a line of JSON is none or has no text, or no text is left.
    """
    path = Path(path)
    content = _content(path)
    if path.suffix == ".jsonl":
        texts = [_text(record, path, number) for number, record in _records(content, path)]
    else:
        texts = content.split(separator or "\n")
    found = [text.strip() for text in texts if text.strip()]
    if not found:
        raise InputError(f'{str(path)!r} holds no text; wanted one a line, or a "text" in each line of a .jsonl file')
    return found


def read_labelled(path: str | Path) -> tuple[list[str], list[float]]:
    """Texts and their scores from JSON lines with a "text" and a "label" (0 or 1), or a "score" in [0, 1].

    Raises:
        InputError: there is no such file, or a line is not of this form; the message names the line.
    """
    path = Path(path)
    texts: list[str] = []
    scores: list[float] = []
    for number, record in _records(_content(path), path):
        texts.append(_text(record, path, number))
        scores.append(_score(record, path, number))
    if not texts:
        raise InputError(f'{str(path)!r} holds no lines; wanted {{"text": "...", "label": 0 or 1}} in each')
    return texts, scores


def _content(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}; wanted a file of texts")
    if path.stat().st_size > _MOST:
        raise InputError(
            f"{str(path)!r} has {path.stat().st_size / 2**20:,.0f} MiB, and at most {_MOST // 2**20} are read; take a part of its texts"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8 at byte {error.start}; convert it to UTF-8") from error


def read_classes(path: str | Path, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Texts and the numbers of their classes from JSON lines with a "text" and a "label", the name of a class.

    Numbers are no labels here: it would depend on the order of the names which class a 1 is.

    Args:
        path: a file of JSON lines.
        names: the classes; each must have a text.

    Raises:
        InputError: there is no such file, a line is not of this form (the message names it), or a class has no text.
    """
    path = Path(path)
    texts: list[str] = []
    labels: list[int] = []
    for number, record in _records(_content(path), path):
        texts.append(_text(record, path, number))
        labels.append(_class(record, names, path, number))
    if not texts:
        raise InputError(f'{str(path)!r} holds no lines; wanted {{"text": "...", "label": "{names[0]}"}} in each')
    missing = [name for at, name in enumerate(names) if at not in set(labels)]
    if missing:
        raise InputError(f"{str(path)!r} has no text of {', '.join(missing)}; take out that code, or add such texts")
    return texts, labels


def _records(content: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Numbers of lines, from 1, with the object that stands in each; blank lines are left out."""
    found: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}; wanted one object a line") from error
        except RecursionError as error:
            raise InputError(
                f"{path}, line {number} is JSON nested too deep to be read; wanted one object a line"
            ) from error
        if not isinstance(record, dict):
            raise InputError(
                f"{path}, line {number} is no JSON object, got {line.strip()[:40]}; wanted one object a line"
            )
        found.append((number, record))
    return found


def _text(record: dict[str, Any], path: Path, number: int) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise InputError(f'{path}, line {number}: "text" must be a string, got {text!r}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise InputError(
            f'{path}, line {number}: "text" has half of a surrogate pair, {half!a}, at character {error.start + 1}, which is no '
            "text; write the whole pair, or take it out"
        ) from error
    return text


def _class(record: dict[str, Any], names: Sequence[str], path: Path, number: int) -> int:
    """The number of the class that a line names."""
    label = record.get("label")
    if label not in names:
        got = repr(label) if "label" in record else "none"
        raise InputError(
            f'{path}, line {number}: "label" must be one of {", ".join(names)}, got {got}; add that class to --codes, or take '
            "the line out"
        )
    return names.index(label)


def _score(record: dict[str, Any], path: Path, number: int) -> float:
    """The label or the score of a line."""
    given = [name for name in ("label", "score") if name in record]
    if len(given) != 1:
        raise InputError(
            f'{path}, line {number} must have either a "label", 0 or 1, or a "score" in [0, 1]; got {sorted(record)}'
        )
    value = record[given[0]]
    number_like = isinstance(value, int | float)  # true and false are the numbers 1 and 0
    if not number_like or not 0 <= value <= 1 or (given[0] == "label" and value not in {0, 1}):
        wanted = "0 or 1" if given[0] == "label" else "a number in [0, 1]"
        raise InputError(f'{path}, line {number}: "{given[0]}" must be {wanted}, got {value!r}')
    return float(value)
