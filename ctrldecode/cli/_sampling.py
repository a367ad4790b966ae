"""Runs a sampler for `ctrldecode sample`, and writes its report: samples.jsonl, metrics.json and plots."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ctrldecode import diagnostics
from ctrldecode.cli._decoding import encode, text_of
from ctrldecode.cli._progress import bar
from ctrldecode.core._files import replacing
from ctrldecode.errors import InputError
from ctrldecode.lm import CausalLM
from ctrldecode.samplers import SAMPLERS, Samples, Trie

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential

__all__ = ["Run", "Task", "prepare", "run", "write"]

_ENUMERATED = 50_000  # texts and prefixes; a small model on a CPU takes some seconds for them
_FILES = ("samples.jsonl", "metrics.json", "log_z.png", "weights.png")
_TWISTED = ("smc", "branching")


class Task(NamedTuple):
    """What was asked for, as the options of the command."""

    method: str
    num: int
    max_new_tokens: int
    temperature: float
    seed: int | None
    max_lm_calls: int | None
    moves: int
    trie: Path | None
    exact: bool


@dataclass(frozen=True)
class Run:
    """One prompt's samples.

    Attributes:
        prompt: its text.
        samples: what the sampler returned.
        texts: as strings.
        log_joint: (n,) log p(x) ψ(x) of each; NaN after Ctrl-C.
        seconds: that the sampler took.
        distances: from the exact target, if it was asked for.
        bounded: whether ψ is known to be at most 1, so that log Z is at most 0.
    """

    prompt: str
    samples: Samples
    texts: list[str]
    log_joint: torch.Tensor
    seconds: float
    distances: diagnostics.Distances | None
    bounded: bool

    def records(self) -> Iterator[dict[str, Any]]:
        """One object a text, as JSON can hold it; −inf is null."""
        weights, joints = self.samples.log_weights[0].tolist(), self.log_joint.tolist()
        for text, tokens, weight, joint in zip(self.texts, self.samples.tokens[0], weights, joints, strict=True):
            yield {
                "prompt": self.prompt,
                "text": text,
                "tokens": tokens,
                "log_weight": _number(weight),
                "log_joint": _number(joint),
            }

    def metrics(self) -> dict[str, Any]:
        """Figures of the run."""
        known = None if bool(self.log_joint.isnan().any()) else self.log_joint
        bounds = diagnostics.log_z_bounds(self.samples, log_joints=known)
        found = diagnostics.summary(self.samples) | {
            "lower": bounds.lower,
            "upper": min(bounds.upper, 0.0) if self.bounded else bounds.upper,
            "seconds": self.seconds,
        }
        if self.distances is not None:
            found |= {name: value for name, value in self.distances._asdict().items()}  # noqa: C416  of another type
        return found


def run(loaded: Loaded, prompt: str, task: Task, potential: Potential[Any], twist: Potential[Any] | None) -> Run:
    """Sample for one prompt; potential and twist are those of `Conditions.target`.

    Raises:
        InputError: the prompt and the budget do not fit into the model's context.
        BudgetError: no text fits into the budget.
    """
    inputs = encode(loaded, prompt, task.max_new_tokens, potential)
    limits: dict[str, Any] = {"max_new_tokens": task.max_new_tokens}
    if task.trie is not None and not task.trie.parent.is_dir():
        raise InputError(
            f"--trie {str(task.trie)!r} is to be a file in a folder that exists; create {task.trie.parent} first"
        )
    lm = CausalLM(loaded.model, eos_token_ids=loaded.eos_token_ids, temperature=task.temperature)
    options: dict[str, Any] = {}
    if task.method in _TWISTED and twist is not None:
        options["twist"] = twist
    if task.method == "mcmc":
        options["moves"] = task.moves
    if task.trie is not None and task.trie.exists():
        options["trie"] = Trie.load(task.trie)
    # Before anything is sampled: a problem that is too large says so at once.
    target = diagnostics.exact(lm, potential, inputs[0], limit=_ENUMERATED, **limits) if task.exact else None
    rng = torch.Generator()
    if task.seed is None:
        rng.seed()
    else:
        rng.manual_seed(task.seed)
    began = time.perf_counter()
    with bar(task.method) as show:
        samples = SAMPLERS[task.method](
            lm,
            potential,
            inputs,
            num=task.num,
            rng=rng,
            max_lm_calls=task.max_lm_calls,
            progress=lambda at: show(at.done, at.total),
            **limits,
            **options,
        )
    seconds = time.perf_counter() - began
    if task.trie is not None:
        samples.info["trie"].save(task.trie)
    before, ids = inputs[0].tolist(), samples.tokens[0]
    joints = torch.full((len(ids),), torch.nan, dtype=torch.float64)
    if samples.stopped != "interrupted":  # who pressed Ctrl-C does not wait for another pass over all texts
        joints = diagnostics.log_joint(lm, potential, inputs[0], ids, **limits)
    distances = None
    if target is not None and ids:
        distances = diagnostics.distances(ids, samples.log_weights[0], target, rng=np.random.default_rng(0))
    texts = [text_of(loaded, before, own) for own in ids]
    return Run(prompt, samples, texts, joints, seconds, distances, bounded=potential.hard)


def prepare(folder: Path) -> None:
    """Make the folder of a report, before anything is computed.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} cannot be made: {error}; choose another for --report") from error
    taken = [name for name in _FILES if (folder / name).is_dir()]
    if taken:
        raise InputError(f"{folder / taken[0]} is a folder, where the report has a file; choose another for --report")


def write(folder: Path, task: Task, runs: Sequence[Run]) -> None:
    """Write the report."""
    with replacing(folder / "samples.jsonl") as part:
        lines = (json.dumps(record, ensure_ascii=False) for own in runs for record in own.records())
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    asked = {name: str(value) if name == "trie" and value else value for name, value in task._asdict().items()}
    metrics = {"task": asked, "prompts": [{"prompt": own.prompt, **_plain(own.metrics())} for own in runs]}
    with replacing(folder / "metrics.json") as part:
        part.write_text(json.dumps(metrics, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    from ctrldecode.cli import _plots

    for name, image in (("log_z.png", _plots.log_z(runs)), ("weights.png", _plots.weights(runs))):
        with replacing(folder / name) as part:
            part.write_bytes(image)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON can hold; infinite ones are null."""
    return {
        name: [_number(number) for number in value] if isinstance(value, tuple) else _number(value)
        for name, value in found.items()
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def running_log_z(samples: Samples) -> tuple[list[float], list[float], list[float] | None]:
    """Of one prompt: model calls made after each text, log of the mean weight until then, and the bound on log Z if there is one.

    Samplers that finish all their texts at once are taken to spend the same on each.
    """
    count = len(samples.tokens[0])
    known = samples.info.get("calls")
    calls = [samples.lm_calls * (i + 1) / max(1, count) for i in range(count)] if known is None else list(known[0])
    weights = samples.log_weights[0]
    mean = [float(weights[: i + 1].logsumexp(0)) - math.log(i + 1) for i in range(count)]
    bounds = samples.info.get("log_bound")
    return calls, mean, None if bounds is None else list(bounds[0])
