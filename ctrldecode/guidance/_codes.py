"""The classes of a class-conditional language model: their codes as token ids, scale and bias, from arguments or the model's config."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode.core.language_model import LanguageModel
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import InputError, VocabularyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

__all__ = [
    "Classes",
    "as_ids",
    "as_set",
    "begins_of",
    "check_language_model",
    "check_number",
    "check_same_tokens",
    "check_tokens",
    "check_vocabulary",
    "check_whole",
    "classes_of",
]

_LARGEST = 1e6  # of strength, scale and bias


class Classes(NamedTuple):
    """What tells classes apart.

    Attributes:
        names: C names, in order.
        codes: per class the ids of its code, topic included.
        scale: s of the posterior, > 0.
        bias: per class b_c.
        normalise: whether evidence is divided by the number of tokens.
        start: ids that begin every row, or None for whatever the prompt begins with.
    """

    names: tuple[str, ...]
    codes: tuple[tuple[int, ...], ...]
    scale: float
    bias: tuple[float, ...]
    normalise: bool
    start: tuple[int, ...] | None


def classes_of(
    class_lm: LanguageModel[Any],
    codes: Mapping[str, str | Sequence[int]] | None,
    topic: str | Sequence[int] | None,
    scale: float | None,
    bias: Mapping[str, float] | None,
    *,
    normalise: bool | None,
    start: str | Sequence[int] | None,
) -> Classes:
    """Classes from arguments, and where these are None from the entry "gedi" of the model's config.

    Raises:
        InputError: no codes at all, fewer than two, two that are equal, or an id, a scale or a bias that cannot be.
    """
    known = _known(class_lm)
    found = known.get("codes") if codes is None else codes
    if found is not None and not isinstance(found, Mapping):
        raise InputError(f"codes must map class names to texts or token ids, got {type(found).__name__}")
    if not found:
        raise InputError(
            f"{class_lm.describe()} names no class codes in its config; give codes such as {{'happy': '<|happy|>', 'sad': '<|sad|>'}}, or "
            "a model of ctrldecode train class-lm"
        )
    behind = () if topic is None else as_ids(topic, class_lm, "topic")
    names = tuple(found)
    ids = tuple((*as_ids(found[name], class_lm, f"code {name!r}"), *behind) for name in names)
    _check_codes(names, ids)
    return Classes(
        names,
        ids,
        _scale(known.get("scale", 1.0) if scale is None else scale),
        _biases(names, bias, known.get("bias")),
        _flag(known.get("normalise", True) if normalise is None else normalise, "normalise"),
        _start(class_lm, known, start),
    )


def as_ids(given: str | Sequence[int], lm: LanguageModel[Any], what: str) -> tuple[int, ...]:
    """Token ids of an argument that is a text or ids already."""
    listed: Any = lm.encode(given) if isinstance(given, str) else given
    try:
        ids = tuple(index(token) for token in listed)
    except TypeError as error:
        raise InputError(f"{what} must be a text or a list of token ids, got {given!r}") from error
    if any(not 0 <= token < lm.size for token in ids):
        raise InputError(f"{what} must be ids in [0, {lm.size}) of {lm.describe()}, got {list(ids)}")
    return ids


def as_set(given: Iterable[int], size: int, name: str = "eos_token_ids") -> tuple[int, ...]:
    """Ids that end a text, or others, sorted, each once.

    Raises:
        InputError: they are no ids in [0, size).
    """
    try:
        ids = tuple(sorted({index(token) for token in given}))
    except TypeError as error:
        raise InputError(f"{name} must be a list of token ids, got {given!r}") from error
    if any(not 0 <= token < size for token in ids):
        raise InputError(f"{name} must lie in [0, {size}), got {list(ids)}")
    return ids


def begins_of(lm: LanguageModel[Any]) -> tuple[int, ...]:
    """Ids that may begin a text: the beginning of sequence that the model's config names, and its ends (GPT-2 begins with one)."""
    named: Any = lm.config.get("bos_token_id")
    return lm.eos_token_ids if named is None else (int(named), *lm.eos_token_ids)


def check_language_model(lm: Any, what: str) -> None:
    """Refuse what is no language model."""
    if not isinstance(lm, LanguageModel):
        raise InputError(
            f"{what} must be a language model, that is a potential of normalised probabilities such as CausalLM(model), got "
            f"{type(lm).__name__}"
        )


def check_vocabulary(lm: LanguageModel[Any], vocabulary: Vocabulary | None) -> None:
    """Refuse a class LM whose tokens are others than those of the model that generates.

    Raises:
        VocabularyError: an id that both have is another token in each; or an end of text is none of the class LM's ids.
    """
    if vocabulary is None:
        return
    if any(token >= lm.size for token in vocabulary.eos_token_ids):
        raise VocabularyError(
            f"{lm.describe()} does not have the ends of text {list(vocabulary.eos_token_ids)} of the model that generates, so no text "
            "could end; train the class LM on the same tokenizer"
        )
    if lm.tokenizer is None:
        return
    own = Vocabulary.from_tokenizer(lm.tokenizer, size=lm.size, eos_token_ids=vocabulary.eos_token_ids)
    found = _difference(own, vocabulary)
    if found is not None:
        token, mine, theirs = found
        raise VocabularyError(
            f"{lm.describe()} has another tokenizer than the model that generates: token {token} is {mine!r} here and {theirs!r} "
            "there; take a class LM that was trained on the same tokenizer (it may have further tokens behind the shared ones)"
        )


def check_same_tokens(models: Mapping[str, LanguageModel[Any]]) -> None:
    """Refuse two language models whose tokenizers differ; where one has none, or one whose bytes cannot be told, nothing is compared.

    Raises:
        VocabularyError: an id is another token in each.
    """
    (one, first), (other, second) = models.items()
    if first.tokenizer is second.tokenizer or first.tokenizer is None or second.tokenizer is None:
        return
    try:
        ours, theirs = (
            Vocabulary.from_tokenizer(lm.tokenizer, size=lm.size, eos_token_ids=lm.eos_token_ids)
            for lm in (first, second)
        )
    except VocabularyError:
        return
    found = _difference(ours, theirs)
    if found is not None:
        token, mine, its = found
        raise VocabularyError(
            f"{one} and {other} have different tokenizers: token {token} is {mine!r} in one and {its!r} in the other; take models that "
            "were trained on the same tokenizer"
        )


def _difference(own: Vocabulary, other: Vocabulary) -> tuple[int, bytes | None, bytes | None] | None:
    """The first id that is another token of the text in each; None if there is none. Special and missing tokens of `other` are not compared."""
    pairs = enumerate(zip(own.tokens, other.tokens, strict=False))
    return next(((token, *pair) for token, pair in pairs if pair[1] is not None and pair[0] != pair[1]), None)


def _check_codes(names: tuple[str, ...], ids: tuple[tuple[int, ...], ...]) -> None:
    if len(names) < 2:
        raise InputError(
            f"classes are told apart by at least two codes, got {list(names)}; name what the other texts are, too"
        )
    for at, code in enumerate(ids):
        if code in ids[:at]:
            raise InputError(
                f"the codes of {names[ids.index(code)]!r} and {names[at]!r} are the same ids {list(code)}, so nothing tells these "
                "classes apart; special tokens that a tokenizer does not know become equal unknown ones"
            )


def _known(lm: LanguageModel[Any]) -> Mapping[str, Any]:
    """The entry "gedi" of a model's config; empty if there is none."""
    found: Any = lm.config.get("gedi")
    if found is not None and not isinstance(found, Mapping):
        raise InputError(
            f"the entry gedi of {lm.describe()}'s config.json must be an object with codes, scale and bias, got {found!r}; ctrldecode train "
            "class-lm writes it"
        )
    return found or {}


def check_number(value: Any, name: str, remedy: str) -> None:
    """Refuse what is no number in (0, 10⁶]: beyond that differences of log-probabilities leave float32.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, Real) or not 0 < float(value) <= _LARGEST:
        raise InputError(f"{name} must be a positive number, at most {_LARGEST:g}, got {value!r}; {remedy}")


def check_whole(value: Any, name: str, least: int, remedy: str) -> int:
    """A whole number of at least `least`, as an int.

    Raises:
        InputError: it is none.
    """
    try:
        found = index(value)
    except TypeError:
        found = least - 1
    if found < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}; {remedy}")
    return found


def check_tokens(tokens: Tensor, live: Tensor, name: str) -> Tensor:
    """Token ids (B,) or (B, K) as they are, which rows that go on (`live`, (B,) bool on the CPU) may be given.

    Raises:
        InputError: they are no integers, or negative.
    """
    if tokens.dtype.is_floating_point or tokens.dtype.is_complex or tokens.dtype == torch.bool:
        raise InputError(f"{name} must be integers, got {tokens.dtype}; write torch.tensor(ids, dtype=torch.long)")
    if bool(((tokens < 0).reshape(len(live), -1).any(-1).cpu() & live).any()):
        raise InputError(f"{name} must be token ids, got {int(tokens.min())}; ids are 0 or more")
    return tokens


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value


def _scale(scale: Any) -> float:
    check_number(scale, "scale", "ctrldecode train class-lm learns one")
    return float(scale)


def _biases(names: tuple[str, ...], given: Any, known: Any) -> tuple[float, ...]:
    for biases in (given, known):
        if biases is not None and not isinstance(biases, Mapping):
            raise InputError(f"bias must map class names to numbers, such as {{{names[0]!r}: 0.5}}, got {biases!r}")
    if given is not None and (strange := sorted(set(given) - set(names), key=str)):
        raise InputError(f"bias names {strange}, which are no classes; the classes are {', '.join(names)}")
    found: dict[str, Any] = {**(known or {}), **(given or {})}
    biases = [found.get(name, 0.0) for name in names]
    if not all(isinstance(value, Real) and abs(float(value)) <= _LARGEST for value in biases):
        raise InputError(f"biases must be finite numbers, at most {_LARGEST:g}, got {biases}")
    return tuple(map(float, biases))


def _start(
    lm: LanguageModel[Any], known: Mapping[str, Any], start: str | Sequence[int] | None
) -> tuple[int, ...] | None:
    chosen = known.get("start") if start is None else start
    return None if chosen is None else as_ids(chosen, lm, "start")
