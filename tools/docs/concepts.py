"""The picture of docs/concepts.md: a tree of texts with p, ψ, what a mask draws and what it should draw.

    python -m tools.docs.concepts           # writes docs/concepts.svg

All numbers are worked out by the library. The language model is an HMM, so that the lookahead's ψ is exact.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ctrldecode import HMM, AutomatonPotential, HMMLanguageModel, Lookahead, TokenDFA, diagnostics

__all__ = ["DAYS", "PICTURE", "Tree", "draw", "main", "tree"]

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "concepts.svg"

DAYS = 3
WORDS = ("sun", "rain", "end")
SUN, RAIN, END = range(3)

# Where things stand, in units of the picture.
_LEFT, _ACROSS, _TOP, _DOWN = 40, 138, 66, 38
_TEXT = _LEFT + DAYS * _ACROSS + 82  # centre of the column of texts
_TABLE, _COLUMN = _TEXT + 120, 108  # centre of the column p(x), and from one column to the next
_BAR = 44  # length of a bar of probability 1
_WIDTH, _HEIGHT = _TABLE + 2 * _COLUMN + 50, _TOP + 2**DAYS * _DOWN + 6

_STYLE = """
.paper { fill: #ffffff; stroke: #d0d4da } text { fill: #1f2328; font: 15px system-ui, sans-serif; text-anchor: middle }
.edge { stroke: #57606a; stroke-width: 1.5 } .dead { stroke: #8c959f; stroke-dasharray: 4 4 }
.node { fill: #0b6bcb } .psi { fill: #ffffff; font-weight: 600 } .zero { fill: #d8dde3 } .none { fill: #57606a }
.head { font-weight: 600 } .ground { fill: #ffffff } .p { fill: #57606a } .mask { fill: #c2570c } .aligned { fill: #0b6bcb } .number { text-anchor: start }
@media (prefers-color-scheme: dark) {
.paper { fill: #1b1f26; stroke: #3a414b } text { fill: #e6e9ed } .edge { stroke: #aab2bd } .dead { stroke: #69727d }
.node { fill: #2f81d8 } .psi { fill: #ffffff } .zero { fill: #39414c } .none { fill: #aab2bd }
.ground { fill: #1b1f26 } .p { fill: #8c959f } .mask { fill: #ee8a45 } .aligned { fill: #4f9df0 } }
"""


@dataclass(frozen=True)
class Tree:
    """What the picture shows; a prefix is a tuple of ids.

    Attributes:
        next_probs: p(last token | the tokens before it), for every prefix but the empty one.
        psi: ψ, for every prefix.
        probs: p of every text.
        masked: of every text that counts, the probability with which a mask draws it.
        aligned: the same under the target p(x) ψ(x) / Z.
    """

    next_probs: dict[tuple[int, ...], float]
    psi: dict[tuple[int, ...], float]
    probs: dict[tuple[int, ...], float]
    masked: dict[tuple[int, ...], float]
    aligned: dict[tuple[int, ...], float]


def tree() -> Tree:
    """Three days of weather, of which it is to rain on two at least."""
    weather = HMM(
        [0.8, 0.2, 0.0],  # the first day: sun, rain
        [[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 1.0]],  # the next day after sun, after rain
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],  # each state says its own name
        eos_token_ids=[END],
    )
    wet = TokenDFA([[0, 1, -1], [1, 2, -1], [2, 2, -1]], start=0, accepting=[2], eos_token_ids=[END])
    lm = HMMLanguageModel(weather, condition_on_prompt=False)
    mask = AutomatonPotential(wet)
    lookahead = Lookahead(weather, wet, max_new_tokens=DAYS, limit="open", condition_on_prompt=False)
    target = diagnostics.exact(lm, mask, [END], max_new_tokens=DAYS)
    masked = diagnostics.token_wise(lm, mask, [END], max_new_tokens=DAYS)

    next_probs: dict[tuple[int, ...], float] = {}
    psi = {(): math.exp(target.log_z)}
    for prefix in _prefixes(DAYS):
        state = [part.init(torch.tensor([[END]]), None, torch.tensor([DAYS])) for part in (lm, lookahead)]
        for token in prefix:
            state = [part.step(own, torch.tensor([token])) for part, own in zip((lm, lookahead), state, strict=True)]
        log_p, log_ratio = (part.log_weights(own)[0] for part, own in zip((lm, lookahead), state, strict=True))
        for token in (SUN, RAIN):
            next_probs[*prefix, token] = float(log_p[token].exp())
            psi[*prefix, token] = psi[prefix] * float(log_ratio[token].exp()) if psi[prefix] else 0.0
    probs = {text: math.prod(next_probs[text[: at + 1]] for at in range(DAYS)) for text in _texts(DAYS)}
    return Tree(next_probs, psi, probs, *({x: math.exp(q.log_prob(x)) for x in q.texts} for q in (masked, target)))


def draw(found: Tree) -> str:
    """The picture as SVG. It follows the reader's light or dark mode, and has a ground of its own."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">',
        "<title>All texts of three words, with the probability of each word and the expected future of each prefix</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="8"/>',
        *_heads(),
    ]
    prefixes = [prefix for length in range(DAYS + 1) for prefix in _texts(length)]
    parts += [_edge(found, prefix) for prefix in prefixes if prefix]
    parts += [_node(found, prefix) for prefix in prefixes]
    for text in _texts(DAYS):
        parts += _row(found, text)
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(draw(tree()), encoding="utf-8")
    print(f"wrote {PICTURE.name}")


def _texts(length: int) -> list[tuple[int, ...]]:
    return list(itertools.product((SUN, RAIN), repeat=length))


def _prefixes(length: int) -> list[tuple[int, ...]]:
    """Those that are shorter, the shortest first."""
    return [prefix for shorter in range(length) for prefix in _texts(shorter)]


def _place(prefix: tuple[int, ...]) -> tuple[float, float]:
    """Where a prefix stands: across by its length, down in the middle of the texts that begin with it."""
    below = 2 ** (DAYS - len(prefix))
    first = sum(token * 2 ** (DAYS - 1 - at) for at, token in enumerate(prefix))
    return _LEFT + len(prefix) * _ACROSS, _TOP + (first + below / 2) * _DOWN


def _heads() -> list[str]:
    columns = [(_LEFT + 30, "ψ of the prefix"), (_TEXT, "text x"), (_TABLE, "p(x)")]
    columns += [(_TABLE + _COLUMN, "mask alone"), (_TABLE + 2 * _COLUMN, "aligned")]
    days = [_text(_LEFT + (day - 0.5) * _ACROSS, 48, f"word {day}") for day in range(1, DAYS + 1)]
    return [*(_text(x, 26, word, "head") for x, word in columns), *days]


def _edge(found: Tree, prefix: tuple[int, ...]) -> str:
    (x1, y1), (x2, y2) = _place(prefix[:-1]), _place(prefix)
    kind = "edge" if found.psi[prefix] else "edge dead"
    x, y = x1 + 0.5 * (x2 - x1), y1 + 0.5 * (y2 - y1)
    line = f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'
    ground = f'<rect class="ground" x="{x - 32:.1f}" y="{y - 9:.1f}" width="64" height="18"/>'
    return "\n".join([line, ground, _text(x, y + 5, f"{WORDS[prefix[-1]]} {found.next_probs[prefix]:.1f}")])


def _node(found: Tree, prefix: tuple[int, ...]) -> str:
    x, y = _place(prefix)
    psi = found.psi[prefix]
    kind, number = ("node", "psi") if psi else ("zero", "none")
    box = f'<rect class="{kind}" x="{x - 26:g}" y="{y - 12:g}" width="52" height="24" rx="12"/>'
    return f"{box}\n{_text(x, y + 5, f'{psi:.3f}'.rstrip('0').rstrip('.') or '0', number)}"


def _row(found: Tree, text: tuple[int, ...]) -> list[str]:
    _, y = _place(text)
    parts = [_text(_TEXT, y + 5, " ".join(WORDS[token] for token in text), "" if found.psi[text] else "none")]
    for at, (kind, values) in enumerate((("p", found.probs), ("mask", found.masked), ("aligned", found.aligned))):
        value = values.get(text, 0.0)
        x = _TABLE + at * _COLUMN - 46
        if value:
            parts.append(f'<rect class="{kind}" x="{x:g}" y="{y - 7:g}" width="{_BAR * value:.1f}" height="14"/>')
            parts.append(_text(x + _BAR * value + 5, y + 5, f"{value:.3f}", "number"))
    return parts


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{f" class={kind!r}" if kind else ""}>{words}</text>'


if __name__ == "__main__":
    main()
