"""Samplers inside `model.generate(..., custom_generate=hf("cars"))`: the one module of the samplers that knows transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import EosTokenCriteria, MaxLengthCriteria, TemperatureLogitsWarper
from transformers.generation.utils import GenerateDecoderOnlyOutput

from ctrldecode.errors import InputError
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import GenerationConfig, LogitsProcessorList

    from ctrldecode.core.potential import Potential
    from ctrldecode.samplers._samples import Sampler

__all__ = ["custom_generate"]


def custom_generate(
    sampler: Sampler[Any],
    potential: Potential[Any] | None = None,
    *,
    rng: torch.Generator | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """See `ctrldecode.samplers.hf`."""

    def generate(
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: Any = None,
        generation_config: GenerationConfig | None = None,
        **model_kwargs: Any,
    ) -> Any:
        _check_criteria(stopping_criteria)
        config = model.generation_config if generation_config is None else generation_config
        chosen = _potential(potential, logits_processor, config)
        num = int(config.num_return_sequences or 1)
        prompts = input_ids[::num]  # generate repeats a prompt for each sequence it is to return
        mask = model_kwargs.get("attention_mask")
        eos = config.eos_token_id
        ends = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        budget = int(config.max_length) - input_ids.shape[1]
        seed = int(torch.randint(2**62, ()))  # of torch's own generator, as sampling by generate is
        samples = sampler(
            CausalLM(model, eos_token_ids=ends, temperature=float(config.temperature or 1.0)),
            chosen,
            prompts,
            num=num,
            max_new_tokens=budget,
            rng=torch.Generator().manual_seed(seed) if rng is None else rng,
            mask=None if mask is None else mask[::num].bool(),
            **options,
        )
        if samples.stopped == "interrupted":
            raise KeyboardInterrupt
        texts = [text for own in samples.tokens for text in own]
        pad = config.pad_token_id if config.pad_token_id is not None else (ends or [0])[0]
        width = max(map(len, texts), default=0)
        found = f"{sum(map(len, samples.tokens))} of {num * len(prompts)} texts, and generate must return all"
        if samples.stopped:
            raise InputError(
                f"{sampler.name} stopped after max_lm_calls with {found}; raise max_lm_calls, or call the sampler itself for what there is"
            )
        if any(len(own) < num for own in samples.tokens):
            raise InputError(f"{sampler.name} found {found}: there are no more; ask for fewer sequences")
        rows = torch.full((len(texts), width), pad, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = torch.tensor(text)
        sequences = torch.cat([prompts.repeat_interleave(num, dim=0), rows.to(input_ids.device)], dim=1)
        if not config.return_dict_in_generate:
            return sequences
        output = GenerateDecoderOnlyOutput(sequences=sequences)  # type: ignore[arg-type]  # a LongTensor, by its dtype
        output["log_weights"] = torch.cat(samples.log_weights)
        output["log_z"] = samples.log_z
        return output

    return generate


def _check_criteria(criteria: Any) -> None:
    """A sampler's texts end at an end of sequence or at the budget, and nothing else."""
    others = [
        type(one).__name__ for one in criteria or [] if not isinstance(one, (MaxLengthCriteria, EosTokenCriteria))
    ]
    if others:
        raise InputError(
            f"a sampler ends texts at an end of sequence and at max_new_tokens, but generate was given {', '.join(others)}; leave it out, or put "
            "what shall end a text into the potential"
        )


def _potential(
    given: Potential[Any] | None, processors: LogitsProcessorList | None, config: GenerationConfig
) -> Potential[Any]:
    """The potential given, or that of the one `ControlProcessor` among the processors, and nothing beside it."""
    own = [processor for processor in processors or [] if isinstance(processor, ControlProcessor)]
    known = (ControlProcessor, TemperatureLogitsWarper)  # the temperature is the model's own, see above
    others = [type(processor).__name__ for processor in processors or [] if not isinstance(processor, known)]
    if others:
        raise InputError(
            f"a sampler draws from the model and the potential alone, but generate was given {', '.join(others)}; pass top_k=0, since generate "
            "cuts at 50 tokens by default, leave out other settings that add them (repetition_penalty, ...), or turn them into a Potential"
        )
    if (given is None) == (not own) or len(own) > 1:
        raise InputError(
            f"a sampler wants one potential: hf(name, potential), or one ControlProcessor among the logits processors; got {len(own)} "
            f"processors and {'a' if given is not None else 'no'} potential"
        )
    if config.num_beams and config.num_beams > 1:
        raise InputError("a sampler has no beams; leave num_beams out")
    return own[0].potential if given is None else given
