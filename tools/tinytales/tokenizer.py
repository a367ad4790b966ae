"""Trains the byte-level BPE tokenizer of tinytales and writes its folder; knows no model.

Run: python -m tools.tinytales.tokenizer [--out FOLDER]
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.tinytales.corpus import document, forms_of, read_stories, split
from tools.tinytales.tokens import CARD, CONTEXT, END, HAPPY, MODEL_FOLDER, SAD, SPECIAL, corpus_path

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["VOCABULARY", "train_tokenizer", "write_tokenizer"]

VOCABULARY = 3072
"""Rows of the embedding: the corpus knows few words, and at 4096 the rarest merges are seen too seldom to learn."""


def train_tokenizer(texts: Iterable[str], size: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE of `size` tokens: the special ones first, then all 256 bytes, then merges learnt from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer.from_pretrained(folder)`."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        extra_special_tokens=[HAPPY, SAD, CARD],
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    wrapped.save_pretrained(folder)


def main() -> None:
    """Train on one draw of every training story's form, so that cards are compressed as stories are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER)
    out = parser.parse_args().out
    rng = random.Random(0)
    training, _ = split(read_stories(corpus_path()))
    tokenizer = train_tokenizer(document(forms_of(story), rng) for story in training)
    out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(tokenizer, out)


if __name__ == "__main__":
    main()
