"""`importance`, `rejection` and `smc`: weights against enumeration, and what they have in common."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ctrldecode.core.potential import Potential
from ctrldecode.errors import InputError
from ctrldecode.samplers import importance, rejection, smc
from tests.samplers.enumeration import LENGTH, SIZE, Soft, TableLM, automaton, enumerate_all

PROMPT = torch.tensor([[0]])
RUNS = 200


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def targets(seed: int) -> dict[str, Potential]:
    hard = automaton(seed)
    return {"hard": hard, "soft": Soft(seed), "product": hard * Soft(seed)}


FORMS = {
    "importance": (importance, lambda _: {}),
    "importance, another proposal": (importance, lambda seed: {"proposal": Soft(seed + 5)}),
    "rejection": (rejection, lambda _: {}),
    "smc": (smc, lambda _: {"threshold": 0.9}),
    "smc, twisted": (smc, lambda seed: {"twist": Soft(seed + 7), "threshold": 0.9}),
    "smc, twist as proposal": (smc, lambda seed: {"twist": (t := Soft(seed + 7)), "proposal": t, "every": 2}),
    "smc, always": (smc, lambda seed: {"twist": Soft(seed + 7), "threshold": 1.0}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["hard", "soft", "product"])
def test_z_is_unbiased_within_three_sigma(form, kind):
    sampler, options = FORMS[form]
    seed = 1
    lm, potential = TableLM(seed), targets(seed)[kind]
    exact = enumerate_all(lm, potential)
    prompts = PROMPT.repeat(RUNS, 1)  # one run each
    found = sampler(lm, potential, prompts, num=50, max_new_tokens=LENGTH, rng=seeded(0), **options(seed))
    values = found.log_z.exp().numpy()
    sigma = values.std(ddof=1) / math.sqrt(RUNS)
    assert abs(values.mean() - math.exp(exact.log_z)) < 3 * sigma


@pytest.mark.parametrize("form", FORMS)
def test_weighted_means_are_those_of_the_target(form):
    """E[w f(x)] = Z E_π[f]: for f the number of tokens and an indicator, within four sigma over 400 runs."""
    sampler, options = FORMS[form]
    lm, potential = TableLM(2), targets(2)["product"]
    exact = enumerate_all(lm, potential)
    found = sampler(lm, potential, PROMPT.repeat(400, 1), num=8, max_new_tokens=LENGTH, rng=seeded(3), **options(2))
    for function in (len, lambda text: float(1 in text)):
        values = np.array(
            [
                np.mean([math.exp(w) * function(text) for text, w in zip(texts, weights.tolist(), strict=True)])
                for texts, weights in zip(found.tokens, found.log_weights, strict=True)
            ]
        )
        wanted = math.exp(exact.log_z) * sum(
            math.exp(p) * function(text) for text, p in zip(exact.texts, exact.log_probs, strict=True)
        )
        assert abs(values.mean() - wanted) < 4 * values.std(ddof=1) / math.sqrt(len(values))


def test_importance_weights_are_sums_of_normalisers():
    lm, potential = TableLM(0), automaton(0)
    found = importance(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0))
    for text, weight in zip(found.tokens[0], found.log_weights[0].tolist(), strict=True):
        state, control, total = lm.init(PROMPT), potential.init(PROMPT, None, torch.tensor([LENGTH])), 0.0
        for token in text:
            total += float((lm.log_weights(state) + potential.log_weights(control)).double().logsumexp(-1))
            state, control = lm.step(state, torch.tensor([token])), potential.step(control, torch.tensor([token]))
        assert weight == pytest.approx(total, abs=1e-5)


def test_conditional_smc_bounds_log_z_from_above():
    """E[1 / Ẑ] = 1 / Z where the retained text is a draw of the target; three sigma over 400 runs."""
    lm, potential = TableLM(1), automaton(1) * Soft(1)
    exact = enumerate_all(lm, potential)
    runs = 400
    rng = np.random.default_rng(0)
    picks = rng.choice(len(exact.texts), runs, p=np.exp(exact.log_probs))
    found = smc(
        lm,
        potential,
        PROMPT.repeat(runs, 1),
        num=6,
        max_new_tokens=LENGTH,
        rng=seeded(0),
        twist=Soft(9),
        threshold=0.8,
        retained=[exact.texts[i] for i in picks],
    )
    assert all(texts[0] == list(exact.texts[i]) for texts, i in zip(found.tokens, picks, strict=True))
    inverse = (-found.log_z).exp().numpy()
    assert abs(inverse.mean() - math.exp(-exact.log_z)) < 3 * inverse.std(ddof=1) / math.sqrt(runs)


def test_a_hard_potential_is_never_left_and_texts_end_within_the_budget():
    lm, potential = TableLM(3), automaton(3)
    for sampler in (importance, rejection, smc):
        found = sampler(lm, potential, PROMPT, num=100, max_new_tokens=LENGTH, rng=seeded(0))
        for text in found.tokens[0]:
            ended = text[-1] in lm.eos_token_ids
            body = text[:-1] if ended else text
            assert potential.dfa.accepts_tokens(body)
            assert ended or len(text) == LENGTH


class Asking(Potential):
    """A constraint that can be asked for single tokens only, and counts how many."""

    size = 2000

    def __init__(self) -> None:
        self.asked = 0

    def init(self, prompts, mask=None, budget=None):
        return torch.zeros(len(prompts))

    def log_weights(self, state, tokens=None):
        assert tokens is not None, "a mask was asked for"
        self.asked += tokens.numel()
        return torch.where(tokens % 10 == 3, 0.0, -math.inf)

    def step(self, state, tokens):
        return state


def test_rejection_asks_for_single_tokens_and_finds_rare_ones():
    lm, asking = TableLM(0, size=2000, eos=1999, sharpness=0.1), Asking()
    found = rejection(lm, asking, torch.tensor([[0]]), num=40, max_new_tokens=3, rng=seeded(0))
    assert all(token % 10 == 3 for text in found.tokens[0] for token in text)
    assert found.info["checks"] <= asking.asked < 40 * 3 * 200
    mass = lm.table.exp()[:, 3::10].sum(-1)  # about 0.1 at every step
    assert float(found.log_z.exp()) == pytest.approx(float(mass.mean()) ** 3, rel=0.6)


def test_rejection_keeps_precision_where_nearly_all_mass_is_refused():
    """One allowed token of probability 1e-6: its weight is that, not the rounding of 1 − (1 − 1e-6)."""

    class Rare(TableLM):
        def __init__(self) -> None:
            super().__init__(0)
            self.table = torch.tensor([1e-6, 0.4, 0.3, 0.3 - 1e-6, 0.0]).log().expand(5, 5)

    class First(Asking):
        size = SIZE

        def log_weights(self, state, tokens=None):
            return torch.where(tokens == 0, 0.0, -math.inf)

    found = rejection(Rare(), First(), PROMPT, num=2000, max_new_tokens=1, rng=seeded(0))
    assert set(map(tuple, found.tokens[0])) == {(0,)}
    assert float(found.log_z.exp()) == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize("sampler", [importance, rejection, smc], ids=lambda s: s.name)
def test_same_seed_same_samples_and_prompts_are_rows(sampler):
    lm, potential = TableLM(0), automaton(0) * Soft(0)
    prompts = torch.tensor([[0], [1], [2]])
    first = sampler(lm, potential, prompts, num=20, max_new_tokens=LENGTH, rng=seeded(5))
    again = sampler(lm, potential, prompts, num=20, max_new_tokens=LENGTH, rng=seeded(5))
    other = sampler(lm, potential, prompts, num=20, max_new_tokens=LENGTH, rng=seeded(6))
    assert first.tokens == again.tokens
    assert all(torch.equal(a, b) for a, b in zip(first.log_weights, again.log_weights, strict=True))
    assert first.tokens != other.tokens
    assert [len(own) for own in first.tokens] == [20, 20, 20]
    assert first.log_z.shape == first.ess.shape == (3,)
    assert bool((first.ess <= 20 + 1e-9).all())


def test_prefixes_that_particles_share_are_computed_once():
    lm, potential = TableLM(0), automaton(0)
    found = importance(lm, potential, PROMPT, num=500, max_new_tokens=LENGTH, rng=seeded(0))
    prefixes = {tuple(text[:i]) for text in found.tokens[0] for i in range(len(text))}
    assert found.lm_calls == lm.asked == len(prefixes)


def test_a_large_vocabulary_and_many_rows_are_run_in_batches(monkeypatch):
    from ctrldecode.samplers import _particles

    monkeypatch.setattr(_particles, "ENTRIES", 60)
    lm, potential = TableLM(1), automaton(1)
    exact = enumerate_all(lm, potential)
    for sampler in (importance, smc):
        found = sampler(lm, potential, PROMPT.repeat(3, 1), num=400, max_new_tokens=LENGTH, rng=seeded(0))
        assert [len(own) for own in found.tokens] == [400] * 3
        assert found.log_z.exp().mean() == pytest.approx(math.exp(exact.log_z), rel=0.1)


def test_dead_ends_have_weight_zero():
    class Nothing(Soft):
        def log_weights(self, state, tokens=None):
            weights = super().log_weights(state)
            weights[state.last == 1] = -math.inf  # whoever took a 1 cannot go on
            return weights if tokens is None else weights.gather(1, tokens)

    lm = TableLM(0)
    exact = enumerate_all(lm, Nothing())
    for sampler in (importance, rejection, smc):
        found = sampler(lm, Nothing(), PROMPT.repeat(RUNS, 1), num=30, max_new_tokens=LENGTH, rng=seeded(0))
        weights = torch.cat(found.log_weights)
        assert bool(weights.isneginf().any()) or sampler is smc
        values = found.log_z.exp()
        assert abs(values.mean() - math.exp(exact.log_z)) < 3 * values.std() / math.sqrt(RUNS)


def test_resampled_texts_follow_the_weights():
    found = importance(TableLM(0), automaton(0) * Soft(0), PROMPT, num=400, max_new_tokens=LENGTH, rng=seeded(0))
    shares = (found.log_weights[0] - found.log_weights[0].logsumexp(-1)).exp()
    (texts,) = found.resample(1000, seeded(1))
    for text in {tuple(text) for text in texts}:
        wanted = sum(float(s) for s, own in zip(shares, found.tokens[0], strict=True) if tuple(own) == text)
        copies = sum(tuple(own) == text for own in found.tokens[0])
        assert (
            abs(texts.count(list(text)) / 1000 - wanted) <= copies / 1000 + 1e-9
        )  # systematic: within one of n·w each


def test_stops_after_so_many_calls_and_on_interruption():
    lm, potential = TableLM(0), automaton(0)
    found = smc(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0), max_lm_calls=3)
    assert found.stopped == "max_lm_calls"
    assert found.lm_calls >= 3
    assert max(map(len, found.tokens[0])) < LENGTH
    assert bool(found.log_z.isnan().all())
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if len(seen) == 3:
            raise KeyboardInterrupt

    found = importance(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0), progress=interrupt)
    assert found.stopped == "interrupted"
    assert [at.done for at in seen] == [0, 1, 2]


def test_batches_that_are_whole_are_kept(monkeypatch):
    from ctrldecode.samplers import _particles

    monkeypatch.setattr(_particles, "ENTRIES", 50)
    lm, potential = TableLM(0), automaton(0)
    found = importance(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0), max_lm_calls=60)
    assert found.stopped == "max_lm_calls"
    assert len(found.tokens[0]) % 10 == 0
    assert 0 < len(found.tokens[0]) < 50
    assert all(len(text) == LENGTH or text[-1] in lm.eos_token_ids for text in found.tokens[0])
    assert bool(found.log_z.isfinite().all())


def test_bad_arguments_say_what_is_wanted():
    lm, potential = TableLM(0), automaton(0)
    call = {"max_new_tokens": LENGTH}
    with pytest.raises(InputError, match="one vocabulary"):
        importance(lm, Soft(0, size=7), PROMPT, **call)
    with pytest.raises(InputError, match="one vocabulary"):
        importance(lm, potential, PROMPT, proposal=Soft(0, size=7), **call)
    with pytest.raises(InputError, match="a sampler wants a potential, got "):
        importance(lm, "grammar", PROMPT, **call)
    with pytest.raises(InputError, match="num must"):
        importance(lm, potential, PROMPT, num=0, **call)
    with pytest.raises(InputError, match="max_new_tokens"):
        importance(lm, potential, PROMPT, max_new_tokens=0)
    with pytest.raises(InputError, match="prompts must"):
        importance(lm, potential, torch.zeros(1, 0, dtype=torch.long), **call)
    with pytest.raises(InputError, match="different lengths"):
        importance(lm, potential, [[0], [0, 1]], **call)
    with pytest.raises(InputError, match="threshold"):
        smc(lm, potential, PROMPT, threshold=2, **call)
    with pytest.raises(InputError, match="retained wants"):
        smc(lm, potential, PROMPT, retained=[[0]], **call)
    allowed = enumerate_all(lm, potential).texts
    forbidden = next(text for text in enumerate_all(lm, Soft(0)).texts if text not in allowed)
    with pytest.raises(InputError, match="weight 0"):
        smc(lm, potential, PROMPT, retained=[forbidden], **call)
    with pytest.raises(InputError, match="eos_token_ids"):
        importance(Soft(0), potential, PROMPT, **call)
    with pytest.raises(TypeError, match="unexpected"):
        importance(lm, potential, PROMPT, twist=potential, **call)
