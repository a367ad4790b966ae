"""The table β of an HMM and an automaton: what the rest of a text is worth, for every number of tokens still to come.

Built from the end by the recurrence of `kernels.hmm.table_step`, kept in memory and, if wanted, on disk. It knows nothing of
prompts, filters or language models.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctrldecode.core import _tensor_files as files
from ctrldecode.errors import InputError, ModelError, TableLimitError
from ctrldecode.kernels import hmm as kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctrldecode.automata.dfa import TokenDFA
    from ctrldecode.hmm.model import HMM

__all__ = ["Limit", "Problem", "Table", "table_of"]

Limit = Literal["eos", "open"]

_FORMAT = 2  # of the files; raise it when what they hold changes
_KIND = "lookahead table"
_KEPT_BYTES = (
    2**30
)  # of tables in memory: a table of 64 tokens, 100 states of the automaton and 1,024 of the HMM has 26 MB


class Problem(NamedTuple):
    """What a table is of.

    Attributes:
        hmm: the model of what is to come.
        automaton: which texts are wanted.
        weights: (V,) factors in (0, 1] that each token multiplies into Φ, or None.
        limit: whether a text must end within its budget ("eos"), or may be cut off in an accepting state ("open").
    """

    hmm: HMM
    automaton: TokenDFA
    weights: Tensor | None
    limit: Limit

    @property
    def key(self) -> str:
        """A name that is equal for equal problems, in every process."""
        weights = "1" if self.weights is None else hashlib.sha256(self.weights.cpu().numpy().tobytes()).hexdigest()
        return "-".join(
            [str(_FORMAT), self.hmm.fingerprint[:16], self.automaton.fingerprint[:16], weights[:16], self.limit]
        )


class Table(NamedTuple):
    """β_r(q, h) for r = 0 … R, and the moves of the automaton it was made with.

    Attributes:
        future: (R + 1, Q, H) float32, each row divided by its largest entry.
        log_scale: (R + 1, Q) natural log of what it was divided by; −inf where the row is 0.
        edges: the automaton's moves, sorted by the state they leave.
        emitted: (M, H) Σ E(v, h) over the tokens of each move; `edges.sums` if there are no weights.
        starts: (Q + 1,) the moves out of q are edges starts[q] to starts[q + 1].
        columns: (Q, C) int32, which of the moves out of q a class of tokens takes; −1 for none.
    """

    future: Tensor
    log_scale: Tensor
    edges: kernels.Edges
    emitted: Tensor
    starts: NDArray[np.int64]
    columns: NDArray[np.int32]

    @property
    def length(self) -> int:
        """R, the largest number of tokens still to come."""
        return len(self.future) - 1


_kept: OrderedDict[tuple[str, str], Table] = OrderedDict()


def table_of(problem: Problem, length: int, max_bytes: int, folder: str | Path | None = None) -> Table:
    """The table for up to `length` tokens still to come.

    β_r does not depend on R, so a longer table of the same problem serves as it is, and a shorter one is continued.

    Args:
        problem: what the table is of.
        length: R.
        max_bytes: bound on (R + 1)·Q·H·4 bytes.
        folder: where tables are kept on disk, made if it is not there; None keeps none.

    Raises:
        TableLimitError: the table would be larger than `max_bytes`.
        InputError: the folder cannot be made, or not be written.
    """
    _check_size(problem, length, max_bytes)
    place = (problem.key, str(problem.hmm.device))
    path = None if folder is None else _made(folder) / f"lookahead-{problem.key}.safetensors"
    known, grown = _kept.pop(place, None), False
    if known is None or known.length < length:
        before = None if known is None else (known.future, known.log_scale)
        before = _longer(before, None if path is None else _load(path, problem))
        known = _extended(problem, length, before, known)
        grown = before is None or len(before[0]) <= length
    _kept[place] = known
    if path is not None:
        _save(path, problem, known, grown=grown)
    while len(_kept) > 1 and sum(_bytes(table.future) for table in _kept.values()) > _KEPT_BYTES:
        _kept.popitem(last=False)
    return known


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _check_size(problem: Problem, length: int, max_bytes: int) -> None:
    states, hidden = len(problem.automaton.table), problem.hmm.states
    needed = 4 * (length + 1) * states * hidden
    if needed > max_bytes:
        raise TableLimitError(
            f"a lookahead of {length} tokens over {states} automaton states and {hidden} HMM states needs a table of "
            f"{needed / 2**20:,.0f} MiB, and max_table_bytes allows {max_bytes / 2**20:,.0f}; give fewer or shorter conditions, "
            "a smaller max_new_tokens or HMM, or a larger max_table_bytes"
        )


def _extended(problem: Problem, length: int, before: tuple[Tensor, Tensor] | None, known: Table | None) -> Table:
    """The table for `length`, continued from what is there of it."""
    hmm = problem.hmm
    moves = _moves(problem) if known is None else known[2:]
    futures, scales = ([], []) if before is None else (list(before[0]), list(before[1]))
    if not futures:
        accepting = torch.tensor(problem.automaton.accepting, device=hmm.device)
        open_end = accepting.float() if problem.limit == "open" else torch.zeros(len(accepting), device=hmm.device)
        futures.append(open_end[:, None].expand(-1, hmm.states))
        scales.append(open_end.log())
    while len(futures) <= length:
        future, log_scale = kernels.table_step(moves[0], hmm.transition, futures[-1], scales[-1])
        futures.append(future)
        scales.append(log_scale)
    return Table(torch.stack(futures), torch.stack(scales), *moves)


def _moves(problem: Problem) -> tuple[kernels.Edges, Tensor, NDArray[np.int64], NDArray[np.int32]]:
    """The edges, what their tokens emit, where each source's edges begin, and which of them each class takes."""
    automaton = problem.automaton
    edges = _edges(problem, problem.weights)
    emitted = edges.sums if problem.weights is None else _edges(problem, None).sums
    states = len(automaton.table)
    source = edges.source.cpu().numpy()
    code = source * states + edges.target.cpu().numpy()  # sorted
    starts = np.searchsorted(source, np.arange(states + 1))
    place = np.searchsorted(code, np.arange(states)[:, None] * states + automaton.table)
    columns = np.where(automaton.table >= 0, place - starts[:-1, None], -1).astype(np.int32)
    return edges, emitted, starts, columns


def _edges(problem: Problem, weights: Tensor | None) -> kernels.Edges:
    hmm, automaton = problem.hmm, problem.automaton
    classes, table, accepting = (
        torch.tensor(part, device=hmm.device) for part in (automaton.classes, automaton.table, automaton.accepting)
    )
    return kernels.edge_sums(hmm.emission, classes, table, accepting, automaton.eos_token_ids, weights)


def _longer(first: tuple[Tensor, Tensor] | None, second: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    there = [part for part in (first, second) if part is not None]
    return max(there, key=lambda part: len(part[0]), default=None)


def _made(folder: str | Path) -> Path:
    """The folder, made if it is not there."""
    try:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            f"cache_dir must be a folder that is there or can be made, got {folder!r} ({error}); choose another one, or None to keep "
            "tables in memory only"
        ) from error
    return place


def _load(path: Path, problem: Problem) -> tuple[Tensor, Tensor] | None:
    """What a file holds of the table; None where there is none, or not what was written there for this problem."""
    try:
        tensors, about = files.read(path, _KIND, _FORMAT)
    except (OSError, InputError, ModelError):
        return None
    if set(tensors) != {"future", "log_scale"}:
        return None
    future, log_scale = tensors["future"], tensors["log_scale"]
    if about.get("digest") != files.digest([future, log_scale], problem.key):
        return None
    return future.to(problem.hmm.device), log_scale.to(problem.hmm.device)


def _save(path: Path, problem: Problem, table: Table, *, grown: bool) -> None:
    """Write what the file does not hold, in one step, so that no reader ever sees a part."""
    try:
        if grown or not path.exists():
            about = {"format": _FORMAT, "digest": files.digest([table.future, table.log_scale], problem.key)}
            files.write(path, _KIND, {"future": table.future, "log_scale": table.log_scale}, about)
    except (OSError, ModelError) as error:
        raise InputError(
            f"the table could not be kept in cache_dir: {error}; None keeps tables in memory only"
        ) from error
