"""Hidden Markov models over token ids: the model and its file, attributes as token weights, exchange with other libraries."""

from ctrldecode.hmm._absorbing import absorbing
from ctrldecode.hmm._interop import from_ctrlg, from_pomegranate, to_pomegranate
from ctrldecode.hmm.attributes import AttributeWeights
from ctrldecode.hmm.model import HMM

__all__ = ["HMM", "AttributeWeights", "absorbing", "from_ctrlg", "from_pomegranate", "to_pomegranate"]
