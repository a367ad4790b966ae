"""What samplers return, and what they have in common: their arguments, their limits and how they are stopped."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ctrldecode.errors import InputError
from ctrldecode.samplers._problem import log_mean_exp, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ctrldecode.core.potential import Potential
    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.samplers._problem import Problem

__all__ = ["Progress", "Sampler", "Samples", "effective_sample_size", "systematic", "weighted"]

S = TypeVar("S")


class Progress(NamedTuple):
    """How far a sampler is.

    Attributes:
        done: units of work done: texts of `asap` and `cars`, moves of `mcmc`, tokens of the others.
        total: how many there are at most.
        lm_calls: next-token distributions asked for so far.
    """

    done: int
    total: int
    lm_calls: int


@dataclass(frozen=True)
class Samples:
    """Texts drawn for B prompts; everything is a list with an entry for each prompt.

    The target is π(x) = p(x | prompt) ψ(x) / Z, with Z = Σ_x p(x | prompt) ψ(x) / ψ(prompt) over the texts that fit into the budget.
    For a hard potential Z is the probability that the model, left alone, would satisfy it.

    Attributes:
        tokens: ids of each text, the end of sequence included where there is one.
        texts: the same as strings, without the end of sequence; None if the sampler was given no vocabulary.
        log_weights: (n,) float64 for each prompt, natural log. Means under π are means weighted by their exponentials; texts of
            equal weight are samples of π itself, exact ones if the sampler says so (`cars`).
        log_z: (B,) float64, the estimate of log Z; NaN where a run was stopped before there was one.
        ess: (B,) float64, effective sample size (Σw)² / Σw², at most n.
        lm_calls: next-token distributions that the model was asked for, over all prompts; what a cache or another row knew is
            not asked again.
        stopped: None, or why there are fewer texts than were wanted: "max_lm_calls" or "interrupted". A token-wise sampler returns the
            texts that are whole or, if it has none for a prompt, those under way.
        info: further numbers of the sampler, by name.
    """

    tokens: list[list[list[int]]]
    texts: list[list[str]] | None
    log_weights: list[Tensor]
    log_z: Tensor
    ess: Tensor
    lm_calls: int
    stopped: str | None = None
    info: dict[str, Any] = field(default_factory=dict[str, Any])

    def resample(self, num: int, rng: torch.Generator) -> list[list[list[int]]]:
        """`num` texts for each prompt at equal weights, by systematic resampling; repeats are to be expected.

        Raises:
            InputError: all texts of a prompt have weight 0.
        """
        return [
            [own[i] for i in systematic(weights, num, rng).tolist()]
            for own, weights in zip(self.tokens, self.log_weights, strict=True)
        ]


class Sampler(ABC, Generic[S]):
    """A pair of pure functions, `init` and `step`, and a loop that calls them.

    Attributes:
        name: as the command line has it.
        init: (problem, num, rng, **options) -> what a run starts from; each sampler has options of its own.
    """

    name: str
    init: Callable[..., S]

    @abstractmethod
    def step(self, problem: Problem, state: S, rng: torch.Generator) -> tuple[S, Any]:
        """One unit of work: the new state, and what may be of interest about the way there."""

    @abstractmethod
    def done(self, problem: Problem, state: S) -> bool:
        """Whether nothing is left to do."""

    @abstractmethod
    def progress(self, problem: Problem, state: S) -> Progress:
        """How far it is."""

    @abstractmethod
    def samples(self, problem: Problem, state: S) -> Samples:
        """What the state comes to; texts are filled in by the loop."""

    def __call__(
        self,
        lm: Potential[Any],
        potential: Potential[Any],
        prompts: Tensor | Sequence[Sequence[int]],
        *,
        num: int = 100,
        max_new_tokens: int = 64,
        rng: torch.Generator | None = None,
        mask: Tensor | None = None,
        vocabulary: Vocabulary | None = None,
        eos_token_ids: Iterable[int] | None = None,
        max_lm_calls: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        **options: Any,
    ) -> Samples:
        """Draw texts for every prompt.

        Args:
            lm: p, any potential that is a normalised language model, such as `CausalLM`.
            potential: ψ.
            prompts: (B, P) token ids.
            num: texts for each prompt.
            max_new_tokens: the budget of each text, the end of sequence included.
            rng: where randomness comes from; the same seed gives the same samples. None takes a fresh one.
            mask: (B, P) bool, False where a prompt is padded on the left.
            vocabulary: spells the texts; None leaves them as ids.
            eos_token_ids: ids that end a text; None takes the model's.
            max_lm_calls: stop once the model was asked for so many next-token distributions, and return what there is; looked at
                between steps.
            progress: is told how far it is before every step.
            options: those of the sampler, see its `init`.

        Raises:
            InputError: an argument is wrong.
            BudgetError: nothing that the potential allows fits into the budget.
        """
        problem = problem_of(
            lm, potential, prompts, mask=mask, max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids
        )
        if num < 1:
            raise InputError(f"num must be at least 1, got {num}")
        if max_lm_calls is not None and max_lm_calls < 1:
            raise InputError(f"max_lm_calls must be at least 1, got {max_lm_calls}")
        if rng is None:
            rng = torch.Generator()
            rng.seed()
        stopped: str | None = None
        with torch.no_grad():
            state = self.init(problem, num, rng, **options)
            try:
                while not self.done(problem, state):
                    at = self.progress(problem, state)
                    if progress is not None:
                        progress(at)
                    if max_lm_calls is not None and at.lm_calls >= max_lm_calls:
                        stopped = "max_lm_calls"
                        break
                    state, _ = self.step(problem, state, rng)
                if progress is not None:
                    progress(self.progress(problem, state))
            except KeyboardInterrupt:
                stopped = "interrupted"
            found = self.samples(problem, state)
        texts = None if vocabulary is None else [[_spell(vocabulary, ids) for ids in own] for own in found.tokens]
        return Samples(
            found.tokens, texts, found.log_weights, found.log_z, found.ess, found.lm_calls, stopped, found.info
        )


def _spell(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    """Ids as text; special tokens are left out."""
    known = [token for token in ids if vocabulary.tokens[token] is not None]
    return vocabulary.bytes_of(known).decode(errors="replace")


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(Σw)² / Σw² over the last axis; 0 where all weights are 0."""
    ess = (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()
    return ess.nan_to_num(0.0)


def systematic(log_weights: Tensor, num: int, rng: torch.Generator) -> Tensor:
    """Indices (num,) by systematic resampling (Kitagawa 1996): one uniform number, `num` evenly spaced points.

    Raises:
        InputError: all weights are 0.
    """
    total = log_weights.logsumexp(-1) if len(log_weights) else torch.tensor(-math.inf)
    if bool(total.isneginf()):
        raise InputError(
            "all weights are 0, so there is nothing to resample; draw more samples, or loosen the constraint"
        )
    points = (torch.arange(num, dtype=torch.float64) + torch.rand((), generator=rng, dtype=torch.float64)) / num
    edges = (log_weights - total).exp().cumsum(-1)
    found = torch.searchsorted(edges, points * edges[-1], right=True)
    return found.clamp_max(int((~log_weights.isneginf()).nonzero()[-1]))


def weighted(tokens: list[list[list[int]]], log_weights: list[Tensor], lm_calls: int, info: dict[str, Any]) -> Samples:
    """Samples whose log Z and ESS are those of their weights."""
    log_z = torch.stack([log_mean_exp(own) for own in log_weights])
    ess = torch.stack([effective_sample_size(own) for own in log_weights])
    return Samples(tokens, None, log_weights, log_z, ess, lm_calls, info=info)
