"""The parts of the CANDI network: covariates, signal tower, DNA tower, decoders, heads.

Shapes: N windows, L bins, A assays, T = A + 1 lanes (the ChIP control is the last), G = L * resolution bases,
W channels of a lane, M covariate width, D decoders, L' = L / 8 latent positions.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candi_cli.covariates import MASKED as MASKED_TOKEN
from candi_cli.covariates import MISSING as MISSING_TOKEN
from candi_cli.covariates import PLATFORMS, RUN_TYPES
from candi_cli.covariates import UNKNOWN as UNKNOWN_TOKEN
from candi_cli.model.candi.config import MASKED, NO_SEQUENCE, OBSERVED, SEQUENCE_POOLS, SIGNAL_POOL, Config
from candi_cli.model.candi.lanes import Condition, LaneConv, LaneDeconv, normalise_lanes
from candi_cli.model.candi.products import PositionConv, maximum

DEPTH_CENTRE, _DEPTH_SCALE = 23.0, 3.0  # log2 reads per Gb: 8 M reads per Gb, about 25 M on a human genome
_LENGTH_CENTRE, _LENGTH_SCALE = 5.6, 1.0  # log2 bp
_N_BASE = 4  # a base code: A, C, G, T, N = 0..4
HEAD_WIDTH = 16


def above_centre(log2_depth: Tensor) -> Tensor:
    """Return by how much log2 depths are above the one that rates are compared at; 0 where a depth is not known."""
    return (log2_depth - DEPTH_CENTRE).nan_to_num(0.0)


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


class Steering(nn.Module):
    """The log of a factor of an assay's mean count that the requested covariates set; it starts at 0.

    Linear in the embedded covariates, and in log depth with a slope that is learned: through features alone, a network
    is slow to learn that twice the reads are twice the counts.
    """

    def __init__(self, covariate_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(covariate_width, 1)
        self.slope = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, covariates: Tensor, log2_depth: Tensor) -> Tensor:
        """covariates: (N, A, M); log2_depth: (N, A), NaN where not known; returns (N, A, 1)."""
        depth = math.log(2) * above_centre(log2_depth)
        return self.linear(covariates) + self.slope * depth[..., None]


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
            features = F.gelu(maximum(conv(features).unflatten(1, (-1, pool))))
        has_sequence = codes[:, :1] != NO_SEQUENCE  # (N, 1)
        return torch.where(has_sequence[..., None], features, self.missing.to(features.dtype))

    def table(self) -> Tensor:
        """Return what the first stage makes of each 4-mer around a pair of bases: (625, W)."""
        return F.gelu(maximum(self.first.of_neighbours(self.words)))  # (625, 2, 12) -> (625, 2, W) -> (625, W)


def words_at(codes: Tensor) -> Tensor:
    """Return the number of the 4-mer around each pair of bases: (N, G) to (N, G/2); outside of the window is N."""
    padded = F.pad(codes.clamp(max=_N_BASE), (1, 1), value=_N_BASE).int()
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
