"""Laws that every potential obeys, as checks to run on a potential of your own: `laws.check(potential)`.

They know a potential by its interface alone: each law compares two ways to get the same numbers along a random walk over
allowed tokens. Passing them is not proof, since the walk is short; a failure is always a bug.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctrldecode.core._records import marks, written
from ctrldecode.core._walks import TOLERANCE, Walk, choose, prompts_for, walked
from ctrldecode.core.potential import cat, check_potential, take
from ctrldecode.errors import InputError, PotentialError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ctrldecode.core.potential import Potential
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["LAWS", "Walk", "check"]

# A few units in the last place of logits around 16, which are 1/64 in float16 and 1/8 in bfloat16.
_HALF = ". In half precision use float32, or a larger tolerance (0.05 for float16, 0.5 for bfloat16)"
CANDIDATES = 32  # a row: enough to hold allowed and forbidden tokens, few enough for a vocabulary of 150k
AFTER_END = 2  # steps that are looked at after the end of a sequence


def check(
    potential: Potential[Any],
    vocabulary: Vocabulary | None = None,
    *,
    prompts: Tensor | None = None,
    log_psi: Callable[[list[int]], float] | None = None,
    eos_token_ids: Iterable[int] | None = None,
    budget: int | None = None,
    steps: int = 6,
    batch: int = 4,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> tuple[str, ...]:
    """Check all laws of `LAWS`.

    Args:
        potential: the one to check.
        vocabulary: gives the ids that end a text, and the size that the potential must have.
        prompts: (n, P) token ids; rows are repeated, copies side by side, up to `batch` rows. None takes random ones.
        log_psi: maps the new tokens of a row (no prompt, no padding) to log ψ, −inf allowed; give one prompt if it depends
            on the prompt. Σ_t log_weights(s_t)[x_t] = log ψ(x) − log ψ(ε) is checked against it.
        eos_token_ids: ids that end a text; None takes the vocabulary's.
        budget: new tokens that every row may have; None gives no budget.
        steps: length of the walk.
        batch: rows, at least 2.
        seed: of the walk.
        tolerance: how far apart one number, computed in two ways, may lie, beside a ten-thousandth of it. The default is for
            float32; a model in half precision needs more: 0.05 in float16, 0.5 in bfloat16.

    Returns:
        Names of the laws that the walk had no occasion to test: for example no end of sequence was ever allowed. Nothing
        else is returned; a law that is broken raises.

    Raises:
        PotentialError: a law is broken; the message has its name, what was wanted and what was got. Or there is no size.
        InputError: it is no potential, or the arguments do not fit together.

    Example:
        >>> from ctrldecode.core.potential import Potential
        >>> class Even(Potential):  # even ids only; the state is whether a row has ended
        ...     size = 10
        ...     def init(self, prompts, mask=None, budget=None):
        ...         return torch.zeros(len(prompts), dtype=torch.bool)
        ...     def log_weights(self, state, tokens=None):
        ...         ids = torch.arange(self.size).expand(len(state), -1) if tokens is None else tokens
        ...         return torch.where((ids % 2 == 0) | state[:, None], 0.0, -math.inf)
        ...     def step(self, state, tokens):
        ...         return state | (tokens == 0)
        >>> check(Even(), eos_token_ids=[0])
        ('telescoping',)
        >>> check(Even(), eos_token_ids=[0], log_psi=lambda x: -math.inf if any(v % 2 for v in x) else 0.0)
        ()
    """
    check_potential(potential, "laws.check")
    if vocabulary is not None and vocabulary.size != potential.size:
        raise InputError(
            f"the potential has {potential.size} ids and the vocabulary {vocabulary.size}; build both from one"
        )
    if not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance must be a number from 0 up, got {tolerance}; {TOLERANCE} is that of float32")
    if eos_token_ids is None:
        eos_token_ids = () if vocabulary is None else vocabulary.eos_token_ids
    ends = tuple(sorted(set(eos_token_ids)))
    rng = torch.Generator().manual_seed(seed)
    prompts = prompts_for(potential, prompts, batch, ends, rng)
    limit = None if budget is None else torch.full((len(prompts),), budget)
    seen = partial(_check_values, potential, len(prompts))
    walk = replace(walked(potential, prompts, limit, steps, ends, log_psi, rng, seen), tolerance=tolerance)
    return tuple(law.__name__ for law in LAWS if not law(walk))


# Each law returns whether the walk gave occasion to test it.


def values(walk: Walk) -> bool:
    """Log-weights are (B, V) float32 without NaN and +inf; those of the walk were checked as it was made."""
    _check_values(walk.potential, len(walk.prompts), walk.weights[0], "after the prompts")
    return True


def determinism(walk: Walk) -> bool:
    """The same prompts and tokens give the same weights again."""
    state = walk.potential.init(walk.prompts, None, walk.budget)
    _follow(walk, "determinism", state, list(range(len(walk.prompts))), 0, "a second time")
    return True


def purity(walk: Walk) -> bool:
    """An old state stays valid: a step does not write into it, and neither it nor one from a successor changes its weights."""
    for at, state in enumerate(walk.states):
        before = marks(state)
        walk.potential.step(state, choose(walk.weights[at], walk.eos_token_ids, walk.rng))
        if written(before, marks(state)):
            raise _broken(walk.potential, "purity", f"a step from state {at}", "it as it was", "it written to in place")
    for at, state in enumerate(walk.states):
        got = walk.potential.log_weights(state)
        _same(walk, "purity", f"state {at} after others were stepped", walk.weights[at], got)
    return True


def candidates(walk: Walk) -> bool:
    """Weights of candidates are those of the whole vocabulary at their ids, repeats allowed."""
    rows = len(walk.prompts)
    for at, state in enumerate(walk.states):
        tokens = torch.randint(walk.potential.size, (rows, CANDIDATES), generator=walk.rng)
        tokens[:, 0] = tokens[:, -1]
        tokens[:, 1 : 1 + len(walk.eos_token_ids)] = torch.tensor(walk.eos_token_ids, dtype=torch.long)[
            : CANDIDATES - 2
        ]
        got = walk.potential.log_weights(state, tokens)
        _same(walk, "candidates", f"state {at}", walk.weights[at].gather(1, tokens), got)
    return True


def adding(walk: Walk) -> bool:
    """`add_log_weights` adds `log_weights` in place; a score of −inf stays −inf."""
    for at, state in enumerate(walk.states):
        scores = torch.randn(walk.weights[at].shape, generator=walk.rng)
        scores[torch.rand(scores.shape, generator=walk.rng) < 0.3] = -math.inf
        wanted = scores + walk.weights[at]
        walk.potential.add_log_weights(state, scores)
        _same(walk, "adding", f"state {at}, where scores were given to add_log_weights", wanted, scores)
    return True


def batching(walk: Walk) -> bool:
    """A row alone has the weights that it has in a batch; of `rows` constraints, one row each."""
    potential, rows = walk.potential, len(walk.prompts)
    if potential.rows == rows:
        return False
    subsets = [[row] for row in range(rows)] if potential.rows is None else [[*range(0, rows, rows // potential.rows)]]
    for subset in subsets:
        limit = None if walk.budget is None else walk.budget[subset]
        state = potential.init(walk.prompts[subset], None, limit)
        _follow(walk, "batching", state, subset, 0, f"rows {subset} alone")
    return True


def taking(walk: Walk) -> bool:
    """`take` permutes and repeats rows, and what was taken can be stepped."""
    rows = len(walk.prompts)
    for at, state in enumerate(walk.states):
        index = torch.randint(rows, (rows + 1,), generator=walk.rng).tolist()
        _follow(walk, "taking", take(state, index), index, at, f"take(state {at}, {index})")
    return True


def joining(walk: Walk) -> bool:
    """`cat` joins states, and what was joined can be stepped."""
    last = len(walk.prompts) - 1
    index = [last, *range(last)]
    for at, state in enumerate(walk.states):
        joined = cat([take(state, index[:1]), take(state, index[1:])])
        _follow(walk, "joining", joined, index, at, f"cat of rows {index[:1]} and {index[1:]} of state {at}")
    return True


def several_steps(walk: Walk) -> bool:
    """`step_all` gives the states that one `step` after the other gives, and changes none of them."""
    for at, state in enumerate(walk.states[:-1]):
        for more, reached in enumerate(walk.potential.step_all(state, walk.tokens[:, at:]), at + 1):
            where = f"state {at} and the next {more - at} tokens"
            _follow(walk, "several_steps", reached, list(range(len(walk.prompts))), more, where)
    return len(walk.states) > 1


def left_padding(walk: Walk) -> bool:
    """Padding on the left that the mask names changes nothing."""
    rows, length = walk.prompts.shape
    padded = torch.cat([torch.zeros(rows, 2, dtype=torch.long), walk.prompts], dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, :2] = False
    state = walk.potential.init(padded, mask, walk.budget)
    _follow(walk, "left_padding", state, list(range(rows)), 0, "two columns of padding")
    if walk.potential.rows is None and length > 1:
        mask = torch.ones_like(walk.prompts, dtype=torch.bool)
        mask[::2, 0] = False
        mixed = walk.potential.log_weights(walk.potential.init(walk.prompts, mask, walk.budget))
        limit = None if walk.budget is None else walk.budget[:1]
        wanted = walk.potential.log_weights(walk.potential.init(walk.prompts[:1, 1:], None, limit))
        _same(walk, "left_padding", "row 0 padded, row 1 not", wanted, mixed[:1])
    return True


def neutrality(walk: Walk) -> bool:
    """After an end of sequence all weights of the row are 0, whatever is stepped then."""
    tested = False
    for token in walk.eos_token_ids:
        for at, state in enumerate(walk.states):
            rows = [row for row, weight in enumerate(walk.weights[at][:, token].tolist()) if weight > -math.inf]
            if not rows:
                continue
            ended = walk.potential.step(take(state, rows), torch.full((len(rows),), token))
            zero = torch.zeros(len(rows), walk.potential.size)
            for more in range(AFTER_END + 1):
                where = f"rows {rows} of state {at}, {more} tokens after end of sequence {token}"
                _same(walk, "neutrality", where, zero, walk.potential.log_weights(ended))
                ended = walk.potential.step(ended, torch.randint(walk.potential.size, (len(rows),), generator=walk.rng))
            tested = True
    return tested


def forbidden(walk: Walk) -> bool:
    """A forbidden token can be stepped, since beam search does so; it harms neither the numbers nor other rows."""
    for at, tokens in enumerate(walk.tokens.T):
        found = walk.weights[at].isneginf().nonzero().tolist()
        if not found:
            continue
        row, token = found[int(torch.randint(len(found), (), generator=walk.rng))]
        where = f"state {at}, row {row} stepped with token {token} of weight 0"
        try:
            state = walk.potential.step(walk.states[at], torch.where(torch.arange(len(tokens)) == row, token, tokens))
            weights = walk.potential.log_weights(state)
        except Exception as error:
            raise _broken(walk.potential, "forbidden", where, "a state", repr(error)) from error
        _check_values(walk.potential, len(tokens), weights, where)
        others = [other for other in range(len(tokens)) if other != row]
        _same(walk, "forbidden", f"other rows than {row}: {where}", walk.weights[at + 1][others], weights[others])
        return True
    return False


def telescoping(walk: Walk) -> bool:
    """Σ_t log_weights(s_t)[x_t] = log ψ(x) − log ψ(ε), for the walk and for one token aside of it."""
    if walk.log_psi is None:
        return False
    start = walk.log_psi([])
    for row, text in enumerate(walk.tokens.tolist()):
        total = 0.0
        for at, weights in enumerate(walk.weights):
            asides = torch.randint(walk.potential.size, (CANDIDATES,), generator=walk.rng).tolist()
            for token in [*text[at : at + 1], *asides, *walk.eos_token_ids]:
                wanted = torch.tensor([[walk.log_psi([*text[:at], token]) - start]])
                got = torch.tensor([[total + float(weights[row, token])]])
                _same(walk, "telescoping", f"row {row}, tokens {[*text[:at], token]}", wanted, got)
            if at == len(text) or text[at] in walk.eos_token_ids:
                break
            total += float(weights[row, text[at]])
    return True


LAWS: tuple[Callable[[Walk], bool], ...] = (
    values,
    determinism,
    purity,
    candidates,
    adding,
    batching,
    taking,
    joining,
    several_steps,
    left_padding,
    neutrality,
    forbidden,
    telescoping,
)


def _follow(walk: Walk, law: str, state: Any, rows: list[int], start: int, where: str) -> None:
    """Step the walk's tokens of the rows from a state after `start` of them; weights must be the walk's."""
    for at in range(start, len(walk.states)):
        _same(walk, law, f"{where}, after {at} tokens", walk.weights[at][rows], walk.potential.log_weights(state))
        if at < walk.tokens.shape[1]:
            state = walk.potential.step(state, walk.tokens[rows, at])


def _check_values(potential: Potential[Any], rows: int, weights: Tensor, where: str) -> None:
    wanted = (rows, potential.size)
    if tuple(weights.shape) != wanted or weights.dtype != torch.float32:
        got = f"{tuple(weights.shape)} {weights.dtype}"
        raise _broken(potential, "values", where, f"log-weights {wanted} torch.float32", got)
    bad = weights.isnan() | weights.isposinf()
    if bool(bad.any()):
        row, token = (int(index) for index in bad.nonzero()[0])
        got = f"{float(weights[row, token])} at row {row}, token {token}"
        raise _broken(potential, "values", where, "numbers and −inf", got)


def _same(walk: Walk, law: str, where: str, wanted: Tensor, got: Tensor) -> None:
    got = got.detach().cpu()
    if wanted.shape != got.shape:
        raise _broken(walk.potential, law, where, f"shape {tuple(wanted.shape)}", f"shape {tuple(got.shape)}")
    close = torch.isclose(wanted, got, rtol=1e-4, atol=walk.tolerance)
    if not bool(close.all()):
        row, column = (int(index) for index in (~close).nonzero()[0])
        at = f"{where}, row {row} and column {column} of what was compared"
        hint = _HALF if bool((wanted.isfinite() == got.isfinite()).all()) else ""
        raise _broken(walk.potential, law, at, f"{float(wanted[row, column])}", f"{float(got[row, column])}", hint)


def _broken(potential: Potential[Any], law: str, where: str, wanted: str, got: str, hint: str = "") -> PotentialError:
    text = next(x.__doc__ or "" for x in LAWS if x.__name__ == law).strip()
    return PotentialError(
        f"{potential.describe()} breaks the law {law!r} ({text}) At {where}: wanted {wanted}, got {got}. Correct init, step or "
        f"log_weights so that the law holds{hint}"
    )
