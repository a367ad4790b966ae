"""FUDGE: a user's classifier of prefixes as a potential, of which it knows that it can be called.

Yang and Klein 2021, "FUDGE: Controlled Text Generation With Future Discriminators".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ctrldecode.core._rows import left_padded, real_ids
from ctrldecode.core.potential import Potential
from ctrldecode.errors import PotentialError
from ctrldecode.guidance._codes import as_set, check_number, check_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Fudge", "FudgeState", "PrefixClassifier", "fudge"]

PrefixClassifier: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""From prefixes (N, L) padded on the left, and a bool mask (N, L), to log P(a | prefix), (N,)."""

# Prefixes given to the classifier at a time: enough for a GPU, and no vocabulary of 50k at once.
_ROWS = 4096


class FudgeState(NamedTuple):
    """Prefixes as they are.

    Attributes:
        prefixes: per row the ids so far, prompt included, without padding.
        log_prob: (B,) log P(a | prefix).
        finished: (B,) bool.
    """

    prefixes: list[tuple[int, ...]]
    log_prob: Tensor
    finished: Tensor


class Fudge(Potential[FudgeState]):
    """ψ(x) = P(a | x)^ω by a classifier that judges prefixes; see `fudge`."""

    def __init__(
        self,
        classifier: PrefixClassifier,
        strength: float,
        size: int,
        eos_token_ids: Iterable[int],
        candidates: int | None,
    ) -> None:
        check_number(strength, "strength", "1 is the paper's")
        self.size: int = check_whole(size, "size", 1, "it is how many token ids the model's head scores")
        self.classifier = classifier
        self.strength: float = float(strength)
        self.candidates: int | None = None
        if candidates is not None:
            self.candidates = min(check_whole(candidates, "candidates", 1, "None judges all tokens"), self.size)
        self.eos_token_ids: tuple[int, ...] = as_set(eos_token_ids, self.size)

    def init(
        self,
        prompts: Tensor,
        mask: Tensor | None = None,
        budget: Tensor | None = None,  # noqa: ARG002
    ) -> FudgeState:
        """State after the prompts (B, P), which the classifier reads too."""
        prefixes = [tuple(ids) for ids in real_ids(prompts, mask)]
        return FudgeState(prefixes, self._judge(prefixes), torch.zeros(len(prefixes), dtype=torch.bool))

    def log_weights(self, state: FudgeState, tokens: Tensor | None = None) -> Tensor:
        """ω (log P(a | x·v) − log P(a | x)), (B, V) or (B, K) float32; the classifier is asked B·V or B·K times."""
        listed = torch.arange(self.size).expand(len(state.prefixes), -1) if tokens is None else tokens.cpu()
        live = (~state.finished).nonzero().flatten().tolist()
        weights = torch.zeros(listed.shape)
        longer = [(*state.prefixes[row], token) for row in live for token in listed[row].tolist()]
        after = self._judge(longer).reshape(len(live), listed.shape[1])
        before = state.log_prob[live][:, None]
        change = self.strength * (after - before)
        weights[live] = change.masked_fill(after.isneginf() | before.isneginf(), -math.inf)
        return weights

    def step(self, state: FudgeState, tokens: Tensor) -> FudgeState:
        """State after one more token a row."""
        ids: list[int] = tokens.tolist()
        pairs = zip(state.prefixes, ids, state.finished.tolist(), strict=True)
        prefixes = [prefix if done else (*prefix, token) for prefix, token, done in pairs]
        ends = torch.isin(tokens.cpu(), torch.tensor(self.eos_token_ids, dtype=torch.long))
        return FudgeState(prefixes, self._judge(prefixes), state.finished | ends)

    def add_power(self, state: FudgeState, scores: Tensor, power: float) -> None:
        """The likeliest candidates by the scores are judged; all others get −inf (§3.1 of the paper)."""
        if self.candidates is None:
            scores += power * self.log_weights(state).to(scores.device)
            return
        tokens = scores.topk(self.candidates, dim=-1).indices
        weights = power * self.log_weights(state, tokens).to(scores.device)
        added = torch.full_like(scores, -math.inf).scatter_(1, tokens, weights.to(scores.dtype))
        added[state.finished.to(scores.device)] = 0.0
        scores += added

    def add_log_weights(self, state: FudgeState, scores: Tensor) -> None:
        self.add_power(state, scores, 1.0)

    def describe(self) -> str:
        """One line for error messages."""
        return f"FUDGE ({self.strength:g})"

    def _judge(self, prefixes: list[tuple[int, ...]]) -> Tensor:
        """log P(a | prefix), (N,) float32 on the CPU."""
        parts: list[Any] = [torch.zeros(0)]
        for start in range(0, len(prefixes), _ROWS):
            ids, mask = left_padded(prefixes[start : start + _ROWS])
            with torch.no_grad():
                found = self.classifier(ids, mask)
            _check(found, len(ids))
            parts.append(found.detach().float().cpu())
        return torch.cat(parts)


def fudge(
    classifier: PrefixClassifier,
    strength: float = 1.0,
    *,
    size: int,
    eos_token_ids: Iterable[int],
    candidates: int | None = 200,
) -> Fudge:
    """ψ(x) = P(a | x)^ω for an attribute a, by your own classifier of prefixes (Yang and Klein 2021, eq. 2).

    Args:
        classifier: from prefixes (N, L) padded on the left, prompt included, and a bool mask (N, L), False at padding, to
            log P(a | prefix), (N,). It should judge what the finished text will be, so train it on prefixes.
        strength: ω > 0; 1 in the paper.
        size: V, the number of token ids that the model's head scores.
        eos_token_ids: ids that end a text.
        candidates: how many of the likeliest tokens are judged at each step, all others being impossible; the paper takes 200. None
            judges all V.

    Raises:
        InputError: an argument is out of range.
        PotentialError: in use, the classifier returned something else than N log-probabilities.

    Example:
        >>> def few(ids, mask):  # likes short texts
        ...     return -0.5 * mask.sum(-1)
        >>> potential = fudge(few, size=3, eos_token_ids=[2])
        >>> potential.log_weights(potential.init(torch.tensor([[0, 1]])))
        tensor([[-0.5000, -0.5000, -0.5000]])
    """
    return Fudge(classifier, strength, size, eos_token_ids, candidates)


def _check(found: Any, rows: int) -> None:
    if not isinstance(found, Tensor) or found.shape != (rows,):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise PotentialError(
            f"the classifier must return a tensor ({rows},), log P(a | prefix) of each prefix, got {got}"
        )
    if bool((found.isnan() | (found > 1e-4)).any()):
        raise PotentialError(
            f"the classifier must return log-probabilities, at most 0 and never NaN, got up to {float(found.max()):g}; apply "
            "torch.nn.functional.logsigmoid to logits"
        )
