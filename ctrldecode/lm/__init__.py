"""A Hugging Face causal language model as a `Potential`."""

from ctrldecode.lm._arguments import context_of
from ctrldecode.lm._causal import CausalLM, ForwardPasses
from ctrldecode.lm._state import CausalLMState

__all__ = ["CausalLM", "CausalLMState", "ForwardPasses", "context_of"]
