"""`LanguageModel`: a potential that is a normalised distribution over texts. It knows no model and no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ctrldecode.core.potential import Potential, cat, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["LanguageModel", "replay"]

S = TypeVar("S")


class LanguageModel(Potential[S]):
    """ψ(x) = p(x | prompt): the exponentials of a row's log-weights add up to 1 until the row has ended.

    A prompt is read as if its tokens had been stepped, up to what `init` alone knows (padding, a budget).

    Attributes:
        eos_token_ids: ids that end a text, sorted.
    """

    eos_token_ids: tuple[int, ...]

    def resume(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> S:
        """State after the prompts and then the texts, which may have different lengths and have not ended.

        Args:
            prompts: (B, P) token ids.
            mask: (B, P) bool, False where a position is padding; None means no padding.
            texts: B lists of ids.
        """
        return replay(self, self.init(prompts, mask), texts)


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
