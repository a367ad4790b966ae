"""`HMM`: a hidden Markov model over token ids, its file format, and what can be asked of it.

It knows the kernels and the fingerprint of a vocabulary; it knows no language model, automaton or generation.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch

from ctrldecode.core import _tensor_files as files
from ctrldecode.errors import InputError, ModelError
from ctrldecode.hmm import _inference, _sampling
from ctrldecode.hmm._batches import batch
from ctrldecode.hmm._checks import as_tensor, check_vocabulary, checked_eos, checked_parameters
from ctrldecode.hmm._emissions import blocks, normalised
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from ctrldecode.core.vocabulary import Vocabulary
    from ctrldecode.hmm._batches import Tokens
    from ctrldecode.hmm._inference import Filtered, StatePath
    from ctrldecode.kernels.hmm import Emission

__all__ = ["HMM"]

_FORMAT = 1  # of the file; raise it when what `save` writes changes


@final
class HMM:
    """P(x_1 … x_T) = Σ_z π(z_1) E(z_1, x_1) Π_t A(z_t, z_{t+1}) E(z_{t+1}, x_{t+1}), with the end of sequence absorbing.

    A state emits ends of sequence with probability 1 or 0, and from a state that does, only such states follow, so that the
    probabilities of all finished texts, and of those that never end, add up to 1. `absorbing` brings any HMM into this form.

    The emission matrix is held token-major, (V, H), so that a token is a row, in float32, float16 or uint8; see
    `ctrldecode.kernels.hmm.Emission`. Rounded codes are scaled state by state to sum to 1 again. Immutable.

    Args:
        initial: π, (H,) probabilities of the state of the first token; an array of numpy or torch.
        transition: A, (H, H), a row is where a state leads to.
        emission: E, (H, V), a row is what a state emits; see `from_token_major` for (V, H).
        eos_token_ids: ids that end a text.
        dtype: how the emission is stored: "float32", "float16" or "uint8".
        vocabulary_fingerprint: of the `Vocabulary` whose ids these are; None if not known.
        metadata: how it was made, whatever JSON can hold; written into its file.

    Attributes:
        states: H.
        size: V.
        initial: (H,) float32 tensor.
        transition: (H, H) float32 tensor.
        emission: the emission matrix, as it is stored.
        eos_token_ids: ids that end a text, sorted.
        dtype: how the emission is stored.
        vocabulary_fingerprint: of the vocabulary, or None.
        metadata: how it was made.

    Raises:
        InputError: shapes disagree; a value is negative or not finite; a distribution does not sum to 1 within 1e-3 (those
            that do are divided by their sum); or the end of sequence does not absorb.

    Example:
        >>> hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], eos_token_ids=[2])
        >>> hmm
        HMM(states=2, size=3, dtype='float32', eos_token_ids=(2,))
        >>> hmm.log_prob([[0, 2], [1, 1, 2]]).exp()
        tensor([0.1250, 0.1406], dtype=torch.float64)
    """

    initial: Tensor
    transition: Tensor
    emission: Emission
    eos_token_ids: tuple[int, ...]
    dtype: str
    vocabulary_fingerprint: str | None
    metadata: Mapping[str, Any]

    def __init__(
        self,
        initial: Any,
        transition: Any,
        emission: Any,
        eos_token_ids: Iterable[int] | int,
        *,
        dtype: str = "float32",
        vocabulary_fingerprint: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        _check_dtype(dtype)
        emits = _transposed(emission)
        eos = checked_eos(eos_token_ids, len(emits) if emits.dim() else 0)
        start = as_tensor(initial, "initial").to(emits.device)
        moves = as_tensor(transition, "transition").to(emits.device)
        start, moves, emits = checked_parameters(start, moves, emits, eos)
        code = normalised(kernels.encode(emits, dtype))
        self._fill(start, moves.contiguous(), code, eos, dtype, vocabulary_fingerprint, metadata or {})

    @classmethod
    def from_token_major(
        cls, initial: Any, transition: Any, emission: Any, eos_token_ids: Iterable[int] | int, **options: Any
    ) -> HMM:
        """An HMM from an emission matrix (V, H), tokens first; everything else as in the constructor.

        Example:
            >>> HMM.from_token_major([1.0], [[1.0]], [[0.0], [1.0]], eos_token_ids=1).size
            2
        """
        return cls(initial, transition, _transposed(emission), eos_token_ids, **options)

    def _fill(
        self,
        initial: Tensor,
        transition: Tensor,
        emission: Emission,
        eos: tuple[int, ...],
        dtype: str,
        vocabulary_fingerprint: str | None,
        metadata: Mapping[str, Any],
    ) -> None:
        files.as_json(metadata)
        values = {
            "initial": initial,
            "transition": transition,
            "emission": emission,
            "eos_token_ids": eos,
            "dtype": dtype,
            "vocabulary_fingerprint": vocabulary_fingerprint,
            "metadata": dict(metadata),
        }
        self.__dict__.update(values)

    @property
    def states(self) -> int:
        """H, the number of hidden states."""
        return len(self.initial)

    @property
    def size(self) -> int:
        """V, the number of token ids."""
        return len(self.emission.values)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.initial.device

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the parameters as they are stored, the same on every machine and device."""
        return files.digest([self.initial, self.transition, *self.emission], self.eos_token_ids)

    @cached_property
    def eos_states(self) -> Tensor:
        """(H,) bool, which states emit ends of sequence."""
        return kernels.rows(self.emission, torch.tensor(self.eos_token_ids, device=self.device)).sum(0) > 0.5

    # -------------------------------------------------------------------------------------------------------- variants

    def to(self, device: torch.device | str) -> HMM:
        """The same HMM on a device."""
        emission = kernels.move(self.emission, device)
        return self._with(self.initial.to(device), self.transition.to(device), emission, self.dtype)

    def as_dtype(self, dtype: str) -> HMM:
        """The same HMM with its emission stored in another way; what float16 and uint8 have rounded off stays lost.

        Example:
            >>> HMM([1.0], [[1.0]], [[0.0, 1.0]], eos_token_ids=1).as_dtype("uint8").emission.values.dtype
            torch.uint8
        """
        _check_dtype(dtype)
        if dtype == self.dtype:
            return self
        code = normalised(kernels.encode(kernels.dense(self.emission), dtype))
        return self._with(self.initial, self.transition, code, dtype)

    def _with(self, initial: Tensor, transition: Tensor, emission: Emission, dtype: str) -> HMM:
        hmm = object.__new__(HMM)
        hmm._fill(initial, transition, emission, self.eos_token_ids, dtype, self.vocabulary_fingerprint, self.metadata)
        return hmm

    # ----------------------------------------------------------------------------------------------------------- files

    def save(self, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write it to a safetensors file, in one step: no reader ever sees a part.

        Args:
            path: the file; its folder must exist.
            metadata: how it was made; added to what `self.metadata` says.

        Raises:
            InputError: the folder does not exist, or JSON cannot hold the metadata.
            ModelError: the system cannot write there.
        """
        header = {
            "format": _FORMAT,
            "states": self.states,
            "size": self.size,
            "eos_token_ids": self.eos_token_ids,
            "dtype": self.dtype,
            "vocabulary_fingerprint": self.vocabulary_fingerprint,
            "fingerprint": self.fingerprint,
            "made": {**self.metadata, **(metadata or {})},
        }
        tensors = {"initial": self.initial, "transition": self.transition}
        tensors |= {f"emission.{name}": part for name, part in self.emission._asdict().items()}
        files.write(path, "hmm", tensors, header)

    @classmethod
    def load(cls, path: str | Path, vocabulary: Vocabulary | None = None) -> HMM:
        """Read what `save` wrote.

        Args:
            path: the file.
            vocabulary: of the model it will be used with; it must be the one of which the HMM was made.

        Raises:
            InputError: there is no such file.
            ModelError: it is damaged, or no HMM.
            VocabularyError: the HMM is over another vocabulary.
        """
        tensors, header = files.read(path, "hmm", _FORMAT)
        hmm = object.__new__(cls)
        try:
            emission = kernels.Emission(*(tensors[f"emission.{name}"] for name in kernels.Emission._fields))
            eos = tuple(int(token) for token in header["eos_token_ids"])
            parameters = (tensors["initial"], tensors["transition"], emission)
            hmm._fill(*parameters, eos, header["dtype"], header["vocabulary_fingerprint"], header["made"])
            whole = hmm.fingerprint == header["fingerprint"] and _fits(hmm)
        except (KeyError, TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise ModelError(
                f"{str(path)!r} is damaged: its contents do not match the fingerprint in it; copy or download it again, or "
                "distil it anew"
            )
        if vocabulary is not None:
            hmm.check_vocabulary(vocabulary, str(path))
        return hmm

    def check_vocabulary(self, vocabulary: Vocabulary, name: str = "the HMM") -> None:
        """Raise unless this HMM is over a vocabulary.

        Raises:
            VocabularyError: sizes, ends of sequence or fingerprints differ.
        """
        check_vocabulary(vocabulary, self.size, self.eos_token_ids, self.vocabulary_fingerprint, name)

    # ------------------------------------------------------------------------------------------------------- inference

    def log_prob(self, tokens: Tokens, mask: Tensor | None = None) -> Tensor:
        """log P(x_1 … x_T) of token sequences; of whole texts where they end with an end of sequence, else of prefixes.

        Args:
            tokens: lists of ids, one a sequence and of any length, or (B, T) ids. An id of −1 is a token that is not known,
                which is summed over; what follows the first end of sequence does not count.
            mask: (B, T) bool, False where a position is padding, on whatever side; only for (B, T) ids.

        Returns:
            (B,) float64; −inf where the HMM cannot emit a sequence.

        Example:
            >>> hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], eos_token_ids=[1])
            >>> hmm.log_prob([[0, 0], [0, 0, -1]]).exp().tolist()
            [0.5, 0.5]
        """
        return self.filter(tokens, mask).log_evidence.sum(-1)

    def filter(self, tokens: Tokens, mask: Tensor | None = None) -> Filtered:
        """P(z_t | x_1 … x_t) for every t, the prediction of the state behind the last token, and the evidence.

        A token that the HMM cannot emit where it stands is taken as not known, and its log-evidence is −inf.

        Args:
            tokens: see `log_prob`.
            mask: see `log_prob`.

        Returns:
            float64 tensors: posterior (B, T, H), 0 behind the end of a sequence; predicted (B, H) = P(z_{T+1} | x_1 … x_T);
            log_evidence (B, T) = log P(x_t | x_<t), 0 behind the end of a sequence.
        """
        return _inference.forward(self, batch(tokens, mask, self.size, self.eos_token_ids, self.device))

    def posterior(self, tokens: Tokens, mask: Tensor | None = None) -> Tensor:
        """γ_t(h) = P(z_t = h | x_1 … x_T), by the forward-backward recursion.

        Args:
            tokens: see `log_prob`.
            mask: see `log_prob`.

        Returns:
            (B, T, H) float64; 0 behind the end of a sequence.

        Raises:
            InputError: the HMM cannot emit a sequence.
        """
        return _inference.posterior(self, batch(tokens, mask, self.size, self.eos_token_ids, self.device))

    def viterbi(self, tokens: Tokens, mask: Tensor | None = None) -> StatePath:
        """The most probable states of each sequence.

        Args:
            tokens: see `log_prob`.
            mask: see `log_prob`.

        Returns:
            states (B, T), −1 behind the end of a sequence, and log_prob (B,) float64 of states and tokens together.

        Raises:
            InputError: the HMM cannot emit a sequence.
        """
        return _inference.viterbi(self, batch(tokens, mask, self.size, self.eos_token_ids, self.device))

    def sample(self, num: int, length: int, rng: np.random.Generator) -> Tensor:
        """Draw sequences.

        Args:
            num: B, how many.
            length: T, the most tokens of each, the end of sequence included.
            rng: the source of chance; the same one gives the same sequences, on any device.

        Returns:
            (B, T) ids; a sequence that ends early is filled up with its end of sequence.

        Example:
            >>> import numpy as np
            >>> hmm = HMM([1.0, 0.0], [[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], eos_token_ids=[1])
            >>> hmm.sample(2, 3, np.random.default_rng(0)).tolist()
            [[0, 1, 1], [0, 1, 1]]
        """
        return _sampling.sample(self, num, length, rng)

    def top_tokens(self, states: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """The most probable tokens of some states (S,): ids and probabilities, both (S, num)."""
        dense = torch.cat([rows[:, states] for _, rows in blocks(self.emission)])  # (V, S)
        values, tokens = dense.topk(min(num, self.size), dim=0)
        return tokens.T, values.T

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HMM) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"HMM(states={self.states}, size={self.size}, dtype={self.dtype!r}, eos_token_ids={self.eos_token_ids})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"HMM is immutable, {name} cannot be set; build another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"HMM is immutable, {name} cannot be deleted")


def _check_dtype(dtype: str) -> None:
    if dtype not in kernels.DTYPES:
        raise InputError(f"dtype must be one of {', '.join(kernels.DTYPES)}, got {dtype!r}")


def _fits(hmm: HMM) -> bool:
    """Whether the parts have the shapes that the kernels expect of this precision."""
    states, size = hmm.states, hmm.size
    scales = (hmm.emission.scale, hmm.emission.state_scale)
    return (
        hmm.emission.values.dtype == kernels.DTYPES[hmm.dtype]
        and hmm.emission.values.shape == (size, states)
        and hmm.transition.shape == (states, states)
        and scales[0].dim() == 2
        and (len(scales[0]), len(scales[1])) == (size, states)
    )


def _transposed(emission: Any) -> Tensor:
    """A view (V, H) of (H, V), and the other way round; what is no matrix is left for the check of shapes."""
    values = as_tensor(emission, "emission")
    return values.T if values.dim() == 2 else values
