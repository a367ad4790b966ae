"""The special tokens of tinytales and where its files lie; imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CARD", "CONTEXT", "END", "HAPPY", "MODEL_FOLDER", "SAD", "SPECIAL", "corpus_path", "shared_folder"]

END = "<|endoftext|>"
"""Begins, separates and ends documents: beginning, end and padding token in one."""
HAPPY = "<|happy|>"
SAD = "<|sad|>"
CARD = "<|card|>"
SPECIAL = (END, HAPPY, SAD, CARD)
"""In the order of their ids, 0 to 3."""

CONTEXT = 512
"""Longest input in tokens: the longest story of the corpus with its card has fewer."""

_CHECKOUT = Path(__file__).resolve().parents[2]
MODEL_FOLDER = _CHECKOUT / "ctrldecode" / "tinytales"


def shared_folder() -> Path:
    """The folder with the corpus and the comparison model: `CTRLDECODE_SHARED`, else `../shared`."""
    return Path(os.environ.get("CTRLDECODE_SHARED", _CHECKOUT.parent / "shared"))


def corpus_path() -> Path:
    """The corpus: stories separated by lines of `<|endoftext|>`, gzipped."""
    return shared_folder() / "corpora" / "stories.txt.gz"
