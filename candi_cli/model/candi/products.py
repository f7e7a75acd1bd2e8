"""Linear layers and convolutions whose widths a GPU can handle.

A width of 972 or 945 channels is no multiple of 8, and the matrix units of a GPU then take three to four times as long.
On CUDA, widths are filled up with zeros to the next multiple of 8 and cut back afterwards: the values are the same.
"""

import math
from functools import reduce
from typing import Any

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
    features, padded = F.pad(features, (0, more_in)), F.pad(weight, (0, more_in, 0, more_out))
    if bias is not None and not torch.compiler.is_compiling():
        return F.linear(features, padded, F.pad(bias, (0, more_out)))[..., : weight.shape[0]]
    product = F.linear(features, padded)[..., : weight.shape[0]]
    return product if bias is None else product + bias.to(product.dtype)  # a compiler adds it in the pass that follows


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
        convolve = neighbours_product if features.is_cuda else channels_last_conv
        return convolve(features, self.weight, self.bias)

    def of_neighbours(self, features: Tensor) -> Tensor:
        """features: (..., 3*I), a position's channels beside those of its neighbours; returns (..., O)."""
        return F.linear(features, self.weight.flatten(0, 1).T, self.bias)


def channels_last_conv(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve (N, L, I) with (3, I, O) to (N, L, O), as an image of height 1: a CPU's fastest form."""
    kernel = weight.permute(2, 1, 0)[:, :, None].contiguous(memory_format=torch.channels_last)  # (O, I, 1, 3)
    return F.conv2d(features.mT[:, :, None], kernel, bias, padding=(0, 1)).squeeze(2).mT


def neighbours_product(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve (N, L, I) with (3, I, O) to (N, L, O), as a product of each position and its neighbours.

    A GPU multiplies such rows faster than its library convolves channels that are this few.
    """
    return aligned_linear(neighbours(features, 1, 1), weight.flatten(0, 1).T, bias)


def neighbours(features: Tensor, before: int, after: int) -> Tensor:
    """Return the channels of the positions before, at and after each one side by side: (N, L, I) to (N, L, K*I).

    There are zeros beyond the ends; K = before + 1 + after.
    """
    return _Neighbours.apply(features, before, after)


class _Neighbours(torch.autograd.Function):
    """Rows that overlap in memory, so that a compiler computes each position's channels once, not K times."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, before: int, after: int) -> Tensor:
        n, length, width = features.shape
        ctx.before, ctx.n_positions = before, before + 1 + after
        padded = F.pad(features, (0, 0, before, after)).contiguous()
        size, stride = (n, length, ctx.n_positions * width), (padded.shape[1] * width, width, 1)
        return padded.as_strided(size, stride).clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts = gradient.unflatten(2, (ctx.n_positions, -1)).unbind(dim=2)
        total = parts[ctx.before]
        for shift, part in enumerate(parts, start=-ctx.before):
            if shift:
                total = total + F.pad(part, (0, 0, shift, -shift))
        return total, None, None


def maximum(values: Tensor) -> Tensor:
    """Return the maximum over the last axis but one; the gradient goes to the first of equal values."""
    if torch.is_grad_enabled() and values.requires_grad:
        return _Maximum.apply(values)
    return reduce(torch.maximum, values.unbind(dim=-2))


class _Maximum(torch.autograd.Function):
    """Keep which value was largest, a byte for each maximum: backward is then one pass that reads no values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        first, *others = values.unbind(dim=-2)
        largest, which = first, torch.zeros_like(first, dtype=torch.int8)
        for number, other in enumerate(others, start=1):
            which = torch.where(other > largest, number, which)
            largest = torch.maximum(largest, other)
        ctx.save_for_backward(which)
        ctx.n_values = 1 + len(others)
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (which,) = ctx.saved_tensors
        numbers = torch.arange(ctx.n_values, dtype=torch.int8, device=which.device)[:, None]
        gradient = gradient.contiguous()
        computed = gradient.as_strided(gradient.shape, gradient.stride())  # by a compiler once, not for each value
        return torch.where(which[..., None, :] == numbers, computed[..., None, :], 0)
