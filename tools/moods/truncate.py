"""Makes a smaller base for a class LM: the first layers of tinytales, with its embedding, last norm and tokenizer.

Run: python -m tools.moods.truncate --layers 3 --out FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tools.tinytales.tokens import MODEL_FOLDER


def main() -> None:
    """Write the folder, in float16."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = LlamaForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float16)
    model.model.layers = model.model.layers[: options.layers]
    model.config.num_hidden_layers = options.layers
    model.save_pretrained(options.out)
    AutoTokenizer.from_pretrained(MODEL_FOLDER).save_pretrained(options.out)


if __name__ == "__main__":
    main()
