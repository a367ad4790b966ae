"""Ratios of language models by name: DExperts, classifier-free guidance, contrastive decoding.

Each is a potential to multiply the model with that generates: p(v | x) ψ(x·v)/ψ(x). They are nothing but the algebra of
`Potential`; what they add is a formula with its source, and checks.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from ctrldecode.core.potential import Support
from ctrldecode.errors import InputError
from ctrldecode.guidance._codes import check_language_model, check_same_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from ctrldecode.core.language_model import LanguageModel
    from ctrldecode.core.potential import Product

__all__ = ["Contrast", "cfg", "contrastive", "dexperts", "plausible"]


def dexperts(expert: LanguageModel[Any], anti: LanguageModel[Any], alpha: float = 2.0) -> Product:
    """ψ = (p⁺/p⁻)^α: what the expert says more than the anti-expert.

    DExperts (Liu et al. 2021), eq. 1: softmax(z + α (z⁺ − z⁻)), z being the scores of the model that generates.

    Args:
        expert: p⁺, a language model over the same tokens.
        anti: p⁻; it must allow all that the expert allows.
        alpha: α, any number; the paper uses 2 for toxicity and 3.2 for sentiment.

    Raises:
        InputError: no language models, other sizes or ends, or α is no finite number.
        VocabularyError: both have a tokenizer, and these differ.
    """
    _check(alpha, "alpha", expert=expert, anti=anti)
    return (expert / anti) ** alpha


def cfg(cond: LanguageModel[Any], uncond: LanguageModel[Any], gamma: float = 1.5) -> Product:
    """ψ = (p_cond/p_uncond)^(γ−1), for a model that generates behind the condition: p_cond · ψ ∝ p_uncond^(1−γ) p_cond^γ.

    Classifier-free guidance (Sanchez et al. 2023), eq. 7: log p_uncond + γ (log p_cond − log p_uncond). γ = 1 changes nothing. The two
    are mostly one network behind two prompts: `lm` and `Prompted(lm, negative, keep=0)`, or `Prompted(lm, keep=1, start=())`, which reads the
    prompt's last token only, as `generate(guidance_scale=γ)` does.

    If the model that generates stands without the condition, the exponent is γ: `cfg(cond, uncond, gamma + 1)`.

    Args:
        cond: the model behind the condition.
        uncond: the model without it, or behind a negative one.
        gamma: γ, any number.

    Raises:
        InputError: no language models, other sizes or ends, or γ is no finite number.
        VocabularyError: both have a tokenizer, and these differ.
    """
    _check(gamma, "gamma", cond=cond, uncond=uncond)
    return (cond / uncond) ** (gamma - 1)


class Contrast(NamedTuple):
    """Contrastive decoding: `ControlProcessor(contrast.potential, support=contrast.support)`."""

    potential: Product
    support: Support


def contrastive(expert: LanguageModel[Any], amateur: LanguageModel[Any], plausibility: float = 0.1) -> Contrast:
    """ψ = 1/p_amateur among the plausible tokens: the expert, which generates, less what the amateur says too.

    Contrastive decoding (Li et al. 2023), eq. 2 and 3: log p_expert − log p_amateur for tokens with p_expert ≥ α max p_expert, −inf
    for others.

    Args:
        expert: the language model that generates. Its scores come from there; here it is only seen to have the amateur's tokens.
        amateur: a weaker language model.
        plausibility: α in (0, 1]; the paper uses 0.1.

    Raises:
        InputError: no language models, other sizes or ends, or α out of range.
        VocabularyError: both have a tokenizer, and these differ.

    While decoding, an amateur that gives a token probability 0 is a `PotentialError`: the ratio is infinite there.
    """
    _check(plausibility, "plausibility", expert=expert, amateur=amateur)
    return Contrast(expert**0 * amateur**-1, plausible(plausibility))


def plausible(fraction: float) -> Support:
    """The tokens with p(v | x) ≥ fraction · max p(· | x), by the model that generates (Li et al. 2023, eq. 3).

    Raises:
        InputError: the fraction lies outside (0, 1].

    Example:
        >>> import torch
        >>> plausible(0.5).keep(torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.zeros(1, 3))
        tensor([[ True,  True, False]])
    """
    if not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise InputError(
            f"plausibility must lie in (0, 1], got {fraction!r}; 0.1 keeps what is at least a tenth as likely as the best"
        )
    # Rounding must not lose a token that is exactly at the border: logs of float32 are good to 1e-6.
    least = math.log(fraction) - 1e-6

    def keep(log_probs: Tensor, _: Tensor) -> Tensor:
        return log_probs >= log_probs.amax(-1, keepdim=True) + least

    return Support(keep, f"plausibility of {fraction:g}")


def _check(number: float, name: str, **models: Any) -> None:
    for role, lm in models.items():
        check_language_model(lm, role)
    ends = {lm.eos_token_ids for lm in models.values()}
    if len(ends) > 1:
        raise InputError(
            f"{' and '.join(models)} must end texts at the same ids, got {sorted(ends)}; give both CausalLM(model, eos_token_ids=...)"
        )
    if not isinstance(number, Real) or not math.isfinite(number):
        raise InputError(f"{name} must be a finite number, got {number!r}")
    check_same_tokens(models)
