"""Records for tests of the page: made by hand, so that everything a page can show is there, hostile tokens too."""

from __future__ import annotations

import math

from ctrldecode.explain.record import Candidate, Effect, Fact, Factor, Removed, Setting, Step, Token, Trace

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028&quot;"
FACTORS = (
    Factor("the grammar <json>", "grammar", 1.0, "--grammar '<json>'"),
    Factor("GeDi towards 'happy' (30)", "posterior", 1.0, "--guide happy=30"),
)


def step(
    at: int, text: str, log_normaliser: float = 0.0, *, moved: float = 0.0, forbidden: bool = False, kind: str = "text"
) -> Step:
    token, other = Token(at, text, kind), Token(99, "other", "text")
    weight = -math.inf if forbidden else 0.0
    effect = Effect(
        log_weight=weight,
        sum_log_weights=weight,
        masked=3,
        mass=0.25,
        facts=(Fact("expects", "NUMBER", "" if forbidden else "STRING"),),
        removed=(Removed(Token(7, HOSTILE, "text"), -2.0, "cannot stand here; expected: NUMBER"),),
        verdict="cannot stand here; expected: NUMBER" if forbidden else "",
        log_normaliser=-0.1,
    )
    lean = Effect(-0.5, -0.5 * (at + 1), 0, 0.0, (Fact("P(happy)", 0.25, 0.5),), (), "", -0.3)
    candidates = (
        Candidate(token, -0.7, (-math.inf, -math.inf) if forbidden else (-0.7, -1.2), -math.inf if forbidden else -0.9),
        Candidate(other, -3.0, (-math.inf, -math.inf), -math.inf),
    )
    return Step(
        token,
        -0.7,
        candidates[0].log_final,
        0,
        log_normaliser,
        log_normaliser * (at + 1),
        -0.5 + weight,
        3,
        0.25,
        moved,
        candidates,
        (effect, lean),
    )


def record(*, length: int = 60) -> Trace:
    """A long text with every sort of step, and a token of weight 0 at its end."""
    texts = ["␣word", HOSTILE, "⏎", "\\xE2", "∑", "x" * 80, "ش"]
    weights = [(0.0, 0.0), (-0.3, 0.25), (-1.5, 0.8), (-5.0, 0.99), (0.4, 0.3)]
    steps = [
        step(at, texts[at % len(texts)], weights[at % len(weights)][0], moved=weights[at % len(weights)][1])
        for at in range(length - 1)
    ]
    last = step(length - 1, "<|end|>", -0.1, forbidden=True, kind="end")
    about = (Setting("model", "tiny"), Setting("potentials", "the grammar <json> * GeDi towards 'happy' (30)"))
    return Trace("Once & <for> all", "".join(texts), "forbidden", FACTORS, (*steps, last), about)
