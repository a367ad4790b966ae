"""A Hugging Face causal language model as a `Potential`."""

from ctrldecode.lm._causal import CausalLM, CausalLMState, ForwardPasses

__all__ = ["CausalLM", "CausalLMState", "ForwardPasses"]
