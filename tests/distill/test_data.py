from __future__ import annotations

import torch

from ctrldecode.distill import data
from ctrldecode.distill.workers import Workers


def texts() -> data.Texts:
    tokens = torch.arange(60, dtype=torch.int32).view(10, 6)
    lengths = torch.tensor([6, 1, 2, 3, 4, 5, 6, 1, 2, 3])
    tokens[torch.arange(6) >= lengths[:, None]] = -1
    return data.Texts(tokens, lengths, -lengths.double())


def test_every_pass_sees_every_text_once():
    assert data.steps(10, 4) == 2
    passes = [[data.rows_of(10, 4, 0, 2 * number + part).tolist() for part in range(2)] for number in range(3)]
    for both in passes:
        assert sorted([*both[0], *both[1]]) == list(range(10))
        assert [len(part) for part in both] == [5, 5]
    assert passes[0] != passes[1] != passes[2]
    assert data.rows_of(10, 4, 0, None).tolist() == list(range(10))
    assert data.rows_of(10, 4, 0, 0).tolist() != data.rows_of(10, 4, 1, 0).tolist()


def test_batches_are_dealt_out_without_padding_columns():
    def dealt(rank: int, world: int, fraction: float = 0.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        rows = torch.tensor([1, 7, 2, 3, 0])
        return list(data.batches(texts(), rows, 2, Workers(rank, world), torch.device("cpu"), (fraction, 0, 0)))

    whole = dealt(0, 1)
    assert [tokens.shape[1] for tokens, _ in whole] == [1, 3, 6]
    assert [lengths.tolist() for _, lengths in whole] == [[1, 1], [2, 3], [6]]
    for fraction in (0.0, 0.5):
        alone, first, second = (dealt(rank, world, fraction) for rank, world in ((0, 1), (0, 2), (1, 2)))
        for one, shared in zip(alone, [first[0], second[0], first[1]], strict=True):
            assert all(torch.equal(got, wanted) for got, wanted in zip(one, shared, strict=True))
    hidden = torch.cat([tokens.flatten() for tokens, _ in dealt(0, 1, 0.5)])
    shown = torch.cat([tokens.flatten() for tokens, _ in whole])
    assert 0 < int(((hidden < 0) & (shown >= 0)).sum()) < int((shown >= 0).sum())


def test_some_texts_have_their_own_figure():
    assert texts().nats == 1
    few = texts().every(3)
    assert few.lengths.tolist() == [6, 3, 6, 3]
    assert few.nats == 1


def test_no_token_is_impossible():
    distribution = data.token_distribution(texts(), 100)
    assert float(distribution.min()) > 0
    torch.testing.assert_close(distribution.sum(), torch.tensor(1.0))
    torch.testing.assert_close(distribution[0], 3 * distribution[99])
