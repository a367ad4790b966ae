from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.kernels import levels

# Eighths add up without rounding, so that both ways see the same sums.
entries = st.tuples(st.integers(-4, 4), st.integers(0, 6)).map(lambda pair: (float(pair[0]), pair[1] / 8))


@settings(deadline=None)  # the first call compiles
@given(st.lists(entries, min_size=1, max_size=40), st.integers(1, 16))
def test_the_selection_agrees_with_sorting(row, sixteenths):
    values, weights = (torch.tensor([column]) for column in zip(*row, strict=True))
    share = sixteenths / 16
    assert torch.equal(levels.fewest(values, weights, share), levels._sorted(values, weights, share))


@pytest.mark.parametrize("size", [1, 9, 31, 1000, 50257])
@pytest.mark.parametrize("kind", ["spread", "equal", "sorted", "minus infinity"])
def test_large_rows_agree_with_sorting(size, kind):
    rng = torch.Generator().manual_seed(size)
    values = torch.randn(3, size, generator=rng)
    if kind == "equal":
        values = values.round()
    elif kind == "sorted":
        values = values.sort(-1).values
    elif kind == "minus infinity":
        values[values < 0.5] = -torch.inf
    weights = torch.randint(0, 8, (3, size), generator=rng) / 8
    for share in (0.01, 0.5, 0.8, 1.0):
        assert torch.equal(levels.fewest(values, weights, share), levels._sorted(values, weights, share))


def test_rows_without_weight_are_kept_whole():
    values, weights = torch.randn(2, 5), torch.zeros(2, 5)
    for way in (levels.fewest, levels._sorted):
        assert bool(way(values, weights, 0.5).all())


def test_views_are_read_right():
    values = torch.arange(12.0).reshape(4, 3).T
    weights = torch.from_numpy(np.ones((3, 4), np.float32))
    assert torch.equal(levels.fewest(values, weights, 0.5), levels._sorted(values, weights, 0.5))
