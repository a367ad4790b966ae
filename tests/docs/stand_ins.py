"""What stands for the reader's own files and models in the commands of the documentation: small, and made where it is named."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from tests.cli.conftest import SIZE, tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["provide"]

_STORIES = ("Tom had a red kite.", "Lily lost her ball and cried.", "The dog ran home.", "It was dark and cold.")
_WORDS = ("Tom", "Lily", "ran", "smiled", "laughed", "happy", "cried", "sad", "alone", "lost")


def provide(line: str, folder: Path) -> None:
    """Make what a command reads and the folder lacks."""
    makers = {
        "tools.moods.corpus": lambda _: _corpus(folder / "shared" / "corpora"),
        "tools.moods.fresh": lambda _: _model_of_words(folder / "shared" / "models" / "stories3M"),
        "./my.lark": lambda path: path.write_text('start: "yes" | "no"\n'),
        "prompt.txt": lambda path: path.write_text("Does it rain?\n"),
        "prompts.txt": lambda path: path.write_text("Does it rain?\n"),
        "gpt2": _model,
        "my-sentiment-lm": _class_lm,
        "moods.jsonl": lambda path: _labelled(path, (0, 1) if "fit-attribute" in line else ("happy", "sad")),
        "train.jsonl": _labelled,
        "fresh.jsonl": _labelled,
        "held-out.jsonl": _labelled,
    }
    for name, make in makers.items():
        if name in line and not (folder / name).exists():
            make(folder / name)


def _labelled(path: Path, labels: Sequence[object] = ("happy", "sad")) -> None:
    records = [{"text": f"{text} So it was.", "label": labels[i % 2]} for i, text in enumerate(_STORIES * 3)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _model(folder: Path) -> None:
    """A GPT-2 over bytes."""
    config = GPT2Config(
        vocab_size=SIZE, n_positions=512, n_embd=16, n_layer=1, n_head=2, bos_token_id=256, eos_token_id=257
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _corpus(folder: Path) -> None:
    """Stories with moods: the last hundredth is held out, and judged."""
    folder.mkdir(parents=True)
    moods = ("Lily cried. She was sad and alone.", "Tom smiled and laughed. He was happy.")
    with gzip.open(folder / "stories.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n<|endoftext|>\n".join(moods * 600))


def _model_of_words(folder: Path) -> None:
    """A model that says words at random, and ends after some twelve; like the corpus's, it begins and ends with id 1."""
    names = ["<unk>", "<s>", "</s>", *_WORDS]
    inner = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    outer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    outer.save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(names), n_positions=512, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)


def _class_lm(folder: Path) -> None:
    """The same with codes of two classes, as `ctrldecode train class-lm` writes them."""
    _model(folder)
    config = json.loads((folder / "config.json").read_text())
    codes = {"positive": [112], "negative": [110]}
    config["gedi"] = {"codes": codes, "scale": 3.0, "bias": {}, "start": [], "normalise": True}
    (folder / "config.json").write_text(json.dumps(config))
