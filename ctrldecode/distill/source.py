"""From a loaded model, its tokenizer and a recipe to what is sampled from; bad input is refused here, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrldecode.distill.corpus import Source
from ctrldecode.errors import DistillationError
from ctrldecode.lm import context_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.distill.recipe import Recipe, Samples

__all__ = ["source"]


def source(model: Any, tokenizer: Any, eos_token_ids: Sequence[int], recipe: Recipe) -> Source:
    """What a recipe samples from.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        tokenizer: its tokenizer.
        eos_token_ids: ids that end a text.
        recipe: names the prompts, the temperature and the seed.

    Raises:
        DistillationError: no token ends a text, a prompt ends one, or prompt and length do not fit into the model.
    """
    if not eos_token_ids:
        raise DistillationError(
            f"{recipe.model} has no end-of-sequence token, so no text would end; set eos_token_id in its "
            "generation_config.json, or in the tokenizer"
        )
    begin = tokenizer.bos_token_id
    begin = min(eos_token_ids) if begin is None else begin  # GPT-2 and its kin begin texts with what ends them
    prompts = tuple(_encoded(tokenizer, kind, begin, eos_token_ids) for kind in recipe.samples)
    longest = max(len(ids) + kind.length for kind, of in zip(recipe.samples, prompts, strict=True) for ids in of)
    positions = longest * min(recipe.clustered, recipe.sequences)
    if recipe.states > positions:
        raise DistillationError(
            f"{recipe.states} states need at least as many positions to be clustered, and there will be at most {positions}; "
            "ask for fewer --states, or for more or longer --sequences"
        )
    room = context_of(model)
    if room is not None and 1 + longest > room:
        raise DistillationError(
            f"the begin token, a prompt and what continues it, up to {1 + longest} tokens, do not fit into the {room} positions "
            f"of {recipe.model}; shorten the prompts, or ask for a smaller --length"
        )
    return Source(model, prompts, begin, tuple(eos_token_ids), recipe.temperature, recipe.seed)


def _encoded(tokenizer: Any, kind: Samples, begin: int, eos_token_ids: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The ids of each prompt, without a begin token in front."""
    encoded: list[tuple[int, ...]] = []
    for prompt in kind.prompts:
        ids = tuple(tokenizer(prompt, add_special_tokens=False).input_ids) if prompt else ()
        ids = ids[1:] if ids[:1] == (begin,) else ids
        if not set(ids).isdisjoint(eos_token_ids):
            raise DistillationError(
                f"the prompt {prompt!r} has an end-of-sequence token in it, behind which nothing can follow; take it out"
            )
        encoded.append(ids)
    return tuple(encoded)
