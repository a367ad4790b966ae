"""Reads which bytes every token id of a Hugging Face tokenizer stands for.

It takes a tokenizer at its word, from its parts (model, added tokens, normaliser, pre-tokenizer, decoder), and knows
nothing of models, end of sequence or masks; `vocabulary.py` checks what it read against text. No transformers import:
tokenizers come in as protocols.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, runtime_checkable

from ctrldecode.errors import VocabularyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["REMEDY", "Source", "Tokenizer", "read"]

REMEDY = (
    "Use a byte-level BPE or SentencePiece tokenizer that keeps text as it is (NFC at most), or build "
    "Vocabulary(tokens=..., eos_token_ids=...) from the bytes of each id yourself"
)

Part = dict[str, Any]  # one component of a fast tokenizer, as its JSON has it

BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")  # SentencePiece's pieces for single bytes
UNUSED_PIECE = re.compile(r"[<\[]unused_?\d+[>\]]")  # rows of the embedding that training never touched
CONTROL_PIECES = frozenset({"<unk>", "<s>", "</s>", "<pad>"})  # SentencePiece's own; control even where nobody says so
# The only normalisers that may stand beside a SentencePiece charsmap for its result to be taken as what a text becomes.
CHARSMAP_COMPANY = frozenset({"Precompiled", "NFC", "Strip", "Replace", "Prepend"})
LOSSY = frozenset({"Lowercase", "NFKC", "NFKD", "StripAccents", "BertNormalizer"})


class AddedToken(Protocol):
    """A token added to a tokenizer beside its model."""

    @property
    def content(self) -> str: ...
    @property
    def special(self) -> bool: ...


@runtime_checkable
class Tokenizer(Protocol):
    """What every Hugging Face tokenizer, fast or slow, offers."""

    @property
    def all_special_ids(self) -> list[int | None]: ...
    @property
    def eos_token_id(self) -> int | list[int] | None: ...
    @property
    def unk_token_id(self) -> int | None: ...
    def encode(self, *args: Any, **kwargs: Any) -> Any: ...
    def decode(self, *args: Any, **kwargs: Any) -> Any: ...


@runtime_checkable
class Fast(Protocol):
    """A tokenizer backed by the tokenizers library."""

    @property
    def backend_tokenizer(self) -> Any: ...


@runtime_checkable
class Slow(Protocol):
    """A tokenizer written in Python whose pieces are strings."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]: ...
    def get_vocab(self) -> Mapping[str, int]: ...


@runtime_checkable
class ByteDecoding(Protocol):
    """A slow tokenizer in GPT-2's manner."""

    byte_decoder: Mapping[str, int]


@runtime_checkable
class Ranked(Protocol):
    """A slow tokenizer around tiktoken: the bytes of every ordinary token, with its id."""

    mergeable_ranks: Mapping[bytes, int]


class Source(NamedTuple):
    """What a tokenizer says of itself.

    Attributes:
        name: class and parts, for messages.
        tokens: bytes by id; None where the id is never part of a text.
        learned: ids of the model's own pieces with bytes, added tokens left out.
        unknown: ids that stand for whatever the tokenizer cannot spell.
        word_list: the model knows whole words only, so that ordinary text may be unknown to it.
        fold: None if every text must come back from its ids as it was; otherwise the text that the tokenizer makes of a
            text before it looks for pieces (SentencePiece's charsmap, a split at white space), up to runs of spaces.
        lossy: names of normalisers that are known to change text.
        decodes: `decode` is meaningful, because a decoder is set.
    """

    name: str
    tokens: list[bytes | None]
    learned: list[int]
    unknown: frozenset[int]
    word_list: bool = False
    fold: Callable[[str], str] | None = None
    lossy: frozenset[str] = frozenset()
    decodes: bool = True


class Spelling(NamedTuple):
    """How the pieces of a tokenizer spell bytes.

    Attributes:
        replacements: (old, new) strings, in order: ▁ for a space.
        byte_level: a character stands for a byte, by GPT-2's alphabet.
        byte_pieces: <0x0A> stands for the byte 0A.
        latin: a character stands for the byte of its number (ByT5).
    """

    replacements: tuple[tuple[str, str], ...] = ()
    byte_level: bool = False
    byte_pieces: bool = False
    latin: bool = False

    def text(self, piece: str) -> str:
        for old, new in self.replacements:
            piece = piece.replace(old, new)
        return piece

    def bytes(self, piece: str) -> bytes:
        if self.byte_pieces and BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        text = self.text(piece) if self.replacements else piece
        if self.byte_level or self.latin:
            try:
                return (text.translate(BYTE_LEVEL) if self.byte_level else text).encode("latin-1")
            except UnicodeEncodeError:
                return text.encode()  # a character outside the alphabet: the decoders, too, take the piece as text
        return text.encode()

    def is_control(self, piece: str) -> bool:
        return bool((self.replacements and piece in CONTROL_PIECES) or UNUSED_PIECE.fullmatch(piece))


def _byte_level_alphabet() -> dict[int, str]:
    """GPT-2's alphabet, for `str.translate`: printable Latin-1 is itself, every other byte is U+0100 and up, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    outside = dict.fromkeys(hidden, "\uffff")  # these characters are no letters of the alphabet: latin-1 rejects them
    return {**outside, **{0x100 + index: chr(byte) for index, byte in enumerate(hidden)}}


BYTE_LEVEL = _byte_level_alphabet()


def read(tokenizer: Tokenizer) -> Source:
    """Bytes of every token id, by the tokenizer's own account.

    Raises:
        VocabularyError: the tokenizer is of a kind that has no such bytes, or that is not known here.
    """
    if isinstance(tokenizer, Fast):
        return _read_fast(tokenizer, tokenizer.backend_tokenizer)
    if isinstance(tokenizer, Ranked):
        return _read_ranked(tokenizer, tokenizer.mergeable_ranks)
    if isinstance(tokenizer, Slow):
        return _read_slow(tokenizer, tokenizer)
    raise _unmapped(type(tokenizer).__name__, "it has neither backend_tokenizer, get_vocab nor mergeable_ranks")


def _unmapped(name: str, reason: str) -> VocabularyError:
    return VocabularyError(f"{name} cannot be mapped to bytes: {reason}. {REMEDY}")


def _special(tokenizer: Tokenizer) -> set[int]:
    return {token for token in tokenizer.all_special_ids if token is not None}


def _read_fast(tokenizer: Tokenizer, backend: Any) -> Source:
    model: Any = backend.model
    parts = {key: list(_parts(getattr(backend, key))) for key in ("normalizer", "pre_tokenizer", "decoder")}
    kinds = {key: [str(part["type"]) for part in value] for key, value in parts.items()}
    described = ", ".join(f"{key} {'+'.join(value) or 'none'}" for key, value in kinds.items())
    name = f"{type(tokenizer).__name__} (model {type(model).__name__}, {described})"
    for mark in ("continuing_subword_prefix", "end_of_word_suffix"):  # WordPiece has the first, BPE may have either
        if affix := getattr(model, mark, None):
            raise _unmapped(name, f"its pieces say where words go on or end by {affix!r} ({mark}), not by spaces")
    spelling = _spelling(name, parts)
    vocab, unknown, byte_pieces = _pieces(backend)
    tokens, learned = _tokens(
        spelling._replace(byte_pieces=spelling.byte_pieces or byte_pieces),
        vocab,
        cast("dict[int, AddedToken]", backend.get_added_tokens_decoder()),
        _special(tokenizer) | unknown,
    )
    return Source(
        name,
        tokens,
        learned,
        unknown=frozenset(unknown | ({tokenizer.unk_token_id} - {None})),  # type: ignore[arg-type]
        word_list=type(model).__name__ == "WordLevel",
        fold=_fold(spelling, backend, kinds),
        lossy=LOSSY.intersection(kinds["normalizer"]),
        decodes=bool(kinds["decoder"]),
    )


def _parts(component: Any) -> Iterator[Part]:
    """A component of a fast tokenizer as flat JSON records.

    The state of a component is its part of `tokenizer.json`. The whole file would have to be written and parsed with all
    merges in it, which takes half a second for 150,000 tokens.
    """
    if component is None:
        return
    try:
        part: Part = json.loads(component.__getstate__())
    except Exception as error:  # the library raises a bare Exception for components written in Python
        raise _unmapped(
            type(component).__name__, f"this component of the tokenizer cannot be read ({error})"
        ) from error
    pending = [part]
    while pending:
        part = pending.pop(0)
        inner = [value for key in ("normalizers", "pretokenizers", "decoders") for value in part.get(key, ())]
        pending = inner + pending
        if part["type"] != "Sequence":
            yield part


def _spelling(name: str, parts: dict[str, list[Part]]) -> Spelling:
    """From the decoder; where none is set, from what the normaliser and the pre-tokenizer do to a text."""
    chain = parts["decoder"] or [*parts["pre_tokenizer"], *reversed(parts["normalizer"])]
    replacements: list[tuple[str, str]] = []
    for part in chain:
        if part["type"] == "Metaspace":
            replacements.append((part["replacement"], " "))
        elif part["type"] == "Replace" and "String" in part["pattern"]:
            pair = (part["pattern"]["String"], part["content"])
            replacements.append(pair if parts["decoder"] else pair[::-1])
        elif part["type"] in {"WordPiece", "BPEDecoder", "CTC"} or (part["type"] == "Replace" and parts["decoder"]):
            raise _unmapped(name, f"its decoder {part['type']} joins pieces by rules that no single token has")
    kinds = {part["type"] for part in chain}
    byte_level = "ByteLevel" in kinds
    if not (byte_level or replacements or parts["decoder"]):
        raise _unmapped(
            name, "it has no decoder, no ByteLevel and no Metaspace, so decoding puts a space between tokens"
        )
    return Spelling(tuple(replacements), byte_level, byte_pieces="ByteFallback" in kinds)


def _pieces(backend: Any) -> tuple[dict[str, int], set[int], bool]:
    """The model's own pieces, the ids of its unknown token, and whether it falls back to bytes."""
    model: Any = backend.model
    if type(model).__name__ == "Unigram":  # no attributes: its state has to be read
        state: Part = json.loads(model.__getstate__())
        vocab = {piece: token for token, (piece, _) in enumerate(state["vocab"])}
        return vocab, {state["unk_id"]} - {None}, bool(state.get("byte_fallback"))
    piece: str | None = model.unk_token
    found: int | None = None if piece is None else model.token_to_id(piece)
    falls_back = type(model).__name__ == "BPE" and bool(model.byte_fallback)
    return backend.get_vocab(with_added_tokens=False), (set() if found is None else {found}), falls_back


def _fold(spelling: Spelling, backend: Any, kinds: dict[str, list[str]]) -> Callable[[str], str] | None:
    mapped = "Precompiled" in kinds["normalizer"] and CHARSMAP_COMPANY.issuperset(kinds["normalizer"])
    split = "WhitespaceSplit" in kinds["pre_tokenizer"]

    def fold(text: str) -> str:
        text = spelling.text(backend.normalizer.normalize_str(text)) if mapped else text
        return re.sub(r"\s+", " ", text) if split else text

    return fold if mapped or split else None


def _tokens(
    spelling: Spelling, vocab: Mapping[str, int], added: Mapping[int, AddedToken], special: set[int]
) -> tuple[list[bytes | None], list[int]]:
    """Bytes by id, and the ids of the model's own pieces.

    An added token that is also a piece of the model under the same id (Gemma's ▁▁) is read as that piece, as the decoder
    does; any other is plain text.
    """
    tokens: list[bytes | None] = [None] * (1 + max([*vocab.values(), *added], default=-1))
    for piece, token in vocab.items():
        if piece[:1] not in "<[" or token in added or not spelling.is_control(piece):
            tokens[token] = spelling.bytes(piece)
    for token, entry in added.items():
        if entry.special or UNUSED_PIECE.fullmatch(entry.content):
            tokens[token] = None
        elif vocab.get(entry.content) != token:
            tokens[token] = entry.content.encode()
    for token in special:
        if token < len(tokens):
            tokens[token] = None
    return tokens, [token for token in vocab.values() if token not in added and tokens[token] is not None]


def _read_ranked(tokenizer: Tokenizer, ranks: Mapping[bytes, int]) -> Source:
    special = _special(tokenizer)
    tokens: list[bytes | None] = [None] * (1 + max([*ranks.values(), *special], default=-1))
    for piece, token in ranks.items():
        tokens[token] = piece
    for token in special:
        tokens[token] = None
    return Source(type(tokenizer).__name__, tokens, [*ranks.values()], frozenset())


def _read_slow(tokenizer: Tokenizer, slow: Slow) -> Source:
    name = type(tokenizer).__name__
    added = slow.added_tokens_decoder
    pieces = slow.get_vocab()
    learned = {piece: token for piece, token in pieces.items() if token < slow.vocab_size or token not in added}
    if isinstance(tokenizer, ByteDecoding):
        spelling = Spelling(byte_level=True)
    elif any("▁" in piece for piece in learned):
        spelling = Spelling((("▁", " "),), byte_pieces="<0x00>" in learned)
    elif all(len(piece) == 1 and ord(piece) < 256 for piece, token in learned.items() if token not in added):
        spelling = Spelling(latin=True)
    else:
        raise _unmapped(name, "this slow tokenizer has no byte_decoder, no mergeable_ranks and no pieces with ▁")
    unknown: set[int] = {tokenizer.unk_token_id} - {None}  # type: ignore[assignment]
    return Source(name, *_tokens(spelling, learned, added, _special(tokenizer)), frozenset(unknown))
