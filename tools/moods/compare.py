"""Compares class LMs as judges of mood: accuracy and log loss after so many tokens, on labelled texts.

Run: python -m tools.moods.compare --model FOLDER --data fresh.jsonl [--fit fit.jsonl]
A folder with `gedi` in its config.json is judged by its own scale and bias, others by codes <|happy|> and <|sad|> and what is
fitted to the texts of `--fit`; if that is absent too, to odd texts of the data for even ones and the other way round.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctrldecode.training.codes import Codes
from ctrldecode.training.data import Text, encode
from ctrldecode.training.posterior import Evidence, Figures, Posterior, evidence, fit_posterior, measure
from tools.tinytales.tokens import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = ("happy", "sad")
_READ = (16, 32, 64, 128, None)
_MOST = 400  # texts of a class: accuracy to about two points


def load_texts(path: Path, tokenizer: Any, codes: Codes) -> list[Text]:
    """The first `_MOST` texts of each mood."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [record for name in _NAMES for record in [r for r in records if r["label"] == name][:_MOST]]
    labels = [_NAMES.index(record["label"]) for record in kept]
    return encode(tokenizer, [r["text"] for r in kept], labels, codes, tokenizer.eos_token_id, CONTEXT)


def auc(found: Sequence[Evidence], read: int | None) -> float:
    """Chance that a sad text looks sadder than a happy one; needs neither scale nor bias."""
    scores = torch.stack([text.mean(read) for text in found])
    difference = scores[:, 1] - scores[:, 0]
    labels = torch.tensor([text.label for text in found])
    pairs = difference[labels == 1][:, None] - difference[labels == 0][None]
    return float((pairs > 0).double().mean())


def show(figures: Figures, found: Sequence[Evidence]) -> None:
    """One line for each number of tokens read."""
    for read, right, nats in zip(figures.read, figures.accuracy, figures.log_loss, strict=True):
        print(f"  {read or 'all'}: accuracy {right:.3f}, log loss {nats:.3f}, AUC {auc(found, read):.3f}")
    print(f"  perplexity {figures.perplexity:.3f} ({figures.nats:.4f} nats a token), {figures.texts} texts")


def main() -> None:
    """Print figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--fit", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    codes = Codes.of(tokenizer, _NAMES)
    own = getattr(model.config, "gedi", None)
    given = Posterior(own["scale"], tuple(own["bias"][name] for name in _NAMES)) if own else None
    if options.fit:
        given = fit_posterior(evidence(model, codes, load_texts(options.fit, tokenizer, codes)))
        print(f"fitted to {options.fit.name}: {given}")
    for path in options.data:
        found = evidence(model, codes, load_texts(path, tokenizer, codes))
        if given:
            print(f"{path.name}, {given}")
            show(measure(found, given, _READ), found)
        for part in (0, 1):
            fitted = fit_posterior(found[part::2])
            print(f"{path.name}, one half, fitted to the other: {fitted}")
            show(measure(found[1 - part :: 2], fitted, _READ), found[1 - part :: 2])


if __name__ == "__main__":
    main()
