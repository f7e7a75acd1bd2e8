"""Where two windows meet: a network that was never trained, with drawn biases so that its outputs vary.

A short form of `tests/benchmarks/seams.py`, of which the width of the flank comes.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch

from candi_cli.covariates import PLATFORMS, Covariates, encode
from candi_cli.genome import tile
from candi_cli.model.candi.config import preset
from candi_cli.model.candi.network import OBSERVED, CandiBatch, Network

ASSAYS = ("H3K27me3", "H3K4me3")
COVARIATES = Covariates(depth=20e6, read_length=50, run_type="paired-ended", platform=PLATFORMS[5], span_bp=3e9)
BANDS = ((0, 8), (8, 32), (32, 64), (64, 104), (136, 152))  # bins from the nearest end of a window
N_BINS = 5_000


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(1)
    model = Network(preset("base", ASSAYS, resolution=25, reads_sequence=False)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or ".bias." in name:
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def counts() -> torch.Tensor:
    """Reads per bin of a chromosome, the lanes' and the control's, high and low in turn."""
    rng = np.random.default_rng(7)
    wave = 0.5 * np.sin(np.arange(N_BINS)[:, None] / 37 + np.arange(len(ASSAYS) + 1))
    return torch.from_numpy(rng.poisson(np.exp(wave + rng.normal(0, 0.3, wave.shape)))).float()


def predicted(network: Network, counts: torch.Tensor, start: int) -> torch.Tensor:
    """Return what the network says of the window that starts at a bin: (5 parameters, L, A)."""
    values = counts[start : start + network.config.context_bins][None]
    n_lanes = values.shape[2]
    batch = CandiBatch(
        values,
        torch.full(values.shape, OBSERVED, dtype=torch.uint8),
        torch.from_numpy(encode([COVARIATES] * n_lanes))[None],
        torch.from_numpy(encode([COVARIATES] * (n_lanes - 1)))[None],
        None,
    )
    with torch.inference_mode():
        return torch.stack([parameter[0] for parameter in network(batch)])


def disagreement(network: Network, counts: torch.Tensor, *, shifted: int = 0) -> torch.Tensor:
    """Return how far neighbouring windows are from each other, in units of how much a window varies: (5, bands).

    Windows are those that prediction cuts; each bin that two of them see lies in the band of its distance from the
    nearest end of one.

    Parameters
    ----------
    shifted : bins by which every second window is moved
    """
    config = network.config
    starts = [
        window.context_start
        for window in tile(
            "chr1", 0, N_BINS, n_bins=N_BINS, context=config.context_bins, flank=config.flank_bins,
            align=config.latent_bins,
        )
    ]  # fmt: skip
    found = []
    for one, other in pairwise(starts[:-1]):  # the last one is moved inside
        two = other + shifted
        before, after = predicted(network, counts, one), predicted(network, counts, two)
        n = one + config.context_bins - two
        apart = (before[:, -n:] - after[:, :n]).abs() / before.std(dim=1, keepdim=True)
        from_end = torch.minimum(torch.arange(n), torch.arange(n).flip(0))
        found.append([apart[:, (from_end >= low) & (from_end < high)].mean(dim=(1, 2)) for low, high in BANDS])
    return torch.stack([torch.stack(each, dim=1) for each in found]).mean(dim=0)


def test_two_windows_agree_on_a_bin_the_better_the_wider_the_flank(network, counts, one_thread):
    apart = disagreement(network, counts)
    assert (apart[:, 0] > 0.1).all(), "at the end of a window the context is missing"
    assert (apart[:, :4].diff(dim=1) < 0).all()
    assert (apart[:, 3:].amax(dim=1) < 0.01).all()
    assert (apart[:, -1] < 0.01 * apart[:, 0]).all(), "where the flank of the preset ends"


def test_windows_that_do_not_start_on_a_position_of_the_latent_disagree_at_any_flank(network, counts, one_thread):
    whole, half = disagreement(network, counts), disagreement(network, counts, shifted=4)
    assert (half[:, -1] > 10 * whole[:, -1]).all()


@pytest.mark.parametrize("name", ["paper", "base", "tiny"])
def test_the_flank_and_the_core_of_every_preset_are_whole_positions_of_the_latent(name):
    config = preset(name, ASSAYS, resolution=25, reads_sequence=False)
    assert (config.flank_bins % config.latent_bins, config.core_bins % config.latent_bins) == (0, 0)
