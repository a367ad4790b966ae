"""`LanguageModel`: a potential that is a normalised distribution over texts. It knows no model and no framework."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from ctrldecode.core.potential import Potential, cat, take
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

__all__ = ["LanguageModel", "replay"]

S = TypeVar("S")


class LanguageModel(Potential[S]):
    """ψ(x) = p(x | prompt): the exponentials of a row's log-weights add up to 1 until the row has ended.

    A prompt is read as if its tokens had been stepped, up to what `init` alone knows (padding, a budget).

    Attributes:
        eos_token_ids: ids that end a text, sorted.
        tokenizer: the tokenizer that belongs to it, for arguments that are texts; None if it has none.
        config: what its files say of it, by name; read by what is built on it (`GeDi`).
        context: how many tokens it can read, prompt and text together; None if there is no limit.
    """

    eos_token_ids: tuple[int, ...]
    tokenizer: Any = None
    config: Mapping[str, Any] = MappingProxyType({})
    context: int | None = None

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone, without what the tokenizer puts around texts.

        Raises:
            InputError: the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise InputError(
                f"{text!r} is a text, and {self.describe()} has no tokenizer to read it with; give token ids, or write "
                "CausalLM(model, tokenizer=tokenizer)"
            )
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def resume(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> S:
        """State after the prompts and then the texts, which may have different lengths and have not ended.

        Args:
            prompts: (B, P) token ids.
            mask: (B, P) bool, False where a position is padding; None means no padding.
            texts: B lists of ids.
        """
        return replay(self, self.init(prompts, mask), texts)

    def score(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> tuple[S, Tensor]:
        """The state that `resume` gives, and log p(text | prompt), (B,) float64."""
        scoring = _Scoring(self)
        return replay(scoring, scoring.init(prompts, mask), texts)


class _Scored(NamedTuple):
    inner: Any
    total: Tensor  # (B,) float64


class _Scoring(Potential[_Scored]):
    """A language model that keeps the log-probability of what was stepped; only to be replayed."""

    def __init__(self, lm: LanguageModel[Any]) -> None:
        self.lm, self.size = lm, lm.size

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> _Scored:
        return _Scored(self.lm.init(prompts, mask, budget), torch.zeros(len(prompts), dtype=torch.float64))

    def log_weights(self, state: _Scored, tokens: Tensor | None = None) -> Tensor:
        return self.lm.log_weights(state.inner, tokens)

    def step(self, state: _Scored, tokens: Tensor) -> _Scored:
        gained = self.lm.log_weights(state.inner, tokens[:, None])[:, 0].cpu().double()
        return _Scored(self.lm.step(state.inner, tokens), state.total + gained)


def replay(potential: Potential[Any], state: Any, texts: Sequence[Sequence[int]]) -> Any:
    """The state of any potential after a text for each row of a state, by steps; a text may be longer than another."""
    lengths = [len(text) for text in texts]
    parts: list[Any] = []
    order: list[int] = []
    rows = list(range(len(texts)))
    for at in range(max(lengths, default=0) + 1):
        done = [place for place, row in enumerate(rows) if lengths[row] == at]
        if done:
            parts.append(take(state, done))
            order += [rows[place] for place in done]
            rest = [place for place, row in enumerate(rows) if lengths[row] > at]
            state, rows = take(state, rest), [rows[place] for place in rest]
        if rows:
            state = potential.step(state, torch.tensor([texts[row][at] for row in rows]))
    return take(cat(parts), [order.index(row) for row in range(len(texts))])
