"""Assistants of `generate` for assisted decoding whose drafts cost the potentials of the target no forward pass."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from transformers import LogitsProcessorList

from ctrldecode.core.potential import PerRow, Potential, Product, per_row
from ctrldecode.errors import CtrldecodeError
from ctrldecode.processor import ControlProcessor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = ["light"]


class _Lenient(NamedTuple):
    """A processor of drafts, which may come where a text never would: there the scores stay as they are.

    What a draft proposes at a dead end is refused, and whatever else is wrong the target's processor meets too, and tells.
    """

    processor: ControlProcessor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        try:
            return self.processor(input_ids, scores)
        except CtrldecodeError:
            return scores


class _Light(NamedTuple):
    """What controls the drafts in place of a processor; what it has seen is of the drafts alone."""

    processor: _Lenient | None
    prompts: Tensor  # of the draft before
    epoch: int  # of the target's processor


def light(assistant: Any) -> Any:
    """An assistant whose drafts are controlled by what costs little: no network reads while it drafts.

    `generate` gives the draft all processors of the target, so that it agrees with the target more often; but where a step of a
    potential is a forward pass, as under `GeDi`, each token that is proposed costs one, and those that are refused cost it in vain.
    This assistant leaves factors out that are `parallel`, and keeps the others: grammars, words, attributes. When the draft is
    verified, a `ControlProcessor` reads all of it in one forward pass, so that a text takes at most one more of them than tokens.

    What is generated is what it would be with any other assistant, or without one, in distribution if it is sampled (Leviathan et
    al. 2023, "Fast Inference from Transformers via Speculative Decoding": the draft may be anything).

    Args:
        assistant: a model of `transformers` with the target's tokenizer; it stays as it is, and its weights are shared.

    Returns:
        A shallow copy, for `generate(assistant_model=...)`.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2, max_position_embeddings=32)
        >>> model = LlamaForCausalLM(config).eval()
        >>> draft = light(model)
        >>> draft.lm_head.weight is model.lm_head.weight
        True
    """
    known: WeakKeyDictionary[ControlProcessor, _Light] = WeakKeyDictionary()

    def generate(*args: Any, input_ids: Tensor, logits_processor: Iterable[Any] | None = None, **kwargs: Any) -> Any:
        kept: list[Any] = []
        for own in logits_processor or ():
            if isinstance(own, ControlProcessor):
                known[own] = _lighter(own, known.get(own), input_ids)
                kept += [] if known[own].processor is None else [known[own].processor]
            else:
                kept.append(own)
        return assistant.generate(*args, input_ids=input_ids, logits_processor=LogitsProcessorList(kept), **kwargs)

    draft = copy.copy(assistant)
    draft.generate = generate
    return draft


def _lighter(processor: ControlProcessor, before: _Light | None, prompts: Tensor) -> _Light:
    """What controls the draft of some prompts (1, L); as before, if they go on where the last ones were."""
    if before is None:
        potential = _without_networks(processor.potential)
        own = None if potential is None else _Lenient(_processor(potential, processor))
        return _Light(own, prompts, processor.epoch)
    start = before.prompts.shape[1]
    goes_on = prompts.shape[1] > start and torch.equal(prompts[:, :start], before.prompts)
    if before.processor is not None:
        if goes_on and before.epoch == processor.epoch:
            # It saw no verification: after a draft that was accepted whole, it would miss one token of the row.
            before.processor(prompts[:, :-1], torch.zeros(1, processor.potential.size))
        else:
            before.processor.processor.begin()
    return before._replace(prompts=prompts, epoch=processor.epoch)


def _without_networks(potential: Potential[Any]) -> Potential[Any] | None:
    if not potential.parallel:
        return potential
    if isinstance(potential, PerRow):
        return per_row([_without_networks(own) or Product([], [own.size]) for own in potential.potentials])
    factors = potential.factors if isinstance(potential, Product) else ()
    lighter = [(_without_networks(factor), power) for factor, power in factors]
    kept = [(factor, power) for factor, power in lighter if factor is not None]
    return Product(kept) if kept else None


def _processor(potential: Potential[Any], like: ControlProcessor) -> ControlProcessor:
    return ControlProcessor(
        potential,
        max_new_tokens=like.max_new_tokens,
        eos_token_ids=like.eos_token_ids,
        store_bytes=like.store_bytes,
    )
