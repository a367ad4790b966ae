"""A small distillation for tests: a random Llama of 50 tokens, a few hundred short texts. Run as a program, it is what is killed.

python -m tests.distill.runs FOLDER          distil into FOLDER, or go on there
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from ctrldecode.distill.corpus import Source
from ctrldecode.distill.recipe import Recipe, Samples
from ctrldecode.distill.run import Event, Result, distill
from ctrldecode.distill.workers import workers
from tests.toys import EOS, SIZE, tiny_llama

RECIPE = Recipe(
    states=8,
    samples=(Samples(sequences=120, length=12), Samples(sequences=40, length=6, prompts=("a", "b"))),
    held_out=40,
    clustered=60,
    passes=3,
    update=40,
    token_dropout=0.1,
    tolerance=-1.0,  # all passes
    batch=20,
)
PROMPTS = (((),), ((7, 8), (9,)))
BEGIN = 1


def source(recipe: Recipe = RECIPE, model: Any = None) -> Source:
    """The tiny model; its prompts are ids, since it has no tokenizer."""
    model = tiny_llama(size=SIZE) if model is None else model
    return Source(model, PROMPTS[: len(recipe.samples)], BEGIN, (EOS,), recipe.temperature, recipe.seed)


def run(folder: Path, recipe: Recipe = RECIPE, model: Any = None) -> tuple[Result, list[Event]]:
    """The result, and all that was told on the way."""
    events: list[Event] = []
    device = torch.device("cpu")
    with workers(device) as group:
        iterator = distill(recipe, source(recipe, model), folder, device, group)
        while True:
            try:
                events.append(next(iterator))
            except StopIteration as stop:
                return stop.value, events


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]))
