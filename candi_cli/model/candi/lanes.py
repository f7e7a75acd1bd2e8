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

from candi_cli.model.candi.products import aligned_linear, neighbours, neighbours_product

KERNEL_SIZE = 3


def block_diagonal(weight: Tensor) -> Tensor:
    """Return one matrix (..., T*I, T*O) with the matrices of lanes (..., T, I, O) on its diagonal."""
    n_lanes = weight.shape[-3]
    identity = torch.eye(n_lanes, dtype=weight.dtype, device=weight.device)
    return (weight[..., None, :] * identity[:, None, :, None]).flatten(-4, -3).flatten(-2)


def to_rows(lanes: Tensor) -> Tensor:
    """Return lanes (N, T, L, W) with all of a position's channels in a row: (N, L, T*W)."""
    return lanes.transpose(1, 2).flatten(2)


def to_lanes(rows: Tensor, n_lanes: int) -> Tensor:
    """Return rows (N, L, T*W) as lanes (N, T, L, W)."""
    return rows.unflatten(2, (n_lanes, -1)).transpose(1, 2)


def lane_products(shifted: list[Tensor], weights: list[Tensor], bias: Tensor) -> Tensor:
    """Return the sum over shifts of each lane's channels times its own matrix: (N, T, L, O), lane by lane.

    Parameters
    ----------
    shifted : the features seen from a neighbouring position, each (N, T, L, I)
    weights : for each shift (T, I, O); bias : (T, O)
    """
    n, n_lanes = shifted[0].shape[:2]
    pairs = [(each.flatten(0, 1), weight.repeat(n, 1, 1)) for each, weight in zip(shifted, weights, strict=True)]
    product = torch.bmm(*pairs[0])  # (N*T, L, O)
    for features, weight in pairs[1:]:
        product.baddbmm_(features, weight)  # in place: out of place, the sum so far would be copied each time
    return product.unflatten(0, (n, n_lanes)).add_(bias[:, None])


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
        return self.all_lanes(features) if features.is_cuda else self.lane_by_lane(features)

    def lane_by_lane(self, features: Tensor) -> Tensor:
        """Return the convolution as a product for each lane."""
        length = features.shape[2]
        padded = F.pad(features, (0, 0, 1, 1))
        shifted = [padded[:, :, shift : shift + length] for shift in range(KERNEL_SIZE)]
        return lane_products(shifted, list(self.weight), self.bias)

    def all_lanes(self, features: Tensor) -> Tensor:
        """Return the convolution with one kernel that is block-diagonal over lanes."""
        convolved = neighbours_product(to_rows(features), block_diagonal(self.weight), self.bias.flatten())
        return to_lanes(convolved, features.shape[1])


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
        if features.is_cuda:
            raised = self.all_lanes(lanes, [here, after], bias)
        else:
            raised = lane_products([lanes, F.pad(lanes[:, :, 1:], (0, 0, 0, 1))], [here, after], bias)
        if self.shared_input:
            raised = raised.unflatten(3, (n_decoders, 2, width_out)).permute(0, 3, 1, 2, 4, 5)  # (N, D, T, L, 2, O)
        else:
            raised = raised.unflatten(3, (2, width_out)).unflatten(1, (n_decoders, n_lanes))
        return raised.flatten(3, 4)

    @staticmethod
    def all_lanes(lanes: Tensor, weights: list[Tensor], bias: Tensor) -> Tensor:
        """Return `lane_products` of lanes and those after them as one product, block-diagonal over lanes."""
        matrix = torch.cat([block_diagonal(weight) for weight in weights])
        raised = aligned_linear(neighbours(to_rows(lanes), 0, 1), matrix.T, bias.flatten())
        return to_lanes(raised, len(bias))


class StackedLinear(nn.Module):
    """A linear layer for each of D decoders: (N, D, T, I) to (N, D, T, O)."""

    def __init__(self, n_decoders: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_in)
        self.weight = nn.Parameter(torch.empty(n_decoders, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_decoders, 1, width_out).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        """values: (N, D, T, I); returns (N, D, T, O)."""
        n, _, n_lanes, _ = values.shape
        rows = values.transpose(0, 1).flatten(1, 2)  # (D, N*T, I)
        return (torch.bmm(rows, self.weight) + self.bias).unflatten(1, (n, n_lanes)).transpose(0, 1)


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
            attended = attend(query.to(features.dtype), features)
            covariates = torch.cat([covariates, attended.to(covariates.dtype)], dim=-1)
        scale, shift = self.film(F.gelu(self.hidden(covariates)))[:, :, :, None].chunk(2, dim=-1)
        return 1 + torch.tanh(scale), shift


def attend(query: Tensor, features: Tensor) -> Tensor:
    """Return the mean of each lane's positions (N, D, T, W) that is weighted by the softmax of their match to a query.

    Parameters
    ----------
    query : (N, D, T, W); features : (N, D, T, L, W)
    """
    if torch.compiler.is_compiling():  # a compiler fuses the sums into single passes over the features
        attention = (features * query[..., None, :]).sum(dim=-1).softmax(dim=-1)  # (N, D, T, L)
        return (attention[..., None] * features).sum(dim=-2)
    attention = (features @ query[..., None]).squeeze(-1).softmax(dim=-1)
    return (attention.to(features.dtype)[..., None, :] @ features).squeeze(-2)


def normalise_lanes(features: Tensor) -> Tensor:
    """Return (..., L, W) with mean 0 and variance 1 over each window's lane; no other window takes part."""
    wide = features.float()
    mean = wide.mean(dim=(-2, -1), keepdim=True)
    variance = wide.var(dim=(-2, -1), keepdim=True, unbiased=False)
    return ((wide - mean) * torch.rsqrt(variance + 1e-3)).to(features.dtype)
