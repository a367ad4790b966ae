"""Any `Potential` inside `transformers.generate`: the one subclass of `LogitsProcessor`, and its report of what it did.

It knows nothing of what the potential means, nor of the model. `generate` tells a processor neither which beam a row came
from, nor which rows have ended, nor whether the draft or the target of assisted decoding is asking; so a row's state is found
by the row's content, in the store of `_prefixes`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.utils.generic import ModelOutput

from ctrldecode._chosen import Chosen
from ctrldecode._drafts import Drafts
from ctrldecode._generations import MAX_PREFIXES, Generations, Prompt, Rows
from ctrldecode._reports import Masked, RowReport
from ctrldecode.core.potential import Support, check_potential
from ctrldecode.errors import DeadEnd, InputError, PotentialError
from ctrldecode.kernels.tokens import masks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ctrldecode.core.potential import Potential

__all__ = ["ControlProcessor", "Masked", "RowReport"]


OnDeadEnd = Literal["raise", "stop", "drop"]

_LEAST_MASS = 1e-20  # below it the mass left is added up in logarithms
_FAR = 1e3  # in single precision a score of this size keeps 3e-5 of what is added to it


class ControlProcessor(LogitsProcessor):
    """Returns log_softmax(scores) + log-weights of a potential, (B, V) float32.

    Give it to `generate(logits_processor=[processor])`: greedy, sampling, beams, beam sampling, several return sequences,
    assisted decoding and prompt lookup. One instance serves any number of calls. A call whose rows continue prefixes that were
    seen, in an order in which `generate` calls a processor, goes on with them; other rows are new prompts, and get new states
    with the full budget. Rows that took a token of weight zero are new prompts too. Two cases cannot be told
    from a generation that goes on: prompts that are the rows of the last call with one token each that was allowed there (an
    earlier output, as it was), and one prompt that is a row of any earlier call (a prefix of an earlier output, or of a beam
    that was dropped), with at most one more token that was allowed there. Call `begin` before those.

    Args:
        potential: what controls the generation.
        max_new_tokens: the same number that `generate` gets; None if the potential has no use for it. Past it a grammar
            allows the end of sequence only.
        attention_mask: (B, P), 0 or False where a prompt is padded on the left; None means no padding. With beams or several
            return sequences (B / k, P) is fine. It belongs to the first prompts; for others call `begin`.
        eos_token_ids: ids that end a text. Needed for on_dead_end="stop", and for reports that end with each row's text.
        support: which tokens stay possible, judged by the model's own scores, after the potential.
        on_dead_end: what to do when all tokens of a row have weight 0. "raise": raise `DeadEnd`. "stop": end the row, and
            report a log-weight of −inf. "drop": leave the row at −inf, for beam search, where other beams take its place.
        store_bytes: bound on the tensors of the stored states. A smaller one costs time, never correctness.

    Attributes:
        epoch: how often `begin` was called.

    Raises:
        InputError: an argument is wrong, or the attention mask does not belong to the prompts.
        DeadEnd: no token can follow a row, and `on_dead_end` is "raise".
        PotentialError: the weights hold NaN or +inf, or the support left no token.

    The potential gets its prompts, masks and tokens on the CPU, whatever device the model is on.

    Example:
        >>> from ctrldecode.core.potential import Potential
        >>> class Even(Potential):  # even ids only; the state is nothing but the number of rows
        ...     size = 4
        ...     def init(self, prompts, mask=None, budget=None):
        ...         return torch.zeros(len(prompts))
        ...     def log_weights(self, state, tokens=None):
        ...         ids = torch.arange(self.size).expand(len(state), -1) if tokens is None else tokens
        ...         return torch.where(ids % 2 == 0, 0.0, -math.inf)
        ...     def step(self, state, tokens):
        ...         return state
        >>> processor = ControlProcessor(Even())
        >>> processor(torch.tensor([[3, 1]]), torch.tensor([[0.25, 0.5, 0.125, 0.125]]).log()).exp()
        tensor([[0.2500, 0.0000, 0.1250, 0.0000]])
        >>> (row,) = processor.report()
        >>> round(math.exp(row.log_weight), 3), row.masked
        (0.375, (Masked(tokens=2, mass=0.625),))
    """

    def __init__(
        self,
        potential: Potential[Any],
        *,
        max_new_tokens: int | None = None,
        attention_mask: Tensor | None = None,
        eos_token_ids: Iterable[int] = (),
        support: Support | None = None,
        on_dead_end: OnDeadEnd = "raise",
        store_bytes: int = 256 * 2**20,
    ) -> None:
        self.potential = potential
        self.max_new_tokens = max_new_tokens
        self.eos_token_ids: tuple[int, ...] = tuple(sorted({int(token) for token in eos_token_ids}))
        self.support = support
        self.on_dead_end: OnDeadEnd = on_dead_end
        self.store_bytes = store_bytes
        self.epoch: int = 0
        self._check_arguments()
        self.begin(attention_mask)

    def begin(self, attention_mask: Tensor | None = None) -> None:
        """Forget all prefixes: the next call brings new prompts, padded as the mask says."""
        self.epoch += 1
        self._seen = Generations(self.potential, self.max_new_tokens, attention_mask, self.store_bytes)
        self._drafts = Drafts()
        self._last: Rows | None = None
        self._chosen = Chosen(MAX_PREFIXES)
        self._probs = np.empty(0, np.float32)  # room that is used again

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]  # LongTensor, FloatTensor
        """The controlled scores.

        Args:
            input_ids: (B, L) token ids, prompts included.
            scores: (B, V) logits or log-probabilities of the next token, any floating type.

        Returns:
            (B, V) float32 on the device of `scores`, which are not changed.
        """
        self._check_call(input_ids, scores)
        if not len(scores):
            return scores.float()
        rows = self._seen.locate(input_ids.detach().to("cpu", torch.long, copy=True))
        if rows.ids.shape[1]:
            self._chosen.note(rows.keys, rows.ids[:, -1].tolist())
        behind = self._drafts.behind(input_ids) if self.potential.parallel else None
        with torch.no_grad():
            out, numbers, gone, log_totals = self._weigh(rows, self._seen.state(rows, behind), scores)
            if len(gone) == len(numbers):  # no row is a text of the constraint: new prompts, or a draft to be refused
                rows = self._seen.restart(rows.ids)
                out, numbers, _, log_totals = self._weigh(rows, self._seen.state(rows), scores)
            elif gone:  # new prompts among others that look like old ones; or beams of score −inf, which stay there
                some, state = self._seen.restart_some(rows, gone)
                out[gone], numbers[gone], _, _ = self._weigh(some, state, scores[gone])
        self._seen.ledger.put(rows.ends, numbers)
        self._last = rows
        self._chosen.offer(rows.ends, scores, log_totals, out, self._log_totals_out(numbers[:, 0]))
        return out

    def report(self, sequences: Tensor | ModelOutput | None = None) -> tuple[RowReport, ...]:
        """What was done to every row, steps in order.

        A log-weight is an importance weight only if tokens were sampled from just what the processor returned: with
        do_sample=True, temperature=1, top_k=0 (`generate` cuts at 50 by default), top_p=1, and none of the other cut-offs
        (min_p, typical_p, epsilon_cutoff, eta_cutoff, top_h) or processors after this one. Beams are no samples at all, and
        greedy rows are samples of nothing. For assisted decoding and prompt lookup pass the sequences: the last call may
        have been for a draft.

        Args:
            sequences: (B, P + n) what `generate` returned, prompts included: the ids, or with return_dict_in_generate=True its
                output, whose `sequences` are read. None for the rows of the last call, with the step that the call was for.

        Returns:
            One report a row. With `eos_token_ids` a row ends at its end of sequence; without, the padding after it counts as
            steps that change nothing.

        Raises:
            InputError: no call was made yet, a row is not known, or what was given holds no sequences.
        """
        if sequences is not None:
            ids, extra = _ids(sequences), 0
            generation = self._seen.find(ids)
        elif self._last is not None:
            ids, extra = self._last.ids, 1
            generation = self._last.generation
        else:
            raise InputError("report() wants rows, but the processor has not been called yet; run generate first")
        if generation is None:
            raise InputError(
                f"the sequences of shape {tuple(ids.shape)} do not begin with prompts that this processor has seen lately; "
                "pass what generate returned, prompts included, before other prompts or begin() make the processor forget"
            )
        keys = self._seen.keys(generation, ids, generation.length)
        return tuple(
            self._row_report(row, own, generation.prompt(number, ids), len(row) - generation.length + extra)
            for number, (row, own) in enumerate(zip(ids.tolist(), keys, strict=True))
        )

    def _weigh(
        self, rows: Rows, state: Any, scores: Tensor
    ) -> tuple[Tensor, NDArray[np.float64], list[int], Tensor | None]:
        """Controlled scores (B, V); per row its log normaliser, tokens and mass removed, dead end (B, 4); rows that were forbidden.

        At last log Σ exp of the scores that came in, (B,); None where the controlled ones are log p of every token allowed.
        """
        raw = scores.float()
        log_probs = torch.log_softmax(raw, dim=-1)
        if self.potential.hard and self.support is None and raw.device.type == "cpu":
            log_totals = None
            out, table = self._masked(state, raw, log_probs)
        else:
            log_totals = _log_totals(raw, log_probs)
            out, table = self._weighted(state, log_probs)
        odd: list[int] = np.flatnonzero(~np.isfinite(table[:, 0])).tolist()
        gone = [row for row in odd if self._is_gone(rows, row, table[row, 0], scores[row])]
        for row in set(odd) - set(gone):
            table[row, 3] = 1
            self._dead_end(rows, row, out)
        if log_totals is None and odd:  # what was forbidden is chosen all the same
            log_totals = raw.logsumexp(-1)
        return out, table, gone, log_totals

    def _masked(self, state: Any, raw: Tensor, log_probs: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Scores and numbers under a hard potential: no second normalisation, since what is left of the mass is a sum."""
        if self._probs.shape != log_probs.shape:
            self._probs = np.empty(log_probs.shape, np.float32)
        probs = np.exp(log_probs.numpy(), out=self._probs)
        self.potential.add_log_weights(state, log_probs)
        found = masks.removed(raw.numpy(), probs, log_probs.numpy())
        table = np.zeros((len(found), 4))
        table[:, 1:3] = found[:, 1:]
        with np.errstate(divide="ignore"):
            table[:, 0] = np.log(found[:, 0])
        for row in np.flatnonzero(found[:, 0] < _LEAST_MASS):  # float32 is about to underflow
            table[row, 0] = log_probs[row].double().logsumexp(-1).item()
        return log_probs, table

    def _weighted(self, state: Any, log_probs: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        out = log_probs.clone()
        if self.support is None:
            self.potential.add_log_weights(state, out)
        else:
            out = self._supported(self.support, state, log_probs)
        removed = out.isneginf()
        tokens = removed.sum(-1) - log_probs.isneginf().sum(-1)
        some = bool((tokens > 0).any())  # in place: at 8 rows of 50k, fresh memory costs more than the arithmetic
        mass = _exp(log_probs).mul_(removed).sum(-1) if some else torch.zeros_like(tokens, dtype=torch.float32)
        numbers = torch.stack([out.logsumexp(-1), tokens.float(), mass, torch.zeros_like(mass)], dim=-1)
        return out, numbers.double().cpu().numpy()

    def _supported(self, support: Support, state: Any, log_probs: Tensor) -> Tensor:
        out = log_probs.clone()
        self.potential.add_log_weights(state, out)  # which heeds candidates, where a potential has them
        log_weights = (out - log_probs).masked_fill_(out.isneginf(), -math.inf)
        keep = support.kept(self.potential, state, log_probs, log_weights).to(out.device)
        empty = out.masked_fill(~keep, -math.inf).isneginf().all(-1) & ~out.isneginf().all(-1)
        if bool(empty.any()):
            raise PotentialError(
                f"row {int(empty.nonzero()[0])}: {support.name} keeps no token of those that have weight; a support must keep at "
                "least one token of every row, for instance the most likely"
            )
        return out.masked_fill(~keep, -math.inf)

    def _is_gone(self, rows: Rows, row: int, normaliser: float, scores: Tensor) -> bool:
        """Whether a row without weight took a token of weight zero before; False at a dead end."""
        if normaliser != -math.inf:
            raise self._not_a_number(row, torch.log_softmax(scores.float(), dim=-1))
        return self._seen.was_forbidden(rows, row)

    def _dead_end(self, rows: Rows, row: int, out: Tensor) -> None:
        if self.on_dead_end == "raise":
            raise DeadEnd(row, rows.ids[row].tolist(), self._describe())
        if self.on_dead_end == "stop":
            out[row, list(self.eos_token_ids)] = 0.0

    def _log_totals_out(self, log_normalisers: NDArray[np.float64]) -> NDArray[np.float64]:
        """log Σ exp of each row that is returned, (B,): at a dead end each end of sequence has 0, or nothing has anything."""
        return np.where(np.isneginf(log_normalisers), math.log(max(1, len(self.eos_token_ids))), log_normalisers)

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

    def _row_report(self, row: list[int], keys: list[bytes], prompt: Prompt, steps: int) -> RowReport:
        found: list[NDArray[np.float64]] = []
        chosen: list[tuple[float, float]] = []
        start = prompt.length
        for at in range(start, start + steps):
            numbers = self._seen.ledger.get(keys[at - start])
            if numbers is None:
                raise InputError(
                    f"the prefix of {at} ids ending in {row[:at][-8:]} is not known; pass what generate returned, unchanged, "
                    "and eos_token_ids to the processor if rows end in padding"
                )
            found.append(numbers)
            if at < len(row):
                chosen.append(self._chosen.log_probs(keys[at - start], keys[at - start + 1], row[at]))
            if at < len(row) and row[at] in self.eos_token_ids:
                break
        normalisers = tuple(float(numbers[0]) for numbers in found)
        return RowReport(
            log_weight=sum(normalisers),
            steps=len(found),
            masked=tuple(Masked(int(numbers[1]), float(numbers[2])) for numbers in found),
            dead_end=any(bool(numbers[3]) for numbers in found),
            prompt=prompt.ids,
            tokens=tuple(row[start : start + len(chosen)]),
            log_probs=tuple(log_prob for log_prob, _ in chosen),
            log_sampled=tuple(log_sampled for _, log_sampled in chosen),
            log_normalisers=normalisers,
        )

    def _describe(self) -> str:
        return self.potential.describe() + (f" with {self.support.name}" if self.support is not None else "")

    def _check_arguments(self) -> None:
        check_potential(self.potential, "ControlProcessor")
        if self.on_dead_end not in ("raise", "stop", "drop"):
            raise InputError(f"on_dead_end must be 'raise', 'stop' or 'drop', got {self.on_dead_end!r}")
        if self.on_dead_end == "stop" and not self.eos_token_ids:
            raise InputError(
                "on_dead_end='stop' ends a row by an end of sequence: pass eos_token_ids=[tokenizer.eos_token_id]"
            )
        if self.support is not None:
            if not isinstance(self.support, Support):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
                raise InputError(f"support must be a Support, got {type(self.support).__name__}; write Support(keep)")
            self.support.check(self.potential)
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


def _ids(given: Any) -> Tensor:
    """(B, P + n) ids on the CPU, of a tensor or of what `generate` returns."""
    ids: Any = given.get("sequences") if isinstance(given, ModelOutput) else given
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype.is_floating_point:
        raise InputError(
            f"report() wants (B, P + n) token ids, or the output of generate that has them as sequences, got {type(given).__name__}"
            f"{f' {tuple(given.shape)} {given.dtype}' if isinstance(given, Tensor) else ''}; pass what generate returned"
        )
    return ids.detach().to("cpu", torch.long)


def _exp(values: Tensor) -> Tensor:
    """Exponentials in place. On a CPU numpy's take half the time of torch's, and a thirtieth where they are below 1e-38."""
    if values.device.type != "cpu":
        return values.exp_()
    np.exp(values.numpy(), out=values.numpy())
    return values


def _log_totals(raw: Tensor, log_probs: Tensor) -> Tensor:
    """log Σ exp of each row (B,), from one token of the row: a pass over the vocabulary is saved."""
    totals = raw[:, 0] - log_probs[:, 0]
    # A far smaller score, as those who mask with the lowest number set, has swallowed the total.
    if not bool((totals.isfinite() & (raw[:, 0].abs() < _FAR)).all()):
        totals = raw.max(-1).values - log_probs.max(-1).values
    return totals
