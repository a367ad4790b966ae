"""One process, or several that `torchrun` started: who does which part, and how sums come together.

It knows torch.distributed and nothing of what is computed. The processes share a folder; on several machines, a network one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

__all__ = ["Workers", "workers"]

T = TypeVar("T")


class Workers(NamedTuple):
    """This process among all of them.

    Attributes:
        rank: which one it is; 0 writes the files that are written once.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Every world-th item, from rank on."""
        return items[self.rank :: self.world]

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def share_(self, *tensors: Tensor) -> None:
        """Replace each tensor by that of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def workers(device: torch.device) -> Generator[Workers]:
    """Join the group of processes that torchrun has started, if it has; leave it at the end.

    Args:
        device: where the tensors to be summed are; decides between nccl and gloo.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Workers()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
