"""The size and shape of a CANDI network: the paper's, and ours."""

from dataclasses import dataclass, fields
from itertools import pairwise
from math import prod
from typing import Any

from candi_cli.model.checkpoint import check_file_name
from candi_cli.model.values import is_number, is_whole, shorten

PRESETS = ("paper", "base", "small", "tiny")
INPUTS = ("counts", "signal")
N_LEVELS = 200  # of the quantiles of an assay's typical signal
MISSING, MASKED, OBSERVED = 0, 1, 2  # the states of an input entry
NO_SEQUENCE = 5  # the base code of a window whose DNA is not known; A, C, G, T, N = 0..4
SIGNAL_POOL = 2
SEQUENCE_POOLS = (2, 2, 2, 5, 5)
_MOST_ASSAYS = 100_000
_MOST_STAGES = 16
_LIMITS = {  # far beyond any use, and still nothing that a computer would choke on; widths are those of each stage
    "resolution": (1, 10**9), "context_bins": (1, 100_000), "flank_bins": (0, 50_000),
    "signal_widths": (1, 100_000), "sequence_widths": (1, 100_000), "decoder_widths": (1, 100_000),
    "covariate_width": (1, 100_000), "d_model": (1, 100_000), "n_sab": (1, 256), "n_head": (1, 1000),
    "dim_head": (1, 10_000), "smoothing_levels": (0, 16), "cross_width": (0, 100_000),
}  # fmt: skip
LARGEST_SIGNAL = 24.0  # arcsinh(-log10 p), beyond any p-value
_LARGEST_DEPTH = 1000.0  # log2 reads per Gb


@dataclass(frozen=True)
class Config:
    """The size and shape of a network; travels in the model file.

    Attributes
    ----------
    assays : names in lane order; the control is not one of them
    context_bins, flank_bins : bins seen at once, and those of them at each side whose prediction is not kept
    input : what the lanes hold: `counts` (reads per bin) or `signal` (-log10 p); a network that reads signal has no
        count distribution
    reads_reference : the lanes also hold the mean signal of other biosamples
    signal_widths, decoder_widths : channels of a lane after each stage of the signal tower and of a decoder
    sequence_widths : channels after each stage of the DNA tower; empty for a network that reads no sequence
    attends : the covariates of a lane also query its features (the paper's metadata cross-attention)
    lane_skips : decoders also see the signal tower's features of their own lane at each resolution
    lane_norm : normalise a lane's features over its channels and the window after each convolution
    normalised_start : training starts with every convolution's channels normalised over the first windows
    shared_decoder : one decoder for all outputs instead of one for each
    shared_head : one output head for all assays instead of a linear layer that mixes them
    smoothing_levels : widths of kernels through which a lane's own counts (and the reference) reach the mean of its
        distribution directly, 2^level bins or so; 0 for none
    cross_width : hidden channels of a small network that sees all lanes, smoothed, at each bin: what the tracks of a
        biosample share at full resolution; 0 for none
    steers : the requested covariates also set a factor of an assay's mean count directly, not only its features
    depth_offset : the count mean is proportional to the requested depth, beside what is learned of it
    depth_range : log2 reads per Gb that training covered; depths outside are embedded as its ends
    typical_signal : quantiles of arcsinh(-log10 p) at `matching.LEVELS` of each assay in turn, that every track is
        matched to before it is read; none to read tracks as they are
    """

    assays: tuple[str, ...]
    resolution: int = 25
    context_bins: int = 1200
    flank_bins: int = 152
    input: str = "counts"
    reads_reference: bool = False
    signal_widths: tuple[int, ...] = (8, 8, 8)
    sequence_widths: tuple[int, ...] = (16, 24, 32, 64, 128)
    decoder_widths: tuple[int, ...] = (8, 8, 8)
    covariate_width: int = 32
    d_model: int = 192
    n_sab: int = 2
    n_head: int = 4
    dim_head: int = 64
    dropout: float = 0.1
    attends: bool = False
    lane_skips: bool = True
    lane_norm: bool = False
    normalised_start: bool = False
    shared_decoder: bool = True
    shared_head: bool = True
    smoothing_levels: int = 6
    cross_width: int = 128
    steers: bool = True
    depth_offset: bool = True
    depth_range: tuple[float, float] = (10.0, 33.0)
    typical_signal: tuple[float, ...] = ()

    @property
    def reads_sequence(self) -> bool:
        """Whether the network has a DNA tower."""
        return bool(self.sequence_widths)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The distributions that the network predicts."""
        return ("counts", "signal", "peaks") if self.input == "counts" else ("signal", "peaks")

    @property
    def decoders(self) -> tuple[tuple[str, ...], ...]:
        """The outputs of each decoder."""
        return (self.outputs,) if self.shared_decoder else tuple((output,) for output in self.outputs)

    @property
    def latent_bins(self) -> int:
        """Bins of one position of the latent."""
        return SIGNAL_POOL ** len(self.signal_widths)

    @property
    def core_bins(self) -> int:
        """Bins of a window whose prediction is kept."""
        return self.context_bins - 2 * self.flank_bins

    def check(self) -> None:
        """Raise ValueError, with a fact, for a configuration that no network can have or no computer can hold."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type is bool and not isinstance(value, bool):
                raise ValueError(f"{each.name} is {shorten(value)}, not true or false")
            if each.name in _LIMITS:
                _check_limits(each.name, value, several=each.type is not int)
        if not isinstance(self.assays, tuple) or not 0 < len(self.assays) <= _MOST_ASSAYS:
            raise ValueError(f"assays are {shorten(self.assays)}, not a list of 1 to {_MOST_ASSAYS:,} names")
        for assay in self.assays:
            check_file_name(assay)
        if len(set(self.assays)) < len(self.assays):
            raise ValueError("an assay is named twice")
        if self.input not in INPUTS:
            raise ValueError(f"input is {shorten(self.input)}, not one of {', '.join(INPUTS)}")
        if not is_number(self.dropout, 0, 1):
            raise ValueError(f"dropout is {shorten(self.dropout)}, not a number from 0 to 1")
        depths = self.depth_range
        if (
            not isinstance(depths, tuple)
            or len(depths) != 2
            or not all(map(_is_depth, depths))
            or depths[0] > depths[1]
        ):
            raise ValueError(f"depth_range is {shorten(depths)}, not two numbers in order")
        self._check_typical()
        self._check_lengths()

    def _check_typical(self) -> None:
        """Raise ValueError unless the typical signal is as many numbers as the assays need, each assay's rising."""
        numbers = self.typical_signal
        if not isinstance(numbers, tuple) or not all(is_number(each, 0, LARGEST_SIGNAL) for each in numbers):
            raise ValueError(f"typical_signal is {shorten(numbers)}, not numbers from 0 to {LARGEST_SIGNAL:g}")
        if numbers and (self.input != "signal" or len(numbers) != len(self.assays) * N_LEVELS):
            raise ValueError(f"typical_signal has {len(numbers)} numbers, not {N_LEVELS} of each assay's signal")
        for first in range(0, len(numbers), N_LEVELS):
            here = numbers[first : first + N_LEVELS]
            if any(after < before for before, after in pairwise(here)):
                raise ValueError("typical_signal falls")

    def _check_lengths(self) -> None:
        """Raise ValueError unless windows have a core, and the towers and decoders meet at the same positions."""
        if self.core_bins < 1:
            raise ValueError(f"flank_bins is {self.flank_bins}, which leaves nothing of {self.context_bins} bins")
        n_stages = len(self.signal_widths)
        if not 0 < n_stages <= _MOST_STAGES or len(self.decoder_widths) != n_stages:
            raise ValueError(
                f"{n_stages} signal_widths and {len(self.decoder_widths)} decoder_widths do not go together"
            )
        if self.context_bins % self.latent_bins:
            raise ValueError(f"context_bins is {self.context_bins}, not a multiple of {self.latent_bins}")
        if self.sequence_widths and len(self.sequence_widths) != len(SEQUENCE_POOLS):
            raise ValueError(f"{len(self.sequence_widths)} sequence_widths, not {len(SEQUENCE_POOLS)}")
        if self.sequence_widths and self.latent_bins * self.resolution != prod(SEQUENCE_POOLS):
            raise ValueError(f"resolution is {self.resolution}, which a network that reads DNA cannot have")


def _check_limits(name: str, value: Any, *, several: bool) -> None:
    low, high = _LIMITS[name]
    numbers = value if several else (value,)
    if not isinstance(numbers, tuple) or not all(is_whole(number, low, high) for number in numbers):
        wanted = "whole numbers" if several else "a whole number"
        raise ValueError(f"{name} is {shorten(value)}, not {wanted} from {low} to {high:,}")


def _is_depth(value: object) -> bool:
    return is_number(value, -_LARGEST_DEPTH, _LARGEST_DEPTH)


def preset(
    name: str,
    assays: tuple[str, ...],
    *,
    resolution: int,
    reads_sequence: bool,
    input: str = "counts",
    reads_reference: bool = False,
) -> Config:
    """Return the configuration of a named size: `paper`, `base`, `small` or `tiny`.

    `paper` is the text (Methods, "CANDI Architecture" and "Model Hyperparameters"): three stages with an expansion
    factor of 3, so that d_model = 27 (A + 1), five DNA stages up to d_model, four transformer layers of nine heads.
    `small` has a tenth of the weights of `base`, for a few tens of Mb, and `tiny` is for trying things out.
    """
    sizes: dict[str, Any] = {}
    if name == "paper":
        d_model = 27 * (len(assays) + 1)
        sizes = {
            "signal_widths": (3, 9, 27), "sequence_widths": (12, 36, 108, 324, d_model), "decoder_widths": (9, 3, 1),
            "d_model": d_model, "n_sab": 4, "n_head": 9, "attends": True, "lane_skips": False, "normalised_start": True,
            "shared_decoder": False, "shared_head": False, "smoothing_levels": 0,
            "cross_width": 0, "steers": False, "depth_offset": False,
        }  # fmt: skip
    elif name == "small":
        sizes = {
            "signal_widths": (4, 4, 4), "decoder_widths": (4, 4, 4), "sequence_widths": (8, 12, 16, 32, 64),
            "d_model": 64, "n_sab": 1, "n_head": 2, "dim_head": 32,
        }  # fmt: skip
    elif name == "tiny":
        sizes = {
            "context_bins": 240, "flank_bins": 40, "signal_widths": (4, 4, 4), "decoder_widths": (4, 4, 4),
            "sequence_widths": (8, 8, 16, 16, 32), "covariate_width": 16, "d_model": 32, "n_sab": 1, "n_head": 2,
            "dim_head": 32, "cross_width": 16,
        }  # fmt: skip
    if not reads_sequence:
        sizes["sequence_widths"] = ()
    config = Config(assays, resolution, input=input, reads_reference=reads_reference, **sizes)
    config.check()
    return config
