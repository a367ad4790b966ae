"""`ctrldecode hmm`: what an HMM is, how good it is, its other forms, and texts from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ctrldecode._resources import hmm_names
from ctrldecode.cli._command import OnceCommand
from ctrldecode.cli._corpora import read_texts
from ctrldecode.cli._input import MAX_SEED, filled
from ctrldecode.cli._options import ControlTokensOption

__all__ = ["app", "convert", "evaluate", "info", "list_hmms", "sample"]

app: typer.Typer = typer.Typer(
    help="HMMs that look ahead: list, inspect, measure, convert, sample.", no_args_is_help=False
)

_HMM = typer.Argument(parser=filled, help="A name of [b]hmm list[/b], or a file.", metavar="HMM")
_MODEL = typer.Option(
    parser=filled, help="Whose tokens: tinytales, a folder, or a model id.", show_default="the one it was made from"
)


class Dtype(StrEnum):
    """How an emission matrix is stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list", cls=OnceCommand)
def list_hmms() -> None:
    """List the HMMs that come with ctrldecode; NAME-H was made from the model NAME and has H states."""
    for name in hmm_names():
        print(name)


@app.command("info", cls=OnceCommand)
def info(
    hmm: Annotated[str, _HMM],
    model: Annotated[str | None, _MODEL] = None,
    show: Annotated[int, typer.Option(min=0, help="States shown, those most often visited first.")] = 8,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens shown of each state.")] = 8,
) -> None:
    """Show sizes, how it was made, and what its most visited states emit."""
    from ctrldecode.cli import _hmms

    found = _hmms.load(hmm)
    vocabulary = _hmms.vocabulary_for(found, hmm, model)
    print("\n".join([*_hmms.described(found, hmm), *_hmms.described_states(found, vocabulary, show, tokens)]))


@app.command("eval", cls=OnceCommand)
def evaluate(
    hmm: Annotated[str, _HMM],
    texts: Annotated[
        str, typer.Argument(parser=filled, help='A file with one text a line, or .jsonl with a "text" in each line.')
    ],
    model: Annotated[
        str | None,
        typer.Option(
            parser=filled, help="Score this model too; it is also whose tokens are meant.", show_default="HMM alone"
        ),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="What stands between the texts of a plain file.", show_default="end of line")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=1, help="The most tokens of a text, its end included.", show_default="64, or what the model reads"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most texts.")] = 1000,
    control_tokens: ControlTokensOption = False,
) -> None:
    """Measure nats a token on texts that it was not made from."""
    content = read_texts(texts, separator)[:limit]
    from ctrldecode.cli import _hmms

    found = _hmms.load(hmm)
    loaded = _hmms.model_for(found, hmm, model)
    most = _hmms.checked_length(loaded, length, scored=model is not None)
    ids = _hmms.encoded(loaded, content, most, control_tokens=control_tokens)
    count = sum(map(len, ids))
    log_probs = _hmms.log_probs(found, ids)
    impossible = sum(value == float("-inf") for value in log_probs)
    print(f"{len(ids)} text{'s' * (len(ids) != 1)}, {count} token{'s' * (count != 1)}")
    if impossible:
        print(f"HMM  infinitely many nats a token: {impossible} texts have probability 0 under it")
    else:
        print(f"HMM  {-sum(log_probs) / count:.4f} nats a token")
    if model is not None:
        print(f"{loaded.name}  {-sum(_hmms.model_log_probs(loaded, ids)) / count:.4f} nats a token")


@app.command("convert", cls=OnceCommand)
def convert(
    source: Annotated[
        str, typer.Argument(parser=filled, help="A name of [b]hmm list[/b], a file, or a folder of Ctrl-G or TRACE.")
    ],
    out: Annotated[str, typer.Argument(parser=filled, help="The file to write.")],
    dtype: Annotated[
        Dtype | None, typer.Option(help="How to store the emission.", show_default="as it is; of a folder, float32")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            parser=filled, help="The model that a folder's HMM was made from; the file then names its tokens."
        ),
    ] = None,
) -> None:
    """Store an HMM in another precision, or bring in a published one."""
    from pathlib import Path

    from ctrldecode.cli import _hmms
    from ctrldecode.cli._outputs import check_file

    check_file("OUT", out)
    if Path(source).is_dir():
        found = _hmms.imported(source, model)
    else:
        found = _hmms.load(source)
        if model is not None:
            _hmms.model_for(found, source, model)
    found = found if dtype is None else found.as_dtype(dtype.value)
    found.save(out)
    print(f"{out}: {found.states} states, {found.size} tokens, {found.dtype}, {Path(out).stat().st_size / 1e6:.1f} MB")


@app.command("sample", cls=OnceCommand)
def sample(
    hmm: Annotated[str, _HMM],
    num: Annotated[int, typer.Option(min=1, help="How many texts.")] = 10,
    length: Annotated[int, typer.Option(min=1, help="The most tokens of a text, its end included.")] = 64,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same texts.", show_default="drawn")
    ] = None,
    model: Annotated[str | None, _MODEL] = None,
) -> None:
    """Draw texts from the HMM alone; each is printed as a JSON string."""
    import json

    import numpy as np

    from ctrldecode.cli import _hmms

    found = _hmms.load(hmm)
    loaded = _hmms.model_for(found, hmm, model)
    for row in found.sample(num, length, np.random.default_rng(seed)).tolist():
        print(json.dumps(_hmms.text_of(loaded, row), ensure_ascii=False))
