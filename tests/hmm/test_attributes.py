"""AttributeWeights: what they are, their product and file, and the fit against a plain optimiser and known weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import InputError, ModelError, VocabularyError
from ctrldecode.hmm import AttributeWeights, _regression
from tests.hmm.models import random_parameters, vocabulary

SIZE = 8
WORDS = vocabulary(SIZE)


def weights(rng: np.random.Generator, **options) -> AttributeWeights:
    values = rng.uniform(0.1, 1, SIZE)
    values[0] = 1
    return AttributeWeights(values, 0, **options)


def scored_texts(rng: np.random.Generator, num: int, truth: np.ndarray, bias: float):
    """Random texts, and P(attribute) by known weights."""
    texts = [rng.integers(1, SIZE, rng.integers(3, 12)).tolist() for _ in range(num)]
    return texts, [float(np.exp(bias + truth[text].sum())) for text in texts]


@given(st.integers(0, 2**32 - 1), st.lists(st.lists(st.integers(0, SIZE - 1), max_size=6), max_size=4))
@settings(max_examples=30, deadline=None)
def test_score_and_product(seed, texts):
    rng = np.random.default_rng(seed)
    one, two = weights(rng, log_bias=-0.5, name="one"), weights(rng, log_bias=-0.25, name="two")
    for each in (one, two):
        wanted = [np.exp(each.log_bias) * each.values.double().numpy()[text].prod() for text in texts]
        np.testing.assert_allclose(each.log_score(texts).exp(), wanted, rtol=1e-12)
    both = one * two
    np.testing.assert_allclose(both.log_score(texts), one.log_score(texts) + two.log_score(texts), rtol=1e-6, atol=1e-6)
    assert (both.name, both.log_bias, both.eos_token_ids) == ("one * two", -0.75, (0,))
    assert both == two * one


@pytest.mark.parametrize("of", [np.float32, np.float64, torch.float32])
def test_what_was_given_may_change(of):
    given = torch.full((SIZE,), 0.5) if of == torch.float32 else np.full(SIZE, 0.5, of)
    given[0] = 1
    made = AttributeWeights(given, 0)
    fingerprint = made.fingerprint
    given[1] = 0.25
    assert made.values.tolist() == [1.0] + [0.5] * (SIZE - 1)
    assert AttributeWeights(made.values, 0).fingerprint == fingerprint


def test_products_of_vocabularies():
    rng = np.random.default_rng(0)
    one, two = weights(rng, vocabulary_fingerprint="a"), weights(rng)
    assert (one * two).vocabulary_fingerprint == (two * one).vocabulary_fingerprint == "a"
    assert (two * two).vocabulary_fingerprint is None
    assert (one * two).metadata == {"factors": ["attribute", "attribute"]}
    for other in (
        weights(rng, vocabulary_fingerprint="b"),
        AttributeWeights(np.ones(9), 0),
        AttributeWeights(np.ones(8), 1),
    ):
        with pytest.raises(InputError, match="attributes compose over one vocabulary"):
            _ = one * other
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = one * 3


def test_products_of_tiny_weights_stay_above_zero():
    tiny = AttributeWeights([1.0, 1e-30], 0)
    assert (tiny * tiny).values[1] > 0


@pytest.mark.parametrize(
    ("values", "eos", "options", "message"),
    [
        (
            [1.0, 0.0],
            0,
            {},
            "the weight of token 1 is 0, wanted above 0 and at most 1; to forbid a token, use an automaton",
        ),
        ([1.0, 1.5], 0, {}, "the weight of token 1 is 1.5"),
        ([1.0, np.nan], 0, {}, "the weight of token 1 is nan"),
        ([0.5, 1.0], 0, {}, "the end of sequence 0 weighs 0.5, wanted 1"),
        ([1.0, 1.0], 2, {}, "eos_token_ids must be at least one id in 0 to 1"),
        ([[1.0, 1.0]], 0, {}, r"weights must be \(V,\), one a token, got shape \(1, 2\)"),
        ([1.0, 1.0], 0, {"log_bias": 0.1}, "log_bias must be a finite number, at most 0, got 0.1"),
        ([1.0, 1.0], 0, {"log_bias": -np.inf}, "log_bias must be a finite number"),
        ([1.0, 1.0], 0, {"metadata": {"a": {1}}}, "metadata must be what JSON can hold"),
    ],
)
def test_weights_that_are_none(values, eos, options, message):
    with pytest.raises(InputError, match=message):
        AttributeWeights(values, eos, **options)


def test_save_load_compare(tmp_path):
    path = tmp_path / "calm.safetensors"
    one = weights(
        np.random.default_rng(0),
        log_bias=-0.1,
        name="calm",
        vocabulary_fingerprint=WORDS.fingerprint,
        metadata={"auc": None},
    )
    one.save(path)
    found = AttributeWeights.load(path, WORDS)
    assert found == one
    assert {found: 1}[one] == 1
    assert torch.equal(found.values, one.values)
    for name in ("name", "log_bias", "eos_token_ids", "vocabulary_fingerprint", "metadata"):
        assert getattr(found, name) == getattr(one, name)
    other = Vocabulary([*WORDS.tokens[:-1], b"other"], eos_token_ids=0)
    with pytest.raises(VocabularyError, match="the attribute 'calm' was made for the vocabulary"):
        AttributeWeights.load(path, other)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        ModelError, match="its contents do not match the fingerprint in it; copy it again, or fit it anew"
    ):
        AttributeWeights.load(path)
    path.write_bytes(whole[:-5])
    with pytest.raises(ModelError, match="is damaged"):
        AttributeWeights.load(path)
    random_parameters(np.random.default_rng(0), 2, 4).hmm().save(path)
    with pytest.raises(ModelError, match="holds kind 'hmm', format 1; wanted kind 'attribute', format 1"):
        AttributeWeights.load(path)


def test_immutable():
    one = weights(np.random.default_rng(0))
    with pytest.raises(AttributeError, match="AttributeWeights is immutable, name cannot be set"):
        one.name = "other"
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del one.name
    assert one.with_metadata({"a": 1}).metadata == {"a": 1}
    assert one.to("cpu") == one != 3


def test_fit_minimises_what_it_says():
    """Against the same objective written plainly, in an optimiser without derivatives from us; seed 0."""
    rng = np.random.default_rng(0)
    truth = np.log([1, 0.4, 1, 0.7, 1, 1, 0.9, 1])
    texts, scores = scored_texts(rng, 60, truth, -0.3)
    fitted = AttributeWeights.fit(texts, scores, WORDS, rng=rng, penalty=2.0, holdout=0.0)

    def loss(parameters: np.ndarray) -> float:
        log_probs = np.array([parameters[-1] + sum(parameters[token - 1] for token in text) for text in texts])
        hit = np.array(scores) * log_probs + (1 - np.array(scores)) * np.log1p(-np.exp(log_probs))
        return float(-hit.sum() - 2.0 * parameters[:-1].sum())

    mine = np.append(fitted.values.double().log().numpy()[1:], fitted.log_bias)
    bounds = [(-10.0, 0.0)] * 7 + [(-20.0, -1e-2)]
    plain = minimize(loss, np.full(8, -0.5), method="L-BFGS-B", bounds=bounds, options={"maxfun": 100_000})
    assert loss(mine) <= plain.fun + 1e-6
    np.testing.assert_allclose(mine, plain.x, atol=2e-2)
    assert fitted.values[0] == 1
    assert fitted.metadata["held_out"] is None


def test_fit_finds_the_weights_that_made_the_scores():
    rng = np.random.default_rng(1)
    truth = np.log([1, 0.5, 1, 0.8, 1, 1, 0.9, 1])
    texts, scores = scored_texts(rng, 2000, truth, -0.2)
    fitted = AttributeWeights.fit(texts, scores, WORDS, rng=np.random.default_rng(0), penalty=0.01)
    np.testing.assert_allclose(fitted.values, np.exp(truth), atol=0.01)
    assert fitted.log_bias == pytest.approx(-0.2, abs=0.02)
    held_out = fitted.metadata["held_out"]
    assert held_out["texts"] == 400
    assert held_out["correlation"] > 0.99
    assert held_out["log_loss"] < held_out["log_loss_of_mean"]


def test_fit_to_labels():
    """Labels drawn from the scores; 3,000 of them leave the weights uncertain by a few hundredths. Seed 2."""
    rng = np.random.default_rng(2)
    truth = np.log([1, 0.4, 1, 0.8, 1, 1, 1, 1])
    texts, scores = scored_texts(rng, 3000, truth, -0.1)
    labels = (rng.random(3000) < scores).astype(float)
    fitted = AttributeWeights.fit(texts, labels, WORDS, rng=np.random.default_rng(0), name="calm")
    np.testing.assert_allclose(fitted.values, np.exp(truth), atol=0.06)
    assert fitted.metadata["held_out"]["auc"] > 0.75
    assert fitted.metadata["penalty"] in _regression._PENALTIES
    again = AttributeWeights.fit(texts, labels, WORDS, rng=np.random.default_rng(0), name="calm")
    assert again == fitted
    assert again.metadata == fitted.metadata
    assert np.corrcoef(fitted.log_score(texts).exp().numpy(), labels)[0, 1] > 0.4


def test_the_complement_lowers_the_other_words():
    texts, labels = [[1, 3, 4], [2, 4], [1, 1, 4], [4, 2, 2]] * 20, np.array([1, 0, 1, 0] * 20)
    one = AttributeWeights.fit(texts, labels, WORDS, rng=np.random.default_rng(0), penalty=1.0)
    other = AttributeWeights.fit(texts, 1 - labels, WORDS, rng=np.random.default_rng(0), penalty=1.0)
    assert (one.values < 0.5).nonzero().flatten().tolist() == [2]
    assert (other.values < 0.5).nonzero().flatten().tolist() == [1]


def test_tokens_without_text_weigh_one():
    words = Vocabulary([None, b"good", b"bad", None, b"ugly"], eos_token_ids=0)
    texts = [[1, 3, 0], [2, 3, 3, 0]] * 20
    fitted = AttributeWeights.fit(texts, [1, 0] * 20, words, rng=np.random.default_rng(0), penalty=0.1)
    assert (fitted.values == 1).tolist() == [True, True, False, True, True]
    assert fitted.vocabulary_fingerprint == words.fingerprint


@pytest.mark.parametrize(
    ("texts", "scores", "options", "message"),
    [
        ([[1]], [1], {}, "wanted at least 2 texts and one score for each, got 1 texts and 1 scores"),
        ([[1], [2]], [1], {}, "got 2 texts and 1 scores"),
        ([[1], [2]], [1, 1.5], {}, "the score of text 1 is 1.5, wanted a number in"),
        ([[1], [2]], [np.nan, 1], {}, "the score of text 0 is nan"),
        (
            [[1], [2]],
            [1, 1],
            {},
            "all texts to be fitted have the score 1; wanted texts with the attribute and texts without",
        ),
        ([[1], [2]], [1, 0], {"holdout": 0.5}, "all texts to be fitted have the score"),
        ([[1], [9]], [1, 0], {}, "token ids must lie in 0 to 7, got 1 to 9"),
        ([[1], [2]], [1, 0], {"holdout": 1.0}, "holdout must lie in"),
        ([[1], [2]], [1, 0], {"penalty": 0.0}, "penalty must be a finite number above 0"),
        ([[1], [2]], [1, 0], {"penalty": float("inf")}, "penalty must be a finite number above 0.*got inf"),
    ],
)
def test_fits_that_cannot_be(texts, scores, options, message):
    with pytest.raises(InputError, match=message):
        AttributeWeights.fit(texts, scores, WORDS, rng=np.random.default_rng(0), **options)


def test_a_fit_that_does_not_converge(monkeypatch):
    monkeypatch.setattr(_regression, "_MAX_ITERATIONS", 1)
    monkeypatch.setitem(_regression._OPTIONS, "maxiter", 1)
    texts, scores = scored_texts(np.random.default_rng(0), 50, np.log([1, 0.4, 1, 0.7, 1, 1, 0.9, 1]), -0.3)
    with pytest.raises(InputError, match=r"the fit did not converge in 1 steps; raise the penalty above 0\.5"):
        AttributeWeights.fit(texts, scores, WORDS, rng=np.random.default_rng(0), penalty=0.5)


def test_two_texts_are_enough_and_text_may_be_empty():
    fitted = AttributeWeights.fit([[1], [2]], [1, 0], WORDS, rng=np.random.default_rng(0), holdout=0.0)
    assert fitted.metadata["penalty"] == 1.0
    empty = AttributeWeights.fit([[], []], [1, 0], WORDS, rng=np.random.default_rng(0), holdout=0.0)
    assert empty.values.eq(1).all()
    assert empty.log_bias == pytest.approx(np.log(0.5), abs=1e-4)
    assert empty.log_score([]).shape == (0,)
    with pytest.raises(InputError, match="token ids must lie in 0 to 7, got 9 to 9"):
        empty.log_score([[9]])


def test_figures():
    probs, scores = np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    found = _regression.figures(np.log(probs), scores)
    assert found["auc"] == pytest.approx(7 / 8)
    assert found["accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.5, 0.5, 0.9]).mean())
    assert found["log_loss_of_mean"] == pytest.approx(np.log(2))
    assert found["correlation"] == pytest.approx(np.corrcoef(probs, scores)[0, 1])
    flat = _regression.figures(np.log(probs), np.ones(4))
    assert (flat["auc"], flat["correlation"], flat["log_loss_of_mean"]) == (None, None, 0)
