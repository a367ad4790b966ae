from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.core import laws
from ctrldecode.core.potential import take
from ctrldecode.errors import AutomatonError, BudgetError, InputError, TableLimitError
from ctrldecode.hmm.attributes import AttributeWeights
from ctrldecode.hmm.language_model import HMMLanguageModel
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.processor import ControlProcessor
from tests.hmm.enumeration import EOS, Case, cases
from tests.hmm.stories import ENDS, SIZE, attribute, both_of, story_hmm
from tests.toys import tiny_llama

MANY = settings(max_examples=30, deadline=None)


def hmm_of(case: Case, dtype: str = "float32") -> HMM:
    return HMM(case.initial, case.transition, case.emission, [EOS], dtype=dtype)


def dfa_of(case: Case) -> TokenDFA:
    return TokenDFA(case.delta, 0, np.flatnonzero(case.accepting), [EOS])


def weights_of(case: Case):
    return AttributeWeights(torch.from_numpy(case.weights).float(), [EOS])


def lookahead_of(case: Case, **options) -> Lookahead:
    return Lookahead(
        hmm_of(case), dfa_of(case), weights_of(case), max_new_tokens=case.budget, limit=case.limit, **options
    )


def states_of(potential, prefixes):
    """The state after each prefix, tokens one by one, all rows of one length together."""
    found = {}
    for length, group in itertools.groupby(sorted(prefixes, key=len), key=len):
        rows = list(group)
        state = potential.init(torch.zeros(len(rows), 0, dtype=torch.long))
        for at in range(length):
            state = potential.step(state, torch.tensor([prefix[at] for prefix in rows]))
        found.update({prefix: take(state, [row]) for row, prefix in enumerate(rows)})
    return found


def close(got, wanted) -> bool:
    return math.isclose(got, wanted, rel_tol=2e-4, abs_tol=1e-30)


@MANY
@given(cases())
def test_psi_is_the_expectation_over_every_text(case):
    psi = case.psi()
    assume(psi.get((), 0) > 0)
    lookahead = lookahead_of(case)
    for prefix, state in states_of(lookahead, psi).items():
        got = float(lookahead.log_psi(state)[0].exp())
        assert 0 <= got <= 1
        assert close(got, psi[prefix]), prefix


@MANY
@given(cases())
def test_weights_are_the_ratios_of_psi(case):
    psi = case.psi()
    assume(psi.get((), 0) > 0)
    lookahead = lookahead_of(case)
    alive = [prefix for prefix, value in psi.items() if value > 0 and EOS not in prefix and len(prefix) < case.budget]
    for prefix, state in states_of(lookahead, alive).items():
        weights = lookahead.log_weights(state)[0].exp()
        for token, weight in enumerate(weights.tolist()):
            if (*prefix, token) in psi:
                assert close(weight, psi[*prefix, token] / psi[prefix]), (prefix, token)


@MANY
@given(cases())
def test_candidates_are_weighed_as_in_the_whole(case):
    psi = case.psi()
    assume(psi.get((), 0) > 0)
    lookahead = lookahead_of(case)
    state = lookahead.init(torch.zeros(2, 0, dtype=torch.long))
    listed = torch.tensor([[1, EOS, 1], [EOS, 1, EOS]])
    torch.testing.assert_close(lookahead.log_weights(state, listed), lookahead.log_weights(state).gather(1, listed))


@MANY
@given(cases())
def test_where_the_model_is_the_hmm_the_processor_gives_the_exact_conditional_distribution(case):
    psi = case.psi()
    total = psi.get((), 0)
    assume(total > 0)
    lm, processor = HMMLanguageModel(hmm_of(case)), ControlProcessor(lookahead_of(case), max_new_tokens=case.budget)
    for text in case.texts():
        worth = case.probability(text) * case.worth(text)
        if worth == 0:
            continue
        log_prob = 0.0
        for at, token in enumerate(text):
            prefix = text[:at]
            processor.begin()
            scores = _scores(processor, lm, prefix)
            log_prob += float(torch.log_softmax(scores, -1)[0, token])
        assert close(math.exp(log_prob), worth / total), text


def _scores(processor, lm, prefix):
    """The processor's scores behind a prefix, with all calls on the way, as generate makes them."""
    state = lm.init(torch.zeros(1, 0, dtype=torch.long))
    scores = processor(torch.zeros(1, 0, dtype=torch.long), lm.log_weights(state))
    for at, token in enumerate(prefix):
        state = lm.step(state, torch.tensor([token]))
        scores = processor(torch.tensor([prefix[: at + 1]]), lm.log_weights(state))
    return scores


# --------------------------------------------------------------------------------------------- an example that can be read

POTENTIALS = {
    "both, must end": lambda: Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24),
    "both, may be cut off": lambda: Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, limit="open"),
    "attribute": lambda: Lookahead(story_hmm(), None, attribute(), max_new_tokens=24, limit="open"),
    "attribute, strong": lambda: Lookahead(
        story_hmm(), None, attribute(), max_new_tokens=24, limit="open", strength=3.0
    ),
    "both and attribute": lambda: Lookahead(story_hmm(), both_of(3, 7), attribute(), max_new_tokens=24, strength=0.5),
    "without the prompt": lambda: Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, condition_on_prompt=False),
    "uint8": lambda: Lookahead(story_hmm(dtype="uint8"), both_of(3, 7), max_new_tokens=24),
    "coarse": lambda: Lookahead(story_hmm(), both_of(3, 7), attribute(), max_new_tokens=24, detail=0.0),
    "half coarse": lambda: Lookahead(story_hmm(), both_of(3, 7), attribute(), max_new_tokens=24, detail=0.5),
    "squared": lambda: Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24) ** 2,
    "the HMM as a language model": lambda: HMMLanguageModel(story_hmm()),
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_laws(name):
    laws.check(POTENTIALS[name](), eos_token_ids=ENDS)


def run(potential, prompt=(0,), budget=None, seed=0, rows=8):
    """Random texts under a potential alone: each token uniform over those allowed, weighted."""
    rng = torch.Generator().manual_seed(seed)
    state = potential.init(torch.tensor([prompt] * rows), None, None if budget is None else torch.full((rows,), budget))
    texts, done = [[] for _ in range(rows)], [False] * rows
    for _ in range(budget or potential.max_new_tokens):
        chosen = torch.multinomial(potential.log_weights(state).softmax(-1), 1, generator=rng)[:, 0]
        for row in range(rows):
            if not done[row]:
                texts[row].append(int(chosen[row]))
                done[row] = texts[row][-1] in ENDS
        state = potential.step(state, chosen)
    return texts


@pytest.mark.parametrize("limit", ["eos", "open"])
@pytest.mark.parametrize("budget", [3, 4, 9])
def test_what_is_asked_for_always_comes_within_the_budget(limit, budget):
    wanted = both_of(3, 7)
    texts = run(Lookahead(story_hmm(), wanted, max_new_tokens=9, limit=limit), budget=budget)
    for text in texts:
        assert len(text) <= budget
        ended = text[-1] in ENDS
        assert ended or limit == "open"
        assert wanted.accepts_tokens(text[:-1] if ended else text)


def test_an_hmm_that_never_writes_a_word_leaves_the_automaton_alone():
    emission = np.full((1, SIZE), 1 / (SIZE - 3))
    emission[0, [3, 7, 11]] = 0  # neither the words nor an end
    silent = HMM([1.0], [[1.0]], emission, ENDS)
    lookahead = Lookahead(silent, both_of(3, 7), max_new_tokens=8)
    state = lookahead.init(torch.tensor([[0]]))
    weights = lookahead.log_weights(state)
    assert bool(lookahead.log_psi(state).isneginf().all())
    assert set(weights[0].tolist()) == {0.0, -math.inf}
    for text in run(lookahead):
        assert {3, 7, 11} <= set(text)


def test_probabilities_below_the_range_of_float32_keep_their_ratios():
    rare = 1e-12
    emission = np.full((2, SIZE), (1 - 2 * rare) / (SIZE - 3))
    emission[0, [3, 7]] = rare, rare
    emission[0, 11] = 0
    emission[1] = np.eye(SIZE)[11]
    hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], emission, ENDS)
    often = TokenDFA(_counting(5), 0, [4], ENDS)
    lookahead = Lookahead(hmm, often, max_new_tokens=6)
    log_psi = float(lookahead.log_psi(lookahead.init(torch.zeros(1, 0, dtype=torch.long))))
    assert log_psi < math.log(1e-47)  # four rare tokens: float32 would call it 0
    assert log_psi == pytest.approx(_log_exact(rare), rel=1e-4)


def _counting(states: int) -> np.ndarray:
    """Tokens 3 count, other tokens change nothing."""
    table = np.repeat(np.arange(states)[:, None], SIZE, axis=1)
    table[:-1, 3] += 1
    table[-1, 3] = -1
    return table


def _log_exact(rare: float) -> float:
    """Four tokens 3 among at most five, then the end, each step staying with 1/2."""
    others = 1 - rare  # a token that is not 3
    four = math.log(rare) * 4 + 4 * math.log(0.5)
    five = four + math.log(5 * others) + math.log(0.5)  # one other token, in one of five places
    return float(np.logaddexp(four, five))


def test_a_stronger_lookahead_tilts_further():
    plain, strong = (Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=24, strength=a) for a in (1.0, 2.0))
    state = plain.init(torch.tensor([[0]]))
    log_psi = plain.log_psi(state).double()
    logit = log_psi - torch.log1p(-log_psi.exp())
    torch.testing.assert_close(strong.log_psi(state).double(), torch.nn.functional.logsigmoid(2 * logit))


def test_without_detail_tokens_that_lead_to_one_state_are_weighed_together():
    hmm, wanted = story_hmm(), both_of(3, 7)
    fine, coarse, half = (Lookahead(hmm, wanted, max_new_tokens=24, detail=detail) for detail in (1.0, 0.0, 0.5))
    state = fine.init(torch.tensor([[4, 5]]))
    exact, rough = fine.log_weights(state)[0], coarse.log_weights(state)[0]
    probs = HMMLanguageModel(hmm).log_weights(HMMLanguageModel(hmm).init(torch.tensor([[4, 5]])))[0].exp()
    others = [
        token for token in range(SIZE) if token not in {3, 7, *ENDS}
    ]  # those that leave the automaton where it is
    together = (probs[others] * exact[others].exp()).sum() / probs[others].sum()
    torch.testing.assert_close(rough[others].exp(), together.expand(len(others)))
    torch.testing.assert_close(rough[[3, 7]], exact[[3, 7]])  # the only token of its move
    torch.testing.assert_close(half.log_weights(state)[0], (exact + rough) / 2)


def test_the_prompt_moves_the_belief_and_an_end_in_it_starts_anew():
    lm = HMMLanguageModel(story_hmm())
    alone = lm.init(torch.tensor([[4, 5]])).belief
    torch.testing.assert_close(lm.init(torch.tensor([[9, 11, 4, 5]])).belief, alone)
    padded = lm.init(torch.tensor([[11, 11, 4, 5]]), torch.tensor([[False, False, True, True]])).belief
    torch.testing.assert_close(padded, alone)
    assert not torch.allclose(lm.init(torch.tensor([[5, 4]])).belief, alone)
    torch.testing.assert_close(lm.init(torch.zeros(1, 0, dtype=torch.long)).belief[0], story_hmm().initial)


def test_a_prior_takes_the_place_of_the_filter():
    def prior(prompts, mask):
        return torch.eye(6)[prompts[:, 0] % 5] * 2  # not normalised

    lookahead = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=9, prior=prior)
    state = lookahead.init(torch.tensor([[2], [4]]))
    torch.testing.assert_close(state.belief, torch.eye(6)[[2, 4]])
    wrong = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=9, prior=lambda p, m: torch.ones(1, 2))
    with pytest.raises(InputError, match=r"shape \(2, 6\), got shape \(1, 2\)"):
        wrong.init(torch.tensor([[2], [4]]))


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0, 0.0, 3e38])
def test_beliefs_of_a_prior_that_have_no_sum_are_refused(value):
    lookahead = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=9, prior=lambda p, m: torch.full((1, 6), value))
    with pytest.raises(InputError, match="positive, finite sum, got values of"):
        lookahead.init(torch.tensor([[2]]))


def test_errors_say_what_to_do():
    with pytest.raises(TableLimitError, match="max_table_bytes"):
        Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=900, max_table_bytes=10_000)
    lookahead = Lookahead(story_hmm(), both_of(3, 7), max_new_tokens=9)
    with pytest.raises(BudgetError, match="takes 3, the end of sequence among them"):
        lookahead.init(torch.tensor([[0]]), None, torch.tensor([2]))
    with pytest.raises(InputError, match="max_new_tokens=9"):
        lookahead.init(torch.tensor([[0]]), None, torch.tensor([10]))
    for parts in (("tinytales-256",), (AutomatonPotential(both_of(3, 7)), None)):
        with pytest.raises(InputError, match=r"wants an HMM, got (str|AutomatonPotential); HMM\.load"):
            Lookahead(*parts, max_new_tokens=9)
    with pytest.raises(InputError, match="wants a TokenDFA, got AutomatonPotential; the builders"):
        Lookahead(story_hmm(), AutomatonPotential(both_of(3, 7)), max_new_tokens=9)
    with pytest.raises(InputError, match="one vocabulary"):
        Lookahead(story_hmm(), TokenDFA(np.zeros((1, 5), int), 0, [0], [4]), max_new_tokens=9)
    with pytest.raises(InputError, match=r"the same ids, got: the HMM \(11,\), the automaton \(4,\)"):
        Lookahead(story_hmm(), TokenDFA(np.zeros((1, SIZE), int), 0, [0], [4]), max_new_tokens=9)
    other = AttributeWeights(torch.ones(SIZE), [10])
    with pytest.raises(InputError, match=r"the HMM \(11,\), the automaton \(11,\), the weights \(10,\)"):
        Lookahead(story_hmm(), both_of(3, 7), other, max_new_tokens=9)
    with pytest.raises(InputError, match=r"the weights \(10,\)"):
        Lookahead(story_hmm(), None, other, max_new_tokens=9)
    with pytest.raises(AutomatonError, match=r"accepts no text.*exclude one another"):
        Lookahead(story_hmm(), both_of(3, 7) & ~both_of(3, 7), max_new_tokens=9)
    with pytest.raises(InputError, match="0 to 11"):
        lookahead.init(torch.tensor([[12]]))
    for options in (
        {"candidates": 0},
        {"candidates": 2.5},
        {"candidates": math.inf},
        {"candidates": math.nan},
        {"strength": 0},
        {"detail": 2},
        {"limit": "never"},
        {"max_new_tokens": 0},
    ):
        with pytest.raises(InputError):
            Lookahead(story_hmm(), both_of(3, 7), **{"max_new_tokens": 9, **options})


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"do_sample": True, "num_beams": 3}, {"do_sample": True}])
def test_generate_with_a_model_that_is_no_hmm(options):
    model, ends = tiny_llama(size=SIZE), (2,)
    rng = np.random.default_rng(0)
    emission = np.zeros((5, SIZE))
    others = [token for token in range(SIZE) if token not in ends]
    emission[:4, others] = rng.dirichlet(np.ones(len(others)), 4)
    emission[4, 2] = 1
    transition = np.vstack([rng.dirichlet(np.ones(5), 4), np.eye(5)[4]])
    hmm = HMM([0.25] * 4 + [0], transition, emission, ends)
    wanted = TokenDFA(both_of(3, 7).table[:, both_of(3, 7).classes], 0, [3], ends)
    processor = ControlProcessor(Lookahead(hmm, wanted, max_new_tokens=8), max_new_tokens=8, eos_token_ids=ends)
    prompts = torch.tensor([[0, 1, 5], [1, 8, 9]])
    mask = (prompts != 0).long()
    processor.begin(mask)
    torch.manual_seed(0)
    output = model.generate(
        prompts, attention_mask=mask, max_new_tokens=8, top_k=0, logits_processor=[processor], **options
    )
    for row in output[:, 3:].tolist():
        assert wanted.accepts_tokens(row[: row.index(2)])
