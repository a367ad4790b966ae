"""Exchange of HMMs with pomegranate, and published checkpoints of Ctrl-G and TRACE. Knows their parameters' names and meanings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ctrldecode.errors import InputError, ModelError
from ctrldecode.hmm._absorbing import absorbing
from ctrldecode.hmm._checks import ROW_TOLERANCE, check_vocabulary, checked_eos
from ctrldecode.hmm.model import HMM
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pomegranate.hmm import DenseHMM
    from torch import Tensor

    from ctrldecode.core.vocabulary import Vocabulary

__all__ = ["from_ctrlg", "from_pomegranate", "to_pomegranate"]


def to_pomegranate(hmm: HMM) -> DenseHMM:
    """The same HMM in pomegranate, on the CPU and in float32.

    pomegranate multiplies the likelihood of a sequence by an end probability of its last state. Here the end is a token, so
    the end probabilities are ones, and its `log_probability` is `HMM.log_prob`. Sequences are (B, T, 1) ids there.

    Example:
        >>> hmm = HMM([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], eos_token_ids=[1])
        >>> to_pomegranate(hmm).log_probability(torch.tensor([[[0], [0], [1]]])).exp()
        tensor([0.2500])
    """
    from pomegranate.distributions import Categorical  # noqa: PLC0415  takes seconds to import, and is rarely wanted
    from pomegranate.hmm import DenseHMM  # noqa: PLC0415

    hmm = hmm.to("cpu")
    emission = kernels.dense(hmm.emission).T.clamp_max(1.0)  # rounded factors may give 1 + 1e-7, which is refused
    return DenseHMM(
        [Categorical(row[None].contiguous()) for row in emission],
        edges=hmm.transition.clamp_max(1.0),
        starts=hmm.initial / hmm.initial.sum(),
        ends=torch.ones(hmm.states),
    )


def from_pomegranate(
    model: DenseHMM, eos_token_ids: Iterable[int] | int, *, size: int | None = None, **options: Any
) -> HMM:
    """An HMM of pomegranate, with its end probabilities folded into a state that emits the end of sequence.

    Where moves and end probabilities of a state add up to 1, as in a fitted model, its likelihood of x is that of x and an end
    of sequence here: `HMM.log_prob([*x, eos])`. Where moves alone add up to 1 and the end probabilities are ones, as
    `to_pomegranate` leaves them, its likelihood of x is `HMM.log_prob(x)`. Ends in the middle of a sequence absorb; see
    `absorbing`.

    Args:
        model: a DenseHMM over Categorical distributions of one feature.
        eos_token_ids: ids that end a text; folded ends emit the first of them.
        size: V, by default the number of categories, or one more than the last end of sequence if that is more.
        options: as in `HMM`: dtype, vocabulary_fingerprint, metadata.

    Raises:
        InputError: the model is of another kind or not initialised, or moves and ends are no probabilities.
    """
    initial, transition, ends, emission = _parts(model)
    given = tuple(eos_token_ids) if not isinstance(eos_token_ids, int) else (eos_token_ids,)
    eos = checked_eos(given, max(size or 0, emission.shape[1], *(token + 1 for token in given)))
    missing = max(size or 0, eos[-1] + 1) - emission.shape[1]
    emission = torch.nn.functional.pad(emission, (0, max(missing, 0)))
    moves = transition.sum(1)
    if bool(((moves + ends - 1).abs() <= ROW_TOLERANCE).all()):
        if bool((ends * (emission[:, list(eos)].sum(1) < 1)).any()):
            initial, transition, emission = _folded(initial, transition, ends, emission, eos)
        else:  # only states of ends stop, and what comes after an end of sequence does not matter: stopping is staying
            transition = transition + ends.diag()
    elif not bool(((moves - 1).abs() <= ROW_TOLERANCE).all() & ((ends - 1).abs() <= ROW_TOLERANCE).all()):
        state = int(((moves + ends - 1).abs()).argmax())
        raise InputError(
            f"moves of state {state} sum to {float(moves[state]):.6g} and its end probability is {float(ends[state]):.6g}; wanted "
            "a sum of 1 of both, or moves that sum to 1 and ends of 1. Fit the model, or give it ends=torch.ones(H)"
        )
    return HMM(*absorbing(initial, transition, emission, eos), eos, **options)


def from_ctrlg(folder: str | Path, *, vocabulary: Vocabulary | None = None, **options: Any) -> HMM:
    """A published checkpoint of Ctrl-G (Zhang et al. 2024) or TRACE (Weng et al. 2025): model.safetensors and config.json.

    The tensors are `alpha_exp` (H, H), probabilities; `beta` (H, V), logarithms; and `gamma` (H,), logarithms, or in TRACE
    `gamma_exp` (1, H), probabilities. Their states may emit ends of sequence among other tokens; see `absorbing`.

    Args:
        folder: of the checkpoint, as the Hugging Face hub gives it.
        vocabulary: of the model it was distilled from; the HMM then names it, and sizes are checked.
        options: as in `HMM`: dtype, metadata.

    Raises:
        InputError: there are no such files.
        ModelError: a file is damaged, or tensors have other names or shapes or are no probabilities.
        VocabularyError: size or end of sequence differ from the vocabulary's.
    """
    folder = Path(folder)
    config, tensors = _checkpoint(folder)
    alpha, beta, gamma = _ctrlg_tensors(folder, tensors)
    eos = _ctrlg_end(folder, config)
    if vocabulary is not None:
        check_vocabulary(vocabulary, beta.shape[1], (eos,), None, str(folder))
        options.setdefault("vocabulary_fingerprint", vocabulary.fingerprint)
    options["metadata"] = {"source": "Ctrl-G", **(options.get("metadata") or {})}
    try:
        parameters = absorbing(gamma, alpha, beta.exp(), eos)
    except InputError as error:
        raise ModelError(
            f"the checkpoint in {str(folder)!r} holds no HMM, wanted probabilities in alpha_exp, and logarithms of "
            f"probabilities in beta and gamma; what comes of them: {error}"
        ) from error
    return HMM(*parameters, eos, **options)


def _parts(model: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Initial (H,), transition (H, H), ends (H,) and emission (H, K) in float64."""
    distributions: list[Any] = list(model.distributions or []) if type(model).__name__ == "DenseHMM" else []
    tables = [getattr(each, "probs", None) for each in distributions]
    fine = distributions and all(table is not None and table.shape[0] == 1 for table in tables)
    if not fine or model.starts is None or model.edges is None:
        raise InputError(
            f"wanted an initialised pomegranate DenseHMM over Categorical distributions of one feature, got "
            f"{type(model).__name__} over {[type(each).__name__ for each in distributions][:3]}; fit it first, or build one"
        )
    width = max(table.shape[1] for table in tables if table is not None)
    emission = torch.stack(
        [
            torch.nn.functional.pad(table[0].detach(), (0, width - table.shape[1]))
            for table in tables
            if table is not None
        ]
    )
    ends = torch.zeros(len(tables)) if model.ends is None else model.ends  # never set: as if ones
    parts = (model.starts.exp(), model.edges.exp(), ends.exp(), emission)
    initial, transition, stops, emits = (part.detach().double().cpu() for part in parts)
    return initial, transition, stops, emits


def _folded(
    initial: Tensor, transition: Tensor, ends: Tensor, emission: Tensor, eos: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The end probabilities as moves to one more state, which emits the first end of sequence."""
    states, size = emission.shape
    transition = torch.cat([torch.cat([transition, ends[:, None]], 1), torch.zeros(1, states + 1).double()])
    transition[-1, -1] = 1.0
    end = torch.zeros(1, size).double()
    end[0, eos[0]] = 1.0
    return torch.cat([initial, torch.zeros(1).double()]), transition, torch.cat([emission, end])


def _checkpoint(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    config, weights = folder / "config.json", folder / "model.safetensors"
    for path in (config, weights):
        if not path.is_file():
            raise InputError(f"there is no {path.name} in {str(folder)!r}; wanted a checkpoint folder of Ctrl-G")
    try:
        return json.loads(config.read_text(encoding="utf-8")), load_file(weights)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ModelError(f"the checkpoint in {str(folder)!r} is damaged ({error}); download it again") from error


def _ctrlg_end(folder: Path, config: Any) -> int:
    """The id that ends a text, from what config.json holds."""
    eos: Any = config.get("eos_token_id") if isinstance(config, dict) else None
    if isinstance(eos, bool) or not isinstance(eos, int):
        raise ModelError(
            f"{str(folder / 'config.json')!r} names no eos_token_id, got {eos!r}; wanted a JSON object with the id that ends a "
            "text"
        )
    return eos


def _ctrlg_tensors(folder: Path, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """alpha (H, H), beta (H, V) in logarithms, and gamma (H,) in probabilities."""
    alpha, beta = tensors.get("alpha_exp"), tensors.get("beta")
    gamma = tensors["gamma_exp"].flatten() if "gamma_exp" in tensors else tensors.get("gamma")
    if alpha is None or beta is None or gamma is None:
        raise ModelError(
            f"the checkpoint in {str(folder)!r} holds {sorted(tensors)}, wanted alpha_exp, beta and gamma; is it of Ctrl-G?"
        )
    states = gamma.numel()
    if gamma.dim() != 1 or alpha.shape != (states, states) or beta.dim() != 2 or len(beta) != states:
        raise ModelError(
            f"the checkpoint in {str(folder)!r} has alpha_exp {tuple(alpha.shape)}, beta {tuple(beta.shape)} and gamma "
            f"{tuple(gamma.shape)}, wanted (H, H), (H, V) and (H,); download it again"
        )
    # Ctrl-G itself takes the softmax of gamma wherever it uses it.
    return alpha, beta.float(), gamma if "gamma_exp" in tensors else gamma.double().softmax(0)
