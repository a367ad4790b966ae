"""Hidden Markov models over token ids: the model and its file, lookahead, attributes as token weights, exchange with other libraries.

Names are imported when they are first used: a lookahead needs none of what fits attributes or reads other libraries' files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrldecode.hmm._absorbing import absorbing
    from ctrldecode.hmm._interop import from_ctrlg, from_pomegranate, to_pomegranate
    from ctrldecode.hmm.attributes import AttributeWeights
    from ctrldecode.hmm.language_model import HMMLanguageModel
    from ctrldecode.hmm.lookahead import Lookahead
    from ctrldecode.hmm.model import HMM

__all__ = [
    "HMM",
    "AttributeWeights",
    "HMMLanguageModel",
    "Lookahead",
    "absorbing",
    "from_ctrlg",
    "from_pomegranate",
    "to_pomegranate",
]

_HOMES = {
    "HMM": "model",
    "AttributeWeights": "attributes",
    "HMMLanguageModel": "language_model",
    "Lookahead": "lookahead",
    "absorbing": "_absorbing",
    "from_ctrlg": "_interop",
    "from_pomegranate": "_interop",
    "to_pomegranate": "_interop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
