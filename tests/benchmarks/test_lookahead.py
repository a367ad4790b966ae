"""One lookahead step beside merely reading E, beside one matrix product, and beside the formulation in logarithms.

H = 4096, V = 50257, an automaton of 100 states and 750 edges, random parameters, as many threads as torch uses. Every time is the median
over interleaved rounds. "Reading" folds all bytes of E into 8, with the same threads. "In logarithms" is the product of all
B·Q rows with the vocabulary as the published code writes it (GeLaTo's `matmul_log`), after which one of Q entries is taken.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ctrldecode._resources import model_path
from ctrldecode.automata.dfa import TokenDFA
from ctrldecode.hmm.lookahead import Lookahead
from ctrldecode.hmm.model import HMM
from ctrldecode.kernels import hmm
from ctrldecode.kernels.hmm import _numba, _torch
from ctrldecode.lm import CausalLM
from tests.benchmarks.report import losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from tests.benchmarks.report import Report

STATES, SIZE, AUTOMATON, CLASSES = 4096, 50257, 100, 16
EDGES = 750
ROUNDS = 7


class Step(NamedTuple):
    predicted: Tensor  # (B, H)
    tilted: Tensor  # (N, H)
    columns: Tensor  # (B, C)
    classes: Tensor  # (V,)


@pytest.fixture(scope="module", autouse=True)
def _all_threads() -> Iterator[None]:
    """For these tables only: those of the modules after this one are of one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(numba.get_num_threads())
    yield
    torch.set_num_threads(before)


def emission(dtype: str) -> hmm.Emission:
    """Random values, made as stored: a dense matrix beside them would not fit everywhere."""
    rng = np.random.default_rng(0)
    values = torch.empty((SIZE, STATES), dtype=hmm.DTYPES[dtype])
    for block in values.split(1024):
        draw = rng.integers(0, 256, block.shape, np.uint8) if dtype == "uint8" else rng.random(block.shape, np.float32)
        block.copy_(torch.from_numpy(draw))
    groups = 32 if dtype == "uint8" else 1
    return hmm.Emission(values, torch.full((SIZE, groups), 1 / SIZE), torch.ones(STATES))


def step(rows: int, share: float) -> Step:
    """One class has the tokens that carry on, one a share that begins a word, the others ten tokens each."""
    rng = np.random.default_rng(1)
    classes = (rng.random(SIZE) < share).astype(np.int64)
    rare = rng.permutation(SIZE)[: 10 * (CLASSES - 2)]
    classes[rare] = 2 + np.arange(len(rare)) % (CLASSES - 2)
    predicted = torch.from_numpy(rng.dirichlet(np.ones(STATES), rows)).float()
    tilted = predicted.repeat_interleave(CLASSES, 0) * torch.from_numpy(rng.random((rows * CLASSES, STATES))).float()
    columns = torch.arange(rows * CLASSES).reshape(rows, CLASSES)
    columns[:, -1] = -1
    return Step(predicted, tilted, columns, torch.from_numpy(classes))


@numba.njit(nogil=True)
def folded(words: np.ndarray, low: int, high: int, found: np.ndarray) -> None:
    total = np.uint64(0)
    for row in words[low:high]:
        for word in row:
            total ^= word
    found[low] = total


def read(values: Tensor) -> None:
    words = values.view(torch.uint8).numpy().view(np.uint64)
    found = np.empty(len(words), np.uint64)
    _numba._in_parallel(lambda low, high: folded(words, low, high, found), len(words), values.numel())


def in_logarithms(predicted: Tensor, future: Tensor, log_matrix: Tensor) -> Tensor:
    """log Σ_h a(b, h) β(q, h) E(h, v) for all b, q, v: predicted (B, H), future (Q, H), log_matrix (H, V)."""
    left = (predicted.log().unsqueeze(1) + future.log()).flatten(0, 1)
    left_top, right_top = left.amax(1, keepdim=True), log_matrix.amax(0, keepdim=True)
    found = torch.exp(left - left_top) @ torch.exp(log_matrix - right_top)
    return found.log_() + left_top + right_top


def measured(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds: medians over interleaved rounds, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name] += [time.perf_counter() - start] * bool(number)
    return {name: float(np.median(seconds)) * 1e3 for name, seconds in times.items()}


@pytest.fixture(scope="module")
def logarithms() -> float:
    """Milliseconds of the formulation in logarithms, at batch 1."""
    matrix = torch.rand(STATES, SIZE).log_()
    predicted, future = torch.rand(1, STATES), torch.rand(AUTOMATON, STATES)
    return measured({"all": lambda: in_logarithms(predicted, future, matrix)}, 3)["all"]


@pytest.fixture(scope="module")
def product() -> dict[int, float]:
    """Milliseconds of one float32 product of N vectors with the vocabulary."""
    matrix = torch.rand(SIZE, STATES)
    vectors = {count: torch.rand(count, STATES) for count in (32, 64)}
    named = measured({str(count): partial(torch.matmul, some, matrix.T) for count, some in vectors.items()})
    return {int(count): found for count, found in named.items()}


@pytest.mark.bench
@pytest.mark.parametrize("dtype", hmm.DTYPES)
def test_step(dtype: str, logarithms: float, product: dict[int, float], report: Report) -> None:
    code, one, many, halves = emission(dtype), step(1, 0.0), step(32, 0.0), step(32, 0.5)
    tokens = {count: torch.randint(SIZE, (count, 100)) for count in (1, 32)}
    calls: dict[str, Callable[[], object]] = {
        "reading E": lambda: read(code.values),
        "batch 1": lambda: hmm.vocabulary_pass(code, *one),
        "batch 1, 100 candidates": lambda: hmm.candidate_pass(code, *one, tokens[1]),
        "batch 32": lambda: hmm.vocabulary_pass(code, *many),
        "batch 32, half of V in a second class": lambda: hmm.vocabulary_pass(code, *halves),
        "batch 32, 100 candidates": lambda: hmm.candidate_pass(code, *many, tokens[32]),
    }
    found = measured(calls)
    rows: list[list[str]] = []
    for name, own in found.items():
        single = name.startswith("batch 1")
        beside = f"{own / product[64]:.2f} ({own / product[32]:.2f})" if not single and "candidates" not in name else ""
        gain = f"{logarithms / own:.0f}" if single else ""
        rows.append([dtype, name, f"{own:.2f}", f"{own / found['reading E']:.2f}", beside, gain])
    note = (
        f"With {dtype}: in logarithms {logarithms:.0f} ms at batch 1; one float32 product of 32 vectors with V "
        f"{product[32]:.0f} ms, of 64 {product[64]:.0f} ms."
    )
    heads = ["E in", "step", "ms", "× reading E", "× product of 64 (of 32) vectors", "× faster than in logarithms"]
    lost = "Where we lose: above 1 beside reading E, or beside a product; below 1 beside the formulation in logarithms."
    report.add("lookahead-step", heads, rows, [lost, note])


def random_hmm(size: int) -> HMM:
    """The last state ends texts, all others emit every token but the end, 0."""
    emission = torch.empty(size, STATES)
    for block in emission.split(1024):
        block.copy_(torch.from_numpy(np.random.default_rng(0).random(block.shape, np.float32)))
    emission[0], emission[:, -1], emission[0, -1] = 0, 0, 1
    transition = torch.rand(STATES, STATES)
    transition[-1], transition[:, -1] = 0, 1e-4
    transition[-1, -1] = 1
    emission /= emission.sum(0, keepdim=True)
    transition /= transition.sum(1, keepdim=True)
    return HMM(torch.full((STATES,), 1 / STATES), transition, emission.T, eos_token_ids=[0])


def counting(size: int) -> TokenDFA:
    """A fiftieth of the tokens takes 1 to 10 steps towards the end of a chain of states."""
    moves = np.arange(AUTOMATON)[:, None].repeat(size, 1)
    for jump, tokens in enumerate(
        np.array_split(np.random.default_rng(1).permutation(np.arange(1, size))[: size // 50], 10)
    ):
        moves[:, tokens] = np.minimum(np.arange(AUTOMATON) + 1 + jump, AUTOMATON - 1)[:, None]
    moves[:-1, 0] = -1
    return TokenDFA(moves, 0, [AUTOMATON - 1], [0])


def real_scores(count: int) -> list[Tensor]:
    """log p(v | x) (1, 3072) of the embedded model along texts of its own."""
    lm = CausalLM(AutoModelForCausalLM.from_pretrained(model_path("tinytales"), dtype=torch.float32).eval())
    begin = torch.tensor([[lm.eos_token_ids[0]]])
    rng, state = torch.Generator().manual_seed(0), lm.init(begin)
    found: list[Tensor] = []
    with torch.no_grad():
        while len(found) < count:
            state = lm.init(begin) if bool(state.finished) else state
            found.append(lm.log_weights(state))
            state = lm.step(state, torch.multinomial(found[-1].softmax(-1), 1, generator=rng)[:, 0])
    return found


@pytest.mark.bench
@pytest.mark.parametrize("size", [3072, SIZE])
def test_candidates(size: int, report: Report) -> None:
    """`candidates=1e-4` on what the embedded model says of its own 3,072 tokens, the first of the vocabulary; others it cannot say."""
    automaton, model = counting(size), random_hmm(size)
    whole, listed = (Lookahead(model, automaton, max_new_tokens=64, limit="open", candidates=c) for c in (None, 1e-4))
    state = whole.init(torch.zeros(1, 0, dtype=torch.long))
    times: dict[Lookahead, list[float]] = {whole: [], listed: []}
    for own in real_scores(60):
        for lookahead, found in times.items():
            scores = torch.full((1, size), -math.inf)
            scores[:, : own.shape[1]] = own
            start = time.perf_counter()
            lookahead.add_log_weights(state, scores)
            found.append(time.perf_counter() - start)
    every, some = (float(np.median(found)) * 1e3 for found in times.values())
    faster = f"{every / some:.1f} ({np.mean(times[whole]) / np.mean(times[listed]):.1f})"
    weighed = listed.truncation.tokens / listed.truncation.steps
    report.add(
        "lookahead-candidates",
        ["V", "all tokens, ms", "candidates=1e-4, ms", "× faster in the median (on average)", "tokens weighed"],
        [[f"{size:,}", f"{every:.2f}", f"{some:.2f}", faster, f"{weighed:.0f}"]],
        ["Where we lose: below 10, the goal."],
    )


@pytest.mark.bench
@pytest.mark.parametrize("dtype", hmm.DTYPES)
def test_where_products_win(dtype: str, report: Report) -> None:
    """Compiled loops beside matrix products, batch by batch: what `_ROWS_FOR_PRODUCT` decides between."""
    code = emission(dtype)
    for rows in (1, 8, 32, 64, 128):
        given = step(rows, 0.0)
        variants = {module.__name__: partial(module.vocabulary_pass, code, *given) for module in (_numba, _torch)}
        loops, products = measured(variants, 2).values()
        report.add(
            "lookahead-products",
            ["E in", "rows", "loops, ms", "products, ms"],
            [[dtype, str(rows), f"{loops:.1f}", f"{products:.1f}"]],
            [f"Where we lose: where products take less, since below {hmm._ROWS_FOR_PRODUCT} rows the loops are taken."],
        )


@pytest.mark.bench
def test_table(report: Report) -> None:
    rng = np.random.default_rng(0)
    pairs = np.sort(rng.choice(AUTOMATON**2, EDGES, replace=False))
    source, target = (torch.from_numpy(part) for part in np.divmod(pairs, AUTOMATON))
    edges = hmm.Edges(source, target, torch.rand(EDGES, STATES) / SIZE, torch.rand(AUTOMATON, STATES))
    transition = torch.from_numpy(rng.dirichlet(np.ones(STATES), STATES)).float()
    future, log_scale = torch.rand(AUTOMATON, STATES), torch.zeros(AUTOMATON)
    found = measured(
        {
            "step of the table": lambda: hmm.table_step(edges, transition, future, log_scale),
            "in torch": lambda: _torch.table_step(edges, transition, future, log_scale),
            "its product alone": lambda: future @ transition.T,
            "step of the filter, batch 1": lambda: hmm.filter_step(
                hmm.Emission(transition, torch.ones(STATES, 1), torch.ones(STATES)),
                transition,
                future[:1],
                torch.tensor([5]),
            ),
        }
    )
    rows = [[name, f"{own:.1f}"] for name, own in found.items()]
    own = {"step of the table": found["step of the table"]}
    lost = losses(own, {other: {"step of the table": found[other]} for other in ("in torch", "its product alone")})
    report.add("lookahead-table", [f"Q = {AUTOMATON}, {EDGES} edges", "ms"], rows, [lost])
