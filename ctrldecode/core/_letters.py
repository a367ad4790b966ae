"""Reads texts of users as letters and nothing else: what spells a control token is no token there. It imports no transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["letters"]


def letters(tokenizer: Any, texts: Sequence[str], *, control: Iterable[int] = (), first: int = 1) -> list[list[int]]:
    """Ids of texts, in which <|happy|> is the letters that it is written in, and never the token of that name.

    Args:
        tokenizer: of transformers.
        texts: as users wrote them.
        control: ids that no text may have, beside those that the tokenizer calls special.
        first: number of the first text, for the message.

    Raises:
        InputError: the tokenizer makes a control token of a part of a text all the same.
    """
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
    banned = {int(token) for token in tokenizer.all_special_ids} | set(control)
    for number, (text, row) in enumerate(zip(texts, ids, strict=True), first):
        for token in banned.intersection(row):
            # Some tokenizers know tokens that they do not part into letters: added ones that are not called special.
            spelled = tokenizer.convert_ids_to_tokens(token)
            if token == tokenizer.unk_token_id and spelled not in text:
                continue  # a letter that the tokenizer does not know
            raise InputError(
                f"text {number} of the data, which begins {text[:40]!r}, has {spelled!r}, and the tokenizer makes a control token of it; "
                "take it out of the text"
            )
    return ids
