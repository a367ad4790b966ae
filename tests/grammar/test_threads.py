"""Threads that share one compiled grammar get the masks that each would get alone."""

from __future__ import annotations

import copy
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.grammar import Grammar
from ctrldecode.grammar.explain import expected
from ctrldecode.kernels.tokens import masks
from tests.grammars import golden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctrldecode.grammar.potential import GrammarPotential

THREADS, STEPS = 4, 30
BUDGETS = (float("inf"), 1000, 12, 4)
Step = tuple[list[bytes], int, tuple[str, ...]]


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def walk(potential: GrammarPotential, seed: int) -> list[Step]:
    """What a random walk over allowed tokens sees."""
    rng = random.Random(seed)
    position, steps = potential.language.start(), list[Step]()
    for _ in range(STEPS):
        found = [position.mask(budget).tobytes() for budget in rng.sample(BUDGETS, 3)]
        (allowed,) = np.nonzero(masks.bits(position.mask(), potential.size))
        choices = [token for token in allowed.tolist() if token not in potential.vocabulary.eos_token_ids]
        if not choices:
            break
        steps.append((found, rng.choice(choices), expected(potential, position)))
        after = position.step(steps[-1][1])
        assert after is not None
        position = after
    return steps


@pytest.mark.parametrize("parser", ["lalr", "earley"])
@pytest.mark.parametrize("name", ["arithmetic", "json"])
def test_masks_are_those_of_one_thread(name: str, parser: str, tinytales_vocabulary: Vocabulary) -> None:
    text = (golden.FOLDER / f"{name}.lark").read_text(encoding="utf-8")

    def compiled() -> GrammarPotential:
        return Grammar(text, parser=parser).compile(tinytales_vocabulary)

    alone = [walk(compiled(), seed) for seed in range(THREADS)]
    shared = compiled()
    with ThreadPoolExecutor(THREADS) as threads:
        together = list(threads.map(lambda seed: walk(shared, seed), range(THREADS)))
    assert together == alone


def test_a_copy_has_a_lock_of_its_own() -> None:
    own = Grammar('start: "a"+').compile(Vocabulary([b"a", None], {1})).language
    with own.lock, ThreadPoolExecutor(1) as other:
        copied = copy.deepcopy(own)
        assert other.submit(lambda: copied.after(copied.start(), b"aa")).result(timeout=60) is not None
