"""The toolkits under test behind one face: compile a grammar, begin a text, fill a packed mask, consume a token.

It knows nothing of traces or of time. All toolkits get the same vocabulary, and each the grammar in its own notation.
"""

from __future__ import annotations

import base64
import json
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.grammar import Grammar
from tests.grammars import golden

EOS = 2  # of tekken


class Engine(Protocol):
    """A toolkit with a grammar. A mask that was filled is valid until the next is."""

    def compile(self) -> None: ...
    def restart(self) -> None: ...
    def fill(self) -> np.ndarray: ...
    def consume(self, token: int) -> None: ...


class Ours:
    def __init__(self, vocabulary: Vocabulary, text: str, budget: int | None = None) -> None:
        self.vocabulary, self.text = vocabulary, text
        self.budget = None if budget is None else torch.tensor([budget])

    @classmethod
    def shipped(cls, vocabulary: Vocabulary, name: str, budget: int | None = None) -> Ours:
        return cls(vocabulary, (golden.FOLDER / f"{name}.lark").read_text(encoding="utf-8"), budget)

    def compile(self) -> None:
        self.potential = Grammar(self.text).compile(self.vocabulary)

    def restart(self) -> None:
        self.state = self.potential.init(torch.zeros(1, 1, dtype=torch.long), budget=self.budget)

    def fill(self) -> np.ndarray:
        return self.potential.mask(self.state)[0]

    def consume(self, token: int) -> None:
        self.state = self.potential.step(self.state, torch.tensor([token]))


class LLGuidance:
    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        import llguidance
        import llguidance.numpy

        self.module, self.fill_mask = llguidance, llguidance.numpy.fill_next_token_bitmask
        wrapped = llguidance.TokenizerWrapper(_Tokenizer(vocabulary))
        self.tokenizer = llguidance.LLTokenizer(wrapped, n_vocab=vocabulary.size)
        self.mask = llguidance.numpy.allocate_token_bitmask(1, vocabulary.size)
        # All tokenisations, as ours: without this, bytes that are forced may come in canonical tokens only.
        self.text = f'%llguidance {{"no_forcing": true}}\n{text}'

    def compile(self) -> None:
        grammar = self.module.LLMatcher.grammar_from_lark(self.text)
        self.first = self.module.LLMatcher(self.tokenizer, grammar)
        assert not self.first.is_error(), self.first.get_error()

    def restart(self) -> None:
        self.matcher = self.first.deep_copy()

    def fill(self) -> np.ndarray:
        self.fill_mask(self.matcher, self.mask, 0)
        return self.mask[0]

    def consume(self, token: int) -> None:
        assert self.matcher.consume_token(token), self.matcher.get_error()


class XGrammar:
    def __init__(self, vocabulary: Vocabulary, text: str | None, *, is_regex: bool = False) -> None:
        """Without a text, the JSON grammar that xgrammar ships."""
        import xgrammar

        self.module, self.text, self.is_regex = xgrammar, text, is_regex
        tokens = [token or b"" for token in vocabulary.tokens]
        self.info = xgrammar.TokenizerInfo(tokens, vocab_size=vocabulary.size, stop_token_ids=[EOS])
        self.mask = xgrammar.allocate_token_bitmask(1, vocabulary.size)

    def compile(self) -> None:
        compiler = self.module.GrammarCompiler(self.info, max_threads=1, cache_enabled=False)
        if self.text is None:
            self.compiled = compiler.compile_builtin_json_grammar()
        else:
            self.compiled = (compiler.compile_regex if self.is_regex else compiler.compile_grammar)(self.text)

    def restart(self) -> None:
        self.matcher = self.module.GrammarMatcher(self.compiled)

    def fill(self) -> np.ndarray:
        if not self.matcher.fill_next_token_bitmask(self.mask):
            self.mask.fill_(-1)
        return self.mask[0].numpy()

    def consume(self, token: int) -> None:
        assert self.matcher.accept_token(token)


class OutlinesCore:
    """Regular languages only: a table of all states and tokens is made when compiling."""

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        import outlines_core

        self.module, self.text = outlines_core, text
        ids: dict[bytes, list[int]] = {}
        for token, piece in enumerate(vocabulary.tokens):
            if piece:
                ids.setdefault(piece, []).append(token)
        self.vocabulary = outlines_core.Vocabulary(EOS, ids)
        self.mask = np.zeros((vocabulary.size + 31) // 32, np.int32)

    def compile(self) -> None:
        self.index = self.module.Index(self.text, self.vocabulary)

    def restart(self) -> None:
        self.guide = self.module.Guide(self.index)

    def fill(self) -> np.ndarray:
        self.guide.write_mask_into(self.mask.ctypes.data, self.mask.size, self.mask.itemsize)
        return self.mask

    def consume(self, token: int) -> None:
        self.guide.advance(token, return_tokens=False)


class _Tokenizer:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [token or b"\xff<special>" for token in vocabulary.tokens]
        self.eos_token_id, self.bos_token_id = EOS, None
        self.special_token_ids = [i for i, token in enumerate(vocabulary.tokens) if token is None]

    def __call__(self, text: str) -> list[int]:
        raise TypeError(f"tokens come as ids here, got the text {text!r}")


def version(name: str) -> str:
    """Of the package that a toolkit's name begins with."""
    return metadata.version(name.split(",", maxsplit=1)[0])


def tekken() -> Vocabulary:
    """The 131,072 tokens of mistral-common's tekken tokenizer."""
    import mistral_common

    path = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    data: Any = json.loads(path.read_text(encoding="utf-8"))
    special = data["config"]["default_num_special_tokens"]
    size = data["config"]["default_vocab_size"]
    pieces = [base64.b64decode(entry["token_bytes"]) for entry in data["vocab"][: size - special]]
    return Vocabulary([None] * special + pieces, {EOS})
