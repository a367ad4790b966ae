from __future__ import annotations

import numpy as np
import pytest
import torch

from ctrldecode.distill.cluster import assign, k_means
from ctrldecode.errors import DistillationError


def blobs(clusters: int, each: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around distant corners, and which corner each belongs to."""
    rng = np.random.default_rng(seed)
    corners = torch.from_numpy(rng.permutation(np.eye(clusters) * 20)).float()
    which = torch.arange(clusters).repeat_interleave(each)
    return corners[which] + torch.from_numpy(rng.normal(size=(len(which), clusters))).float(), which


def test_clusters_that_lie_apart_are_found():
    points, which = blobs(7, 100)
    nearest = assign(points, k_means(points, 7, np.random.default_rng(1)))
    pairs = set(zip(which.tolist(), nearest.tolist(), strict=True))
    assert len(pairs) == 7  # each blob one centre, each centre one blob


def test_nearest_is_by_distance():
    generator = torch.Generator().manual_seed(0)
    points, centres = torch.randn(300, 5, generator=generator), torch.randn(9, 5, generator=generator)
    assert torch.equal(assign(points.half(), centres), torch.cdist(points.half().float(), centres).argmin(1))


def test_passes_lower_the_spread():
    points = torch.randn(4000, 6, generator=torch.Generator().manual_seed(2))

    def spread(passes: int) -> float:
        centres = k_means(points, 20, np.random.default_rng(3), passes=passes, batch=500)
        return float((points - centres[assign(points, centres)]).square().sum(1).mean())

    assert spread(5) < spread(1) < spread(0)


def test_equal_points_are_no_trouble():
    centres = k_means(torch.ones(10, 3), 4, np.random.default_rng(0))
    assert torch.equal(centres, torch.ones(4, 3))


def test_more_clusters_than_points_are_refused():
    with pytest.raises(DistillationError, match=r"5 states.*got 4.*fewer"):
        k_means(torch.zeros(4, 2), 5, np.random.default_rng(0))
