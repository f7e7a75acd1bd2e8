"""Convolutions whose channels are grouped in lanes, one lane a track, and the covariates that condition them.

A feature map has shape (N, ..., T, L, W): N windows, T lanes, L positions, W channels of a lane; decoders that work
side by side have an axis D before T. Lanes never mix here. A convolution is a matrix product of each position's
neighbourhood with its lane's kernel. A CPU multiplies lane by lane; a GPU's matrix units are faster with one kernel
that is block-diagonal over lanes, zeros and all, than with many products of a few channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL_SIZE = 3


def neighbours(features: Tensor) -> Tensor:
    """Return each position's channels beside those of the ones before and after: (..., L, W) to (..., L, 3W).

    Positions outside of the window are 0.
    """
    before, after = F.pad(features[..., :-1, :], (0, 0, 1, 0)), F.pad(features[..., 1:, :], (0, 0, 0, 1))
    return torch.cat([before, features, after], dim=-1)


def lane_products(shifted: list[Tensor], weights: list[Tensor], bias: Tensor) -> Tensor:
    """Return the sum over shifts of each lane's channels times its own matrix: (N, T, L, O).

    Parameters
    ----------
    shifted : the features seen from a neighbouring position, each (N, T, L, I)
    weights : for each shift (T, I, O); bias : (T, O)
    """
    if shifted[0].is_cuda:
        return _block_diagonal(torch.cat(shifted, dim=-1), torch.cat(weights, dim=1), bias)
    n, n_lanes = shifted[0].shape[:2]
    product = bias[:, None].repeat(n, 1, 1)  # (N*T, 1, O)
    for features, weight in zip(shifted, weights, strict=True):
        product = torch.baddbmm(product, features.flatten(0, 1), weight.repeat(n, 1, 1))
    return product.unflatten(0, (n, n_lanes))


def _block_diagonal(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the product of each lane with its matrix as one product with a large matrix that is mostly 0."""
    n_lanes, width_in, width_out = weight.shape
    identity = torch.eye(n_lanes, dtype=weight.dtype, device=weight.device)
    dense = (weight[:, :, None] * identity[:, None, :, None]).reshape(n_lanes * width_in, n_lanes * width_out)
    rows = features.transpose(1, 2).flatten(2)  # (N, L, T*I)
    return F.linear(rows, dense.T, bias.flatten()).unflatten(2, (n_lanes, width_out)).transpose(1, 2)


class LaneConv(nn.Module):
    """A convolution of kernel 3 over positions, each lane with weights of its own: (N, T, L, I) to (N, T, L, O)."""

    def __init__(self, n_lanes: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (KERNEL_SIZE * width_in))  # keeps the variance through a GELU
        weight = torch.empty(KERNEL_SIZE, n_lanes, width_in, width_out).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)  # for the position before, itself, after
        self.bias = nn.Parameter(torch.zeros(n_lanes, width_out))

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, T, L, I); returns (N, T, L, O)."""
        length = features.shape[2]
        padded = F.pad(features, (0, 0, 1, 1))
        shifted = [padded[:, :, shift : shift + length] for shift in range(KERNEL_SIZE)]
        return lane_products(shifted, list(self.weight), self.bias)


class LaneDeconv(nn.Module):
    """A transposed convolution of kernel 3 and stride 2, for D decoders: (N, D, T, L, I) to (N, D, T, 2L, O).

    Position 2i of the output sees position i of the input, position 2i + 1 sees i and i + 1.

    Parameters
    ----------
    shared_input : the decoders read the same features, of shape (N, 1, T, L, I)
    """

    def __init__(self, n_decoders: int, n_lanes: int, width_in: int, width_out: int, *, shared_input: bool) -> None:
        super().__init__()
        self.shared_input = shared_input
        bound = math.sqrt(4 / width_in)  # half of the positions see one of the input's, half see two
        weight = torch.empty(KERNEL_SIZE, n_decoders, n_lanes, width_in, width_out).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)  # even from i, odd from i, odd from i + 1
        self.bias = nn.Parameter(torch.zeros(n_decoders, n_lanes, width_out))

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, D, T, L, I), D = 1 when shared; returns (N, D, T, 2L, O)."""
        even, odd, odd_next = self.weight
        n_decoders, n_lanes, _, width_out = even.shape
        here = torch.stack([even, odd], dim=3)  # (D, T, I, 2, O)
        after = torch.stack([torch.zeros_like(odd_next), odd_next], dim=3)
        bias = self.bias[:, :, None].expand(-1, -1, 2, -1)  # (D, T, 2, O)
        if self.shared_input:  # a lane's product gives the channels of all decoders
            here, after = (matrix.permute(1, 2, 0, 3, 4).flatten(2) for matrix in (here, after))
            bias, lanes = bias.transpose(0, 1).flatten(1), features.squeeze(1)
        else:
            here, after = (matrix.flatten(0, 1).flatten(2) for matrix in (here, after))
            bias, lanes = bias.flatten(0, 1).flatten(1), features.flatten(1, 2)
        shifted = [lanes, F.pad(lanes[:, :, 1:], (0, 0, 0, 1))]
        raised = lane_products(shifted, [here, after], bias)
        if self.shared_input:
            raised = raised.unflatten(3, (n_decoders, 2, width_out)).permute(0, 3, 1, 2, 4, 5)  # (N, D, T, L, 2, O)
        else:
            raised = raised.unflatten(3, (2, width_out)).unflatten(1, (n_decoders, n_lanes))
        return raised.flatten(3, 4)


class StackedLinear(nn.Module):
    """A linear layer for each of D decoders: (N, D, T, I) to (N, D, T, O)."""

    def __init__(self, n_decoders: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)
        self.weight = nn.Parameter(torch.empty(n_decoders, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_decoders, 1, width_out).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        """values: (N, D, T, I); returns (N, D, T, O)."""
        return values @ self.weight + self.bias


class Condition(nn.Module):
    """Scale and shift lanes by their covariates (FiLM).

    With `attends` this is the paper's metadata cross-attention: the covariates query the lane's positions. One query a
    lane makes key and value projections redundant: a key projection is one more matrix on the query, a value projection
    one more on what was attended. Either way the covariates reach scale and shift directly, and the scale is centred
    at 1 (paper, "Metadata Cross-Attention", where both are open).
    """

    def __init__(self, n_decoders: int, covariate_width: int, lane_width: int, *, attends: bool) -> None:
        super().__init__()
        self.query = StackedLinear(n_decoders, covariate_width, lane_width) if attends else None
        width_in = covariate_width + (lane_width if attends else 0)
        self.hidden = StackedLinear(n_decoders, width_in, 2 * covariate_width)
        self.film = StackedLinear(n_decoders, 2 * covariate_width, 2 * lane_width)

    def forward(self, features: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        """features: (N, D, T, L, W); covariates: (N, T, M); returns scale and shift, (N, D, T, 1, W) each."""
        covariates = covariates[:, None].expand(-1, features.shape[1], -1, -1)  # (N, D, T, M)
        if self.query is not None:
            query = self.query(covariates) / math.sqrt(features.shape[-1])  # (N, D, T, W)
            attention = (features * query[:, :, :, None]).sum(dim=-1).softmax(dim=-1)  # (N, D, T, L)
            attended = (features * attention[..., None].to(features.dtype)).sum(dim=3)  # (N, D, T, W)
            covariates = torch.cat([covariates, attended.to(covariates.dtype)], dim=-1)
        scale, shift = self.film(F.gelu(self.hidden(covariates)))[:, :, :, None].chunk(2, dim=-1)
        return 1 + torch.tanh(scale), shift


def normalise_lanes(features: Tensor) -> Tensor:
    """Return (..., L, W) with mean 0 and variance 1 over each window's lane; no other window takes part."""
    wide = features.float()
    mean = wide.mean(dim=(-2, -1), keepdim=True)
    variance = wide.var(dim=(-2, -1), keepdim=True, unbiased=False)
    return ((wide - mean) * torch.rsqrt(variance + 1e-3)).to(features.dtype)
