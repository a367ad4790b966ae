"""Steers stories of tinytales towards a mood by several methods and strengths: control against fluency.

    python -m tools.guidance.evaluate --mood sad --out docs/images/guidance

Prints a table and writes it as JSON, with a plot: the share of texts in the mood by a judge (`tools.guidance.judge`) and by the lexicon,
the model's own perplexity of what was written, distinct words and pairs of words over all words, and milliseconds a token.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctrldecode._resources import attribute_path, class_lm_of, hmm_path
from ctrldecode.cli import _models
from ctrldecode.core._rows import left_padded
from ctrldecode.guidance import GeDi, Prompted, cfg, dexperts
from ctrldecode.hmm.attributes import AttributeWeights
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor
from tools.guidance.judge import Judge, prompts
from tools.tinytales.mood import mood_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.potential import Potential

_METHODS = "none,gedi:10,gedi:30,gedi:100,dexperts:0.5,dexperts:1,dexperts:2,cfg:1,cfg:2,cfg:3,trace:1,trace:3,trace:6"
_MOODS = ("happy", "sad")
_ROWS = 50  # prompts of one call
_TICKS = (3.5, 4, 5, 6, 8, 12)  # perplexities


class Texts(NamedTuple):
    """What a method wrote: prompts with their continuations, nats of these under the model alone, tokens, seconds."""

    whole: list[str]
    continued: list[str]
    nats: float
    tokens: int
    seconds: float
    longest: int


class World(NamedTuple):
    """What all methods share."""

    loaded: Loaded
    judge: Loaded
    mood: str
    tokens: int
    attribute: Path

    @property
    def other(self) -> str:
        """The mood that is not wanted."""
        return next(mood for mood in _MOODS if mood != self.mood)

    def lm(self) -> CausalLM:
        """The model that generates, as a potential."""
        loaded = self.loaded
        return CausalLM(loaded.model, tokenizer=loaded.tokenizer, eos_token_ids=loaded.eos_token_ids)


def potential_of(method: str, world: World) -> Potential[Any] | None:
    """A method by its name and strength.

    `gedi-sum` does not divide evidence by the number of tokens, `gedi-prompt` counts the prompt, `gedi-16` and `gedi-32` divide by at least so many.
    """
    name, _, number = method.partition(":")
    if name == "none":
        return None
    strength, lm = float(number), world.lm()
    if name.startswith("gedi"):
        judge = world.judge
        class_lm = CausalLM(judge.model, tokenizer=judge.tokenizer, eos_token_ids=judge.eos_token_ids)
        options: dict[str, Any] = {
            "gedi-sum": {"normalise": False, "scale": 1.0},
            "gedi-prompt": {"count_prompt": True},
            "gedi-16": {"least": 16},
            "gedi-32": {"least": 32},
        }.get(name, {})
        return GeDi(class_lm, target=world.mood, strength=strength, **options)
    begin = world.loaded.eos_token_ids
    behind = {mood: Prompted(lm, f"<|{mood}|>", start=begin) for mood in _MOODS}
    if name == "dexperts":
        return dexperts(behind[world.mood], behind[world.other], strength)
    if name == "cfg":  # the model that generates has no code before its prompt, so the exponent is the scale itself
        return cfg(behind[world.mood], lm, strength + 1)
    weights = AttributeWeights.load(world.attribute, world.loaded.vocabulary)
    hmm = HMM.load(hmm_path("tinytales-256"), world.loaded.vocabulary)
    return Lookahead(hmm, None, weights, max_new_tokens=world.tokens, limit="open") ** strength


def write(world: World, given: Sequence[str], potential: Potential[Any] | None) -> Texts:
    """Sample a continuation of every prompt, `_ROWS` at a time, left padded."""
    loaded, end = world.loaded, world.loaded.eos_token_ids[0]
    whole: list[str] = []
    continued: list[str] = []
    nats = seconds = 0.0
    tokens = longest = 0
    for start in range(0, len(given), _ROWS):
        rows = [[end, *loaded.tokenizer(text).input_ids] for text in given[start : start + _ROWS]]
        ids, mask = left_padded(rows)
        width = ids.shape[1]
        control = (
            [] if potential is None else [ControlProcessor(potential, max_new_tokens=world.tokens, attention_mask=mask)]
        )
        began = time.perf_counter()
        output = loaded.model.generate(
            ids, attention_mask=mask, max_new_tokens=world.tokens, do_sample=True, top_k=0, logits_processor=control
        )
        seconds += time.perf_counter() - began
        longest += output.shape[1] - width
        bodies = [_body(row[width:].tolist(), end) for row in output]
        nats -= float(world.lm().score(ids, mask, bodies)[1].sum())
        tokens += sum(map(len, bodies))
        texts = [loaded.tokenizer.decode(body, skip_special_tokens=True) for body in bodies]
        continued += texts
        whole += [prompt + text for prompt, text in zip(given[start : start + _ROWS], texts, strict=True)]
    return Texts(whole, continued, nats, tokens, seconds, longest)


def _body(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def distinct(texts: Sequence[str], length: int) -> float:
    """Different runs of `length` words over all such runs (Li et al. 2016)."""
    runs = [tuple(words[at : at + length]) for words in map(str.split, texts) for at in range(len(words) - length + 1)]
    return len(set(runs)) / max(1, len(runs))


def figures(method: str, texts: Texts, world: World, judge: Judge) -> dict[str, Any]:
    """What the table says of a method."""
    share = judge.share(texts.whole)
    return {
        "method": method,
        "judge": share,
        "error": math.sqrt(share * (1 - share) / len(texts.whole)),
        "lexicon": sum(mood_of(text) == world.mood for text in texts.whole) / len(texts.whole),
        "perplexity": math.exp(texts.nats / texts.tokens),
        "distinct_1": distinct(texts.continued, 1),
        "distinct_2": distinct(texts.continued, 2),
        "ms_per_token": 1000 * texts.seconds / texts.longest,
    }


def plot(found: Sequence[dict[str, Any]], mood: str, path: Path) -> None:
    """Control against fluency: one line a method, from its least strength to its greatest."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "guidance"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for name in dict.fromkeys(line["method"].partition(":")[0] for line in found):
        lines = [line for line in found if line["method"].partition(":")[0] == name]
        across, up = [line["perplexity"] for line in lines], [line["judge"] for line in lines]
        axes.errorbar(across, up, [line["error"] for line in lines], marker="o", capsize=2, label=name)
        for line, x, y in zip(lines, across, up, strict=True):
            axes.annotate(
                line["method"].partition(":")[2], (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8
            )
    axes.set(
        xlabel="perplexity under the model alone (less is more fluent)",
        ylabel=f"share {mood}, by the judge",
        xscale="log",
    )
    axes.set_xticks(_TICKS, labels=map(str, _TICKS))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mood", choices=_MOODS, default="sad")
    parser.add_argument("--methods", default=_METHODS)
    parser.add_argument(
        "--class-lm", default=None, help="the model that GeDi asks; the usual one of the CLI if left out"
    )
    parser.add_argument("--attribute", type=Path, help="of TRACE; the shipped one of the mood's name if left out")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--out", type=Path, help="where to write NAME.json and NAME.svg")
    options = parser.parse_args()
    loaded = _models.load("tinytales")
    attribute = options.attribute or attribute_path(options.mood)
    world = World(
        loaded,
        _models.load(options.class_lm or class_lm_of("tinytales") or "tinytales"),
        options.mood,
        options.tokens,
        attribute,
    )
    judge = Judge(options.mood)
    print(
        f"judge: balanced accuracy {judge.accuracy:.3f} in cross-validation; {options.prompts} prompts, {options.tokens} tokens"
    )
    print(
        f"{'method':>16} {'judge':>15} {'lexicon':>8} {'perplexity':>11} {'distinct-1':>11} {'distinct-2':>11} {'ms/token':>9}"
    )
    found: list[dict[str, Any]] = []
    for method in options.methods.split(","):
        torch.manual_seed(0)
        texts = write(world, prompts(options.prompts), potential_of(method, world))
        found.append(figures(method, texts, world, judge))
        print(
            "{method:>16} {judge:>7.3f} ± {error:.3f} {lexicon:>8.3f} {perplexity:>11.2f} {distinct_1:>11.3f} {distinct_2:>11.3f} "
            "{ms_per_token:>9.1f}".format(**found[-1]),
            flush=True,
        )
    if options.out:
        options.out.with_suffix(".json").write_text(
            json.dumps({"judge": judge.accuracy, "methods": found}, indent=1) + "\n"
        )
        plot(found, options.mood, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
