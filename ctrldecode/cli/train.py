"""`ctrldecode train`: its options, progress, and the folder that it writes. The work is in `ctrldecode.training`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrldecode._resources import model_names
from ctrldecode.cli._command import OnceCommand
from ctrldecode.cli._corpora import read_classes
from ctrldecode.cli._input import MAX_SEED, filled, filled_path
from ctrldecode.cli._interrupts import interruptible
from ctrldecode.errors import InputError
from ctrldecode.training._folders import contents, overlap, real

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ctrldecode.training.run import Result

__all__ = ["app"]

app: typer.Typer = typer.Typer(help="Train models that guide others.", no_args_is_help=False)


class Dtype(StrEnum):
    """How weights are stored."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class Device(StrEnum):
    """Where to train; of several GPUs the launcher gives each process its own."""

    CPU = "cpu"
    CUDA = "cuda"


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    """Show the help; this also makes `train` a group though it has one command."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("class-lm", cls=OnceCommand)
def class_lm(
    data: Annotated[Path, typer.Option(parser=filled_path, help='JSON lines: {"text": ..., "label": "happy"}.')],
    codes: Annotated[str, typer.Option(help="The classes, as labels name them: happy,sad.")],
    out: Annotated[Path, typer.Option(parser=filled_path, help="Folder of the model; it must be new or empty.")],
    base: Annotated[
        str, typer.Option(parser=filled, help="tinytales, a folder, or a model id of the Hugging Face hub.")
    ] = "tinytales",
    mix: Annotated[float, typer.Option(min=0, max=1, help="λ, the part of the generative loss.")] = 0.2,
    prefixes: Annotated[
        float,
        typer.Option(min=0, max=1, help="Part of the discriminative loss over beginnings of texts; 0 is the paper's."),
    ] = 0.5,
    epochs: Annotated[float, typer.Option(help="Passes over the texts of the smallest class.")] = 3.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates, in place of passes.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts an update; each is run behind every code.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of the weights, at its highest.")] = 3e-4,
    max_length: Annotated[int, typer.Option(min=4, help="Tokens of a text and its code; what is longer is cut.")] = 512,
    holdout: Annotated[float, typer.Option(help="Share of each class to measure on.")] = 0.1,
    held_out: Annotated[
        Path | None,
        typer.Option(
            parser=filled_path,
            help="Texts to measure on, in place of a share of --data: for a base that was trained on --data.",
        ),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit scale and bias to half of the held-out texts, measure on the rest.")
    ] = False,
    balance: Annotated[bool, typer.Option(help="Draw all classes equally often.")] = True,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of split, orders and dropout.")] = 0,
    dtype: Annotated[Dtype, typer.Option(help="How weights are stored.")] = Dtype.FLOAT16,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the work folder.")] = False,
    work: Annotated[
        Path | None, typer.Option(parser=filled_path, help="Folder of checkpoints.", show_default="beside --out")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where.", show_default="cuda if there is one")] = None,
) -> None:
    """Train a class-conditional language model: behind the code of a class it knows texts of that class.

    The loss is λ·L_gen + (1−λ)·L_disc (GeDi). Training is transformers' Trainer, so torchrun --nproc-per-node N -m ctrldecode train ... takes several GPUs.
    """
    names = [name.strip() for name in codes.split(",")]
    folder = _folders(out, work, base, resume=resume)
    _check_held_out(data, held_out)

    from ctrldecode.training._accelerate import require_accelerate
    from ctrldecode.training.codes import Codes, check_names

    require_accelerate()
    check_names(names)
    texts = read_classes(data, names)
    tests = None if held_out is None else read_classes(held_out, names)

    from ctrldecode.cli import _models
    from ctrldecode.training.card import card
    from ctrldecode.training.run import prepare, save, train
    from ctrldecode.training.trainer import Settings

    settings = Settings(
        mix, prefixes, epochs, steps, batch_size, learning_rate, max_length, holdout, balance, calibrate, seed
    )
    cpu = _cpu(device)
    with interruptible(lambda: _kept(folder)):
        loaded = _models.load(base)
        found = Codes.of(loaded.tokenizer, names)
        prepared = prepare(loaded.model, loaded.tokenizer, loaded.eos_token_ids[0], found, texts, settings, tests)
        with _progress() as (report, measured):
            result = train(
                loaded.model,
                prepared,
                settings,
                folder,
                dtype=dtype,
                cpu=cpu,
                resume=resume,
                report=report,
                measured=measured,
            )
        if result.first:
            text = card(
                real(out).name,
                _name_of(base),
                (held_out or data).name,
                len(prepared.training),
                found,
                settings,
                result,
            )
            save(out, result, found, loaded.tokenizer, text)
            print(_summary(out, result))


def _name_of(base: str) -> str:
    """A folder by its name, since its place says nothing elsewhere; a model of ctrldecode or of the hub as it is called."""
    return real(Path(base)).name if base not in model_names() and Path(base).is_dir() else base


def _kept(folder: Path) -> str:
    """What is said of an interrupted training."""
    if any(folder.glob("checkpoint-*")):
        return f"interrupted; the same command with --resume goes on from the last checkpoint in {folder}"
    return "interrupted before there was a checkpoint; the same command with --resume starts anew"


def _folders(out: Path, work: Path | None, base: str, *, resume: bool) -> Path:
    """The work folder; refuses before the work what would be refused after it, or would be lost by it."""
    place = real(out)
    if not place.name or (place.exists() and not place.is_dir()):
        raise InputError(f"--out must be a folder, got {str(out)!r}; name one that does not exist yet")
    if not place.parent.is_dir():
        parent = place.parent if out.is_symlink() else out.parent
        raise InputError(f"the folder of --out, {str(parent)!r}, does not exist; make it first")
    if not os.access(place if place.is_dir() else place.parent, os.W_OK | os.X_OK):
        raise InputError(f"--out, {str(out)!r}, cannot be written; see to its permissions, or choose another place")
    named = out if out.name not in {"", ".."} else place
    folder = work or named.with_name(f"{named.name}.train")
    if real(folder).exists() and not real(folder).is_dir():
        raise InputError(f"--work must be a folder, got {str(folder)!r}; name one that does not exist yet")
    if overlap(out, folder):
        raise InputError(
            f"--work, {str(folder)!r}, and --out, {str(out)!r}, must lie side by side, and neither in the other; choose another --work"
        )
    for option, path in (("--out", out), ("--work", folder)):
        if base not in model_names() and Path(base).is_dir() and real(Path(base)).is_relative_to(real(path)):
            raise InputError(
                f"--base, {base!r}, lies in {option}, which would be written over; choose another {option}"
            )
    if os.environ.get("RANK", "0") == "0":  # other processes of torchrun may find what the first has made since
        _check_contents(out, folder, resume=resume)
    return folder


def _check_contents(out: Path, folder: Path, *, resume: bool) -> None:
    """Both folders must be empty, or, since going on removes old checkpoints and writes into --out, of this command."""
    for option, path, mark in (("--work", folder, "settings.json"), ("--out", out, "config.json")):
        if not contents(path):
            continue
        if not resume:
            raise InputError(
                f"{option}, {str(path)!r}, is not empty; go on with its training by --resume, remove it, or choose another folder"
            )
        if not (path / mark).is_file():
            raise InputError(
                f"{option}, {str(path)!r}, holds files and no {mark}, so it is not of a run of train class-lm; --resume would write among "
                "them: name the folder of the run, or an empty one"
            )


def _check_held_out(data: Path, held_out: Path | None) -> None:
    """Figures of texts that were trained on are no held-out figures."""
    if held_out is not None and held_out.exists() and data.exists() and held_out.samefile(data):
        raise InputError(
            "--held-out and --data are one file, and figures of texts that were trained on say nothing of new ones; name other texts, or "
            "leave --held-out out: then a share of --data is held out"
        )


def _cpu(device: Device | None) -> bool:
    """Whether to leave GPUs alone."""
    import torch

    if device is Device.CUDA and not torch.cuda.is_available():
        raise InputError("the device cuda cannot be used, since torch finds no GPU; take cpu, or see to its driver")
    return device is Device.CPU or not torch.cuda.is_available()


@contextmanager
def _progress() -> Generator[tuple[Callable[[int, int, dict[str, float]], None], Callable[[int, int], None]]]:
    """Two functions that show updates, with the loss, and held-out texts, with rates and the time left, on standard error."""
    from ctrldecode.cli._progress import stages

    hidden = os.environ.get("RANK", "0") != "0"
    with stages(10, hidden=hidden) as progress:
        training = progress.add_task("training", total=None, figures="")
        measuring = progress.add_task("measuring", total=None, start=False, figures="")

        def report(done: int, total: int, logs: dict[str, float]) -> None:
            shown: dict[str, Any] = {"figures": _figures(logs)} if logs else {}
            progress.update(training, completed=done, total=total, **shown)

        def measured(done: int, total: int) -> None:
            progress.start_task(measuring)
            progress.update(measuring, completed=done, total=total)

        yield report, measured


def _figures(logs: dict[str, float]) -> str:
    return f"loss {logs['loss']:.3f} (texts {logs['generative']:.3f}, classes {logs['discriminative']:.3f})"


def _summary(out: Path, result: Result) -> str:
    figures = result.figures
    known = f" ({result.known} of them trained on, too)" if result.known else ""
    return (
        f"{out}: held-out accuracy {figures.accuracy[-1]:.3f} of {figures.texts} texts{known}, log loss {figures.log_loss[-1]:.3f} nats, "
        f"perplexity {figures.perplexity:.3f}"
    )
