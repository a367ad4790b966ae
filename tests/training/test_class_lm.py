"""The loss against a computation of one text, one code and one token at a time."""

from __future__ import annotations

import math

import pytest
import torch

from ctrldecode.training.class_lm import ClassLM, token_log_probs
from ctrldecode.training.codes import Codes
from ctrldecode.training.data import Text, collate
from tests.toys import tiny_llama

CODES = Codes(("calm", "wild", "odd"), ((10,), (11, 12), (13,)), (1,))
TEXTS = [Text([5, 6, 7, 2], 0), Text([8, 2], 1), Text([9, 0, 4, 4, 20, 21, 2], 2), Text([2], 1)]


def alone(prefix: tuple[int, ...], tokens: list[int]) -> list[float]:
    """log P(x_t | x_<t) of one row without padding."""
    rows = torch.tensor([[*prefix, *tokens]])
    log_probs = tiny_llama()(input_ids=rows).logits[0].double().log_softmax(-1)
    return [log_probs[len(prefix) - 1 + at, token].item() for at, token in enumerate(tokens)]


def by_hand(mix: float, prefixes: float, scale: float, bias: list[float]) -> tuple[float, float, float]:
    generative, discriminative = [], []
    for tokens, label in TEXTS:
        found = [alone(prefix, tokens) for prefix in CODES.prefixes]
        generative.append(-sum(found[label]) / len(tokens))
        nats = []
        for read in range(1, len(tokens) + 1):
            scores = [scale * sum(of[:read]) / read + b for of, b in zip(found, bias, strict=True)]
            nats.append(math.log(sum(map(math.exp, scores))) - scores[label])
        discriminative.append((1 - prefixes) * nats[-1] + prefixes * sum(nats) / len(nats))
    parts = sum(generative) / len(TEXTS), sum(discriminative) / len(TEXTS)
    return mix * parts[0] + (1 - mix) * parts[1], *parts


@pytest.mark.parametrize(("mix", "prefixes"), [(0.2, 0.0), (0.7, 1.0), (0.0, 0.4), (1.0, 0.5)])
def test_loss(mix: float, prefixes: float) -> None:
    model = ClassLM(tiny_llama(), CODES, mix=mix, prefixes=prefixes)
    with torch.no_grad():
        model.log_scale.fill_(math.log(2.5))
        model.bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
        found = model(**collate(TEXTS))
    loss, generative, discriminative = by_hand(mix, prefixes, 2.5, [0.3, -0.2, 0.1])
    assert found["loss"].item() == pytest.approx(loss, abs=1e-4)
    assert found["generative"].item() == pytest.approx(generative, abs=1e-4)
    assert found["discriminative"].item() == pytest.approx(discriminative, abs=1e-4)


def test_padding_is_zero_and_changes_nothing() -> None:
    fields = collate(TEXTS)
    together = token_log_probs(tiny_llama(), CODES, fields["tokens"], fields["lengths"])
    assert together.shape == (4, 3, 7)
    for row, (tokens, _) in enumerate(TEXTS):
        for label, prefix in enumerate(CODES.prefixes):
            expected = [*alone(prefix, tokens), *[0.0] * (7 - len(tokens))]
            assert together[row, label].tolist() == pytest.approx(expected, abs=1e-4)


def test_gradients_reach_scale_bias_and_weights() -> None:
    model = ClassLM(tiny_llama(), CODES, mix=0.2, prefixes=0.5)
    model(**collate(TEXTS))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
        parameter.grad = None
    expected = by_hand(0.2, 0.5, 10.0, [0.0, 0.0, 0.0])
    above, below = (by_hand(0.2, 0.5, 10.0 * math.exp(step), [0.0] * 3)[0] for step in (1e-4, -1e-4))
    loss = model(**collate(TEXTS))["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(expected[0], abs=1e-4)
    assert model.log_scale.grad.item() == pytest.approx((above - below) / 2e-4, rel=1e-3)
    for parameter in model.parameters():
        parameter.grad = None
