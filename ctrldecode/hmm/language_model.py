"""An HMM as a language model: a normalised `Potential`, for mixtures with the model it was distilled from, and for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ctrldecode.core.language_model import LanguageModel
from ctrldecode.hmm import _filter
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from ctrldecode.hmm.model import HMM

__all__ = ["HMMLanguageModel", "HMMLanguageModelState"]


class HMMLanguageModelState(NamedTuple):
    """What the HMM believes.

    Attributes:
        belief: (B, H) P(z_{t+1} | x_≤t).
        finished: (B,) bool, whether an end of sequence was stepped.
    """

    belief: Tensor
    finished: Tensor


class HMMLanguageModel(LanguageModel[HMMLanguageModelState]):
    """log p_HMM(v | x) as log-weights; 0 once a row has ended.

    The geometric mixture of GeLaTo (Zhang et al. 2023, §4) is `lm ** (1 - w) * HMMLanguageModel(hmm) ** w * lookahead ** w`.

    Args:
        hmm: the model.
        condition_on_prompt: whether the prompt is read.

    Example:
        >>> from ctrldecode.hmm.model import HMM
        >>> lm = HMMLanguageModel(HMM([1, 0], [[0.5, 0.5], [0, 1]], [[0.25, 0.75, 0], [0, 0, 1]], eos_token_ids=[2]))
        >>> lm.log_weights(lm.init(torch.tensor([[0]]))).exp()
        tensor([[0.1250, 0.3750, 0.5000]])
    """

    def __init__(self, hmm: HMM, *, condition_on_prompt: bool = True) -> None:
        self.hmm = hmm
        self.condition_on_prompt = condition_on_prompt
        self.size: int = hmm.size
        self.eos_token_ids: tuple[int, ...] = hmm.eos_token_ids
        self.fingerprint: str = hmm.fingerprint if condition_on_prompt else ""
        self._classes = torch.zeros(hmm.size, dtype=torch.long, device=hmm.device)

    def init(
        self,
        prompts: Tensor,
        mask: Tensor | None = None,
        budget: Tensor | None = None,  # noqa: ARG002
    ) -> HMMLanguageModelState:
        """State after the prompts; a budget has no effect."""
        belief = _filter.after_prompts(self.hmm, prompts, mask, condition=self.condition_on_prompt)
        return HMMLanguageModelState(belief, torch.zeros(len(prompts), dtype=torch.bool, device=belief.device))

    def log_weights(self, state: HMMLanguageModelState, tokens: Tensor | None = None) -> Tensor:
        """log p(v | x), (B, V) or (B, K) float32 on the device of the HMM."""
        nothing = state.belief[:0]
        columns = torch.full((len(state.belief), 1), -1, dtype=torch.int32, device=state.belief.device)
        if tokens is None:
            _, probs = kernels.vocabulary_pass(self.hmm.emission, state.belief, nothing, columns, self._classes)
        else:
            listed = tokens.to(self.hmm.device, torch.long)
            _, probs = kernels.candidate_pass(self.hmm.emission, state.belief, nothing, columns, self._classes, listed)
        return probs.clamp_max(1.0).log().masked_fill(state.finished[:, None], 0.0)

    def step(self, state: HMMLanguageModelState, tokens: Tensor) -> HMMLanguageModelState:
        """State after one more token a row."""
        _filter.check_ids(tokens, self.size)
        ends = _filter.is_end(tokens, self.eos_token_ids).to(self.hmm.device)
        finished = state.finished | ends
        belief = _filter.after_tokens(self.hmm, state.belief, tokens.to(self.hmm.device).masked_fill(finished, -1))
        return HMMLanguageModelState(belief, finished)

    def describe(self) -> str:
        """One line for error messages."""
        return f"an HMM of {self.hmm.states} states as a language model"
