"""The options `--guide` and `--class-lm`: classes with their strengths, and the model that tells them apart."""

from __future__ import annotations

from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any, NamedTuple

from ctrldecode._resources import class_lm_of
from ctrldecode.cli import _models
from ctrldecode.errors import InputError
from ctrldecode.guidance import GeDi, without_codes
from ctrldecode.lm import CausalLM

if TYPE_CHECKING:
    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential

__all__ = ["Guide", "guidance", "read_guide"]

_USUAL = 30.0  # ω of the paper


class Guide(NamedTuple):
    """A class, and how strongly texts lean towards it."""

    target: str
    strength: float


def read_guide(text: str) -> Guide:
    """A guide as the user wrote it: a class, or a class and a strength.

    Raises:
        InputError: it is neither.

    Example:
        >>> read_guide("happy=12.5"), read_guide("happy")
        (Guide(target='happy', strength=12.5), Guide(target='happy', strength=30.0))
    """
    target, given, number = text.partition("=")
    try:
        strength = float(number) if given else _USUAL
    except ValueError:
        strength = 0.0
    if not target.strip() or not 0 < strength < float("inf"):
        raise InputError(f"--guide wants a class and a positive strength, such as happy=30, got {text!r}")
    return Guide(target.strip(), strength)


def guidance(loaded: Loaded, guides: tuple[str, ...], class_lm: str | None) -> Potential[Any] | None:
    """The potential of all guides; None if there is none. It forbids the control tokens that are codes of classes.

    Args:
        loaded: the model that generates.
        guides: classes, with strengths or without.
        class_lm: name or folder of a class-conditional model; None takes the one that comes with the model, or the model itself if
            its config names class codes.

    Raises:
        InputError: no class LM is known or given, or it has no such class.
        ModelError: it cannot be loaded.
        VocabularyError: it has another tokenizer.
    """
    if not guides:
        if class_lm is not None:
            raise InputError("--class-lm tells classes apart for --guide; say which class, such as --guide happy=30")
        return None
    read = [read_guide(guide) for guide in guides]
    judge = _judge(loaded, class_lm)
    lm = CausalLM(judge.model, tokenizer=judge.tokenizer, eos_token_ids=loaded.eos_token_ids)
    made = [GeDi(lm, target=one.target, strength=one.strength, vocabulary=loaded.vocabulary) for one in read]
    banned = without_codes(made[0], loaded.vocabulary)  # all have the same codes
    factors: list[Potential[Any]] = [*made, banned] if banned.tokens else [*made]
    return reduce(mul, factors)


def _judge(loaded: Loaded, class_lm: str | None) -> Loaded:
    """The class-conditional model."""
    name = class_lm_of(loaded.name) if class_lm is None else class_lm
    if name is not None:
        return loaded if name == loaded.name else _models.load(name)
    if loaded.model.config.to_dict().get("gedi"):
        return loaded
    raise InputError(
        f"--guide needs a class-conditional model, and none is known for {loaded.name!r}; name a folder of ctrldecode train class-lm by "
        "--class-lm"
    )
