"""`ControlProcessor` around potentials that only forbid: one normalisation instead of two."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ctrldecode.core.potential import Potential, per_row
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import InputError
from ctrldecode.grammar import Grammar
from ctrldecode.processor import ControlProcessor


class Kept(Potential[Tensor]):
    """Allows the tokens of a list; says that it is hard, or does not say so."""

    def __init__(self, size: int, kept: list[int], *, hard: bool) -> None:
        self.size, self.kept, self.hard = size, kept, hard

    def init(self, prompts: Tensor, mask: Tensor | None = None, budget: Tensor | None = None) -> Tensor:
        return torch.zeros(len(prompts))

    def log_weights(self, state: Tensor, tokens: Tensor | None = None) -> Tensor:
        weights = torch.full((len(state), self.size), -torch.inf)
        weights[:, self.kept] = 0.0
        return weights if tokens is None else weights.gather(1, tokens)

    def step(self, state: Tensor, tokens: Tensor) -> Tensor:
        return state


@pytest.mark.parametrize("kept", [[3], list(range(0, 200, 3)), list(range(200)), [198, 199]])
@pytest.mark.parametrize("kind", ["even", "peaked", "underflowing", "with −inf"])
def test_a_hard_potential_is_counted_in_one_pass(kept: list[int], kind: str) -> None:
    """The same scores, log normaliser, tokens and mass removed as by two normalisations, however little mass is left."""
    scores = torch.randn(2, 200, generator=torch.Generator().manual_seed(3))
    if kind == "peaked":
        scores *= 10
    if kind == "underflowing":
        scores[:, kept] -= 150.0
    if kind == "with −inf":
        scores[:, 5:9] = -torch.inf
    ids = torch.tensor([[1, 2], [3, 4]])
    results = []
    for hard in (True, False):
        processor = ControlProcessor(Kept(200, kept, hard=hard))
        out = processor(ids, scores.clone())
        token = torch.full((2, 1), kept[-1])
        results.append((out, processor.report(torch.cat([ids, token], 1))))
    (one, reports), (two, others) = results
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    for report, other in zip(reports, others, strict=True):
        assert report.log_weight == pytest.approx(other.log_weight, rel=1e-5, abs=1e-6)
        assert [m.tokens for m in report.masked] == [m.tokens for m in other.masked]
        assert [m.mass for m in report.masked] == pytest.approx([m.mass for m in other.masked], rel=1e-5, abs=1e-6)


def test_what_is_made_of_hard_potentials_is_hard() -> None:
    hard, soft = Kept(5, [1], hard=True), Kept(5, [1], hard=False)
    assert (hard * hard).hard
    assert (hard**0.5).hard
    assert per_row([hard, hard]).hard
    assert not (hard * soft).hard
    assert not per_row([hard, soft]).hard


def test_no_rows() -> None:
    none = torch.zeros(0, 1, dtype=torch.long)
    assert ControlProcessor(Kept(5, [1], hard=True))(none, torch.zeros(0, 5)).shape == (0, 5)
    grammar = Grammar('start: "a"').compile(Vocabulary([b"a", None], {1}))
    assert grammar.log_weights(grammar.init(none)).shape == (0, 2)


def test_scores_of_another_shape_are_refused() -> None:
    grammar = Grammar('start: "a"').compile(Vocabulary([b"a", None], {1}))
    state = grammar.init(torch.zeros(2, 1, dtype=torch.long))
    for shape in ((3, 2), (2, 40)):
        with pytest.raises(InputError, match=r"scores must be \(2, 2\)"):
            grammar.add_log_weights(state, torch.zeros(shape))


def test_tokens_out_of_range_are_refused() -> None:
    grammar = Grammar('start: "a"').compile(Vocabulary([b"a", None], {1}))
    state = grammar.init(torch.zeros(1, 1, dtype=torch.long))
    for token in (-2, 2):
        with pytest.raises(InputError, match="out of range"):
            grammar.step(state, torch.tensor([token]))
