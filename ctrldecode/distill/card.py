"""The card of a distilled model: what it is of, how good it is, how to make it again. Text in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctrldecode.distill.recipe import Recipe
    from ctrldecode.distill.run import Result

__all__ = ["card"]

_CARD = """\
# {name}

A hidden Markov model of {states} states over the {size:,} tokens of `{model}`, distilled with
`ctrldecode distill --recipe {name}.toml --out again.safetensors`. It is for lookahead: what it says of the rest of a text steers the
language model through the text.

| | |
|---|---|
| nats a token, held out | {held_out:.3f} |
| the language model itself, on the same texts | {language_model:.3f} |
| held-out texts | {tests:,} |
| training texts | {sequences:,} |
| tokens seen, all passes together | {tokens:,.0f} |
| emission matrix | {dtype} |
{curves}
Both figures are of texts that the language model wrote{temperature}. No model of {states} states comes near the language
model: it knows what kind of text it is in, and not what the text is about.

## Recipe

```toml
{recipe}```
"""


def card(name: str, recipe: Recipe, result: Result, *, curves: bool) -> str:
    """Markdown.

    Args:
        name: of the model's file, without its suffix; its recipe and curves are named alike.
        recipe: how it was made.
        result: what came out.
        curves: whether there is a picture of curves beside the card.
    """
    size, states = result.model.emission.shape
    return _CARD.format(
        name=name,
        states=states,
        size=size,
        model=recipe.model,
        held_out=result.held_out,
        language_model=result.language_model,
        tests=recipe.held_out,
        sequences=recipe.sequences,
        tokens=sum(record["tokens"] for record in result.records),
        dtype=recipe.dtype,
        curves=f"\n![Nats a token over tokens seen]({name}.png)\n" if curves else "",
        temperature="" if recipe.temperature == 1 else f" at temperature {recipe.temperature:g}",
        recipe=recipe.to_toml(),
    )
