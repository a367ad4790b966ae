"""Control codes: the tokens that stand before a text and say of which class it is. Knows tokenizers, and no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Codes", "check_names"]


@dataclass(frozen=True)
class Codes:
    """The classes of a class LM, C of them, and the ids before a text: `start`, then the code.

    Attributes:
        names: (C,) what data and messages call the classes.
        ids: (C,) the code of each, one id or more.
        start: ids before the code: the begin token, if the tokenizer names one.
    """

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    start: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, names: Sequence[str]) -> Codes:
        """The code of a class is the special token `<|NAME|>` if there is one, else the tokens of the word.

        A word is spelled with or without a space in front, whichever takes fewer tokens: byte-level tokenizers know words mostly
        with it.

        Raises:
            InputError: fewer than two classes, or two with one code.
        """
        check_names(names)
        ids = tuple(_code(tokenizer, name) for name in names)
        if len(set(ids)) < len(ids):
            spelled = ", ".join(f"{name} {list(code)}" for name, code in zip(names, ids, strict=True))
            raise InputError(f"codes must differ in their tokens, got {spelled}; name the classes otherwise")
        start = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
        return cls(tuple(names), ids, start)

    @property
    def prefixes(self) -> tuple[tuple[int, ...], ...]:
        """(C,) all ids before a text of each class."""
        return tuple(self.start + code for code in self.ids)

    @property
    def longest(self) -> int:
        """Positions that the longest prefix takes."""
        return max(map(len, self.prefixes))


def check_names(names: Sequence[str]) -> None:
    """Refuse names that no training could tell apart.

    Raises:
        InputError: fewer than two, an empty one, or one twice.
    """
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise InputError(
            f"codes must be two or more different names of classes, got {', '.join(map(repr, names)) or 'none'}; "
            "write for example happy,sad"
        )


def _code(tokenizer: Any, name: str) -> tuple[int, ...]:
    special = tokenizer.get_vocab().get(f"<|{name}|>")
    if special is not None:
        return (int(special),)
    spellings = [tuple(tokenizer(text, add_special_tokens=False).input_ids) for text in (name, f" {name}")]
    return min(spellings, key=len)  # of equals the first
