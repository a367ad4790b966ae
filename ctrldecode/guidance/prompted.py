"""A language model that reads another prompt than the one it is given: a condition put before it, or only its end."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ctrldecode.core._rows import real_ids
from ctrldecode.core.language_model import LanguageModel
from ctrldecode.guidance._codes import as_ids, begins_of, check_language_model, check_whole
from ctrldecode.guidance._rows import heads_of, padded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

__all__ = ["Prompted"]


class Prompted(LanguageModel[Any]):
    """log p(v | begin, before, the last tokens of the prompt, x): the model behind another prompt.

    With `generate` all potentials get one prompt; this gives one of them a prompt of its own: a control code for DExperts, a condition
    or a negative prompt for classifier-free guidance.

    Args:
        lm: the language model.
        before: text or ids put before the prompt, behind the tokens that begin texts.
        keep: how many of the prompt's last tokens are read; None reads all. 0 puts `before` in the prompt's place.
        start: text or ids that begin every row; what the prompt has of it is not said twice. None: whatever the prompt begins with of
            the model's begin and end tokens.

    Raises:
        InputError: an argument is wrong; in `init`: nothing is left to start from.

    Example:
        >>> import torch
        >>> from ctrldecode.hmm.language_model import HMMLanguageModel
        >>> from ctrldecode.hmm.model import HMM
        >>> lm = HMMLanguageModel(HMM([0.5, 0.5, 0], [[0.9, 0, 0.1], [0, 0.9, 0.1], [0, 0, 1]],
        ...                           [[0.2, 0.8, 0], [0.8, 0.2, 0], [0, 0, 1]], eos_token_ids=[2]))
        >>> ones = Prompted(lm, [1, 1, 1])
        >>> ones.log_weights(ones.init(torch.tensor([[0]]))).exp().round(decimals=2)
        tensor([[0.2100, 0.6900, 0.1000]])
    """

    def __init__(
        self,
        lm: LanguageModel[Any],
        before: str | Sequence[int] = (),
        *,
        keep: int | None = None,
        start: str | Sequence[int] | None = None,
    ) -> None:
        check_language_model(lm, "lm")
        self.lm = lm
        self.keep: int | None = None if keep is None else check_whole(keep, "keep", 0, "None keeps all tokens")
        self.before: tuple[int, ...] = as_ids(before, lm, "before")
        self.start: tuple[int, ...] | None = None if start is None else as_ids(start, lm, "start")
        self.size: int = lm.size
        self.eos_token_ids: tuple[int, ...] = lm.eos_token_ids
        self.tokenizer: Any = lm.tokenizer
        self.config: Mapping[str, Any] = lm.config
        self.context: int | None = lm.context
        self.parallel: bool = lm.parallel

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # that of a network reads all its weights
        """Hex digest of the model's and of the prompt's; "" if the model has none."""
        own = self.lm.fingerprint
        return hashlib.sha256(f"{own} {self.before} {self.keep} {self.start}".encode()).hexdigest() if own else ""

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> Any:
        """State after the prompts (B, P) as this model reads them."""
        return self.lm.init(*self._read(prompts, mask), budget)

    def log_weights(self, state: Any, tokens: Tensor | None = None) -> Tensor:
        """As the language model's."""
        return self.lm.log_weights(state, tokens)

    def step(self, state: Any, tokens: Tensor) -> Any:
        """As the language model's."""
        return self.lm.step(state, tokens)

    def step_all(self, state: Any, tokens: Tensor) -> list[Any]:
        """As the language model's."""
        return self.lm.step_all(state, tokens)

    def resume(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> Any:
        """State after the prompts as this model reads them, and then the texts."""
        return self.lm.resume(*self._read(prompts, mask), texts)

    def score(self, prompts: Tensor, mask: Tensor | None, texts: Sequence[Sequence[int]]) -> tuple[Any, Tensor]:
        """As `resume`, with log p(text), (B,) float64."""
        return self.lm.score(*self._read(prompts, mask), texts)

    def describe(self) -> str:
        """One line for error messages."""
        return f"{self.lm.describe()} behind {list(self.before)}" if self.before else self.lm.describe()

    def _read(self, prompts: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        begins = begins_of(self.lm)
        rows: list[list[int]] = []
        for ids in real_ids(prompts, mask):
            begin, rest = heads_of(ids, self.start, begins)
            kept = rest if self.keep is None else rest[len(rest) - min(self.keep, len(rest)) :]
            rows.append([*begin, *self.before, *kept])
        return padded(rows)
