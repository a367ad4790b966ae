"""A record as one page of HTML that needs nothing else: style, script and data stand in it, and it asks no server for anything.

What is read without scripts (text, steps, charts) is written here; the details of a token are filled in by `page.js`.
"""

from __future__ import annotations

import math
import re
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from ctrldecode.explain._charts import charts
from ctrldecode.explain._show import number, percentage, visible
from ctrldecode.explain._verdict import titled, verdict
from ctrldecode.explain.record import to_json

if TYPE_CHECKING:
    from ctrldecode.explain.record import Factor, Step, Trace

__all__ = ["page"]

# Lower bounds on the share of the model's probability that a step moved (`Step.moved`), by the class of the chip, largest first.
_MOVED = {"most": 0.95, "much": 0.5, "little": 0.01}
# What a file of HTML cannot hold: a character of code 0, and halves of pairs of UTF-16, which UTF-8 has no bytes for.
_NO_CHARACTERS = re.compile("[\0\ud800-\udfff]")
# With units: % are probabilities, nat natural logarithms.
_COLUMNS = (
    "model, %",
    "chosen with, %",
    "masked, tokens",
    "masked, % of the model",
    "moved, % of the model",
    "log-weight, nat",
    "log-weight so far, nat",
)
_LEGEND = {
    "none": "at most 1 % of the model’s probability moved",
    "little": "up to half of the model’s probability moved",
    "much": "more than half of the model’s probability moved",
    "most": "more than 95 % of the model’s probability moved",
    "forbidden": "impossible",
}


def page(trace: Trace) -> str:
    """The page, a whole document. What HTML cannot hold (code 0, surrogates) is shown as U+FFFD.

    Args:
        trace: of `ctrldecode.explain.trace`.

    Example:
        >>> from ctrldecode.explain import Trace
        >>> page(Trace("Once", "", "open", (), ())).splitlines()[0]
        '<!DOCTYPE html>'
    """
    heading = "Why this text cannot be" if trace.ending in ("forbidden", "dead end") else "How this text came about"
    made = Template(_part("page.html")).substitute(
        title=escape(f"{heading}: {visible(trace.text.encode(errors='replace'))[:60]}"),
        style=_part("page.css").strip(),
        heading=heading,
        ending=trace.ending.replace(" ", "-"),
        verdict=escape(verdict(trace)),
        settings="".join(f"<div><dt>{escape(s.name)}</dt><dd>{escape(s.value)}</dd></div>" for s in trace.settings),
        prompt=f"Behind the prompt: {escape(trace.prompt)}" if trace.prompt else "Without a prompt",
        potentials=_potentials(trace),
        plain=_plain(trace.text),
        chips="".join(map(_chip, range(len(trace.steps)), trace.steps)),
        legend=_legend(),
        charts=charts(trace),
        table=_table(trace),
        data=_data(trace),
        script=_part("page.js").strip(),
    )
    return _NO_CHARACTERS.sub("\ufffd", made)


@cache
def _part(name: str) -> str:
    """A file that stands beside this one in the package."""
    return files("ctrldecode.explain").joinpath(name).read_text(encoding="utf-8")


def _data(trace: Trace) -> str:
    """JSON that cannot end the script it stands in, whatever tokens spell."""
    text = to_json(trace)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(text: str) -> str:
    """A text inside `pre`, which takes a line break at its beginning away, and makes one kind of all."""
    return "\n" + escape(text).replace("\r", "&#13;")


def _potentials(trace: Trace) -> str:
    """What was asked for, factor by factor."""
    if not trace.factors:
        return "<p>None: the model alone.</p>"
    items = "".join(f"<li>{_heading(factor)}</li>" for factor in trace.factors)
    return f'<ol class="potentials">{items}</ol>'


def _heading(factor: Factor) -> str:
    """A factor with its options, each of which stays in one line where it can."""
    options = [one for one in re.split(r" (?=--)", factor.asked) if one]
    asked = "".join(f' <code translate="no">{escape(one)}</code>' for one in options)
    kind = "" if factor.kind in factor.name else f" ({escape(factor.kind)})"
    return f"{escape(titled(factor))}{kind}{':' if asked else ''}{asked}"


def _word(step: Step) -> str:
    token = step.token
    return "none" if token is None else f'<span class="token {token.kind}" translate="no">{escape(token.text)}</span>'


def _class(step: Step) -> str:
    """What was done at a step, as the class of its chip."""
    if step.log_normaliser == -math.inf or step.log_final == -math.inf:
        return "forbidden"
    return next((name for name, bound in _MOVED.items() if step.moved > bound), "none")


def _chip(at: int, step: Step) -> str:
    """A token in the row of tokens; behind one that ends a line the row breaks."""
    kind, text = ("text", "∅") if step.token is None else (step.token.kind, escape(step.token.text))
    title = f"{percentage(_log(step.moved))} % moved"
    last = '<span class="break" role="presentation"></span>' if text.endswith("⏎") else ""
    chip = _class(step)
    said = "" if chip == "none" else f'<span class="unseen">, {_LEGEND[chip]}</span>'
    return (
        f'<span role="option" aria-selected="false" class="chip {chip} {kind}" id="token-{at}" title="{title}">{text}{said}</span>'
        f"{last}"
    )


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf


def _legend() -> str:
    items = "".join(
        f'<li><span class="chip {name}" aria-hidden="true">ab</span>{escape(text)}</li>'
        for name, text in _LEGEND.items()
    )
    return f'<ul class="legend" aria-label="What the colours and underlines of tokens mean">{items}</ul>'


def _table(trace: Trace) -> str:
    """Every step in a line: what is read without scripts."""
    heads = [("step", ""), ("token", "named"), *((name, "") for name in _COLUMNS)]
    heads += [
        (f"sum of log-weights of {titled(factor)}, nat", "factor")
        for factor in trace.factors
        if factor.kind != "support"
    ]
    heads += [("sum of log-weights of all, nat", ""), ("why not", "words")]
    head = "".join(f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in heads)
    rows = "".join(map(_row, range(len(trace.steps)), trace.steps, [trace] * len(trace.steps)))
    return f'<table id="steps" aria-labelledby="h-steps"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(at: int, step: Step, trace: Trace) -> str:
    numbers = [
        percentage(step.log_prob),
        percentage(step.log_final),
        str(step.masked),
        percentage(_log(step.mass)),
        percentage(_log(step.moved)),
        number(step.log_normaliser),
        number(step.log_weight),
    ]
    pairs = zip(trace.factors, step.effects, strict=True)
    numbers += [number(effect.sum_log_weights) for factor, effect in pairs if factor.kind != "support"]
    numbers.append(number(step.sum_log_weights))
    cells = "".join(f"<td>{value}</td>" for value in numbers)
    said = escape("; ".join(effect.verdict for effect in step.effects if effect.verdict))
    return f'<tr><th scope="row">{at + 1}</th><td class="named">{_word(step)}</td>{cells}<td class="words">{said}</td></tr>'
