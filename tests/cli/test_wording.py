"""Messages of the package in the words of the command line; all that stand in its sources are looked through."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typer.main import get_command

import ctrldecode
from ctrldecode import automata
from ctrldecode.automata.potential import AutomatonPotential
from ctrldecode.cli import _wording
from ctrldecode.cli._app import app
from ctrldecode.cli._wording import in_options
from ctrldecode.core import _tokenizers
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import CtrldecodeError, DeadEnd
from ctrldecode.grammar import Grammar
from ctrldecode.guidance import GeDi
from ctrldecode.hmm import HMM, HMMLanguageModel, Lookahead
from ctrldecode.lm._cache import cache_message
from ctrldecode.samplers import Trie
from ctrldecode.training import _resume
from ctrldecode.training.trainer import Settings
from tests.cli.test_command import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(ctrldecode.__file__).parent
BYTES = Vocabulary([bytes([at]) for at in range(256)] + [None], 256)
ABC = automata.contains(BYTES, ["abc"])
# What only callers from Python can meet: the command line checks these before, or has no such thing.
PYTHON_ONLY = (
    "the attention mask 0",
    "the pattern needs more than",
    "a count of up to 0 tokens",
    "this automaton knows token ids only",
    "wanted a tokenizer of transformers",
    "0 has no eos_token_id, so no text could end",
    "max_ignored must be",
    "a prompt and its code are both empty",
    "the class LM ends texts at 0",
    "0 must end texts at the same ids",
    "max_new_tokens must be at least 1",
    "limit must be one of 0",
    "a budget of 0 tokens was asked of a lookahead",
    "on_dead_end='stop'",
    "the trie was learned for max_new_tokens=0",
    "a sampler ends texts at",
    "a sampler draws from",
    "0 stopped after max_lm_calls",
    "max_lm_calls must be",
)


def written(node: ast.AST) -> str:
    """A string as a source has it, with 0 for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return "0"


@functools.cache
def messages() -> tuple[str, ...]:
    """What the package's errors say, those of the command line itself left out."""
    return tuple(_messages())


def _messages() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if PACKAGE / "cli" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                named = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if named.endswith("Error") or named in {"__init__", "_warn"}:
                    yield written(node.args[0])


def arguments_in(message: str) -> list[str]:
    """Names of arguments: those that an option of some command has with hyphens, and those with a value."""
    options = {name for _, command in commands() for name in (param.name for param in command.params) if "_" in name}
    return re.findall(rf"\b(?:{'|'.join(sorted(options))})\b|\b[a-z_]+=[\[\"'.\d]|\blimits?\b(?! of the)", message)


def test_no_message_that_a_command_can_show_names_an_argument_of_python():
    left = {in_options(message) for message in messages()}
    assert [said for said in sorted(left) if arguments_in(said) and not said.startswith(PYTHON_ONLY)] == []


@pytest.mark.parametrize("start", PYTHON_ONLY)
def test_what_only_python_meets_is_still_there(start):
    assert any(message.startswith(start) for message in map(in_options, messages()))


def test_options_that_are_named_are_options():
    known = {name for _, command in commands() for param in command.params for name in param.opts}
    known |= {name for _, command in commands() for param in command.params for name in param.secondary_opts}
    known |= {name for param in get_command(app).params for name in param.opts}
    for message in messages():
        assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", in_options(message))) <= known | {"--nproc-per-node"}, message


def automaton_without_budget() -> None:
    AutomatonPotential(ABC).init(torch.zeros(1, 1), budget=torch.tensor([1]))


def grammar_without_budget() -> None:
    Grammar('start: "abc"').compile(BYTES).init(torch.zeros(1, 1), budget=torch.tensor([1]))


def lookahead_too_large() -> None:
    hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], [[1 / 256] * 256 + [0.0], [0.0] * 256 + [1.0]], eos_token_ids=256)
    Lookahead(hmm, ABC, max_new_tokens=64, max_table_bytes=8)


def trie_of_another_budget() -> None:
    Trie(257, 4, (256,)).check(size=257, max_new_tokens=8, key="", eos_token_ids=(256,))


def guided(target: str, strength: float) -> None:
    pair = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], eos_token_ids=[1])
    GeDi(HMMLanguageModel(pair), {"calm": [0], "loud": [0, 0]}, target=target, strength=strength)


def raised(fails: Callable[[], Any]) -> str:
    with pytest.raises(CtrldecodeError) as error:
        fails()
    return str(error.value)


CASES: list[tuple[Callable[[], Any], str]] = [
        (automaton_without_budget, r"needs 3 tokens, but only 1 are allowed; raise --max-new-tokens$"),
        (grammar_without_budget, r"needs 3 tokens, but only 1 are allowed; raise --max-new-tokens$"),
        (lookahead_too_large, r"and 0 are the most; give fewer or shorter conditions, or a smaller --max-new-tokens or HMM$"),
        (trie_of_another_budget, r"\(--max-new-tokens 4 where 8 is wanted\)"),
        (lambda: automata.contains(BYTES, ["abc"], limit=1), r"more than 1 "),
        (lambda: Grammar('start: "abc"', start="begin"), r"has the rules start: call one of them start$"),
        (lambda: Grammar('start: a | b\na: "x"\nb: "x"', parser="lalr"), r"or give --parser earley, which takes such grammars\n"),
        (lambda: Vocabulary([b"a", b"b", None], 2, size=2), r"^the model's head scores 2 ids, and the tokenizer has 3; resize the model's embeddings$"),
        (lambda: Vocabulary([b"a"], [7]), r"^the ends of sequence \(7,\) must lie in 0 to 0, .*; correct eos_token_id in its generation_config.json$"),
        (lambda: Settings(learning_rate=-1.0), r"^--learning-rate must be a finite number above 0, got -1.0$"),
        (lambda: Settings(max_length=0), r"^--max-length must be a finite number above 0"),
        (lambda: Settings(mix=2.0), r"^--mix must lie in \[0, 1\]"),
        (lambda: guided("odd", 1.0), r"^--guide must name one of the classes calm, loud, got 'odd'$"),
        (lambda: guided("calm", 1e9), r"^the strength of --guide must be a positive number, .*; to lean away from a class, guide towards another one$"),
]  # fmt: skip


@pytest.mark.parametrize(("fails", "message"), CASES)
def test_what_the_package_says_names_options(fails: Callable[[], Any], message: str) -> None:
    assert re.search(message, in_options(raised(fails)))


def test_every_phrase_is_one_of_the_package():
    """A phrase that was changed there shall not stay untranslated here; settings are told of in one place, and tested below."""
    there = [*messages(), *(raised(fails) for fails, _ in CASES), _tokenizers.REMEDY, cache_message("a", "b")]
    lost = [said for said, _ in _wording._PHRASES if not any(re.search(said, message) for message in there)]
    assert [said for said in lost if not any(name in said for name in _wording._SETTINGS)] == []


def test_a_dead_end_tells_what_a_command_can_do():
    said = in_options(str(DeadEnd(0, [1, 2], "a grammar")))
    assert said.endswith("that the model allows. Loosen the constraint, or raise --max-new-tokens.")


def test_settings_that_differ_are_named_as_options(tmp_path):
    settings = {"batch": 8, "texts": "those", "learning_rate": 0.1, "processes": 1}
    _resume.remember(tmp_path, settings)
    others = settings | {"batch": 16, "texts": "these", "learning_rate": 0.2}
    said = in_options(raised(lambda: _resume.last_checkpoint(tmp_path, others)))
    assert ": --batch-size is 8 there, 16 here; the texts differ; --learning-rate is 0.1 there, 0.2 here. Ask" in said


def test_words_of_the_user_stay_as_they_are():
    for said in (
        "cannot read the grammar max_new_tokens.lark: it is not there",
        "there is no file 'limit=9/parser=\"earley\"'; wanted a file of texts",
        "batch must be at least 1, got 0; change the recipe or the option",  # of a distillation
    ):
        assert in_options(said) == said
