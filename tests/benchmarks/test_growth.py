"""How cost grows: masks with the vocabulary and the grammar, a lookahead step with H, V, the automaton and the batch, ASAp with samples.

Medians of interleaved rounds in one process, one thread. Tables and curves go into the documentation with `--write-docs`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ctrldecode import AutomatonPotential, TokenDFA
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.kernels import hmm
from ctrldecode.samplers import SAMPLERS, Trie
from tests.benchmarks import notations
from tests.benchmarks.engines import EOS, Engine, LLGuidance, Ours, XGrammar, tekken
from tests.benchmarks.plots import Panel, draw
from tests.benchmarks.report import ROOT, with_ratio
from tests.benchmarks.test_masks import LLGUIDANCE, OURS, XGRAMMAR, measured, run
from tests.benchmarks.test_samplers import Fixed
from tests.benchmarks.traces import RECORD, greedy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.report import Report

pytestmark = pytest.mark.bench

SIZES = [2**power for power in range(12, 19)]  # 4,096 to 262,144 tokens
RULES = [10, 100, 1000, 3000]
LIMIT = 20.0  # seconds: a toolkit that needed more for one round is not asked for larger grammars
TEXT = json.dumps(RECORD)
Curves = dict[str, list[tuple[float, float]]]


@pytest.fixture(scope="module")
def plotting(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--write-docs", default=False))


def cut(whole: Vocabulary, size: int) -> Vocabulary:
    """The first tokens of a byte-pair vocabulary are the vocabulary of fewer merges; beyond its end pairs of its words are joined."""
    tokens = list(whole.tokens[:size])
    words = [token for token in tokens if token and token[:1] == b" " and token[1:].isalpha()]
    rng = np.random.default_rng(0)
    known = set(tokens)
    while len(tokens) < size:
        pair = b"".join(words[place] for place in rng.integers(0, len(words), 2))
        if pair not in known:
            known.add(pair)
            tokens.append(pair)
    return Vocabulary(tokens, {EOS})


def tokens_of(text: str, vocabulary: Vocabulary) -> list[int]:
    return greedy(text.encode(), {token: i for i, token in enumerate(vocabulary.tokens) if token})


def figures(engines: dict[str, Engine], tokens: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Milliseconds to compile and run a text, and µs of a step when it is run again, of every toolkit."""
    found = measured(engines, [tokens])
    return {name: (timing.figures()[0], timing.figures()[2]) for name, timing in found.items()}


def test_masks_against_the_vocabulary(report: Report, plotting: bool):
    whole = tekken()
    cold: Curves = {OURS: [], LLGUIDANCE: [], XGRAMMAR: []}
    warm: Curves = {name: [] for name in cold}
    for size in SIZES:
        vocabulary = cut(whole, size)
        found = figures(engines_of(vocabulary), tokens_of(TEXT, vocabulary))
        for name, (first, again) in found.items():
            cold[name].append((size, first))
            warm[name].append((size, again))
    tell(report, "growth-vocabulary", "tokens", cold, warm)
    if plotting:
        panels = [
            Panel("JSON, grammar compiled anew", "tokens of vocabulary", "ms: compile and first trace", cold),
            Panel("masks seen before", "tokens of vocabulary", "µs a step", warm),
        ]
        draw(panels, ROOT / "docs" / "growth-vocabulary.svg")


def engines_of(vocabulary: Vocabulary) -> dict[str, Engine]:
    return {
        OURS: Ours.shipped(vocabulary, "json"),
        LLGUIDANCE: LLGuidance(vocabulary, notations.JSON.llguidance()),
        XGRAMMAR: XGrammar(vocabulary, None),
    }


def commands(count: int) -> tuple[str, str, str]:
    """A language of `count` commands, each a rule with a keyword of its own: for us and llguidance, for xgrammar, and a text of it."""
    rules = "\n".join(f'c{number}: "cmd{number:05}" "(" NUMBER ("," NUMBER)* ")"' for number in range(count))
    start = 'start: (command ";")+\ncommand: ' + " | ".join(f"c{number}" for number in range(count))
    lark = f"{start}\n{rules}\nNUMBER: /[0-9]+/\n"
    ebnf = lark.replace(": ", " ::= ").replace("/[0-9]+/", "[0-9]+").replace("start ::=", "root ::=")
    text = "".join(f"cmd{number:05}({number},42);" for number in range(0, count, max(1, count // 10)))
    return lark, ebnf, text


def test_masks_against_the_grammar(report: Report, plotting: bool):
    vocabulary = tekken()
    cold: Curves = {OURS: [], LLGUIDANCE: [], XGRAMMAR: []}
    warm: Curves = {name: [] for name in cold}
    slow: set[str] = set()
    for count in RULES:
        lark, ebnf, text = commands(count)
        tokens = tokens_of(text, vocabulary)
        engines: dict[str, Engine] = {
            OURS: Ours(vocabulary, lark),
            LLGUIDANCE: LLGuidance(vocabulary, lark),
            XGRAMMAR: XGrammar(vocabulary, ebnf),
        }
        given = {name: engine for name, engine in engines.items() if name not in slow and can(engine, tokens)}
        for name, (first, again) in figures(given, tokens).items():
            cold[name].append((count, first))
            warm[name].append((count, again))
            slow |= {name} if first > 1e3 * LIMIT else set()
    tell(report, "growth-grammar", "rules", cold, warm)
    if plotting:
        panels = [
            Panel("grammar compiled anew", "rules", "ms: compile and first trace", cold),
            Panel("masks seen before", "rules", "µs a step", warm),
        ]
        draw(panels, ROOT / "docs" / "growth-grammar.svg")


def can(engine: Engine, tokens: Sequence[int]) -> bool:
    """Whether a toolkit takes a grammar; llguidance has limits on its size."""
    try:
        engine.compile()
        run(engine, tokens)
    except AssertionError as refused:
        print(str(refused)[:200])
        return False
    return True


def tell(report: Report, table: str, what: str, cold: Curves, warm: Curves) -> None:
    rows: list[list[str]] = []
    for size, _ in cold[OURS]:
        row = [f"{size:,}"]
        for name in cold:
            for curves in (cold, warm):
                figure, ours = dict(curves[name]).get(size), dict(curves[OURS])[size]
                row.append("–" if figure is None else f"{ours:.1f}" if name == OURS else with_ratio(figure, ours))
        rows.append(row)
    heads = [f"{name}, {unit}" for name in cold for unit in ("cold, ms", "warm step, µs")]
    report.add(table, [what, *heads], rows, [lost({"cold": cold, "warm": warm}, what)], [LLGUIDANCE, XGRAMMAR])


def lost(kinds: dict[str, Curves], what: str) -> str:
    """Over which sizes each peer needs less than we do, and between how many times less."""
    found: list[str] = []
    for kind, curves in kinds.items():
        own = dict(curves[OURS])
        for name in (LLGUIDANCE, XGRAMMAR):
            ratios = {size: own[size] / figure for size, figure in curves[name] if own[size] > figure}
            if ratios:
                sizes = " to ".join(dict.fromkeys(f"{size:,}" for size in (min(ratios), max(ratios))))
                times = " to ".join(
                    dict.fromkeys(f"{ratio:.2g}" for ratio in (min(ratios.values()), max(ratios.values())))
                )
                count = f"{len(ratios)} of {len(curves[name])} sizes"
                found.append(f"{kind}, {times} times {name} at {count} ({sizes} {what})")
    return "Where we lose: " + ("; ".join(found) if found else "nowhere in this table") + "."


def lookahead_ms(states: int, size: int, classes: int, batch: int) -> float:
    """Milliseconds of one pass over the vocabulary: random parameters; one class has nearly all tokens, the others ten each."""
    rng = np.random.default_rng(0)
    values = torch.rand(size, states)
    code = hmm.Emission(values, torch.full((size, 1), 1 / size), torch.ones(states))
    ids = np.zeros(size, np.int64)
    rare = rng.permutation(size)[: 10 * (classes - 1)]
    ids[rare] = 1 + np.arange(len(rare)) % max(1, classes - 1)
    predicted = torch.from_numpy(rng.dirichlet(np.ones(states), batch)).float()
    tilted = predicted.repeat_interleave(classes, 0) * torch.rand(batch * classes, states)
    columns = torch.arange(batch * classes).reshape(batch, classes)
    return median(lambda: hmm.vocabulary_pass(code, predicted, tilted, columns, torch.from_numpy(ids)))


def table_ms(states: int, automaton: int) -> float:
    """Milliseconds of one step of the table over automaton and hidden states, four edges a state."""
    rng = np.random.default_rng(0)
    source = torch.arange(automaton).repeat_interleave(4)
    target = torch.from_numpy(rng.integers(0, automaton, 4 * automaton))
    edges = hmm.Edges(source, target, torch.rand(4 * automaton, states) / 1000, torch.rand(automaton, states))
    transition = torch.from_numpy(rng.dirichlet(np.ones(states), states)).float()
    future, log_scale = torch.rand(automaton, states), torch.zeros(automaton)
    return median(lambda: hmm.table_step(edges, transition, future, log_scale))


def median(call: Callable[[], object], rounds: int = 7) -> float:
    times: list[float] = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times[1:]))


def test_lookahead(report: Report, plotting: bool):
    """One at a time, about H = 1024, V = 50,257, 16 classes at the state of the automaton, batch 1."""
    kinds: dict[str, tuple[Sequence[int], Callable[[int], float]]] = {
        "H": ([128, 256, 512, 1024, 2048, 4096], lambda h: lookahead_ms(h, 50_257, 16, 1)),
        "V": ([4096, 16_384, 65_536, 262_144], lambda v: lookahead_ms(1024, v, 16, 1)),
        "classes": ([1, 4, 16, 64, 256], lambda c: lookahead_ms(1024, 50_257, c, 1)),
        "batch": ([1, 4, 16, 64, 128], lambda b: lookahead_ms(1024, 50_257, 16, b)),
        "automaton states": ([10, 100, 1000, 5000], lambda q: table_ms(1024, q)),
    }
    curves: Curves = {}
    for kind, (sizes, cost) in kinds.items():
        curves[kind] = [(size, cost(size)) for size in sizes]
        step = "a step of the table" if kind == "automaton states" else "a pass over the vocabulary"
        cells = ", ".join(f"{size:,}: {ms:.3g}" for size, ms in curves[kind])
        report.add("growth-lookahead", ["what grows", "of what", "size: ms"], [[kind, step, cells]])
    if plotting:
        draw(
            [
                Panel("hidden states, tokens", "H or V", "ms a pass over the vocabulary", {k: curves[k] for k in "HV"}),
                Panel(
                    "rows, classes",
                    "batch or classes",
                    "ms a pass over the vocabulary",
                    {k: curves[k] for k in ("batch", "classes")},
                ),
                Panel("table", "automaton states", "ms a step of the table", {"H = 1024": curves["automaton states"]}),
            ],
            ROOT / "docs" / "growth-lookahead.svg",
        )


def test_asap_against_samples(report: Report, plotting: bool):
    """Cost beside a model whose forward pass is free, and the trie: texts of 32 tokens, of which an automaton forbids one in a thousand."""
    lm = Fixed(16_384)
    table = np.zeros((1, 16_384), int)
    table[0, np.random.default_rng(0).choice(np.arange(1, 16_384), 16, replace=False)] = -1
    potential = AutomatonPotential(TokenDFA(table, 0, [0], 0))
    milliseconds: list[tuple[float, float]] = []
    megabytes: list[tuple[float, float]] = []
    for samples in (4, 16, 64, 256, 1024, 4096):  # the first warms up
        began = time.perf_counter()
        found = SAMPLERS["asap"](
            lm, potential, [[1]], num=samples, max_new_tokens=32, rng=torch.Generator().manual_seed(0)
        )
        seconds = time.perf_counter() - began
        trie = found.info["trie"]
        assert isinstance(trie, Trie)
        if samples < 16:
            continue
        milliseconds.append((samples, 1e3 * seconds / samples))
        megabytes.append((samples, trie.nbytes / 1e6))
        row = [f"{samples:,}", f"{milliseconds[-1][1]:.1f}", f"{trie.nodes:,}", f"{megabytes[-1][1]:.2f}"]
        report.add("growth-asap", ["samples", "ms a sample", "nodes of the trie", "MB"], [row])
    if plotting:
        panels = [
            Panel("time", "samples", "ms a sample, the model's passes not counted", {"asap": milliseconds}),
            Panel("memory", "samples", "MB of the trie", {"asap": megabytes}),
        ]
        draw(panels, ROOT / "docs" / "growth-asap.svg")
