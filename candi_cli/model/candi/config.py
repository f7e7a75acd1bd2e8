"""The size and shape of a CANDI network: the paper's, and ours."""

from dataclasses import dataclass, replace
from typing import Any

PRESETS = ("paper", "base", "tiny")
INPUTS = ("counts", "signal")
MISSING, MASKED, OBSERVED = 0, 1, 2  # the states of an input entry
NO_SEQUENCE = 5  # the base code of a window whose DNA is not known; A, C, G, T, N = 0..4
SIGNAL_POOL = 2
SEQUENCE_POOLS = (2, 2, 2, 5, 5)


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
    """

    assays: tuple[str, ...]
    resolution: int = 25
    context_bins: int = 1200
    flank_bins: int = 150
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
    def core_bins(self) -> int:
        """Bins of a window whose prediction is kept."""
        return self.context_bins - 2 * self.flank_bins


def preset(
    name: str,
    assays: tuple[str, ...],
    *,
    resolution: int,
    reads_sequence: bool,
    input: str = "counts",
    reads_reference: bool = False,
) -> Config:
    """Return the configuration of a named size: `paper`, `base` or `tiny`.

    `paper` is the text (Methods, "CANDI Architecture" and "Model Hyperparameters"): three stages with an expansion
    factor of 3, so that d_model = 27 (A + 1), five DNA stages up to d_model, four transformer layers of nine heads.
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
    elif name == "tiny":
        sizes = {
            "context_bins": 240, "flank_bins": 40, "signal_widths": (4, 4, 4), "decoder_widths": (4, 4, 4),
            "sequence_widths": (8, 8, 16, 16, 32), "covariate_width": 16, "d_model": 32, "n_sab": 1, "n_head": 2,
            "dim_head": 32, "cross_width": 16,
        }  # fmt: skip
    config = Config(assays, resolution, input=input, reads_reference=reads_reference, **sizes)
    return config if reads_sequence else replace(config, sequence_widths=())
