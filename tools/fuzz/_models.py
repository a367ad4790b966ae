"""Small models of chance over bytes: an HMM, and a class-conditional language model as a folder."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctrldecode.hmm import HMM
from tools.fuzz._regexes import byte_vocabulary

__all__ = ["model_folder", "small_hmm"]

_CLASSES = {"codes": {"x": [120, 120], "y": [121, 121]}, "scale": 3.0, "bias": {}, "start": [], "normalise": True}


@cache
def small_hmm(dtype: str = "float32", size: int = 257, eos: int = 256) -> HMM:
    """Three states that emit bytes, and one that emits the end; it names the vocabulary of 257 ids, if it is of so many."""
    rng = np.random.default_rng(0)
    emission = rng.dirichlet(np.ones(size), 4)
    emission[:3, eos] = 0
    emission[3] = np.eye(size)[eos]
    named = byte_vocabulary().fingerprint if size == byte_vocabulary().size else None
    emission /= emission.sum(1, keepdims=True)
    transition = rng.dirichlet(np.ones(4), 4)
    transition[3] = [0, 0, 0, 1]
    about = {"model": "bytes", "recipe": 'model = "bytes"\n'}
    return HMM(
        [0.5, 0.3, 0.2, 0.0], transition, emission, eos, dtype=dtype, vocabulary_fingerprint=named, metadata=about
    )  # fmt: skip


@cache
def _keeper() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ctrldecode-fuzz-")


@cache
def model_folder() -> Path:
    """A class LM with its tokenizer, gone when the process ends."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(_keeper().name) / "bytes"
    _tokenizer().save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(about | {"gedi": _CLASSES}), encoding="utf-8")
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner: Any = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|begin|>", eos_token="<|end|>")  # noqa: S106  names of tokens
