"""Samples stories that nothing was trained on, from the model that the corpus came from, labelled by the mood lexicon.

Run: python -m tools.moods.fresh --stories 3000 --out fresh.jsonl
tinytales saw all but 268 stories of the corpus, with their codes; what it says of those measures its memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from tools.moods.corpus import labelled
from tools.tinytales.tokens import shared_folder

__all__ = ["sample"]

_BATCH = 100  # rows at a time; on one core more is no faster
_LENGTH = 400  # new tokens; stories that have not ended by then are dropped
_SEED = 1


@torch.inference_mode()
def sample(count: int) -> list[str]:
    """Finished stories out of `count` samples at temperature 0.9 and top-p 0.97, as the corpus was sampled."""
    folder = shared_folder() / "models" / "stories3M"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.generation_config.update(pad_token_id=2, do_sample=True, temperature=0.9, top_p=0.97, top_k=0)
    set_seed(_SEED)
    found: list[str] = []
    for start in range(0, count, _BATCH):
        begin = torch.ones(min(_BATCH, count - start), 1, dtype=torch.long)  # <s>, which also ends a story
        rows = model.generate(begin, max_new_tokens=_LENGTH)[:, 1:].tolist()
        found += [tokenizer.decode(row[: row.index(1)]).strip() for row in rows if 1 in row]
        print(f"{start + len(begin)} of {count}", flush=True)
    return found


def main() -> None:
    """Write one JSON object a line, {"text", "label"}; neutral stories are left out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stories", type=int, default=3000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.write_text(labelled(sample(options.stories)), encoding="utf-8")


if __name__ == "__main__":
    main()
