"""The CANDI network (paper, Methods, "CANDI Architecture"): encoder over tracks and DNA, three decoders.

Shapes: N windows, L bins, A assays, T = A + 1 lanes (the ChIP control is the last), G = L * resolution bases,
W channels of a lane, M covariate width, D decoders (one an output), L' = L / 8 latent positions.

A lane is one track's own channels; lanes only meet in the fusion and the transformer (`lanes.py`). Where the paper's
text is open, metadata has a direct path to the output, missing, masked and zero are different inputs, and no
normalisation uses batch statistics, so that a prediction does not depend on what else is in the batch: where the text
has batch normalisation, which is an affine map once a network predicts, the convolution's own weights are that map.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from x_transformers import Encoder as TransformerEncoder

from candi_cli.model.candi.blocks import (
    DEPTH_CENTRE,
    CovariateEmbedding,
    CrossLanes,
    Decoders,
    Head,
    SequenceTower,
    SignalStage,
    Steering,
    above_centre,
)
from candi_cli.model.candi.config import MASKED, MISSING, NO_SEQUENCE, OBSERVED, Config
from candi_cli.model.candi.lanes import to_rows
from candi_cli.model.candi.likelihood import LOG_DISPERSION_LIMITS, LOG_MEAN_LIMIT, SD_FLOOR, soft_clamp
from candi_cli.model.candi.products import AlignedLinear, align
from candi_cli.model.candi.smoothing import mix, smooth
from candi_cli.model.candi.transform import signal_transform

__all__ = [
    "DEPTH_CENTRE", "MASKED", "MISSING", "NO_SEQUENCE", "OBSERVED", "CandiBatch", "CandiOutput", "Encoded", "Network",
]  # fmt: skip

_LOG_RATE_SCALE = 3.0
_RATE_FLOOR = 1e-4  # counts per bin
_FACTOR_REACH = 64  # bins


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
        self.steering = Steering(config.covariate_width) if config.steers and "counts" in config.outputs else None
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
        if self.steering is not None:
            log_mean = log_mean + self.steering(covariates, asked[:, 0])
        log_mean = log_mean.clamp(-LOG_MEAN_LIMIT, LOG_MEAN_LIMIT)
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
            depth = above_centre(batch.covariates_in[:, 0, :, None])  # (N, T, 1)
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

        With own counts to mix in, the mean is their mixture with the inferred rate, times a factor that changes slowly
        along the genome: one for each bin would let errors of shape into the highest peaks, and one for a window would
        make a step where two windows meet.
        """
        log_mean = soft_clamp(values[0], -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT)
        log_dispersion = soft_clamp(values[1], *LOG_DISPERSION_LIMITS)
        if own is not None:
            log_mean = own.mixed(log_mean.exp(), values).log() + _locally(values[2])
        if self.config.depth_offset:
            log_mean = log_mean + math.log(2) * above_centre(asked[:, 0, :, None])  # (N, A, 1)
        return log_mean, log_dispersion


class Candidates(NamedTuple):
    """Smoothed tracks that a mean may be made of, where they are known, and as features; (K, N, T, L) each."""

    smoothed: Tensor
    known: Tensor
    features: Tensor

    def mixed(self, inferred: Tensor, values: Tensor) -> Tensor:
        """Return the mixture with an inferred value (N, A, L), by the scores after a head's first three values."""
        n_assays = inferred.shape[1]
        return mix(inferred, self.smoothed[:, :, :n_assays], values[3:], self.known[:, :, :n_assays])


def _locally(values: Tensor) -> Tensor:
    """Return the mean over the bins around each one, of those that are inside of the window: (N, A, L)."""
    length = values.shape[-1]
    sums = F.pad(values.cumsum(dim=-1), (1, 0))
    bins = torch.arange(length, device=values.device)
    first, after = (bins - _FACTOR_REACH).clamp(min=0), (bins + _FACTOR_REACH + 1).clamp(max=length)
    return (sums[..., after] - sums[..., first]) / (after - first)


def _reference(batch: CandiBatch) -> Tensor:
    """Return the reference of each assay, (N, L, A), NaN throughout when the batch has none."""
    if batch.reference is None:
        return torch.full_like(batch.values[..., :-1], torch.nan, dtype=torch.float32)
    return batch.reference
