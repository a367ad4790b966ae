"""`ctrldecode demo`: stories, cards, forced words and a mood from the embedded model, with what each condition cost."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ctrldecode.cli._decoding import Generated
    from ctrldecode.cli._models import Loaded

__all__ = ["demo"]

_SEED = 1
_STORIES = (
    "Once upon a time, there was a little dog named Max.",
    "<|sad|>Once upon a time, there was a boy named Tim. He had a blue kite.",
)
_CARD = "<|card|>"
_PLAIN = "Tom had a red kite and a cat. He was happy.<|card|>"
# Grammar, prompt, budget. The model has seen stories and cards only: what it writes here is valid, not clever.
_OTHERS = (("json", _PLAIN, 48), ("arithmetic", "1, 2, 3, 4, 5, ", 8), ("email", "Her name was", 14))
_CARDS, _SAMPLES, _SHOWN = 4, 16, 3
_WORDS, _WORDS_BUDGET, _WORDS_SAMPLES = ("dragon", "cake|cakes", "red ball"), 56, 48
# The model writes a sad story behind this, 21 times in 32 (its card says so); the class LM was trained to tell sad stories from happy ones.
_SAD, _GUIDE = "<|sad|>Once upon a time, there was a girl named Lily.", "happy=30"
_GUIDED_BUDGET = 200  # tokens: most stories end within it, and a mood shows at the end


def demo() -> None:
    """Show what ctrldecode does, with the embedded model and without a network. Takes one to two minutes on two cores."""
    from ctrldecode.cli import _decoding, _models

    loaded = _models.load("tinytales")
    with _decoding.seeded(_SEED):
        stories = [_story(loaded, prompt) for prompt in _STORIES]
        _cards(loaded, stories)
        for grammar, prompt, budget in _OTHERS:
            _under(loaded, grammar, prompt, budget)
        _with_words(loaded)
        _guided(loaded)


def _story(loaded: Loaded, prompt: str) -> str:
    """Write a story, printing it as it grows; ends where the model would go on with a card."""
    from ctrldecode.cli._decoding import Settings, Stream, decode

    _heading("A story, from the model alone")
    stop: tuple[int, ...] = (loaded.tokenizer.convert_tokens_to_ids(_CARD),)
    _write(prompt)
    settings = Settings(temperature=0.7, max_new_tokens=220, stop=stop)
    (story,) = decode(loaded, prompt, settings, stream=Stream(loaded, _write, hidden=stop))
    _write("\n")
    return prompt + story.text


def _cards(loaded: Loaded, stories: list[str]) -> None:
    from ctrldecode.cli._decoding import Settings, decode

    potential: Any = loaded.compile("card")
    for number, story in enumerate(stories, start=1):
        _heading(f"The card of story {number}, under grammars/card.lark: of {_CARDS} the one of most weight")
        card = max(decode(loaded, story + _CARD, Settings(num=_CARDS, max_new_tokens=96), potential), key=_weight)
        _write(json.dumps(json.loads(card.text), indent=2) + "\n")
        _note(card)


def _under(loaded: Loaded, grammar: str, prompt: str, budget: int) -> None:
    from ctrldecode.cli._decoding import Settings, decode

    _heading(f"grammars/{grammar}.lark, {budget} tokens: of {_SAMPLES} texts the {_SHOWN} of most weight")
    samples = decode(loaded, prompt, Settings(num=_SAMPLES, max_new_tokens=budget), loaded.compile(grammar))
    different = {text.text: text for text in samples}
    for text in sorted(different.values(), key=_weight, reverse=True)[:_SHOWN]:
        _write(text.text + "\n")
        _note(text)


def _with_words(loaded: Loaded) -> None:
    from ctrldecode.cli._conditions import Conditions
    from ctrldecode.cli._decoding import Settings, decode

    budget = _WORDS_BUDGET
    _heading(f"A story with {', '.join(_WORDS)} within {budget} tokens: of {_WORDS_SAMPLES} the one of most weight")
    potential = Conditions(contains=_WORDS).potential(loaded, budget)
    settings = Settings(num=_WORDS_SAMPLES, max_new_tokens=budget, restricted=True)
    text = max(decode(loaded, "Once upon a time", settings, potential), key=_weight)
    _write(f"{text.prompt}{text.text}\n")
    _note(text)


def _guided(loaded: Loaded) -> None:
    from ctrldecode.cli._conditions import Conditions
    from ctrldecode.cli._decoding import Settings, decode

    _heading(f"A story behind <|sad|>, guided by a class-conditional model (GeDi): {_GUIDE}")
    potential = Conditions(guides=(_GUIDE,)).potential(loaded, _GUIDED_BUDGET)
    (text,) = decode(loaded, _SAD, Settings(temperature=0.7, max_new_tokens=_GUIDED_BUDGET), potential)
    _write(f"{text.prompt}{text.text}\n")
    _note(text)


def _weight(text: Generated) -> float:
    return -math.inf if text.log_weight is None else text.log_weight


def _note(text: Generated) -> None:
    """The importance weight: the text's probability under the model over that with which it was sampled; see `Settings.restricted`."""
    typer.secho(f"    log-weight {text.log_weight:.2f}, {len(text.tokens)} tokens", dim=True)


def _heading(text: str) -> None:
    typer.secho(f"\n{text}", bold=True)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
