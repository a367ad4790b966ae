"""Token id → bytes: the alphabet over which every constraint on text is compiled.

It knows nothing of grammars, masks or models beyond the size of the head. Reading the parts of a tokenizer is in
`_tokenizers.py`; here is the value, and the check that what was read is true.
"""

from __future__ import annotations

import hashlib
import operator
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, final

from ctrldecode.core import _tokenizers
from ctrldecode.errors import InputError, VocabularyError

if TYPE_CHECKING:
    from ctrldecode.core._tokenizers import Source, Tokenizer

__all__ = ["Vocabulary"]

# Text that every tokenizer must give back unchanged. NFKC leaves all of it alone, so that a SentencePiece charsmap has no
# excuse here; a case fold, a stripped accent or a decomposition shows.
PLAIN_SAMPLES = (
    "the quick brown fox jumps over the lazy dog",
    "Zwölf Boxkämpfer jagen Viktor quer über Ærø, señor Çelik; Łódź, Việt Nam!",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Съешь же ещё этих мягких французских булок",
    "نص حكيم له سر قاطع",
    "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट",
    "เป็นมนุษย์สุดประเสริฐ",
    "敏捷的棕色狐狸跳過懶狗 いろはにほへと",
    "키스의 고유조건은 입술끼리",
    "0123456789 3.14 -1e10 !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "🙂🚀🇫🇷 👍🏽 𝄞",
)
# Layout, joiners and compatibility characters: what a charsmap, and only that, may change when it encodes.
LAYOUT_SAMPLES = (
    "tab\there\t\tand\nnew\n\nlines\r\nand   runs    of     spaces ",
    "  def f(x):\n    return {'a': [1, 2],\n\t'b': x**2}  # end\n",
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👩🏾\u200d🚀 ❤️",
    "ﬁne ½ Ｆｕｌｌ width ２０２６ ™ … ① x²\u00a0น้ำ",
)
OWN_TOKENS = 192  # enough to meet every script that a vocabulary has, few enough to take milliseconds
OWN_CHUNK = 16  # keeps each text far below any maximal length


@final
class Vocabulary:
    """What every token id of a model's head spells, in bytes.

    Bytes, not characters: a token may be half a character. The bytes are those of the token in the middle of a text. A
    SentencePiece tokenizer puts a space before a text when it encodes, and takes it off when it decodes: its token "▁the"
    is b" the" here, also at the very start of a generation, which may therefore begin with a space. Such a tokenizer
    cannot tell the character ▁ (U+2581) from a space.

    Immutable, picklable; equal and hashable by fingerprint.

    Attributes:
        tokens: bytes by id, length `size`. None is never part of a text: special, unknown and unused tokens, the ends of
            sequence, the padding of the head. An empty token is None too, since it would let a model go on for ever
            without a byte of text.
        size: V, the number of ids that the model's head scores.
        eos_token_ids: the ids that end a text, sorted.
        fingerprint: hex digest of all of the above, the same in every process.

    Example:
        >>> vocabulary = Vocabulary(tokens=[b"a", b"b", b"ab", None], eos_token_ids={3}, size=5)
        >>> vocabulary.bytes_of([2, 0, 3])
        b'aba'
        >>> vocabulary.tokens
        (b'a', b'b', b'ab', None, None)
    """

    tokens: tuple[bytes | None, ...]
    size: int
    eos_token_ids: tuple[int, ...]
    fingerprint: str

    def __init__(
        self, tokens: Sequence[bytes | None], eos_token_ids: Iterable[int] | int, *, size: int | None = None
    ) -> None:
        """A vocabulary from the bytes of its tokens.

        Args:
            tokens: bytes by id, None for an id that is never part of a text.
            eos_token_ids: one or several ids that end a text; whatever bytes they were given, they become None.
            size: V of the model's head, by default `len(tokens)`; ids past the tokens are None.

        Raises:
            InputError: a token is no bytes, there is no id at all, `size` is too small, or an end of sequence is missing or out
                of range.
        """
        _check_tokens(tokens)
        kept = [token or None for token in tokens]
        size = _checked_size(len(kept) if size is None else size, len(kept))
        kept += [None] * (size - len(kept))
        eos = _checked_eos(eos_token_ids, size)
        for token in eos:
            kept[token] = None
        values = {"tokens": tuple(kept), "size": size, "eos_token_ids": eos, "fingerprint": _fingerprint(kept, eos)}
        self.__dict__.update(values)

    @classmethod
    def from_tokenizer(
        cls, tokenizer: object, size: int | None = None, eos_token_ids: Iterable[int] | int | None = None
    ) -> Vocabulary:
        """The vocabulary of a Hugging Face tokenizer, checked on text in many scripts.

        Byte-level BPE, SentencePiece (BPE or Unigram, with or without byte fallback), and slow tokenizers in the manner
        of GPT-2, SentencePiece, tiktoken or ByT5. Added tokens that are not special are plain text.

        Args:
            tokenizer: a fast or slow tokenizer of transformers.
            size: V of the model's head, `model.config.vocab_size`; by default the tokenizer's highest id and one.
            eos_token_ids: by default `tokenizer.eos_token_id`; a chat model often has more, which
                `model.generation_config.eos_token_id` lists.

        Raises:
            VocabularyError: the tokenizer cannot be mapped to bytes, changes text, or names no end of sequence.
            InputError: `size` is smaller than the tokenizer, or an end of sequence is out of range.
        """
        if not isinstance(tokenizer, _tokenizers.Tokenizer):
            raise VocabularyError(
                f"wanted a tokenizer of transformers, got {type(tokenizer).__name__}; pass processor.tokenizer, or "
                "PreTrainedTokenizerFast(tokenizer_object=...) around a bare tokenizers.Tokenizer"
            )
        eos = tokenizer.eos_token_id if eos_token_ids is None else eos_token_ids
        if eos is None:
            raise VocabularyError(
                f"{type(tokenizer).__name__} has no eos_token_id, so no text could end; pass eos_token_ids=..., as in "
                "model.generation_config.eos_token_id"
            )
        source = _tokenizers.read(tokenizer)
        _check(source, tokenizer)
        return cls(source.tokens, eos, size=size)

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """The text of ids, in bytes, up to the first end of sequence.

        Raises:
            InputError: an id is out of range.
            VocabularyError: an id before the end has no text.
        """
        spelled: list[bytes] = []
        for token in map(operator.index, ids):
            if not 0 <= token < self.size:
                raise InputError(f"token id {token} is out of range: the vocabulary has ids 0 to {self.size - 1}")
            if token in self.eos_token_ids:
                break
            piece = self.tokens[token]
            if piece is None:
                raise VocabularyError(
                    f"token id {token} has no text: it is special, unused or padding of the head; leave such ids out "
                    "(the prompt's start token, padding) and pass only what was generated"
                )
            spelled.append(piece)
        return b"".join(spelled)

    def __len__(self) -> int:
        return self.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"Vocabulary(size={self.size}, eos_token_ids={self.eos_token_ids}, fingerprint={self.fingerprint[:12]!r})"
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Vocabulary is immutable, {name} cannot be set; build another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Vocabulary is immutable, {name} cannot be deleted")


def _check_tokens(tokens: Sequence[object]) -> None:
    if {bytes, type(None)}.issuperset(map(type, tokens)):
        return
    index, token = next(pair for pair in enumerate(tokens) if type(pair[1]) not in {bytes, type(None)})
    raise InputError(
        f"token {index} must be bytes or None, got {type(token).__name__} {token!r}; encode text with .encode(), or use "
        "Vocabulary.from_tokenizer"
    )


def _checked_size(size: int, known: int) -> int:
    if size == 0:
        raise InputError(
            "a vocabulary needs at least one id, the end of sequence, got none; pass the bytes of the tokens by id, or use "
            "Vocabulary.from_tokenizer"
        )
    if size < known:
        raise InputError(
            f"size={size} is smaller than the {known} ids of the tokenizer; pass size=model.config.vocab_size, at least "
            f"{known}, or resize the model's embeddings"
        )
    return size


def _checked_eos(eos_token_ids: Iterable[int] | int, size: int) -> tuple[int, ...]:
    given = eos_token_ids if isinstance(eos_token_ids, Iterable) else (eos_token_ids,)
    try:
        eos = tuple(sorted({operator.index(token) for token in given}))
    except TypeError as error:
        raise InputError(f"eos_token_ids must be token ids, got {eos_token_ids!r}") from error
    if not eos:
        raise InputError("eos_token_ids is empty, so no text could end; pass at least one id")
    if eos[0] < 0 or eos[-1] >= size:
        raise InputError(
            f"eos_token_ids {eos} must lie in 0 to {size - 1}; pass size=model.config.vocab_size if it is larger"
        )
    return eos


def _fingerprint(tokens: Sequence[bytes | None], eos: tuple[int, ...]) -> str:
    """SHA-256 of the lengths (-1 for None), the bytes and the ends of sequence; the number of lengths is the size."""
    lengths = [-1 if token is None else len(token) for token in tokens]
    digest = hashlib.sha256(repr((lengths, eos)).encode())
    digest.update(b"".join(token for token in tokens if token))
    return digest.hexdigest()


def _check(source: Source, tokenizer: Tokenizer) -> None:
    """Encode text, spell its ids, compare.

    A tokenizer without byte fallback has an unknown token for what it cannot spell. Such text is never generated, so it
    may stand for any bytes, as long as all around it is right; but a tokenizer must know its own pieces.
    """
    for text in PLAIN_SAMPLES:
        _check_text(source, tokenizer, text, may_fold=False)
    for text in LAYOUT_SAMPLES:
        _check_text(source, tokenizer, text, may_fold=True)
    known = total = 0
    for text in _own_texts(source):
        known += _check_text(source, tokenizer, text, may_fold=True)
        total += len(text.encode())
    if 2 * known < total:
        raise _mismatch(source, "its own pieces", "their ids back", "the unknown token")
    if source.lossy:
        raise _mismatch(source, "any text", "the same text back", f"what {'+'.join(sorted(source.lossy))} leaves of it")


def _own_texts(source: Source) -> list[str]:
    """Texts made of the vocabulary's own pieces, so that whatever a tokenizer covers is checked."""
    step = max(1, len(source.learned) // OWN_TOKENS)
    pieces = [_as_text(source.tokens[token]) for token in sorted(source.learned)[::step]]
    pieces = [piece for piece in pieces if piece and "▁" not in piece]
    texts = ["".join(pieces[start : start + OWN_CHUNK]) for start in range(0, len(pieces), OWN_CHUNK)]
    return [text for text in texts if unicodedata.is_normalized("NFC", text)]


def _as_text(token: bytes | None) -> str:
    try:
        return (token or b"").decode()
    except UnicodeDecodeError:
        return ""


def _check_text(source: Source, tokenizer: Tokenizer, text: str, *, may_fold: bool) -> int:
    """Raise unless the ids of text spell it; returns how many bytes were spelled."""
    ids = [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    segments, wanted = _segments(source, ids), text.encode()
    if may_fold and source.fold:
        segments, wanted = [_squeeze(segment) for segment in segments], _squeeze(source.fold(text).encode()).strip()
        segments[-1] = segments[-1].rstrip()
    elif source.decodes and len(segments) == 1:
        decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if decoded not in {text, f" {text}", text.removeprefix(" ")}:
            raise _mismatch(source, repr(text), f"decode to give it back from ids {ids[:16]}", repr(decoded))
    if not (_spell(segments, wanted) or _spell(segments, b" " + wanted)):  # SentencePiece puts a space first
        raise _mismatch(source, repr(text), f"the bytes {wanted!r}", f"{b'<?>'.join(segments)!r} from ids {ids[:16]}")
    if source.word_list and text == PLAIN_SAMPLES[0] and len(segments) > 1:
        raise _mismatch(source, repr(text), "pieces for ordinary text", f"the unknown token in ids {ids[:16]}")
    return sum(map(len, segments))


def _segments(source: Source, ids: list[int]) -> list[bytes]:
    """The bytes that ids spell, cut at the unknown tokens."""
    segments = [b""]
    for token in ids:
        piece = source.tokens[token] if token < len(source.tokens) else None
        if token in source.unknown:
            segments.append(b"")
        else:
            segments[-1] += f"<id {token}, special>".encode() if piece is None else piece
    return segments


def _squeeze(text: bytes) -> bytes:
    return re.sub(rb" +", b" ", text)


def _spell(segments: list[bytes], wanted: bytes) -> bool:
    """Whether wanted is the segments with at least one byte between each two; leftmost matches suffice."""
    first, *middle = segments
    if not middle:
        return first == wanted
    *middle, last = middle
    position = len(first)
    matches = wanted.startswith(first)
    for segment in middle:
        found = wanted.find(segment, position + 1)
        matches = matches and found >= 0
        position = found + len(segment)
    return matches and len(wanted) - len(last) > position and wanted.endswith(last)


def _mismatch(source: Source, text: str, wanted: str, got: str) -> VocabularyError:
    return VocabularyError(
        f"{source.name} cannot be mapped to bytes: for {text}, wanted {wanted}, got {got}. {_tokenizers.REMEDY}"
    )
