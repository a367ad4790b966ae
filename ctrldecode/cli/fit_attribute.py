"""`ctrldecode fit-attribute`: labelled texts to the weights of an attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrldecode.cli._corpora import read_labelled
from ctrldecode.cli._input import MAX_SEED, filled
from ctrldecode.cli._options import ControlTokensOption

if TYPE_CHECKING:
    from ctrldecode.cli._models import Loaded
    from ctrldecode.hmm.attributes import AttributeWeights

__all__ = ["fit_attribute"]

_CHUNK = 256  # texts between two looks at the progress bar


def fit_attribute(
    data: Annotated[
        str,
        typer.Option(
            parser=filled,
            help='JSON lines: {"text": ..., "label": 0 or 1}, or {"text": ..., "score": 0 to 1}, the probability of the attribute.',
        ),
    ],
    out: Annotated[str, typer.Option(parser=filled, help="The file to write, such as calm.safetensors.")],
    model: Annotated[
        str, typer.Option(parser=filled, help="Whose tokens: tinytales, a folder, or a model id.")
    ] = "tinytales",
    name: Annotated[
        str | None, typer.Option(help="What messages call the attribute.", show_default="the file's name")
    ] = None,
    invert: Annotated[
        bool, typer.Option("--invert", help="Fit the opposite, 1 − score: for an attribute to be avoided.")
    ] = False,
    holdout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the texts to measure on.")] = 0.2,
    penalty: Annotated[
        float | None,
        typer.Option(min=1e-6, help="How strongly weights are kept at 1.", show_default="chosen by held-out loss"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Chooses the texts that are held out.")] = 0,
    control_tokens: ControlTokensOption = False,
) -> None:
    """Fit the weights of an attribute to labelled texts; they are what [b]generate --attribute[/b] takes."""
    from pathlib import Path

    import numpy as np

    from ctrldecode.cli import _models
    from ctrldecode.cli._outputs import check_file
    from ctrldecode.hmm.attributes import AttributeWeights

    check_file("--out", out)
    texts, scores = read_labelled(data)
    loaded = _models.load(model)
    ids = _encoded(loaded, texts, control_tokens=control_tokens)
    wanted = [1 - score for score in scores] if invert else scores
    called = name or (f"not {Path(out).stem}" if invert and not name else Path(out).stem)
    fitted = AttributeWeights.fit(
        ids,
        wanted,
        loaded.vocabulary,
        rng=np.random.default_rng(seed),
        name=called,
        penalty=penalty,
        holdout=holdout,
    )
    made = {"data": Path(data).name, "model": model, "inverted": invert, "seed": seed, **fitted.metadata}
    fitted = fitted.with_metadata(made)
    fitted.save(out)
    print(_summary(fitted, loaded, out))


def _encoded(loaded: Loaded, texts: list[str], *, control_tokens: bool) -> list[list[int]]:
    """Ids of texts; see `Loaded.encoded`."""
    from ctrldecode.cli._progress import track

    ids: list[list[int]] = []
    for start in track(range(0, len(texts), _CHUNK), "reading texts"):
        some = texts[start : start + _CHUNK]
        ids += loaded.encoded(some, control_tokens=control_tokens, first=start + 1)
    return ids


def _summary(fitted: AttributeWeights, loaded: Loaded, out: str) -> str:
    made = fitted.metadata
    lightest = fitted.values.argsort()[:10].tolist()
    tokens = [loaded.vocabulary.tokens[token] or b"" for token in lightest if fitted.values[token] < 1]
    lines = [
        f"{out}: {fitted.name}, {made['weighted']} of {fitted.size} tokens weigh less than 1 (penalty {made['penalty']:g})",
        f"lightest  {' '.join(repr(token)[1:] for token in tokens)}",
    ]
    return "\n".join(lines + _figures(made["held_out"], made["texts"]))


def _figures(held_out: dict[str, Any] | None, fitted: int) -> list[str]:
    if held_out is None:
        return [f"fitted to  {fitted} texts, none held out"]
    shown = {name: "not defined" if value is None else f"{value:.3f}" for name, value in held_out.items()}
    return [
        f"held out  {held_out['texts']} texts, {fitted} fitted to",
        f"accuracy  {shown['accuracy']}",
        f"AUC  {shown['auc']}",
        f"correlation  {shown['correlation']}",
        f"log loss  {shown['log_loss']} nats a text, {shown['log_loss_of_mean']} for the best constant",
    ]
