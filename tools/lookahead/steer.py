"""Stories steered towards a mood by an attribute at several strengths: the mood by the lexicon against the model's nats a token.

python -m tools.lookahead.steer --attribute hmm/attributes/sad.safetensors --mood sad --strengths 0,1,2,4
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctrldecode.core.potential import Potential
from ctrldecode.hmm.attributes import AttributeWeights
from ctrldecode.hmm.lookahead import Lookahead
from tools.lookahead.evaluate import Texts, World, repetition, sample, spelled, world_of
from tools.tinytales.mood import mood_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["One"]


class One(Potential["Tensor"]):
    """ψ = 1: the model alone."""

    def __init__(self, size: int) -> None:
        self.size = size

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Nothing to know but the number of rows."""
        return torch.zeros(len(prompts))

    def log_weights(self, state: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Zeros."""
        return torch.zeros(len(state), self.size if tokens is None else tokens.shape[1])

    def step(self, state: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Nothing changes."""
        return state


def steered(world: World, weights: AttributeWeights, strength: float, form: str) -> Potential[Any]:
    """The lookahead of an attribute, as σ(a · logit ψ) or as ψ^a; a strength of 0 is the model alone."""
    if strength == 0:
        return One(world.hmm.size)
    if form == "power":
        return Lookahead(world.hmm, None, weights, max_new_tokens=world.tokens, limit="open") ** strength
    return Lookahead(world.hmm, None, weights, max_new_tokens=world.tokens, limit="open", strength=strength)


def line(world: World, texts: Texts, mood: str, prompt: str) -> str:
    """Share of the mood with its standard error, nats a token, repetition, milliseconds a token."""
    bodies = [spelled(world, body) for body in texts.tokens]
    moods = [mood_of(prompt + world.vocabulary.bytes_of(body).decode(errors="replace")) for body in bodies]
    share = float(np.mean([found == mood for found in moods]))
    error = (share * (1 - share) / len(moods)) ** 0.5
    tokens = sum(len(body) for body in texts.tokens)
    again = float(np.mean([repetition(body) for body in bodies]))
    pace = 1000 * texts.seconds / max(len(body) for body in texts.tokens)
    return f"{share:>6.3f} ± {error:.3f} {sum(texts.nats) / tokens:>8.3f} {again:>8.3f} {pace:>9.1f}"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hmm", default="hmm/tinytales-256.safetensors")
    parser.add_argument("--attribute", default="hmm/attributes/sad.safetensors")
    parser.add_argument("--mood", default="sad")
    parser.add_argument("--strengths", default="0,1,2,4")
    parser.add_argument("--form", choices=["logit", "power"], default="power")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", default="Once upon a time")
    options = parser.parse_args()
    world, tokenizer = world_of(options.hmm, options.tokens, options.rows)
    weights = AttributeWeights.load(options.attribute, world.vocabulary)
    prompt = torch.tensor([[world.vocabulary.eos_token_ids[0], *tokenizer(options.prompt).input_ids]])
    print(f"{'strength':>9} {options.mood:>14} {'nats':>8} {'repeat':>8} {'ms/token':>9}")
    with torch.no_grad():
        for strength in map(float, options.strengths.split(",")):
            texts = sample(
                world, steered(world, weights, strength, options.form), prompt, torch.Generator().manual_seed(0)
            )
            print(f"{strength:>9g} {line(world, texts, options.mood, options.prompt)}", flush=True)


if __name__ == "__main__":
    main()
