"""Pages and pictures that are made from the code: what is committed is what the code makes, and its numbers are right."""

from __future__ import annotations

import itertools
import math

import pytest

from tools.docs import concepts

SUN, RAIN = concepts.SUN, concepts.RAIN


def next_prob(before: tuple[int, ...], token: int) -> float:
    rain = 0.2 if not before else 0.7 if before[-1] == RAIN else 0.1
    return rain if token == RAIN else 1 - rain


def prob(text: tuple[int, ...]) -> float:
    return math.prod(next_prob(text[:at], token) for at, token in enumerate(text))


def texts(length: int, start: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    return [start + rest for rest in itertools.product((SUN, RAIN), repeat=length - len(start))]


@pytest.fixture(scope="module")
def tree():
    return concepts.tree()


def test_psi_of_the_picture_is_the_expected_future(tree):
    prefixes = [prefix for length in range(concepts.DAYS + 1) for prefix in texts(length)]
    assert set(tree.psi) == set(prefixes)
    for prefix in prefixes:
        wanted = [prob(text) for text in texts(concepts.DAYS, prefix) if text.count(RAIN) >= 2]
        assert tree.psi[prefix] == pytest.approx(sum(wanted) / prob(prefix), rel=1e-5, abs=1e-12)


def test_distributions_of_the_picture_are_those_of_enumeration(tree):
    wet = [text for text in texts(concepts.DAYS) if text.count(RAIN) >= 2]
    total = sum(prob(text) for text in wet)
    assert tree.probs == pytest.approx({text: prob(text) for text in texts(concepts.DAYS)}, rel=1e-5)
    assert tree.aligned == pytest.approx({text: prob(text) / total for text in wet}, rel=1e-5)
    masked = {}
    for text in wet:  # the mask: a word is drawn among those after which two days of rain are still possible
        value = 1.0
        for at, token in enumerate(text):
            allowed = [v for v in (SUN, RAIN) if (*text[:at], v).count(RAIN) + concepts.DAYS - at - 1 >= 2]
            value *= next_prob(text[:at], token) / sum(next_prob(text[:at], v) for v in allowed)
        masked[text] = value
    assert tree.masked == pytest.approx(masked, rel=1e-5)


def test_picture_is_the_one_that_is_committed(tree):
    assert concepts.PICTURE.read_text(encoding="utf-8") == concepts.draw(tree), "run: python -m tools.docs.concepts"
