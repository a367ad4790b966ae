"""How well codes tell classes apart: evidence of texts under any model, scale and bias fitted to it, and held-out figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ctrldecode.training.class_lm import token_log_probs
from ctrldecode.training.data import collate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctrldecode.training.codes import Codes
    from ctrldecode.training.data import Text

__all__ = ["READ", "Evidence", "Figures", "Posterior", "evidence", "fit_posterior", "measure"]

READ: tuple[int | None, ...] = (16, 32, 64, None)
"""Tokens that are read before the class is asked for, in figures and fits; None is the whole text."""

_MOST_NATS = 709.0  # exp of more overflows float64

_RIDGE = 1e-4  # nats: keeps the scale finite where classes are parted without an error, and moves nothing else


class Evidence(NamedTuple):
    """What a model says of one text.

    Attributes:
        nats: (C, T) Σ_{s≤t} log P(x_s | x_<s, c), for every t.
        label: its class.
    """

    nats: Tensor
    label: int

    def mean(self, read: int | None) -> Tensor:
        """(C,) log-probability a token of the first `read` tokens, or of all that there are."""
        count = self.nats.shape[1] if read is None else min(read, self.nats.shape[1])
        return self.nats[:, count - 1] / count


class Posterior(NamedTuple):
    """P(c | x_≤n) = softmax_c(scale · L_c/n + bias_c)."""

    scale: float
    bias: tuple[float, ...]

    def log_probs(self, means: Tensor) -> Tensor:
        """(N, C) from log-probabilities a token (N, C)."""
        return (self.scale * means + means.new_tensor(self.bias)).log_softmax(-1)


class Figures(NamedTuple):
    """Held-out figures; every class counts equally, however many texts it has.

    Attributes:
        texts: how many.
        read: tokens read at most, of each measurement; None is the whole text.
        accuracy: share of right classes, a mean over classes, for each of `read`.
        log_loss: −log P(right class) in nats, likewise.
        nats: nats a token under the right code, over all tokens.
    """

    texts: int
    read: tuple[int | None, ...]
    accuracy: tuple[float, ...]
    log_loss: tuple[float, ...]
    nats: float

    @property
    def perplexity(self) -> float:
        """Of texts under their own code; infinite where no float can hold it."""
        return math.exp(self.nats) if self.nats < _MOST_NATS else math.inf


@torch.inference_mode()
def evidence(
    model: Any, codes: Codes, texts: Sequence[Text], batch: int = 16, report: Callable[[int, int], None] | None = None
) -> list[Evidence]:
    """Evidence of texts under a model in evaluation mode, in their order; texts of like length run together."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row].tokens))
    found: dict[int, Evidence] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        fields = collate([texts[row] for row in rows])
        steps = token_log_probs(model, codes, fields["tokens"].to(model.device), fields["lengths"].to(model.device))
        sums = steps.double().cumsum(2).cpu()
        for at, row in enumerate(rows):
            text = texts[row]
            found[row] = Evidence(sums[at, :, : len(text.tokens)].clone(), text.label)
        if report is not None:
            report(len(found), len(texts))
    return [found[row] for row in range(len(texts))]


def fit_posterior(found: Sequence[Evidence], read: Sequence[int | None] = READ) -> Posterior:
    """Scale and bias of least log loss, a mean over classes and over `read`; two or more numbers, by LBFGS.

    Texts that the model was trained on make the scale too large: it knows them better than new ones.
    """
    labels = torch.tensor([text.label for text in found])
    means = torch.stack([torch.stack([text.mean(count) for text in found]) for count in read])  # (R, N, C)
    unit = 1 / float((means - means.mean(2, keepdim=True)).std())  # a scale of 1 in these units is near the answer
    free = torch.zeros(1 + means.shape[2], dtype=means.dtype, requires_grad=True)
    weights = _weights(labels)

    def loss() -> Tensor:
        scores = (free[0].exp() * unit * means + free[1:]).log_softmax(-1)
        return sum((_nats(part, labels, weights) for part in scores), _RIDGE * free.square().sum())

    optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    bias: list[float] = (free[1:] - free[1:].mean()).tolist()
    return Posterior(free[0].exp().item() * unit, tuple(bias))


def measure(found: Sequence[Evidence], posterior: Posterior, read: Sequence[int | None] = READ) -> Figures:
    """Figures of evidence under a posterior."""
    labels = torch.tensor([text.label for text in found])
    weights = _weights(labels)
    accuracy: list[float] = []
    log_loss: list[float] = []
    for count in read:
        scores = posterior.log_probs(torch.stack([text.mean(count) for text in found]))
        accuracy.append(float(((scores.argmax(1) == labels) * weights).sum()))
        log_loss.append(float(_nats(scores, labels, weights)))
    nats = -sum(float(text.nats[text.label, -1]) for text in found) / sum(text.nats.shape[1] for text in found)
    return Figures(len(found), tuple(read), tuple(accuracy), tuple(log_loss), nats)


def _weights(labels: Tensor) -> Tensor:
    """(N,) that sum to 1, and equally over the classes that there are."""
    counts = functional.one_hot(labels).sum(0)  # (C,)
    return 1 / (counts[labels] * (counts > 0).sum()).double()


def _nats(log_probs: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return -(log_probs.gather(1, labels[:, None])[:, 0] * weights).sum()
