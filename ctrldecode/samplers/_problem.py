"""What all samplers are given, checked once: a language model, a potential, prompts and a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctrldecode.core.language_model import LanguageModel, replay
from ctrldecode.core.potential import check_potential, take
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ctrldecode.core.potential import Potential

__all__ = ["Problem", "log_mean_exp", "problem_of"]


@dataclass(frozen=True)
class Problem:
    """The target p(x | prompt) · ψ(x) / ψ(prompt) over texts of at most T tokens, for B prompts.

    A text ends with an end-of-sequence token, or is cut off after T tokens. Potentials are told of the budget, so a hard one
    leaves only texts that are whole within it.

    Attributes:
        lm: p.
        potential: ψ.
        prompts: (B, P) ids.
        mask: (B, P) bool, False where a position is padding.
        max_new_tokens: T.
        eos_token_ids: ids that end a text.
        whole: of which this is a part; None if it is whole.
        picked: of a part, where its prompts stand in the whole.
    """

    lm: Potential[Any]
    potential: Potential[Any]
    prompts: Tensor
    mask: Tensor | None
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    whole: Problem | None = None
    picked: tuple[int, ...] = ()

    def start(self, potential: Potential[Any]) -> Any:
        """The potential's state after the prompts, with the budget."""
        return self._after_prompts(potential, range(len(self.prompts)))

    def resume(self, potential: Potential[Any], rows: Sequence[int], texts: Sequence[Sequence[int]]) -> Any:
        """The potential's state after the prompts of some rows, each followed by a text that has not ended."""
        if isinstance(potential, LanguageModel):
            index = torch.tensor(rows, dtype=torch.long)
            return potential.resume(self.prompts[index], None if self.mask is None else self.mask[index], texts)
        return replay(potential, self._after_prompts(potential, rows), texts)

    def _after_prompts(self, potential: Potential[Any], rows: Sequence[int]) -> Any:
        """The state after the prompts of some rows."""
        if potential.rows is not None:  # a constraint for each prompt: which one is told by the place among all
            whole = self.whole or self
            budget = torch.full((len(whole.prompts),), self.max_new_tokens)
            return take(potential.init(whole.prompts, whole.mask, budget), [self.places[row] for row in rows])
        index = torch.tensor(rows, dtype=torch.long)
        mask = None if self.mask is None else self.mask[index]
        return potential.init(self.prompts[index], mask, torch.full((len(index),), self.max_new_tokens))

    @property
    def places(self) -> tuple[int, ...]:
        """Where the prompts stand among all that were given."""
        return self.picked if self.whole is not None else tuple(range(len(self.prompts)))

    def check(self, *others: Potential[Any] | None) -> None:
        """Raise `InputError` unless further potentials are over the same vocabulary; None is fine."""
        _check_potentials([self.lm, *(other for other in others if other is not None)])

    def ends(self, tokens: Tensor) -> Tensor:
        """Which tokens end a text, bool of the same shape."""
        return torch.isin(tokens, torch.tensor(self.eos_token_ids, dtype=torch.long))

    def prompt_ids(self, row: int) -> tuple[int, ...]:
        """The ids of a prompt, without padding."""
        prompt = self.prompts[row] if self.mask is None else self.prompts[row][self.mask[row]]
        return tuple(prompt.tolist())

    def select(self, rows: Sequence[int]) -> Problem:
        """The same for some of the prompts."""
        index = torch.tensor(rows, dtype=torch.long)
        return replace(
            self,
            prompts=self.prompts[index],
            mask=None if self.mask is None else self.mask[index],
            whole=self.whole or self,
            picked=tuple(self.places[row] for row in rows),
        )


def problem_of(
    lm: Potential[Any],
    potential: Potential[Any],
    prompts: Tensor | Sequence[Sequence[int]] | Sequence[int],
    *,
    mask: Tensor | None,
    max_new_tokens: int,
    eos_token_ids: Iterable[int] | None,
) -> Problem:
    """The arguments of a sampler, checked.

    Raises:
        InputError: sizes differ, prompts are no integers or of different lengths without padding, there is no budget, or nothing
            says which ids end a text.
    """
    _check_potentials([lm, potential])
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    ids = _prompts(prompts)
    if mask is not None:
        mask = torch.as_tensor(mask).detach().to("cpu", torch.bool)
        if mask.shape != ids.shape:
            raise InputError(f"the mask must have the prompts' shape {tuple(ids.shape)}, got {tuple(mask.shape)}")
    if eos_token_ids is None:
        eos_token_ids = getattr(lm, "eos_token_ids", None)  # a bare potential may say it too
    if eos_token_ids is None:
        raise InputError(
            f"nothing says which ids end a text: {lm.describe()} has no eos_token_ids; pass eos_token_ids to the sampler"
        )
    return Problem(lm, potential, ids, mask, max_new_tokens, tuple(sorted({int(token) for token in eos_token_ids})))


def _check_potentials(given: Sequence[Potential[Any]]) -> None:
    for potential in given:
        check_potential(potential, "a sampler")
    sizes = {x.size for x in given}
    if len(sizes) > 1:
        raise InputError(
            f"model and potentials must share one vocabulary, got sizes {sorted(sizes)}; build them from the same "
            "Vocabulary(size=model.config.vocab_size)"
        )


def _prompts(prompts: Tensor | Sequence[Sequence[int]] | Sequence[int]) -> Tensor:
    """(B, P) long on the CPU."""
    if not isinstance(prompts, Tensor):
        given: list[Any] = list(prompts)
        rows: list[Any] = [given] if all(isinstance(row, int) for row in given) else given
        if len({len(row) for row in rows}) > 1:
            raise InputError("prompts of different lengths need padding on the left and a mask; let a tokenizer do it")
        prompts = torch.tensor([list(row) for row in rows])
    if prompts.dim() == 1:
        prompts = prompts[None]
    if prompts.dim() != 2 or not prompts.numel() or prompts.dtype.is_floating_point or prompts.dtype == torch.bool:
        raise InputError(
            f"prompts must be (B, P) token ids with at least one token a row, got {tuple(prompts.shape)} {prompts.dtype}"
        )
    return prompts.detach().to("cpu", torch.long)


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exponentials over the last axis; −inf of nothing."""
    if not values.shape[-1]:
        return values.new_full(values.shape[:-1], -math.inf)
    return values.logsumexp(-1) - math.log(values.shape[-1])
