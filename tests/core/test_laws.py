from __future__ import annotations

import math

import pytest
import torch

from ctrldecode.core import laws
from ctrldecode.core.potential import Potential, Product, per_row
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import InputError, PotentialError
from tests.toys import EOS, SIZE, Automaton, Counting, Table


def automaton_log_psi(tokens):
    """Without a budget: no token that is 2 mod 3 but the end, which comes where the count is a multiple of three."""
    count = 0
    for token in tokens:
        if token == EOS:
            return 0.0 if count % 3 == 0 else -math.inf
        if token % 3 == 2:
            return -math.inf
        count += token % 3 == 1
    return 0.0


@pytest.mark.parametrize("seed", range(3))
def test_lawful_potentials_pass(seed):
    assert laws.check(Table(), eos_token_ids=[EOS], seed=seed) == ("telescoping",)
    assert laws.check(Automaton(), eos_token_ids=[EOS], seed=seed, log_psi=automaton_log_psi) == ()
    laws.check(Table() ** 0.5 * Automaton() / Table(hard=0.0), eos_token_ids=[EOS], seed=seed)
    laws.check(Automaton(modulus=4), eos_token_ids=[EOS], seed=seed, budget=7, steps=9)


def test_rows_with_their_own_constraints_pass():
    potential = per_row([Table(), Automaton(), Table(seed=4)])
    assert laws.check(potential, eos_token_ids=[EOS], batch=6) == ("telescoping",)
    assert "batching" in laws.check(potential, eos_token_ids=[EOS], batch=2)
    prompts = torch.randint(3, SIZE, (3, 4), generator=torch.Generator().manual_seed(0))
    laws.check(potential, prompts=prompts, eos_token_ids=[EOS], batch=6)


def test_an_empty_product_passes():
    assert laws.check(Product([(Table(), 0.0)]), eos_token_ids=[EOS]) == ("forbidden", "telescoping")


def test_a_large_vocabulary_passes():
    laws.check(Automaton(size=150_000), eos_token_ids=[EOS], log_psi=automaton_log_psi, steps=3)


def test_a_vocabulary_gives_the_ends_and_must_fit():
    vocabulary = Vocabulary([b"x"] * SIZE, EOS)
    assert laws.check(Automaton(), vocabulary, log_psi=automaton_log_psi) == ()
    with pytest.raises(InputError, match="50 ids and the vocabulary 51"):
        laws.check(Automaton(), Vocabulary([b"x"] * SIZE, EOS, size=SIZE + 1))


def test_wrong_arguments_raise():
    with pytest.raises(InputError, match="at least 2"):
        laws.check(Table(), batch=1)
    with pytest.raises(InputError, match="a multiple of 2"):
        laws.check(per_row([Table(), Table()]), prompts=torch.ones(3, 2, dtype=torch.long))


class Sizeless(Potential):
    def init(self, prompts, mask=None, budget=None):
        return torch.zeros(len(prompts))

    def log_weights(self, state, tokens=None):
        return torch.zeros(len(state), SIZE)

    def step(self, state, tokens):
        return state


@pytest.mark.parametrize("vocabulary", [None, Vocabulary([b"x"] * SIZE, EOS)])
@pytest.mark.parametrize("given", [{}, {"size": 0}, {"size": 2.5}, {"size": "50"}])
def test_a_potential_that_does_not_say_its_size_is_told_so(given, vocabulary):
    potential = Sizeless()
    vars(potential).update(given)
    got = repr(given["size"]) if given else "none"
    with pytest.raises(PotentialError, match=f"Sizeless must have a size, a whole number above 0, got {got};"):
        laws.check(potential, vocabulary)


def test_what_is_no_potential_has_no_laws():
    with pytest.raises(InputError, match=r"laws.check wants a potential, got the class Table; .* make an object"):
        laws.check(Table)


def test_a_walk_stops_where_nothing_is_allowed():
    class Short(Table):
        def log_weights(self, state, tokens=None):
            weights = super().log_weights(state, tokens)
            full = torch.tensor([len(past) == 2 for past in state.history]) & ~state.finished
            return weights.masked_fill(full[:, None], -math.inf)

    laws.check(Short(), eos_token_ids=[EOS])


# Each breaks one law, in the way that such code breaks it.


class Wide(Table):
    def log_weights(self, state, tokens=None):
        weights = super().log_weights(state, tokens)
        return torch.cat([weights, weights[:, :1]], dim=1)


class Double(Table):
    def log_weights(self, state, tokens=None):
        return super().log_weights(state, tokens).double()


class NotANumber(Table):
    def log_weights(self, state, tokens=None):
        weights = super().log_weights(state, tokens)
        weights[weights.isneginf()] *= 0
        return weights


class Infinite(Table):
    def log_weights(self, state, tokens=None):
        return -super().log_weights(state, tokens)


class Restless(Table):
    calls = 0

    def init(self, prompts, mask=None, budget=None):
        self.calls += 1
        return super().init(prompts + self.calls, mask, budget)


class InPlace(Table):
    def step(self, state, tokens):
        new = super().step(state, tokens)
        state.where.copy_(new.where)
        return new


class RarelyInPlace(Table):
    """What is written is seen in the weights after one token of many only."""

    def step(self, state, tokens):
        new = super().step(state, tokens)
        state.where.add_(torch.where(tokens == SIZE + 1, 1, 0))
        return new


class ListInPlace(Table):
    """The state is a list that grows with the old one."""

    def init(self, prompts, mask=None, budget=None):
        return super().init(prompts, mask, budget), [[] for _ in prompts]

    def log_weights(self, state, tokens=None):
        return super().log_weights(state[0], tokens)

    def step(self, state, tokens):
        state[1][0] = [*state[1][0], tokens[0]]
        return super().step(state[0], tokens), state[1]


class WrongCandidates(Table):
    def log_weights(self, state, tokens=None):
        return super().log_weights(state, None if tokens is None else tokens.sort().values)


class WrongAdding(Table):
    def add_log_weights(self, state, scores):
        scores.copy_(self.log_weights(state))


class Rebound(Table):
    def add_log_weights(self, state, scores):
        scores = scores + self.log_weights(state)


class Mixing(Table):
    def log_weights(self, state, tokens=None):
        weights = super().log_weights(state, tokens)
        return weights + 0.1 * len(weights)


class Neighbours(Table):
    def step(self, state, tokens):
        new = super().step(state, tokens)
        return new._replace(where=(new.where + new.where.sum()) % self.states)


class Unpadded(Table):
    def init(self, prompts, mask=None, budget=None):
        return super().init(prompts, None, budget)


class NeverEnds(Table):
    def step(self, state, tokens):
        return super().step(state, tokens)._replace(finished=state.finished)


class WakesUp(Table):
    def step(self, state, tokens):
        return super().step(state, tokens)._replace(finished=tokens == self.eos)


class Refuses(Table):
    def step(self, state, tokens):
        if self.log_weights(state, tokens[:, None]).isneginf().any():
            raise RuntimeError("the parser does not know this token")
        return super().step(state, tokens)


class Poisoned(Table):
    def step(self, state, tokens):
        dead = self.log_weights(state, tokens[:, None]).isneginf().any()
        new = super().step(state, tokens)
        return new._replace(where=new.where * 0) if dead else new


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Wide, "values"),
        (Double, "values"),
        (NotANumber, "values"),
        (Infinite, "values"),
        (Restless, "determinism"),
        (InPlace, "purity"),
        (RarelyInPlace, "purity"),
        (ListInPlace, "purity"),
        (WrongCandidates, "candidates"),
        (WrongAdding, "adding"),
        (Rebound, "adding"),
        (Mixing, "batching"),
        (Neighbours, "batching"),
        (Unpadded, "left_padding"),
        (NeverEnds, "neutrality"),
        (WakesUp, "neutrality"),
        (Refuses, "forbidden"),
        (Poisoned, "forbidden"),
    ],
)
def test_a_broken_law_is_named(broken, law):
    with pytest.raises(PotentialError, match=f"{broken.__name__} breaks the law '{law}'.*wanted .* got "):
        laws.check(broken(), eos_token_ids=[EOS])


class HalfExact(Table):
    """Padding moves its numbers by one unit of float16 at 16, as a model in half precision does."""

    def log_weights(self, state, tokens=None):
        weights = super().log_weights(state, tokens)
        return weights + (self.padded * ~state.finished[:, None]) / 64

    def init(self, prompts, mask=None, budget=None):
        self.padded = mask is not None
        return super().init(prompts, mask, budget)


def test_tolerance_is_the_callers():
    message = r"breaks the law 'left_padding'.*float32, or a larger tolerance \(0\.05 for float16, 0\.5 for bfloat16\)"
    with pytest.raises(PotentialError, match=message):
        laws.check(HalfExact(), eos_token_ids=[EOS])
    laws.check(HalfExact(), eos_token_ids=[EOS], tolerance=0.05)
    with pytest.raises(PotentialError, match="'neutrality'"):
        laws.check(NeverEnds(), eos_token_ids=[EOS], tolerance=0.05)
    for tolerance in (-1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="tolerance must be a number from 0 up"):
            laws.check(Table(), tolerance=tolerance)


def test_no_tolerance_helps_where_a_weight_became_impossible():
    with pytest.raises(PotentialError) as failure:
        laws.check(Unpadded(), eos_token_ids=[EOS])
    assert "tolerance" not in str(failure.value)


class Unshared(Potential):
    """A state that cannot be indexed: its rows are not on axis 0."""

    size = 6

    def init(self, prompts, mask=None, budget=None):
        return (torch.arange(len(prompts)).expand(7, -1) * 0,)

    def log_weights(self, state, tokens=None):
        rows = state[0].shape[1]
        return torch.zeros(rows, self.size if tokens is None else tokens.shape[1])

    def step(self, state, tokens):
        return state


def test_a_state_without_the_batch_on_axis_0_is_found():
    with pytest.raises(PotentialError, match="breaks the law 'taking'"):
        laws.check(Unshared())


def test_a_wrong_sum_is_found():
    with pytest.raises(PotentialError, match="'telescoping'"):
        laws.check(
            Automaton(), eos_token_ids=[EOS], log_psi=lambda tokens: automaton_log_psi(tokens) - 0.1 * len(tokens)
        )
    with pytest.raises(PotentialError, match="'telescoping'"):
        laws.check(Automaton(), eos_token_ids=[EOS], log_psi=lambda tokens: 0.0)


def test_every_law_has_a_line_for_its_message():
    assert all(law.__doc__ for law in laws.LAWS)
    laws.check(Counting(Table()), eos_token_ids=[EOS])
