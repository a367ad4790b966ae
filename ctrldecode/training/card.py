"""The card of a class LM: what it is of, how good it is, how to use it. Text in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctrldecode.training.codes import Codes
    from ctrldecode.training.run import Result
    from ctrldecode.training.trainer import Settings

__all__ = ["card"]

_CARD = """\
# {name}

A class-conditional language model of {classes}, made from `{base}` by `ctrldecode train class-lm` (GeDi, Krause et al. 2020). Behind the
code of a class it is a model of texts of that class, so by Bayes' rule it tells the class of a text that has begun, and guides
another model with the same tokens:

    P(c | x) = softmax_c( {scale:.4g} · mean log P(x_t | x_<t, c) + b_c )

| class | ids before the text | b |
|---|---|---|
{codes}

Scale, bias and codes stand under `gedi` in `config.json`.

## Held out

{texts:,} texts of {data}{known}. A figure is the mean over the classes, of which each counts equally. Scale and bias
were {fitted}.

| tokens read | accuracy | log loss, nats |
|---|---|---|
{figures}

Perplexity a token under a text's own code: {perplexity:.3f} ({nats:.4f} nats).

## Training

| | |
|---|---|
| texts | {trained:,} |
| λ, part of the generative loss | {mix:g} |
| part of the discriminative loss over prefixes | {prefixes:g} |
| updates | {updates:,} of {batch:,} texts, each behind every code |
| processes | {processes} |
| learning rate | {learning_rate:g} |
| positions at most | {max_length} |
| classes drawn equally often | {balance} |
| seed | {seed} |

It knows texts like those it was trained on. Labels of other texts are guesses, and a probability near 0 or 1 is no proof.
"""


def card(
    name: str,
    base: str,
    data: str,
    trained: int,
    codes: Codes,
    settings: Settings,
    result: Result,
) -> str:
    """Markdown.

    Args:
        name: of the folder.
        base: what it was made from.
        data: name of the file that held-out texts are from.
        trained: number of texts to train on.
        codes: the classes.
        settings: how it was trained.
        result: what came out.
    """
    posterior, figures = result.posterior, result.figures
    prefixes = zip(codes.names, codes.prefixes, posterior.bias, strict=True)
    rows = zip(figures.read, figures.accuracy, figures.log_loss, strict=True)
    return _CARD.format(
        name=name,
        base=base,
        data=data,
        classes=", ".join(codes.names),
        scale=posterior.scale,
        codes="\n".join(f"| {called} | {' '.join(map(str, ids))} | {bias:.3f} |" for called, ids, bias in prefixes),
        texts=figures.texts,
        known=_known(result.known, figures.texts),
        fitted=f"fitted to {result.fitted:,} other held-out texts" if result.fitted else "learned with the weights",
        figures="\n".join(f"| {read or 'all'} | {right:.3f} | {nats:.3f} |" for read, right, nats in rows),
        perplexity=figures.perplexity,
        nats=figures.nats,
        trained=trained,
        updates=result.updates,
        processes=result.processes,
        mix=settings.mix,
        prefixes=settings.prefixes,
        batch=settings.batch * result.processes,
        learning_rate=settings.learning_rate,
        max_length=settings.max_length,
        balance="yes" if settings.balance else "no",
        seed=settings.seed,
    )


def _known(known: int, texts: int) -> str:
    """Whether held-out texts are new to the model, behind their number."""
    if not known:
        return " that were not trained on"
    which = "all of which" if known == texts else f"{known:,} of which"
    return f", {which} were trained on, too, which flatters the figures"
