"""`ctrldecode sample`: its options, what it prints, and the report. The samplers do the work."""

from __future__ import annotations

import json
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
    PromptOption,
    WordsOption,
)
from ctrldecode.errors import InputError

if TYPE_CHECKING:
    from ctrldecode.cli._sampling import Run

__all__ = ["sample"]

_INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C
_METHODS = ("importance", "asap", "cars", "rejection", "smc", "branching", "mcmc")


def _method(value: str) -> str:
    if value in _METHODS:
        return value
    raise typer.BadParameter(f"{value!r} is none of {', '.join(_METHODS)}.")


def sample(
    method: Annotated[
        str,
        typer.Option(
            callback=_method, help=f"One of {', '.join(_METHODS)}; [b]cars[/b] is exact, [b]importance[/b] cheapest."
        ),
    ] = "importance",
    model: ModelOption = "tinytales",
    grammar: GrammarOption = None,
    contains: ContainsOption = None,
    avoid: AvoidOption = None,
    words: WordsOption = None,
    attribute: AttributeOption = None,
    hmm: HmmOption = None,
    guide: GuideOption = None,
    class_lm: ClassLmOption = None,
    prompt: PromptOption = None,
    num: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 100,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Budget of tokens of each text.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.01, max=100, help="Of the model that is sampled.")] = 1.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Same seed, same texts.", show_default="drawn")
    ] = None,
    max_lm_calls: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many next-token distributions; keep what there is.")
    ] = None,
    moves: Annotated[int, typer.Option(min=0, help="Moves of each chain of [b]mcmc[/b].")] = 20,
    trie: Annotated[
        Path | None,
        typer.Option(
            parser=filled_path,
            help="Where [b]asap[/b] and [b]cars[/b] go on from what they learned, if it exists, and keep it.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Enumerate every text and measure distances; for small problems.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(parser=filled_path, help="A folder for samples.jsonl, metrics.json and plots; made if need be."),
    ] = None,
    max_ignored: Annotated[int, typer.Option(min=0, help="Most bytes in a row that the grammar ignores.")] = 16,
    parser: ParserOption = Parser.AUTO,
) -> None:
    """Sample texts under conditions, each with the weight that says how the method distorts the model's distribution."""
    if trie is not None and method not in {"asap", "cars"}:
        raise InputError(f"--trie is of asap and cars, which learn; {method} learns nothing")
    prompts = [read_text(text) for text in prompt or [""]]
    from ctrldecode.cli import _conditions, _models, _sampling

    loaded = _models.load(model)
    conditions = _conditions.Conditions.of(
        contains=contains,
        avoid=avoid,
        words=words,
        attributes=attribute,
        hmm=hmm,
        guides=guide,
        class_lm=class_lm,
    )
    compiled = None if grammar is None else loaded.compile(grammar, max_ignored, parser)
    potential, twist = conditions.target(loaded, max_new_tokens, compiled)
    if potential is None:
        raise InputError(
            "there is nothing to sample under: give --grammar, --contains, --avoid, --words, --attribute or --guide; plain samples of the model come "
            "from ctrldecode generate"
        )
    task = _sampling.Task(method, num, max_new_tokens, temperature, seed, max_lm_calls, moves, trie, exact)
    if report is not None:
        _sampling.prepare(report)
    runs: list[Run] = []
    for text in prompts:
        runs.append(_sampling.run(loaded, text, task, potential, twist))
        _print(runs[-1], alone=len(prompts) == 1)
        if runs[-1].samples.stopped == "interrupted":
            break
    if report is not None:
        _sampling.write(report, task, runs)
        print(f"report: {report}", file=sys.stderr)
    if runs[-1].samples.stopped == "interrupted":
        raise typer.Exit(_INTERRUPTED)


def _print(run: Run, *, alone: bool) -> None:
    """Texts on standard output, a JSON object a line; figures on standard error."""
    for record in run.records():
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    figures: dict[str, Any] = run.metrics()
    head = "" if alone else f"{run.prompt!r}: "
    told = [f"{figures['texts']} texts, {figures['distinct']} different", f"ESS {figures['ess']:.1f}"]
    told.append(f"log Z {figures['log_z']:.3f} (between {figures['lower']:.3f} and {figures['upper']:.3f})")
    told.append(f"{figures['lm_calls']} model calls in {figures['seconds']:.1f} s")
    if "acceptance" in figures:
        told.append(f"{figures['acceptance']:.1%} accepted")
    if "kl" in figures:
        told.append(f"KL {figures['kl'][0]:.4f}, total variation {figures['total_variation'][0]:.4f} from the target")
    if figures["stopped"]:
        told.append(f"stopped: {figures['stopped']}")
    print(head + "; ".join(told), file=sys.stderr)
