"""From labelled texts to the folder of a class LM; it can be stopped and gone on with. Reading and printing belong to callers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.errors import InputError, ModelError
from ctrldecode.lm import context_of
from ctrldecode.training._folders import published
from ctrldecode.training._resume import describe, last_checkpoint, remember
from ctrldecode.training.class_lm import ClassLM
from ctrldecode.training.data import encode, split
from ctrldecode.training.posterior import Posterior, evidence, fit_posterior, measure
from ctrldecode.training.trainer import ClassLMTrainer, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ctrldecode.training.codes import Codes
    from ctrldecode.training.data import Text
    from ctrldecode.training.posterior import Figures

    Classified = tuple[Sequence[str], Sequence[int]]

__all__ = ["DTYPES", "Data", "Result", "description", "prepare", "save", "train"]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
"""How weights may be stored."""


@dataclass(frozen=True)
class Data:
    """Texts to train on and texts to measure on, as ids, with their classes."""

    codes: Codes
    training: list[Text]
    held_out: list[Text]


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        model: the base, trained, in evaluation mode, with the precision that it will be stored in.
        posterior: scale and bias.
        figures: on held-out texts.
        known: how many of the texts that were measured stand among those that were trained on, too.
        fitted: how many other held-out texts scale and bias were fitted to; 0 if they were learned with the weights.
        updates: steps done.
        processes: that shared an update, each with a batch of its own.
        first: whether this is the process that writes and prints.
    """

    model: Any
    posterior: Posterior
    figures: Figures
    known: int
    fitted: int
    updates: int
    processes: int
    first: bool


def prepare(
    base: Any,
    tokenizer: Any,
    eos: int,
    codes: Codes,
    texts: Classified,
    settings: Settings,
    held_out: Classified | None = None,
) -> Data:
    """Encode texts, and set some aside if none are given to be held out.

    Args:
        base: a causal language model.
        tokenizer: its tokenizer.
        eos: what ends a text.
        codes: the classes.
        texts: texts, and the number of the class of each.
        settings: length, share and seed.
        held_out: as `texts`, to measure on.

    Raises:
        InputError: the codes have ids that the base lacks, leave no room, or a class has too few texts.
    """
    size = int(base.get_input_embeddings().weight.shape[0])
    largest = max(max(prefix) for prefix in codes.prefixes)
    if largest >= size:
        raise InputError(f"a code has the id {largest}, and the base knows {size} ids; use the tokenizer of the base")
    context = context_of(base)
    room = settings.max_length if context is None else min(settings.max_length, context)
    encoded = encode(tokenizer, *texts, codes, eos, room)
    if held_out is not None:
        return Data(codes, encoded, encode(tokenizer, *held_out, codes, eos, room))
    return Data(codes, *split(encoded, codes.names, settings.holdout, settings.seed))


def train(
    base: Any,
    data: Data,
    settings: Settings,
    folder: Path,
    *,
    dtype: str = "float16",
    cpu: bool = False,
    resume: bool = False,
    report: Callable[[int, int, dict[str, float]], None] = lambda *_: None,
    measured: Callable[[int, int], None] | None = None,
) -> Result:
    """Train, round to the precision of storage, and measure what will be stored.

    Args:
        base: a causal language model; its weights are trained in place, in float32.
        data: of `prepare`.
        settings: what decides the result.
        folder: for checkpoints.
        dtype: of `DTYPES`.
        cpu: whether to leave a GPU alone.
        resume: go on from the last checkpoint in the folder, if there is one.
        report: called with steps done, steps in all, and new figures of the loss, if any.
        measured: called with held-out texts done, and their number.

    Raises:
        InputError: there are too few held-out texts to calibrate, or the folder holds a training with other settings or texts,
            of another base, or of another number of processes.
        ModelError: a checkpoint is damaged, the loss is no number, or rounding left weights that are none.
    """
    _check_calibration(data, settings)
    model = ClassLM(base.float().train(), data.codes, mix=settings.mix, prefixes=settings.prefixes)
    trainer = ClassLMTrainer(model, data.training, settings, folder, cpu=cpu, report=report)
    described = describe(settings, data, base, trainer.processes, trainer.args.device.type)
    checkpoint = last_checkpoint(folder, described) if resume else None
    first = trainer.is_world_process_zero()
    if first:
        remember(folder, described)
    updates = trainer.go_on(checkpoint)
    base.to(DTYPES[dtype]).eval()
    _check_finite(base, dtype)
    learned = Posterior(model.log_scale.exp().item(), tuple(model.bias.tolist()))
    found = evidence(base.float(), data.codes, data.held_out, settings.batch, measured)
    measured_on, fitted_to = _parts(data, settings)
    posterior = fit_posterior([found[row] for row in fitted_to]) if fitted_to else learned
    figures = measure([found[row] for row in measured_on], posterior)
    _check_posterior(posterior, figures)
    known = _known([data.held_out[row] for row in measured_on], data.training)
    model_out = base.to(DTYPES[dtype])
    return Result(model_out, posterior, figures, known, len(fitted_to), updates, trainer.processes, first)


def save(folder: Path, result: Result, codes: Codes, tokenizer: Any, text: str) -> None:
    """Write model, tokenizer and card, then the configuration, which has codes, scale and bias under `gedi`.

    All is written elsewhere on its file system first, so that a folder with a config.json is whole.

    Raises:
        OSError: the system refuses.
    """
    result.model.config.gedi = description(codes, result.posterior)
    with published(folder, "config.json") as part:
        result.model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / "README.md").write_text(text, encoding="utf-8")
        mode = (part / "README.md").stat().st_mode  # safetensors makes files that others may not read
        for file in part.iterdir():
            file.chmod(mode)


def description(codes: Codes, posterior: Posterior) -> dict[str, Any]:
    """The value of `gedi` in config.json."""
    return {
        "codes": {name: list(ids) for name, ids in zip(codes.names, codes.ids, strict=True)},
        "scale": posterior.scale,
        "bias": dict(zip(codes.names, posterior.bias, strict=True)),
        "start": list(codes.start),
        "normalise": True,
    }


def _parts(data: Data, settings: Settings) -> tuple[list[int], list[int]]:
    """Rows of held-out texts to measure on, and rows that scale and bias are fitted to: none, or half of each class."""
    rows = [_Row(text.label, number) for number, text in enumerate(data.held_out)]
    if not settings.calibrate:
        return [row.number for row in rows], []
    rest, half = split(rows, data.codes.names, 0.5, settings.seed)
    return [row.number for row in rest], [row.number for row in half]


class _Row(NamedTuple):
    label: int
    number: int


def _check_calibration(data: Data, settings: Settings) -> None:
    """Half of the held-out texts of every class are fitted to, the others measured on; so there must be two."""
    counts = Counter(text.label for text in data.held_out)
    few = [f"{name!r} has {counts[label]}" for label, name in enumerate(data.codes.names) if counts[label] < 2]
    if settings.calibrate and few:
        raise InputError(
            f"to calibrate, each class needs 2 held-out texts or more, one to fit to and one to measure on: {', '.join(few)}; hold out "
            "more (--holdout, --held-out), or leave out --calibrate"
        )


def _known(measured: Sequence[Text], training: Sequence[Text]) -> int:
    """How many texts were trained on as well, behind whatever code."""
    trained = {tuple(text.tokens) for text in training}
    return sum(tuple(text.tokens) in trained for text in measured)


def _check_posterior(posterior: Posterior, figures: Figures) -> None:
    numbers = (posterior.scale, *posterior.bias, figures.nats, *figures.log_loss)
    if not all(map(math.isfinite, numbers)):
        raise ModelError(
            "scale, bias or figures of the held-out texts are no numbers; the training went astray: start again with a smaller "
            "--learning-rate"
        )


def _check_finite(model: Any, dtype: str) -> None:
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelError(f"{name} does not fit into {dtype}; store the model with --dtype float32 or bfloat16")
