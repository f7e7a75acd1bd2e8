"""Does denoising help? K562 reads at half depth in, the independent half of the reads as truth (benchmark row R2).

Run it as `python tests/benchmarks/denoise_real.py [-m MODEL] [--data FOLDER]`. It prints a table for chr1:24.1-24.5 Mb,
which the default model was not trained on.

Truth: reads of dsf1 that are not in dsf2. Duplicate fragments (same start, end and orientation) would put one molecule
into both halves, so a fragment of dsf2 is never truth, and any other is counted once.
Baselines: the raw counts, and the best Gaussian smoothing, its bandwidth chosen on chr1:22.5-24.1 Mb; each from all
reads and from one read a position, which is what the default model reads.
Every method predicts at the depth of the truth, by one factor: the ratio of reads in truth and input.
All but the model, which has its own, get the dispersion that fits their errors on chr1:22.5-24.1 Mb best.
"""

import argparse
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pysam
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom, poisson

from candi_cli.binning import Binning
from candi_cli.commands._experiments import find_given, find_inputs, open_store
from candi_cli.commands._tracks import lane_covariates, prediction_dataset
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import tile
from candi_cli.model import Loaded, load
from candi_cli.model.device import choose
from candi_cli.model.prediction import predict
from candi_cli.model.requests import Asked
from candi_cli.models import default_model

RESOLUTION = 25
FITTED = (22_500_000, 24_100_000)
SCORED = (24_100_000, 24_500_000)
MARKS = ("H3K4me3", "H3K36me3")
BANDWIDTHS_BP = (25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
Array = NDArray[np.float64]


class Reads(NamedTuple):
    """Reads that pass the default filters: where they lie, and which fragment each belongs to."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    fragment: list[tuple[int, int, int]]
    mate: NDArray[np.int64]


def read_bam(path: Path, rule: CountingRule) -> Reads:
    """Read a small BAM with pysam's plain iterator; every read is named "1", so fragments are known by position."""
    rows = []
    with pysam.AlignmentFile(str(path)) as bam:
        for read in bam:
            if read.flag & rule.excl_flags or read.mapping_quality < rule.min_mapq:
                continue
            if read.is_paired and read.template_length:
                first = min(read.reference_start, read.next_reference_start)
                fragment = (first, abs(read.template_length), int(read.is_read1 == (not read.is_reverse)))
            else:
                fragment = (read.reference_start, -1, int(read.is_reverse))
            rows.append((read.reference_start, read.reference_end, fragment, read.is_read2))
    start, end, fragment, mate = zip(*rows, strict=True)
    return Reads(np.array(start), np.array(end), list(fragment), np.array(mate, dtype=np.int64))


def without_duplicates(whole: Reads, used: Collection[tuple[int, int, int]] = ()) -> Reads:
    """Return one read of each mate of the fragments in `whole` that are not in `used`."""
    kept: dict[tuple[tuple[int, int, int], int], int] = {}
    for index, (fragment, mate) in enumerate(zip(whole.fragment, whole.mate.tolist(), strict=True)):
        if fragment not in used:
            kept.setdefault((fragment, mate), index)
    rows = np.array(sorted(kept.values()))
    return Reads(whole.start[rows], whole.end[rows], [whole.fragment[row] for row in rows], whole.mate[rows])


def overlap_counts(reads: Reads, start: int, end: int) -> Array:
    """Count reads over each bin of [start, end): the overlap rule, by the definition."""
    steps = np.zeros((end - start) // RESOLUTION + 1)
    last = len(steps) - 1
    np.add.at(steps, np.clip(reads.start // RESOLUTION - start // RESOLUTION, 0, last), 1)
    np.add.at(steps, np.clip((reads.end - 1) // RESOLUTION + 1 - start // RESOLUTION, 0, last), -1)
    return np.cumsum(steps)[:-1]


class Score(NamedTuple):
    """Scores of one method: Pearson r at 25 and 200 bp, Poisson and negative binomial log-loss per bin in nats."""

    pearson: float
    pearson_200bp: float
    poisson: float
    negative_binomial: float


def score(truth: Array, mean: Array, dispersion: Array | float) -> Score:
    """Score a predicted mean and dispersion against the truth."""
    mean = np.maximum(mean, 1e-6)
    coarse = [values[: len(values) // 8 * 8].reshape(-1, 8).sum(axis=1) for values in (truth, mean)]
    return Score(
        float(np.corrcoef(truth, mean)[0, 1]),
        float(np.corrcoef(*coarse)[0, 1]),
        float(-poisson.logpmf(truth, mean).mean()),
        float(-nbinom.logpmf(truth, dispersion, dispersion / (dispersion + mean)).mean()),
    )


CRITERIA: dict[str, Callable[[Score], float]] = {"Pearson": lambda s: -s.pearson, "log-loss": lambda s: s.poisson}


def best_dispersion(truth: Array, mean: Array) -> float:
    """Return the one dispersion that fits errors best."""
    mean = np.maximum(mean, 1e-6)

    def loss(log_n: float) -> float:
        n = np.exp(log_n)
        return float(-nbinom.logpmf(truth, n, n / (n + mean)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 8), method="bounded").x))


def denoised(model: Loaded, folder: Path, mark: str, depth: float, span: tuple[int, int]) -> tuple[Array, Array]:
    """Return the model's predicted mean and dispersion over a span, at the covariates of the truth."""
    bam, control = folder / "dsf2" / f"K562_{mark}.bam", folder / "dsf2" / "K562_Input.bam"
    with tempfile.TemporaryDirectory() as scratch:
        sheet = Path(scratch) / "sheet.tsv"
        sheet.write_text(f"biosample\tassay\tfile\tcontrol\nK562\t{mark}\t{bam}\t{control}\n")
        inputs = find_inputs(find_given([bam], sheet), Binning(), rule=model.card.counting, genome=None)
        with open_store(inputs, Binning(), command="benchmark", threads=1) as store:
            asked = Asked(None, Covariates(depth=depth, read_length=50, run_type="paired-ended"))
            covariates = lane_covariates(model, store, "K562", [asked])
            dataset = prediction_dataset(model, store, "K562", covariates)
            config, assay = model.config, model.config.assays.index(mark)

            def select(output: Any) -> torch.Tensor:
                both = output.count_log_mean[..., assay], output.count_log_dispersion[..., assay]
                return torch.stack(both, dim=-1).exp()

            windows = tile(
                "chr1", span[0] // RESOLUTION, span[1] // RESOLUTION,
                n_bins=store.n_bins("chr1"), context=config.context_bins, flank=config.flank_bins,
            )  # fmt: skip
            pieces = predict(
                model.network, dataset, windows, select,
                chromsizes=store.chromsizes, resolution=RESOLUTION,
                device=choose("cpu"), batch_size=16, threads=2,
            )  # fmt: skip
            values = np.concatenate([piece for _, piece in pieces]).astype(np.float64)
    return values[:, 0], values[:, 1]


def compare(model: Loaded, folder: Path, mark: str) -> dict[str, Score]:
    """Score the raw counts, Gaussian smoothings and the model for one mark."""
    rule = model.card.counting
    half, whole = (read_bam(folder / depth / f"K562_{mark}.bam", rule) for depth in ("dsf2", "dsf1"))
    truth_reads = without_duplicates(whole, set(half.fragment))
    everywhere = (FITTED[0], SCORED[1])
    truth = overlap_counts(truth_reads, *everywhere)
    split = (FITTED[1] - FITTED[0]) // RESOLUTION
    scores: dict[str, Score] = {}

    def add(name: str, mean: Array) -> None:
        scores[name] = score(truth[split:], mean[split:], best_dispersion(truth[:split], mean[:split]))

    for kind, reads in (("dsf2", half), ("dsf2, deduplicated", without_duplicates(half))):
        factor = len(truth_reads.start) / len(reads.start)
        raw = overlap_counts(reads, *everywhere)
        background = 0.1 * raw[:split].mean()
        add(f"raw counts of {kind}", factor * (raw + background) / 1.1)
        smooth = {bp: factor * gaussian_filter1d(raw, bp / RESOLUTION, mode="nearest") for bp in BANDWIDTHS_BP}
        for criterion, loss in CRITERIA.items():
            bp = min(smooth, key=lambda bp: loss(score(truth[:split], smooth[bp][:split], 1.0)))
            add(f"Gaussian {bp} bp (best {criterion}) of {kind}", smooth[bp])
    mean, dispersion = denoised(model, folder, mark, float(len(truth_reads.start)), everywhere)
    scores["denoised"] = score(truth[split:], mean[split:], dispersion[split:])
    return scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=Path, default=default_model())
    data = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder that holds K562_ChIP_hg19")
    options = parser.parse_args()
    model = load(options.model)
    print(f"{'':58}{'Pearson':>9}{'200 bp':>9}{'Poisson':>9}{'NB':>9}   log-loss in nats per bin")
    for mark in MARKS:
        print(mark)
        for name, row in compare(model, options.data / "K562_ChIP_hg19", mark).items():
            print(f"  {name:56}" + "".join(f"{value:9.4f}" for value in row))


if __name__ == "__main__":
    main()
