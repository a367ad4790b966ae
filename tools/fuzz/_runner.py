"""Runs the cases of a target, each under a time limit, and keeps the findings. It knows nothing of what the cases are."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ctrldecode.errors import CtrldecodeError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["Finding", "Tally", "Target", "TooLong", "Wrong", "attempt", "fuzz", "replay", "within"]

_SECONDS = 20.0  # of a case, on the processor; the slowest that are in order take some seconds
_HANGING = 15  # times the limit, on the wall, after which code that hears no signal, such as a compiled loop, is ended with the process


class Wrong(Exception):  # noqa: N818  a finding, and no failure of the fuzzer
    """Two answers that should be the same are not."""


class TooLong(BaseException):
    """The time of a case is over; no `except Exception` takes it for something else."""


class Target(Protocol):
    """One kind of input."""

    name: str

    def make(self, rng: random.Random) -> dict[str, Any]:
        """A case, as JSON can hold it."""
        ...

    def run(self, case: dict[str, Any]) -> str:
        """Do it; a word for what came of it. What it raises, other than errors of ctrldecode, is a finding."""
        ...


@dataclass(frozen=True)
class Finding:
    """An answer that is no answer.

    Attributes:
        target: its name.
        case: what was fed.
        told: the traceback.
        place: exception and line, by which findings are told apart.
    """

    target: str
    case: dict[str, Any]
    told: str
    place: str


@dataclass
class Tally:
    """What came of the cases of a target.

    Attributes:
        seconds: that they took.
        outcomes: how many ended in which way.
        findings: one for each place.
    """

    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        """How many there were."""
        return self.outcomes.total()


def fuzz(target: Target, tally: Tally, seed: int, start: int, cases: int, folder: Path | None = None) -> None:
    """Run the cases `start` to `start + cases` of a seed; the same numbers give the same cases, whatever ran before.

    Args:
        target: what is fed.
        tally: gets what came of them.
        seed: of the whole run.
        start: the first case.
        cases: how many.
        folder: where findings are kept, and the case that runs, which tells what a crash came from; None for nowhere.
    """
    for number in range(start, start + cases):
        case = target.make(random.Random(f"{seed}/{target.name}/{number}"))
        if folder is not None:
            _write(folder / f"running-{target.name}.json", {"target": target.name, "case": case})
        began = time.perf_counter()
        outcome, finding = attempt(target, case)
        tally.seconds += time.perf_counter() - began
        tally.outcomes[outcome] += 1
        if finding is not None and finding.place not in tally.findings:
            tally.findings[finding.place] = finding
            if folder is not None:
                digest = hashlib.sha256(finding.place.encode()).hexdigest()[:8]
                about = {"target": finding.target, "place": finding.place, "case": case, "told": finding.told}
                _write(folder / f"{target.name}-{digest}.json", about)


def attempt(target: Target, case: dict[str, Any]) -> tuple[str, Finding | None]:
    """What came of one case."""
    try:
        with warnings.catch_warnings(), within(_SECONDS):
            warnings.simplefilter(
                "ignore"
            )  # of grammars that are doubtful, and of Python about odd regular expressions
            return target.run(case), None
    except CtrldecodeError as error:
        if not str(error).strip():
            return "finding", Finding(target.name, case, "an error without a message", f"{type(error).__name__} empty")
        return "refused", None
    except BaseException as error:  # noqa: BLE001  whatever it is, it is what is looked for
        return "finding", Finding(target.name, case, traceback.format_exc(limit=-25), _place(error))


@contextmanager
def within(seconds: float, error: type[BaseException] = TooLong) -> Generator[None]:
    """Raise an error in the block when its time is over; the limit around it, if there is one, then starts anew.

    The time is that of the processor, so that work beside it is no finding. What waits for nothing is ended by the clock of
    `faulthandler`, which is on the wall.
    """

    def ring(*_: object) -> None:
        if error is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)  # as the keyboard does, with whatever hears it
        else:
            raise error

    before = signal.signal(signal.SIGPROF, ring)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may be deaf to it
    left, _ = signal.setitimer(signal.ITIMER_PROF, seconds)
    faulthandler.dump_traceback_later(_HANGING * max(seconds, _SECONDS), exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, left)
        signal.signal(signal.SIGPROF, before)
        signal.signal(signal.SIGINT, heard)
        if not left:
            faulthandler.cancel_dump_traceback_later()


def replay(targets: dict[str, Target], path: Path) -> tuple[str, Finding | None]:
    """Run the case of a file once more."""
    about = json.loads(path.read_text(encoding="ascii"))
    return attempt(targets[about["target"]], about["case"])


def _place(error: BaseException) -> str:
    """The exception, and the last line of ctrldecode that it went through; where two answers differ, all is one place a kind."""
    if isinstance(error, Wrong):
        return f"Wrong: {str(error).split(':')[0]}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/ctrldecode/" in frame.filename] or frames
    file = own[-1].filename.rpartition("/ctrldecode/")[2]
    return f"{type(error).__name__} at {file}:{own[-1].lineno}, from {frames[-1].name}"


def _write(path: Path, about: dict[str, Any]) -> None:
    path.write_text(json.dumps(about, indent=1), encoding="ascii")
