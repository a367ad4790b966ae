"""From labelled texts to the folder of a class LM; it can be stopped and gone on with. Reading and printing belong to callers."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ctrldecode.errors import InputError, ModelError
from ctrldecode.training.class_lm import ClassLM
from ctrldecode.training.data import encode, split
from ctrldecode.training.posterior import Posterior, evidence, fit_posterior, measure
from ctrldecode.training.trainer import ClassLMTrainer, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ctrldecode.training.codes import Codes
    from ctrldecode.training.data import Text
    from ctrldecode.training.posterior import Evidence, Figures

    Classified = tuple[Sequence[str], Sequence[int]]

__all__ = ["DTYPES", "Data", "Result", "description", "prepare", "save", "train"]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
"""How weights may be stored."""

_SETTINGS_FILE = "settings.json"


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
        updates: steps done.
        first: whether this is the process that writes and prints.
    """

    model: Any
    posterior: Posterior
    figures: Figures
    updates: int
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
    context = getattr(base.config.get_text_config(), "max_position_embeddings", None)
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
        InputError: the folder holds a training with other settings or texts.
        ModelError: the loss is no number, or rounding left weights that are none.
    """
    model = ClassLM(base.float().train(), data.codes, mix=settings.mix, prefixes=settings.prefixes)
    trainer = ClassLMTrainer(model, data.training, settings, folder, cpu=cpu, report=report)
    checkpoint = _checked(folder, settings, data) if resume else None
    first = trainer.is_world_process_zero()
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _SETTINGS_FILE).write_text(_described(settings, data), encoding="utf-8")
    updates = trainer.go_on(checkpoint)
    base.to(DTYPES[dtype]).eval()
    _check_finite(base, dtype)
    learned = Posterior(model.log_scale.exp().item(), tuple(model.bias.tolist()))
    found = evidence(base.float(), data.codes, data.held_out, settings.batch, measured)
    posterior, figures = _judged(found, learned, data.codes, settings)
    return Result(base.to(DTYPES[dtype]), posterior, figures, updates, first)


def save(folder: Path, result: Result, codes: Codes, tokenizer: Any, text: str) -> None:
    """Write model, tokenizer and card, then the configuration, which has codes, scale and bias under `gedi`.

    All is written beside the folder first, so that a folder with a config.json is whole.

    Raises:
        OSError: the system refuses.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        result.model.config.gedi = description(codes, result.posterior)
        result.model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / "README.md").write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        mode = (part / "README.md").stat().st_mode  # safetensors makes files that others may not read
        for file in sorted(part.iterdir(), key=lambda path: path.name == "config.json"):
            file.chmod(mode)
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def description(codes: Codes, posterior: Posterior) -> dict[str, Any]:
    """The value of `gedi` in config.json."""
    return {
        "codes": {name: list(ids) for name, ids in zip(codes.names, codes.ids, strict=True)},
        "scale": posterior.scale,
        "bias": dict(zip(codes.names, posterior.bias, strict=True)),
        "start": list(codes.start),
        "normalise": True,
    }


def _judged(
    found: Sequence[Evidence], learned: Posterior, codes: Codes, settings: Settings
) -> tuple[Posterior, Figures]:
    """Scale and bias, learned or fitted to half of the texts, and figures of texts that they were not fitted to."""
    if not settings.calibrate:
        return learned, measure(found, learned)
    rest, half = split(found, codes.names, 0.5, settings.seed)
    fitted = fit_posterior(half)
    return fitted, measure(rest, fitted)


def _checked(folder: Path, settings: Settings, data: Data) -> str | None:
    """The last checkpoint, if it is of this training."""
    file = folder / _SETTINGS_FILE
    if not file.is_file():
        return None
    if file.read_text(encoding="utf-8") != _described(settings, data):
        raise InputError(
            f"the training in {str(folder)!r} has other settings or texts than this one; give those that are in its "
            f"{_SETTINGS_FILE}, or another folder (--work)"
        )
    return _last_whole(folder)


def _last_whole(folder: Path) -> str | None:
    """The furthest checkpoint that was written to its end: the Trainer writes its state last."""
    found = {int(path.parent.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*/trainer_state.json")}
    whole = [step for step, path in found.items() if path.read_text(encoding="utf-8").rstrip().endswith("}")]
    return str(found[max(whole)].parent) if whole else None


def _described(settings: Settings, data: Data) -> str:
    """Settings, classes, and a digest of the texts, as JSON."""
    digest = hashlib.sha256(json.dumps([data.training, data.held_out]).encode()).hexdigest()
    return json.dumps({**asdict(settings), "codes": asdict(data.codes), "texts": digest}, indent=1)


def _check_finite(model: Any, dtype: str) -> None:
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelError(f"{name} does not fit into {dtype}; store the model with --dtype float32 or bfloat16")
