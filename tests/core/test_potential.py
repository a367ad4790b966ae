from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrldecode.core import laws
from ctrldecode.core._records import Groups, marks, written
from ctrldecode.core.potential import Potential, Product, cat, per_row, take
from ctrldecode.errors import InputError, PotentialError
from tests.toys import EOS, SIZE, Automaton, Counting, Table

PROMPTS = torch.randint(3, SIZE, (4, 3), generator=torch.Generator().manual_seed(0))
NAMES = {"a": Table(hard=0.0, seed=1), "b": Table(hard=0.0, seed=2), "c": Table(hard=0.0, seed=3)}


def weights(potential, prompts=PROMPTS, tokens=()):
    state = potential.init(prompts)
    for token in tokens:
        state = potential.step(state, torch.full((len(prompts),), token))
    return potential.log_weights(state)


# -------------------------------------------------------------------------------------------------------------- algebra


@given(
    st.recursive(
        st.sampled_from(sorted(NAMES)),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from("*/"), inner, inner),
            st.tuples(st.just("**"), inner, st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0])),
        ),
        max_leaves=6,
    )
)
def test_the_algebra_is_that_of_logarithms(tree):
    def build(node):
        if isinstance(node, str):
            return NAMES[node], weights(NAMES[node], tokens=(7, 8))
        operator, left, right = node
        potential, total = build(left)
        if operator == "**":
            return potential**right, total * right
        other, more = build(right)
        return (potential * other, total + more) if operator == "*" else (potential / other, total - more)

    potential, wanted = build(tree)
    got = weights(potential, tokens=(7, 8))
    assert torch.allclose(got, wanted, atol=1e-3)
    state = potential.step(potential.step(potential.init(PROMPTS), torch.full((4,), 7)), torch.full((4,), 8))
    scores = torch.zeros(4, SIZE)
    potential.add_log_weights(state, scores)
    assert torch.allclose(scores, wanted, atol=1e-3)
    tokens = torch.tensor([[3, 3, 9]] * 4)
    assert torch.allclose(potential.log_weights(state, tokens), wanted.gather(1, tokens), atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda a: a * 2, r"for \*: 'Table' and 'int'"),
        (lambda a: 2 * a, r"for \*: 'int' and 'Table'"),
        (lambda a: a / 2, r"for /: 'Table' and 'int'"),
        (lambda a: a ** "a", r"for \*\*.*: 'Table' and 'str'"),
        (lambda a: a**a, r"for \*\*.*: 'Table' and 'Table'"),
    ],
)
def test_algebra_with_what_is_no_potential_is_a_type_error(wrong, message):
    with pytest.raises(TypeError, match=message):
        wrong(NAMES["a"])


@pytest.mark.parametrize("exponent", [2, True, np.float32(2), np.int64(2)])
def test_any_real_number_is_an_exponent(exponent):
    assert (NAMES["a"] ** exponent).factors == ((NAMES["a"], float(exponent)),)


def test_products_are_flat():
    a, b, c = NAMES.values()
    product = (a * b**2) ** 3 / (c * a)
    assert [power for _, power in product.factors] == [3.0, 6.0, -1.0, -1.0]
    assert product.describe() == "Table**3 * Table**6 * Table**-1 * Table**-1"


def test_zero_stays_zero_in_a_product():
    automaton = Automaton()
    forbidden = weights(automaton).isneginf()
    for potential in (
        automaton * NAMES["a"],
        NAMES["a"] * automaton**0.3,
        automaton / NAMES["a"],
        NAMES["a"] ** -2 * automaton,
    ):
        got = weights(potential)
        assert bool(got[forbidden].isneginf().all())
        assert bool(got[~forbidden].isfinite().all())


def test_zero_over_zero_is_zero_but_one_over_zero_raises():
    automaton, hard = Automaton(), Automaton(modulus=2)
    same = weights(automaton / hard)  # both forbid the same tokens after a prompt
    assert torch.equal(same.isneginf(), weights(automaton).isneginf())
    with pytest.raises(PotentialError, match="quotient is infinite"):
        weights(NAMES["a"] / automaton)
    quotient = NAMES["a"] / automaton
    state = quotient.init(PROMPTS)
    with pytest.raises(PotentialError, match="token 5 has weight 0"):
        quotient.log_weights(state, torch.tensor([[3, 5]] * 4))


def test_an_exponent_of_zero_removes_the_factor():
    counted = Counting(Automaton())
    product = counted**0 * NAMES["a"]
    assert torch.equal(weights(product, tokens=(5,)), weights(NAMES["a"], tokens=(5,)))
    assert (counted.inits, counted.steps) == (0, 0)
    assert torch.equal(weights(counted**0), torch.zeros(4, SIZE))


def test_products_must_fit_together():
    with pytest.raises(InputError, match=r"sizes \[49, 50\]"):
        Table() * Table(49)
    with pytest.raises(InputError, match=r"sizes \[49, 50\]"):
        Table() ** 0 * Table(49) ** 0
    with pytest.raises(InputError, match="finite"):
        Table() ** math.inf
    with pytest.raises(InputError, match="different numbers of rows"):
        per_row([Table()] * 2) * per_row([Table()] * 3)


def test_products_and_rows_obey_the_laws():
    laws.check(NAMES["a"] ** 0.5 * Automaton() / NAMES["b"], eos_token_ids=[EOS])
    laws.check(per_row([Automaton(), NAMES["a"]]) * NAMES["b"] ** -1, eos_token_ids=[EOS])


# -------------------------------------------------------------------------------------------------------------- per_row


@pytest.mark.parametrize("copies", [1, 2])
def test_per_row_gives_blocks_of_rows_their_own_potential(copies):
    prompts = PROMPTS[:2].repeat_interleave(copies, dim=0)
    parts = [Automaton(), NAMES["b"]]
    both = per_row(parts)
    got = weights(both, prompts, tokens=(4,))
    for row in range(2 * copies):
        assert torch.equal(got[row], weights(parts[row // copies], prompts[row : row + 1], tokens=(4,))[0])
    assert both.rows == 2
    assert (both * NAMES["a"]).rows == 2
    assert both.describe() == "per_row of 2"


def test_per_row_masks_and_budgets_go_to_their_rows():
    mask = torch.tensor([[False, True, True], [True, True, True]])
    budget = torch.tensor([2, 5])
    both = per_row([Table(), Automaton()])
    got = both.log_weights(both.init(PROMPTS[:2], mask, budget))
    for row, part in enumerate(both.potentials):
        alone = part.init(PROMPTS[row : row + 1], mask[row : row + 1], budget[row : row + 1])
        assert torch.equal(got[row], part.log_weights(alone)[0])


def test_per_row_adds_by_each_own_way():
    both = per_row([Automaton(), NAMES["a"]])
    state = both.init(PROMPTS[:2])
    scores = torch.randn(2, SIZE)
    wanted = scores + both.log_weights(state)
    both.add_log_weights(state, scores)
    assert torch.allclose(scores, wanted)


def test_powers_of_rows_are_added_by_each_own_way():
    both = per_row([Automaton(), NAMES["a"] * NAMES["b"] ** 2, NAMES["a"] / NAMES["c"]]) ** 0.5
    state = both.init(PROMPTS[:3])
    scores = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(0))
    wanted = scores + both.log_weights(state)
    both.add_log_weights(state, scores)
    assert torch.allclose(scores, wanted, atol=1e-5)


def test_hard_factors_are_applied_first_and_by_their_own_way():
    seen = []

    class Noting(Table):
        def add_log_weights(self, state, scores):
            seen.append((self.hard, int(scores.isneginf().sum())))
            super().add_log_weights(state, scores)

    soft, hard = Noting(hard=0.0), Noting(hard=1.0)
    soft.hard, hard.hard = False, True
    product = soft * hard**2.5
    product.add_log_weights(product.init(PROMPTS), torch.zeros(4, SIZE))
    assert [is_hard for is_hard, _ in seen] == [True, False]
    assert seen[0][1] == 0 < seen[1][1]


def test_per_row_checks_its_rows():
    with pytest.raises(InputError, match="3 rows"):
        per_row([Table(), Table()]).init(PROMPTS[:3])
    with pytest.raises(InputError, match="at least one"):
        per_row([])
    with pytest.raises(InputError, match="nested"):
        per_row([per_row([Table()])])


# -------------------------------------------------------------------------------------------------------------- records


class Pair(NamedTuple):
    left: torch.Tensor
    right: list[str]


@dataclass(frozen=True)
class Record:
    pair: Pair
    array: np.ndarray
    more: tuple[torch.Tensor, ...]
    nothing: None = None


def record(rows):
    """A record whose every leaf tells its row."""
    index = torch.tensor(rows)
    return Record(
        Pair(index, [str(row) for row in rows]), np.array(rows) * 1.0, (index[:, None].expand(-1, 3), index == 0)
    )


def rows_of(state):
    assert state.pair.right == [str(row) for row in state.pair.left.tolist()]
    assert state.array.tolist() == state.pair.left.tolist()
    assert state.more[0].tolist() == [[row] * 3 for row in state.pair.left.tolist()]
    assert state.more[1].tolist() == [row == 0 for row in state.pair.left.tolist()]
    assert state.nothing is None
    return state.pair.left.tolist()


@given(st.lists(st.integers(0, 4), max_size=8))
def test_take_indexes_every_leaf(rows):
    assert rows_of(take(record([0, 1, 2, 3, 4]), rows)) == rows
    assert rows_of(take(record([0, 1, 2, 3, 4]), torch.tensor(rows, dtype=torch.long))) == rows


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=4))
def test_cat_joins_every_leaf(parts):
    assert rows_of(cat([record(part) for part in parts])) == [row for part in parts for row in part]


@given(st.lists(st.integers(0, 2), max_size=5), st.integers(1, 3))
def test_groups_move_as_one(rows, width):
    items = torch.arange(3 * width)
    groups = Groups((items, [str(item) for item in items.tolist()]), width)
    taken = take(groups, rows)
    members = [row * width + place for row in rows for place in range(width)]
    assert taken.rows[0].tolist() == members
    assert taken.rows[1] == [str(member) for member in members]
    assert cat([groups, taken]).rows[0].tolist() == [*range(3 * width), *members]


def test_writes_into_groups_are_seen():
    groups = Groups(torch.zeros(4), 2)
    before = marks((groups,))
    groups.rows[1] = 1.0
    assert written(before, marks((groups,)))


def test_other_things_are_no_record():
    with pytest.raises(PotentialError, match="got dict"):
        take({"a": torch.zeros(2)}, [0])


def test_the_default_of_add_log_weights_moves_to_the_scores():
    class Flat(Potential):
        size = 3

        def init(self, prompts, mask=None, budget=None):
            return torch.zeros(len(prompts))

        def log_weights(self, state, tokens=None):
            return torch.tensor([[0.5, -math.inf, 0.0]]).expand(len(state), -1)

        def step(self, state, tokens):
            return state

    scores = torch.tensor([[1.0, 2.0, -math.inf]], dtype=torch.float64)
    Flat().add_log_weights(torch.zeros(1), scores)
    assert scores.tolist() == [[1.5, -math.inf, -math.inf]]
    assert isinstance(Flat() * Flat(), Product)
