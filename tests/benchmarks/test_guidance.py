"""What a step of GeDi costs beside the class LM's forward pass, at 50,257 tokens, and how many passes drafts cost."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ctrldecode._resources import model_path
from ctrldecode.assistants import light
from ctrldecode.guidance import GeDi
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor
from tests.guidance.drafts import TOKENS, fewer_layers, noisy, passes

if TYPE_CHECKING:
    from tests.benchmarks.report import Report

SIZE, PROMPT, ROUNDS, PROMPTS = 50257, 16, 60, 10


class Timed(CausalLM):
    """A language model that adds up the time of its forward passes."""

    seconds = 0.0

    def _forward(self, *arguments):
        began = time.perf_counter()
        found = super()._forward(*arguments)
        self.seconds += time.perf_counter() - began
        return found


def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=SIZE, n_embd=64, n_layer=2, n_head=2, n_positions=1024)
        return GPT2LMHeadModel(config).eval()


@pytest.mark.bench
def test_a_step_costs_a_forward_pass_and_less_than_a_millisecond(report: Report):
    network = model()
    columns = ["ms beside the forward pass", "rows", "median", "least", "forward pass"]
    for batch in (1, 8):
        lm = Timed(network)
        gedi = GeDi(lm, {"x": [10], "y": [11]}, target="x")
        ways = {
            "log-weights and step": None,
            "in a `ControlProcessor`": ControlProcessor(gedi),
            "with its support": ControlProcessor(gedi, support=gedi.support()),
        }
        beside: dict[str, list[float]] = {name: [] for name in ways}
        forward: list[float] = []
        ids = torch.randint(20, SIZE, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
        tokens = torch.randint(20, SIZE, (batch, ROUNDS + 1), generator=torch.Generator().manual_seed(1))
        state = gedi.init(ids)
        scores = torch.randn(batch, SIZE)
        for place in range(ROUNDS):
            for name, processor in ways.items():
                lm.seconds, began = 0.0, time.perf_counter()
                if processor is None:
                    gedi.log_weights(state)
                    state = gedi.step(state, tokens[:, place])
                else:
                    processor(torch.cat([ids, tokens[:, :place]], dim=1), scores)
                beside[name].append(1e3 * (time.perf_counter() - began - lm.seconds))
                forward.append(1e3 * lm.seconds)
        for name, found in beside.items():
            middles = [statistics.median(found), min(found[3:]), statistics.median(forward)]
            report.add("guidance", columns, [[name, str(batch), *(f"{middle:.2f}" for middle in middles)]])


@pytest.mark.bench
def test_drafts(report: Report):
    """What an assistant's tokens cost the class LM: tinytales writes, and drafts of falling quality are guided beside it."""
    model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
    drafts = {
        "the model itself": model,
        **{f"with noise of {part} standard deviations": noisy(model, part) for part in (0.05, 0.1, 0.2)},
        "five of its six layers": fewer_layers(model, 5),
        "three of its six layers": fewer_layers(model, 3),
    }
    columns = ["draft", "assistant", "tokens of a text", "store", "passes a text", "× plain decoding"]
    for new, room in ((TOKENS, None), (TOKENS, 1), (48, 1)):
        settings = {} if room is None else {"store_bytes": room}
        _, texts = passes(model, None, PROMPTS, new)
        for name, draft in drafts.items() if room is None else [("the model itself", model)]:
            for kind, assistant in (("as it is", draft), ("`light`", light(draft))):
                found, same = passes(model, assistant, PROMPTS, new, **settings)
                assert same == texts
                size = "256 MB" if room is None else "1 byte"
                row = [name, kind, str(new), size, f"{found / PROMPTS:.1f}", f"{found / PROMPTS / new:.2f}"]
                report.add("drafts", columns, [row], ["Where we lose: above 1.00, to plain decoding."])
