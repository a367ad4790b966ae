"""`Trie`: what samples have taught about the futures of their prefixes. A value: learning gives a new one.

It knows prompts, tokens and bounds, no model and no potential; `_walk` draws from it, and `Future` puts it into a product.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ctrldecode.core import _tensor_files as files
from ctrldecode.errors import InputError, ModelError
from ctrldecode.kernels import futures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["GrowingTrie", "Seen", "Trie"]

_KIND, _FORMAT = "trie", 1
_NARROW = 2**16  # up to so many ids a token takes two bytes
_LEAST = 1024
_insert: Any = futures.insert  # called with arrays by position
# Room for a sixteenth more at a time: memory stays close to what is used, and each node is moved some sixteen times.
_GROWTH = 16


class Seen(NamedTuple):
    """What one text showed: n + 1 prefixes with the tokens between them; see `kernels.futures.insert`."""

    ids: NDArray[np.int64]
    log_p: NDArray[np.float32]
    log_mass: NDArray[np.float64]
    log_rest: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trie:
    """Bounds of expected future satisfaction, c(x) = E_p[Φ | x] or above, for every prefix that was seen (ASAp, Park et al. 2024).

    A node takes 30 bytes up to 65,536 token ids and 32 beyond. Values are kept in units of the potential's own: `log_future` of a
    hard potential is log c itself.

    Args:
        size: V.
        max_new_tokens: the budget that the bounds hold for.
        eos_token_ids: ids that end a text.
        key: of model, potential and temperature; tries of different keys are never mixed.
        sound: whether the values are upper bounds.

    Example:
        >>> trie = Trie(5, max_new_tokens=8, eos_token_ids=[4])
        >>> trie.nodes, trie.log_future([0], [1, 2])
        (0, 0.0)
    """

    size: int
    max_new_tokens: int
    eos_token_ids: Sequence[int]
    key: str = ""
    sound: bool = True
    roots: Mapping[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    first: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    sibling: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    token: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.uint16))
    log_p: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    log_mass: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    log_ratio: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if self.size < 1 or self.max_new_tokens < 1:
            raise InputError(
                f"a trie wants a vocabulary and a budget, got {self.size} ids and {self.max_new_tokens} tokens"
            )
        object.__setattr__(self, "eos_token_ids", tuple(sorted(self.eos_token_ids)))
        object.__setattr__(
            self, "token", self.token.astype(np.uint16 if self.size <= _NARROW else np.uint32, copy=False)
        )

    @property
    def nodes(self) -> int:
        """How many prefixes are known."""
        return len(self.first)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self._arrays())

    def log_future(self, prompt: Sequence[int], text: Sequence[int] = ()) -> float:
        """log c(text) behind a prompt, natural log; 0 where nothing is known. Of the empty text, a bound on log Z if it is sound."""
        node = self.node(prompt, text)
        return 0.0 if node < 0 else float(self.log_ratio[node])

    def node(self, prompt: Sequence[int], text: Sequence[int] = ()) -> int:
        """The node of a text behind a prompt; −1 if there is none."""
        root = self.roots.get(tuple(prompt), -1)
        if root < 0:
            return -1
        return int(futures.descend(self.first, self.sibling, self.token, root, np.asarray(text, np.int64))[-1])

    def node_below(self, node: int, token: int) -> int:
        """The node behind one more token; −1 if there is none, or `node` is −1."""
        if node < 0:
            return -1
        return int(futures.descend(self.first, self.sibling, self.token, node, np.array([token]))[1])

    def children(self, node: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Tokens (n,) that were explored from a node, and log ratios (n,) of what they lead to."""
        below = futures.children(self.first, self.sibling, node)
        return self.token[below].astype(np.int64), self.log_ratio[below]

    def ratio_below(self, node: int, token: int) -> float:
        """log r behind one more token; 0 where nothing is known."""
        below = self.node_below(node, token)
        return 0.0 if below < 0 else float(self.log_ratio[below])

    def check(self, *, size: int, max_new_tokens: int, key: str, eos_token_ids: Sequence[int]) -> None:
        """Raise `InputError` if the trie was made for something else; a key of "" is not known, and no difference."""
        wanted = {"size": size, "max_new_tokens": max_new_tokens, "eos_token_ids": tuple(eos_token_ids), "key": key}
        own = {name: getattr(self, name) for name in wanted}
        wrong = [name for name, value in wanted.items() if value != own[name]]
        if wrong and not (wrong == ["key"] and not (self.key and key)):
            named = ", ".join(f"{name} {own[name]!r} where {wanted[name]!r} is wanted" for name in wrong)
            raise InputError(
                f"the trie was learned for something else ({named}); its bounds hold for one model, potential, temperature and "
                "budget only: start a new one"
            )

    def merge(self, other: Trie) -> Trie:
        """What both know: bounds of prefixes that either has seen, brought up to date.

        Raises:
            InputError: they were learned for different things.
        """
        self.check(
            size=other.size, max_new_tokens=other.max_new_tokens, key=other.key, eos_token_ids=other.eos_token_ids
        )
        growing = GrowingTrie(replace(self, sound=self.sound and other.sound, key=self.key or other.key))
        for prompt, root in other.roots.items():
            growing.graft(prompt, other, root)
        return growing.frozen()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; see `load`.

        Raises:
            InputError: the folder does not exist.
            ModelError: the system cannot write there.
        """
        names = ("first", "sibling", "token", "log_p", "log_mass", "log_ratio")
        tensors = {name: torch.from_numpy(array.copy()) for name, array in zip(names, self._arrays(), strict=True)}
        metadata = {
            "format": _FORMAT,
            "size": self.size,
            "max_new_tokens": self.max_new_tokens,
            "eos_token_ids": list(self.eos_token_ids),
            "key": self.key,
            "sound": self.sound,
            "roots": [[list(prompt), root] for prompt, root in self.roots.items()],
        }
        files.write(path, _KIND, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Trie:
        """A trie from a file.

        Raises:
            InputError: there is no such file.
            ModelError: it is damaged or no trie.
        """
        tensors, header = files.read(path, _KIND, _FORMAT)
        try:
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            roots = {tuple(prompt): int(root) for prompt, root in header["roots"]}
            own = (
                int(header["size"]),
                int(header["max_new_tokens"]),
                [int(token) for token in header["eos_token_ids"]],
            )
            trie = cls(*own, key=str(header["key"]), sound=bool(header["sound"]), roots=roots, **arrays)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{str(path)!r} is no whole trie ({error!r}); learn it anew") from error
        if not _whole(trie):
            raise ModelError(f"{str(path)!r} is damaged: its links lead nowhere; learn it anew")
        return trie

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.first, self.sibling, self.token, self.log_p, self.log_mass, self.log_ratio


def _whole(trie: Trie) -> bool:
    """Whether the arrays fit together: links that go astray would send the kernels into other memory."""
    first, sibling, token, log_p, log_mass, log_ratio = trie._arrays()  # noqa: SLF001
    count = len(first)
    kinds = [array.dtype for array in (first, sibling, log_p, log_mass, log_ratio)] == [
        np.dtype(kind) for kind in ("i4", "i4", "f4", "f8", "f8")
    ]
    shapes = all(array.shape == (count,) for array in trie._arrays())  # noqa: SLF001
    if not kinds or not shapes or token.dtype.str not in {"<u2", "<u4"}:
        return False
    if not all(0 <= root < count for root in trie.roots.values()):  # of any size, as the header is text
        return False
    links = np.concatenate([first, sibling])
    targets = np.concatenate([links[links >= 0], np.fromiter(trie.roots.values(), np.int64)])
    if bool((links < -1).any()) or bool((targets >= count).any()):
        return False
    numbers = np.arange(count)
    ordered = bool((first[first >= 0] > numbers[first >= 0]).all())  # a child is younger than its parent
    older = bool((sibling[sibling >= 0] < numbers[sibling >= 0]).all())  # and a next sibling older: no circles
    once = bool((np.bincount(targets, minlength=count) <= 1).all())
    nan = any(bool(np.isnan(array).any()) for array in (log_p, log_mass, log_ratio))
    numbers_fit = not nan and not bool(np.isposinf(log_ratio).any()) and int(token.max(initial=0)) < trie.size
    return ordered and older and once and numbers_fit


class GrowingTrie:
    """A trie that is being learned: arrays with room to spare, changed in place. Private to whoever made it."""

    def __init__(self, trie: Trie) -> None:
        self.size: int = trie.size
        self.max_new_tokens: int = trie.max_new_tokens
        self.eos_token_ids: Sequence[int] = trie.eos_token_ids
        self.key: str = trie.key
        self.sound: bool = trie.sound
        self.roots: dict[tuple[int, ...], int] = dict(trie.roots)
        self.used: int = trie.nodes
        self.version: int = 0
        self._arrays = [array.copy() for array in trie._arrays()]  # noqa: SLF001

    def frozen(self) -> Trie:
        """What was learned so far, with arrays of its own."""
        names = ("first", "sibling", "token", "log_p", "log_mass", "log_ratio")
        arrays = {name: array[: self.used].copy() for name, array in zip(names, self._arrays, strict=True)}
        return Trie(
            self.size, self.max_new_tokens, self.eos_token_ids, self.key, self.sound, roots=dict(self.roots), **arrays
        )

    def child(self, node: int, token: int) -> int:
        """The node behind a token; −1 if there is none, or `node` is −1."""
        if node < 0:
            return -1
        first, sibling, tokens = self._arrays[:3]
        return int(futures.descend(first, sibling, tokens, node, np.array([token]))[1])

    def children(self, node: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Tokens (n,) that were explored from a node, and log ratios (n,) of what they lead to."""
        below = futures.children(self._arrays[0], self._arrays[1], node)
        return self._arrays[2][below].astype(np.int64), self._arrays[5][below]

    def log_bound(self, prompt: tuple[int, ...]) -> float:
        """log r of the empty text behind a prompt."""
        root = self.roots.get(prompt, -1)
        return 0.0 if root < 0 else float(self._arrays[5][root])

    def edges(self, node: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Tokens (n,) that were explored from a node, and log p̃ (n,) of each; none for −1."""
        if node < 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        below = futures.children(self._arrays[0], self._arrays[1], node)
        return self._arrays[2][below].astype(np.int64), self._arrays[3][below]

    def insert(self, prompt: tuple[int, ...], seen: Seen) -> list[int]:
        """Learn from one text; the nodes of its prefixes, in order."""
        self._reserve(len(seen.log_mass))
        root = self.roots.get(prompt, -1)
        arrays: tuple[Any, ...] = tuple(self._arrays)
        self.used = _insert(*arrays, self.used, root, *seen, self.sound)
        root = self.roots.setdefault(prompt, root if root >= 0 else self.used - len(seen.log_mass))
        self.version += 1
        return futures.descend(arrays[0], arrays[1], arrays[2], root, seen.ids).tolist()

    def graft(self, prompt: tuple[int, ...], other: Trie, root: int) -> None:
        """Learn all that another trie knows of a prompt."""
        self._reserve(other.nodes)
        mapped = {root: self.roots.get(prompt, -1)}
        if mapped[root] < 0:
            mapped[root] = self.roots[prompt] = self._copied(other, root, -1)
        order = [root]
        for node in order:  # grows while it is walked, parents before children
            for child in futures.children(other.first, other.sibling, node).tolist():
                own = self.child(mapped[node], int(other.token[child]))
                mapped[child] = self._copied(other, child, mapped[node]) if own < 0 else own
                order.append(child)
        nodes = np.array([mapped[node] for node in reversed(order)], np.int32)
        first, sibling, _, log_p, log_mass, log_ratio = self._arrays
        futures.refresh(first, sibling, log_p, log_mass, log_ratio, nodes, self.sound)

    def _copied(self, other: Trie, node: int, parent: int) -> int:
        """A new node with what another trie knows of one, below `parent`."""
        first, sibling, token, log_p, log_mass, log_ratio = self._arrays
        new = self.used
        self.used += 1
        first[new], sibling[new] = -1, -1
        token[new], log_p[new] = other.token[node], other.log_p[node]
        log_mass[new], log_ratio[new] = other.log_mass[node], other.log_ratio[node]
        if parent >= 0:
            sibling[new], first[parent] = first[parent], new
        return new

    def _reserve(self, more: int) -> None:
        needed, have = self.used + more, len(self._arrays[0])
        if needed <= have:
            return
        room = max(_LEAST, needed, have + have // _GROWTH)
        if room >= 2**31:
            raise InputError("a trie holds at most 2,147,483,647 prefixes; start a new one, or sample fewer texts")
        for place, array in enumerate(self._arrays):
            grown = np.empty(room, array.dtype)
            grown[: self.used] = array[: self.used]
            self._arrays[place] = grown
