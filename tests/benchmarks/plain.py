"""The paper's network in plain modules, one after the other: what the fast form must equal and is measured against.

One-hot DNA through convolutions, grouped convolutions over tracks, metadata cross-attention with key and value
projections, three separate decoders, attention without a fused kernel. `load_plain` gives a `Network` the same weights.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from x_transformers import Encoder

from candi_cli.model.candi.blocks import CovariateEmbedding
from candi_cli.model.candi.config import SEQUENCE_POOLS, Config
from candi_cli.model.candi.likelihood import LOG_DISPERSION_LIMITS, LOG_MEAN_LIMIT, SD_FLOOR, soft_clamp
from candi_cli.model.candi.network import (
    MASKED,
    MISSING,
    NO_SEQUENCE,
    OBSERVED,
    CandiBatch,
    CandiOutput,
    Network,
)


class CrossAttention(nn.Module):
    """A lane's covariates query its positions; a small network turns both into scale and shift."""

    def __init__(self, covariate_width: int, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(covariate_width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.hidden = nn.Linear(covariate_width + width, 2 * covariate_width)
        self.film = nn.Linear(2 * covariate_width, 2 * width)

    def forward(self, features: Tensor, covariates: Tensor) -> Tensor:
        """features: (N, T*W, L); covariates: (N, T, M)."""
        n_lanes = covariates.shape[1]
        positions = features.unflatten(1, (n_lanes, -1)).transpose(2, 3)  # (N, T, L, W)
        query = self.query(covariates)[:, :, None]
        scores = query @ self.key(positions).transpose(2, 3) / math.sqrt(positions.shape[-1])
        attended = (scores.softmax(dim=-1) @ self.value(positions)).squeeze(2)
        film = self.film(F.gelu(self.hidden(torch.cat([covariates, attended], dim=-1))))
        scale, shift = film.chunk(2, dim=-1)
        return features * (1 + torch.tanh(scale)).flatten(1)[..., None] + shift.flatten(1)[..., None]


class PlainDecoder(nn.Module):
    """Three transposed convolutions with covariates after each, and a linear layer for each parameter."""

    def __init__(self, config: Config, n_outputs: int) -> None:
        super().__init__()
        n_assays = len(config.assays)
        widths = (config.signal_widths[-1], *config.decoder_widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(n_assays * i, n_assays * o, 3, 2, 1, 1, groups=n_assays) for i, o in pairwise(widths)
        )
        self.conditions = nn.ModuleList(CrossAttention(config.covariate_width, o) for o in widths[1:])
        self.heads = nn.ModuleList(nn.Linear(n_assays * widths[-1], n_assays) for _ in range(n_outputs))

    def forward(self, latent: Tensor, covariates: Tensor) -> list[Tensor]:
        """latent: (N, A*W, L'); returns (N, L, A) for each parameter."""
        for up, condition in zip(self.ups, self.conditions, strict=True):
            latent = condition(F.gelu(up(latent)), covariates)
        return [head(latent.transpose(1, 2)) for head in self.heads]


class PlainNetwork(nn.Module):
    """The preset `paper`, written as one would at first."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, n_lanes = config, len(config.assays) + 1
        self.covariates_in = CovariateEmbedding(config, n_lanes)
        self.covariates_out = CovariateEmbedding(config, n_lanes - 1)
        widths = (3, *config.signal_widths)
        self.signal_convs = nn.ModuleList(
            nn.Conv1d(n_lanes * i, n_lanes * o, 3, padding=1, groups=n_lanes) for i, o in pairwise(widths)
        )
        self.conditions = nn.ModuleList(CrossAttention(config.covariate_width, o) for o in config.signal_widths)
        widths = (4, *config.sequence_widths)
        self.sequence_convs = nn.ModuleList(nn.Conv1d(i, o, 3, padding=1) for i, o in pairwise(widths))
        self.missing = nn.Parameter(torch.zeros(widths[-1]))
        fused = n_lanes * config.signal_widths[-1] + widths[-1]
        self.fusion = nn.Sequential(nn.Linear(fused, config.d_model), nn.LayerNorm(config.d_model))
        self.transformer = Encoder(
            dim=config.d_model, depth=config.n_sab, heads=config.n_head, attn_dim_head=config.dim_head,
            rotary_pos_emb=True, rotary_emb_dim=config.dim_head // 2, ff_mult=4,
            attn_dropout=config.dropout, ff_dropout=config.dropout, attn_flash=False,
        )  # fmt: skip
        self.latent_projection = nn.Linear(config.d_model, (n_lanes - 1) * config.signal_widths[-1])
        self.decoders = nn.ModuleList(PlainDecoder(config, n) for n in (2, 2, 1))

    def read_sequence(self, codes: Tensor) -> Tensor:
        """codes: (N, G); returns (N, D, L')."""
        features = F.one_hot(codes.long().clamp(max=4), 5)[..., :4].transpose(1, 2).to(self.missing.dtype)
        for conv, pool in zip(self.sequence_convs, SEQUENCE_POOLS, strict=True):
            features = F.gelu(F.max_pool1d(conv(features), pool))
        return torch.where((codes[:, :1] != NO_SEQUENCE)[..., None], features, self.missing[:, None])

    def forward(self, batch: CandiBatch) -> CandiOutput:
        """Return the predicted distributions of a batch."""
        state = batch.availability.amax(dim=1)
        covariates = self.covariates_in(batch.covariates_in, state)
        dtype = self.missing.dtype
        values = torch.where(batch.availability == OBSERVED, torch.arcsinh(batch.values.to(dtype)), 0)
        flags = [(batch.availability == kind).to(dtype) for kind in (MISSING, MASKED)]
        features = torch.stack([values, *flags], dim=3).permute(0, 2, 3, 1).flatten(1, 2)  # (N, T*3, L)
        for conv, condition in zip(self.signal_convs, self.conditions, strict=True):
            features = condition(F.avg_pool1d(F.gelu(conv(features)), 2), covariates)
        features = torch.cat([features, self.read_sequence(batch.sequence)], dim=1).transpose(1, 2)
        latent = self.latent_projection(self.transformer(self.fusion(features))).transpose(1, 2)
        requested = torch.full(batch.covariates_out.shape[::2], OBSERVED, device=latent.device)
        asked = self.covariates_out(batch.covariates_out, requested)
        counts, signal, peaks = (decoder(latent, asked) for decoder in self.decoders)
        return CandiOutput(
            soft_clamp(counts[0], -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT),
            soft_clamp(counts[1], *LOG_DISPERSION_LIMITS),
            F.softplus(signal[0]),
            SD_FLOOR + F.softplus(signal[1]),
            peaks[0],
        )


@torch.no_grad()
def load_plain(network: Network, plain: PlainNetwork) -> None:
    """Give a network the weights of its plain form."""
    for name in ("covariates_in", "covariates_out", "fusion", "transformer", "latent_projection"):
        getattr(network, name).load_state_dict(getattr(plain, name).state_dict())
    n_lanes = len(network.config.assays) + 1
    for stage, conv, condition in zip(network.signal_tower, plain.signal_convs, plain.conditions, strict=True):
        stage.conv.weight.copy_(conv.weight.unflatten(0, (n_lanes, -1)).permute(3, 0, 2, 1))  # (T, O, I, 3)
        stage.conv.bias.copy_(conv.bias.unflatten(0, (n_lanes, -1)))
        _load_condition(stage.condition, [condition])
    tower = network.sequence_tower
    for ours, conv in zip((tower.first, *tower.convs), plain.sequence_convs, strict=True):
        ours.weight.copy_(conv.weight.permute(2, 1, 0))  # (O, I, 3) -> (3, I, O)
        ours.bias.copy_(conv.bias)
    tower.missing.copy_(plain.missing)
    decoders = network.decoders
    for stage in range(3):
        ups = [decoder.ups[stage] for decoder in plain.decoders]
        weight = torch.stack([up.weight.unflatten(0, (n_lanes - 1, -1)) for up in ups])  # (D, A, I, O, 3)
        decoders.ups[stage].weight.copy_(weight.permute(4, 0, 1, 2, 3)[[1, 2, 0]])  # even from i, odd from i, i + 1
        decoders.ups[stage].bias.copy_(torch.stack([up.bias.unflatten(0, (n_lanes - 1, -1)) for up in ups]))
        _load_condition(decoders.conditions[stage], [decoder.conditions[stage] for decoder in plain.decoders])
    for head, decoder in zip(network.heads, plain.decoders, strict=True):
        head.out.weight.copy_(torch.cat([linear.weight for linear in decoder.heads]))
        head.out.bias.copy_(torch.cat([linear.bias for linear in decoder.heads]))


def _load_condition(condition: nn.Module, plain: list[CrossAttention]) -> None:
    """Fold key projections into the query and value projections into what follows."""
    for d, each in enumerate(plain):
        width = each.key.in_features
        condition.query.weight[d] = each.query.weight.T @ each.key.weight
        condition.query.bias[d, 0] = each.query.bias @ each.key.weight  # the key's bias cancels in the softmax
        direct, attended = each.hidden.weight[:, :-width], each.hidden.weight[:, -width:]
        condition.hidden.weight[d] = torch.cat([direct.T, each.value.weight.T @ attended.T])
        condition.hidden.bias[d, 0] = each.hidden.bias + attended @ each.value.bias
        condition.film.weight[d] = each.film.weight.T
        condition.film.bias[d, 0] = each.film.bias
