"""Choosing a device and moving batches to it."""

import platform
from typing import Any

import numpy as np
import torch

from candi_cli.errors import RequestError

Device = torch.device


def choose(name: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; `cuda` is an error where there is none, never a fallback."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device cuda: no CUDA device here; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def prepare(*, threads: int, seed: int) -> None:
    """Set the number of threads and the seed of everything that torch draws."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)


def move(batch: Any, device: torch.device) -> Any:
    """Return a named tuple of tensors (and None) on a device."""
    wait = device.type == "cpu"  # a tensor that is still on its way to the CPU reads as garbage
    return type(batch)(*(part if part is None else part.to(device, non_blocking=not wait) for part in batch))


def kind_of(device: torch.device) -> str:
    """Return what computes alike, to the last digit: the CPU, or a GPU of one name."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type


def memory_taken(device: torch.device) -> int:
    """Return the most bytes of a GPU that this process has taken so far for numbers; 0 of the CPU."""
    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else 0


def versions(candi: str) -> dict[str, str]:
    """Return the versions of what a prediction depends on.

    Parameters
    ----------
    candi : this program's
    """
    return {"candi": candi, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
