"""Options that several commands have, word for word."""

from __future__ import annotations

from typing import Annotated

import typer

from ctrldecode.cli._input import filled

__all__ = [
    "AttributeOption",
    "AvoidOption",
    "ClassLmOption",
    "ContainsOption",
    "ControlTokensOption",
    "GrammarOption",
    "GuideOption",
    "HmmOption",
    "ModelOption",
    "PromptOption",
    "StrengthOption",
    "TemperatureOption",
    "WordsOption",
]

# At the coldest a logit that is smaller by one counts e^100 times less, which is as good as 0; much colder, and logits over
# temperature overflow. At the hottest logits some tens apart differ by less than one: a choice that is nearly uniform.
_COLDEST, _HOTTEST = 0.01, 100.0


def _temperature(value: float | None) -> float | None:
    """Accept 0 and the temperatures that can be told from the extremes; nan is none of them."""
    if value is None or value == 0 or _COLDEST <= value <= _HOTTEST:
        return value
    raise typer.BadParameter(f"{value:g} is neither 0, for the likeliest token, nor in {_COLDEST:g} to {_HOTTEST:g}.")


ModelOption = Annotated[
    str,
    typer.Option(
        parser=filled, help="tinytales (comes with ctrldecode), a folder, or a model id of the Hugging Face hub."
    ),
]
GrammarOption = Annotated[
    str | None,
    typer.Option(
        parser=filled, help="Every text is one of this grammar: a name of [b]grammar list[/b], or a lark file."
    ),
]
ContainsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A word or phrase that must stand in every text; may be given several times. Alternatives are parted by |: "
        "[b]dog|dogs[/b]."
    ),
]
AvoidOption = Annotated[
    list[str] | None,
    typer.Option(help="A word or phrase that must stand in no text; may be given several times."),
]
WordsOption = Annotated[
    str | None, typer.Option(help="How many words: [b]25[/b], [b]20:30[/b], [b]20:[/b] or [b]:30[/b].")
]
AttributeOption = Annotated[
    list[str] | None,
    typer.Option(
        parser=filled,
        help="What texts shall lean towards: [b]happy[/b], [b]sad[/b], or a file of [b]fit-attribute[/b]; may be given several times.",
    ),
]
GuideOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A class that texts shall lean towards, and how strongly: [b]happy=30[/b]; may be given several times."
    ),
]
ClassLmOption = Annotated[
    str | None,
    typer.Option(
        parser=filled,
        help="What tells classes apart for --guide: a folder of [b]train class-lm[/b], or a model id.",
        show_default="the one that comes with the model",
    ),
]
ControlTokensOption = Annotated[
    bool,
    typer.Option(
        "--control-tokens",
        help="Read what spells a control token, such as <|sad|>, as that token, as in texts that a model wrote; without, it is letters.",
    ),
]
HmmOption = Annotated[
    str | None,
    typer.Option(
        parser=filled,
        help="What looks ahead for the options above: a name of [b]hmm list[/b], or a file of [b]distill[/b]; "
        "[b]none[/b] masks only.",
        show_default="the one that comes with the model",
    ),
]
PromptOption = Annotated[
    list[str] | None,
    typer.Option(help="Text to continue; may be given several times. [b]-[/b] reads it from standard input."),
]
StrengthOption = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1000,
        help="How hard the lookahead pulls: its exponent.",
        show_default="1",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        callback=_temperature,
        help=f"0, which takes the likeliest token, or {_COLDEST:g} to {_HOTTEST:g}; applied to the model before the "
        "grammar. With beams: beam sampling.",
        show_default="1, and 0 with beams",
    ),
]
