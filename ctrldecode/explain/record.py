"""The record of one generation, as values that JSON can hold. It knows no potential, no model and no HTML."""

from __future__ import annotations

import json
import math
import re
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from ctrldecode.errors import InputError

__all__ = [
    "Candidate",
    "Effect",
    "Fact",
    "Factor",
    "Removed",
    "Setting",
    "Step",
    "Token",
    "Trace",
    "from_json",
    "to_json",
]

_VERSION = 3
_SURROGATES = re.compile("[\ud800-\udfff]")
T = TypeVar("T")


class Token(NamedTuple):
    """A token as it is shown.

    Attributes:
        id: its number.
        text: what it spells, with white space, control characters and parts of characters made visible.
        kind: "text"; "special", which is never part of a text; "end", which ends one.
    """

    id: int
    text: str
    kind: str


class Factor(NamedTuple):
    """One potential of the product, or the support behind them.

    Attributes:
        name: how it describes itself, with what decides its weights beside its power, such as the detail of a lookahead.
        kind: "grammar", "automaton", "lookahead", "posterior", "classifier", "language model", "support" or "potential".
        power: its exponent.
        asked: what the user asked for that it brings about, such as the words; "" if that is not known.
    """

    name: str
    kind: str
    power: float
    asked: str = ""


class Fact(NamedTuple):
    """Something that a factor knows of the place, before the token and behind it; "" where there is nothing to know."""

    name: str
    before: float | str
    after: float | str


class Removed(NamedTuple):
    """A token that one factor made impossible: the model's log-probability of it, and the reason."""

    token: Token
    log_prob: float
    why: str


class Effect(NamedTuple):
    """What one factor did at one step.

    Attributes:
        log_weight: of the chosen token, exponent included, natural log; NaN, which JSON has as "", where none was chosen.
        sum_log_weights: the sum of these so far, this token included. It is log ψ(x) − log ψ(prompt), times the exponent, of a potential
            whose log-weights are differences of its log ψ; those of a lookahead with a detail below 1 are not.
        masked: how many tokens became impossible by this factor that were possible before it.
        mass: the model's probability of these.
        facts: what it knows of the place.
        removed: the likeliest of the tokens that it made impossible, by the model.
        verdict: why the chosen token has weight 0 under it; "" if it has not.
        log_normaliser: log Σ_v of p(v | x) times the weights of the factors up to this one; −inf once all is impossible.
    """

    log_weight: float
    sum_log_weights: float
    masked: int
    mass: float
    facts: tuple[Fact, ...]
    removed: tuple[Removed, ...]
    verdict: str
    log_normaliser: float = math.nan


class Candidate(NamedTuple):
    """A token that could have been chosen.

    Attributes:
        token: which.
        log_prob: log p under the model.
        after: log of p times the weights of the factors up to each, in order; not normalised.
        log_final: log of what it is chosen with: the last of these, normalised.
    """

    token: Token
    log_prob: float
    after: tuple[float, ...]
    log_final: float


class Step(NamedTuple):
    """One token.

    Attributes:
        token: the one that was chosen; None at a place where none was.
        log_prob: log p of it under the model; NaN where none was chosen.
        log_final: log of the probability with which it is chosen.
        rank: how many tokens the model likes better.
        log_normaliser: log Σ_v p(v | x) ψ(x·v) / ψ(x), over what the support keeps.
        log_weight: the sum of these so far, this step included; see `ControlProcessor.report`.
        sum_log_weights: the sum of the log-weights of the chosen tokens so far, this one included, all factors together.
        masked: tokens that became impossible by all factors together.
        mass: the model's probability of these.
        moved: Σ_v max(0, p(v | x) − q(v)), the total variation between the model's distribution p and q, the one that the token is
            chosen with: the share of probability that was moved. Of masks alone it is their mass; 1 where no token is possible.
        candidates: the likeliest before, the likeliest behind all factors, and the chosen one, by log p.
        effects: one a factor.
    """

    token: Token | None
    log_prob: float
    log_final: float
    rank: int
    log_normaliser: float
    log_weight: float
    sum_log_weights: float
    masked: int
    mass: float
    moved: float
    candidates: tuple[Candidate, ...]
    effects: tuple[Effect, ...]


class Setting(NamedTuple):
    """Something about how the text came about, for the head of the page."""

    name: str
    value: str


class Trace(NamedTuple):
    """A generation, token by token.

    Attributes:
        prompt: the text that is continued.
        text: the continuation.
        ending: "ended", by an end of sequence; "complete", by the budget, where it may end by every factor that can tell; "open", by the
            budget or by choice, elsewhere; "forbidden", at a token of weight 0; "dead end", where no
            token was possible.
        factors: in the order in which they are applied.
        steps: one a token; the last one may be a place without a token.
        settings: how it came about.
        rest: how many tokens stood behind the last step and were not looked at: behind an end of sequence, or a token of weight 0;
            ends of sequence are not counted.
    """

    prompt: str
    text: str
    ending: str
    factors: tuple[Factor, ...]
    steps: tuple[Step, ...]
    settings: tuple[Setting, ...] = ()
    rest: int = 0


def to_json(trace: Trace) -> str:
    """The record as one JSON object; −inf is null, and NaN, of what is not known, is "".

    Example:
        >>> to_json(Trace("a", "b", "open", (), ()))
        '{"version": 3, "prompt": "a", "text": "b", "ending": "open", "factors": [], "steps": [], "settings": [], "rest": 0}'
    """
    text = json.dumps({"version": _VERSION, **_plain(trace)}, ensure_ascii=False, allow_nan=False)
    return _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # so that UTF-8 can hold it


def from_json(text: str) -> Trace:
    """The record that `to_json` wrote.

    Raises:
        InputError: it is something else.

    Example:
        >>> trace = Trace("a", "b", "open", (Factor("g", "grammar", 1.0),), ())
        >>> from_json(to_json(trace)) == trace
        True
    """
    try:
        data: dict[str, Any] = json.loads(text)
        version = data.pop("version")
        if version == _VERSION:
            return _built(Trace, data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"this is no record of ctrldecode explain: {error!r}; pass what `to_json` or --json wrote"
        ) from error
    raise InputError(f"the record has version {version}, and this ctrldecode reads {_VERSION}; make it anew")


def _plain(value: Any) -> Any:
    """A record as what JSON has: named tuples are objects."""
    if isinstance(value, float):
        return "" if math.isnan(value) else None if value == -math.inf else value
    if isinstance(value, tuple):
        names: tuple[str, ...] | None = getattr(value, "_fields", None)
        parts = [_plain(part) for part in value]
        return parts if names is None else dict(zip(names, parts, strict=True))
    return value


def _built(kind: Any, data: Any) -> Any:
    """A value of a type from what `_plain` made of it."""
    if get_origin(kind) is tuple:
        return tuple(_built(get_args(kind)[0], part) for part in data)
    if get_origin(kind) is UnionType:
        return _one_of(get_args(kind), data)
    if hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(**{name: _built(hints[name], data[name]) for name in kind._fields})
    if kind is float:
        return -math.inf if data is None else math.nan if data == "" else float(data)
    return kind(data)


def _one_of(kinds: tuple[Any, ...], data: Any) -> Any:
    """`Token | None` and `float | str`: the only unions there are."""
    if type(None) in kinds:
        return None if data is None else _built(kinds[0], data)
    return data if isinstance(data, str) else _built(float, data)
