"""What the store of prefixes measures, and how much it reaches at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ctrldecode._prefixes import MOST_STATES, PrefixStore, prefix_keys, state_bytes
from ctrldecode.core.potential import per_row
from ctrldecode.lm import CausalLM
from tests.test_drafts import class_posterior
from tests.toys import SIZE, Automaton, tiny_llama

POTENTIALS = {
    "class posterior": class_posterior,
    "product": lambda: class_posterior() * Automaton(),
    "one a row": lambda: per_row([class_posterior()] * 2),
    "product of those": lambda: per_row([class_posterior()] * 2) * Automaton(),
    "products a row": lambda: per_row([class_posterior() * Automaton()] * 2) * Automaton(),
}


def tensors(state):
    """Bytes of all tensors and arrays, however deep."""
    if isinstance(state, torch.Tensor | np.ndarray):
        return state.nbytes
    if isinstance(state, tuple | list):
        return sum(map(tensors, state))
    fields = dataclasses.fields(state) if dataclasses.is_dataclass(state) else ()
    return sum(tensors(getattr(state, field.name)) for field in fields)


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_cache_of_a_class_lm_is_counted_wherever_it_is(name):
    state = POTENTIALS[name]().init(torch.arange(10, 50).repeat(2, 1))
    held = tensors(state)
    assert held > 40_000  # two rows of forty tokens, two classes
    assert held <= state_bytes(state) <= 1.1 * held


def test_a_long_text_is_replayed_in_pieces():
    most = []

    class Spy(CausalLM):
        def step_all(self, state, tokens):
            most.append(tokens.shape[1])
            return super().step_all(state, tokens)

    potential, store = Spy(tiny_llama(1)), PrefixStore(1, 1)
    ids = torch.randint(10, SIZE, (2, 3 * MOST_STATES), generator=torch.Generator().manual_seed(0))
    keys = [prefix_keys(row, 4, b"") for row in ids.numpy()]
    store.put([own[0] for own in keys], potential.init(ids[:, :4]))
    found = store.replay(potential, ids, keys)
    assert most == [MOST_STATES, MOST_STATES, MOST_STATES - 4]
    want = potential.log_weights(potential.init(ids))
    torch.testing.assert_close(potential.log_weights(found), want, rtol=1e-4, atol=1e-4)
