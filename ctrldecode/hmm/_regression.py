"""The log-linear regression of scores on counts of tokens, with the sign constraint that makes it an HMM's weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.stats import rankdata

from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["Fit", "figures", "fit"]

# p stays below 0.99, so that a text of score 0 without a single weighted token, a mistake in the labels perhaps, costs 4.6 nats
# and does not outweigh hundreds of others. Of 1e-3, 1e-2 and 5e-2 this had the least held-out loss on moods of stories.
_HIGHEST_LOG_BIAS = -1e-2
# A weight of 5e-5 decides a text alone; below it lies what an automaton should forbid.
_LOWEST_LOG_WEIGHT = -10.0
# Rates of the prior that are tried: from one at which a word of a single text counts to one that leaves a handful of words.
_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
_CHECKED_SHARE = 0.25  # of the texts that are fitted, to choose among the rates
_MAX_ITERATIONS = 2_000
# A relative change of the loss by 1e-10 moves no figure that is reported; 20 pairs of gradients cost less than a look at the texts.
_OPTIONS = {"maxiter": _MAX_ITERATIONS, "maxfun": 4 * _MAX_ITERATIONS, "ftol": 1e-10, "gtol": 1e-9, "maxcor": 20}


class Fit(NamedTuple):
    """A fitted attribute.

    Attributes:
        log_weights: (V,) float64, at most 0.
        log_bias: at most 0.
        report: what was fitted and how well, as JSON can hold it.
    """

    log_weights: NDArray[np.float64]
    log_bias: float
    report: dict[str, Any]


def fit(
    tokens: Sequence[Sequence[int]],
    scores: Sequence[float],
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    penalty: float | None,
    holdout: float,
) -> Fit:
    """Fit to a random part of the texts, and measure on the rest; see `AttributeWeights.fit`."""
    wanted = _checked_scores(scores, len(tokens))
    if not 0 <= holdout < 1:
        raise InputError(f"holdout must lie in [0, 1), got {holdout}; it is the share of the texts to measure on")
    if penalty is not None and not 0 < penalty < math.inf:
        raise InputError(
            f"penalty must be a finite number above 0, or None, got {penalty}; None chooses one by held-out loss"
        )
    counts = _counts(tokens, vocabulary)
    order = rng.permutation(len(wanted))
    held = round(holdout * len(wanted))
    test, train = order[:held], order[held:]
    _check_variety(wanted[train])
    if penalty is None:
        penalty = _chosen_penalty(counts[train], wanted[train], vocabulary.size)
    log_weights, log_bias, iterations = _minimised(counts[train], wanted[train], penalty, vocabulary.size)
    report = {
        "texts": len(train),
        "penalty": penalty,
        "weighted": int((log_weights < 0).sum()),
        "iterations": iterations,
        "held_out": figures(counts[test] @ log_weights + log_bias, wanted[test]) if held else None,
    }
    return Fit(log_weights, log_bias, report)


def _chosen_penalty(counts: csr_array, scores: NDArray[np.float64], size: int) -> float:
    """The rate at which a fit to the first part of the texts predicts the rest best; they come in random order."""
    cut = len(scores) - round(_CHECKED_SHARE * len(scores))
    losses = dict.fromkeys(_PENALTIES, 0.0)
    if np.ptp(scores[:cut]) == 0 or cut == len(scores):  # too few texts to choose by
        return _PENALTIES[0]
    for penalty in _PENALTIES:
        log_weights, log_bias, _ = _minimised(counts[:cut], scores[:cut], penalty, size)
        losses[penalty] = _log_loss(np.exp(counts[cut:] @ log_weights + log_bias), scores[cut:])
    return min(losses, key=losses.__getitem__)


def figures(log_probs: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, float | int | None]:
    """How well log-probabilities (N,) predict scores (N,)."""
    probs, mean = np.exp(log_probs), scores.mean()
    constant = np.full_like(scores, mean)
    return {
        "texts": len(scores),
        "log_loss": _log_loss(probs, scores),
        "log_loss_of_mean": _log_loss(constant, scores),
        "auc": _auc(probs, scores >= 0.5),
        "correlation": _correlation(probs, scores),
        "accuracy": float(((probs >= 0.5) == (scores >= 0.5)).mean()),
    }


def _minimised(
    counts: csr_array, scores: NDArray[np.float64], penalty: float, size: int
) -> tuple[NDArray[np.float64], float, int]:
    """log w (V,), b and the steps it took: L-BFGS-B, since the bounds make the L1 term linear and the loss smooth."""
    used = np.flatnonzero(counts.sum(0))
    # Frequent tokens curve the loss more than rare ones; divided by their norms they need a tenth of the steps.
    norms = np.sqrt(counts.multiply(counts).sum(0))[used]
    unit = norms / norms.mean() if len(used) else norms
    inner = counts[:, used].multiply(1 / unit).tocsr()
    outer = inner.T.tocsr()

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_probs = inner @ parameters[:-1] + parameters[-1]
        value = -(scores * log_probs + (1 - scores) * np.log(-np.expm1(log_probs))).sum()
        slope = (scores - 1) * np.exp(log_probs) / np.expm1(log_probs) - scores  # d log(1 − e^u)/du = e^u / (e^u − 1)
        gradient = np.append(outer @ slope - penalty / unit, slope.sum())
        return (value - penalty * (parameters[:-1] / unit).sum()) / len(scores), gradient / len(scores)

    start = np.zeros(len(used) + 1)
    start[-1] = min(np.log(scores.mean()), _HIGHEST_LOG_BIAS)
    bounds = [(_LOWEST_LOG_WEIGHT * width, 0.0) for width in unit] + [(None, _HIGHEST_LOG_BIAS)]
    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_OPTIONS)
    if found.nit >= _MAX_ITERATIONS:
        raise InputError(f"the fit did not converge in {_MAX_ITERATIONS} steps; raise the penalty above {penalty:g}")
    log_weights = np.zeros(size)
    log_weights[used] = found.x[:-1] / unit
    return log_weights, float(found.x[-1]), int(found.nit)


def _counts(tokens: Sequence[Sequence[int]], vocabulary: Vocabulary) -> csr_array:
    """(N, V) how often each token that has a text occurs in each text."""
    lengths = [len(row) for row in tokens]
    columns = np.fromiter((token for row in tokens for token in row), np.int64, sum(lengths))
    if len(columns) and not 0 <= columns.min() <= columns.max() < vocabulary.size:
        raise InputError(
            f"token ids must lie in 0 to {vocabulary.size - 1}, got {columns.min()} to {columns.max()}; use the model's own "
            "tokenizer"
        )
    textual = np.array([token is not None for token in vocabulary.tokens])
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return csr_array((textual[columns].astype(np.float64), (rows, columns)), shape=(len(lengths), vocabulary.size))


def _check_variety(scores: NDArray[np.float64]) -> None:
    if len(scores) < 2 or np.ptp(scores) == 0:
        what = f"have the score {scores[0]:g}" if len(scores) else "are held out"
        raise InputError(f"all texts to be fitted {what}; wanted texts with the attribute and texts without it")


def _checked_scores(scores: Sequence[float], texts: int) -> NDArray[np.float64]:
    wanted = np.asarray(scores, np.float64)
    if wanted.shape != (texts,) or texts < 2:
        raise InputError(f"wanted at least 2 texts and one score for each, got {texts} texts and {wanted.size} scores")
    bad = np.flatnonzero(~((wanted >= 0) & (wanted <= 1)))
    if len(bad):
        raise InputError(
            f"the score of text {bad[0]} is {wanted[bad[0]]:g}, wanted a number in [0, 1]; labels are 0 and 1"
        )
    return wanted


def _log_loss(probs: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Mean cross-entropy in nats; 0 · log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(scores > 0, scores * np.log(probs), 0.0)
        miss = np.where(scores < 1, (1 - scores) * np.log1p(-probs), 0.0)
    return float(-(hit + miss).mean())


def _auc(probs: NDArray[np.float64], labels: NDArray[np.bool_]) -> float | None:
    """The chance that a text with the attribute ranks above one without it, ties counting half (Mann-Whitney)."""
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return None
    return float((rankdata(probs)[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _correlation(probs: NDArray[np.float64], scores: NDArray[np.float64]) -> float | None:
    if len(probs) < 2 or np.ptp(probs) == 0 or np.ptp(scores) == 0:
        return None
    return float(np.corrcoef(probs, scores)[0, 1])
