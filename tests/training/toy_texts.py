"""Texts of two kinds that a model of bytes can tell apart, and a small model that is quick to train."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ctrldecode.training.codes import Codes
from ctrldecode.training.data import Text
from tests.toys import EOS

CODES = Codes(("calm", "wild"), ((10,), (11, 12)), (1,))  # codes of unequal length, behind a begin token
SIZE = 32


def small_model(seed: int = 0) -> LlamaForCausalLM:
    """As it is before training; a new one at every call, since training changes it."""
    config = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
        attention_dropout=0.1,  # so that a resumed run must find its random numbers again
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def separable(num: int = 120, seed: int = 0) -> list[Text]:
    """Texts of ids 14 to 19, or of 20 to 25, of unequal length; one in three is of the second class."""
    rng = np.random.default_rng(seed)
    texts = []
    for row in range(num):
        label = int(row % 3 == 0)
        ids = rng.integers(14, 20, size=rng.integers(3, 9)) + 6 * label
        texts.append(Text([*ids.tolist(), EOS], label))
    return texts
