"""`ctrldecode explain`: its options, and the files it writes. The work is in `_explaining`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctrldecode.cli._input import MAX_SEED, Parser, ParserOption, filled_path, read_text
from ctrldecode.cli._options import (
    AttributeOption,
    AvoidOption,
    ClassLmOption,
    ContainsOption,
    GrammarOption,
    GuideOption,
    HmmOption,
    ModelOption,
    StrengthOption,
    TemperatureOption,
    WordsOption,
)
from ctrldecode.cli._outputs import outputs, write
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from ctrldecode.cli._outputs import Output
    from ctrldecode.core.potential import Potential
    from ctrldecode.explain import Trace

__all__ = ["explain"]

_MAX_TOP = 1000  # candidates a step; a page of 128 steps is then some 20 MB


def explain(
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
    prompt: Annotated[str, typer.Option(help="Text to continue. [b]-[/b] reads it from standard input.")] = "",
    text: Annotated[
        str | None,
        typer.Option(
            help="Explain this continuation in place of a generated one, up to what makes it impossible. [b]-[/b] reads it "
            "from standard input."
        ),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="--text is the beginning of a text: do not ask whether it may end.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same text.", show_default="drawn")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, max=1024, help="Beam search of this width, in place of sampling.")] = 1,
    temperature: TemperatureOption = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Budget of tokens; a text under a grammar ends valid within it.")
    ] = 128,
    max_ignored: Annotated[
        int, typer.Option(min=0, help="Most bytes in a row that the grammar ignores, such as white space.")
    ] = 16,
    parser: ParserOption = Parser.AUTO,
    top: Annotated[int, typer.Option(min=1, max=_MAX_TOP, help="Candidates to show for each token.")] = 8,
    out: Annotated[
        Path,
        typer.Option(parser=filled_path, help="The page to write. [b]-[/b] writes it to standard output."),
    ] = Path("explain.html"),
    json: Annotated[
        Path | None,
        typer.Option("--json", parser=filled_path, help="Write the record as JSON, too; [b]-[/b] as for --out."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over files that are there; through links, which stay.")
    ] = False,
) -> None:
    """Write a page that tells, token by token, why a text came about, or why it cannot.

    Exit code 1: the text of --text is impossible, or the generation met a dead end; the page tells why.
    """
    page_to, *json_to = outputs([("--out", out), *([] if json is None else [("--json", json)])], force=force)
    if text is None and unfinished:
        raise InputError("--unfinished is said of --text; give the text, or leave it out")
    if text is not None and (beams > 1 or seed is not None):
        raise InputError("--text is explained as it is: leave --seed and --beams out, or --text to generate one")
    if prompt == "-" == text:
        raise InputError(
            "--prompt and --text both read standard input, which can be read once; give one of them as an argument"
        )
    continued, given = read_text(prompt), None if text is None else read_text(text)
    from ctrldecode.cli import _conditions, _decoding, _explaining, _models
    from ctrldecode.grammar.joint import JointPotential

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
    potential = conditions.potential(loaded, max_new_tokens, compiled, exact=beams > 1)

    def asked(factor: Potential[Any]) -> str:
        of_grammar = f"--grammar {shlex.quote(str(grammar))}"
        if isinstance(factor, JointPotential):
            return f"{of_grammar} {conditions.asked(factor)}"
        return of_grammar if factor is compiled else conditions.asked(factor)

    settings = _decoding.Settings(
        beams=beams,
        temperature=(1.0 if beams == 1 else 0.0) if temperature is None else temperature,
        max_new_tokens=max_new_tokens,
    )
    with _decoding.seeded(seed):
        if given is None:
            found = _explaining.of_generated(loaded, continued, settings, potential, top, seed, asked)
        else:
            found = _explaining.of_text(loaded, continued, given, settings, potential, top, asked, whole=not unfinished)
    _write(found, page_to, *json_to)
    if found.ending in ("forbidden", "dead end"):
        raise typer.Exit(1)


def _write(found: Trace, page_to: Output, json_to: Output | None = None) -> None:
    from ctrldecode.explain import page, to_json, verdict

    contents = [(page_to, page(found)), *([] if json_to is None else [(json_to, to_json(found) + "\n")])]
    write(contents)
    # Where a page or a record goes to standard output, nothing else shall stand there.
    told = sys.stderr if any(output.path is None for output, _ in contents) else sys.stdout
    for output, _ in contents:
        if output.path is not None:
            print(f"wrote {output.name}", file=told)
    print(verdict(found), file=told)
