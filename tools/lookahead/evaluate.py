"""Samples texts that must contain the words of each concept set, by several methods, and weighs them by the language model.

    python -m tools.lookahead.evaluate --methods mask,lookahead --sets 40 --rows 16 --tokens 48

Prints, for each method: texts with all words (coverage), the model's nats a token over what was generated, repetition (share of
3-grams of tokens that stood before in the same text), seconds a token at that batch size. Bootstrap over sets gives the error.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from ctrldecode import automata, samplers
from ctrldecode._resources import model_path
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.hmm.language_model import HMMLanguageModel
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor

if TYPE_CHECKING:
    from ctrldecode.core.potential import Potential

HERE = Path(__file__).resolve().parent


class Texts(NamedTuple):
    """What a method wrote for one concept set."""

    tokens: list[list[int]]
    nats: list[float]
    seconds: float
    log_z: float = float("nan")


class World(NamedTuple):
    """What all methods share."""

    lm: CausalLM
    vocabulary: Vocabulary
    hmm: HMM
    tokens: int
    rows: int


def potential_of(method: str, world: World, automaton: Any) -> Potential[Any]:
    """A method by its name: mask, lookahead:STRENGTH, power:EXPONENT, coarse:EXPONENT, detail:EXPONENT/DETAIL, mix:W, patient:PATIENCE/URGENCY/DETAIL.

    beams-NAME searches.
    """
    name, _, number = method.partition(":")
    options = {"max_new_tokens": world.tokens, "limit": "open"}
    if name == "mask":
        return AutomatonPotential(automaton)
    if name == "lookahead":
        return Lookahead(world.hmm, automaton, strength=float(number or 1), **options)
    if name == "power":
        return Lookahead(world.hmm, automaton, **options) ** float(number)
    if name in {"coarse", "detail"}:
        power, _, detail = number.partition("/")
        return Lookahead(world.hmm, automaton, detail=float(detail or 0), **options) ** float(power or 1)
    if name == "patient":
        patience, urgency, detail = map(float, number.split("/"))
        return Lookahead(world.hmm, automaton, patience=patience, urgency=urgency, detail=detail, **options)
    if name == "mix":  # on top of the model's own p: p^(1 − w) · p_HMM^w · ψ
        w = float(number)
        return world.lm ** (-w) * HMMLanguageModel(world.hmm) ** w * Lookahead(world.hmm, automaton, **options)
    raise SystemExit(f"no method {method}")


def sample(world: World, potential: Potential[Any], prompt: Tensor, rng: torch.Generator) -> Texts:
    """Ancestral samples under a potential, all rows of one prompt at once."""
    began = time.perf_counter()
    prompts = prompt.expand(world.rows, -1)
    model = world.lm.init(prompts)
    control = potential.init(prompts, None, torch.full((world.rows,), world.tokens))
    texts: list[list[int]] = [[] for _ in range(world.rows)]
    nats = torch.zeros(world.rows)
    for _ in range(world.tokens):
        log_probs = world.lm.log_weights(model)
        scores = log_probs.clone()
        potential.add_log_weights(control, scores)
        scores = scores.masked_fill(model.finished[:, None], 0.0)
        chosen = torch.multinomial(scores.softmax(-1), 1, generator=rng)[:, 0]
        chosen[model.finished] = world.lm.eos_token_ids[0]
        for row in (~model.finished).nonzero()[:, 0].tolist():
            texts[row].append(int(chosen[row]))
        nats -= log_probs.gather(1, chosen[:, None])[:, 0] * ~model.finished
        if bool((model.finished | (chosen == world.lm.eos_token_ids[0])).all()):
            break
        model, control = world.lm.step(model, chosen), potential.step(control, chosen)
    return Texts(texts, nats.tolist(), time.perf_counter() - began)


def beams(world: World, potential: Potential[Any], prompt: Tensor) -> Texts:
    """The best text of a beam search of as many beams as there are rows."""
    began = time.perf_counter()
    processor = ControlProcessor(
        potential, max_new_tokens=world.tokens, eos_token_ids=world.lm.eos_token_ids, on_dead_end="drop"
    )
    output = world.lm.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        num_beams=world.rows,
        max_new_tokens=world.tokens,
        logits_processor=LogitsProcessorList([processor]),
    )
    text = output[0, prompt.shape[1] :].tolist()
    ends = [place for place, token in enumerate(text) if token in world.lm.eos_token_ids]
    text = text[: ends[0] + 1] if ends else text
    seconds = time.perf_counter() - began
    state, nats = world.lm.init(prompt), 0.0
    for token in text:
        nats -= float(world.lm.log_weights(state)[0, token])
        state = world.lm.step(state, torch.tensor([token]))
    return Texts([text], [nats], seconds)


def particles(world: World, method: str, automaton: Any, prompt: Tensor, rng: torch.Generator) -> Texts:
    """Texts drawn by weight from one run of `smc` or `branching`, the lookahead as twist.

    smc:NUMBER/PROPOSAL/THRESHOLD/EVERY/POWER/DETAIL, PROPOSAL being mask or look (the twist itself); branching:NUMBER/POWER/DETAIL;
    with "likeliest-" before them, the text of the run that the model likes best.
    """
    began = time.perf_counter()
    name, _, given = method.removeprefix("likeliest-").partition(":")
    numbers = [*given.split("/")] if given else []
    usual = ["64", "mask", "0.5", "1", "1", "1"] if name == "smc" else ["64", "1", "0"]
    numbers += usual[len(numbers) :]
    twist = Lookahead(world.hmm, automaton, detail=float(numbers[-1]), max_new_tokens=world.tokens, limit="open")
    options: dict[str, Any] = {"twist": twist ** float(numbers[-2])}
    if name == "smc":
        proposal = {"mask": None, "look": options["twist"]}[numbers[1]]
        options |= {"proposal": proposal, "threshold": float(numbers[2]), "every": int(numbers[3])}
    found = samplers.SAMPLERS[name](
        world.lm,
        AutomatonPotential(automaton),
        prompt,
        num=int(numbers[0]),
        max_new_tokens=world.tokens,
        rng=rng,
        **options,
    )
    if method.startswith("likeliest-"):
        texts = [max(found.tokens[0], key=lambda text: log_prob(world, prompt, text))]
    else:
        (texts,) = found.resample(world.rows, rng)
    seconds = time.perf_counter() - began
    return Texts(texts, [-log_prob(world, prompt, text) for text in texts], seconds, float(found.log_z[0]))


def log_prob(world: World, prompt: Tensor, text: list[int]) -> float:
    """log p(text | prompt) by one forward pass."""
    ids = torch.cat([prompt[0], torch.tensor(text)])[None]
    log_probs = world.lm.model(ids[:, :-1]).logits[0, prompt.shape[1] - 1 :].double().log_softmax(-1)
    return float(log_probs.gather(-1, ids[0, prompt.shape[1] :, None]).sum())


def figures(world: World, automaton: Any, texts: Texts) -> dict[str, float]:
    """What one set's texts come to."""
    eos = world.lm.eos_token_ids
    bodies = [[token for token in text if token not in eos] for text in texts.tokens]
    lengths = [len(text) for text in texts.tokens]
    again = [repetition(body) for body in bodies]
    return {
        "coverage": float(np.mean([automaton.accepts_tokens(body) for body in bodies])),
        "nats": sum(texts.nats) / sum(lengths),
        "tokens": float(np.mean(lengths)),
        "repetition": float(np.mean(again)),
        "log_z": texts.log_z,
        "milliseconds": 1000 * texts.seconds / max(lengths),
    }


def repetition(body: list[int]) -> float:
    """The share of 3-grams that stood before."""
    grams = [tuple(body[i : i + 3]) for i in range(len(body) - 2)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def evaluate(world: World, concepts: list[list[str]], methods: list[str], prompt: Tensor, out: Path | None) -> None:
    """Print a table, a line a method; texts go to `out`."""
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    lines: list[str] = []
    for number, words in enumerate(concepts):
        automaton = automata.contains_all(world.vocabulary, words)
        for method in methods:
            rng = torch.Generator().manual_seed(number)
            form, beamed = method.removeprefix("beams-"), method.startswith("beams-")
            if method.removeprefix("likeliest-").startswith(("smc", "branching")):
                texts = particles(world, method, automaton, prompt, rng)
            else:
                potential = potential_of(form, world, automaton)
                texts = beams(world, potential, prompt) if beamed else sample(world, potential, prompt, rng)
            found[method].append(figures(world, automaton, texts))
            lines += [
                json.dumps(
                    {
                        "set": words,
                        "method": method,
                        "nats": nats,
                        "text": world.vocabulary.bytes_of(spelled(world, body)).decode(errors="replace"),
                    }
                )
                for body, nats in zip(texts.tokens, texts.nats, strict=True)
            ]
        if number % 10 == 9:
            _print(found)
    _print(found)
    if out:
        out.write_text("\n".join(lines) + "\n")


def spelled(world: World, body: list[int]) -> list[int]:
    """The ids that are text."""
    return [token for token in body if world.vocabulary.tokens[token] is not None]


def _print(found: dict[str, list[dict[str, float]]]) -> None:
    base = None
    print(
        f"\n{'method':>16} {'sets':>5} {'coverage':>9} {'nats':>15} {'vs first':>9} {'tokens':>7} {'repeat':>7} {'log Z':>7} {'ms/token':>9}"
    )
    for method, rows in found.items():
        nats = np.array([row["nats"] for row in rows])
        base = nats.mean() if base is None else base
        error = nats.std() / max(len(nats) - 1, 1) ** 0.5
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        print(
            f"{method:>16} {len(rows):>5} {means['coverage']:>9.3f} {nats.mean():>7.3f} ± {error:.3f} {nats.mean() / base - 1:>+9.1%} "
            f"{means['tokens']:>7.1f} {means['repetition']:>7.3f} {means['log_z']:>7.1f} {means['milliseconds']:>9.1f}",
            flush=True,
        )


def world_of(hmm: str, tokens: int, rows: int, model: str = "") -> tuple[World, Any]:
    """Model, vocabulary and HMM from their files, and the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model or str(model_path("tinytales"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, size=loaded.config.vocab_size)
    return World(CausalLM(loaded), vocabulary, HMM.load(hmm, vocabulary), tokens, rows), tokenizer


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="mask,lookahead,coarse:1.25")
    parser.add_argument("--hmm", default="hmm/tinytales-256.safetensors")
    parser.add_argument("--model", default="")
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--words", type=int, default=0, help="only sets of so many words")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    world, tokenizer = world_of(options.hmm, options.tokens, options.rows, options.model)
    concepts = [line.split() for line in (HERE / "concepts.txt").read_text().splitlines()]
    concepts = [words for words in concepts if options.words in {0, len(words)}]
    prompt = torch.tensor([[world.vocabulary.eos_token_ids[0], *tokenizer(options.prompt).input_ids]])
    with torch.no_grad():
        evaluate(world, concepts[options.skip :][: options.sets], options.methods.split(","), prompt, options.out)


if __name__ == "__main__":
    main()
