"""Samplers: texts from p(x) ψ(x) / Z with weights that say how they were drawn. All are called alike.

They know potentials only; `hf` and `asap.learn` alone know the processor and `generate`.
"""

from __future__ import annotations

from ctrldecode.samplers._importance import Importance, Rejection
from ctrldecode.samplers._samples import Progress, Sampler, Samples
from ctrldecode.samplers._smc import SMC

__all__ = ["SAMPLERS", "Progress", "Sampler", "Samples", "importance", "rejection", "smc"]

importance = Importance()
rejection = Rejection()
smc = SMC()

SAMPLERS = {sampler.name: sampler for sampler in (importance, rejection, smc)}
