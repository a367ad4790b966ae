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
        control: ids of codes that are special tokens, which no text may have.
    """

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    start: tuple[int, ...]
    control: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any, names: Sequence[str]) -> Codes:
        """The code of a class is the special token `<|NAME|>` if there is one, else the tokens of the word.

        A word is spelled with or without a space in front, whichever takes fewer tokens: byte-level tokenizers know words mostly
        with it.

        Raises:
            InputError: fewer than two classes, a name that cannot be one, two with one code, or a code that has no token, or
                one that begins or ends texts.
        """
        check_names(names)
        special = [_special(tokenizer, name) for name in names]
        ids = tuple(found or _words(tokenizer, name) for name, found in zip(names, special, strict=True))
        _check_tokens(tokenizer, names, ids)
        if len(set(ids)) < len(ids):
            spelled = ", ".join(f"{name} {list(code)}" for name, code in zip(names, ids, strict=True))
            raise InputError(f"codes must differ in their tokens, got {spelled}; name the classes otherwise")
        start = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
        return cls(tuple(names), ids, start, tuple(code for found in special for code in found))

    @property
    def prefixes(self) -> tuple[tuple[int, ...], ...]:
        """(C,) all ids before a text of each class."""
        return tuple(self.start + code for code in self.ids)

    @property
    def longest(self) -> int:
        """Positions that the longest prefix takes."""
        return max(map(len, self.prefixes))


def check_names(names: Sequence[str]) -> None:
    """Refuse names that no training could tell apart, or no command could ask for.

    Raises:
        InputError: fewer than two, an empty one, one twice, or one with = or with what cannot be printed.
    """
    why = _fault(names)
    if why:
        raise InputError(
            f"codes must be two or more different names of classes, got {', '.join(map(repr, names)) or 'none'}: {why}; write for example "
            "happy,sad"
        )


def _fault(names: Sequence[str]) -> str:
    """What is wrong with names; nothing if they are right."""
    if not all(names):
        return "one is empty"
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        return f"{twice[0]!r} stands there twice"
    if len(names) < 2:
        return "one class cannot be told from others"
    strange = [name for name in names if not name.isprintable()]
    if strange:
        return f"{strange[0]!r} has characters that cannot be printed"
    equals = [name for name in names if "=" in name]
    return f"{equals[0]!r} has a =, which parts class and strength in --guide {equals[0]}" if equals else ""


def _special(tokenizer: Any, name: str) -> tuple[int, ...]:
    """The id of the special token; none if there is no such token."""
    found = tokenizer.get_vocab().get(f"<|{name}|>")
    return () if found is None else (int(found),)


def _check_tokens(tokenizer: Any, names: Sequence[str], ids: Sequence[tuple[int, ...]]) -> None:
    taken = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    for name, code in zip(names, ids, strict=True):
        if not code:
            raise InputError(f"the tokenizer makes no token of the code {name!r}; name the class otherwise")
        if len(code) == 1 and code[0] in taken:
            raise InputError(
                f"the code of {name!r} would be {tokenizer.convert_ids_to_tokens(code[0])!r}, which begins, ends or pads texts; name the class "
                "otherwise"
            )


def _words(tokenizer: Any, name: str) -> tuple[int, ...]:
    spellings = [tuple(tokenizer(text, add_special_tokens=False).input_ids) for text in (name, f" {name}")]
    return min(spellings, key=len)  # of equals the first
