"""`ctrldecode distill`: its options, its progress bars, and the files beside the model. The work is in `ctrldecode.distill`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrldecode.cli._input import MAX_SEED, filled, filled_path
from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from rich.progress import Progress

    from ctrldecode.cli._models import Loaded
    from ctrldecode.distill.recipe import Recipe
    from ctrldecode.distill.run import Event, Result
    from ctrldecode.distill.workers import Workers

__all__ = ["distill"]

_STAGES = {"sample": "sampling texts", "cluster": "clustering hidden states", "fit": "fitting"}


def distill(
    out: Annotated[
        Path, typer.Option(parser=filled_path, help="File of the model; recipe, card and curves go beside it.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            parser=filled, help="tinytales, a folder, or a model id of the Hugging Face hub.", show_default="tinytales"
        ),
    ] = None,
    states: Annotated[
        int | None, typer.Option(help="Hidden states, the one of the end among them.", show_default="256")
    ] = None,
    sequences: Annotated[int | None, typer.Option(help="Texts to sample.", show_default="100000")] = None,
    length: Annotated[int | None, typer.Option(help="New tokens of each.", show_default="64")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            parser=filled_path, help="File of prompts to continue, one a line; none samples texts from their beginning."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(parser=filled_path, help="A TOML file with these settings and more; options go before it."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="How the emission matrix is stored: float32, float16 or uint8.", show_default="float16"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same model.", show_default="0")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the work folder.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(parser=filled_path, help="Folder for samples and checkpoints.", show_default="beside --out"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(parser=filled, help="Such as cpu or cuda.", show_default="cuda if there is one")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Draw curves for the card; needs matplotlib.")] = True,
) -> None:
    """Distil a language model into a hidden Markov model, for lookahead.

    Samples texts, starts from clustered hidden states, fits by EM. Whatever ends it, [b]--resume[/b] goes on and comes to the same result. Several processes: torchrun --nproc-per-node N -m ctrldecode distill ...
    """
    settings = _recipe(
        recipe,
        prompts,
        {"sequences": sequences, "length": length},
        {
            "model": model,
            "states": states,
            "dtype": dtype,
            "seed": seed,
        },
    )
    folder = (
        work or out.parent / f"{out.stem}.distill"
    )  # with_suffix refuses a path without a name, before it can be told
    _check(out, folder, resume=resume)
    draw = _curves() if curves else None

    from ctrldecode.cli import _models
    from ctrldecode.distill.run import distill as run
    from ctrldecode.distill.source import source
    from ctrldecode.distill.workers import workers

    place = _device(device)
    loaded = _models.load(settings.model)
    with workers(place) as group:
        texts = source(loaded.model.to(place), loaded.tokenizer, loaded.eos_token_ids, settings)
        events = run(settings, texts, folder, place, group)
        result = _follow(events, group)
        if group.rank == 0:
            _write(out, settings, result, loaded, draw)


def _recipe(path: Path | None, prompts: Path | None, samples: dict[str, Any], settings: dict[str, Any]) -> Recipe:
    """The recipe of the file, or the default one, with the options that were given in their places."""
    from ctrldecode.distill.recipe import Recipe, read_prompts

    base = Recipe() if path is None else Recipe.from_toml(path)
    if prompts is not None:
        samples = {**samples, "prompts": read_prompts(prompts)}
    base = base.with_samples(**{name: value for name, value in samples.items() if value is not None})
    return replace(base, **{name: value for name, value in settings.items() if value is not None})


def _check(out: Path, folder: Path, *, resume: bool) -> None:
    """Refuse before the work what would be refused after it."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise DistillationError(f"--out must be a file that ends in .safetensors, got {str(out)!r}")
    if not out.parent.is_dir():
        raise DistillationError(f"the folder of --out, {str(out.parent)!r}, does not exist; make it first")
    first = os.environ.get("RANK", "0") == "0"  # other processes of torchrun may find what the first has made since
    if first and not resume and folder.exists() and any(folder.iterdir()):
        raise DistillationError(
            f"there is a distillation in {str(folder)!r} already; go on with it by --resume, remove it, or choose another "
            "folder (--work)"
        )


def _curves() -> Any:
    """The function that draws curves; asked for early, so that nothing is missing at the end."""
    try:
        from ctrldecode.distill._curves import curves
    except ImportError as error:
        raise DistillationError(str(error)) from error
    return curves


def _device(name: str | None) -> torch.device:
    """The device of this process; of several processes on a machine with GPUs, each has its own."""
    import torch

    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cuda" and "LOCAL_RANK" in os.environ:
        chosen = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(chosen)
        torch.zeros(1, device=device).cpu()  # "meta", for example, has no numbers
    except (RuntimeError, AssertionError) as error:
        raise DistillationError(
            f"the device {chosen!r} cannot be used: {error}; take cpu, or see to its driver"
        ) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _follow(events: Iterable[Event], group: Workers) -> Result:
    """Show what is done, with rates and the time left, on standard error; what the generator returns."""
    from ctrldecode.cli._progress import stages

    with stages(24, hidden=group.rank > 0) as progress:
        tasks = {stage: progress.add_task(text, total=None, start=False, figures="") for stage, text in _STAGES.items()}
        iterator = iter(events)
        while True:
            try:
                event = next(iterator)
            except StopIteration as stop:
                return stop.value
            progress.start_task(tasks[event.stage])
            progress.update(
                tasks[event.stage], completed=event.done, total=event.total, figures=_figures(event, progress)
            )


def _figures(event: Event, progress: Progress) -> str:
    if event.record is None:
        speed = next(task.speed for task in progress.tasks if task.description == _STAGES[event.stage])
        return f"{speed:.0f}/s" if speed else ""
    record = event.record
    rate = record["tokens"] / record["seconds"]
    return f"{record['held_out']:.3f} nats (language model {record['language_model']:.3f}), {rate:,.0f} tokens/s"


def _write(out: Path, recipe: Recipe, result: Result, loaded: Loaded, draw: Any) -> None:
    """Curves, recipe, card, and the model last: where there is a model, all is there."""
    from ctrldecode.distill._files import write_bytes
    from ctrldecode.distill.card import card
    from ctrldecode.hmm.model import HMM

    if draw is not None:
        write_bytes(out.with_suffix(".png"), draw(result.records))
    write_bytes(out.with_suffix(".toml"), recipe.to_toml().encode())
    write_bytes(out.with_suffix(".md"), card(out.stem, recipe, result, curves=draw is not None).encode())
    figures = {"held_out": result.held_out, "language_model": result.language_model}
    hmm = HMM.from_token_major(
        *result.model,
        loaded.eos_token_ids,
        dtype=recipe.dtype,
        vocabulary_fingerprint=loaded.vocabulary.fingerprint,
        metadata={"recipe": recipe.to_toml(), "nats_per_token": figures},
    )
    hmm.save(out)
    print(f"{out}: {result.held_out:.3f} nats a token held out, the language model {result.language_model:.3f}")
