"""A tiny random model over bytes, saved as a folder, and a way to run the command line in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ctrldecode import cli
from ctrldecode.kernels import _jit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 260  # 256 bytes, three special tokens, and one id that only the head has


class Run(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer().save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=SIZE,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.4,  # far from uniform, so that log-probabilities differ
            bos_token_id=256,
            eos_token_id=257,
            pad_token_id=257,
        )
        model = LlamaForCausalLM(config)
    model.generation_config.update(do_sample=True, top_k=3, temperature=0.3)  # house rules that must not apply
    model.save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    outer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin|>", eos_token="<|end|>", clean_up_tokenization_spaces=False
    )
    outer.add_special_tokens({"additional_special_tokens": ["<|code|>"]})
    return outer


def unless_given(usual: dict[str, object], words: tuple[object, ...]) -> list[object]:
    """Options with their usual values, those that the words give left out, as an option is taken once; then the words."""
    return [part for option, value in usual.items() if option not in words for part in (option, value)] + list(words)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setattr(_jit, "_NOTICE_AFTER_SECONDS", 3600.0)  # a slow machine must not change what is on stderr

    def call(*words: object) -> Run:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Run(int(stop.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def generate(run: Callable[..., Run], model_folder: Path) -> Callable[..., Run]:
    return lambda *words: run("generate", "--model", model_folder, *words)
