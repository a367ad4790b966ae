"""`ctrldecode generate`: its options, and how texts are printed. The work is in `_decoding`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ctrldecode.cli._input import MAX_SEED, Parser, ParserOption, read_text
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctrldecode.cli._decoding import Generated

__all__ = ["generate"]

# Every beam is a row of the model's batch with a cache of its own, of megabytes in a large model.
_MAX_BEAMS = 1024
# At the coldest a logit that is smaller by one counts e^100 times less, which is as good as 0; much colder, and logits over
# temperature overflow. At the hottest logits some tens apart differ by less than one: a choice that is nearly uniform.
_COLDEST, _HOTTEST = 0.01, 100.0


def _temperature(value: float | None) -> float | None:
    """Accept 0 and the temperatures that can be told from the extremes; nan is none of them."""
    if value is None or value == 0 or _COLDEST <= value <= _HOTTEST:
        return value
    raise typer.BadParameter(f"{value:g} is neither 0, for the likeliest token, nor in {_COLDEST:g} to {_HOTTEST:g}.")


def generate(
    model: Annotated[
        str, typer.Option(help="tinytales (comes with ctrldecode), a folder, or a model id of the Hugging Face hub.")
    ] = "tinytales",
    grammar: Annotated[
        str | None,
        typer.Option(help="Every text is one of this grammar: a name of [b]grammar list[/b], or a lark file."),
    ] = None,
    contains: Annotated[
        list[str] | None,
        typer.Option(
            help="A word or phrase that must stand in every text; may be given several times. Alternatives are parted by |: "
            "[b]dog|dogs[/b]."
        ),
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(help="A word or phrase that must stand in no text; may be given several times."),
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="How many words: [b]25[/b], [b]20:30[/b], [b]20:[/b] or [b]:30[/b].")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            help="What texts shall lean towards: [b]happy[/b], or a file of [b]fit-attribute[/b]; may be given several times."
        ),
    ] = None,
    hmm: Annotated[
        str | None,
        typer.Option(
            help="What looks ahead for the options above: a name of [b]hmm list[/b], or a file of [b]distill[/b]; "
            "[b]none[/b] masks only.",
            show_default="the one that comes with the model",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1000,
            help="How hard the lookahead pulls: its exponent.",
            show_default="1.25, or 1 with beams and for attributes alone",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Text to continue; may be given several times. [b]-[/b] reads it from standard input."),
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same texts.", show_default="drawn")
    ] = None,
    beams: Annotated[
        int, typer.Option(min=1, max=_MAX_BEAMS, help="Beam search of this width, in place of sampling.")
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            callback=_temperature,
            help=f"0, which takes the likeliest token, or {_COLDEST:g} to {_HOTTEST:g}; applied to the model before the "
            "grammar. With beams: beam sampling.",
            show_default="1, and 0 with beams",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Budget of tokens; a text under a grammar ends valid within it.")
    ] = 128,
    max_ignored: Annotated[
        int, typer.Option(min=0, help="Most bytes in a row that the grammar ignores, such as white space.")
    ] = 16,
    parser: ParserOption = Parser.AUTO,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object a line: text, tokens, log_prob, log_weight.")
    ] = False,
) -> None:
    """Generate texts, under a grammar and other conditions if there are any."""
    if 1 < beams < num:
        raise InputError(f"{num} texts were wanted from {beams} beams; ask for as many beams as texts")
    prompts = [read_text(text) for text in prompt or [""]]
    from ctrldecode.cli import _conditions, _decoding, _models

    settings = _decoding.Settings(
        num=num,
        beams=beams,
        temperature=(1.0 if beams == 1 else 0.0) if temperature is None else temperature,
        max_new_tokens=max_new_tokens,
        score=jsonl,
    )
    loaded = _models.load(model)
    conditions = _conditions.Conditions(
        contains=tuple(contains or ()),
        avoid=tuple(avoid or ()),
        words=words,
        attributes=tuple(attribute or ()),
        hmm=hmm,
        strength=strength,
    )
    potential = conditions.potential(loaded, max_new_tokens, exact=beams > 1)
    if grammar is not None:
        compiled = loaded.compile(grammar, max_ignored, parser)
        potential = compiled if potential is None else compiled * potential
    live = num == 1 and beams == 1 and not jsonl
    with _decoding.seeded(seed):
        for text in prompts:
            if live and sys.stdout.isatty():
                typer.secho(text, dim=True, nl=False)
            stream = _decoding.Stream(loaded, _write) if live else None
            results = _decoding.decode(loaded, text, settings, potential, stream)
            _print(results, jsonl=jsonl, live=live)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print(results: Iterator[Generated], *, jsonl: bool, live: bool) -> None:
    for result in results:
        if jsonl:
            _write(json.dumps(result._asdict(), ensure_ascii=False) + "\n")
        else:
            _write("\n" if live else result.text + "\n")
