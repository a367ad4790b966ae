from __future__ import annotations

import math

import pytest
import torch
from transformers import TemperatureLogitsWarper

from ctrldecode.core import laws
from ctrldecode.core.potential import Support
from ctrldecode.errors import InputError, PotentialError
from ctrldecode.guidance import Prompted, cfg, contrastive, dexperts, fudge, plausible
from ctrldecode.lm import CausalLM
from ctrldecode.processor import ControlProcessor
from tests.guidance.models import EOS, SIZE, TableModel
from tests.toys import EOS as LLAMA_EOS
from tests.toys import tiny_llama

PROMPTS = torch.tensor([[4, 9, 7, 3], [8, 5, 12, 30]])


def logits(seed, ids):
    with torch.no_grad():
        return tiny_llama(seed)(ids, use_cache=False).logits[:, -1]


def lm(seed):
    return CausalLM(tiny_llama(seed))


def controlled(potential, ids, support=None):
    """What the processor makes of the scores of model 0, normalised."""
    return ControlProcessor(potential, support=support)(ids, logits(0, ids)).softmax(-1)


def test_dexperts_is_its_formula():
    for alpha in (-0.5, 0.0, 1.0, 3.2):
        want = (logits(0, PROMPTS) + alpha * (logits(1, PROMPTS) - logits(2, PROMPTS))).softmax(-1)
        assert torch.allclose(controlled(dexperts(lm(1), lm(2), alpha), PROMPTS), want, atol=1e-5)


def test_cfg_is_its_formula():
    for gamma in (0.0, 1.0, 1.5, 4.0):
        unconditional = logits(0, PROMPTS[:, -1:])
        want = (unconditional + gamma * (logits(0, PROMPTS) - unconditional)).softmax(-1)
        potential = cfg(lm(0), Prompted(lm(0), keep=1, start=()), gamma)
        assert torch.allclose(controlled(potential, PROMPTS), want, atol=1e-5)


def test_cfg_with_a_negative_prompt_and_a_condition():
    negative = logits(0, torch.tensor([[11, 12]] * 2))
    want = (negative + 2 * (logits(0, PROMPTS) - negative)).softmax(-1)
    assert torch.allclose(controlled(cfg(lm(0), Prompted(lm(0), [11, 12], keep=0), 2.0), PROMPTS), want, atol=1e-5)
    conditional = logits(0, torch.cat([torch.tensor([[20, 21]] * 2), PROMPTS], dim=1))
    plain = logits(0, PROMPTS)
    want = (plain + 2 * (conditional - plain)).softmax(-1)
    condition = Prompted(lm(0), [20, 21])
    assert torch.allclose(controlled(cfg(condition, lm(0), 3.0), PROMPTS), want, atol=1e-5)  # from without: gamma + 1


def test_cfg_without_a_second_pass_of_the_conditional_model():
    unconditional = Prompted(lm(0), keep=1, start=())
    scores = TemperatureLogitsWarper(1 / 1.7)(PROMPTS, logits(0, PROMPTS))
    cheap = ControlProcessor(unconditional ** (1 - 1.7))(PROMPTS, scores).softmax(-1)
    assert torch.allclose(cheap, controlled(cfg(lm(0), unconditional, 1.7), PROMPTS), atol=1e-5)


def test_contrastive_decoding_is_its_formula():
    contrast = contrastive(lm(0), lm(1), plausibility=0.1)
    expert, amateur = (logits(seed, PROMPTS).log_softmax(-1) for seed in (0, 1))
    allowed = expert.exp() >= 0.1 * expert.exp().amax(-1, keepdim=True)
    want = (expert - amateur).masked_fill(~allowed, -math.inf)
    found = ControlProcessor(contrast.potential, support=contrast.support)(PROMPTS, logits(0, PROMPTS))
    assert torch.allclose(found, want, atol=1e-4)
    assert 0 < int(allowed.sum()) < allowed.numel()


def test_plausibility_keeps_what_is_exactly_at_the_border():
    probs = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    assert plausible(0.5).keep(probs.log(), probs).tolist() == [[True, True, False, False]]
    assert plausible(1.0).keep(probs.log(), probs).tolist() == [[True, False, False, False]]


def test_the_laws_hold_for_ratios():
    for potential in (
        dexperts(lm(1), lm(2), 0.7),
        cfg(lm(0), Prompted(lm(0), [9], keep=2), 1.5),
        contrastive(lm(0), lm(1)).potential,
        Prompted(lm(0), [3, 4]),
    ):
        laws.check(potential, eos_token_ids=[LLAMA_EOS], steps=3)


def test_an_anti_expert_that_forbids_is_an_error():
    anti = TableModel()
    anti.table[:, 1] = -math.inf
    potential = dexperts(TableModel(seed=1), anti)
    with pytest.raises(PotentialError, match="divided by"):
        potential.log_weights(potential.init(torch.tensor([[1]])))


# ------------------------------------------------------------------------------------------------------------- Prompted


@pytest.mark.parametrize(
    ("arguments", "prompt", "row"),
    [
        ({}, [1, 2], [1, 2]),
        ({"before": [3]}, [1, 2], [3, 1, 2]),
        ({"before": [3], "keep": 1}, [1, 2], [3, 2]),
        ({"before": [3], "keep": 0}, [1, 2], [3]),
        ({"before": [3], "keep": 9}, [1, 2], [3, 1, 2]),
        ({"before": [3]}, [EOS, 1], [EOS, 3, 1]),
        ({"before": [3], "keep": 0}, [EOS, 1], [EOS, 3]),
        ({"keep": 1, "start": ()}, [EOS, 1], [1]),
        ({"keep": 0, "start": [2]}, [1], [2]),
    ],
)
def test_prompts_are_read_as_told(arguments, prompt, row):
    model = TableModel()
    state = Prompted(model, **arguments).init(torch.tensor([prompt]))
    assert int(state.where) == int(model.init(torch.tensor([row])).where)


def test_rows_of_different_lengths_are_padded_on_the_left():
    model = Prompted(lm(0), [5, 6], keep=3)
    mask = torch.tensor([[False, False, True, True], [True] * 4])
    both = model.log_weights(model.init(PROMPTS, mask))
    for row in range(2):
        alone = model.log_weights(model.init(PROMPTS[row : row + 1][:, mask[row]]))
        assert torch.allclose(both[row], alone[0], atol=1e-5)
    state, total = model.score(PROMPTS, mask, [[7], [8, 9]])
    again = model.resume(PROMPTS, mask, [[7], [8, 9]])
    assert torch.allclose(model.log_weights(state), model.log_weights(again), atol=1e-5)
    assert bool((total < 0).all())


def test_prompted_models_have_a_fingerprint_of_their_own():
    model = lm(0)
    prints = {Prompted(model, before, keep=keep).fingerprint for before in ([], [3]) for keep in (None, 1)}
    assert len(prints | {model.fingerprint}) == 5


# ---------------------------------------------------------------------------------------------------------------- FUDGE


def judge(ids, mask):
    """More 3s, more likely; forbids two 2s."""
    threes = ((ids == 3) & mask).sum(-1)
    twos = ((ids == 2) & mask).sum(-1)
    return torch.where(twos > 1, -math.inf, torch.nn.functional.logsigmoid(threes.float() - 1 + 0.1 * mask.sum(-1)))


def test_fudge_is_its_formula():
    ids = torch.tensor([[0, 3], [2, 1]])
    scores = torch.randn(2, SIZE)
    found = ControlProcessor(fudge(judge, 1.0, size=SIZE, eos_token_ids=[EOS], candidates=None))(ids, scores)
    for row in range(2):
        prefix = ids[row].tolist()
        after = [judge(torch.tensor([[*prefix, token]]), torch.ones(1, 3, dtype=torch.bool)) for token in range(SIZE)]
        want = scores[row].softmax(-1) * torch.cat(after).exp()
        assert torch.allclose(found[row].softmax(-1), want / want.sum(), atol=1e-6)


def test_fudge_weighs_the_likeliest_candidates_alone():
    potential = fudge(judge, 2.0, size=SIZE, eos_token_ids=[EOS], candidates=2)
    ids, scores = torch.tensor([[0, 3]]), torch.tensor([[0.1, 3.0, 0.2, 2.0, 0.3]])
    full = ControlProcessor(fudge(judge, 2.0, size=SIZE, eos_token_ids=[EOS], candidates=None))(ids, scores)
    few = ControlProcessor(potential)(ids, scores)
    assert (~few.isneginf()).nonzero()[:, 1].tolist() == [1, 3]
    assert torch.allclose(few[0, [1, 3]], full[0, [1, 3]])
    asked = []

    def counting(prefixes, mask):
        asked.append(len(prefixes))
        return judge(prefixes, mask)

    ControlProcessor(fudge(counting, size=SIZE, eos_token_ids=[EOS], candidates=2))(ids, scores)
    assert asked == [1, 2]


def test_fudge_keeps_its_candidates_beside_quotients_and_under_a_support():
    potential = fudge(judge, size=SIZE, eos_token_ids=[EOS], candidates=2)
    ratio = dexperts(TableModel(seed=1), TableModel(seed=2), 0.5)
    ids, scores = torch.tensor([[0, 3]]), torch.tensor([[0.1, 3.0, 0.2, 2.0, 0.3]])
    everything = Support(lambda log_probs, _: torch.ones_like(log_probs, dtype=torch.bool))
    for processor in (
        ControlProcessor(potential * ratio),
        ControlProcessor(potential, support=everything),
        ControlProcessor(potential * ratio, support=everything),
    ):
        assert int((~processor(ids, scores).isneginf()).sum()) == 2


def test_the_laws_hold_for_fudge():
    potential = fudge(judge, 1.5, size=SIZE, eos_token_ids=[EOS])
    laws.check(potential, eos_token_ids=[EOS], prompts=torch.tensor([[0, 1]]))

    def log_psi(tokens):
        ids = torch.tensor([[0, 1, *tokens]])
        return 1.5 * float(judge(ids, torch.ones_like(ids, dtype=torch.bool)) - judge(ids[:, :2], torch.ones(1, 2) > 0))

    laws.check(potential, eos_token_ids=[EOS], prompts=torch.tensor([[0, 1]]), log_psi=log_psi)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda ids, mask: torch.zeros(len(ids), 1), r"tensor \(1,\)"),
        (lambda ids, mask: [0.0], "got list"),
        (lambda ids, mask: torch.ones(len(ids)), "logsigmoid"),
        (lambda ids, mask: torch.full((len(ids),), math.nan), "never NaN"),
    ],
)
def test_what_is_no_classifier_is_refused(returned, message):
    with pytest.raises(PotentialError, match=message):
        fudge(returned, size=SIZE, eos_token_ids=[EOS]).init(torch.tensor([[1]]))


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dexperts(object(), TableModel()), "expert must be a language model"),
        (lambda: dexperts(TableModel(), TableModel(size=6)), "one vocabulary"),
        (lambda: dexperts(TableModel(), TableModel(), math.inf), "alpha must be a finite number"),
        (lambda: dexperts(TableModel(), TableModel(eos=2)), "must end texts at the same ids"),
        (lambda: cfg(TableModel(), TableModel(), math.nan), "gamma must be a finite number"),
        (lambda: contrastive(TableModel(), TableModel(), 0.0), r"plausibility must lie in \(0, 1\]"),
        (lambda: contrastive(TableModel(size=6), TableModel()), "one vocabulary"),
        (lambda: Prompted(TableModel(), [9]), "before must be ids"),
        (lambda: Prompted(TableModel(), "text"), "has no tokenizer"),
        (lambda: Prompted(TableModel(), keep=-1), "keep must be"),
        (lambda: Prompted(TableModel(), keep=0).init(torch.tensor([[1]])), "both empty"),
        (lambda: fudge(judge, 0.0, size=SIZE, eos_token_ids=[EOS]), "strength must be a positive number"),
        (
            lambda: fudge(judge, size=SIZE, eos_token_ids=[EOS], candidates=0),
            "candidates must be a whole number of at least 1",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
