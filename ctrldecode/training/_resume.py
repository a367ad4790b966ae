"""Which training a folder of checkpoints is of, and from which of them to go on. It reads and writes files, and runs no model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ctrldecode.core._files import replacing
from ctrldecode.errors import InputError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from ctrldecode.training.run import Data
    from ctrldecode.training.trainer import Settings

__all__ = ["POSTERIOR_FILE", "STATE_FILE", "describe", "last_checkpoint", "random_file", "remember", "weights_digest"]

POSTERIOR_FILE = "posterior.safetensors"
STATE_FILE = "trainer_state.json"
_SETTINGS_FILE = "settings.json"

# What differs in words of its own; settings are told with both values.
_TOLD = {
    "codes": "the codes differ",
    "texts": "the texts differ",
    "base": "the base has other weights, so give the same --base",
}


def weights_digest(model: Any) -> str:
    """Hex digest of all weights as float32, the same on every device."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def describe(settings: Settings, data: Data, base: Any, processes: int, device: str) -> dict[str, Any]:
    """All that decides the result, as JSON has it: settings, classes, digests of texts and weights, processes and device."""
    texts = hashlib.sha256(json.dumps([data.training, data.held_out]).encode()).hexdigest()
    found = {**asdict(settings), "codes": asdict(data.codes), "texts": texts, "base": weights_digest(base)}
    return json.loads(json.dumps({**found, "processes": processes, "device": device}))


def remember(folder: Path, described: dict[str, Any]) -> None:
    """Write down of which training the folder is, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _SETTINGS_FILE) as part:
        part.write_text(json.dumps(described, indent=1), encoding="utf-8")


def last_checkpoint(folder: Path, described: dict[str, Any]) -> str | None:
    """The furthest whole checkpoint of a folder, if that is of the training described; None if there is none.

    Raises:
        InputError: it is of another; the message says what differs.
        ModelError: its settings cannot be read.
    """
    file = folder / _SETTINGS_FILE
    if not file.is_file():
        return None
    known = _read(file)
    differing = [name for name in described if name not in known or known[name] != described[name]]
    if differing:
        told = "; ".join(
            _TOLD.get(name) or f"{name} is {known.get(name)} there, {described[name]} here" for name in differing
        )
        raise InputError(
            f"the training in {str(folder)!r} has other settings or texts than this one: {told}. Ask for the same, or name another "
            "folder (--work)"
        )
    return _last_whole(folder, described["processes"])


def random_file(process: int, processes: int) -> str:
    """The file in which the Trainer keeps the random numbers of a process."""
    return "rng_state.pth" if processes == 1 else f"rng_state_{process}.pth"


def _read(file: Path) -> dict[str, Any]:
    try:
        known: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, str(error)) from error
    if not isinstance(known, dict):
        raise _unreadable(file, "it is no JSON object")
    return known


def _unreadable(file: Path, why: str) -> ModelError:
    return ModelError(
        f"{file} is damaged: {why}; without it nobody knows of which training the checkpoints are: remove the folder, or name "
        "another (--work)"
    )


def _last_whole(folder: Path, processes: int) -> str | None:
    """The furthest checkpoint that was written to its end: of one process the state comes last, of several a random state may."""
    wanted = [
        "optimizer.pt",
        "scheduler.pt",
        POSTERIOR_FILE,
        *(random_file(rank, processes) for rank in range(processes)),
    ]
    found: dict[int, Path] = {}
    for state in folder.glob(f"checkpoint-*/{STATE_FILE}"):
        step = state.parent.name.rpartition("-")[2]
        ended = state.read_bytes().rstrip().endswith(b"}")
        if step.isdecimal() and ended and all((state.parent / name).is_file() for name in wanted):
            found[int(step)] = state.parent
    return str(found[max(found)]) if found else None
