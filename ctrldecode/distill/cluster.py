"""Mini-batch k-means in torch (Sculley 2010, "Web-scale k-means clustering"), for the hidden states of a language model.

It knows nothing of models or of hidden Markov models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctrldecode.errors import DistillationError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["assign", "k_means"]

# Distances to all centres of this many points at a time: 64 MB at 1,024 centres.
_CHUNK = 16384
_SEEDED_FROM = 8  # points a centre among which k-means++ looks; more cost time and change little


def k_means(points: Tensor, clusters: int, rng: np.random.Generator, *, passes: int = 5, batch: int = 16384) -> Tensor:
    """Centres (K, D) of points (N, D).

    Starts from k-means++ (Arthur & Vassilvitskii 2007) on a sample; then every centre is the running mean of the points that
    came to it, with what it was in earlier passes forgotten at the rate at which new points come.

    Args:
        points: (N, D), any floating type; read a batch at a time.
        clusters: K, at most N.
        rng: draws the sample, the seeds and the order of points.
        passes: over all points.
        batch: points between two updates.

    Raises:
        DistillationError: there are fewer points than clusters.
    """
    if clusters > len(points):
        raise DistillationError(
            f"{clusters} states need at least as many hidden states to be clustered, got {len(points)}; ask for fewer "
            "--states, or sample more or longer --sequences"
        )
    few = rng.permutation(len(points))[: clusters * _SEEDED_FROM]
    centres = _seeds(points[torch.from_numpy(few)].float(), clusters, rng)
    for _ in range(passes):
        weights = torch.zeros(clusters)
        order = torch.from_numpy(rng.permutation(len(points)))
        for rows in order.split(batch):
            _update(centres, weights, points[rows].float())
    return centres


def assign(points: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each point: (N,) of (N, D) and (K, D)."""
    return torch.cat([_nearest(chunk.float(), centres) for chunk in points.split(_CHUNK)])


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """argmin ‖p − c‖² = argmin ½‖c‖² − p·c, one GEMM."""
    return torch.addmm(0.5 * centres.square().sum(1), points, centres.T, alpha=-1).argmin(1)


def _update(centres: Tensor, weights: Tensor, points: Tensor) -> None:
    """Move the centres, in place, to the mean of their points of this pass so far."""
    nearest = assign(points, centres)
    sums = torch.zeros_like(centres).index_add_(0, nearest, points)
    sizes = torch.bincount(nearest, minlength=len(centres)).float()
    weights += sizes
    centres += (sums - sizes[:, None] * centres) / weights.clamp(min=1)[:, None]


def _seeds(points: Tensor, clusters: int, rng: np.random.Generator) -> Tensor:
    """k-means++: every next seed is drawn in proportion to its squared distance from the seeds so far."""
    squares = points.square().sum(1)
    distances = torch.full_like(squares, torch.inf)
    chosen = int(rng.integers(len(points)))
    seeds = [chosen]
    for uniform in rng.random(clusters - 1):
        distances = torch.minimum(distances, squares + squares[chosen] - 2 * (points @ points[chosen])).clamp_(min=0)
        distances[chosen] = 0
        below = distances.double().cumsum(0)
        chosen = int(torch.searchsorted(below, float(uniform) * below[-1], right=True).clamp(max=len(points) - 1))
        seeds.append(chosen)
    return points[seeds]
