"""Texts by sequential Monte Carlo for `generate --particles`: one population a prompt, from which texts are drawn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from ctrldecode.cli._decoding import Generated, Settings, encode, log_prob_of, text_of
from ctrldecode.lm import CausalLM
from ctrldecode.samplers import branching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential

__all__ = ["grow"]


def grow(
    loaded: Loaded,
    prompt: str,
    settings: Settings,
    particles: int,
    potential: Potential[Any],
    twist: Potential[Any] | None,
    *,
    likeliest: bool,
) -> Iterator[Generated]:
    """Continue a prompt `settings.num` times by `samplers.branching`.

    Args:
        loaded: the model.
        prompt: its text.
        settings: how many texts, temperature and budget.
        particles: how many texts grow side by side.
        potential: what they must satisfy.
        twist: what foresees it.
        likeliest: take those that the model likes best, in place of drawing by weight.

    Raises:
        InputError: prompt and budget do not fit into the model's context.
        BudgetError: no text of the potential fits into the budget.
    """
    inputs = encode(loaded, prompt, settings.max_new_tokens, potential)
    lm = CausalLM(loaded.model, eos_token_ids=loaded.eos_token_ids, temperature=settings.temperature)
    rng = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    found = branching(
        lm, potential, inputs, num=particles, max_new_tokens=settings.max_new_tokens, rng=rng, twist=twist
    )
    before, texts = inputs[0].tolist(), found.tokens[0]
    if likeliest:
        chosen = sorted(texts, key=lambda text: -log_prob_of(loaded.model, before, text))[: settings.num]
    else:
        (chosen,) = found.resample(settings.num, rng)
    if len(chosen) < settings.num:
        print(f"note: {len(chosen)} of {settings.num} texts, since the particles hold no more", file=sys.stderr)
    for tokens in chosen:
        yield Generated(
            prompt=prompt,
            text=text_of(loaded, before, tokens),
            tokens=tokens,
            log_prob=log_prob_of(loaded.model, before, tokens) if settings.score else None,
            log_weight=None if likeliest else float(found.log_z[0]),
            finished=tokens[-1] in loaded.eos_token_ids,
        )
