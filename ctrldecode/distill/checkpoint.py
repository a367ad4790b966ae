"""How far EM came, on disk: the statistics, the number of updates, and the held-out figures at the ends of passes.

A checkpoint may be old: from any of them the rest comes out the same. It knows nothing of how the figures are made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ctrldecode.distill._files import read_metadata, read_tensors, write_bytes, write_tensors
from ctrldecode.distill.em import EMState
from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpoint", "Log", "check", "load", "save"]


class Checkpoint(NamedTuple):
    """Where a fit stands.

    Attributes:
        state: of EM.
        passes: held-out nats a token at the start and after every pass so far.
        finished: whether the last pass is done.
    """

    state: EMState
    passes: tuple[float, ...]
    finished: bool


def save(path: Path, checkpoint: Checkpoint, digest: str) -> None:
    """Write it, whole or not at all; `digest` names the recipe and the texts."""
    initial, transition, emission, updates = checkpoint.state
    stand = {"updates": updates, "passes": checkpoint.passes, "finished": checkpoint.finished}
    about = {"digest": digest, "stand": json.dumps(stand)}
    write_tensors(path, {"initial": initial, "transition": transition, "emission": emission}, about)


def check(path: Path, digest: str) -> dict[str, str]:
    """The metadata of a file, if it is of this recipe and these texts.

    Raises:
        DistillationError: it is of others, or cannot be read.
    """
    about = read_metadata(path)
    if about.get("digest") != digest:
        raise DistillationError(
            f"{path} belongs to another recipe; remove it to fit the sampled texts anew, or choose another folder (--work)"
        )
    return about


def load(path: Path, digest: str) -> Checkpoint | None:
    """What was saved, on the CPU; None if nothing was.

    Raises:
        DistillationError: it is of other texts or another recipe, or damaged.
    """
    if not path.exists():
        return None
    about = check(path, digest)
    tensors = read_tensors(path)
    try:
        stand = json.loads(about["stand"])
        state = EMState(tensors["initial"], tensors["transition"], tensors["emission"], int(stand["updates"]))
        found = Checkpoint(state, tuple(float(nats) for nats in stand["passes"]), bool(stand["finished"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DistillationError(f"{path} is damaged ({error!r}); remove it, and --resume goes on without it") from error
    if not _fits(state):
        raise DistillationError(
            f"{path} is damaged: its tensors do not fit together; remove it, and --resume goes on without it"
        )
    return found


def _fits(state: EMState) -> bool:
    """Whether the statistics are of one number of states."""
    states = state.initial.numel()
    shapes = state.initial.dim() == 1 and state.transition.shape == (states, states) and state.emission.dim() == 2
    kinds = all(tensor.is_floating_point() for tensor in state[:3])
    return shapes and kinds and state.emission.shape[1] == states and state.updates >= 0


class Log:
    """`metrics.jsonl`: one JSON object a line, numbered by update, without those that a crash has made void.

    Args:
        path: of the file.
        updates: how many updates are done; later lines are dropped, and so is a torn one.
    """

    def __init__(self, path: Path, updates: int) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        self.records: list[dict[str, float]] = [
            record for record in map(_parsed, lines) if record and record["update"] <= updates
        ]
        write_bytes(path, "".join(json.dumps(record) + "\n" for record in self.records).encode())

    def add(self, record: dict[str, float]) -> None:
        """Append a record, which has the key `update`."""
        self.records.append(record)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise DistillationError(
                f"{self.path} could not be written: {error.strerror}. Free some space, then go on with --resume"
            ) from error


def _parsed(line: str) -> dict[str, float] | None:
    """A record; None where a line is none."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("update"), int | float) else None
