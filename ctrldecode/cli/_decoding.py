"""Calls `generate` for the commands: one prompt at a time, samples in batches. Knows nothing of options and of printing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper
from transformers.generation.streamers import BaseStreamer

from ctrldecode.core.potential import Product
from ctrldecode.errors import InputError
from ctrldecode.guidance import GeDi
from ctrldecode.lm import context_of
from ctrldecode.processor import ControlProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torch import Tensor

    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential

__all__ = ["Generated", "Settings", "Stream", "decode", "encode", "log_prob_of", "seeded", "text_of"]

# Rows of one call of generate: enough to keep a CPU or a small GPU busy, few enough that the caches of a large model fit.
_BATCH = 16
# Beam search fills up beams that no allowed token can continue with scores of -1e9 and below; no text scores like that.
_NO_TEXT = -1e8


class Settings(NamedTuple):
    """How to decode.

    Attributes:
        num: how many texts for a prompt.
        beams: 1 for none.
        temperature: of sampling; 0 takes the likeliest token, or the likeliest beams.
        max_new_tokens: the budget, the end-of-sequence token included.
        stop: ids that end a text beside the model's own.
        score: whether to compute log-probabilities, at the cost of one more pass over each text.
        restricted: whether a sample is weighed against the model restricted to what may be sampled, as hard conditions want it, however
            tokens were weighed; else against p(x) ψ(x) / ψ(prompt).
    """

    num: int = 1
    beams: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 128
    stop: tuple[int, ...] = ()
    score: bool = False
    restricted: bool = False


class Generated(NamedTuple):
    """One text.

    Attributes:
        prompt: what it continues.
        text: the continuation.
        tokens: its ids, the end of sequence included.
        log_prob: the natural log of its probability under the model alone, at temperature 1; None if not asked for.
        log_weight: its importance weight (see `RowReport`, and `Settings.restricted`); None where it is no sample: beams, temperature 0.
        finished: whether it ended by itself, not by the budget.
    """

    prompt: str
    text: str
    tokens: list[int]
    log_prob: float | None
    log_weight: float | None
    finished: bool


class Stream(BaseStreamer):
    """Passes on the text of one sequence while it grows, whole characters at a time, without the ids in `hidden`."""

    def __init__(self, loaded: Loaded, write: Callable[[str], object], hidden: tuple[int, ...] = ()) -> None:
        self._loaded = loaded
        self._hidden = hidden
        self._write = write
        self._prompt: list[int] | None = None
        self._tokens: list[int] = []
        self._written = 0

    def put(self, value: Tensor) -> None:
        """Take the prompt first, then token after token."""
        if self._prompt is None:
            self._prompt = value.flatten().tolist()
            return
        self._tokens += [token for token in value.flatten().tolist() if token not in self._hidden]
        self._advance(
            text_of(self._loaded, self._prompt, self._tokens).rstrip("\ufffd")
        )  # a character may be half there

    def end(self) -> None:
        """Write what was held back."""
        self._advance(text_of(self._loaded, self._prompt or [], self._tokens))
        self._prompt, self._tokens, self._written = None, [], 0

    def _advance(self, text: str) -> None:
        if len(text) > self._written:
            self._write(text[self._written :])
            self._written = len(text)


@contextmanager
def seeded(seed: int | None) -> Generator[None]:
    """Seed torch for a while, then put its generators back as they were; None draws a seed."""
    with torch.random.fork_rng():
        if seed is None:
            torch.seed()
        else:
            torch.manual_seed(seed)
        yield


def decode(
    loaded: Loaded,
    prompt: str,
    settings: Settings,
    potential: Potential[Any] | None = None,
    stream: Stream | None = None,
) -> Iterator[Generated]:
    """Continue a prompt `settings.num` times, or fewer times if beam search finds fewer texts.

    Temperature is applied before the potential: what is sampled is p_T(v | x) ψ(x·v) / ψ(x), with p_T the model at that
    temperature, so log-weights are right with respect to p_T.

    Raises:
        InputError: the prompt and the budget do not fit into the model's context.
        BudgetError: no text of the constraint fits into the budget.
    """
    inputs = encode(loaded, prompt, settings.max_new_tokens, potential)
    control = _control(loaded, settings, potential)
    samples = settings.beams == 1 and settings.temperature > 0
    largest = _BATCH if samples else settings.num
    for done in range(0, settings.num, largest):
        rows = min(largest, settings.num - done)
        sequences = _generate(loaded, inputs, rows, settings, control, stream)
        yield from _results(loaded, prompt, inputs.shape[1], sequences, settings, control)


def encode(loaded: Loaded, prompt: str, budget: int, potential: Potential[Any] | None = None) -> Tensor:
    """Ids (1, P) of the prompt, with what the tokenizer puts around it; an empty one is the beginning of a text.

    Raises:
        InputError: prompt and budget do not fit into the context of the model, or of a class LM of the potential.
    """
    tokenizer = loaded.tokenizer
    ids: list[int] = tokenizer(prompt).input_ids
    if not ids:
        ids = [loaded.eos_token_ids[0] if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
    context = context_of(loaded.model)
    if context is not None and len(ids) + budget > context:
        raise InputError(
            f"the prompt has {len(ids)} tokens and {budget} new ones may follow, but {loaded.name} reads at most {context}; "
            "shorten the prompt or lower --max-new-tokens"
        )
    inputs = torch.tensor([ids], device=loaded.model.device)
    for guide in _guides(potential):
        guide.check_context(inputs, budget)
    return inputs


def _guides(potential: Potential[Any] | None) -> list[GeDi]:
    """The factors of a potential that ask a class LM."""
    factors = [factor for factor, _ in potential.factors] if isinstance(potential, Product) else [potential]
    return [factor for factor in factors if isinstance(factor, GeDi)]


def _control(loaded: Loaded, settings: Settings, potential: Potential[Any] | None) -> ControlProcessor | None:
    if potential is None:
        return None
    return ControlProcessor(
        potential,
        max_new_tokens=settings.max_new_tokens,
        eos_token_ids=(*loaded.eos_token_ids, *settings.stop),
        on_dead_end="raise" if settings.beams == 1 else "drop",
    )


def _generate(
    loaded: Loaded,
    inputs: Tensor,
    rows: int,
    settings: Settings,
    control: ControlProcessor | None,
    stream: Stream | None,
) -> Tensor:
    """(n, P + m) sequences, prompts included. Neutral values are spelled out, as generate's own defaults cut off tails."""
    processors = LogitsProcessorList()
    if settings.temperature not in (0, 1):
        processors.append(TemperatureLogitsWarper(float(settings.temperature)))
    if control is not None:
        processors.append(control)
    output: Any = loaded.model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=settings.temperature > 0,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_beams=settings.beams,
        num_return_sequences=rows,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=[*loaded.eos_token_ids, *settings.stop],
        logits_processor=processors,
        streamer=stream,
        return_dict_in_generate=True,
        output_scores=settings.beams > 1,
    )
    if settings.beams == 1:
        return output.sequences
    return output.sequences[output.sequences_scores > _NO_TEXT]


def _results(
    loaded: Loaded, prompt: str, start: int, sequences: Tensor, settings: Settings, control: ControlProcessor | None
) -> Iterator[Generated]:
    ends = {*loaded.eos_token_ids, *settings.stop}
    samples = settings.beams == 1 and settings.temperature > 0
    for sequence in sequences:
        before, tokens = sequence[:start].tolist(), _trimmed(sequence[start:].tolist(), ends)
        log_weight = None if not samples else 0.0
        if samples and control is not None:
            (report,) = control.report(sequence[None])
            log_weight = report.log_ratio if settings.restricted else report.log_weight
        yield Generated(
            prompt=prompt,
            text=text_of(loaded, before, [token for token in tokens if token not in settings.stop]),
            tokens=tokens,
            log_prob=log_prob_of(loaded.model, before, tokens) if settings.score else None,
            log_weight=log_weight,
            finished=tokens[-1] in ends,
        )


def _trimmed(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to the first end, that one included; padding goes."""
    for position, token in enumerate(tokens):
        if token in ends:
            return tokens[: position + 1]
    return tokens


@torch.inference_mode()
def log_prob_of(model: Any, before: list[int], tokens: list[int]) -> float:
    """log p(tokens | before), by one more pass over the whole: right for beams too."""
    ids = torch.tensor([before + tokens], device=model.device)
    logits: Tensor = model(ids[:, :-1], use_cache=False).logits[0, len(before) - 1 :]
    log_probs = logits.double().log_softmax(-1)
    return float(log_probs.gather(-1, ids[0, len(before) :, None]).sum())


def text_of(loaded: Loaded, before: list[int], tokens: list[int]) -> str:
    """What the tokens add to the text: decoded behind the prompt, as some tokenizers drop a text's first space.

    Begin, end and padding are left out; other special tokens, such as control codes, are shown.
    """
    tokenizer = loaded.tokenizer
    hidden = {*loaded.eos_token_ids, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    kept = [token for token in tokens if token not in hidden]
    prefix: str = tokenizer.decode(before, clean_up_tokenization_spaces=False)
    whole: str = tokenizer.decode([*before, *kept], clean_up_tokenization_spaces=False)
    if whole.startswith(prefix):
        return whole[len(prefix) :]
    return tokenizer.decode(kept, clean_up_tokenization_spaces=False)
