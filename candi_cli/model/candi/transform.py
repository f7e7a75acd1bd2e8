"""The one place where -log10 p becomes what the network models."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def signal_transform(values: Any) -> Any:
    """Return arcsinh of an array or a tensor (paper, "Inputs": it stabilises the variance)."""
    return torch.arcsinh(values) if isinstance(values, Tensor) else np.arcsinh(values)
