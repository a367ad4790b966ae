"""What every HMM must be: probabilities, with the end of sequence absorbing. Reads arrays, and returns normalised tensors."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ctrldecode.errors import InputError, VocabularyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["ROW_TOLERANCE", "as_tensor", "check_distributions", "check_vocabulary", "checked_eos", "checked_parameters"]

# How far a distribution may sum from 1 before it is taken for a mistake. Rows of float16 values are off by up to 5e-4
# (11 bits of mantissa), those of float32 by far less; logarithms passed for probabilities, or rows that were never
# normalised, by far more.
ROW_TOLERANCE = 1e-3


def as_tensor(values: Any, name: str) -> Tensor:
    """Values as a tensor of at least float32, on the device where they are.

    Raises:
        InputError: it is no array of real numbers.
    """
    try:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers, got {type(values).__name__}: {error}") from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"{name} must hold probabilities, got {tensor.dtype}; pass a float array")
    return tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()


def checked_eos(eos_token_ids: Iterable[int] | int, size: int) -> tuple[int, ...]:
    """The ids, sorted.

    Raises:
        InputError: there is none, or one lies outside the vocabulary.
    """
    given = eos_token_ids if isinstance(eos_token_ids, Iterable) else (eos_token_ids,)
    try:
        eos = tuple(sorted({operator.index(token) for token in given}))
    except TypeError as error:
        raise InputError(f"eos_token_ids must be token ids, got {eos_token_ids!r}") from error
    if not eos or eos[0] < 0 or eos[-1] >= size:
        raise InputError(
            f"eos_token_ids must be at least one id in 0 to {size - 1}, got {list(eos)}; pass vocabulary.eos_token_ids, and "
            "an emission as wide as the model's head"
        )
    return eos


def checked_parameters(
    initial: Tensor, transition: Tensor, emission: Tensor, eos: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Initial (H,), transition (H, H) and token-major emission (V, H) in float32, every distribution divided by its sum.

    Raises:
        InputError: shapes disagree; a value is negative or not finite; a distribution does not sum to 1 within
            `ROW_TOLERANCE`; or the end of sequence does not absorb.
    """
    _check_shapes(initial, transition, emission)
    initial = _normalised(initial[None], "initial", 1)[0]
    transition = _normalised(transition, "transition", 1)
    emission = _normalised(emission, "emission", 0)
    _check_absorbing(transition, emission, eos)
    return initial, transition, emission


def check_distributions(values: Tensor, name: str, over: int) -> Tensor:
    """The sums in float64 of distributions over one axis of a matrix, kept as an axis of 1; a state is the other axis.

    Raises:
        InputError: a value is negative or not finite, or a distribution does not sum to 1 within `ROW_TOLERANCE`.
    """
    lowest, highest = (float(bound) for bound in torch.aminmax(values)) if values.numel() else (0.0, 0.0)
    if not 0 <= lowest <= highest < float("inf"):  # false for NaN too
        state, what = _bad_value(values, over)
        raise InputError(
            f"{name} of state {state} holds {what}; wanted probabilities, finite and at least 0. Take the exponential of "
            "logarithms, and mend what NaN came from"
        )
    sums = values.sum(over, keepdim=True, dtype=torch.float64)
    off = (sums - 1).abs().flatten()
    if bool((off > ROW_TOLERANCE).any()):
        state = int(off.argmax())
        raise InputError(
            f"{name} of state {state} sums to {float(sums.flatten()[state]):.6g}, wanted 1 within {ROW_TOLERANCE:g}; divide each "
            "state's probabilities by their sum, and pass emission as (H, V), states first"
        )
    return sums


def check_vocabulary(vocabulary: Vocabulary, size: int, eos: Sequence[int], fingerprint: str | None, name: str) -> None:
    """Raise unless what `name` calls, over `size` ids with these ends, was made for a vocabulary.

    Raises:
        VocabularyError: sizes, ends of sequence or fingerprints differ; a fingerprint of None is not known, and no difference.
    """
    if (size, tuple(eos)) != (vocabulary.size, vocabulary.eos_token_ids):
        raise VocabularyError(
            f"{name} is over {size} token ids with the ends {list(eos)}, but the model has {vocabulary.size} with the ends "
            f"{list(vocabulary.eos_token_ids)}; use what was made for this model, or make it anew"
        )
    if fingerprint is not None and fingerprint != vocabulary.fingerprint:
        raise VocabularyError(
            f"{name} was made for the vocabulary {str(fingerprint)[:12]}..., but the model has "
            f"{vocabulary.fingerprint[:12]}...: as many ids, but other tokens; use what was made for this model, or make it anew"
        )


def _check_shapes(initial: Tensor, transition: Tensor, emission: Tensor) -> None:
    states = len(initial) if initial.dim() == 1 else 0
    if states and transition.shape == (states, states) and emission.dim() == 2 and emission.shape[1] == states:
        return
    raise InputError(
        "an HMM of H states over V tokens needs initial (H,), transition (H, H) and emission (H, V), or (V, H) in "
        f"from_token_major; got initial {tuple(initial.shape)}, transition {tuple(transition.shape)}, and emission "
        f"{tuple(emission.shape)} with tokens first"
    )


def _normalised(values: Tensor, name: str, over: int) -> Tensor:
    """Values in float32 divided by their sums over an axis; a state is the other axis."""
    sums = check_distributions(values, name, over)
    return (values / sums.to(values.dtype)).float()


def _bad_value(values: Tensor, over: int) -> tuple[int, float]:
    bad = ~(values >= 0) | values.isinf()
    place = bad.nonzero()[0]
    return int(place[1 - over]), float(values[tuple(place)])


def _check_absorbing(transition: Tensor, emission: Tensor, eos: Sequence[int]) -> None:
    """A state emits ends of sequence only, or none; and from a state that does, only such states follow."""
    ends = torch.zeros(len(emission), dtype=torch.bool, device=emission.device)
    ends[list(eos)] = True
    mass = emission[ends].sum(0)  # (H,)
    ending = mass > 0.5
    remedy = "ctrldecode.hmm.absorbing(initial, transition, emission, eos_token_ids) gives an equal HMM that is so"
    mixed = mass.bool() & ~ending
    mixed[ending] = (emission[:, ending] * ~ends[:, None]).any(0)
    if bool(mixed.any()):
        state = int(mixed.nonzero()[0])
        raise InputError(
            f"state {state} emits an end of sequence with probability {float(mass[state]):.9g} and other tokens too; wanted one "
            f"or the other; {remedy}"
        )
    leaving = transition[ending][:, ~ending].sum(1)
    if bool((leaving > 0).any()):
        row = int((leaving > 0).nonzero()[0])
        state = int(ending.nonzero()[row])
        raise InputError(
            f"state {state} emits the end of sequence, but goes on to other states with probability {float(leaving[row]):.6g}, "
            f"wanted 0: nothing follows an end; {remedy}"
        )
