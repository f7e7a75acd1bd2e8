"""The CANDI network (paper, Methods, "CANDI Architecture"): encoder over tracks and DNA, three decoders.

Shapes: N windows, L bins, A assays, T = A + 1 lanes (the ChIP control is the last), G = L * resolution bases,
W channels of a lane, M covariate width, D decoders (one an output), L' = L / 8 latent positions.

A lane is one track's own channels; lanes only meet in the fusion and the transformer (`lanes.py`). Where the paper's
text is open, metadata has a direct path to the output, missing, masked and zero are different inputs, and no
normalisation uses batch statistics, so that a prediction does not depend on what else is in the batch: where the text
has batch normalisation, which is an affine map once a network predicts, the convolution's own weights are that map.
"""

import math
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from x_transformers import Encoder as TransformerEncoder

from candi_cli.covariates import MASKED as MASKED_TOKEN
from candi_cli.covariates import MISSING as MISSING_TOKEN
from candi_cli.covariates import PLATFORMS, RUN_TYPES
from candi_cli.covariates import UNKNOWN as UNKNOWN_TOKEN
from candi_cli.model.candi.config import SEQUENCE_POOLS, SIGNAL_POOL, Config
from candi_cli.model.candi.lanes import (
    Condition,
    LaneConv,
    LaneDeconv,
    normalise_lanes,
    to_rows,
)
from candi_cli.model.candi.likelihood import LOG_DISPERSION_LIMITS, LOG_MEAN_LIMIT, SD_FLOOR, soft_clamp
from candi_cli.model.candi.products import AlignedLinear, PositionConv, align
from candi_cli.model.candi.smoothing import mix, smooth
from candi_cli.model.candi.transform import signal_transform

MISSING, MASKED, OBSERVED = 0, 1, 2  # the states of an input entry
NO_SEQUENCE = 5  # a base code: A, C, G, T, N = 0..4
N_BASE = 4
DEPTH_CENTRE, _DEPTH_SCALE = 23.0, 3.0  # log2 reads per Gb: 8 M reads per Gb, about 25 M on a human genome
_LENGTH_CENTRE, _LENGTH_SCALE = 5.6, 1.0  # log2 bp
_LOG_RATE_SCALE = 3.0
_RATE_FLOOR = 1e-4  # counts per bin
HEAD_WIDTH = 16


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

    Counts are negative binomial (logs of mean and dispersion), arcsinh(-log10 p) is Gaussian, peaks are Bernoulli. A
    network that reads signal has no count distribution.
    """

    count_log_mean: Tensor | None
    count_log_dispersion: Tensor | None
    signal_mean: Tensor
    signal_sd: Tensor
    peak_logit: Tensor

    def track(self, name: str) -> Tensor:
        """Return what a track shows: expected counts, median -log10 p, or peak probability; (N, L, A)."""
        if name == "counts" and self.count_log_mean is not None:
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


class SignalStage(nn.Module):
    """Convolution of each lane with kernel 3, GELU, average pooling by 2, then the covariates."""

    def __init__(self, config: Config, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm, self.skipped = config.lane_norm, config.lane_skips
        self.conv = LaneConv(len(config.assays) + 1, width_in, width_out)
        self.condition = Condition(1, config.covariate_width, width_out, attends=config.attends)

    def forward(self, features: Tensor, covariates: Tensor) -> tuple[Tensor, Tensor]:
        """features: (N, T, L, I); returns them pooled (N, T, L/2, O), and at their resolution (N, T, L, O)."""
        fine = self.conv(features)
        fine = F.gelu(normalise_lanes(fine) if self.norm else fine)
        pooled = sum(fine.unflatten(2, (-1, SIGNAL_POOL)).unbind(dim=3)) / SIGNAL_POOL
        scale, shift = (each.squeeze(1) for each in self.condition(pooled[:, None], covariates))
        return torch.addcmul(shift, pooled, scale), torch.addcmul(shift, fine, scale) if self.skipped else fine


class SequenceTower(nn.Module):
    """DNA at base resolution down to the latent's: five convolutions of kernel 3, each with a maximum pool and a GELU.

    The first of them sees four bases of five kinds at a time, so it is a table of 625 rows that is computed from the
    weights and looked up; its gradient flows to the weights through the table. Pooling comes before the GELU, where the
    paper's text leaves the order open: it has fewer values to bend.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = PositionConv(4, widths[0])
        self.convs = nn.ModuleList(PositionConv(*each) for each in pairwise(widths))
        self.missing = nn.Parameter(torch.zeros(widths[-1]))
        digits = torch.cartesian_prod(*[torch.arange(5)] * 4)  # every 4-mer, (625, 4)
        bases = F.one_hot(digits, 5)[..., :4].to(torch.get_default_dtype())  # N is no base: zeros
        self.words: Tensor
        self.register_buffer("words", torch.stack([bases[:, :3], bases[:, 1:]], dim=1).flatten(2), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (N, G); returns (N, L', D_sequence), the missing token where a window has no sequence."""
        features = F.embedding(words_at(codes), self.table())  # (N, G/2, W)
        for conv, pool in zip(self.convs, SEQUENCE_POOLS[1:], strict=True):
            features = F.gelu(_maximum(conv(features).unflatten(1, (-1, pool))))
        has_sequence = codes[:, :1] != NO_SEQUENCE  # (N, 1)
        return torch.where(has_sequence[..., None], features, self.missing.to(features.dtype))

    def table(self) -> Tensor:
        """Return what the first stage makes of each 4-mer around a pair of bases: (625, W)."""
        return F.gelu(_maximum(self.first.of_neighbours(self.words)))  # (625, 2, 12) -> (625, 2, W) -> (625, W)


def _maximum(values: Tensor) -> Tensor:
    """Return the maximum over the last axis but one; its gradient is one pass, unlike that of `amax`."""
    return reduce(torch.maximum, values.unbind(dim=-2))


def words_at(codes: Tensor) -> Tensor:
    """Return the number of the 4-mer around each pair of bases: (N, G) to (N, G/2); outside of the window is N."""
    padded = F.pad(codes.clamp(max=N_BASE), (1, 1), value=N_BASE).int()
    one, two, three, four = padded[:, :-3:2], padded[:, 1:-2:2], padded[:, 2:-1:2], padded[:, 3::2]
    return ((one * 5 + two) * 5 + three) * 5 + four


class Decoders(nn.Module):
    """Latent to lanes at full resolution, a tower for each output or one for all, computed side by side.

    Three transposed convolutions, each followed by GELU and the requested covariates.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        n_decoders, n_assays = len(config.decoders), len(config.assays)
        widths_in = (config.signal_widths[-1], *config.decoder_widths[:-1])
        self.n_decoders, self.norm = n_decoders, config.lane_norm
        self.ups, self.skips, self.conditions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage, (width_in, width_out) in enumerate(zip(widths_in, config.decoder_widths, strict=True)):
            self.ups.append(LaneDeconv(n_decoders, n_assays, width_in, width_out, shared_input=stage == 0))
            if config.lane_skips:
                self.skips.append(LaneConv(n_assays, config.signal_widths[-1 - stage], n_decoders * width_out))
            self.conditions.append(Condition(n_decoders, config.covariate_width, width_out, attends=config.attends))

    def forward(self, latent: Tensor, skips: list[Tensor], covariates: Tensor) -> Tensor:
        """latent: (N, A, L', W); skips: each signal stage's fine features; returns (N, D, A, L, W)."""
        features = latent[:, None]
        for stage, (up, condition) in enumerate(zip(self.ups, self.conditions, strict=True)):
            features = up(features)  # (N, D, A, 2L, W)
            if self.skips:
                own = self.skips[stage](skips[-1 - stage][:, : features.shape[2]])  # the control is the last lane
                features = features + own.unflatten(3, (self.n_decoders, -1)).movedim(3, 1)
            features = F.gelu(normalise_lanes(features) if self.norm else features)
            scale, shift = condition(features, covariates)
            features = torch.addcmul(shift, features, scale)
        return features


class Head(nn.Module):
    """A decoder's lanes to distribution parameters, by one small network for all assays or by a layer that mixes them.

    Parameters
    ----------
    n_outputs : values of each output by name
    n_extra : channels that a lane has beside the decoder's
    """

    def __init__(self, config: Config, n_outputs: dict[str, int], n_extra: int) -> None:
        super().__init__()
        width, n_assays, total = config.decoder_widths[-1] + n_extra, len(config.assays), sum(n_outputs.values())
        self.n_outputs, self.shared = n_outputs, config.shared_head
        if self.shared:
            self.hidden = nn.Linear(width, HEAD_WIDTH)
            self.out = nn.Linear(HEAD_WIDTH, total)
        else:
            self.out = nn.Linear(n_assays * width, total * n_assays)
        self.bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(n, n_assays)) for name, n in n_outputs.items()})

    def forward(self, lanes: Tensor, extra: list[Tensor]) -> dict[str, Tensor]:
        """lanes: (N, A, L, W); extra: each (K, N, A, L); returns (n_outputs, N, A, L) for each output, float32."""
        with torch.autocast(lanes.device.type, enabled=False):
            values = (self._shared if self.shared else self._mixing)(lanes.to(self.out.weight.dtype), extra)
            parts = values.split(list(self.n_outputs.values()))
            biases = (self.bias[name][:, None, :, None] for name in self.n_outputs)
            return {name: part + bias for name, part, bias in zip(self.n_outputs, parts, biases, strict=True)}

    def _shared(self, lanes: Tensor, extra: list[Tensor]) -> Tensor:
        rows = [lanes.flatten(0, 2).T, *(each.flatten(1) for each in extra)]  # (W, N*A*L), (K, N*A*L)
        weights = self.hidden.weight.split([len(row) for row in rows], dim=1)
        hidden = weights[0] @ rows[0]  # (H, N*A*L)
        for weight, row in zip(weights[1:], rows[1:], strict=True):
            hidden.addmm_(weight, row)
        values = self.out.weight @ F.gelu(hidden.add_(self.hidden.bias[:, None]))
        return values.add_(self.out.bias[:, None]).unflatten(1, lanes.shape[:3])

    def _mixing(self, lanes: Tensor, extra: list[Tensor]) -> Tensor:
        lanes = torch.cat([lanes, *(each.movedim(0, -1) for each in extra)], dim=-1)
        mixed = self.out(lanes.transpose(1, 2).flatten(2))  # (N, L, n_outputs*A)
        return mixed.unflatten(2, (-1, lanes.shape[1])).permute(2, 0, 3, 1)


class CrossLanes(nn.Module):
    """A small network over all lanes at each bin, beside the decoders: their lanes have met at 200 bp only.

    What it gives is added to the heads' values; it starts at 0.
    """

    def __init__(self, config: Config, n_features: int, n_outputs: dict[str, int]) -> None:
        super().__init__()
        self.n_assays, self.n_outputs = len(config.assays), n_outputs
        self.hidden = nn.Linear(n_features, config.cross_width)
        self.deeper = nn.Linear(config.cross_width, config.cross_width)
        self.out = nn.Linear(config.cross_width, sum(n_outputs.values()) * self.n_assays)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tracks: list[Tensor]) -> dict[str, Tensor]:
        """tracks: each (K, N, T, L); returns (n_outputs, N, A, L) for each output."""
        rows = [each.movedim(0, 1).flatten(1, 2).to(self.out.weight.dtype) for each in tracks]  # (N, K*T, L)
        hidden = F.gelu(
            _at_each_bin(self.deeper, F.gelu(_at_each_bin(self.hidden, torch.cat(rows, dim=1))))
        )  # (N, H, L)
        values = _at_each_bin(self.out, hidden).unflatten(1, (-1, self.n_assays)).movedim(1, 0)
        return dict(zip(self.n_outputs, values.split(list(self.n_outputs.values())), strict=True))


def _at_each_bin(linear: nn.Linear, rows: Tensor) -> Tensor:
    """Return a linear layer's values at each bin: (N, I, L) to (N, O, L)."""
    return torch.bmm(linear.weight.expand(len(rows), -1, -1), rows).add_(linear.bias[:, None])


class Encoded(NamedTuple):
    """What the encoder hands to the decoders.

    latent : Z, (N, L', D)
    skips : each signal stage's features before pooling, (N, T, L / 2^stage, W)
    """

    latent: Tensor
    skips: list[Tensor]


class Network(nn.Module):
    """Encoder and decoders; `forward` is `decode` of `encode`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        n_assays = len(config.assays)
        n_lanes = n_assays + 1
        self.covariates_in = CovariateEmbedding(config, n_lanes)
        self.covariates_out = CovariateEmbedding(config, n_assays)
        widths_in = (5 if config.reads_reference else 3, *config.signal_widths[:-1])
        self.signal_tower = nn.ModuleList(
            SignalStage(config, width_in, width_out)
            for width_in, width_out in zip(widths_in, config.signal_widths, strict=True)
        )
        self.sequence_tower = SequenceTower(config.sequence_widths) if config.reads_sequence else None
        fused = n_lanes * config.signal_widths[-1] + (config.sequence_widths[-1] if config.reads_sequence else 0)
        self.fusion = nn.Sequential(AlignedLinear(fused, config.d_model), nn.LayerNorm(config.d_model))
        self.transformer = TransformerEncoder(
            dim=config.d_model, depth=config.n_sab, heads=config.n_head, attn_dim_head=config.dim_head,
            rotary_pos_emb=True, rotary_emb_dim=config.dim_head // 2, ff_mult=4,
            attn_dropout=config.dropout, ff_dropout=config.dropout, attn_flash=True,
        )  # fmt: skip
        align(self.transformer)
        self.latent_projection = AlignedLinear(config.d_model, n_assays * config.signal_widths[-1])
        self.decoders = Decoders(config)
        n_candidates = config.smoothing_levels + 1 if config.smoothing_levels else 0
        n_outputs = {"counts": 2, "signal": 2, "peaks": 1}
        for name in config.outputs:
            if self._mixes(name):  # a factor or residual, and the weights of the mixture
                n_outputs[name] += n_candidates + 2
        self.heads = nn.ModuleList(
            Head(config, {name: n_outputs[name] for name in outputs}, n_candidates * sum(map(self._mixes, outputs)))
            for outputs in config.decoders
        )
        self.cross = None
        if config.cross_width and config.smoothing_levels:
            n_tracks = n_lanes + (n_assays if config.reads_reference else 0)
            n_features = n_tracks * (n_candidates + 1)  # and whether the bin itself is known
            self.cross = CrossLanes(config, n_features, {name: n_outputs[name] for name in config.outputs})

    def output_biases(self) -> dict[str, Tensor]:
        """Return the biases of each output's values, (n_outputs, A); the first is that of its mean or logit."""
        return {name: bias for head in self.heads if isinstance(head, Head) for name, bias in head.bias.items()}

    def _mixes(self, output: str) -> bool:
        config = self.config
        reads = config.input == "counts" if output == "counts" else output == "signal" and config.reads_reference
        return reads and config.smoothing_levels > 0

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights: likelihoods, heads and transforms are computed in it, whatever is in between."""
        return self.covariates_in.lane.dtype

    def forward(self, batch: CandiBatch, sequence_features: Tensor | None = None) -> CandiOutput:
        """Return the predicted distributions of a batch.

        Parameters
        ----------
        sequence_features : of `read_sequence`, for windows whose DNA was read before; default: read it now
        """
        encoded = self.encode(batch, sequence_features)
        return self.decode(encoded, batch)

    def read_sequence(self, codes: Tensor | None, n: int, length: int) -> Tensor:
        """Return the DNA's features (N, L', D_sequence); they serve every sample of the same locus."""
        assert self.sequence_tower is not None
        if codes is None:
            return self.sequence_tower.missing.expand(n, length, -1)
        return self.sequence_tower(codes)

    def encode(self, batch: CandiBatch, sequence_features: Tensor | None = None) -> Encoded:
        """Return the latent Z and what else the decoders read."""
        state = batch.availability.amax(dim=1)  # (N, T): a lane is missing or masked when all of its bins are
        covariates = self.covariates_in(batch.covariates_in, state)
        features = self._lanes(batch)
        skips = []
        for stage in self.signal_tower:
            features, fine = stage(features, covariates)
            skips.append(fine)
        features = to_rows(features)  # (N, L', T*W)
        if self.sequence_tower is not None:
            if sequence_features is None:
                sequence_features = self.read_sequence(batch.sequence, *features.shape[:2])
            features = torch.cat([features, sequence_features.to(features.dtype)], dim=-1)
        return Encoded(self.transformer(self.fusion(features)), skips)

    def _lanes(self, batch: CandiBatch) -> Tensor:
        """Return the first convolution's input, (N, T, L, 3 or 5): value and flags, reference and its flag.

        The weights of the two flags are the learned missing and masked tokens.
        """
        observed = batch.availability == OBSERVED
        values = torch.where(observed, signal_transform(batch.values.to(self.dtype)), 0)
        channels = [values, *((batch.availability == kind).to(values.dtype) for kind in (MISSING, MASKED))]
        if self.config.reads_reference:
            reference = _reference(batch).to(self.dtype)
            known = reference.isfinite()
            channels += [F.pad(each, (0, 1)) for each in (reference.nan_to_num(0.0), known.to(values.dtype))]
        return torch.stack(channels, dim=-1).transpose(1, 2)

    def decode(self, encoded: Encoded, batch: CandiBatch) -> CandiOutput:
        """Return the distributions at the requested covariates (N, 4, A) of the batch."""
        asked = batch.covariates_out
        requested = torch.full(asked.shape[::2], OBSERVED, device=asked.device)  # (N, A)
        covariates = self.covariates_out(asked, requested)
        latent = self.latent_projection(encoded.latent).unflatten(2, (len(self.config.assays), -1))  # (N, L', A, W)
        features = self.decoders(latent.transpose(1, 2), encoded.skips, covariates)  # (N, D, A, L, W)
        candidates = self._candidates(batch) if self.config.smoothing_levels else {}
        values: dict[str, Tensor] = {}
        for head, outputs, lanes in zip(self.heads, self.config.decoders, features.unbind(dim=1), strict=True):
            extra = [candidates[name].features[:, :, : lanes.shape[1]] for name in outputs if self._mixes(name)]
            values |= head(lanes, extra)
        if self.cross is not None:
            tracks = list(candidates.values())
            crossing = self.cross([*(each.features for each in tracks), *(each.known[:1] for each in tracks)])
            values = {name: value + crossing[name] for name, value in values.items()}
        mean, sd = self._signal(values["signal"], candidates.get("signal"))
        peak_logit = values["peaks"][0].mT  # (N, L, A)
        if "counts" not in values:
            return CandiOutput(None, None, mean.mT, sd.mT, peak_logit)
        log_mean, log_dispersion = self._counts(values["counts"], candidates.get("counts"), asked)
        return CandiOutput(log_mean.mT, log_dispersion.mT, mean.mT, sd.mT, peak_logit)

    @torch.no_grad()
    def _candidates(self, batch: CandiBatch) -> dict[str, "Candidates"]:
        """Return smoothed tracks by the output whose mean they may be: all lanes' own (the control too), the reference.

        Counts are as if of a common depth; a network that reads signal looks at its lanes but does not mix them in.
        """
        n_levels = self.config.smoothing_levels
        observed = batch.availability.mT == OBSERVED  # (N, T, L)
        found = {}
        if self.config.input == "counts":
            smoothed, known = smooth(batch.values.mT.to(self.dtype), observed, n_levels)
            depth = (batch.covariates_in[:, 0, :, None] - DEPTH_CENTRE).nan_to_num(0.0)  # (N, T, 1)
            rates = smoothed.add_(_RATE_FLOOR).mul_(torch.exp2(-depth))
            features = rates.log().div_(_LOG_RATE_SCALE).mul_(known)
            found["counts"] = Candidates(rates, known, features)
        else:
            smoothed, known = smooth(signal_transform(batch.values.mT.to(self.dtype)), observed, n_levels)
            found["own signal"] = Candidates(smoothed, known, torch.where(known, smoothed, 0))
        if self.config.reads_reference:
            reference = _reference(batch).to(self.dtype).mT  # (N, A, L)
            smoothed, known = smooth(reference.nan_to_num(0.0), reference.isfinite(), n_levels)
            found["signal"] = Candidates(smoothed, known, torch.where(known, smoothed, 0))
        return found

    def _signal(self, values: Tensor, reference: "Candidates | None") -> tuple[Tensor, Tensor]:
        """Return mean and sd of arcsinh(-log10 p), (N, A, L) each.

        With a reference, the mean is a mixture of an inferred value with the smoothed reference, plus a residual.
        """
        mean, sd = F.softplus(values[0]), SD_FLOOR + F.softplus(values[1])
        return (mean if reference is None else reference.mixed(mean, values) + values[2]), sd

    def _counts(self, values: Tensor, own: "Candidates | None", asked: Tensor) -> tuple[Tensor, Tensor]:
        """Return log mean and log dispersion of the counts, (N, A, L) each.

        With own counts to mix in, the mean is their mixture with the inferred rate, times one factor for a window and
        assay (what another read length or run type does to counts): a factor for each bin would let errors of shape
        into the highest peaks.
        """
        log_mean = soft_clamp(values[0], -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT)
        log_dispersion = soft_clamp(values[1], *LOG_DISPERSION_LIMITS)
        if own is not None:
            log_mean = own.mixed(log_mean.exp(), values).log() + values[2].mean(dim=-1, keepdim=True)
        if self.config.depth_offset:
            depth = asked[:, 0, :, None] - DEPTH_CENTRE  # (N, A, 1)
            log_mean = log_mean + math.log(2) * depth.nan_to_num(0.0)
        return log_mean.clamp(-LOG_MEAN_LIMIT, LOG_MEAN_LIMIT), log_dispersion


class Candidates(NamedTuple):
    """Smoothed tracks that a mean may be made of, where they are known, and as features; (K, N, T, L) each."""

    smoothed: Tensor
    known: Tensor
    features: Tensor

    def mixed(self, inferred: Tensor, values: Tensor) -> Tensor:
        """Return the mixture with an inferred value (N, A, L), by the scores after a head's first three values."""
        n_assays = inferred.shape[1]
        return mix(inferred, self.smoothed[:, :, :n_assays], values[3:], self.known[:, :, :n_assays])


def _reference(batch: CandiBatch) -> Tensor:
    """Return the reference of each assay, (N, L, A), NaN throughout when the batch has none."""
    if batch.reference is None:
        return torch.full_like(batch.values[..., :-1], torch.nan, dtype=torch.float32)
    return batch.reference
