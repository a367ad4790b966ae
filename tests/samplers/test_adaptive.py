"""`asap` and `cars`, their trie and `Future`: bounds, exactness and precision against enumeration."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import stats

from ctrldecode import HMM, CausalLM, ControlProcessor, HMMLanguageModel, Lookahead, diagnostics, laws
from ctrldecode.automata import TokenDFA
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.errors import DeadEnd, InputError, ModelError, PotentialError
from ctrldecode.samplers import Future, Trie, asap, cars, importance, mcmc, smc
from ctrldecode.samplers._problem import problem_of
from ctrldecode.samplers._trie import GrowingTrie, Seen
from tests.samplers.enumeration import EOS, LENGTH, SIZE, Exact, Soft, TableLM, automaton, enumerate_all

if TYPE_CHECKING:
    from collections.abc import Iterable

PROMPT = torch.tensor([[0]])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def future_of(lm, potential, exact: Exact, prefix: tuple[int, ...]) -> float:
    """E[Φ | prefix] by enumeration, for a hard potential."""
    behind = sum(
        math.exp(p + exact.log_z)
        for text, p in zip(exact.texts, exact.log_probs, strict=True)
        if text[: len(prefix)] == prefix
    )
    state, p = lm.init(PROMPT), 0.0
    for token in prefix:
        p += float(lm.log_weights(state)[0, token])
        state = lm.step(state, torch.tensor([token]))
    return behind / math.exp(p)


def divergence(log_q: dict[tuple[int, ...], float], exact: Exact) -> float:
    """KL(q ‖ π) of a distribution that is given exactly."""
    target = dict(zip(exact.texts, exact.log_probs, strict=True))
    return sum(math.exp(q) * (q - target[text]) for text, q in log_q.items())


def proposal(lm, potential, trie: Trie | None = None) -> dict[tuple[int, ...], float]:
    """log q of every text, for sampling token by token under the potential, and a trie's future if there is one."""
    control = potential if trie is None else Future(trie) * potential
    found: dict[tuple[int, ...], float] = {}

    def grow(text, total, state, inner):
        scores = (lm.log_weights(state) + control.log_weights(inner))[0].double().log_softmax(-1)
        for token in range(lm.size):
            value = total + float(scores[token])
            if value == -math.inf:
                continue
            if token == EOS or len(text) + 1 == LENGTH:
                found[(*text, token)] = value
            else:
                at = torch.tensor([token])
                grow((*text, token), value, lm.step(state, at), control.step(inner, at))

    grow((), 0.0, lm.init(PROMPT), control.init(PROMPT, None, torch.tensor([LENGTH])))
    return found


def chi_square(texts: Iterable[list[int]], exact: Exact) -> float:
    """p-value of counts against the target, texts expected fewer than five times taken together."""
    counts = Counter(map(tuple, texts))
    total = sum(counts.values())
    expected = np.exp(exact.log_probs) * total
    observed = np.array([counts[text] for text in exact.texts])
    assert observed.sum() == total, "a text outside the target"
    often = expected >= 5
    few = [(~often) @ observed, (~often) @ expected]
    table = np.array([[*observed[often], few[0]], [*expected[often], few[1]]]) if few[1] > 0 else None
    got, wanted = (observed[often], expected[often]) if table is None else table
    return float(stats.chisquare(got, wanted).pvalue)


@pytest.mark.parametrize("seed", range(3))
def test_cars_samples_are_exact(seed):
    lm, potential = TableLM(seed), automaton(seed)
    exact = enumerate_all(lm, potential)
    found = cars(lm, potential, PROMPT, num=10_000, max_new_tokens=LENGTH, rng=seeded(seed))
    assert chi_square(found.tokens[0], exact) > 0.001
    assert bool((found.log_weights[0] == 0).all())
    assert float(found.log_z[0]) == pytest.approx(exact.log_z, abs=0.05)


def test_the_first_samples_of_cars_are_exact_too():
    """Every run starts from nothing: the first text of each of 800 runs, and the third of each."""
    lm, potential = TableLM(1), automaton(1)
    exact = enumerate_all(lm, potential)
    runs = [
        cars(lm, potential, PROMPT, num=3, max_new_tokens=LENGTH, rng=seeded(seed)).tokens[0] for seed in range(800)
    ]
    assert chi_square([run[0] for run in runs], exact) > 0.001
    assert chi_square([run[2] for run in runs], exact) > 0.001


@pytest.mark.parametrize("seed", [1, 2])
def test_mcmc_forgets_where_it_began(seed):
    lm, potential = TableLM(seed), automaton(seed) * (Soft(seed) if seed == 2 else Soft(seed) ** 0)
    exact = enumerate_all(lm, potential)
    found = mcmc(lm, potential, PROMPT, num=10_000, max_new_tokens=LENGTH, rng=seeded(seed), moves=25)
    assert chi_square(found.tokens[0], exact) > 0.001
    assert float(found.log_z[0]) == pytest.approx(exact.log_z, abs=0.05)
    start = mcmc(lm, potential, PROMPT, num=10_000, max_new_tokens=LENGTH, rng=seeded(seed), moves=0)
    assert chi_square(start.tokens[0], exact) < 1e-6  # so the test can tell


def test_mcmc_stops_within_a_move_and_runs_in_batches(monkeypatch):
    from ctrldecode.samplers import _mcmc

    lm, potential = TableLM(1), automaton(1)
    exact = enumerate_all(lm, potential)
    monkeypatch.setattr(_mcmc, "ENTRIES", 300 * SIZE)  # 1,000 chains in four batches
    found = mcmc(lm, potential, PROMPT, num=1000, max_new_tokens=LENGTH, rng=seeded(0), moves=25)
    assert chi_square(found.tokens[0], exact) > 0.001
    assert 0 < found.info["acceptance"] < 1
    few = mcmc(lm, potential, PROMPT, num=1000, max_new_tokens=LENGTH, rng=seeded(0), moves=25, max_lm_calls=900)
    assert few.stopped == "max_lm_calls"
    assert 900 <= few.lm_calls < 1200
    assert len(few.tokens[0]) == 1000
    assert all(tuple(text) in set(exact.texts) for text in few.tokens[0])
    none = mcmc(lm, potential, PROMPT, num=1000, max_new_tokens=LENGTH, rng=seeded(0), max_lm_calls=2)
    assert none.tokens == [[]]
    assert bool(none.log_z.isnan().all())


@pytest.mark.parametrize("seed", range(4))
def test_asap_bounds_fall_and_never_below_the_truth(seed):
    lm, potential = TableLM(seed), automaton(seed)
    exact = enumerate_all(lm, potential)
    found = asap(lm, potential, PROMPT, num=300, max_new_tokens=LENGTH, rng=seeded(0))
    trie: Trie = found.info["trie"]
    bounds = found.info["log_bound"][0]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] >= exact.log_z - 1e-9
    for prefix in {tuple(text[:i]) for text in found.tokens[0] for i in range(len(text))}:
        assert math.exp(trie.log_future([0], prefix)) >= future_of(lm, potential, exact, prefix) - 1e-6


def test_asap_knows_the_truth_once_all_was_seen():
    lm, potential = TableLM(3), automaton(3)
    exact = enumerate_all(lm, potential)
    found = asap(lm, potential, PROMPT, num=10_000, max_new_tokens=LENGTH, rng=seeded(0))
    assert found.info["log_bound"][0][-1] == pytest.approx(exact.log_z, abs=2e-4)


def paper_loop(lm: TableLM, potential, num: int, seed: int) -> tuple[dict[tuple[int, ...], float], int]:
    """The loop of the paper, plainly: one call of the model a token, values in a dictionary; returns them and the calls."""
    values: dict[tuple[int, ...], float] = {}
    rng, calls = np.random.default_rng(seed), 0
    for _ in range(num):
        text: tuple[int, ...] = ()
        state, inner = lm.init(PROMPT), potential.init(PROMPT, None, torch.tensor([LENGTH]))
        seen = []
        while True:
            p = lm.log_weights(state)[0].double().exp().numpy()
            calls += 1
            allowed = potential.log_weights(inner)[0].exp().double().numpy()
            weights = [p[v] * allowed[v] * values.get((*text, v), 1.0) for v in range(SIZE)]
            seen.append((text, p * allowed))
            token = int(rng.choice(SIZE, p=np.array(weights) / sum(weights)))
            text = (*text, token)
            if token == EOS or len(text) == LENGTH:
                break
            at = torch.tensor([token])
            state, inner = lm.step(state, at), potential.step(inner, at)
        for prefix, p in reversed(seen):
            values[prefix] = sum(p[v] * values.get((*prefix, v), 1.0) for v in range(SIZE))
    return values, calls


def test_asap_gets_where_the_papers_loop_gets_with_a_fifth_of_its_calls():
    for seed in range(3):
        lm, potential = TableLM(seed, sharpness=2.0), automaton(seed)
        exact = enumerate_all(lm, potential)
        found = asap(lm, potential, PROMPT, num=1000, max_new_tokens=LENGTH, rng=seeded(0))
        values, calls = paper_loop(lm, potential, 1000, 0)
        assert divergence(proposal(lm, potential, found.info["trie"]), exact) < 0.1
        assert found.lm_calls * 5 <= calls
        for prefix, value in values.items():  # both bound the truth, and agree where both are close to it
            assert value >= future_of(lm, potential, exact, prefix) - 1e-6
        assert math.log(values[()]) == pytest.approx(found.info["trie"].log_future([0]), abs=0.05)


def test_asap_improves_on_the_mask():
    lm, potential = TableLM(1, sharpness=2.0), automaton(1)
    exact = enumerate_all(lm, potential)
    found = asap(lm, potential, PROMPT, num=300, max_new_tokens=LENGTH, rng=seeded(0))
    masked = divergence(proposal(lm, potential), exact)
    assert divergence(proposal(lm, potential, found.info["trie"]), exact) < 0.2 * masked


@pytest.mark.parametrize("form", ["plain", "soft", "start", "future"])
def test_asap_weights_are_unbiased(form):
    lm, hard = TableLM(2), automaton(2)
    potential = hard * Soft(2) if form == "soft" else hard
    exact = enumerate_all(lm, potential)
    options = {"start": Soft(5)} if form == "start" else {}
    if form == "future":
        options = {"trie": asap(lm, potential, PROMPT, num=5, max_new_tokens=LENGTH, rng=seeded(99)).info["trie"]}
    values = []
    for seed in range(200):
        found = asap(lm, potential, PROMPT, num=8, max_new_tokens=LENGTH, rng=seeded(seed), **options)
        values.append(math.exp(float(found.log_z[0])))
        assert found.info["trie"].sound is (form in {"plain", "future"})
    assert abs(np.mean(values) - math.exp(exact.log_z)) < 3 * np.std(values, ddof=1) / math.sqrt(200)


@pytest.mark.parametrize("twice", [False, True])
def test_texts_drawn_side_by_side_are_exact_and_keep_the_bounds_consistent(twice):
    """Several of one prompt in a round, by `parallel` or as rows of a batch."""
    lm, potential = TableLM(1), automaton(1)
    exact = enumerate_all(lm, potential)
    prompts = PROMPT.repeat(3, 1) if twice else PROMPT
    options = {} if twice else {"parallel": 7}
    fair = cars(lm, potential, prompts, num=4000, max_new_tokens=LENGTH, rng=seeded(0), **options)
    assert chi_square([text for own in fair.tokens for text in own], exact) > 0.001
    assert [len(own) for own in fair.tokens] == [4000] * len(prompts)
    learned = asap(lm, potential, prompts, num=60, max_new_tokens=LENGTH, rng=seeded(0), **options)
    trie: Trie = learned.info["trie"]
    assert trie.log_future([0]) >= exact.log_z - 1e-6

    def value(prefix):  # the recursion over what is known
        state, inner = lm.init(PROMPT), potential.init(PROMPT, None, torch.tensor([LENGTH]))
        for token in prefix:
            state, inner = lm.step(state, torch.tensor([token])), potential.step(inner, torch.tensor([token]))
        p = (lm.log_weights(state) + potential.log_weights(inner))[0].double().exp().tolist()
        known = [token for token in range(SIZE) if trie.node([0], (*prefix, token)) >= 0]
        return sum(p) - sum(p[token] * (1 - value((*prefix, token))) for token in known)

    assert math.exp(trie.log_future([0])) == pytest.approx(value(()), abs=1e-6)
    values = [
        math.exp(
            float(asap(lm, potential, PROMPT, num=8, max_new_tokens=LENGTH, rng=seeded(seed), parallel=4).log_z[0])
        )
        for seed in range(200)
    ]
    assert abs(np.mean(values) - math.exp(exact.log_z)) < 3 * np.std(values, ddof=1) / math.sqrt(200)


def test_cars_refuses_what_is_no_upper_bound():
    with pytest.raises(PotentialError, match="no upper bound"):
        cars(TableLM(2), Soft(2), PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0))


def test_prompts_have_futures_of_their_own_and_batches_equal_single_runs():
    lm, potential = TableLM(0), automaton(0)
    prompts = torch.arange(16)[:, None] % 4
    for sampler in (asap, cars):
        found = sampler(lm, potential, prompts, num=30, max_new_tokens=LENGTH, rng=seeded(0))
        assert [len(own) for own in found.tokens] == [30] * 16
        trie: Trie = found.info["trie"]
        assert set(trie.roots) == {(0,), (1,), (2,), (3,)}
        for prompt in range(4):
            exact = enumerate_all(lm, potential, (prompt,))
            assert trie.log_future([prompt]) >= exact.log_z - 1e-9
            assert trie.log_future([prompt]) == pytest.approx(exact.log_z, abs=0.2)


def test_padding_on_the_left_changes_nothing():
    lm, potential = TableLM(0), automaton(0)
    padded, mask = torch.tensor([[3, 0], [1, 0]]), torch.tensor([[False, True], [True, True]])
    found = asap(lm, potential, padded, mask=mask, num=40, max_new_tokens=LENGTH, rng=seeded(0))
    assert set(found.info["trie"].roots) == {(0,), (1, 0)}


def test_same_seed_same_samples_and_states_are_handed_on():
    lm, potential = TableLM(0), automaton(0)
    for sampler in (asap, cars, mcmc):
        first = sampler(lm, potential, PROMPT, num=40, max_new_tokens=LENGTH, rng=seeded(3))
        again = sampler(lm, potential, PROMPT, num=40, max_new_tokens=LENGTH, rng=seeded(3))
        assert first.tokens == again.tokens
        assert torch.equal(first.log_weights[0], again.log_weights[0])
    problem = problem_of(lm, potential, PROMPT, mask=None, max_new_tokens=LENGTH, eos_token_ids=None)
    state = asap.init(problem, 5, seeded(0))
    after, info = asap.step(problem, state, seeded(0))
    assert len(info.walked) == 1
    with pytest.raises(InputError, match="stepped already"):
        asap.step(problem, state, seeded(0))
    asap.step(problem, after, seeded(0))


def test_the_cache_saves_calls_and_changes_nothing_else():
    lm, potential = TableLM(0), automaton(0)
    kept = asap(lm, potential, PROMPT, num=200, max_new_tokens=LENGTH, rng=seeded(0))
    none = asap(lm, potential, PROMPT, num=200, max_new_tokens=LENGTH, rng=seeded(0), cache_bytes=0)
    assert kept.tokens == none.tokens
    for entries in (1, 2, 5, 20):  # some prefixes are known, and others on the same way were dropped
        few = asap(lm, potential, PROMPT, num=200, max_new_tokens=LENGTH, rng=seeded(0), cache_bytes=entries * 4 * SIZE)
        assert few.tokens == kept.tokens
        assert few.info["trie"].log_future([0]) == pytest.approx(kept.info["trie"].log_future([0]), abs=1e-6)
    assert kept.lm_calls == kept.info["trie"].nodes
    assert none.lm_calls == sum(map(len, none.tokens[0]))


def test_nothing_possible_is_a_dead_end_not_a_loop():
    lm = TableLM(0)
    lm.table[:] = torch.tensor([0.0, -math.inf, -math.inf, -math.inf, -math.inf])
    potential = automaton(next(s for s in range(50) if enumerate_all(lm, automaton(s)).log_z == -math.inf))
    with pytest.raises(DeadEnd):
        cars(lm, potential, PROMPT, num=3, max_new_tokens=LENGTH, rng=seeded(0))


@pytest.mark.parametrize("sampler", [asap, cars], ids=lambda s: s.name)
def test_probabilities_below_what_floats_hold(sampler):
    """Behind the likely token nothing is possible; the others have log-probabilities of −800 and below."""
    lm = TableLM(0)
    lm.table[0] = torch.tensor([0.0, -800.0, -801.0, -900.0, -math.inf])
    after = AutomatonPotential(TokenDFA([[1, 2, 2, 2, -1], [1, -1, -1, -1, -1], [2, 2, 2, 2, -1]], 0, [2], EOS))
    exact = enumerate_all(lm, after)
    assert exact.log_z < -700
    found = sampler(lm, after, PROMPT, num=40, max_new_tokens=LENGTH, rng=seeded(0), max_lm_calls=2000)
    assert found.stopped is None
    assert bool(found.log_weights[0][-20:].isfinite().all())
    assert found.info["trie"].log_future([0]) == pytest.approx(exact.log_z, abs=0.01)


def test_a_start_changes_no_unit():
    lm, potential = TableLM(1), automaton(11)
    exact = enumerate_all(lm, potential)
    known = cars(lm, potential, PROMPT, num=30, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    for sampler in (asap, cars):
        found = sampler(
            lm, potential, PROMPT, num=300, max_new_tokens=LENGTH, rng=seeded(0), start=Future(known), sound=True
        )
        assert float(found.log_z[0]) == pytest.approx(exact.log_z, abs=0.2)
        bounds = diagnostics.log_z_bounds(found)
        assert bounds.lower <= exact.log_z + 1e-6
        assert bounds.upper >= exact.log_z - 1e-6


def test_values_of_a_soft_potential_are_no_bounds():
    found = asap(TableLM(0), Soft(0), PROMPT, num=20, max_new_tokens=LENGTH, rng=seeded(0))
    assert not found.info["trie"].sound
    assert diagnostics.log_z_bounds(found).upper == math.inf


def test_a_rare_constraint_is_estimated_and_does_not_hang():
    """The model gives the constraint, a 1 that comes first, a probability of 1e-6."""
    lm = TableLM(0)
    lm.table[0] = torch.tensor([0.5, 1e-6, 0.25, 0.25 - 1e-6, 0.0]).log()
    first = AutomatonPotential(TokenDFA([[-1, 1, -1, -1, -1], [1, 1, 1, 1, -1]], 0, [1], EOS))
    exact = enumerate_all(lm, first)
    assert math.exp(exact.log_z) == pytest.approx(1e-6, rel=1e-3)
    for sampler in (importance, asap):
        found = sampler(lm, first, PROMPT, num=10, max_new_tokens=LENGTH, rng=seeded(0))
        assert float(found.log_z[0]) == pytest.approx(exact.log_z, abs=1e-4)
    found = cars(lm, first, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(0), max_lm_calls=200)
    assert found.stopped is None  # one refusal teaches it all
    assert found.info["attempts"] == [51]
    assert found.info["trie"].log_future([0]) == pytest.approx(exact.log_z, abs=1e-4)
    few = cars(lm, automaton(1), PROMPT, num=500, max_new_tokens=LENGTH, rng=seeded(0), max_lm_calls=20)
    assert few.stopped == "max_lm_calls"
    assert 0 < len(few.tokens[0]) < 500


# ------------------------------------------------------------------------------------------------------------- the trie


def seen(ids, probs, masses, rests=None) -> Seen:
    rests = [math.nan] * len(masses) if rests is None else rests
    with np.errstate(divide="ignore"):
        return Seen(
            np.array(ids, np.int64),
            np.log(np.array(probs)).astype(np.float32),
            np.log(np.array(masses, dtype=np.float64)),
            np.log(np.array(rests, dtype=np.float64)),
        )


def growing(size=SIZE, length=8) -> GrowingTrie:
    return GrowingTrie(Trie(size, length, [EOS]))


def test_small_values_keep_their_relative_precision():
    """A mass of 1e-300 far below: c of the prefixes above is a sum of numbers that are all tiny."""
    trie = growing()
    tiny = 1e-300
    trie.insert((0,), seen([1, 2], [0.5, 0.25], [0.5, 0.25, tiny], [0.0, 0.0, tiny]))
    found = trie.frozen()
    first, second = float(np.float32(math.log(0.5))), float(np.float32(math.log(0.25)))  # edges are kept in float32
    assert found.log_future([0], [1, 2]) == pytest.approx(math.log(tiny), abs=1e-12)
    assert found.log_future([0], [1]) == pytest.approx(second + math.log(tiny), abs=1e-12)
    assert found.log_future([0]) == pytest.approx(first + second + math.log(tiny), abs=1e-12)


def test_values_next_to_one_keep_what_is_missing():
    """1 − c of 1e-300: nothing that a float64 next to 1 could hold, but its logarithm does."""
    trie = growing()
    path = seen([1], [0.5], [1.0, 1.0], [0.5, 1.0])
    path.log_mass[1] = -1e-300
    trie.insert((0,), path)
    found = trie.frozen()
    assert -found.log_future([0], [1]) == pytest.approx(1e-300, rel=1e-12)
    assert -found.log_future([0]) == pytest.approx(0.5e-300, rel=1e-6)


def test_updates_by_differences_agree_with_sums_taken_anew():
    """Random texts under random masses; after each, every value equals the recursion from the leaves."""
    rng = np.random.default_rng(0)
    trie = growing()
    table: dict[tuple[int, ...], np.ndarray] = {}  # p̃ of each prefix
    values: dict[tuple[int, ...], float] = {}

    def value(prefix):
        return sum(p * (value((*prefix, v)) if (*prefix, v) in table else 1.0) for v, p in enumerate(table[prefix]))

    for _ in range(400):
        text, ids, probs, masses, rests = (), [], [], [], []
        for depth in range(6):
            if text not in table:
                logs = np.log(rng.dirichlet(np.ones(SIZE)) * 0.999 * 10.0 ** rng.uniform(-6, 0))
                table[text] = np.exp(np.float32(logs).astype(float))  # edges are kept in float32
            p = table[text]
            token = int(rng.integers(SIZE - 1))
            explored = {v for v in range(SIZE) if (*text, v) in table} - {token}
            masses.append(p.sum())
            rests.append(
                sum(p[v] for v in range(SIZE) if (v not in explored and v != token) or (v == token and depth == 5))
            )
            if depth == 5:
                break
            ids.append(token)
            probs.append(p[token])
            text = (*text, token)
        trie.insert((0,), seen(ids, probs, masses, rests))
    found = trie.frozen()
    for prefix in table:
        values[prefix] = value(prefix)
        assert found.log_future([0], prefix) == pytest.approx(math.log(values[prefix]), abs=1e-9)
    assert min(values.values()) < 1e-6  # some are small


def test_a_trie_taken_in_the_middle_of_a_run_stays_as_it_was():
    problem = problem_of(TableLM(0), automaton(0), [[0], [1]], mask=None, max_new_tokens=LENGTH, eos_token_ids=None)
    state = asap.init(problem, 5, seeded(0))
    early = state.trie
    state, _ = asap.step(problem, state, seeded(0))
    middle = state.trie
    asap.step(problem, state, seeded(1))
    assert (early.nodes, dict(early.roots)) == (0, {})
    assert early.log_future([0]) == 0.0
    assert set(middle.roots) == {(0,), (1,)}


def test_a_start_that_is_the_truth_leaves_nothing_to_learn():
    """Where the model is an HMM and the start its exact lookahead, every weight is Z from the first text on."""
    hmm = HMM(
        [0.6, 0.4, 0.0],
        [[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]],
        [[0.4, 0.1, 0.3, 0.2, 0.0], [0.1, 0.5, 0.2, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]],
        eos_token_ids=[EOS],
    )
    lm, potential = HMMLanguageModel(hmm), automaton(0)
    look = Lookahead(hmm, potential.dfa, max_new_tokens=LENGTH, limit="open")
    exact = enumerate_all(lm, potential)
    found = asap(lm, potential, PROMPT, num=20, max_new_tokens=LENGTH, rng=seeded(0), start=look)
    assert not found.info["trie"].sound  # a lookahead does not say whether it is a bound
    assert torch.allclose(found.log_weights[0], torch.full((20,), exact.log_z, dtype=torch.float64), atol=1e-4)
    for weights in (
        importance(lm, potential, PROMPT, num=20, max_new_tokens=LENGTH, rng=seeded(0), proposal=look).log_weights[0],
        smc(lm, potential, PROMPT, num=20, max_new_tokens=LENGTH, rng=seeded(0), proposal=look, twist=look).log_weights[
            0
        ],
    ):
        assert torch.allclose(weights, torch.full((20,), exact.log_z, dtype=torch.float64), atol=1e-4)


def test_learning_leaves_the_old_trie_as_it_was():
    lm, potential = TableLM(0), automaton(0)
    first: Trie = asap(lm, potential, PROMPT, num=5, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    nodes, bound = first.nodes, first.log_future([0])
    second: Trie = asap(lm, potential, PROMPT, num=50, max_new_tokens=LENGTH, rng=seeded(1), trie=first).info["trie"]
    assert (first.nodes, first.log_future([0])) == (nodes, bound)
    assert second.nodes > nodes
    assert second.log_future([0]) <= bound


def test_saved_tries_come_back_and_damaged_ones_do_not(tmp_path):
    lm, potential = TableLM(0), automaton(0)
    trie: Trie = asap(lm, potential, [[0], [1]], num=50, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    path = tmp_path / "trie.safetensors"
    trie.save(path)
    again = Trie.load(path)
    assert (again.roots, again.key, again.sound, again.nodes) == (trie.roots, trie.key, trie.sound, trie.nodes)
    assert again.token.dtype == np.uint16
    assert all(
        again.log_future([p], t[:i]) == trie.log_future([p], t[:i])
        for p in (0, 1)
        for t in [[1, 2, 3]]
        for i in range(4)
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        Trie.load(path)
    names = ("first", "sibling", "token", "log_p", "log_mass", "log_ratio")
    arrays = {name: getattr(trie, name).copy() for name in names}
    arrays["first"][0] = 10**6
    Trie(SIZE, LENGTH, [EOS], roots=trie.roots, **arrays).save(path)
    with pytest.raises(ModelError, match="lead nowhere"):
        Trie.load(path)
    with pytest.raises(InputError, match="no file"):
        Trie.load(tmp_path / "none.safetensors")


def test_a_trie_with_links_far_outside_takes_no_memory_for_them(tmp_path, monkeypatch):
    trie: Trie = asap(TableLM(0), automaton(0), PROMPT, num=9, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    names = ("first", "sibling", "token", "log_p", "log_mass", "log_ratio")
    arrays = {name: getattr(trie, name).copy() for name in names}
    arrays["first"][-1] = 2**31 - 1
    path = tmp_path / "trie.safetensors"
    Trie(SIZE, LENGTH, [EOS], roots=trie.roots, **arrays).save(path)
    count = np.bincount

    def bounded(values, minlength):
        assert values.max() < minlength
        return count(values, minlength=minlength)

    monkeypatch.setattr(np, "bincount", bounded)
    with pytest.raises(ModelError, match="lead nowhere"):
        Trie.load(path)


@pytest.mark.parametrize("root", [-1, 10**6, 10**29, -(10**29)])
def test_a_trie_with_a_root_anywhere_is_refused(tmp_path, root):
    """The header is text, so a number in it has any size."""
    trie: Trie = asap(TableLM(0), automaton(0), PROMPT, num=9, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    arrays = {name: getattr(trie, name) for name in ("first", "sibling", "token", "log_p", "log_mass", "log_ratio")}
    path = tmp_path / "trie.safetensors"
    Trie(SIZE, LENGTH, [EOS], roots={(0,): root}, **arrays).save(path)
    with pytest.raises(ModelError, match="lead nowhere"):
        Trie.load(path)


def test_merging_two_tries_knows_what_both_know():
    lm, potential = TableLM(0), automaton(0)
    exact = enumerate_all(lm, potential)
    one: Trie = asap(lm, potential, [[0]], num=40, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    two: Trie = asap(lm, potential, [[0], [1]], num=40, max_new_tokens=LENGTH, rng=seeded(1)).info["trie"]
    both, reverse = one.merge(two), two.merge(one)
    assert set(both.roots) == {(0,), (1,)}
    assert exact.log_z - 1e-9 <= both.log_future([0]) <= min(one.log_future([0]), two.log_future([0]))
    assert both.log_future([0]) == pytest.approx(reverse.log_future([0]), abs=1e-9)
    assert both.nodes == reverse.nodes
    assert one.merge(one).log_future([0]) == pytest.approx(one.log_future([0]), abs=1e-12)
    with pytest.raises(InputError, match="something else"):
        one.merge(Trie(SIZE, LENGTH + 1, [EOS]))


def test_merging_keeps_small_values():
    """Two tokens that hold nearly all mass lead to dead ends, one in each trie; what is left is 1e-8."""
    lm = TableLM(0)
    lm.table[0] = torch.tensor([0.4, 0.6 * (1 - 1e-8), 0.5e-8, 0.5e-8, 0.0], dtype=torch.float64).log().float()
    both_dead = TokenDFA([[1, 1, 2, 2, -1], [-1] * 5, [2, 2, 2, 2, -1]], 0, [2], EOS)

    class Late(AutomatonPotential):  # sees the dead ends when it stands in them
        def mask(self, state):
            words = super().mask(state)
            words[state.states == 0] = -1
            return words

    potential = Late(both_dead)
    exact = enumerate_all(lm, potential)
    tries = [asap(lm, potential, PROMPT, num=n, max_new_tokens=LENGTH, rng=seeded(n)).info["trie"] for n in (4, 30)]
    merged = tries[0].merge(tries[1])
    assert merged.log_future([0]) >= exact.log_z - 1e-3
    assert merged.log_future([0]) <= min(trie.log_future([0]) for trie in tries) + 1e-3


def test_learning_from_reports_tends_to_the_truth():
    """A likely beginning of which nearly nothing is left, learned through the processor from scores in float32."""
    from tests.toys import EOS as END
    from tests.toys import tiny_llama

    model = tiny_llama()
    prompt, length = torch.tensor([[5, 6]]), 3
    step = np.full((5, 50), -1)
    step[0, [7, 8, 9]], step[1, 11], step[2, 12], step[3, END - 1] = [1, 1, 1], 2, 3, -1
    potential = AutomatonPotential(TokenDFA(step, 0, [3], END))
    lm = CausalLM(model)
    exact = diagnostics.exact(lm, potential, prompt[0], max_new_tokens=length)
    trie = Trie(50, length, [END])
    torch.manual_seed(0)
    for _ in range(12):
        processor = ControlProcessor(Future(trie) * potential, max_new_tokens=length, eos_token_ids=[END])
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            logits_processor=[processor],
            do_sample=True,
            top_k=0,
            num_return_sequences=8,
            max_new_tokens=length,
        )
        trie = asap.learn(trie, processor.report(out))
    assert trie.log_future((5, 6)) == pytest.approx(exact.log_z, abs=1e-3)


def test_a_trie_of_another_potential_or_budget_is_refused():
    lm = TableLM(0)
    lm.fingerprint = "a" * 64
    trie: Trie = asap(lm, automaton(0), PROMPT, num=5, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    assert trie.key
    with pytest.raises(InputError, match="key"):
        asap(lm, automaton(1), PROMPT, num=5, max_new_tokens=LENGTH, rng=seeded(0), trie=trie)
    from tests.toys import tiny_llama

    wide = AutomatonPotential(TokenDFA(np.zeros((1, 50), int), 0, [0], 2))
    call = {"num": 2, "max_new_tokens": 4, "rng": seeded(0)}
    warm: Trie = asap(CausalLM(tiny_llama()), wide, [[5]], **call).info["trie"]
    assert warm.key
    asap(CausalLM(tiny_llama()), wide, [[5]], trie=warm, **call)
    for other in (CausalLM(tiny_llama(), temperature=0.5), CausalLM(tiny_llama(seed=1))):
        with pytest.raises(InputError, match="key"):
            asap(other, wide, [[5]], trie=warm, **call)
    with pytest.raises(InputError, match="max_new_tokens"):
        asap(lm, automaton(0), PROMPT, num=5, max_new_tokens=LENGTH + 1, rng=seeded(0), trie=trie)
    with pytest.raises(InputError, match="budget"):
        Future(trie).init(PROMPT, budget=torch.tensor([LENGTH + 1]))


# --------------------------------------------------------------------------------------------------------------- Future


def test_future_keeps_the_laws():
    lm, potential = TableLM(0), automaton(0)
    trie: Trie = asap(lm, potential, [[0, 0], [1, 1]], num=30, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]

    def log_psi(text):
        return trie.log_future([0, 0], text[:-1] if text and text[-1] == EOS else text) if EOS not in text[-1:] else 0.0

    laws.check(
        Future(trie), prompts=torch.tensor([[0, 0]]), eos_token_ids=[EOS], steps=4, tolerance=1e-4, log_psi=log_psi
    )


def test_sampling_under_the_future_is_one_more_sample_of_asap():
    lm, potential = TableLM(0), automaton(0)
    trie: Trie = asap(lm, potential, PROMPT, num=30, max_new_tokens=LENGTH, rng=seeded(0)).info["trie"]
    control = Future(trie) * potential
    state = control.init(PROMPT, None, torch.tensor([LENGTH]))
    scores = lm.log_weights(lm.init(PROMPT)) + control.log_weights(state)
    p = lm.log_weights(lm.init(PROMPT))[0].exp() * potential.log_weights(potential.init(PROMPT))[0].exp()
    wanted = torch.tensor([p[v] * math.exp(trie.log_future([0], [v]) if v != EOS else 0.0) for v in range(SIZE)])
    assert torch.allclose(scores.softmax(-1)[0], wanted / wanted.sum(), atol=1e-5)
    assert float(scores.logsumexp(-1)) == pytest.approx(0.0, abs=1e-5)  # Σ p c(x·v) = c(x)


def test_what_generate_drew_teaches_as_much_as_the_sampler():
    from tests.toys import EOS as END
    from tests.toys import Automaton, tiny_llama

    model, potential = tiny_llama(), Automaton()
    potential.hard = True
    prompts = torch.tensor([[0, 5, 6], [1, 7, 8]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    trie = Trie(50, 8, [END])
    bounds = [0.0, 0.0]
    for seed in range(4):
        processor = ControlProcessor(
            Future(trie) * potential, max_new_tokens=8, attention_mask=mask, eos_token_ids=[END]
        )
        torch.manual_seed(seed)
        out = model.generate(
            prompts,
            attention_mask=mask,
            logits_processor=[processor],
            do_sample=True,
            top_k=0,
            num_return_sequences=3,
            max_new_tokens=8,
        )
        reports = processor.report(out)
        assert [report.prompt for report in reports] == [(5, 6)] * 3 + [(1, 7, 8)] * 3
        for row, report in zip(out, reports, strict=True):
            assert list(report.tokens) == row[3 : 3 + report.steps].tolist()
            ids = torch.tensor([[*report.prompt, *report.tokens]])
            log_probs = model(ids[:, :-1]).logits[0, len(report.prompt) - 1 :].log_softmax(-1)
            wanted = log_probs.gather(1, torch.tensor(report.tokens)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(report.log_probs), wanted, atol=1e-4)
            assert sum(report.log_normalisers) == pytest.approx(report.log_weight)
        old, trie = trie, asap.learn(trie, reports)
        assert old.nodes < trie.nodes
        new = [trie.log_future((5, 6)), trie.log_future((1, 7, 8))]
        assert all(a <= b + 1e-9 for a, b in zip(new, bounds, strict=True))
        bounds = new
    # The same tokens, learned by the sampler's own walk.
    checked = asap(
        CausalLM(model), potential, prompts, mask=mask.bool(), num=1, max_new_tokens=8, rng=seeded(0), trie=trie
    )
    assert checked.info["trie"].log_future((5, 6)) <= bounds[0] + 1e-9


def test_reports_without_probabilities_teach_nothing():
    from dataclasses import replace

    from tests.toys import EOS as END
    from tests.toys import Automaton, tiny_llama

    processor = ControlProcessor(Automaton(), max_new_tokens=6, eos_token_ids=[END])
    out = tiny_llama().generate(
        torch.tensor([[5, 6]]),
        attention_mask=torch.ones(1, 2),
        logits_processor=[processor],
        max_new_tokens=6,
        do_sample=True,
    )
    (report,) = processor.report(out)
    assert report.steps > 1
    with pytest.raises(InputError, match="lacks the log-probability"):
        asap.learn(Trie(50, 6, [END]), [replace(report, log_probs=(math.nan,) * report.steps)])
