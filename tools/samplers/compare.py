"""Compares all samplers on eight problems with the embedded model: four that can be enumerated, four that cannot.

    python -m tools.samplers.compare --out docs/sampling.png

Enumerable: KL(q̂ ‖ π) of the weighted texts, beside that of as many exact draws, over model calls and seconds. Free-form: mean and
standard deviation of log Ẑ over seeds, effective sample size, calls and seconds. Prints Markdown tables, draws the first.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ctrldecode import automata, diagnostics, samplers
from ctrldecode._resources import grammar_path, hmm_path, model_path
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.grammar.grammar import Grammar
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.lm import CausalLM

# The first is the example of Park et al. (2024), figure 1; the last SyGuS-like, of their tasks.
SMALL = {
    "zeros": ("", 'start: "00000" | "1" ("0"|"1")~4', 8),
    "answer": (
        "Did they like it?",
        'start: " " ("Yes" | "No" | "Maybe") ("," " " ("yes" | "no" | "very"))~0..2 "."',
        8,
    ),
    "numbers": ("They had", 'start: " " /[0-9]/ /[0-9]/ /[0-9]/', 6),
    "names": (
        "Once upon a time there were",
        'start: " " N " and " N\\nN: "Tom"|"Lily"|"Max"|"Sue"|"Ben"|"Mia"|"Anna"|"Sam"|"Tim"|"Amy"',
        9,
    ),
}
SYGUS = r"""
start: "(define-fun f ((x Int) (y Int)) Int " e ")"
e: "x" | "y" | "0" | "1" | "(+ " e " " e ")" | "(- " e " " e ")" | "(ite " b " " e " " e ")"
b: "(<= " e " " e ")" | "(= " e " " e ")" | "(not " b ")"
"""


class Problem(NamedTuple):
    """A prompt, what its texts must satisfy, their budget, and what foresees it."""

    name: str
    prompt: torch.Tensor
    potential: Any
    budget: int
    twist: Any = None


class World(NamedTuple):
    """What all problems share."""

    lm: CausalLM
    vocabulary: Vocabulary
    tokenizer: Any
    hmm: HMM


def world() -> World:
    """Model, vocabulary and HMM."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(model_path("tinytales"))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, size=model.config.vocab_size)
    return World(CausalLM(model), vocabulary, tokenizer, HMM.load(hmm_path("tinytales-256"), vocabulary))


def prompt_of(at: World, text: str) -> torch.Tensor:
    """(1, P) ids behind the beginning of a text."""
    return torch.tensor([[at.vocabulary.eos_token_ids[0], *at.tokenizer(text).input_ids]])


def small(at: World) -> list[Problem]:
    """The enumerable problems."""
    return [
        Problem(name, prompt_of(at, prompt), Grammar(text.replace("\\n", "\n")).compile(at.vocabulary), budget)
        for name, (prompt, text, budget) in SMALL.items()
    ]


def large(at: World) -> list[Problem]:
    """The free-form problems."""
    words = automata.contains_all(at.vocabulary, ["dragon", "castle"])
    look = Lookahead(at.hmm, words, max_new_tokens=24, limit="open", detail=0)
    named = [
        ("sygus", Grammar(SYGUS), 60),
        ("card", Grammar.from_file(grammar_path("card")), 60),
        ("arithmetic", Grammar.from_file(grammar_path("arithmetic")), 16),
    ]
    story = "Once upon a time, Tom found a red ball in the park. He was happy."
    found = [
        Problem(
            name, prompt_of(at, story if name == "card" else ""), grammar.compile(at.vocabulary, max_ignored=2), budget
        )
        for name, grammar, budget in named
    ]
    return [*found, Problem("keywords", prompt_of(at, ""), AutomatonPotential(words), 24, look)]


def draw(
    at: World, problem: Problem, method: str, num: int, seed: int, max_lm_calls: int | None = None
) -> tuple[Any, float]:
    """Samples and seconds; "mask" and "asap, no weights" are others without their weights."""
    name = {"mask": "importance", "asap, no weights": "asap"}.get(method, method)
    options = {"twist": problem.twist} if name in {"smc", "branching"} and problem.twist is not None else {}
    began = time.perf_counter()
    found = samplers.SAMPLERS[name](
        at.lm,
        problem.potential,
        problem.prompt,
        num=num,
        max_new_tokens=problem.budget,
        rng=torch.Generator().manual_seed(seed),
        max_lm_calls=max_lm_calls,
        **options,
    )
    return found, time.perf_counter() - began


_LEAST = 1e-6  # of the plot
METHODS = ["mask", "importance", "rejection", "smc", "branching", "asap, no weights", "asap", "cars", "mcmc"]


def enumerable(at: World, nums: list[int], seeds: int) -> list[dict[str, Any]]:
    """KL and total variation after so many texts, means over seeds."""
    rows: list[dict[str, Any]] = []
    for problem in small(at):
        shared = {"max_new_tokens": problem.budget}
        target = diagnostics.exact(at.lm, problem.potential, problem.prompt[0], **shared)
        bias = diagnostics.kl(diagnostics.token_wise(at.lm, problem.potential, problem.prompt[0], **shared), target)
        print(
            f"{problem.name}: {len(target.texts)} texts, log Z {target.log_z:.2f}, KL(mask ‖ π) {bias:.3f}", flush=True
        )
        rng = np.random.default_rng(0)
        for num in nums:
            for method in ["exact draws", *METHODS]:
                figures = []
                for seed in range(seeds):
                    if method == "exact draws":
                        picks = rng.choice(len(target.texts), num, p=np.exp(target.log_probs))
                        texts, weights, calls, seconds = [target.texts[i] for i in picks], torch.zeros(num), 0, 0.0
                    else:
                        found, seconds = draw(at, problem, method, num, seed)
                        texts, weights, calls = found.tokens[0], found.log_weights[0], found.lm_calls
                        if method in {"mask", "asap, no weights"}:
                            weights = torch.zeros(len(texts))
                    far = diagnostics.distances(texts, weights, target, rng=rng, resamples=0)
                    figures.append((far.kl.value, far.total_variation.value, calls, seconds))
                means = np.mean(figures, axis=0).tolist()
                row = dict(zip(("kl", "tv", "calls", "seconds"), means, strict=True))
                rows.append({"problem": problem.name, "method": method, "num": num, **row})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def free(at: World, num: int, seeds: int, max_lm_calls: int) -> list[dict[str, Any]]:
    """log Ẑ, ESS, calls and seconds of free-form problems."""
    rows: list[dict[str, Any]] = []
    for problem in large(at):
        for method in [method for method in METHODS if method not in {"mask", "asap, no weights", "mcmc"}]:
            figures, upper, texts = [], math.inf, 0
            for seed in range(seeds):
                limit = max_lm_calls if method in {"asap", "cars"} else None
                found, seconds = draw(at, problem, method, num, seed, limit)
                bounds = diagnostics.log_z_bounds(found)
                upper = min(upper, bounds.upper)
                texts += len(found.tokens[0])
                figures.append((float(found.log_z[0]), float(found.ess[0]), found.lm_calls, seconds))
            table = np.array(figures)
            rows.append(
                {
                    "problem": problem.name,
                    "method": method,
                    "log_z": float(table[:, 0].mean()),
                    "spread": float(table[:, 0].std(ddof=1)) if np.isfinite(table[:, 0]).all() else math.nan,
                    "upper": upper,
                    "texts": texts / seeds,
                    "ess": float(table[:, 1].mean()),
                    "calls": float(table[:, 2].mean()),
                    "seconds": float(table[:, 3].mean()),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """KL over model calls, a panel a problem."""
    from matplotlib.figure import Figure

    names = [*SMALL]
    figure = Figure(figsize=(9.6, 6.4), dpi=100, layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    for panel, name in zip(panels, names, strict=True):
        for place, method in enumerate(METHODS):
            own = [row for row in rows if row["problem"] == name and row["method"] == method]
            panel.plot(
                [row["calls"] for row in own],
                [max(row["kl"], _LEAST) for row in own],
                marker=".",
                color=f"C{place}",
                label=method,
            )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(bottom=max(_LEAST, panel.get_ylim()[0]))
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("model calls")
        panel.set_ylabel("KL from the target (nats)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path)


def tables(rows: list[dict[str, Any]], others: list[dict[str, Any]], nums: tuple[int, int]) -> str:
    """The rows as Markdown."""
    few, many = nums
    heads = [f"{name}, {num}" for name in SMALL for num in (few, many)]
    lines = [f"| | {' | '.join(heads)} | calls and seconds, {many} |", "|---" * (len(heads) + 2) + "|"]
    for method in ["exact draws", *METHODS]:
        own = {(row["problem"], row["num"]): row for row in rows if row["method"] == method}
        cells = [_short(own[name, num]["kl"]) for name in SMALL for num in (few, many)]
        last = [own[name, many] for name in SMALL]
        spent = (
            ", ".join(f"{row['calls']:.0f} / {row['seconds']:.1f}" for row in last) if method != "exact draws" else ""
        )
        name = method if method == "exact draws" else f"`{method}`" if method in samplers.SAMPLERS else method
        lines.append(f"| {name} | {' | '.join(cells)} | {spent} |")
    lines += [
        "",
        "| problem | sampler | log Z | upper bound | texts | ESS | calls | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in others:
        upper = f"{row['upper']:.1f}" if math.isfinite(row["upper"]) else ""
        estimate = f"{row['log_z']:.2f} ± {row['spread']:.2f}" if math.isfinite(row["log_z"]) else "none"
        figures = f"{row['texts']:.0f} | {row['ess']:.1f} | {row['calls']:.0f} | {row['seconds']:.1f}"
        lines.append(f"| {row['problem']} | `{row['method']}` | {estimate} | {upper} | {figures} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return "∞" if math.isinf(value) else "< 1e-4" if value < 1e-4 else f"{value:.2g}"


def main() -> None:
    """Parse, run, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--nums", default="10,30,100,300,1000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--free", type=int, default=100, help="texts of each free-form run; 0 for none")
    parser.add_argument("--max-lm-calls", type=int, default=4000)
    parser.add_argument("--save", type=Path, help="rows as JSON")
    parser.add_argument(
        "--load",
        type=Path,
        nargs="*",
        help="rows of earlier runs in place of running: the first has the enumerable ones",
    )
    options = parser.parse_args()
    if options.load:
        found = [json.loads(path.read_text()) for path in options.load]
        print(tables(found[0]["enumerable"], found[-1]["free"], (30, 300)))
        if options.out:
            plot(found[0]["enumerable"], options.out)
        return
    torch.set_num_threads(1)
    at = world()
    rows = enumerable(at, [int(num) for num in options.nums.split(",")], options.seeds)
    others = free(at, options.free, options.seeds, options.max_lm_calls) if options.free else []
    if options.save:
        options.save.write_text(json.dumps({"enumerable": rows, "free": others}, indent=1))
    if options.out:
        plot(rows, options.out)


if __name__ == "__main__":
    main()
