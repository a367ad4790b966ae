"""Which rows of a call to a processor belong to which prompts, and the potential's state of each.

It knows nothing of scores. Calls are told apart by content: a generation is a set of prompts of one length, and a call
belongs to it if its rows are those prompts, or continue prefixes of it that were seen, in an order in which `generate` calls
a processor: several rows are one token longer than in the call before; a single row may also go back, since drafts are
verified one row at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ctrldecode._prefixes import Ledger, PrefixStore, prefix_keys, state_bytes
from ctrldecode.core.potential import take
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctrldecode.core.potential import Potential

__all__ = ["MAX_PREFIXES", "Generation", "Generations", "Prompt", "Rows"]

# One state a call; enough for the longest draft of assisted decoding several times over.
MAX_BATCHES = 512
# About 250 bytes each: 64 rows of 8192 tokens in 128 MiB.
MAX_PREFIXES = 2**19


class Generation(NamedTuple):
    """Prompts of one length, to which calls belong."""

    number: int
    length: int  # P
    roots: frozenset[bytes]
    mask: Tensor | None  # (B, P)
    batch: int  # of the prompts' states in the store
    origin: int  # number of the generation that the prompts extend, or its own

    def prompt(self, row: int, ids: Tensor) -> Prompt:
        """The prompt of one of the rows (B', L) that continue this generation, those of one prompt side by side."""
        own = ids[row, : self.length]
        if self.mask is not None:
            own = own[self.mask[row * len(self.mask) // len(ids)]]
        return Prompt(tuple(own.tolist()), self.length)


class Prompt(NamedTuple):
    """A prompt: its ids without padding, and its length with it."""

    ids: tuple[int, ...]
    length: int


class Rows(NamedTuple):
    """The rows of a call."""

    generation: Generation
    ids: Tensor  # (B, L), on the CPU
    keys: list[list[bytes]]  # per row the digests at L - 1 and L, or at L alone for prompts

    @property
    def ends(self) -> list[bytes]:
        """The digest of every row."""
        return [own[-1] for own in self.keys]


class Generations:
    """The current generation and the one it came from, with their states and what was seen.

    The latter is kept because a draft of prompt lookup may hold tokens of weight zero, after which rows count as new
    prompts, and the verification then goes back to where it was.

    Args:
        potential: what gives and steps states.
        max_new_tokens: the budget of new prompts; None means no limit.
        mask: (B, P), of the first prompts; see `ControlProcessor`.
        store_bytes: bound on stored states.
    """

    def __init__(
        self, potential: Potential[Any], max_new_tokens: int | None, mask: Tensor | None, store_bytes: int
    ) -> None:
        self.potential = potential
        self.max_new_tokens = max_new_tokens
        self.ledger = Ledger(MAX_PREFIXES)
        self._mask = None if mask is None else mask.detach().to("cpu", torch.bool)
        self._store = PrefixStore(store_bytes, MAX_BATCHES)
        self._recent: list[Generation] = []
        self._forbidden: set[bytes] = set()
        self._serial = 0
        self._last_length, self._last_ends = -1, frozenset[bytes]()  # of the last call
        self._back = False  # whether the last call went back, to verify a draft or to go on behind what was accepted
        self._stopped = False  # whether reading ahead has failed once

    def locate(self, ids: Tensor) -> Rows:
        """The rows (B, L) with the generation that they belong to; a new one, with its states, if there is none."""
        for generation in self._recent:
            keys = self.keys(generation, ids, max(ids.shape[1] - 1, generation.length))
            if self._continues(generation, ids.shape[1], keys):
                self._recent.sort(key=lambda other: other.number != generation.number)
                return self._called(Rows(generation, ids, keys))
        return self.restart(ids)

    def restart(self, ids: Tensor) -> Rows:
        """The rows (B, L) as new prompts."""
        return self._called(self._start(ids))

    def _called(self, rows: Rows) -> Rows:
        length = rows.ids.shape[1]
        self._back = len(rows.ids) == 1 and length <= self._last_length
        self._last_length, self._last_ends = length, frozenset(rows.ends)
        return rows

    def state(self, rows: Rows, behind: Tensor | None = None) -> Any:
        """The potential's state of every row of the last call; in the usual case one step from the batch before.

        Args:
            rows: of the last call.
            behind: (1, K) tokens that are likely to follow a single row in the calls to come, such as the rest of a draft. A potential
                that reads several tokens as fast as one reads them, too, and keeps the states.
        """
        here = self._places(rows.ends)
        if len(here) == len(rows.keys):
            if self._back:
                self._store.anchor(here[0].batch)
            return self._store.gather(here)
        before = self._places([own[0] for own in rows.keys])
        if len(before) == len(rows.keys):
            state = self._store.gather(before)
            reached = [] if behind is None else self._read_ahead(rows, state, behind)
            if reached:
                return reached[0]
            state = self.potential.step(state, rows.ids[:, -1])
        else:
            keys = self.keys(rows.generation, rows.ids, rows.generation.length)
            state = self._store.replay(self.potential, rows.ids, keys)
        number = self._store.put(rows.ends, state)
        if self._back:
            self._store.anchor(number)
        return state

    def _read_ahead(self, rows: Rows, state: Any, behind: Tensor) -> list[Any]:
        """The state of a single row, whose state one token earlier is given, with those after the tokens behind it, all kept.

        Empty if they cannot be had: what stands behind may be anything, and who comes to it will hear of it then.
        """
        if not self.potential.parallel or self._stopped:
            return []
        outside = (behind[0] < 0) | (behind[0] >= self.potential.size)
        count = int((outside.cumsum(0) == 0).sum())
        count = count if self._store.holds(count + 1, state_bytes(state)) else 0
        ids = torch.cat([rows.ids, behind[:, :count]], dim=1)
        try:
            states = self.potential.step_all(state, ids[:, rows.ids.shape[1] - 1 :])
        except Exception:  # noqa: BLE001  past a context, or whatever steps of a potential refuse
            self._stopped = True
            return []
        (keys,) = self.keys(rows.generation, ids, rows.ids.shape[1])
        # The first is put last, which keeps it where there is no room for all of them.
        numbers = [self._store.put([key], own) for key, own in zip(reversed(keys), reversed(states), strict=True)]
        if self._back:
            self._store.anchor(numbers[-1])
        return states

    def find(self, ids: Tensor) -> Generation | None:
        """The last generation whose prompts the rows (B, L) extend."""
        for generation in self._recent:
            if ids.shape[1] > generation.length:
                keys = self.keys(generation, ids[:, : generation.length], generation.length)
                if all(own[0] in generation.roots for own in keys):
                    return generation
        return None

    def keys(self, generation: Generation, ids: Tensor, start: int) -> list[list[bytes]]:
        """Per row, the digests of its prefixes of length `start` to L."""
        blocks = self.potential.rows or 1
        table: NDArray[Any] = ids.numpy()
        start = min(start, ids.shape[1])
        return [
            prefix_keys(row, start, b"%d.%d" % (generation.number, index * blocks // len(table)))
            for index, row in enumerate(table)
        ]

    def was_forbidden(self, rows: Rows, row: int) -> bool:
        """Whether a row took a token of weight zero on its way, so that it is no text of the constraint any more.

        It is a new prompt that extends an earlier one, or a draft that will be refused. Beam search also fills up its beams
        with such rows when too few tokens are allowed.
        """
        generation, ids = rows.generation, rows.ids[row : row + 1]
        keys = self.keys(generation, rows.ids, generation.length)[row]
        for at in range(len(keys) - 2, -1, -1):
            length = generation.length + at
            if keys[at + 1] not in self._forbidden:
                state = self._store.replay(self.potential, ids[:, :length], [keys[: at + 1]])
                weight = self.potential.log_weights(state, ids[:, length : length + 1])
                if not bool(weight.isneginf().all()):
                    continue
            self._forbidden.update(keys[at + 1 :])
            return True
        return False

    def restart_some(self, rows: Rows, some: list[int]) -> tuple[Rows, Any]:
        """Some rows of a call as new prompts, with their states; what continues them goes on from there."""
        budget = None if self.max_new_tokens is None else torch.full((len(rows.ids),), self.max_new_tokens)
        state = take(self.potential.init(rows.ids, _longer(rows.generation.mask, rows.ids), budget), some)
        chosen = rows._replace(ids=rows.ids[some], keys=[rows.keys[row] for row in some])
        self._store.put(chosen.ends, state)
        return chosen, state

    def _places(self, keys: Sequence[bytes]) -> list[Any]:
        return [place for key in keys if (place := self._store.find(key)) is not None]

    def _continues(self, generation: Generation, length: int, keys: list[list[bytes]]) -> bool:
        if length <= generation.length:
            return length == generation.length and all(own[-1] in generation.roots for own in keys)
        if len(keys) > 1:
            return length == self._last_length + 1 and all(own[0] in self._last_ends for own in keys)
        return length <= self._last_length + 1 and any(key in self.ledger for key in keys[0])

    def _start(self, ids: Tensor) -> Rows:
        old = self.find(ids)
        mask = self._prompt_mask(ids, old)
        budget = None if self.max_new_tokens is None else torch.full((len(ids),), self.max_new_tokens)
        state = self.potential.init(ids, mask, budget)
        self._serial += 1
        number = self._serial
        generation = Generation(number, ids.shape[1], frozenset(), mask, 0, number if old is None else old.origin)
        rows = Rows(generation, ids, self.keys(generation, ids, ids.shape[1]))
        _check_masks(rows.ends, mask)
        batch = self._store.put(rows.ends, state, pinned=True)
        generation = generation._replace(roots=frozenset(rows.ends), batch=batch)
        self._retain(generation)
        return rows._replace(generation=generation)

    def _retain(self, generation: Generation) -> None:
        for other in self._recent:
            if other.number != generation.origin:
                self._store.unpin(other.batch)
        self._recent = [generation, *(other for other in self._recent if other.number == generation.origin)]
        self._forbidden.clear()

    def _prompt_mask(self, ids: Tensor, old: Generation | None) -> Tensor | None:
        """The given mask for the first prompts; for a single row that extends earlier ones, its mask and the new tokens."""
        mask = self._mask
        if mask is None:
            return None
        if len(ids) == 1 and old is not None and old.mask is not None and len(old.mask) == 1:
            return _longer(old.mask, ids)
        copies, rest = divmod(len(ids), len(mask)) if mask.dim() == 2 and len(mask) else (0, 1)
        if self._recent or rest or not copies or mask.shape[-1] != ids.shape[1]:
            raise InputError(
                f"the attention mask {tuple(mask.shape)} does not belong to the prompts {tuple(ids.shape)}, which are "
                f"{'new' if self._recent else 'the first'}; call processor.begin(attention_mask=...) before generate, with "
                "the mask of its prompts, one row a prompt"
            )
        return mask.repeat_interleave(copies, dim=0)


def _longer(mask: Tensor | None, ids: Tensor) -> Tensor | None:
    """The mask (b, P) of prompts for rows (B, L) that continue them, B being a multiple of b: what came since is no padding."""
    if mask is None:
        return None
    rows = mask.repeat_interleave(len(ids) // len(mask), dim=0)
    return torch.cat([rows, torch.ones(len(ids), ids.shape[1] - mask.shape[1], dtype=torch.bool)], dim=1)


def _check_masks(roots: list[bytes], mask: Tensor | None) -> None:
    """Rows are told apart by their ids alone, so equal ids must be padded alike."""
    if mask is None:
        return
    seen: dict[bytes, int] = {}
    for row, key in enumerate(roots):
        first = seen.setdefault(key, row)
        if not torch.equal(mask[first], mask[row]):
            raise InputError(
                f"prompts {first} and {row} have the same ids but other padding, so they cannot be told apart; pad with an "
                "id that no prompt begins with"
            )
