"""Linear layers and convolutions whose widths a GPU can handle.

A width of 972 or 945 channels is no multiple of 8, and the matrix units of a GPU then take three to four times as long.
On CUDA, widths are filled up with zeros to the next multiple of 8 and cut back afterwards: the values are the same.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALIGNMENT = 8


def missing_channels(width: int) -> int:
    """Return how many channels a width lacks to be a multiple of 8."""
    return -width % _ALIGNMENT


class AlignedLinear(nn.Linear):
    """A linear layer."""

    def forward(self, features: Tensor) -> Tensor:
        """features: (..., I); returns (..., O)."""
        return aligned_linear(features, self.weight, self.bias) if features.is_cuda else super().forward(features)


def aligned_linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return features (..., I) times weight (O, I) plus bias, computed in widths that are multiples of 8."""
    more_in, more_out = missing_channels(weight.shape[1]), missing_channels(weight.shape[0])
    padded = F.pad(weight, (0, more_in, 0, more_out))
    product = F.linear(F.pad(features, (0, more_in)), padded, None if bias is None else F.pad(bias, (0, more_out)))
    return product[..., : weight.shape[0]]


def align(module: nn.Module) -> None:
    """Make every linear layer inside a module an `AlignedLinear`; names and weights stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = AlignedLinear


class PositionConv(nn.Module):
    """A convolution over positions with a kernel of 3, channels last: (N, L, I) to (N, L, O)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * width_in))  # keeps the variance through a GELU
        self.weight = nn.Parameter(torch.empty(3, width_in, width_out).uniform_(-bound, bound))  # before, itself, after
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, L, I); returns (N, L, O)."""
        return channels_last_conv(features, self.weight, self.bias, align=features.is_cuda)

    def of_neighbours(self, features: Tensor) -> Tensor:
        """features: (..., 3*I), a position's channels beside those of its neighbours; returns (..., O)."""
        return F.linear(features, self.weight.flatten(0, 1).T, self.bias)


def channels_last_conv(features: Tensor, weight: Tensor, bias: Tensor, *, align: bool) -> Tensor:
    """Convolve (N, L, I) with (3, I, O) to (N, L, O), as an image of height 1: the form that libraries are fastest in.

    Parameters
    ----------
    align : in widths that are multiples of 8
    """
    _, width_in, width_out = weight.shape
    more_in, more_out = (missing_channels(width_in), missing_channels(width_out)) if align else (0, 0)
    kernel = F.pad(weight.permute(2, 1, 0), (0, 0, 0, more_in, 0, more_out))[:, :, None]  # (O, I, 1, 3)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    image = F.pad(features, (0, more_in)).mT[:, :, None]  # (N, I, 1, L), channels last in memory
    convolved = F.conv2d(image, kernel, F.pad(bias, (0, more_out)), padding=(0, 1))
    return convolved.squeeze(2).mT[..., :width_out]
