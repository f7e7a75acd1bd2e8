"""Linear layers and convolutions whose widths a GPU can handle.

A width of 972 or 945 channels is no multiple of 8, and the matrix units of a GPU then take three to four times as long.
On CUDA, widths are filled up with zeros to the next multiple of 8 and cut back afterwards: the values are the same.
"""

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


def neighbours(features: Tensor) -> Tensor:
    """Return each position's channels beside those of the ones before and after: (..., L, W) to (..., L, 3W).

    Positions outside of the window are 0.
    """
    before, after = F.pad(features[..., :-1, :], (0, 0, 1, 0)), F.pad(features[..., 1:, :], (0, 0, 0, 1))
    return torch.cat([before, features, after], dim=-1)


def position_conv(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve over positions with a kernel of 3, channels last: (N, L, I) to (N, L, O).

    Parameters
    ----------
    weight : (3, I, O), for the position before, itself, after; bias : (O,)
    """
    if features.is_cuda:
        return channels_last_conv(features, weight, bias)
    return F.linear(neighbours(features), weight.flatten(0, 1).T, bias)


def channels_last_conv(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `position_conv` as a two-dimensional convolution of height 1 in aligned widths, a GPU's fastest form."""
    _, width_in, width_out = weight.shape
    more_in, more_out = missing_channels(width_in), missing_channels(width_out)
    kernel = F.pad(weight.permute(2, 1, 0), (0, 0, 0, more_in, 0, more_out))[:, :, None]  # (O, I, 1, 3)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    image = F.pad(features, (0, more_in)).mT[:, :, None]  # (N, I, 1, L), channels last in memory
    convolved = F.conv2d(image, kernel, F.pad(bias, (0, more_out)), padding=(0, 1))
    return convolved.squeeze(2).mT[..., :width_out]
