"""First counts against loops over positions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ctrldecode.distill import cluster
from ctrldecode.distill.initial import Hidden, first_counts
from ctrldecode.distill.sample import sample
from ctrldecode.kernels.hmm import _em_torch as kernel
from tests.toys import EOS, SIZE, tiny_llama

STATES = 6


@pytest.fixture(scope="module")
def hidden() -> Hidden:
    drawn = sample(
        tiny_llama(),
        [(), (5, 6)] * 30,
        10,
        begin=1,
        eos_token_ids=[EOS],
        rng=np.random.default_rng(0),
        keep_hidden=True,
    )
    assert drawn.hidden is not None
    own = (drawn.tokens >= 0) & (torch.arange(drawn.tokens.shape[1]) >= drawn.given[:, None])
    return Hidden(drawn.tokens, own, drawn.log_probs, drawn.hidden)


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    return tiny_llama().get_output_embeddings().weight.detach()


def counts_of(hidden: Hidden, head: torch.Tensor) -> kernel.Counts:
    counts = kernel.zero_counts(STATES, SIZE)
    first_counts(hidden, STATES, head, [EOS], np.random.default_rng(1), counts)
    return counts


def latent(hidden: Hidden) -> list[list[int]]:
    """Cluster of every position, the last state for the end."""
    inside = (hidden.tokens >= 0) & (hidden.tokens != EOS)
    points = hidden.states[inside].float()
    points = (points - points.mean(0)) / points.std(0)
    found = iter(cluster.assign(points, cluster.k_means(points, STATES - 1, np.random.default_rng(1))).tolist())
    return [[STATES - 1 if token == EOS else next(found) for token in row if token >= 0] for row in hidden.tokens]


def test_moves_are_those_between_clusters(hidden, head):
    counts = counts_of(hidden, head)
    initial, transition = torch.zeros(STATES), torch.zeros(STATES, STATES)
    for states in latent(hidden):
        initial[states[0]] += 1
        for before, after in itertools.pairwise(states):
            transition[before, after] += 1
    assert torch.equal(counts.initial, initial)
    assert torch.equal(counts.transition, transition)


def test_emissions_are_the_models_distributions_but_in_prompts(hidden, head):
    emission = torch.zeros(SIZE, STATES)
    for row, (states, tokens, vectors) in enumerate(zip(latent(hidden), hidden.tokens, hidden.states, strict=True)):
        for place, (state, token, vector) in enumerate(zip(states, tokens, vectors, strict=False)):
            if int(token) == EOS or place < 2 * (row % 2):
                emission[token, state] += 1
            else:
                emission[:, state] += (vector.float() @ head.T).softmax(-1)
    torch.testing.assert_close(counts_of(hidden, head).emission, emission, rtol=1e-4, atol=1e-4)


def test_a_head_that_does_more_leaves_the_tokens(hidden, head):
    emission = torch.zeros(SIZE, STATES)
    for states, tokens in zip(latent(hidden), hidden.tokens, strict=True):
        for state, token in zip(states, tokens, strict=False):
            emission[token, state] += 1
    assert torch.equal(counts_of(hidden, 3 * head).emission, emission)
