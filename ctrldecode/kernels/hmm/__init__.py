"""Kernels of an HMM beside a token automaton: arrays in, arrays out. Validates, then dispatches by device, dtype and batch.

Every function exists in several variants of one signature: `_reference` (numpy float64, the oracle), `_numba` and `_torch`.
"""

from __future__ import annotations

from ctrldecode.kernels.hmm._edges import Edges
from ctrldecode.kernels.hmm._emission import DTYPES, Emission, dense, encode, move, rows
from ctrldecode.kernels.hmm._torch import candidate_pass, edge_sums, filter_step, table_step, vocabulary_pass

__all__ = [
    "DTYPES",
    "Edges",
    "Emission",
    "candidate_pass",
    "dense",
    "edge_sums",
    "encode",
    "filter_step",
    "move",
    "rows",
    "table_step",
    "vocabulary_pass",
]
