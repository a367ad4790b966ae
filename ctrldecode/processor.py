"""Any `Potential` inside `transformers.generate`: the one subclass of `LogitsProcessor`, and its report of what it did.

It knows nothing of what the potential means, nor of the model. `generate` tells a processor neither which beam a row came
from, nor which rows have ended, nor whether the draft or the target of assisted decoding is asking; so a row's state is found
by the row's content, in the store of `_prefixes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from ctrldecode._prefixes import Ledger, PrefixStore, prefix_keys
from ctrldecode.errors import DeadEnd, InputError, PotentialError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ctrldecode.core.potential import Potential, Support

__all__ = ["ControlProcessor", "Masked", "RowReport"]

# The current generation, and the one before it: prompt lookup drafts past the end of the budget, which looks like new prompts,
# and then goes back.
GENERATIONS = 2
# A state a call; enough for the longest draft of assisted decoding several times over.
MAX_BATCHES = 512
# About 250 bytes each: 64 rows of 8192 tokens in 128 MiB.
MAX_PREFIXES = 2**19


class Masked(NamedTuple):
    """What one step removed: how many tokens the model allowed that became impossible, and their probability."""

    tokens: int
    mass: float


@dataclass(frozen=True)
class RowReport:
    """What was done to one row.

    Attributes:
        log_weight: Σ_t log Σ_v p(v | x_<t) ψ(x_<t·v) / ψ(x_<t), natural log: the importance weight of the row, when it was
            sampled, against the target p(x) ψ(x) / ψ(prompt). The mean of its exponential over samples estimates
            Z / ψ(prompt), Z = Σ_x p(x) ψ(x). −inf if the row met a dead end.
        steps: new tokens chosen, the end of sequence among them.
        masked: one entry a step.
        dead_end: whether every token of some step had weight zero.
    """

    log_weight: float
    steps: int
    masked: tuple[Masked, ...]
    dead_end: bool


class _Generation(NamedTuple):
    """Prompts of one length, by which calls are known to belong together."""

    number: int
    length: int  # P
    roots: frozenset[bytes]
    batch: int  # of the root states in the store


class ControlProcessor(LogitsProcessor):
    """Returns log_softmax(scores) + log-weights of a potential, (B, V) float32.

    Give it to `generate(logits_processor=[processor])`: greedy, sampling, beams, beam sampling, several return sequences,
    assisted decoding and prompt lookup. One instance serves any number of calls. A call whose rows continue prefixes that were
    seen goes on with them; other rows are new prompts, and get new states with the full budget. One case cannot be told apart
    by content: prompts that are exactly what the processor has just seen (an earlier output, as it was). Call `begin` then.

    Args:
        potential: what controls the generation.
        max_new_tokens: the same number that `generate` gets; None if the potential has no use for it. Rows that are longer
            are new prompts.
        attention_mask: (B, P), 0 or False where a prompt is padded on the left; None means no padding. With beams or several
            return sequences (B / k, P) is fine. It belongs to the first prompts; for others call `begin`.
        eos_token_ids: ids that end a text. Needed for on_dead_end="stop", and for reports that end with each row's text.
        support: which tokens stay possible, judged by the model's own scores, after the potential.
        on_dead_end: what to do when all tokens of a row have weight 0. "raise": raise `DeadEnd`. "stop": end the row, and
            report a log-weight of −inf. "drop": leave the row at −inf, for beam search, where other beams take its place.
        store_bytes: bound on the tensors of the stored states. A smaller one costs time, never correctness.

    Raises:
        InputError: an argument is wrong, or the attention mask does not belong to the prompts.
        DeadEnd: no token can follow a row, and `on_dead_end` is "raise".
        PotentialError: the weights hold NaN or +inf, or the support left no token.

    The potential gets its prompts, masks and tokens on the CPU, whatever device the model is on.
    """

    def __init__(
        self,
        potential: Potential[Any],
        *,
        max_new_tokens: int | None = None,
        attention_mask: Tensor | None = None,
        eos_token_ids: Iterable[int] = (),
        support: Support | None = None,
        on_dead_end: Literal["raise", "stop", "drop"] = "raise",
        store_bytes: int = 256 * 2**20,
    ) -> None:
        self.potential = potential
        self.max_new_tokens = max_new_tokens
        self.eos_token_ids = tuple(sorted({int(token) for token in eos_token_ids}))
        self.support = support
        self.on_dead_end = on_dead_end
        self.store_bytes = store_bytes
        self._check_arguments()
        self._serial = 0
        self.begin(attention_mask)

    def begin(self, attention_mask: Tensor | None = None) -> None:
        """Forget all prefixes: the next call brings new prompts, padded as the mask says."""
        self._mask = attention_mask
        self._generations: list[_Generation] = []  # most recent first
        self._store = PrefixStore(self.store_bytes, MAX_BATCHES)
        self._ledger = Ledger(MAX_PREFIXES)
        self._forbidden: set[bytes] = set()
        self._last: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]  # with LongTensor, FloatTensor
        """The controlled scores.

        Args:
            input_ids: (B, L) token ids, prompts included.
            scores: (B, V) logits or log-probabilities of the next token, any floating type.

        Returns:
            (B, V) float32 on the device of `scores`, which are not changed.
        """
        self._check_call(input_ids, scores)
        ids = input_ids.detach().to("cpu", torch.long)
        generation, keys = self._locate(ids)
        state = self._state(generation, ids, keys)
        with torch.no_grad():
            out, numbers = self._weigh(state, scores, ids, generation)
        self._ledger.put([own[-1] for own in keys], numbers)
        self._last = ids
        return out

    def report(self, sequences: Tensor | None = None) -> tuple[RowReport, ...]:
        """What was done to every row, steps in order.

        A log-weight is an importance weight only if tokens were sampled from just what the processor returned: do_sample=True
        with temperature 1, and no warper after it (top-k, top-p, min-p, typical, epsilon and eta cut-offs, a processor that
        comes later in the list), and no beams, whose rows are no samples at all. Greedy rows have one, but it weighs nothing.

        Args:
            sequences: (B, P + n) what `generate` returned, prompts included; None for the rows of the last call, with the
                step that the call was for.

        Returns:
            One report a row. With `eos_token_ids` a row ends at its end of sequence; without, the padding after it counts as
            steps that change nothing.

        Raises:
            InputError: no call was made yet, or a row is not known.
        """
        if sequences is None:
            if self._last is None:
                raise InputError("report() wants rows, but the processor has not been called yet; run generate first")
            sequences, extra = self._last, 1
        else:
            extra = 0
        ids = sequences.detach().to("cpu", torch.long)
        generation = self._of(ids)
        if generation is None:
            raise InputError(
                f"the sequences of shape {tuple(ids.shape)} do not begin with prompts that this processor has seen lately; pass "
                "what generate returned, prompts included, before other prompts or begin() make the processor forget"
            )
        keys = self._keys(generation, ids, generation.length)
        return tuple(self._row_report(generation, row, own, extra) for row, own in zip(ids.numpy(), keys, strict=True))

    # ------------------------------------------------------------------------------------------------ whose rows are these

    def _locate(self, ids: Tensor) -> tuple[_Generation, list[list[bytes]]]:
        """The generation that the rows belong to, a new one if none, with keys at L − 1 and L for every row."""
        for generation in self._generations:
            keys = self._keys(generation, ids, max(ids.shape[1] - 1, generation.length))
            if self._continues(generation, ids.shape[1], keys):
                self._generations.remove(generation)
                self._generations.insert(0, generation)
                return generation, keys
        return self._start(ids)

    def _continues(self, generation: _Generation, length: int, keys: list[list[bytes]]) -> bool:
        new = length - generation.length
        if new == 0:
            return all(own[-1] in generation.roots for own in keys)
        if new < 0 or (self.max_new_tokens is not None and new >= self.max_new_tokens):
            return False
        return all(own[0] in self._ledger or own[-1] in self._ledger for own in keys)

    def _start(self, ids: Tensor) -> tuple[_Generation, list[list[bytes]]]:
        rows, length = ids.shape
        mask = self._prompt_mask(ids)
        budget = None if self.max_new_tokens is None else torch.full((rows,), self.max_new_tokens)
        state = self.potential.init(ids, mask, budget)
        self._serial += 1
        generation = _Generation(self._serial, length, frozenset(), -1)
        keys = self._keys(generation, ids, length)
        roots = [own[0] for own in keys]
        _check_masks(roots, mask)
        generation = generation._replace(roots=frozenset(roots), batch=self._store.put(roots, state, pinned=True))
        self._generations.insert(0, generation)
        for old in self._generations[GENERATIONS:]:
            self._store.unpin(old.batch)
        del self._generations[GENERATIONS:]
        return generation, keys

    def _prompt_mask(self, ids: Tensor) -> Tensor | None:
        """The given mask for the first prompts. Later ones have one only if they extend a single row past its budget."""
        if self._mask is None:
            return None
        mask = self._mask.detach().to("cpu", torch.bool)
        old = self._of(ids)
        if len(ids) == 1 and old is not None and mask.shape == (1, old.length):
            return torch.cat([mask, torch.ones(1, ids.shape[1] - old.length, dtype=torch.bool)], dim=1)
        copies, rest = divmod(len(ids), len(mask)) if mask.dim() == 2 and len(mask) else (0, 1)
        if self._generations or rest or mask.shape[-1] != ids.shape[1]:
            raise InputError(
                f"the attention mask {tuple(mask.shape)} does not belong to the prompts {tuple(ids.shape)}, which are "
                f"{'new' if self._generations else 'the first'}; call processor.begin(attention_mask=...) with the mask of these "
                "prompts before generate, one row a prompt"
            )
        return mask.repeat_interleave(copies, dim=0)

    def _of(self, ids: Tensor) -> _Generation | None:
        """The generation whose prompts the rows begin with."""
        for generation in self._generations:
            if ids.shape[1] >= generation.length:
                keys = self._keys(generation, ids[:, : generation.length], generation.length)
                if all(own[0] in generation.roots for own in keys):
                    return generation
        return None

    def _keys(self, generation: _Generation, ids: Tensor, start: int) -> list[list[bytes]]:
        """Per row, the digests of its prefixes of length `start` to L."""
        blocks = self.potential.rows or 1
        table: NDArray[np.int64] = ids.numpy()
        start = min(start, len(table[0]))
        return [
            prefix_keys(row, start, b"%d.%d" % (generation.number % 10**7, index * blocks // len(table)))
            for index, row in enumerate(table)
        ]

    # ---------------------------------------------------------------------------------------------------- states and scores

    def _state(self, generation: _Generation, ids: Tensor, keys: list[list[bytes]]) -> Any:
        """The potential's state of every row; in the usual case one step from the batch before."""
        here = [place for own in keys if (place := self._store.find(own[-1])) is not None]
        if len(here) == len(keys):
            return self._store.gather(here)
        before = [place for own in keys if (place := self._store.find(own[0])) is not None]
        if len(before) == len(keys):
            state = self.potential.step(self._store.gather(before), ids[:, -1])
        else:
            state = self._store.replay(self.potential, ids, self._keys(generation, ids, generation.length))
        self._store.put([own[-1] for own in keys], state)
        return state

    def _weigh(
        self, state: Any, scores: Tensor, ids: Tensor, generation: _Generation
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Controlled scores (B, V), and for every row its log normaliser, tokens and mass removed, and dead end (B, 4)."""
        log_probs = torch.log_softmax(scores.float(), dim=-1)
        out = log_probs.clone()
        if self.support is None:
            self.potential.add_log_weights(state, out)
        else:
            out = self._supported(self.support, log_probs, self.potential.log_weights(state).to(out.device))
        removed = out.isneginf()
        tokens = removed.sum(-1) - log_probs.isneginf().sum(-1)
        mass = (log_probs.exp() * removed).sum(-1)
        numbers = torch.stack([out.logsumexp(-1), tokens.float(), mass, torch.zeros_like(mass)], dim=-1)
        table: NDArray[np.float64] = numbers.double().cpu().numpy()
        if not np.isfinite(table[:, 0]).all():
            self._exceptional(out, log_probs, table, ids, generation)
        return out, table

    def _supported(self, support: Support, log_probs: Tensor, log_weights: Tensor) -> Tensor:
        out = log_probs + log_weights
        keep = support.keep(log_probs, log_weights).to(out.device)
        empty = out.masked_fill(~keep, -math.inf).isneginf().all(-1) & ~out.isneginf().all(-1)
        if bool(empty.any()):
            raise PotentialError(
                f"row {int(empty.nonzero()[0])}: {support.name} keeps no token of those that have weight; a support must keep at "
                "least one token of every row, for instance the most likely"
            )
        return out.masked_fill(~keep, -math.inf)

    def _exceptional(
        self, out: Tensor, log_probs: Tensor, table: NDArray[np.float64], ids: Tensor, generation: _Generation
    ) -> None:
        """Rows whose normaliser is not finite: a broken potential, a row that was dead before, or a dead end."""
        for row in np.flatnonzero(~np.isfinite(table[:, 0])).tolist():
            if table[row, 0] != -math.inf:
                raise self._not_a_number(row, log_probs[row])
            if self._was_forbidden(generation, ids[row : row + 1], row * (self.potential.rows or 1) // len(ids)):
                out[row] = log_probs[row]
                continue
            table[row, 3] = 1
            if self.on_dead_end == "raise":
                raise DeadEnd(row, ids[row].tolist(), self._describe())
            if self.on_dead_end == "stop":
                out[row, list(self.eos_token_ids)] = 0.0

    def _was_forbidden(self, generation: _Generation, row: Tensor, block: int) -> bool:
        """Whether a (1, L) row took a token of weight zero on its way.

        Beam search fills up its beams with such rows when too few tokens are allowed. Their score is −inf already, and whatever
        they get now cannot bring them back; they are no dead end of the constraint.
        """
        salt = b"%d.%d" % (generation.number % 10**7, block)
        keys = prefix_keys(row.numpy()[0], generation.length, salt)
        for at in range(len(keys) - 2, -1, -1):
            length = generation.length + at
            if keys[at + 1] not in self._forbidden:
                state = self._store.replay(self.potential, row[:, :length], [keys[: at + 1]])
                if not bool(self.potential.log_weights(state, row[:, length : length + 1]).isneginf().all()):
                    continue
                self._forbidden.add(keys[at + 1])
            self._forbidden.update(keys[at + 2 :])
            return True
        return False

    def _not_a_number(self, row: int, log_probs: Tensor) -> Exception:
        if bool(log_probs.isnan().any()):
            return InputError(
                f"row {row}: the scores that came in are NaN, +inf or −inf everywhere, before {self._describe()} was applied; look "
                "at the model's precision, and at the processors that stand before this one"
            )
        return PotentialError(
            f"row {row}: {self._describe()} gave NaN or +inf among its log-weights, where only numbers and −inf are allowed; run "
            "ctrldecode.laws.check on it to find out where"
        )

    # ------------------------------------------------------------------------------------------------------ reports, checks

    def _row_report(self, generation: _Generation, row: NDArray[np.int64], keys: list[bytes], extra: int) -> RowReport:
        steps: list[NDArray[np.float64]] = []
        for at in range(len(row) - generation.length + extra):
            numbers = self._ledger.get(keys[at])
            if numbers is None:
                raise InputError(
                    f"the prefix of {generation.length + at} ids ending in {row[: generation.length + at][-8:].tolist()} is not "
                    "known; pass what generate returned, unchanged, and eos_token_ids to the processor if it ends in padding"
                )
            steps.append(numbers)
            position = generation.length + at
            if position < len(row) and int(row[position]) in self.eos_token_ids:
                break
        masked = tuple(Masked(int(tokens), float(mass)) for _, tokens, mass, _ in steps)
        dead = any(bool(numbers[3]) for numbers in steps)
        return RowReport(float(sum(numbers[0] for numbers in steps)), len(steps), masked, dead)

    def _describe(self) -> str:
        return self.potential.describe() + (f" with {self.support.name}" if self.support is not None else "")

    def _check_arguments(self) -> None:
        if self.on_dead_end not in ("raise", "stop", "drop"):
            raise InputError(f"on_dead_end must be 'raise', 'stop' or 'drop', got {self.on_dead_end!r}")
        if self.on_dead_end == "stop" and not self.eos_token_ids:
            raise InputError(
                "on_dead_end='stop' ends a row by an end of sequence: pass eos_token_ids=[tokenizer.eos_token_id]"
            )
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(
                f"max_new_tokens must be at least 1, got {self.max_new_tokens}; pass the number that generate gets"
            )
        if any(not 0 <= token < self.potential.size for token in self.eos_token_ids):
            raise InputError(f"eos_token_ids must lie in [0, {self.potential.size}), got {list(self.eos_token_ids)}")

    def _check_call(self, input_ids: Tensor, scores: Tensor) -> None:
        rows, size = input_ids.shape[0], self.potential.size
        if scores.shape != (rows, size):
            raise InputError(
                f"scores must be ({rows}, {size}), one row of ids each and as wide as the potential, got {tuple(scores.shape)}; "
                "build the potential from a Vocabulary(size=model.config.vocab_size)"
            )
        if rows % (self.potential.rows or 1):
            raise InputError(
                f"{self._describe()} has {self.potential.rows} constraints, one a prompt, but the batch has {rows} rows; it needs "
                "a multiple (beams or return sequences of each prompt side by side)"
            )


def _check_masks(roots: list[bytes], mask: Tensor | None) -> None:
    """Rows are told apart by their ids alone, so equal ids must be padded alike."""
    if mask is None:
        return
    seen: dict[bytes, int] = {}
    for row, key in enumerate(roots):
        first = seen.setdefault(key, row)
        if not torch.equal(mask[first], mask[row]):
            raise InputError(
                f"prompts {first} and {row} have the same ids but other padding, so they cannot be told apart; pad with an id that "
                "no prompt begins with"
            )
