"""How far texts are from the target p(x) ψ(x) / Z: exactly for small problems, by bounds and weights for large ones.

It knows potentials and samples, no files and no plots.
"""

from ctrldecode.diagnostics._bounds import Bounds, log_joint, log_z_bounds, summary
from ctrldecode.diagnostics._distances import Distances, Interval, distances
from ctrldecode.diagnostics._exact import Distribution, exact, kl, token_wise

__all__ = [
    "Bounds",
    "Distances",
    "Distribution",
    "Interval",
    "distances",
    "exact",
    "kl",
    "log_joint",
    "log_z_bounds",
    "summary",
    "token_wise",
]
