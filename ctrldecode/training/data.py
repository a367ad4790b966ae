"""Labelled texts as ids: encoding, the held-out part, batches, and an order in which every class comes equally often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from ctrldecode.core._letters import letters
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ctrldecode.training.codes import Codes

__all__ = ["BalancedOrder", "Batch", "Text", "collate", "encode", "split"]

_CHUNK = 1000  # texts to a call of the tokenizer: enough to be fast, few enough to be small

_WINDOW = 16  # batches whose texts are sorted by length: padding falls to a few percent, and batches stay random


class Text(NamedTuple):
    """A text of one class.

    Attributes:
        tokens: its ids, the end of sequence among them unless it was cut.
        label: number of its class.
    """

    tokens: list[int]
    label: int


class Labelled(Protocol):
    """What has a class."""

    @property
    def label(self) -> int:
        """Number of the class."""
        ...


L = TypeVar("L", bound=Labelled)


class Batch(NamedTuple):
    """N texts, padded on the right to the longest, T.

    Attributes:
        tokens: (N, T) ids, 0 at padding.
        lengths: (N,) how many are text.
        labels: (N,) classes.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor


def encode(
    tokenizer: Any, texts: Sequence[str], labels: Sequence[int], codes: Codes, eos: int, room: int
) -> list[Text]:
    """Ids of texts, each ended by `eos`, cut so that the longest code and the text take at most `room` positions.

    A text is letters and nothing else: where it spells a code or another special token, such as <|happy|>, that is encoded as the
    letters that it is written in, and never as the token.

    Raises:
        InputError: no place is left for a text behind the codes, or the tokenizer makes a code or a special token of a text all
            the same.
    """
    limit = room - codes.longest
    if limit < 2:
        raise InputError(
            f"codes take {codes.longest} of {room} positions, which leaves no text; raise --max-length, or take shorter names"
        )
    ids: list[list[int]] = []
    for start in range(0, len(texts), _CHUNK):
        ids += letters(tokenizer, texts[start : start + _CHUNK], control=codes.control, first=start + 1)
    return [Text([*row, eos][:limit], label) for row, label in zip(ids, labels, strict=True)]


def split(texts: Sequence[L], names: Sequence[str], holdout: float, seed: int) -> tuple[list[L], list[L]]:
    """Texts to train on and texts held out: of each class the share `holdout`, at least one, drawn by the seed.

    Raises:
        InputError: a class has fewer than two texts.
    """
    kept: list[int] = []
    held: list[int] = []
    for label, rows in enumerate(_rows_by_label([text.label for text in texts], len(names))):
        if len(rows) < 2:
            raise InputError(
                f"class {names[label]!r} has {len(rows)} texts; wanted at least 2, one to train on and one to hold out"
            )
        mixed = np.random.default_rng([seed, label]).permutation(rows)
        count = min(len(rows) - 1, max(1, round(holdout * len(rows))))
        held += mixed[:count].tolist()
        kept += mixed[count:].tolist()
    return [texts[row] for row in sorted(kept)], [texts[row] for row in sorted(held)]


def collate(texts: Sequence[Text]) -> dict[str, Tensor]:
    """The fields of a `Batch` by name, as the Trainer hands them to a model."""
    lengths = torch.tensor([len(text.tokens) for text in texts])
    tokens = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in enumerate(texts):
        tokens[row, : len(text.tokens)] = torch.tensor(text.tokens)
    return Batch(tokens, lengths, torch.tensor([text.label for text in texts]))._asdict()


class BalancedOrder(Sampler[int]):
    """An order for each epoch: all texts of the smallest class, and as many of each other class, drawn anew.

    Texts of a batch are of like length, so that little is padding; batches come in any order. Epochs differ, and depend on seed
    and number alone, so that a resumed run meets the order that it left.

    Args:
        texts: to be drawn from.
        batch: texts to a batch.
        seed: with the number of the epoch it decides the order.
        balance: False takes all texts of all classes.
    """

    def __init__(self, texts: Sequence[Text], batch: int, seed: int, *, balance: bool = True) -> None:
        labels = [text.label for text in texts]
        self._lengths = np.array([len(text.tokens) for text in texts])
        self._classes = [rows for rows in _rows_by_label(labels, max(labels) + 1) if len(rows)]
        self._most = min(map(len, self._classes)) if balance else max(map(len, self._classes))
        self._batch = batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The Trainer says where it is."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(min(self._most, len(rows)) for rows in self._classes)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        chosen = rng.permutation(np.concatenate([rng.permutation(rows)[: self._most] for rows in self._classes]))
        batches: list[np.ndarray] = []
        for start in range(0, len(chosen), _WINDOW * self._batch):
            window = chosen[start : start + _WINDOW * self._batch]
            window = window[self._lengths[window].argsort(kind="stable")]
            batches += [window[at : at + self._batch] for at in range(0, len(window), self._batch)]
        whole = len(chosen) // self._batch  # a batch that is not full stays the last one
        order = [*rng.permutation(whole).tolist(), *range(whole, len(batches))]
        return iter(np.concatenate([batches[at] for at in order]).tolist())


def _rows_by_label(labels: Sequence[int], classes: int) -> list[np.ndarray]:
    return [np.flatnonzero(np.asarray(labels) == label) for label in range(classes)]
