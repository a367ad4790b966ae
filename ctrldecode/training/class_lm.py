"""The loss of a class-conditional language model (GeDi, Krause et al. 2020). It knows arrays and a causal model, and no files.

P(c | x_≤n) = softmax_c( s/n Σ_{t≤n} log P(x_t | x_<t, c) + b_c )        L = λ L_gen + (1 − λ) L_disc
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from ctrldecode.training.codes import Codes

__all__ = ["ClassLM", "token_log_probs"]

# Classes differ by some hundredths of a nat a token at first; from the paper's 1 the loss would move nothing for long.
_FIRST_SCALE = 10.0


def token_log_probs(model: Any, codes: Codes, tokens: Tensor, lengths: Tensor) -> Tensor:
    """(N, C, T) log P(x_t | x_<t, c) of texts behind every code, in one forward pass of N·C rows; 0 at padding.

    Args:
        model: a causal language model of transformers.
        codes: the C classes.
        tokens: (N, T) ids of texts.
        lengths: (N,) how many of each are text; the rest is padding.
    """
    num, width = tokens.shape
    classes, longest = len(codes.names), codes.longest
    rows = tokens.new_zeros(num, classes, longest + width)
    shown = torch.zeros_like(rows)
    real = torch.arange(width, device=tokens.device) < lengths[:, None]  # (N, T)
    for label, prefix in enumerate(codes.prefixes):
        at = len(prefix)
        rows[:, label, :at] = torch.tensor(prefix, device=tokens.device)
        rows[:, label, at : at + width] = tokens
        shown[:, label, :at] = 1
        shown[:, label, at : at + width] = real
    rows, shown = rows.flatten(0, 1), shown.flatten(0, 1)  # (N·C, W)
    logits = model(input_ids=rows[:, :-1], attention_mask=shown[:, :-1], use_cache=False).logits
    # Rows of logits stay contiguous: over a transposed vocabulary the same sum takes four times as long on a CPU.
    found = -functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none")
    found = found.view(num, classes, -1)
    texts = [found[:, label, len(prefix) - 1 :][:, :width] for label, prefix in enumerate(codes.prefixes)]
    return torch.stack(texts, 1) * real[:, None]


class ClassLM(nn.Module):
    """A causal language model with scale and bias of its posterior, and the loss that trains all three.

    Args:
        base: a causal language model of transformers.
        codes: the classes.
        mix: λ, the part of the generative loss.
        prefixes: part of the discriminative loss that is the mean over all prefixes of a text; the rest is of whole texts, as
            in the paper. Decoding asks of prefixes.
    """

    def __init__(self, base: Any, codes: Codes, *, mix: float, prefixes: float) -> None:
        super().__init__()
        self.base = base
        self.codes = codes
        self.mix = mix
        self.prefixes = prefixes
        self.log_scale: nn.Parameter = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
        self.bias: nn.Parameter = nn.Parameter(torch.zeros(len(codes.names)))

    def forward(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and its parts.

        Args:
            tokens: (N, T) ids of texts, padded on the right.
            lengths: (N,) at least 1.
            labels: (N,) classes.

        Returns:
            `loss`; `generative`, the mean over texts of nats a token under a text's own code; `discriminative`, the mean of
            −log P(own class).
        """
        steps = token_log_probs(self.base, self.codes, tokens, lengths)  # (N, C, T)
        own = steps[torch.arange(len(labels), device=labels.device), labels]  # (N, T)
        generative = -(own.sum(1) / lengths).mean()
        discriminative = self._discriminative(steps, lengths, labels)
        loss = self.mix * generative + (1 - self.mix) * discriminative
        return {"loss": loss, "generative": generative.detach(), "discriminative": discriminative.detach()}

    def _discriminative(self, steps: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        read = torch.arange(1, steps.shape[2] + 1, device=steps.device)  # (T,) tokens read
        scores = self.log_scale.exp() * steps.cumsum(2) / read + self.bias[:, None]  # (N, C, T)
        nats = functional.cross_entropy(scores, labels[:, None].expand(-1, len(read)), reduction="none")  # (N, T)
        whole = nats.gather(1, lengths[:, None] - 1).mean()
        if self.prefixes == 0:
            return whole
        mean = ((nats * (read <= lengths[:, None])).sum(1) / lengths).mean()
        return (1 - self.prefixes) * whole + self.prefixes * mean
