"""The CANDI network (paper, Methods, "CANDI Architecture"): encoder over tracks and DNA, three decoders.

Shapes: N windows, L bins, A assays, T = A + 1 lanes (the ChIP control is the last), G = L * resolution bases,
W channels of a lane, M covariate width, D = d_model, L' = L / 8 latent positions.

A lane is one track's own channels: the convolutions are grouped, so lanes only meet in the fusion and the transformer.
Where the paper's text is open, metadata has a direct path to the output (an identity-centred FiLM from the embedded
covariates *and* what they attend to), missing, masked and zero are different inputs, and no normalisation uses batch
statistics, so a prediction does not depend on what else is in the batch.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from x_transformers import Encoder as TransformerEncoder

from candi_cli.covariates import MASKED as MASKED_TOKEN
from candi_cli.covariates import MISSING as MISSING_TOKEN
from candi_cli.covariates import PLATFORMS, RUN_TYPES
from candi_cli.covariates import UNKNOWN as UNKNOWN_TOKEN
from candi_cli.model.candi.likelihood import LOG_DISPERSION_LIMITS, LOG_MEAN_LIMIT, SD_FLOOR

MISSING, MASKED, OBSERVED = 0, 1, 2  # the states of an input entry
N_STATES = 3
NO_SEQUENCE = 5  # a base code: A, C, G, T, N = 0..4
SIGNAL_POOL = 2
SEQUENCE_POOLS = (2, 2, 2, 5, 5)
DEPTH_CENTRE, _DEPTH_SCALE = 23.0, 3.0  # log2 reads per Gb: 8 M reads per Gb, about 25 M on a human genome
_LOG_RATE_SCALE = 3.0
HEAD_WIDTH = 32
_LENGTH_CENTRE, _LENGTH_SCALE = 5.6, 1.0  # log2 bp


@dataclass(frozen=True)
class Config:
    """The size and shape of a network, and how it was told to learn; travels in the model file.

    Attributes
    ----------
    assays : names in lane order; the control is not one of them
    context_bins, flank_bins : bins seen at once, and those of them at each side whose prediction is not kept
    signal_widths, decoder_widths : channels of a lane after each stage of the signal tower and of a decoder
    sequence_widths : channels after each stage of the DNA tower; empty for a network that reads no sequence
    lane_skips : decoders also see the signal tower's features of their own lane at each resolution
    shared_head : one output head for all assays instead of a linear layer that mixes them
    kernels : bandwidths (sd, in bins) of the Gaussian kernels through which a lane's own counts reach the mean of its
        count distribution directly; empty for none
    depth_offset : the count mean is proportional to the requested depth, beside what is learned of it
    depth_range : log2 reads per Gb that training covered; depths outside are embedded as its ends
    """

    assays: tuple[str, ...]
    resolution: int = 25
    context_bins: int = 1200
    flank_bins: int = 150
    signal_widths: tuple[int, ...] = (8, 8, 8)
    sequence_widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    decoder_widths: tuple[int, ...] = (8, 8, 8)
    covariate_width: int = 32
    d_model: int = 192
    n_sab: int = 2
    n_head: int = 4
    dim_head: int = 64
    dropout: float = 0.1
    lane_skips: bool = True
    shared_head: bool = True
    kernels: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    depth_offset: bool = True
    depth_range: tuple[float, float] = (10.0, 33.0)

    @property
    def reads_sequence(self) -> bool:
        """Whether the network has a DNA tower."""
        return bool(self.sequence_widths)

    @property
    def core_bins(self) -> int:
        """Bins of a window whose prediction is kept."""
        return self.context_bins - 2 * self.flank_bins


def preset(name: str, assays: tuple[str, ...], *, resolution: int, reads_sequence: bool) -> Config:
    """Return the configuration of a named size: `paper`, `base` or `tiny`."""
    if name == "paper":
        lanes = len(assays) + 1
        d_model = lanes * 27
        config = Config(
            assays, resolution, signal_widths=(3, 9, 27), sequence_widths=(12, 36, 108, 324, d_model),
            decoder_widths=(9, 3, 1), d_model=d_model, n_sab=4, n_head=9,
            lane_skips=False, shared_head=False, kernels=(), depth_offset=False,
        )  # fmt: skip
    elif name == "base":
        config = Config(assays, resolution)
    else:
        config = Config(
            assays, resolution, context_bins=240, flank_bins=40, signal_widths=(4, 4, 4), decoder_widths=(4, 4, 4),
            sequence_widths=(8, 8, 16, 16, 32), covariate_width=16, d_model=32, n_sab=1, n_head=2, dim_head=32,
        )  # fmt: skip
    if not reads_sequence:
        config = Config(**{**config.__dict__, "sequence_widths": ()})
    return config


PRESETS = ("paper", "base", "tiny")


class CandiBatch(NamedTuple):
    """What the network reads.

    values : (N, L, T) reads per bin in any integer or float type, or -log10 p for a network that reads signal; 0 where
        not observed
    availability : (N, L, T) uint8, one of MISSING, MASKED, OBSERVED
    covariates_in : (N, 4, T), covariates_out : (N, 4, A), as `covariates.encode` makes them
    sequence : (N, G) uint8 base codes, NO_SEQUENCE throughout a window without; None when no window has any
    reference : (N, L, A) float32, the mean of other biosamples' arcsinh(-log10 p), NaN where there is none; None when
        no window has any
    """

    values: Tensor
    availability: Tensor
    covariates_in: Tensor
    covariates_out: Tensor
    sequence: Tensor | None
    reference: Tensor | None = None


class CandiOutput(NamedTuple):
    """Parameters of the predicted distributions, each (N, L, A), float32.

    Counts are negative binomial (logs of mean and dispersion), arcsinh(-log10 p) is Gaussian, peaks are Bernoulli.
    """

    count_log_mean: Tensor
    count_log_dispersion: Tensor
    signal_mean: Tensor
    signal_sd: Tensor
    peak_logit: Tensor

    def track(self, name: str) -> Tensor:
        """Return what a track shows: expected counts, median -log10 p, or peak probability; (N, L, A)."""
        if name == "counts":
            return self.count_log_mean.exp()
        if name == "signal":  # arcsinh is monotone, so the mean of the Gaussian is its median before the transform
            return self.signal_mean.sinh()
        return self.peak_logit.sigmoid()


class Vocabulary(nn.Embedding):
    """An embedding that loads weights made when its vocabulary was shorter: new names start as *unknown*."""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        name = f"{prefix}weight"
        if name in state_dict and len(state_dict[name]) < self.num_embeddings:
            known = state_dict[name]
            new = known[UNKNOWN_TOKEN].expand(self.num_embeddings - len(known), -1)
            state_dict[name] = torch.cat([known, new])
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CovariateEmbedding(nn.Module):
    """Embed the four covariates of each lane; unknown, missing and masked have vectors of their own."""

    def __init__(self, config: Config, n_lanes: int) -> None:
        super().__init__()
        width = config.covariate_width
        self.depth_range = config.depth_range
        self.depth = nn.Linear(1, width)
        self.read_length = nn.Linear(1, width)
        self.tokens = nn.ModuleList(nn.Embedding(3, width) for _ in range(2))  # for depth and read length
        self.run_type = Vocabulary(len(RUN_TYPES), width)
        self.platform = Vocabulary(len(PLATFORMS), width)
        self.mix = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.lane = nn.Parameter(torch.randn(n_lanes, width) * 0.5)

    def forward(self, covariates: Tensor, state: Tensor) -> Tensor:
        """covariates: (N, 4, T); state: (N, T) of MISSING, MASKED, OBSERVED; returns (N, T, M)."""
        observed = state == OBSERVED
        token = torch.where(state == MASKED, MASKED_TOKEN, MISSING_TOKEN)
        depth, read_length, run_type, platform = covariates.unbind(dim=1)
        depth = (depth.clamp(*self.depth_range) - DEPTH_CENTRE) / _DEPTH_SCALE
        read_length = (read_length - _LENGTH_CENTRE) / _LENGTH_SCALE
        fields = [
            self._number(project, tokens, value, observed, token)
            for project, tokens, value in zip(
                (self.depth, self.read_length), self.tokens, (depth, read_length), strict=True
            )
        ]
        fields += [
            table(torch.where(observed, ids.long(), token))
            for table, ids in ((self.run_type, run_type), (self.platform, platform))
        ]
        return self.mix(torch.cat(fields, dim=-1)) + self.lane  # (N, T, 4M) -> (N, T, M)

    @staticmethod
    def _number(project: nn.Module, tokens: nn.Module, value: Tensor, observed: Tensor, token: Tensor) -> Tensor:
        known = observed & value.isfinite()
        token = torch.where(observed, UNKNOWN_TOKEN, token)
        return torch.where(known[..., None], project(value.nan_to_num(0.0)[..., None]), tokens(token))


class MetadataCrossAttention(nn.Module):
    """Condition a lane's features on its covariates: they query the lane, then scale and shift it (FiLM).

    One query per lane makes key and value projections redundant: the query is projected into the lane's own channels.
    """

    def __init__(self, covariate_width: int, lane_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(covariate_width, lane_width)
        self.film = nn.Sequential(
            nn.Linear(covariate_width + lane_width, 2 * covariate_width),
            nn.GELU(),
            nn.Linear(2 * covariate_width, 2 * lane_width),
        )

    def forward(self, features: Tensor, covariates: Tensor) -> Tensor:
        """features: (N, T, W, L); covariates: (N, T, M); returns features of the same shape."""
        query = self.query(covariates)[..., None, :] / math.sqrt(features.shape[2])  # (N, T, 1, W)
        attention = (query @ features).softmax(dim=-1)  # (N, T, 1, L)
        attended = (features @ attention.transpose(2, 3)).squeeze(3)  # (N, T, W)
        film = self.film(torch.cat([covariates, attended], dim=-1))[..., None]  # (N, T, 2W, 1)
        scale, shift = film.chunk(2, dim=2)
        return features * (1 + torch.tanh(scale)) + shift


class SignalStage(nn.Module):
    """Grouped convolution with a grouped residual, GELU, average pooling, then the covariates."""

    def __init__(self, n_lanes: int, width_in: int, width_out: int, covariate_width: int) -> None:
        super().__init__()
        self.n_lanes = n_lanes
        self.conv = nn.Conv1d(n_lanes * width_in, n_lanes * width_out, 3, padding=1, groups=n_lanes)
        self.residual = nn.Conv1d(n_lanes * width_in, n_lanes * width_out, 1, groups=n_lanes, bias=False)
        self.condition = MetadataCrossAttention(covariate_width, width_out)

    def forward(self, features: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        """features: (N, T*W_in, L); returns them before pooling (N, T*W_out, L) and after (N, T*W_out, L/2)."""
        fine = F.gelu(self.conv(features)) + self.residual(features)
        fine = self.condition(fine.unflatten(1, (self.n_lanes, -1)), covariates).flatten(1, 2)
        return fine, F.avg_pool1d(fine, SIGNAL_POOL)


class SequenceTower(nn.Module):
    """DNA at base resolution down to the latent's: five convolutions with pools 2, 2, 2, 5, 5."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.residuals = nn.ModuleList()
        for width_in, width_out in zip((4, *widths[:-1]), widths, strict=True):
            self.convs.append(nn.Conv1d(width_in, width_out, 3, padding=1))
            self.residuals.append(nn.Conv1d(width_in, width_out, 1, bias=False))
        self.missing = nn.Parameter(torch.zeros(widths[-1]))

    def forward(self, codes: Tensor | None, n: int, length: int) -> Tensor:
        """codes: (N, G) or None; returns (N, D_sequence, L'), the missing token where there is no sequence."""
        missing = self.missing[None, :, None].expand(n, -1, length)
        if codes is None:
            return missing
        features = F.one_hot(codes.long().clamp(max=4), 5)[..., :4].transpose(1, 2).to(self.missing.dtype)  # (N, 4, G)
        for conv, residual, pool in zip(self.convs, self.residuals, SEQUENCE_POOLS, strict=True):
            features = F.max_pool1d(F.gelu(conv(features)) + residual(features), pool)
        has_sequence = codes[:, :1] != NO_SEQUENCE  # (N, 1)
        return torch.where(has_sequence[..., None], features, missing)


class Decoder(nn.Module):
    """Latent to lanes at full resolution: transposed convolutions, each followed by the requested covariates."""

    def __init__(self, config: Config, n_outputs: int, n_extra: int = 0) -> None:
        super().__init__()
        self.n_assays = n_assays = len(config.assays)
        widths_in = (config.signal_widths[-1], *config.decoder_widths[:-1])
        self.ups, self.residuals, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.conditions = nn.ModuleList()
        for width_in, width_out, skip in zip(widths_in, config.decoder_widths, config.signal_widths[::-1], strict=True):
            lanes_in, lanes_out = n_assays * width_in, n_assays * width_out
            self.ups.append(
                nn.ConvTranspose1d(lanes_in, lanes_out, 3, stride=2, padding=1, output_padding=1, groups=n_assays)
            )
            self.residuals.append(
                nn.ConvTranspose1d(lanes_in, lanes_out, 1, stride=2, output_padding=1, groups=n_assays, bias=False)
            )
            self.skips.append(
                nn.Conv1d(n_assays * skip, lanes_out, 3, padding=1, groups=n_assays)
                if config.lane_skips
                else nn.Identity()
            )
            self.conditions.append(MetadataCrossAttention(config.covariate_width, width_out))
        self.head = Head(config, n_outputs, n_extra)
        self.lane_skips = config.lane_skips

    def forward(self, features: Tensor, skips: list[Tensor], covariates: Tensor, extra: Tensor | None = None) -> Tensor:
        """features: (N, A*W, L'); skips: fine features of each signal stage; returns (N, n_outputs, L, A).

        extra : (N, A, n_extra, L), more channels for the head
        """
        stages = zip(self.ups, self.residuals, self.skips, self.conditions, reversed(skips), strict=True)
        for up, residual, skip, condition, fine in stages:
            raised = up(features)
            if self.lane_skips:
                raised = raised + skip(fine)
            features = F.gelu(raised) + residual(features)  # (N, A*W, 2L)
            lanes = condition(features.unflatten(1, (self.n_assays, -1)), covariates)
            features = lanes.flatten(1, 2)
        return self.head(lanes if extra is None else torch.cat([lanes, extra], dim=2))


class Head(nn.Module):
    """Lane features to distribution parameters, either by one small network for all assays or by a mixing layer."""

    def __init__(self, config: Config, n_outputs: int, n_extra: int) -> None:
        super().__init__()
        width, n_assays = config.decoder_widths[-1] + n_extra, len(config.assays)
        self.n_outputs = n_outputs
        self.shared = config.shared_head
        if self.shared:
            self.hidden = nn.Linear(width, HEAD_WIDTH)
            self.out = nn.Linear(HEAD_WIDTH, n_outputs)
        else:
            self.out = nn.Linear(n_assays * width, n_assays * n_outputs)
        self.bias = nn.Parameter(torch.zeros(n_outputs, n_assays))

    def forward(self, lanes: Tensor) -> Tensor:
        """lanes: (N, A, W, L); returns (N, n_outputs, L, A), float32."""
        if self.shared:
            values = self.out(F.gelu(self.hidden(lanes.transpose(2, 3))))  # (N, A, L, n_outputs)
            values = values.permute(0, 3, 2, 1)
        else:
            mixed = self.out(lanes.flatten(1, 2).transpose(1, 2))  # (N, L, A*n_outputs)
            values = mixed.unflatten(2, (self.n_outputs, -1)).transpose(1, 2)
        return values.float() + self.bias[:, None]


class OwnCounts(nn.Module):
    """A lane's own counts under Gaussian kernels of several bandwidths, as log rates at a common depth.

    What a smoother would predict; the count decoder weighs these against what it infers from everything else. Hidden
    and missing bins carry no weight, so the kernels reach over them from both sides.
    """

    FLOOR = 1e-4  # counts per bin

    def __init__(self, bandwidths: tuple[float, ...]) -> None:
        super().__init__()
        self.reach = math.ceil(3 * max(bandwidths))
        distance = torch.arange(-self.reach, self.reach + 1, dtype=torch.float64)
        rows = [(-0.5 * (distance / max(sd, 1e-3)) ** 2).exp() for sd in bandwidths]
        kernels = torch.stack([row / row.sum() for row in rows])[:, None]
        self.kernels: Tensor
        self.register_buffer("kernels", kernels.float(), persistent=False)  # (K, 1, 2 * reach + 1)

    def forward(self, counts: Tensor, observed: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """counts, observed: (N, L, A); depth: (N, A), NaN where not known.

        Returns log rates (N, K, L, A) and which of them have any data under their kernel.
        """
        n, length, n_assays = counts.shape
        stacked = torch.stack([torch.where(observed, counts, 0), observed.to(counts.dtype)])  # (2, N, L, A)
        rows = stacked.permute(0, 1, 3, 2).reshape(-1, 1, length)
        smooth = F.conv1d(rows, self.kernels, padding=self.reach).unflatten(0, (2, n, n_assays))  # (2, N, A, K, L)
        weighed, weight = smooth.permute(0, 1, 3, 4, 2)  # (N, K, L, A) each
        offset = math.log(2) * (depth - DEPTH_CENTRE).nan_to_num(0.0)[:, None, None]
        rate = (weighed / weight.clamp(min=1e-6)).clamp(min=0) + self.FLOOR
        return rate.log() - offset, weight > 1e-3


class Encoded(NamedTuple):
    """What the encoder hands to the decoders.

    latent : Z, (N, L', D)
    skips : each signal stage's features before pooling, (N, T*W, L / 2^stage)
    own, own_known : log rates of `OwnCounts` and where there are any, (N, K, L, A); None without kernels
    """

    latent: Tensor
    skips: list[Tensor]
    own: Tensor | None
    own_known: Tensor | None


class Network(nn.Module):
    """Encoder and decoders; `forward` is `decode` of `encode`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        n_assays = len(config.assays)
        n_lanes = n_assays + 1
        self.covariates_in = CovariateEmbedding(config, n_lanes)
        self.covariates_out = CovariateEmbedding(config, n_assays)
        widths_in = (N_STATES, *config.signal_widths[:-1])
        self.signal_tower = nn.ModuleList(
            SignalStage(n_lanes, width_in, width_out, config.covariate_width)
            for width_in, width_out in zip(widths_in, config.signal_widths, strict=True)
        )
        self.sequence_tower = SequenceTower(config.sequence_widths) if config.reads_sequence else None
        fused = n_lanes * config.signal_widths[-1] + (config.sequence_widths[-1] if config.reads_sequence else 0)
        self.fusion = nn.Sequential(nn.Linear(fused, config.d_model), nn.LayerNorm(config.d_model))
        self.transformer = TransformerEncoder(
            dim=config.d_model, depth=config.n_sab, heads=config.n_head, attn_dim_head=config.dim_head,
            rotary_pos_emb=True, rotary_emb_dim=config.dim_head // 2, ff_mult=4,
            attn_dropout=config.dropout, ff_dropout=config.dropout, attn_flash=True,
        )  # fmt: skip
        self.latent_projection = nn.Linear(config.d_model, n_assays * config.signal_widths[-1])
        self.own_counts = OwnCounts(config.kernels) if config.kernels else None
        n_kernels = len(config.kernels)
        self.count_decoder = Decoder(config, 4 + n_kernels if n_kernels else 2, n_extra=n_kernels)
        self.signal_decoder = Decoder(config, 2)
        self.peak_decoder = Decoder(config, 1)

    def forward(self, batch: CandiBatch) -> CandiOutput:
        """Return the predicted distributions of a batch."""
        return self.decode(self.encode(batch), batch.covariates_out)

    def encode(self, batch: CandiBatch) -> Encoded:
        """Return the latent Z and what else the decoders read."""
        observed = batch.availability == OBSERVED
        state = batch.availability.amax(dim=1)  # (N, T): a lane is missing or masked when all of its bins are
        covariates = self.covariates_in(batch.covariates_in, state)
        values = torch.where(observed, torch.arcsinh(batch.values.float()), 0)
        # the weights of the two flags in the first convolution are the learned missing and masked tokens
        flags = [(batch.availability == kind).to(values.dtype) for kind in (MISSING, MASKED)]
        features = torch.stack([values, *flags], dim=3).permute(0, 2, 3, 1).flatten(1, 2)  # (N, T*3, L)
        skips = []
        for stage in self.signal_tower:
            fine, features = stage(features, covariates)
            skips.append(fine)
        if self.sequence_tower is not None:
            sequence = self.sequence_tower(batch.sequence, len(features), features.shape[2])
            features = torch.cat([features, sequence], dim=1)  # (N, T*W + D_sequence, L')
        latent = self.transformer(self.fusion(features.transpose(1, 2)))
        own, own_known = None, None
        if self.own_counts is not None:
            depth = batch.covariates_in[:, 0, :-1].float()
            own, own_known = self.own_counts(batch.values[..., :-1].float(), observed[..., :-1], depth)
        return Encoded(latent, skips, own, own_known)

    def decode(self, encoded: Encoded, covariates_out: Tensor) -> CandiOutput:
        """Return the distributions at the requested covariates (N, 4, A)."""
        latent, skips = encoded.latent, encoded.skips
        n_assays = len(self.config.assays)
        requested = torch.full(covariates_out.shape[::2], OBSERVED, device=latent.device)  # (N, A)
        covariates = self.covariates_out(covariates_out, requested)
        features = self.latent_projection(latent).transpose(1, 2)  # (N, A*W, L')
        widths = self.config.signal_widths
        # decoders see the fine features of the assays' own lanes; the control is the last lane
        own = [fine[:, : n_assays * width] for fine, width in zip(skips, widths, strict=True)]
        extra = None
        if encoded.own is not None and encoded.own_known is not None:
            extra = torch.where(encoded.own_known, encoded.own / _LOG_RATE_SCALE, 0).permute(0, 3, 1, 2)  # (N, A, K, L)
        log_mean, log_dispersion, *mixing = self.count_decoder(features, own, covariates, extra).unbind(dim=1)
        if encoded.own is not None and encoded.own_known is not None:
            log_mean = _mix(log_mean, mixing, encoded.own, encoded.own_known)
        signal_mean, signal_spread = self.signal_decoder(features, own, covariates).unbind(dim=1)
        (peak_logit,) = self.peak_decoder(features, own, covariates).unbind(dim=1)
        if self.config.depth_offset:
            depth = covariates_out[:, None, 0].float() - DEPTH_CENTRE  # (N, 1, A)
            log_mean = log_mean + math.log(2) * depth.nan_to_num(0.0)
        return CandiOutput(
            log_mean.clamp(-LOG_MEAN_LIMIT, LOG_MEAN_LIMIT),
            log_dispersion.clamp(*LOG_DISPERSION_LIMITS),
            F.softplus(signal_mean),
            SD_FLOOR + F.softplus(signal_spread),
            peak_logit,
        )


def _mix(log_rate: Tensor, mixing: list[Tensor], own: Tensor, own_known: Tensor) -> Tensor:
    """Return the log of a weighted mean of the inferred rate and the kernels' rates, times a learned factor.

    The factor is one for a window and assay (what another read length or run type does to counts): a factor of its own
    for each bin would let errors of shape into the highest peaks.

    mixing : the log of that factor, then K + 1 weights before their softmax; each (N, L, A)
    """
    log_factor, *weights = mixing
    usable = F.pad(own_known, (0, 0, 0, 0, 1, 0), value=True)  # (N, K + 1, L, A): the inferred rate always is
    log_weights = torch.stack(weights, dim=1).masked_fill(~usable, -torch.inf).log_softmax(dim=1)
    rates = torch.cat([log_rate[:, None], own], dim=1)
    return torch.logsumexp(log_weights + rates, dim=1) + log_factor.mean(dim=1, keepdim=True)
