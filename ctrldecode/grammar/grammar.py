"""`Grammar`: a lark grammar, checked and ready to be compiled for a vocabulary."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lark.exceptions import LarkError

from ctrldecode.core._tries import trie_of
from ctrldecode.core.vocabulary import Vocabulary
from ctrldecode.errors import ConflictError, GrammarError, GrammarLimitError, GrammarWarning, InputError
from ctrldecode.grammar import _lark
from ctrldecode.grammar._derivations import unending
from ctrldecode.grammar._earley import EarleyMachine
from ctrldecode.grammar._lalr import LalrMachine
from ctrldecode.grammar._lark import Tables
from ctrldecode.grammar.potential import GrammarPotential

if TYPE_CHECKING:
    from os import PathLike

    from ctrldecode.grammar._machine import Machine

__all__ = ["Grammar"]

_PARSERS = ("auto", "lalr", "earley")

# Bytes of a grammar's file; one of a list of 100,000 words has 2 MB.
_MOST = 16 * 2**20
# A mask of 131k tokens takes 16 kB, and a position a handful of them.
_MASK_BYTES = 64 * 2**20
# A lexer state takes about 2 kB; the Python expression grammar needs some hundreds.
_MAX_LEXER_STATES = 50_000
# Frames that the exact decision may summarise; the shipped grammars need none.
_MAX_SEARCH = 200_000


class Grammar:
    """A context-free grammar in lark's notation, with lark's own language, in one of two modes.

    "lalr": the texts that `Lark(text, parser="lalr")` parses; its contextual lexer is, in each parser state, an ordered choice
    over the terminals that the state accepts. "earley": those of `Lark(text, parser="earley", lexer="dynamic_complete")`, for
    every context-free grammar; a lexeme may end wherever the parser can use it.

    Attributes:
        text: the grammar.
        parser: "lalr" or "earley", the mode of lark whose language this is.
        name: how messages call it.

    Example:
        >>> grammar = Grammar('start: "(" start ")" | "x"')
        >>> grammar.accepts("((x))"), grammar.accepts("((x)")
        (True, False)
    """

    parser: str

    def __init__(self, text: str, start: str = "start", parser: str = "auto", *, source: str | None = None) -> None:
        """Read a grammar.

        Args:
            text: the grammar in lark's notation.
            start: the start rule.
            parser: "lalr", "earley", or "auto", which takes lalr where the grammar is LALR(1), else earley.
            source: the file it came from, for relative imports and messages.

        Raises:
            ConflictError: lalr was asked for, and lark's parser could not tell two rules apart.
            GrammarError: lark refuses the grammar, or a terminal cannot be followed while text is generated.
            InputError: an unknown parser, or the path of a file in the place of a grammar.

        Warns:
            GrammarWarning: names that are never used; places where lalr mode reads on although a rule could end.
        """
        if parser not in _PARSERS:
            raise InputError(f"parser must be one of {', '.join(_PARSERS)}, got {parser!r}")
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
            raise InputError(
                f"a grammar is a text in lark's notation, got {type(text).__name__}; use Grammar.from_file for a path"
            )
        if text.endswith(".lark") and "\n" not in text:
            raise InputError(f"{text!r} is a path and no grammar; Grammar.from_file({text!r}) reads it")
        self.text = text
        self.start = start
        self.name: str = (
            Path(source).stem
            if source
            else f"beginning {text.strip().splitlines()[0]!r}"
            if text.strip()
            else "without text"
        )
        self._read(parser, source)

    def _read(self, parser: str, source: str | None) -> None:
        if parser == "earley" or not self._is_read_by_lalr(parser, source):
            self._lark, self._tables = _lark.load_rules(self.text, self.start, source)
            self.parser = "earley"
        endless = unending(self._tables.rules)
        if self.start in endless:
            raise GrammarError(
                f"no text of the grammar {self.name} ever ends: every way through {', '.join(endless[:5])} leads back to rules of the same "
                "kind; give one of them an alternative that does not"
            )
        if isinstance(self._tables, Tables):
            for conflict in self._tables.conflicts:
                self._warn(f'{conflict} (parser="earley" follows both)')
        if self._tables.unused:
            self._warn(f"never used: {', '.join(self._tables.unused)}")

    def _is_read_by_lalr(self, parser: str, source: str | None) -> bool:
        """Read the grammar in lalr mode, if the mode asked for, and the grammar, allow it."""
        try:
            self._lark, tables = _lark.load(self.text, self.start, source)
        except ConflictError:
            if parser == "lalr":
                raise
            return False
        self._tables, self.parser = tables, "lalr"
        return parser == "lalr" or not tables.conflicts

    def _warn(self, what: str) -> None:
        warnings.warn(f"the grammar {self.name}: {what}", GrammarWarning, stacklevel=4)

    @classmethod
    def from_file(cls, path: str | PathLike[str], start: str = "start", parser: str = "auto") -> Grammar:
        """Read a grammar from a file; relative imports are resolved beside it."""
        try:
            if Path(path).stat().st_size > _MOST:
                raise GrammarLimitError(f"the grammar {Path(path)} has more than {_MOST // 2**20} MiB; is it one?")
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GrammarError(f"cannot read the grammar {Path(path)}: {error}") from None
        return cls(text, start, parser, source=str(path))

    def compile(
        self,
        vocabulary: Vocabulary,
        *,
        max_ignored: int | None = None,
        mask_bytes: int = _MASK_BYTES,
        max_lexer_states: int = _MAX_LEXER_STATES,
        max_search: int = _MAX_SEARCH,
    ) -> GrammarPotential:
        """The potential over a vocabulary.

        Args:
            vocabulary: the bytes of the model's tokens.
            max_ignored: the longest run of text matched by `%ignore`, in bytes; None for no bound. Models that may write white
                space often write nothing else.
            mask_bytes: bound on the masks that are kept for positions seen; a smaller one costs time only.
            max_lexer_states: stop with `GrammarLimitError` past this many states of the terminals' automaton.
            max_search: stop with `GrammarLimitError` when deciding what can be completed takes this many summaries.

        Raises:
            GrammarError: a terminal needs lookaround, back-references or the like; or no text of the language can be spelled
                with the vocabulary.
            InputError: a negative `max_ignored`.
        """
        if not isinstance(vocabulary, Vocabulary):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
            raise InputError(
                f"compile wants a Vocabulary, got {type(vocabulary).__name__}; make one by Vocabulary.from_tokenizer(tokenizer, "
                "size=model.config.vocab_size)"
            )
        if max_ignored is not None and max_ignored < 0:
            raise InputError(f"max_ignored must be None or a number of bytes, 0 or more; got {max_ignored}")
        limits: dict[str, Any] = {
            "max_ignored": max_ignored,
            "max_lexer_states": max_lexer_states,
            "max_search": max_search,
        }
        if isinstance(self._tables, Tables):
            machine: Machine[Any] = LalrMachine(self._tables, trie_of(vocabulary), **limits)
        else:
            machine = EarleyMachine(self._tables, trie_of(vocabulary), **limits)
        if not machine.lives(machine.start()):
            raise GrammarError(
                f"no text of the grammar {self.name} can be spelled with this vocabulary of {vocabulary.size} tokens; check that the "
                "vocabulary has its characters, and that %ignore takes away no terminal that every text needs"
            )
        return GrammarPotential(
            machine, vocabulary, self.name, mask_bytes, lambda: self._digest(vocabulary, max_ignored)
        )

    def _digest(self, vocabulary: Vocabulary, max_ignored: int | None) -> str:
        """Hex digest of all that decides what is allowed; imported rules and terminals count with what they say."""
        tables = self._tables
        order = (tables.lexers, tables.unless) if isinstance(tables, Tables) else ()
        parts = [self.parser, self.start, tables.terminals, sorted(tables.ignored), tables.rules, order, max_ignored]
        return hashlib.sha256(f"{parts!r} {vocabulary.fingerprint}".encode()).hexdigest()

    def accepts(self, text: str) -> bool:
        """Whether lark's parser takes the text; in lalr mode it gets our tables, which equal its own."""
        try:
            self._lark.parse(text)
        except LarkError:
            return False
        except RuntimeError as error:  # lark's Earley parser, where the end of a text is at once ignored and not
            if "multiple start symbol" not in str(error):
                raise
        return True
