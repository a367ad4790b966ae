"""How many forward passes of a class LM guided texts take, with drafts of an assistant and without."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ctrldecode.guidance import GeDi
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor

__all__ = ["TOKENS", "fewer_layers", "noisy", "passes"]

TOKENS = 12


def noisy(model: Any, deviations: float) -> Any:
    """The model with noise on every weight, in standard deviations of the tensor that it is in."""
    draft = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in draft.parameters():
            weights.add_(deviations * weights.std() * torch.randn(weights.shape, generator=rng))
    return draft


def fewer_layers(model: Any, layers: int) -> Any:
    """The model with its first layers only."""
    draft = copy.deepcopy(model)
    draft.model.layers = draft.model.layers[:layers]
    draft.config.num_hidden_layers = layers
    return draft


def passes(model: Any, draft: Any | None, prompts: int, new: int = TOKENS, **settings: Any) -> tuple[int, list[Any]]:
    """Forward passes for some prompts of six tokens, greedily and with fixed strength, and the texts.

    Args:
        model: writes, and is the class LM too; two of its tokens are the codes.
        draft: the assistant; None for plain decoding.
        prompts: how many, one at a time.
        new: tokens of a text.
        settings: of the processor.
    """
    lm = CausalLM(model, eos_token_ids=[])
    potential = GeDi(lm, {"happy": [1], "sad": [2]}, target="sad", strength=10.0, scale=2.0, start=[0])
    processor = ControlProcessor(potential, **settings)
    texts: list[Any] = []
    rng = torch.Generator()
    for row in range(prompts):
        ids = torch.tensor([[0, *torch.randint(300, 3000, (5,), generator=rng.manual_seed(row)).tolist()]])
        mode = {} if draft is None else {"assistant_model": draft}
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            logits_processor=[processor],
            **mode,
        )
        texts.append(output.tolist())
    return lm.forward_passes.calls, texts
