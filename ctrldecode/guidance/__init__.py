"""Guidance by other models: the posterior of a class (GeDi), ratios of language models, classifiers of prefixes."""

from ctrldecode.guidance.forbidden import ForbiddenTokens, without_codes
from ctrldecode.guidance.fudge import Fudge, FudgeState, PrefixClassifier, fudge
from ctrldecode.guidance.gedi import GeDi, GeDiState
from ctrldecode.guidance.prompted import Prompted
from ctrldecode.guidance.ratios import Contrast, cfg, contrastive, dexperts, plausible

__all__ = [
    "Contrast",
    "ForbiddenTokens",
    "Fudge",
    "FudgeState",
    "GeDi",
    "GeDiState",
    "PrefixClassifier",
    "Prompted",
    "cfg",
    "contrastive",
    "dexperts",
    "fudge",
    "plausible",
    "without_codes",
]
