"""`ctrldecode generate`: its options, and how texts are printed. The work is in `_decoding`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrldecode.cli._input import MAX_SEED, Parser, ParserOption, read_text
from ctrldecode.cli._options import (
    AttributeOption,
    AvoidOption,
    ClassLmOption,
    ContainsOption,
    GrammarOption,
    GuideOption,
    HmmOption,
    ModelOption,
    PromptOption,
    StrengthOption,
    TemperatureOption,
    WordsOption,
)
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctrldecode.cli._conditions import Conditions
    from ctrldecode.cli._decoding import Generated, Settings
    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential

__all__ = ["generate"]

# Every beam is a row of the model's batch with a cache of its own, of megabytes in a large model.
_MAX_BEAMS = 1024
_MAX_PARTICLES = 4096  # each a row, too; a small model on a CPU takes some seconds a token for so many


def generate(
    model: ModelOption = "tinytales",
    grammar: GrammarOption = None,
    contains: ContainsOption = None,
    avoid: AvoidOption = None,
    words: WordsOption = None,
    attribute: AttributeOption = None,
    hmm: HmmOption = None,
    guide: GuideOption = None,
    class_lm: ClassLmOption = None,
    strength: StrengthOption = None,
    prompt: PromptOption = None,
    num: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same texts.", show_default="drawn")
    ] = None,
    beams: Annotated[
        int, typer.Option(min=1, max=_MAX_BEAMS, help="Beam search of this width, in place of sampling.")
    ] = 1,
    particles: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MAX_PARTICLES,
            help="Sequential Monte Carlo of so many texts that grow side by side, from which texts are drawn by weight.",
        ),
    ] = None,
    likeliest: Annotated[
        bool, typer.Option("--likeliest", help="Of the particles, take those that the model likes best.")
    ] = False,
    temperature: TemperatureOption = None,
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
    if beams == 1 and num > 1 and temperature == 0:
        raise InputError(
            f"{num} texts were wanted at temperature 0, where there is one; for the likeliest texts add --beams {num}, for others "
            "give a temperature above 0"
        )
    _check_particles(particles, likeliest=likeliest, num=num, beams=beams, temperature=temperature)
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
    conditions = _conditions.Conditions.of(
        contains=contains,
        avoid=avoid,
        words=words,
        attributes=attribute,
        hmm=hmm,
        strength=strength,
        guides=guide,
        class_lm=class_lm,
    )
    compiled = None if grammar is None else loaded.compile(grammar, max_ignored, parser)
    if particles is not None:
        _grow(loaded, prompts, settings, conditions, compiled, particles, likeliest=likeliest, jsonl=jsonl, seed=seed)
        return
    potential = conditions.potential(loaded, max_new_tokens, compiled, exact=beams > 1)
    settings = settings._replace(restricted=conditions.hard)
    live = num == 1 and beams == 1 and not jsonl
    with _decoding.seeded(seed):
        for text in prompts:
            if live and sys.stdout.isatty():
                typer.secho(text, dim=True, nl=False)
            stream = _decoding.Stream(loaded, _write) if live else None
            results = _decoding.decode(loaded, text, settings, potential, stream)
            _print(results, jsonl=jsonl, live=live)


def _check_particles(
    particles: int | None, *, likeliest: bool, num: int, beams: int, temperature: float | None
) -> None:
    if particles is None:
        if likeliest:
            raise InputError("--likeliest chooses among particles; give --particles, or --beams for beam search")
    elif beams > 1 or temperature == 0:
        raise InputError("--particles samples: leave --beams out, and give a temperature above 0")
    elif likeliest and num > particles:
        raise InputError(f"{num} texts were wanted of {particles} particles; ask for as many particles as texts")


def _grow(
    loaded: Loaded,
    prompts: list[str],
    settings: Settings,
    conditions: Conditions,
    grammar: Potential[Any] | None,
    particles: int,
    *,
    likeliest: bool,
    jsonl: bool,
    seed: int | None,
) -> None:
    """Texts by sequential Monte Carlo."""
    from ctrldecode.cli import _decoding, _particles

    potential, twist = conditions.target(loaded, settings.max_new_tokens, grammar)
    if potential is None:
        raise InputError(
            "--particles are resampled by how well they satisfy something; give --grammar, --contains, --avoid, --words, --attribute or --guide"
        )
    with _decoding.seeded(seed):
        for text in prompts:
            found = _particles.grow(loaded, text, settings, particles, potential, twist, likeliest=likeliest)
            _print(found, jsonl=jsonl, live=False)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print(results: Iterator[Generated], *, jsonl: bool, live: bool) -> None:
    for result in results:
        if jsonl:
            _write(json.dumps(result._asdict(), ensure_ascii=False) + "\n")
        else:
            _write("\n" if live else result.text + "\n")
