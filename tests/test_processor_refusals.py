"""What `ControlProcessor`, its report, products and samplers say of arguments that are of another kind."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutput

from ctrldecode.automata import TokenDFA
from ctrldecode.core.potential import Potential, Product, per_row
from ctrldecode.errors import InputError, PotentialError
from ctrldecode.grammar import Grammar
from ctrldecode.processor import ControlProcessor
from tests.toys import EOS, SIZE, Automaton, Table, tiny_llama

NO_POTENTIALS = [
    (Grammar('start: "a"'), "Grammar; compile a grammar with grammar.compile"),
    (TokenDFA([[0]], start=0, accepting=[0], eos_token_ids=[0]), "TokenDFA; .* AutomatonPotential"),
    (Table, "got the class Table; .* make an object of a class"),
    ([Table(), Automaton()], "list; .* several potentials with \\*"),
    (None, "NoneType"),
]


class Sizeless(Potential):
    def init(self, prompts, mask=None, budget=None):
        return torch.zeros(len(prompts))

    def log_weights(self, state, tokens=None):
        return torch.zeros(len(state), SIZE)

    def step(self, state, tokens):
        return state


@pytest.mark.parametrize(("given", "message"), NO_POTENTIALS)
def test_what_is_no_potential_is_refused_with_what_to_write(given, message):
    for use in (ControlProcessor, lambda x: per_row([x]), lambda x: Product([(x, 1.0)])):
        with pytest.raises(InputError, match=message):
            use(given)


def test_a_potential_without_a_size_is_told_what_it_lacks():
    for use in (
        ControlProcessor,
        lambda x: x * Table(),
        lambda x: Table() * x,
        lambda x: x / Table(),
        lambda x: x**2,
        lambda x: per_row([x]),
    ):
        with pytest.raises(PotentialError, match=r"Sizeless must have a size, .* got none; set self.size"):
            use(Sizeless())


def test_a_support_is_a_support():
    with pytest.raises(InputError, match="support must be a Support, got function; write Support"):
        ControlProcessor(Table(), support=lambda log_probs, log_weights: log_probs > log_weights)


def generated(processor, **options):
    ids = torch.tensor([[5, 6, 7]])
    return tiny_llama().generate(
        ids, logits_processor=[processor], max_new_tokens=4, pad_token_id=0, eos_token_id=EOS, top_k=0, **options
    )


@pytest.mark.parametrize("mode", [{"do_sample": True}, {"num_beams": 3}, {"num_beams": 3, "output_scores": True}])
def test_a_report_reads_what_generate_returns(mode):
    processor = ControlProcessor(Table(), max_new_tokens=4, eos_token_ids=[EOS])
    output = generated(processor, return_dict_in_generate=True, **mode)
    assert processor.report(output) == processor.report(output.sequences)


def test_a_report_of_something_else_is_refused():
    processor = ControlProcessor(Table(), max_new_tokens=4)
    ids = generated(processor)
    for wrong, message in (
        (ids.tolist(), "got list"),
        (ids[0], r"got Tensor \(7,\)"),
        (ids.float(), "float32"),
        (
            CausalLMOutput(logits=torch.zeros(1, 7, SIZE)),
            "the output of generate that has them as sequences, got CausalLMOutput",
        ),
    ):
        with pytest.raises(InputError, match=message):
            processor.report(wrong)
