"""The model's scores at one place, and what each factor makes of them, added up as `ControlProcessor` does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.errors import PotentialError

if TYPE_CHECKING:
    from torch import Tensor

    from ctrldecode.core.potential import Potential, Product, Support

__all__ = ["View", "view_of"]


class View(NamedTuple):
    """Scores at one place, each (V,) float32 on the CPU, −inf where a token is impossible.

    Attributes:
        scores: of the model, then behind each factor, then behind the support if there is one.
        log_normaliser: log Σ exp of the last.
    """

    scores: list[Tensor]
    log_normaliser: float

    @property
    def log_probs(self) -> Tensor:
        """Of the model, (V,)."""
        return self.scores[0]

    @property
    def final(self) -> Tensor:
        """Log of what a token is chosen with, (V,); −inf everywhere at a dead end."""
        return self.scores[-1] if self.log_normaliser == -math.inf else self.scores[-1] - self.log_normaliser

    @property
    def moved(self) -> float:
        """Total variation between the model's distribution and the one a token is chosen with; 1 at a dead end."""
        lost = self.log_probs.double().exp() - self.final.double().exp()
        return min(1.0, float(lost.clamp_min(0).sum()))


def view_of(logits: Tensor, product: Product, support: Support | None, state: Any) -> View:
    """Scores of one place.

    Args:
        logits: (1, V), up to a constant.
        product: the factors.
        support: which tokens stay possible, judged behind the factors.
        state: of the product, one row.

    Raises:
        PotentialError: a factor gives NaN or +inf.
    """
    scores = [torch.log_softmax(logits.float().cpu(), dim=-1)]
    for (factor, power), inner in product.in_order(state):
        scores.append(_weighed(factor, power, inner, scores[-1].clone()))
    if support is not None:
        weighed = scores[-1]
        weights = (weighed - scores[0]).masked_fill(weighed.isneginf(), -math.inf)
        keep = support.kept(product, state, scores[0], weights).cpu()
        scores.append(weighed.masked_fill(~keep, -math.inf))
    return View([row[0] for row in scores], float(scores[-1][0].double().logsumexp(-1)))


def _weighed(factor: Potential[Any], power: float, inner: Any, scores: Tensor) -> Tensor:
    """Scores (1, V) behind a factor, as `Product.add_power` has them: under a negative exponent every token is weighed."""
    if power < 0:
        weights = power * factor.log_weights(inner).cpu()
        scores += weights.masked_fill(scores.isneginf(), 0.0)
    else:
        factor.add_power(inner, scores, power)
    if bool((scores.isnan() | scores.isposinf()).any()):
        raise PotentialError(
            f"{factor.describe()} gave NaN or +inf among its log-weights, or is divided by where it is 0; run ctrldecode.laws.check "
            "on it to find out where"
        )
    return scores
