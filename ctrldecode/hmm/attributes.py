"""`AttributeWeights`: what an attribute of a text is worth, as one factor a token (TRACE, Weng et al. 2025).

It knows ids and scores; where texts, labels and tokenizers come from is the caller's business.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch

from ctrldecode.core import _tensor_files as files
from ctrldecode.errors import InputError, ModelError
from ctrldecode.hmm import _regression
from ctrldecode.hmm._checks import as_tensor, check_vocabulary, checked_eos

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["AttributeWeights"]

_FORMAT = 1  # of the file; raise it when what `save` writes changes


@final
class AttributeWeights:
    """P(attribute | x) ≈ exp(b) · Π_t w(x_t), with w in (0, 1] and b ≤ 0: a classifier that a lookahead can sum over futures.

    Ends of sequence weigh 1. The product of two attributes is their conjunction, if they are independent; to avoid an
    attribute, fit its complement, the scores 1 − s. Weights only ever lower a probability, so an attribute that shows by what is
    absent is told well, and one that a single rare word makes is not. Immutable.

    Args:
        values: w, (V,) in (0, 1]; an array of numpy or torch.
        eos_token_ids: ids that end a text; their weight must be 1.
        log_bias: b, at most 0.
        name: what it is called in messages.
        vocabulary_fingerprint: of the `Vocabulary` whose ids these are; None if not known.
        metadata: how it was made, whatever JSON can hold; written into its file.

    Attributes:
        values: (V,) float32 tensor.
        eos_token_ids: ids that end a text, sorted.
        log_bias: b.
        name: what it is called.
        vocabulary_fingerprint: of the vocabulary, or None.
        metadata: how it was made, with the figures of the fit.

    Raises:
        InputError: a weight lies outside (0, 1], an end of sequence weighs another than 1, or the bias is above 0.

    Example:
        >>> calm = AttributeWeights([1.0, 0.5, 1.0], eos_token_ids=2, name="calm")
        >>> short = AttributeWeights([0.5, 0.5, 1.0], eos_token_ids=2, name="short")
        >>> calm * short
        AttributeWeights('calm * short', size=3, weighted=2)
        >>> (calm * short).log_score([[0, 1, 2], [2]]).exp()
        tensor([0.1250, 1.0000], dtype=torch.float64)
    """

    values: Tensor
    eos_token_ids: tuple[int, ...]
    log_bias: float
    name: str
    vocabulary_fingerprint: str | None
    metadata: Mapping[str, Any]

    def __init__(
        self,
        values: Any,
        eos_token_ids: Iterable[int] | int,
        *,
        log_bias: float = 0.0,
        name: str = "attribute",
        vocabulary_fingerprint: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        weights = as_tensor(values, "weights").float().clone(memory_format=torch.contiguous_format)
        if weights.dim() != 1:
            raise InputError(f"weights must be (V,), one a token, got shape {tuple(weights.shape)}")
        eos = checked_eos(eos_token_ids, len(weights))
        _check_weights(weights, eos, log_bias)
        files.as_json(metadata or {})
        self.__dict__.update(
            values=weights,
            eos_token_ids=eos,
            log_bias=float(log_bias),
            name=str(name),
            vocabulary_fingerprint=vocabulary_fingerprint,
            metadata=dict(metadata or {}),
        )

    @classmethod
    def fit(
        cls,
        tokens: Sequence[Sequence[int]],
        scores: Sequence[float],
        vocabulary: Vocabulary,
        *,
        rng: np.random.Generator,
        name: str = "attribute",
        penalty: float | None = None,
        holdout: float = 0.2,
    ) -> AttributeWeights:
        """Weights fitted to labelled or scored texts, by log-linear regression with log w ≤ 0 and b ≤ 0.

        Minimises Σ_texts −[s log p + (1 − s) log(1 − p)] + penalty · Σ_v −log w(v) with p = exp(b) Π_t w(x_t): the
        cross-entropy of the scores, which is convex, under a Laplace prior that keeps words without influence at 1. (Weng et
        al. fit log s by least squares under the same constraint, which a label of 0 does not allow.)

        Args:
            tokens: the ids of each text; ends of sequence and other ids without text do not count.
            scores: for each text the probability of the attribute, in [0, 1]; labels are 0 and 1.
            vocabulary: of the model.
            rng: chooses the texts that are held out.
            name: what the attribute is called.
            penalty: the rate of the prior, in nats a unit of −log w; larger keeps more weights at 1. None chooses among 1, 3,
                10, 30 and 100 by the loss on a quarter of the texts that are fitted.
            holdout: which share of the texts is kept out of the fit, for the figures in `metadata["held_out"]`; 0 for none.

        Returns:
            Weights whose `metadata` holds "texts", "penalty", "weighted" (tokens that weigh less than 1), "iterations", and
            "held_out": texts, log_loss, log_loss_of_mean (of the constant that fits best), auc, correlation and accuracy. AUC
            and accuracy are those of the labels score ≥ 1/2; a figure that is not defined is None.

        Raises:
            InputError: there are fewer than 2 texts, as many scores as texts are not there, a score lies outside [0, 1], all
                are equal, or an id lies outside the vocabulary.

        Example:
            >>> import numpy as np
            >>> from ctrldecode.core.vocabulary import Vocabulary
            >>> vocabulary = Vocabulary([b"good ", b"bad ", b"and ", None], eos_token_ids=3)
            >>> texts = [[0, 2, 0], [1, 2, 1], [0, 2], [2, 1]] * 8
            >>> fitted = AttributeWeights.fit(texts, [1, 0, 1, 0] * 8, vocabulary, rng=np.random.default_rng(0))
            >>> (fitted.values < 0.9).tolist(), fitted.metadata["held_out"]["accuracy"]
            ([False, True, False, False], 1.0)
        """
        fit = _regression.fit(tokens, scores, vocabulary, rng, penalty=penalty, holdout=holdout)
        return cls(
            torch.from_numpy(fit.log_weights).exp(),
            vocabulary.eos_token_ids,
            log_bias=fit.log_bias,
            name=name,
            vocabulary_fingerprint=vocabulary.fingerprint,
            metadata=fit.report,
        )

    @property
    def size(self) -> int:
        """V, the number of token ids."""
        return len(self.values)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of weights and bias."""
        return files.digest([self.values], self.eos_token_ids, self.log_bias)

    def log_score(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """log of exp(b) · Π_t w(x_t) for lists of ids, (B,) float64.

        Raises:
            InputError: an id lies outside the vocabulary.
        """
        log_weights = self.values.double().log()
        rows = [torch.tensor(list(row), dtype=torch.long, device=log_weights.device) for row in tokens]
        for row in rows:
            if len(row) and not 0 <= int(row.min()) <= int(row.max()) < self.size:
                raise InputError(
                    f"token ids must lie in 0 to {self.size - 1}, got {int(row.min())} to {int(row.max())}"
                )
        return (
            torch.stack([log_weights[row].sum() for row in rows] or [log_weights[:0].sum()])[: len(rows)]
            + self.log_bias
        )

    def to(self, device: torch.device | str) -> AttributeWeights:
        """The same weights on a device."""
        return self._with(self.values.to(device), self.log_bias, self.name, self.metadata)

    def __mul__(self, other: AttributeWeights) -> AttributeWeights:
        """Both attributes, taken as independent.

        Raises:
            InputError: they are over different vocabularies.
        """
        if not isinstance(other, AttributeWeights):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without types
            return NotImplemented
        known = {self.vocabulary_fingerprint, other.vocabulary_fingerprint} - {None}
        if (self.size, self.eos_token_ids) != (other.size, other.eos_token_ids) or len(known) > 1:
            raise InputError(
                f"attributes compose over one vocabulary; {self.name!r} has {self.size} ids with the ends {self.eos_token_ids}, "
                f"{other.name!r} {other.size} with {other.eos_token_ids}, or other tokens; fit both for one model"
            )
        values = self.values * other.values.to(self.values.device)
        values = values.clamp_min(torch.finfo(values.dtype).tiny)  # a product of small weights must not become 0
        product = self._with(
            values, self.log_bias + other.log_bias, f"{self.name} * {other.name}", {"factors": [self.name, other.name]}
        )
        product.__dict__["vocabulary_fingerprint"] = known.pop() if known else None
        return product

    def with_metadata(self, metadata: Mapping[str, Any]) -> AttributeWeights:
        """The same weights that tell another story of how they were made."""
        return self._with(self.values, self.log_bias, self.name, metadata)

    def _with(self, values: Tensor, log_bias: float, name: str, metadata: Mapping[str, Any]) -> AttributeWeights:
        return AttributeWeights(
            values,
            self.eos_token_ids,
            log_bias=log_bias,
            name=name,
            vocabulary_fingerprint=self.vocabulary_fingerprint,
            metadata=metadata,
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, in one step; see `HMM.save` for what it raises."""
        header = {
            "format": _FORMAT,
            "name": self.name,
            "eos_token_ids": self.eos_token_ids,
            "log_bias": self.log_bias,
            "vocabulary_fingerprint": self.vocabulary_fingerprint,
            "fingerprint": self.fingerprint,
            "made": self.metadata,
        }
        files.write(path, "attribute", {"values": self.values}, header)

    @classmethod
    def load(cls, path: str | Path, vocabulary: Vocabulary | None = None) -> AttributeWeights:
        """Read what `save` wrote.

        Args:
            path: the file.
            vocabulary: of the model it will be used with; it must be the one for which it was fitted.

        Raises:
            InputError: there is no such file.
            ModelError: it is damaged, or holds no attribute.
            VocabularyError: it is over another vocabulary.
        """
        tensors, header = files.read(path, "attribute", _FORMAT)
        found = None
        with suppress(KeyError, TypeError, ValueError, OverflowError):
            found = cls(
                tensors["values"],
                header["eos_token_ids"],
                log_bias=header["log_bias"],
                name=header["name"],
                vocabulary_fingerprint=header["vocabulary_fingerprint"],
                metadata=header["made"],
            )
        if found is None or found.fingerprint != header.get("fingerprint"):
            raise ModelError(
                f"{str(path)!r} is damaged: its contents do not match the fingerprint in it; copy it again, or fit it anew"
            )
        if vocabulary is not None:
            name = f"the attribute {found.name!r}"
            check_vocabulary(vocabulary, found.size, found.eos_token_ids, found.vocabulary_fingerprint, name)
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttributeWeights) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"AttributeWeights({self.name!r}, size={self.size}, weighted={int((self.values < 1).sum())})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"AttributeWeights is immutable, {name} cannot be set; build another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"AttributeWeights is immutable, {name} cannot be deleted")


def _check_weights(weights: Tensor, eos: Sequence[int], log_bias: float) -> None:
    bad = (~((weights > 0) & (weights <= 1))).nonzero()
    if len(bad):
        token = int(bad[0, 0])
        raise InputError(
            f"the weight of token {token} is {float(weights[token]):g}, wanted above 0 and at most 1; to forbid a token, use "
            "an automaton; to favour one, lower the weights of the others"
        )
    for token in eos:
        if weights[token] != 1:
            raise InputError(
                f"the end of sequence {token} weighs {float(weights[token]):g}, wanted 1: it is no part of a text"
            )
    if not -math.inf < log_bias <= 0:
        raise InputError(f"log_bias must be a finite number, at most 0, got {log_bias}")
