"""What became of a text, in a sentence or two. It knows records only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ctrldecode.explain._show import number

if TYPE_CHECKING:
    from ctrldecode.explain.record import Effect, Factor, Step, Trace

__all__ = ["named", "titled", "verdict"]


_ENDS = {"ended": "ended by itself", "complete": "is complete by its potentials, and its budget is used up"}


def titled(factor: Factor) -> str:
    """A factor with its power, unless that is 1.

    Example:
        >>> from ctrldecode.explain.record import Factor
        >>> titled(Factor("Table", "potential", -0.5)), titled(Factor("Table", "potential", 1.0))
        ('Table, to the power of −0.5', 'Table')
    """
    return factor.name if factor.power == 1 else f"{factor.name}, to the power of {factor.power:g}".replace("-", "−")


def named(factor: Factor) -> str:
    """The same with what was asked for, where that is known.

    Example:
        >>> from ctrldecode.explain.record import Factor
        >>> named(Factor("the automaton", "automaton", 1.0, "--avoid cat")), named(Factor("Table", "potential", 1.0))
        ('the automaton (--avoid cat)', 'Table')
    """
    return f"{titled(factor)} ({factor.asked})" if factor.asked else titled(factor)


def verdict(trace: Trace) -> str:
    """What became of the text, in a few sentences.

    Example:
        >>> from ctrldecode.explain import Trace
        >>> verdict(Trace("Once", "", "open", (), ()))
        'Nothing was recorded.'
    """
    if not trace.steps:
        return "Nothing was recorded."
    return _what_became(trace, trace.steps[-1]) + _what_was_left(trace)


def _what_became(trace: Trace, last: Step) -> str:
    count = len(trace.steps)
    if trace.ending == "dead end":
        return f"Token {count}: nothing can follow. {_who_forbade(trace, last)}"
    if trace.ending == "forbidden" and last.token is not None:
        reasons = [
            f"{named(factor)}: {effect.verdict}"
            for factor, effect in zip(trace.factors, last.effects, strict=True)
            if effect.verdict
        ]
        said = "; ".join(reasons) or "the model gives it probability 0"
        return f"Token {count}, “{last.token.text}”, is impossible. {_sentence(said)}"
    end = _ENDS.get(trace.ending, "goes on, or was cut off")
    log_weight, tokens = number(last.log_weight), number(last.sum_log_weights)
    return f"{count} token{'s' * (count != 1)}; the text {end}. Log-weight {log_weight}; sum of the tokens’ log-weights {tokens}."


def _who_forbade(trace: Trace, last: Step) -> str:
    """Which factors left nothing of all tokens, in the order in which they took them, and what they expected."""
    said: list[str] = []
    for factor, effect in zip(trace.factors, last.effects, strict=True):
        if not effect.masked:
            continue
        masked = f"{effect.masked} token{'s' * (effect.masked != 1)}"
        if effect.log_normaliser == -math.inf:
            masked = "all others" if said else "all tokens"
        said.append(_sentence(f"{named(factor)} forbids {masked}: {_why(effect)}"))
    return " ".join(said) or "The model gives every token probability 0."


def _why(effect: Effect) -> str:
    """What a factor expects, if it says so, and what it has against the likeliest token that it forbids."""
    expects = next((str(fact.before) for fact in effect.facts if fact.name == "expects"), "")
    parts = [f"it expects {expects}"] if expects else []
    first = next(iter(effect.removed), None)
    if first is not None and not (expects and first.why.endswith(expects)):
        parts.append(f"of “{first.token.text}”, the likeliest of them, it says that {first.why}")
    return "; ".join(parts)


def _what_was_left(trace: Trace) -> str:
    if not trace.rest:
        return ""
    count = f"{trace.rest} token{'s' * (trace.rest != 1)}"
    where = "the end of sequence" if trace.ending == "ended" else "it"
    stand = "stand" if trace.rest != 1 else "stands"
    return f" Not looked at: {count} that {stand} behind {where}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
