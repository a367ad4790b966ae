"""Measures what the model card of tinytales states, and prints it; trains nothing.

Run: python -m tools.tinytales.evaluate [--model FOLDER] [--stories N]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from tools.tinytales.cards import Card, card_of, load_lists, mentioned, parse_card
from tools.tinytales.corpus import read_stories, split
from tools.tinytales.mood import mood_of
from tools.tinytales.tokens import CARD, CONTEXT, END, HAPPY, MODEL_FOLDER, SAD, corpus_path, shared_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["complete", "nats_per_byte"]

_BATCH = 32  # rows at a time: on two cores more is no faster
_TEMPERATURE = 0.8  # of all sampling: between the model's own 1.0, which strays at this size, and greedy, which repeats
_SEED = 0
_CARD_ROOM = 100  # tokens: a card of the corpus has at most 60

Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load(folder: Path) -> Model:
    """The model of `folder` in float32, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


@torch.inference_mode()
def nats_per_byte(loaded: Model, stories: Sequence[str]) -> float:
    """Nats per UTF-8 byte of the stories, each alone behind the begin token; the end token is not counted.

    This does not depend on how the text is cut into tokens (up to the probability of other ways to cut it, which
    counts against every model alike).
    """
    model, tokenizer = loaded
    nats, size = 0.0, 0
    for story in stories:
        tokens = tokenizer(story, add_special_tokens=False).input_ids
        row = torch.tensor([[tokenizer.bos_token_id, *tokens]])
        log_probs = model(input_ids=row[:, :-1]).logits.log_softmax(-1)  # (1, n, vocabulary)
        nats -= log_probs.gather(2, row[:, 1:, None]).sum().item()
        size += len(story.encode())
    return nats / size


@torch.inference_mode()
def complete(loaded: Model, prompts: Sequence[str], room: int) -> list[str]:
    """A sampled continuation of each prompt up to the end token, at most `room` tokens, at `_TEMPERATURE`."""
    model, tokenizer = loaded
    texts = []
    for start in range(0, len(prompts), _BATCH):
        batch = tokenizer(list(prompts[start : start + _BATCH]), return_tensors="pt", padding=True)
        rows = model.generate(
            **batch,
            do_sample=True,
            temperature=_TEMPERATURE,
            top_k=0,
            max_new_tokens=room,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts += tokenizer.batch_decode(rows[:, batch.input_ids.shape[1] :])
    return [text.split(END)[0] for text in texts]


def _report_cards(loaded: Model, stories: Sequence[str]) -> None:
    lines = complete(loaded, [f"{END}{story}{CARD}" for story in stories], _CARD_ROOM)
    pairs = [(story, card) for story, line in zip(stories, lines, strict=True) if (card := parse_card(line))]
    print(f"cards of {len(lines)} held-out stories: {len(pairs)} valid")
    named = sum(_names_only_what_is_there(story, card) for story, card in pairs)
    print(f"  of the valid: {named} name only a hero, animals and things that are in the story")
    for field in Card.__dataclass_fields__:
        same = sum(getattr(card, field) == getattr(card_of(story), field, None) for story, card in pairs)
        print(f"  of the valid: {same} have the rules' {field}")


def _names_only_what_is_there(story: str, card: Card) -> bool:
    lists = load_lists()
    animals = mentioned(story, lists.animal_words, lists.before)
    things = mentioned(story, lists.thing_words, lists.before)
    return card.hero in story and set(card.animals) <= set(animals) and set(card.things) <= set(things)


def _report_moods(loaded: Model, count: int) -> None:
    for code in ("", HAPPY, SAD):
        texts = complete(loaded, [f"{END}{code}"] * count, CONTEXT - 2)
        stories = [text.split(CARD)[0] for text in texts]
        moods = {mood: sum(mood_of(story) == mood for story in stories) for mood in load_lists().moods}
        ended = sum(story.rstrip().endswith((".", "!", "?", '"')) for story in stories)
        print(f"{count} stories behind {code or 'nothing'}: lexicon {moods}; {ended} end with a sentence")


def _show_samples(loaded: Model) -> None:
    for prompt in (f"{END}{HAPPY}", f"{END}{SAD}", f"{END}Once upon a time"):
        (text,) = complete(loaded, [prompt], CONTEXT - 112)
        print(f"--- {prompt}\n{text}")
    story = f"{prompt}{text.split(CARD)[0]}{CARD}"
    print(f"--- its card\n{complete(loaded, [story], _CARD_ROOM)[0]}")


def main() -> None:
    """Print held-out nats per byte of both models, validity of cards, moods behind control codes, and samples."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--stories", type=int, default=10**6, help="held-out stories to use, all by default")
    parser.add_argument("--moods", type=int, default=32, help="stories to sample behind each control code")
    options = parser.parse_args()
    disable_progress_bar()
    torch.manual_seed(_SEED)
    loaded = load(options.model)
    held_out = split(read_stories(corpus_path()))[1][: options.stories]
    print(f"{sum(p.numel() for p in loaded[0].parameters())} weights")
    for name, model in (("tinytales", loaded), ("stories3M", load(shared_folder() / "models" / "stories3M"))):
        rate = nats_per_byte(model, held_out)
        print(f"{name}: {rate:.4f} nats per byte ({rate / math.log(2):.4f} bits), {len(held_out)} held-out stories")
    _report_cards(loaded, held_out)
    _report_moods(loaded, options.moods)
    _show_samples(loaded)


if __name__ == "__main__":
    main()
