from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.core.potential import per_row
from ctrldecode.errors import InputError
from ctrldecode.guidance import GeDi
from ctrldecode.guidance._support import top_posteriors
from ctrldecode.processor import ControlProcessor
from tests.guidance.models import CODES, EOS, SIZE, TableModel
from tests.toys import Automaton, Table


def fewest(posteriors, guided, mass, threshold):
    """By trying every set: the smallest prefix of the tokens by posterior, and what reaches the threshold."""
    total = sum(guided)
    order = sorted(range(len(guided)), key=lambda token: (-posteriors[token], token))
    for count in range(1, len(order) + 1):
        chosen = set(order[:count])
        if sum(guided[token] for token in chosen) >= mass * total - 1e-9:
            break
    return chosen | {token for token, value in enumerate(posteriors) if value >= threshold}


numbers = st.integers(1, 999).map(lambda n: n / 1000)


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.tuples(numbers, st.integers(0, 50)), min_size=1, max_size=8, unique_by=lambda pair: pair[0]),
    st.sampled_from([0.05, 0.3, 0.8, 0.95, 1.0]),
    st.sampled_from([0.0, 0.25, 0.5005, 0.9, 1.0]),
)
def test_kept_are_the_fewest_of_highest_posterior_and_what_reaches_the_threshold(pairs, mass, threshold):
    posteriors, guided = zip(*pairs, strict=True)
    if not any(guided):
        return
    # Where a set holds the mass but for rounding, either answer is right.
    order = sorted(zip(posteriors, guided, strict=True), reverse=True)
    held = list(itertools.accumulate(weight for _, weight in order))
    if any(abs(part / held[-1] - mass) < 1e-6 for part in held[:-1]):
        return
    keep = top_posteriors(
        torch.tensor([posteriors]).log(), torch.tensor([guided], dtype=torch.float32).log(), mass, threshold
    )
    assert set(keep[0].nonzero().flatten().tolist()) == fewest(posteriors, guided, mass, threshold)
    assert any(guided[token] for token in keep[0].nonzero().flatten().tolist())


def test_forbidden_tokens_of_high_posterior_do_not_use_up_the_mass():
    posteriors = torch.tensor([[0.9, 0.8, 0.5, 0.4]]).log()
    guided = torch.tensor([[-math.inf, -math.inf, 0.0, 0.0]])
    assert top_posteriors(posteriors, guided, 0.1, 1.0).tolist() == [[True, True, True, False]]


def test_a_tiny_mass_keeps_a_token():
    posteriors = torch.tensor([[0.4, 0.8]]).log()
    assert top_posteriors(posteriors, torch.zeros(1, 2), 1e-60, 1.0).tolist() == [[False, True]]


def test_a_row_without_mass_does_no_harm():
    keep = top_posteriors(torch.zeros(1, 3), torch.full((1, 3), -math.inf), 0.5, 0.5)
    assert keep.shape == (1, 3)


def test_the_processor_cuts_by_the_absolute_posterior():
    gedi = GeDi(TableModel(), CODES, target="a", strength=3.0, scale=4.0)
    threshold = 0.45
    processor = ControlProcessor(gedi, support=gedi.support(mass=1e-6, threshold=threshold))
    rows = torch.tensor([[1, 2], [3, 0]])
    for text in ([], [2], [2, 3], [2, 3, 1]):
        ids = torch.cat([rows, torch.tensor([text] * 2, dtype=torch.long).reshape(2, -1)], dim=1)
        scores = torch.randn(2, SIZE, generator=torch.Generator().manual_seed(len(text)))
        out = processor(ids, scores)
        for row in range(2):
            kept = []
            for token in range(SIZE):
                state = gedi.init(rows[row : row + 1])
                for chosen in [*text, token]:
                    state = gedi.step(state, torch.tensor([chosen]))
                kept.append(float(gedi.log_posteriors(state)[0, 0].exp()))
            best = kept.index(max(kept))
            want = [value >= threshold or token == best for token, value in enumerate(kept)]
            assert (~out[row].isneginf()).tolist() == want
    assert (~out.isneginf()).any(-1).all()


def test_the_support_works_within_a_product():
    gedi = GeDi(TableModel(size=50, eos=2), {"x": [5], "y": [6]}, target="x")
    product = Automaton(modulus=2) * gedi**0.5
    ids = torch.tensor([[3, 4, 6]])
    scores = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    with_support = ControlProcessor(product, support=gedi.support(0.3, 0.9))(ids, scores)
    without = ControlProcessor(product)(ids, scores)
    keep = top_posteriors(gedi.log_posteriors_after(gedi.init(ids)), without, 0.3, 0.9)
    assert torch.equal(with_support, without.masked_fill(~keep, -math.inf))
    assert 0 < int((~with_support.isneginf()).sum()) < int((~without.isneginf()).sum())


def test_finished_rows_stay_neutral_under_the_support():
    gedi = GeDi(TableModel(), CODES, target="a", scale=4.0)
    processor = ControlProcessor(gedi, support=gedi.support(0.1, 1.0))
    scores = torch.randn(1, SIZE)
    processor(torch.tensor([[1, 2]]), scores)
    out = processor(torch.tensor([[1, 2, EOS]]), scores)
    assert torch.allclose(out, torch.log_softmax(scores, -1))


@pytest.mark.parametrize("other", [Table(), per_row([Table(), Table()])])
def test_a_support_of_a_potential_that_is_not_there_is_refused(other):
    gedi = GeDi(TableModel(size=50, eos=2), {"x": [5], "y": [6]}, target="x")
    with pytest.raises(InputError, match="is no factor of"):
        ControlProcessor(other, support=gedi.support())


@pytest.mark.parametrize(("mass", "threshold"), [(0, 0.5), (1.1, 0.5), (0.5, -0.1), (0.5, 1.5), (math.nan, 0.5)])
def test_numbers_out_of_range(mass, threshold):
    with pytest.raises(InputError, match="mass must lie in"):
        GeDi(TableModel(), CODES, target="a").support(mass, threshold)
