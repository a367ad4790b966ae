from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrldecode.core import laws
from ctrldecode.core.language_model import replay
from ctrldecode.core.potential import cat, take
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import InputError, VocabularyError
from ctrldecode.guidance import GeDi, Prompted, cfg
from ctrldecode.lm import CausalLM
from ctrldecode.samplers import SAMPLERS
from tests.guidance.models import CODES, EOS, SIZE, TableModel, log_posteriors
from tests.toys import tiny_llama

ARGUMENTS = [
    {},
    {"scale": 3.0, "bias": {"a": 0.5, "c": -1.0}},
    {"normalise": False},
    {"count_prompt": True, "scale": 2.0},
    {"count_prompt": True, "normalise": False, "bias": {"b": 2.0}},
]


def formula(arguments):
    named = {name: value for name, value in arguments.items() if name != "bias"}
    return {**named, "bias": [arguments.get("bias", {}).get(name, 0.0) for name in CODES]}


def texts(length, eos=EOS, size=SIZE):
    """Every text of at most `length` tokens, ended or not."""
    for count in range(length + 1):
        for text in itertools.product(range(size), repeat=count):
            if eos not in text[:-1]:
                yield text


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("zeros", [0.0, 0.2])
def test_posteriors_are_those_of_the_definition_for_every_text(arguments, zeros):
    lm = TableModel(zeros=zeros)
    gedi = GeDi(lm, CODES, target="b", strength=1.5, **arguments)
    prompt = [1, 2]
    every = list(texts(4))
    state = replay(gedi, gedi.init(torch.tensor([prompt]).repeat(len(every), 1)), every)
    found = gedi.log_posteriors(state)
    for text, row in zip(every, found.tolist(), strict=True):
        want = log_posteriors(lm, CODES.values(), prompt, text, **formula(arguments))
        assert row == pytest.approx(want, abs=1e-5)
    assert len(every) == 1 + 5 + 20 + 80 + 320


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("zeros", [0.0, 0.2])
def test_log_weights_telescope_to_the_posterior(arguments, zeros):
    lm = TableModel(zeros=zeros, seed=3)
    strength = 2.5
    gedi = GeDi(lm, CODES, target="c", strength=strength, **arguments)
    prompt = [3, 0]

    def log_psi(text):
        end = list(text).index(EOS) + 1 if EOS in text else len(text)
        return strength * log_posteriors(lm, CODES.values(), prompt, text[:end], **formula(arguments))[2]

    nothing = log_psi([])
    if nothing == -math.inf:  # the prompt is impossible already
        assert bool(gedi.log_weights(gedi.init(torch.tensor([prompt]))).isneginf().all())
        return
    for text in texts(4):
        state = gedi.init(torch.tensor([prompt]))
        total = 0.0
        for token in text:
            total += float(gedi.log_weights(state)[0, token])
            state = gedi.step(state, torch.tensor([token]))
        want = log_psi(text) - nothing
        assert total == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("zeros", [0.0, 0.2])
def test_the_laws_hold(zeros):
    for arguments in ARGUMENTS:
        gedi = GeDi(TableModel(zeros=zeros), CODES, target="a", **arguments)
        laws.check(gedi, eos_token_ids=[EOS], prompts=torch.tensor([[1, 2]]))


def test_the_laws_hold_with_a_network():
    gedi = GeDi(CausalLM(tiny_llama(1)), {"x": [5], "y": [6, 7]}, target="x")
    assert laws.check(gedi, eos_token_ids=gedi.eos_token_ids, steps=4) == ("forbidden", "telescoping")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.05, 20),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, SIZE - 2), max_size=6),
)
def test_posteriors_of_random_settings(seed, scale, bias, normalise, count_prompt, text):
    lm = TableModel(seed=seed, zeros=0.1)
    said = {"scale": scale, "normalise": normalise, "count_prompt": count_prompt}
    gedi = GeDi(lm, CODES, target="a", bias=dict(zip(CODES, bias, strict=True)), **said)
    state = replay(gedi, gedi.init(torch.tensor([[2, 1]])), [text])
    want = log_posteriors(lm, CODES.values(), [2, 1], text, bias=bias, **said)
    assert gedi.log_posteriors(state)[0].tolist() == pytest.approx(want, abs=1e-4)


def test_rows_of_a_padded_batch_are_as_alone():
    lm = TableModel()
    prompts = [[1, 2, 3], [2], [0, 3]]
    ids = torch.tensor([[9, 9, 9]] * 3) * 0
    mask = torch.zeros(3, 3, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, 3 - len(prompt) :] = torch.tensor(prompt)
        mask[row, 3 - len(prompt) :] = True
    for count_prompt in (False, True):
        gedi = GeDi(lm, CODES, target="a", count_prompt=count_prompt)
        state = gedi.step(gedi.init(ids, mask), torch.tensor([1, 2, 3]))
        for row, prompt in enumerate(prompts):
            alone = gedi.step(gedi.init(torch.tensor([prompt])), torch.tensor([row + 1]))
            assert torch.allclose(gedi.log_weights(state)[row], gedi.log_weights(alone)[0], atol=1e-5)


def test_one_forward_pass_a_step_for_all_classes_and_rows():
    lm = CausalLM(tiny_llama())
    gedi = GeDi(lm, {"x": [5], "y": [6, 7], "z": [8]}, target="x")
    state = gedi.init(torch.tensor([[3, 4], [5, 6]]))
    for token in (7, 8, 9):
        gedi.log_weights(state)
        state = gedi.step(take(state, [1, 0, 0]), torch.tensor([token] * 3))
        state = take(state, [0, 1])
    assert lm.forward_passes.calls == 1 + 3


def test_counted_prompts_cost_one_forward_pass():
    lm = CausalLM(tiny_llama())
    GeDi(lm, {"x": [5], "y": [6, 7]}, target="x", count_prompt=True).init(torch.tensor([[3, 4], [5, 6]]))
    assert lm.forward_passes.calls == 1


def test_what_no_class_allows_is_impossible_and_the_row_stays_so():
    lm = TableModel()
    lm.table[:, 3] = -math.inf
    gedi = GeDi(lm, CODES, target="a")
    state = gedi.init(torch.tensor([[1]]))
    assert gedi.log_weights(state)[0].isneginf().tolist() == [False, False, False, True, False]
    state = gedi.step(state, torch.tensor([3]))
    assert bool(gedi.log_weights(state).isneginf().all())


def test_a_topic_stands_behind_every_code():
    lm = TableModel()
    topic = GeDi(lm, {"true": [0], "false": [1]}, target="true", topic=[3, 2])
    plain = GeDi(lm, {"true": [0, 3, 2], "false": [1, 3, 2]}, target="true")
    for gedi in (topic, plain):
        assert gedi.classes.codes == ((0, 3, 2), (1, 3, 2))
    prompts = torch.tensor([[2, 2]])
    assert torch.equal(topic.log_weights(topic.init(prompts)), plain.log_weights(plain.init(prompts)))


@pytest.mark.parametrize(
    ("start", "bos", "prompt", "row"),
    [
        (None, None, [4, 1], [4, 0, 1]),  # the end of a text may begin one
        (None, 3, [3, 1], [3, 0, 1]),
        (None, 3, [1, 3], [0, 1, 3]),
        ([3], None, [1], [3, 0, 1]),
        ([3], None, [3, 1], [3, 0, 1]),
        ([3, 2], None, [3, 1], [3, 2, 0, 3, 1]),
    ],
)
def test_codes_stand_behind_what_begins_a_text(start, bos, prompt, row):
    lm = TableModel(bos=bos)
    gedi = GeDi(lm, {"x": [0], "y": [1]}, target="x", start=start)
    state = gedi.init(torch.tensor([prompt]))
    want = lm.init(torch.tensor([row])).where
    assert state.inner.rows.where[0] == want


def test_settings_come_from_the_config_unless_they_are_given():
    lm = TableModel()
    lm.config = {
        "gedi": {
            "codes": {"x": [0], "y": [1]},
            "scale": 7.0,
            "bias": {"x": 0.25},
            "normalise": False,
            "start": [3],
        }
    }
    found = GeDi(lm, target="y").classes
    assert found == (("x", "y"), ((0,), (1,)), 7.0, (0.25, 0.0), False, (3,))
    given_ = GeDi(lm, {"y": [2], "z": [1]}, target="y", scale=2.0, bias={"z": 1.0}, normalise=True, start=[]).classes
    assert given_ == (("y", "z"), ((2,), (1,)), 2.0, (0.0, 1.0), True, ())


@pytest.mark.parametrize("entry", [True, [1], {"codes": ["happy", "sad"]}, {"codes": {"x": 1, "y": [2]}}])
def test_a_config_that_is_no_config_is_refused(entry):
    lm = TableModel()
    lm.config = {"gedi": entry}
    with pytest.raises(InputError):
        GeDi(lm, target="x")


def test_nan_of_the_class_lm_stays_nan():
    lm = TableModel()
    lm.table[:, 1] = math.nan
    gedi = GeDi(lm, CODES, target="a")
    assert gedi.log_weights(gedi.init(torch.tensor([[2]])))[0].isnan().tolist() == [False, True, False, False, False]


def test_states_of_any_length_can_be_joined_and_replayed():
    lm = CausalLM(tiny_llama(1), eos_token_ids=[])
    for potential in (
        GeDi(lm, {"x": [5], "y": [6, 7]}, target="x", eos_token_ids=[]),
        cfg(lm, Prompted(lm, keep=1, start=()), 1.5),
        lm,
    ):
        prompts, texts = torch.tensor([[3, 4], [5, 6], [8, 9]]), [[11], [12, 13, 14], []]
        joined = replay(potential, potential.init(prompts), texts)
        after = potential.log_weights(potential.step(joined, torch.tensor([20, 21, 22])))
        for row, (text, token) in enumerate(zip(texts, (20, 21, 22), strict=True)):
            state = potential.init(prompts[row : row + 1])
            for other in [*text, token]:
                state = potential.step(state, torch.tensor([other]))
            assert torch.allclose(potential.log_weights(state)[0], after[row], atol=2e-4)
        short, long = potential.init(prompts[:1, :1]), potential.init(prompts[1:])
        assert torch.allclose(potential.log_weights(cat([short, long]))[0], potential.log_weights(short)[0], atol=2e-4)


@pytest.mark.parametrize("name", ["importance", "asap", "rejection", "smc", "branching", "mcmc"])
def test_every_sampler_takes_guidance_of_padded_prompts(name):
    lm, judge = CausalLM(tiny_llama(0)), CausalLM(tiny_llama(1))
    prompts, mask = torch.tensor([[0, 0, 4], [9, 7, 3]]), torch.tensor([[False, False, True], [True, True, True]])
    for potential in (
        GeDi(judge, {"x": [5], "y": [6, 7]}, target="x", strength=1.0),
        cfg(lm, Prompted(lm, keep=1, start=()), 1.5),
    ):
        found = SAMPLERS[name](
            lm, potential, prompts, mask=mask, num=3, max_new_tokens=4, rng=torch.Generator().manual_seed(0)
        )
        assert len(found.tokens) == 2


def test_fingerprints_tell_settings_apart():
    lm = TableModel()
    variants = [
        GeDi(lm, CODES, target="a"),
        GeDi(lm, CODES, target="b"),
        GeDi(lm, CODES, target="a", strength=2),
        GeDi(lm, CODES, target="a", count_prompt=True),
        GeDi(lm, CODES, target="a", bias={"a": 1}),
        GeDi(TableModel(seed=1), CODES, target="a"),
    ]
    assert len({gedi.fingerprint for gedi in variants}) == len(variants)
    assert variants[0].fingerprint == GeDi(lm, CODES, target="a").fingerprint


class Words:
    """A tokenizer that reads letters as ids."""

    def __call__(self, text, add_special_tokens=True):
        ids = [ord(letter) - ord("a") for letter in text]
        return type("Encoding", (), {"input_ids": [4, *ids] if add_special_tokens else ids})()


def test_texts_are_read_by_the_class_lms_tokenizer():
    lm = TableModel()
    with pytest.raises(InputError, match="has no tokenizer"):
        GeDi(lm, {"x": "ab", "y": "c"}, target="x")
    lm.tokenizer = Words()
    gedi = GeDi(lm, {"x": "ab", "y": "c"}, target="x", topic="d", start="e")
    assert (gedi.classes.codes, gedi.classes.start) == (((0, 1, 3), (2, 3)), (4,))


# -------------------------------------------------------------------------------------------------------- vocabularies


def test_ids_that_the_class_lm_does_not_have_are_impossible():
    vocabulary = Vocabulary([b"a", b"b", b"c", b"d", None, b"e", b"f"], eos_token_ids=[EOS])
    gedi = GeDi(TableModel(), CODES, target="a", vocabulary=vocabulary)
    small = GeDi(TableModel(), CODES, target="a")
    prompts = torch.tensor([[1, 2]])
    state = gedi.init(prompts)
    weights = gedi.log_weights(state)
    assert weights.shape == (1, 7)
    assert torch.equal(weights[:, :5], small.log_weights(small.init(prompts)))
    assert bool(weights[:, 5:].isneginf().all())
    assert torch.equal(gedi.log_weights(state, torch.tensor([[6, 2]])), weights[:, [6, 2]])
    assert bool(gedi.log_weights(gedi.step(state, torch.tensor([6]))).isneginf().all())
    laws.check(gedi, eos_token_ids=[EOS], prompts=prompts)
    with pytest.raises(InputError, match="ids below 5"):
        gedi.init(torch.tensor([[6]]))


def test_further_ids_of_the_class_lm_are_left_out():
    wide = TableModel(size=8)
    vocabulary = Vocabulary([b"a", b"b", b"c", b"d", None], eos_token_ids=[EOS])
    gedi = GeDi(wide, {"x": [6], "y": [7]}, target="x", vocabulary=vocabulary)
    full = GeDi(wide, {"x": [6], "y": [7]}, target="x")
    prompts = torch.tensor([[1, 2]])
    assert gedi.size == 5
    assert torch.equal(gedi.log_weights(gedi.init(prompts)), full.log_weights(full.init(prompts))[:, :5])


def test_an_end_that_the_class_lm_does_not_have_is_refused():
    vocabulary = Vocabulary([b"a", b"b", b"c", b"d", b"e", None], eos_token_ids=[5])
    with pytest.raises(VocabularyError, match=r"ends of text \[5\]"):
        GeDi(TableModel(), CODES, target="a", vocabulary=vocabulary)


def test_the_end_of_the_model_that_generates_counts():
    vocabulary = Vocabulary([b"a", b"b", None, b"d", None], eos_token_ids=[2, 4])
    lm = TableModel()
    gedi = GeDi(lm, {"x": [0], "y": [1]}, target="x", vocabulary=vocabulary)
    state = gedi.step(gedi.init(torch.tensor([[1]])), torch.tensor([2]))
    assert bool((gedi.log_weights(state) == 0).all())
    before = gedi.log_posteriors(state)
    state = gedi.step(gedi.step(state, torch.tensor([0])), torch.tensor([-1]))
    assert torch.equal(gedi.log_posteriors(state), before)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codes": None}, "names no class codes"),
        ({"codes": {"a": [0]}}, "at least two codes"),
        ({"codes": {"a": [0], "b": [0]}}, "'a' and 'b' are the same ids"),
        ({"codes": {"a": [0], "b": [9]}}, r"code 'b' must be ids in \[0, 5\)"),
        ({"target": "z"}, "one of the classes a, b, c, got 'z'"),
        ({"strength": 0}, "make another one the target"),
        ({"strength": math.nan}, "positive number"),
        ({"scale": -1.0}, "scale must be a positive number"),
        ({"bias": {"z": 1.0}}, r"\['z'\]"),
        ({"bias": {"a": math.inf}}, "finite"),
        ({"topic": [7]}, "topic must be ids"),
        ({"class_lm": object()}, "must be a language model"),
        ({"strength": 1e40}, "at most 1e\\+06"),
        ({"strength": "30"}, "positive number"),
        ({"scale": 1e38}, "scale must be a positive number"),
        ({"bias": {"a": 1e39}}, "biases must be finite"),
        ({"codes": ["a", "b"]}, "must map class names"),
        ({"codes": {"a": 0, "b": [1]}}, "code 'a' must be a text or a list of token ids, got 0"),
        ({"codes": {"a": [0.5], "b": [1]}}, "list of token ids"),
        ({"eos_token_ids": []}, "the class LM ends texts at"),
        ({"eos_token_ids": [EOS, 9]}, r"must lie in \[0, 5\)"),
    ],
)
def test_wrong_arguments(arguments, message):
    said = {"class_lm": TableModel(), "codes": CODES, "target": "a", **arguments}
    lm = said.pop("class_lm")
    with pytest.raises(InputError, match=message):
        GeDi(lm, said.pop("codes"), **said)


def test_an_empty_row_is_refused():
    gedi = GeDi(TableModel(), {"x": [], "y": [1]}, target="x")
    with pytest.raises(InputError, match="both empty"):
        gedi.init(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.bool))
    assert gedi.log_weights(gedi.init(torch.tensor([[2]]))).shape == (1, SIZE)  # a class without a code is fine


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_of_the_class_lm_makes_no_difference():
    codes = {"x": [5], "y": [6, 7]}
    here = GeDi(CausalLM(tiny_llama(1)), codes, target="x", count_prompt=True)
    there = GeDi(CausalLM(copy.deepcopy(tiny_llama(1)).cuda()), codes, target="x", count_prompt=True)
    prompts = torch.tensor([[3, 4], [5, 6]])
    states = [here.init(prompts), there.init(prompts)]
    for token in (7, 8, 9):
        states = [
            gedi.step(state, torch.tensor([token] * 2)) for gedi, state in zip((here, there), states, strict=True)
        ]
        weights = [gedi.log_weights(state) for gedi, state in zip((here, there), states, strict=True)]
        assert weights[1].device.type == "cuda"
        assert torch.allclose(weights[0], weights[1].cpu(), atol=2e-3)
    laws.check(there, eos_token_ids=there.eos_token_ids, steps=3)
