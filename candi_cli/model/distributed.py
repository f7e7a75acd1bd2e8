"""Several processes that train one model: who they are, and what they add up.

A process joins when RANK and WORLD_SIZE are set, as `torchrun` and `candi train --nproc` set them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from candi_cli.errors import ProcessError, RequestError

RENDEZVOUS = "CANDI_RENDEZVOUS"  # a file through which the processes of one machine find each other
_PATIENCE = timedelta(
    hours=2
)  # while another process unpacks stores, scores or saves; one that ends is noticed at once
_PEER_LOST = ("closed by peer", "reset by peer", "broken pipe", "socket closed", "nccl", "timed out", "store")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        if self.world_size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def share(self, value: Any) -> Any:
        """Return the first process's value in all of them."""
        if self.world_size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    @contextmanager
    def one_by_machine(self) -> Iterator[None]:
        """Let one process of each machine go first, for work that the others then find done."""
        waits = self.world_size > 1 and int(os.environ.get("LOCAL_RANK", self.rank)) > 0
        if waits:
            dist.barrier()
        yield
        if self.world_size > 1 and not waits:
            dist.barrier()

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return a model whose gradients are the means over the processes; it starts at the first one's weights."""
        if self.world_size == 1:
            return model
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


ALONE = Processes()


def local_processes() -> int:
    """Return how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that the environment names, and give this one its device.

    Raises
    ------
    RequestError
        There are fewer CUDA devices than processes on this machine.
    ProcessError
        Another process ended while this one waited for it.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ALONE, device
        return
    device = _own_device(device, int(os.environ.get("LOCAL_RANK", rank)))
    path = os.environ.get(RENDEZVOUS)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{path}" if path else "env://",
            rank=rank, world_size=world_size, timeout=_PATIENCE, device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
        yield Processes(rank, world_size), device
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in _PEER_LOST):
            raise
        raise ProcessError(f"process {rank + 1} of {world_size}: another one ended; see its error") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _own_device(device: torch.device, local_rank: int) -> torch.device:
    if device.type != "cuda":
        return device
    if local_rank >= torch.cuda.device_count():
        raise RequestError(
            f"--nproc: process {local_rank + 1} of this machine has no CUDA device, there are "
            f"{torch.cuda.device_count()}; start no more processes than devices, or use --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
