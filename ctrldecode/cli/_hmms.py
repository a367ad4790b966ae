"""The work behind `ctrldecode hmm`. It imports torch and transformers, so commands import it when called."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ctrldecode._resources import hmm_path, model_names
from ctrldecode.cli import _models
from ctrldecode.cli._progress import track
from ctrldecode.errors import InputError
from ctrldecode.hmm import HMM, from_ctrlg
from ctrldecode.lm import context_of

if TYPE_CHECKING:
    from ctrldecode.cli._models import Loaded
    from ctrldecode.core.vocabulary import Vocabulary

__all__ = [
    "checked_length",
    "described",
    "described_states",
    "encoded",
    "imported",
    "load",
    "log_probs",
    "model_for",
    "model_log_probs",
    "text_of",
    "vocabulary_for",
]

_ROWS = 32  # of a batch: enough for a CPU, and few enough that logits over a large vocabulary fit
_TOKENS = 64  # of a text that are measured, or over which visits are counted: as many as HMMs are made from by default


def load(name: str) -> HMM:
    """An HMM by its name or file."""
    return HMM.load(hmm_path(name))


def imported(folder: str, model: str | None) -> HMM:
    """A published HMM; the model's vocabulary is checked and named if a model is given."""
    return from_ctrlg(folder, vocabulary=None if model is None else _models.load(model).vocabulary)


def model_for(hmm: HMM, name: str, model: str | None) -> Loaded:
    """The model that the user named, or else the one that the HMM was made from.

    Raises:
        InputError: neither is known.
        VocabularyError: the HMM is over other tokens.
    """
    chosen = model or _made_from(hmm, name)
    if chosen is None:
        raise InputError(f"the HMM {name!r} does not say which model it was made from; name one by --model")
    loaded = _models.load(chosen)
    hmm.check_vocabulary(loaded.vocabulary, f"the HMM {name!r}")
    return loaded


def vocabulary_for(hmm: HMM, name: str, model: str | None) -> Vocabulary | None:
    """The vocabulary of the model that the user named, or of an embedded one that the HMM was made from."""
    if model is None and _made_from(hmm, name) not in model_names():
        return None
    return model_for(hmm, name, model).vocabulary


def _made_from(hmm: HMM, name: str) -> str | None:
    """The model that the metadata or the recipe in it names; else the one that the name begins with."""
    said: Any = hmm.metadata.get("model")
    with suppress(tomllib.TOMLDecodeError):
        said = said or tomllib.loads(str(hmm.metadata.get("recipe", ""))).get("model")
    if isinstance(said, str):
        return said
    begins = Path(name).stem.rpartition("-")[0]
    return begins if begins in model_names() else None


def described(hmm: HMM, name: str) -> list[str]:
    """Lines about an HMM."""
    size = hmm_path(name).stat().st_size
    rows = {
        "states": f"{hmm.states}, of which {int(hmm.eos_states.sum())} emit the end of sequence",
        "tokens": f"{hmm.size}, ends of sequence {list(hmm.eos_token_ids)}",
        "stored as": f"{hmm.dtype}, {size / 1e6:.1f} MB",
        "vocabulary": hmm.vocabulary_fingerprint or "not known",
        "fingerprint": hmm.fingerprint,
        **{key: str(value) for key, value in hmm.metadata.items()},
    }
    width = max(map(len, rows))
    below = "\n" + " " * (width + 2)
    return [f"{key:{width}}  {below.join(value.strip().splitlines())}" for key, value in rows.items()]


def described_states(hmm: HMM, vocabulary: Vocabulary | None, show: int, tokens: int) -> list[str]:
    """Lines about the states that are visited most, in texts of 64 tokens, ends of sequence left out."""
    visits = _visits(hmm)
    states = visits.argsort(descending=True)[:show]
    ids, probs = hmm.top_tokens(states, tokens)
    lines = ["", f"the {len(states)} states visited most, and what they emit"] if len(states) else []
    for state, row, chances in zip(states.tolist(), ids.tolist(), probs.tolist(), strict=True):
        emitted = " ".join(
            f"{_shown(token, vocabulary)} {chance:.2f}" for token, chance in zip(row, chances, strict=True)
        )
        lines.append(f"{state:>6} {float(visits[state]):6.1%}  {emitted}")
    return lines


def _visits(hmm: HMM) -> torch.Tensor:
    """(H,) the share of tokens that each state emits, ends of sequence left out."""
    belief, transition = hmm.initial.double(), hmm.transition.double()
    total = torch.zeros_like(belief)
    for _ in range(_TOKENS):
        total += belief
        belief = belief @ transition
    total[hmm.eos_states] = 0.0
    return total / total.sum().clamp_min(torch.finfo(total.dtype).tiny)


def _shown(token: int, vocabulary: Vocabulary | None) -> str:
    piece = None if vocabulary is None else vocabulary.tokens[token]
    return f"[{token}]" if piece is None else repr(piece)[1:]


def checked_length(loaded: Loaded, length: int | None, *, scored: bool) -> int:
    """How many tokens of a text to look at; `scored` says whether the model must read them behind its begin token.

    Raises:
        InputError: more were wanted than the model reads.
    """
    context = context_of(loaded.model)
    most = _TOKENS if context is None else context - 1
    if length is not None and scored and context is not None and length > most:
        raise InputError(
            f"--length {length} is more than the {most} tokens that {loaded.name} reads after its begin token"
        )
    return min(_TOKENS, most) if length is None else length


def encoded(loaded: Loaded, texts: list[str], length: int, *, control_tokens: bool) -> list[list[int]]:
    """Ids of texts with their end of sequence, cut to a length; see `Loaded.encoded`."""
    ids = loaded.encoded(texts, control_tokens=control_tokens)
    return [[*row, loaded.eos_token_ids[0]][:length] for row in ids]


def log_probs(hmm: HMM, ids: list[list[int]]) -> list[float]:
    """log P of each text under the HMM."""
    found: list[float] = []
    for start in track(range(0, len(ids), _ROWS), "HMM"):
        found += hmm.log_prob(ids[start : start + _ROWS]).tolist()
    return found


def model_log_probs(loaded: Loaded, ids: list[list[int]]) -> list[float]:
    """log P of each text under the model, behind its begin token."""
    found: list[float] = []
    for start in track(range(0, len(ids), _ROWS), loaded.name):
        found += _batch_log_probs(loaded, ids[start : start + _ROWS])
    return found


@torch.inference_mode()
def _batch_log_probs(loaded: Loaded, ids: list[list[int]]) -> list[float]:
    begin = loaded.tokenizer.bos_token_id
    begin = loaded.eos_token_ids[0] if begin is None else begin
    lengths = torch.tensor([len(row) for row in ids])
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor([begin, *row]) for row in ids], batch_first=True)
    real = torch.arange(rows.shape[1] - 1) < lengths[:, None]
    rows, device = rows.to(loaded.model.device), loaded.model.device
    mask = torch.cat([torch.ones(len(ids), 1, dtype=torch.bool), real], 1).to(device)
    logits = loaded.model(rows, attention_mask=mask.long()).logits[:, :-1].float()
    scores = torch.log_softmax(logits, -1).gather(2, rows[:, 1:, None])[..., 0].double()
    return scores.masked_fill(~real.to(device), 0.0).sum(1).tolist()


def text_of(loaded: Loaded, ids: list[int]) -> str:
    """The text up to the first end of sequence."""
    ends = [position for position, token in enumerate(ids) if token in loaded.eos_token_ids]
    body = ids[: ends[0]] if ends else ids
    return loaded.tokenizer.decode(body, skip_special_tokens=False, clean_up_tokenization_spaces=False)
