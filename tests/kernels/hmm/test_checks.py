"""What the kernels say of arguments that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctrldecode.errors import InputError
from ctrldecode.kernels import hmm
from tests.kernels.hmm.problems import problem

CASE = problem(0, size=6, states=4)
EMISSION = hmm.encode(CASE.matrix)
EDGES = hmm.edge_sums(EMISSION, CASE.classes, CASE.table, CASE.accepting, [0])
PASS = {name: getattr(CASE, name) for name in ("predicted", "tilted", "columns", "classes")}
ENCODE = {"matrix": CASE.matrix, "dtype": "float32"}
FILTER = {"transition": CASE.transition, "predicted": CASE.predicted, "tokens": torch.tensor([1, -1])}
SUMS = {
    "classes": CASE.classes,
    "table": CASE.table,
    "accepting": CASE.accepting,
    "eos_token_ids": [0],
    "weights": None,
}
STEP = {"edges": EDGES, "transition": CASE.transition, "future": torch.zeros(3, 4), "log_scale": torch.zeros(3)}


@pytest.mark.parametrize(
    ("function", "good", "bad", "message"),
    [
        (hmm.encode, ENCODE, {"dtype": "int8"}, "dtype must be one of 'float32', 'float16', 'uint8', got 'int8'"),
        (hmm.encode, ENCODE, {"matrix": torch.ones(3)}, r"matrix must have shape \(any, any\), got \(3,\)"),
        (hmm.encode, ENCODE, {"matrix": torch.ones(0, 3)}, r"must have tokens and states, got shape \(0, 3\)"),
        (hmm.encode, ENCODE, {"matrix": torch.tensor([[-1.0]])}, "finite probabilities ≥ 0, got entries from -1 to -1"),
        (hmm.encode, ENCODE, {"matrix": torch.tensor([[0.5, torch.nan]])}, "got entries from nan to nan"),
        (hmm.encode, ENCODE, {"matrix": torch.ones(2, 2, dtype=torch.int32)}, "matrix must be torch.float16 or"),
        (hmm.filter_step, FILTER, {"tokens": torch.tensor([1, 6])}, "tokens must lie in -1 to 5, got 1 to 6"),
        (hmm.filter_step, FILTER, {"tokens": torch.tensor([1])}, r"tokens must have shape \(2\), got \(1,\)"),
        (hmm.filter_step, FILTER, {"transition": torch.eye(3)}, r"transition must have shape \(4, 4\), got \(3, 3\)"),
        (
            hmm.filter_step,
            FILTER,
            {"predicted": CASE.predicted.double()},
            "predicted must be torch.float32, got torch.float64",
        ),
        (hmm.vocabulary_pass, PASS, {"tilted": CASE.tilted[:, :3]}, r"tilted must have shape \(any, 4\)"),
        (hmm.vocabulary_pass, PASS, {"tilted": CASE.tilted[:0]}, "columns must lie in -1 to -1"),
        (hmm.vocabulary_pass, PASS, {"columns": CASE.columns[:, :1]}, "classes must lie in 0 to 0, got 0 to 3"),
        (hmm.vocabulary_pass, PASS, {"columns": CASE.columns.float()}, "columns must be torch.int32 or torch.int64"),
        (hmm.vocabulary_pass, PASS, {"classes": CASE.classes[1:]}, r"classes must have shape \(6\), got \(5,\)"),
        (
            hmm.vocabulary_pass,
            PASS,
            {"predicted": CASE.predicted.to("meta")},
            "predicted must be on cpu as the rest, got meta",
        ),
        (hmm.candidate_pass, {**PASS, "tokens": CASE.tokens}, {"tokens": CASE.tokens - 9}, "tokens must lie in 0 to 5"),
        (hmm.edge_sums, SUMS, {"eos_token_ids": [0, 6]}, r"eos_token_ids must lie in 0 to 5, got \[6\]"),
        (hmm.edge_sums, SUMS, {"table": CASE.table + 1}, "table must lie in -1 to 2"),
        (hmm.edge_sums, SUMS, {"accepting": CASE.accepting.int()}, "accepting must be torch.bool, got torch.int32"),
        (hmm.edge_sums, SUMS, {"weights": torch.ones(2)}, r"weights must have shape \(6\), got \(2,\)"),
        (hmm.table_step, STEP, {"future": torch.zeros(2, 4)}, r"future must have shape \(3, 4\), got \(2, 4\)"),
        (hmm.table_step, STEP, {"log_scale": torch.zeros(3).int()}, "log_scale must be torch.float32 or torch.float64"),
    ],
)
def test_bad_arguments(function: Any, good: dict[str, Any], bad: dict[str, Any], message: str) -> None:
    first = () if function in {hmm.encode, hmm.table_step} else (EMISSION,)
    function(*first, **good)
    with pytest.raises(InputError, match=message):
        function(*first, **{**good, **bad})


def test_strided_values() -> None:
    emission = hmm.encode(CASE.matrix)
    strided = emission._replace(values=emission.values.T.contiguous().T)
    with pytest.raises(InputError, match="values must be contiguous"):
        hmm.vocabulary_pass(strided, **PASS)
