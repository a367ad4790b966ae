"""Records for `ctrldecode explain`: of a text that is generated here, or of one that the user gives. It writes no files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrldecode.cli._decoding import decode, encode, text_of
from ctrldecode.errors import DeadEnd, InputError
from ctrldecode.explain import trace
from ctrldecode.lm import CausalLM

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ctrldecode.cli._decoding import Settings
    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential
    from ctrldecode.explain import Trace

    Asked = Callable[[Potential[Any]], str]  # what the user asked for that a factor brings about

__all__ = ["of_generated", "of_text"]


def of_generated(
    loaded: Loaded,
    prompt: str,
    settings: Settings,
    potential: Potential[Any] | None,
    top: int,
    seed: int | None,
    asked: Asked,
) -> Trace:
    """Generate one text and record it; a dead end is recorded up to the place where nothing can follow.

    Raises:
        InputError: the prompt and the budget do not fit into the model's context; or beam search found no text.
        BudgetError: no text of the constraint fits into the budget.
    """
    inputs = encode(loaded, prompt, settings.max_new_tokens, potential)
    try:
        result = next(decode(loaded, prompt, settings, potential), None)
    except DeadEnd as error:
        tokens, stuck = list(error.prefix[inputs.shape[1] :]), True
    else:
        if result is None:
            raise InputError("beam search found no text that satisfies the conditions; leave --beams out, or widen it")
        tokens, stuck = result.tokens, False
    how = {"seed": "drawn" if seed is None else str(seed)} if settings.temperature > 0 else {}
    if settings.beams > 1:
        how["beams"] = str(settings.beams)
    return _record(loaded, (prompt, inputs), tokens, settings, potential, top, how, asked, look_ahead=stuck)


def of_text(
    loaded: Loaded,
    prompt: str,
    text: str,
    settings: Settings,
    potential: Potential[Any] | None,
    top: int,
    asked: Asked,
    *,
    whole: bool,
) -> Trace:
    """Record a given text behind a prompt; `whole` asks whether it may end there, too.

    Raises:
        InputError: there is no token in it, an end of sequence with more behind it, or more than the budget or the model's context allows.
        BudgetError: no text of the constraint fits into the budget.
    """
    inputs = encode(loaded, prompt, settings.max_new_tokens, potential)
    tokens = _tokens(loaded, prompt, inputs, text)
    _check_end(loaded, tokens)
    if not tokens and not whole:
        raise InputError("--text is empty; give a text, or leave --unfinished out to ask whether an empty one may end")
    if len(tokens) > settings.max_new_tokens:
        raise InputError(
            f"--text has {len(tokens)} tokens, and the budget is {settings.max_new_tokens}; raise --max-new-tokens"
        )
    ended = bool(tokens) and tokens[-1] in loaded.eos_token_ids
    ends = [loaded.eos_token_ids[0]] if whole and not ended and len(tokens) < settings.max_new_tokens else []
    return _record(
        loaded, (prompt, inputs), [*tokens, *ends], settings, potential, top, {"text": "given by --text"}, asked
    )


def _check_end(loaded: Loaded, tokens: list[int]) -> None:
    """Refuse a text that goes on behind its end."""
    end = next((at for at, token in enumerate(tokens) if token in loaded.eos_token_ids), len(tokens))
    behind = len(tokens) - end - 1
    if behind > 0:
        name = loaded.tokenizer.convert_ids_to_tokens(tokens[end])
        raise InputError(
            f"--text goes on behind an end of sequence: token {end + 1} is {name}, and {behind} token{'s' * (behind > 1)} stand"
            f"{'s' * (behind == 1)} behind it; end the text there, or leave {name} out"
        )


def _tokens(loaded: Loaded, prompt: str, inputs: Tensor, text: str) -> list[int]:
    """The ids of a text as it is read behind a prompt; by itself if the two would share a token."""
    before: list[int] = inputs[0].tolist()
    joined: list[int] = loaded.tokenizer(prompt + text).input_ids
    if prompt and joined[: len(before)] == before:
        return joined[len(before) :]
    return loaded.tokenizer(text, add_special_tokens=False).input_ids


def _record(
    loaded: Loaded,
    prompt: tuple[str, Tensor],
    tokens: list[int],
    settings: Settings,
    potential: Potential[Any] | None,
    top: int,
    how: dict[str, str],
    asked: Asked,
    *,
    look_ahead: bool = False,
) -> Trace:
    lm = CausalLM(
        loaded.model,
        eos_token_ids=loaded.eos_token_ids,
        temperature=settings.temperature or 1.0,
        tokenizer=loaded.tokenizer,
    )
    said, inputs = prompt
    about = {
        "model": loaded.name,
        "temperature": f"{settings.temperature:g}",
        "budget": f"{settings.max_new_tokens} tokens",
        **how,
    }
    return trace(
        lm,
        potential,
        inputs,
        tokens,
        vocabulary=loaded.vocabulary,
        budget=settings.max_new_tokens,
        top=top,
        look_ahead=look_ahead,
        names=lambda token: str(loaded.tokenizer.convert_ids_to_tokens(token) or ""),
        texts=(said, text_of(loaded, inputs[0].tolist(), tokens)),
        settings=about,
        asked=asked,
    )
