"""GeDi: the posterior of a class, by Bayes' rule over class-conditional language models, as a potential.

It knows a class LM by the interface of `LanguageModel` alone, be it a network, an HMM or a table. Krause et al. 2020, "GeDi:
Generative Discriminator Guided Sequence Generation", cited below by its equations.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property, partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ctrldecode.core._records import Groups, take
from ctrldecode.core._rows import real_ids
from ctrldecode.core.potential import Potential, Support
from ctrldecode.errors import InputError
from ctrldecode.guidance._codes import (
    Classes,
    as_set,
    begins_of,
    check_language_model,
    check_number,
    check_tokens,
    check_vocabulary,
    check_whole,
    classes_of,
)
from ctrldecode.guidance._rows import Heads, heads_of, padded
from ctrldecode.guidance._support import top_posteriors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ctrldecode.core.language_model import LanguageModel
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["GeDi", "GeDiState"]


class GeDiState(NamedTuple):
    """What the class LMs have read, and how well each explains it.

    Attributes:
        inner: state of the class LM, B groups of C rows.
        evidence: (B, C) float64 on the CPU, Σ log p(x_t | c, x_<t) over the tokens that count.
        length: (B,) how many tokens count.
        finished: (B,) bool, whether an end-of-sequence token was stepped.
    """

    inner: Groups[Any]
    evidence: Tensor
    length: Tensor
    finished: Tensor


class GeDi(Potential[GeDiState]):
    """ψ(x) = P(c|x)^ω for a class c, by Bayes' rule over C class-conditional language models (eq. 4 to 6 of the paper).

        ℓ_c = s · (1/n) Σ_t log p(x_t | code_c, x_<t) + b_c        P(c|x) = softmax_c ℓ_c

    so the log-weight of a token is ω (log P(c | x·v) − log P(c | x)). All classes run as one batch of B·C rows, one forward
    pass a step. A token that no class LM allows has weight zero, as has one that the class LM does not have.

    Classes are told to the class LM by codes in front of the text. A code is a control token, a word, or a whole prompt
    ("A happy story:"), which needs no training. For the many topics of the paper give codes for true and false, and the topic
    as a word behind them; the topic need not have been seen in training.

    Args:
        class_lm: the class-conditional language model; any `LanguageModel`.
        codes: class name -> its code, as a text or as token ids; None takes those of the model's config (`config.gedi["codes"]`).
        target: the class wanted.
        strength: ω > 0; the paper uses 30.
        topic: text or ids put behind every code.
        scale: s > 0; None takes that of the config, else 1.
        bias: class name -> b_c; a class that is not named has that of the config, else 0.
        normalise: whether evidence is divided by n, as in the paper; None takes what the config says, else True.
        count_prompt: whether the tokens of the prompt count as evidence. If not, P(c | prompt) = softmax b: the text is judged
            by what is generated alone, though what is generated is read behind the prompt.
        least: evidence of fewer tokens than this is divided by this, in place of n; the paper's is 1. More calms the first tokens,
            where one token is all the evidence.
        start: text or ids that begin every row, in front of the code; what the prompt has of it is not said twice. None takes that
            of the config, else the begin and end tokens that the prompt itself begins with.
        vocabulary: that of the model that generates; by it the class LM's tokens are checked, and V is its size. Without it V is
            the class LM's own.
        eos_token_ids: ids that end a text; None takes those of `vocabulary`, else of the class LM.

    Attributes:
        classes: names, codes, scale and biases in use.

    Raises:
        InputError: an argument is wrong, or a text was given and the class LM has no tokenizer.
        VocabularyError: the class LM has another tokenizer than the model that generates.

    Example:
        >>> from ctrldecode.hmm.model import HMM
        >>> from ctrldecode.hmm.language_model import HMMLanguageModel
        >>> pair = HMM([0.5, 0.5, 0], [[0.9, 0, 0.1], [0, 0.9, 0.1], [0, 0, 1]], [[0.2, 0.8, 0], [0.8, 0.2, 0], [0, 0, 1]],
        ...            eos_token_ids=[2])
        >>> gedi = GeDi(HMMLanguageModel(pair), {"zeros": [0, 0], "ones": [1, 1]}, target="ones", strength=1.0)
        >>> state = gedi.step(gedi.init(torch.tensor([[0]])), torch.tensor([1]))
        >>> gedi.log_posteriors(state).exp().round(decimals=3)
        tensor([[0.2350, 0.7650]], dtype=torch.float64)
    """

    def __init__(
        self,
        class_lm: LanguageModel[Any],
        codes: Mapping[str, str | Sequence[int]] | None = None,
        *,
        target: str,
        strength: float = 30.0,
        topic: str | Sequence[int] | None = None,
        scale: float | None = None,
        bias: Mapping[str, float] | None = None,
        normalise: bool | None = None,
        count_prompt: bool = False,
        least: int = 1,
        start: str | Sequence[int] | None = None,
        vocabulary: Vocabulary | None = None,
        eos_token_ids: Iterable[int] | None = None,
    ) -> None:
        check_language_model(class_lm, "class_lm")
        check_vocabulary(class_lm, vocabulary)
        self.class_lm = class_lm
        self.classes: Classes = classes_of(class_lm, codes, topic, scale, bias, normalise=normalise, start=start)
        if target not in self.classes.names:
            raise InputError(f"target must be one of the classes {', '.join(self.classes.names)}, got {target!r}")
        check_number(strength, "strength", "to lean away from a class, make another one the target")
        self.parallel: bool = class_lm.parallel
        self.target = target
        self.strength: float = float(strength)
        self.count_prompt = count_prompt
        self.least: int = check_whole(
            least, "least", 1, "1 divides evidence by the number of its tokens, as the paper does"
        )
        self.size: int = class_lm.size if vocabulary is None else len(vocabulary)
        usual = class_lm.eos_token_ids if vocabulary is None else vocabulary.eos_token_ids
        self.eos_token_ids: tuple[int, ...] = as_set(usual if eos_token_ids is None else eos_token_ids, self.size)
        if not set(class_lm.eos_token_ids) <= set(self.eos_token_ids):
            raise InputError(
                f"the class LM ends texts at {list(class_lm.eos_token_ids)}, the model that generates at {list(self.eos_token_ids)}; where only the "
                "class LM stops reading it would tell nothing any more: give it the ends of the model, CausalLM(model, eos_token_ids=...)"
            )
        self._place = self.classes.names.index(target)
        self._bias = torch.tensor(self.classes.bias, dtype=torch.float64)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # that of a network reads all its weights
        """Hex digest of the class LM's and the settings; "" if the class LM has none."""
        own = self.class_lm.fingerprint
        settings = (
            self.classes,
            self.target,
            self.strength,
            self.count_prompt,
            self.least,
            self.size,
            self.eos_token_ids,
        )
        return hashlib.sha256(f"{own} {settings}".encode()).hexdigest() if own else ""

    def init(
        self,
        prompts: Tensor,
        mask: Tensor | None = None,
        budget: Tensor | None = None,  # noqa: ARG002
    ) -> GeDiState:
        """State after prompts (B, P), each read behind every code.

        A budget has no effect: a processor starts rows in the midst of a text, too, with the whole of it. `check_context` looks ahead.

        Raises:
            InputError: an id that the class LM does not have, or what the class LM refuses.
        """
        parts = self._heads(prompts, mask)
        self._check_prompts([part.rest for part in parts])
        rows = [[*part.begin, *code] for part in parts for code in self.classes.codes]
        rests = [part.rest for part in parts for _ in self.classes.codes]
        width = len(self.classes.codes)
        if self.count_prompt:
            inner, total = self.class_lm.score(*padded(rows), rests)
            evidence, length = total.reshape(-1, width), torch.tensor([len(part.rest) for part in parts])
        else:
            inner = self.class_lm.init(*padded([[*row, *rest] for row, rest in zip(rows, rests, strict=True)]))
            evidence = torch.zeros(len(parts), width, dtype=torch.float64)
            length = torch.zeros(len(parts), dtype=torch.long)
        return GeDiState(Groups(inner, width), evidence, length, torch.zeros(len(parts), dtype=torch.bool))

    def check_context(self, prompts: Tensor, max_new_tokens: int, mask: Tensor | None = None) -> None:
        """Refuse prompts (B, P) behind which the class LM cannot read so many new tokens, before anything is generated.

        Args:
            prompts: (B, P) token ids.
            max_new_tokens: how many may follow.
            mask: (B, P) bool, False where a position is padding; None means no padding.

        Raises:
            InputError: the longest prompt with the longest code and the new tokens exceeds the class LM's context.
        """
        context = self.class_lm.context
        code = max(map(len, self.classes.codes))
        read = code + max((len(part.begin) + len(part.rest) for part in self._heads(prompts, mask)), default=0)
        if context is not None and read + max_new_tokens > context:
            raise InputError(
                f"the prompt behind the code of a class has {read} tokens and {max_new_tokens} new ones may follow, but the class LM reads "
                f"at most {context}; shorten the prompt or lower max_new_tokens"
            )

    def log_weights(self, state: GeDiState, tokens: Tensor | None = None) -> Tensor:
        """ω (log P(c | x·v) − log P(c | x)), (B, V) or (B, K) float32 on the class LM's device."""
        weights = self.log_posteriors_after(state, tokens)
        before = self.log_posteriors(state)[:, self._place]
        gone = before.isneginf()
        weights -= before.masked_fill(gone, 0.0).float().to(weights.device)[:, None]
        weights *= self.strength
        if bool((gone | state.finished).any()):
            weights.masked_fill_(gone.to(weights.device)[:, None], -math.inf)
            weights.masked_fill_(state.finished.to(weights.device)[:, None], 0.0)
        return weights

    def log_posteriors(self, state: GeDiState) -> Tensor:
        """log P(c|x) of every class for the text so far, (B, C) float64 on the CPU."""
        slope = self._slope(state.length)
        scores = slope[:, None] * _level(state.evidence) + self._bias
        return torch.log_softmax(scores, dim=-1).masked_fill(state.evidence.isneginf(), -math.inf)

    def log_posteriors_after(self, state: GeDiState, tokens: Tensor | None = None) -> Tensor:
        """log P(c | x·v) of the target for every next token, (B, V) or (B, K) float32; −inf where no class allows it.

        What a row that has ended gets means nothing.
        """
        known = None
        if tokens is not None:
            known = check_tokens(tokens, ~state.finished, "tokens").clamp(0, self.class_lm.size - 1)
        log_probs = self._log_probs(state.inner.rows, known)
        slope = self._slope(state.length + 1)
        start = slope[:, None] * _level(state.evidence) + self._bias
        slope, start = slope.float().to(log_probs.device), start.float().to(log_probs.device)
        return self._fitted(_log_share(log_probs, slope, start, self._place), tokens)

    def step(self, state: GeDiState, tokens: Tensor) -> GeDiState:
        """State after one more token a row. What comes after the end of a text has no effect."""
        tokens = check_tokens(tokens, ~state.finished, "tokens that are stepped").to("cpu", torch.long)
        read = tokens.masked_fill(state.finished | (tokens >= self.class_lm.size), 0)
        finished = self._finished(state, tokens)
        return self._counted(state, tokens, self._read_on(state.inner, read, finished), finished)

    def step_all(self, state: GeDiState, tokens: Tensor) -> list[GeDiState]:
        """The states after each of K more tokens a row, (B, K): one forward pass of the class LM up to where the first text ends."""
        tokens = check_tokens(tokens, ~state.finished, "tokens that are stepped").to("cpu", torch.long)
        special = torch.isin(tokens, torch.tensor(self.eos_token_ids, dtype=torch.long)) | (
            tokens >= self.class_lm.size
        )
        usual = 0 if bool(state.finished.any()) else int((special.any(0).cumsum(0) == 0).sum())
        states = [state]
        if usual:
            rows = tokens[:, :usual].repeat_interleave(state.inner.width, dim=0)
            for column, inner in enumerate(self.class_lm.step_all(state.inner.rows, rows)):
                before, group = states[-1], Groups(inner, state.inner.width)
                states.append(self._counted(before, tokens[:, column], group, before.finished))
        return states[1:] + super().step_all(states[-1], tokens[:, usual:])

    def support(self, mass: float = 0.2, threshold: float = 0.8) -> Support:
        """GeDi's filter (§3.2 of the paper), for `ControlProcessor(gedi, support=gedi.support())`.

        Kept are the tokens with P(c | x·v) ≥ threshold (τ), and the fewest tokens of highest P(c | x·v) that hold `mass` (ρ) of the
        guided distribution, whatever other potentials it is a product of. All others get −inf. The authors' code names the mass that
        goes: its `filter_p` of 0.8 is a mass of 0.2 here, and its `target_p` is τ.

        Args:
            mass: ρ in (0, 1].
            threshold: τ in [0, 1].

        Raises:
            InputError: a number out of range.
        """
        if not (0 < mass <= 1 and 0 <= threshold <= 1):
            raise InputError(f"mass must lie in (0, 1] and threshold in [0, 1], got {mass} and {threshold}")
        return Support(partial(self._keep, mass, threshold), f"GeDi's support of {mass:g} and {threshold:g}", self)

    def describe(self) -> str:
        """One line for error messages."""
        return f"GeDi towards {self.target!r} ({self.strength:g})"

    def _keep(self, mass: float, threshold: float, log_probs: Tensor, log_weights: Tensor, state: GeDiState) -> Tensor:
        after = self.log_posteriors_after(state).to(log_probs.device)
        after[state.finished.to(after.device)] = 0.0
        return top_posteriors(after, log_probs + log_weights, mass, threshold)

    def _slope(self, length: Tensor) -> Tensor:
        """s/max(n, least), (B,) float64; s where evidence is not normalised."""
        count = length.clamp_min(self.least) if self.classes.normalise else torch.ones_like(length)
        return self.classes.scale / count.double()

    def _log_probs(self, rows: Any, tokens: Tensor | None) -> Tensor:
        """log p(v | c, x), (B, C, V of the class LM) or (B, C, K), from the class LM's own state of B·C rows."""
        width = len(self.classes.codes)
        listed = None if tokens is None else tokens.repeat_interleave(width, dim=0)
        return self.class_lm.log_weights(rows, listed).unflatten(0, (-1, width))

    def _fitted(self, after: Tensor, tokens: Tensor | None) -> Tensor:
        """Over the V ids of the model that generates; −inf at ids that the class LM does not have."""
        if tokens is not None:
            return after.masked_fill_(tokens.to(after.device) >= self.class_lm.size, -math.inf)
        if self.size <= after.shape[1]:
            return after[:, : self.size]
        return torch.nn.functional.pad(after, (0, self.size - after.shape[1]), value=-math.inf)

    def _heads(self, prompts: Tensor, mask: Tensor | None) -> list[Heads]:
        """Each prompt in what stands in front of a code, and what stands behind it."""
        begins = begins_of(self.class_lm)
        return [heads_of(ids, self.classes.start, begins) for ids in real_ids(prompts, mask)]

    def _finished(self, state: GeDiState, tokens: Tensor) -> Tensor:
        return state.finished | torch.isin(tokens, torch.tensor(self.eos_token_ids, dtype=torch.long))

    def _counted(self, state: GeDiState, tokens: Tensor, inner: Groups[Any], finished: Tensor) -> GeDiState:
        """A state with a token (B,) more, which counts as evidence where the text had not ended; `inner` has read it."""
        unknown = ~state.finished & (tokens >= self.class_lm.size)
        known = tokens.masked_fill(state.finished | unknown, 0)
        gained = self._log_probs(state.inner.rows, known[:, None])[:, :, 0].double().cpu()
        gained.masked_fill_(unknown[:, None], -math.inf).masked_fill_(state.finished[:, None], 0.0)
        return GeDiState(inner, state.evidence + gained, state.length + ~state.finished, finished)

    def _read_on(self, inner: Groups[Any], tokens: Tensor, finished: Tensor) -> Groups[Any]:
        """The class LM's state after a token (B,) more in those that go on.

        Rows that have ended are read no further, so that they never meet the end of its context: nothing depends on their state any
        more, so where there are any, they get a copy of another row's.
        """
        if not bool(finished.any()):
            return self._stepped(inner, tokens)
        live = (~finished).nonzero().flatten()
        if not len(live):
            return inner
        stepped = self._stepped(take(inner, live), tokens[live])
        return take(stepped, ((~finished).cumsum(0) - 1).clamp_min(0))

    def _stepped(self, inner: Groups[Any], tokens: Tensor) -> Groups[Any]:
        return Groups(self.class_lm.step(inner.rows, tokens.repeat_interleave(inner.width)), inner.width)

    def _check_prompts(self, rows: list[list[int]]) -> None:
        most = max((token for row in rows for token in row), default=0)
        if most >= self.class_lm.size:
            raise InputError(
                f"the prompt has the id {most}, and {self.class_lm.describe()} knows ids below {self.class_lm.size} only; take a class "
                "LM of the same tokenizer"
            )


def _level(evidence: Tensor) -> Tensor:
    """Evidence (B, C) less that of the best class of a row, which cancels; 0 where no class is possible any more."""
    best = evidence.amax(-1, keepdim=True)
    return (evidence - best.masked_fill(best.isneginf(), 0.0)).masked_fill(best.isneginf(), 0.0)


def _log_share(log_probs: Tensor, slope: Tensor, start: Tensor, place: int) -> Tensor:
    """log softmax over classes of slope · log_probs (B, C, V) + start (B, C), for one class: (B, V); −inf where none is possible.

    By the sum of exponentials of what the others have more than that class: one exponential and one logarithm a token. Where an
    exponential is too large, or the class is impossible, it is done again with logarithms throughout.
    """
    target, own = log_probs[:, place], start[:, place]
    total: Tensor | None = None
    for other in (index for index in range(log_probs.shape[1]) if index != place):
        ahead = log_probs[:, other] - target
        ahead *= slope[:, None]
        ahead += (start[:, other] - own)[:, None]
        total = ahead.exp_() if total is None else total.add_(ahead.exp_())
    if total is not None and float(total.sum()) < math.inf:
        return total.log1p_().neg_()
    scores = log_probs * slope[:, None, None]
    scores += start[:, :, None]  # in place: addcmul, which broadcasts, takes three times as long
    whole = reduce(torch.logaddexp, scores.unbind(1))
    after = scores[:, place].sub_(whole)
    # −inf less −inf is NaN: a token that no class allows. Other NaN are the class LM's own, and stay.
    return after.masked_fill_(whole.isneginf(), -math.inf)
