"""Impute a histone mark from a cell's other marks and from other cells: benchmark row R1.

Data: -log10 p at 25 bp of four cells x five marks on the ENCODE pilot regions (`roadmap_pilot_hg19`). Pack it once into
one small file, then run, here or where there is a GPU:

    python tests/benchmarks/impute_signal.py --data ../shared/data/roadmap_pilot_hg19 --pack pilot.npz
    python tests/benchmarks/impute_signal.py --data pilot.npz

A `base` network that reads signal, with the mean of the other cells as its reference, learns on chr1-19 of the four
cells to restore marks that are hidden from it. On chr20-22 each (cell, mark) is hidden in turn and predicted from the
cell's other four marks and the other three cells. The tracks to be predicted were therefore among the training targets
on other chromosomes, but never the positions that are scored. Scores are of arcsinh(-log10 p): Pearson, Spearman, mean
squared error and PIT error, beside the mean of the other cells, as in `baseline_mean_of_other_cells_chr20-22.tsv`, with
which the script's own baseline is compared. `--validate` trains without chr11, 16, 18 and 19 and scores these instead.
"""

import argparse
import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cohorts
import numpy as np
import torch
from numpy.typing import NDArray

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.evaluation.baselines import mean_of_others
from candi_cli.evaluation.calibration import pit_error
from candi_cli.evaluation.distributions import gaussian_cdf
from candi_cli.evaluation.metrics import mse, pearson, spearman
from candi_cli.genome import tile
from candi_cli.loci import Loci
from candi_cli.model.candi import (
    Corruption,
    Lanes,
    LossWeights,
    Model,
    PredictionDataset,
    TrainingDataset,
    preset,
)
from candi_cli.model.candi.network import MASKED, CandiBatch
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.device import choose, move, prepare
from candi_cli.model.training import Progress, Schedule, fit
from candi_cli.store import Store

Array = NDArray[Any]
CELLS = ("E003", "E017", "E065", "E116")
MARKS = ("H3K27me3", "H3K36me3", "H3K4me1", "H3K4me3", "H3K9me3")
RESOLUTION, STEP = 25, 0.002  # bp; what arcsinh(-log10 p) was rounded to
TEST_CHROMS, VALIDATION_CHROMS = ("chr20", "chr21", "chr22"), ("chr11", "chr16", "chr18", "chr19")
CORRUPTION = Corruption(mask_assays=1.0, mask_loci=0.0, thin=0.0, drop_covariate=0.0)
BASELINE = "baseline_mean_of_other_cells_chr20-22.tsv"


class Pilot(NamedTuple):
    """The pilot regions: their names, chromosomes and lengths, arcsinh(-log10 p) (bins, cells, marks), and scores.

    baseline : (cells, marks, 3) Pearson, Spearman and MSE of the mean of the other cells on chr20-22, as published
    """

    regions: list[str]
    chroms: list[str]
    n_bins: list[int]
    values: Array
    baseline: Array


def pack(folder: Path, path: Path) -> None:
    """Write the bigWigs of a folder into one file."""
    import pyBigWig

    with (folder / "pilot_layout.tsv").open() as handle:
        layout = list(csv.DictReader(handle, delimiter="\t"))
    values = np.zeros((sum(int(row["n_bins"]) for row in layout), len(CELLS), len(MARKS)), dtype=np.uint16)
    for cell, mark in np.ndindex(len(CELLS), len(MARKS)):
        with pyBigWig.open(str(folder / f"{CELLS[cell]}.{MARKS[mark]}.pilot.neglog10p.hg19.bw")) as track:
            for row in layout:
                first, n, start = (int(row[name]) for name in ("bin_offset", "n_bins", "first_bin_start"))
                found = track.values(row["chrom"], start, start + n * RESOLUTION, numpy=True)[::RESOLUTION]
                values[first : first + n, cell, mark] = np.rint(np.arcsinh(np.nan_to_num(found)) / STEP)
    with (folder / BASELINE).open() as handle:
        rows = {(row["cell"], row["assay"]): row for row in csv.DictReader(handle, delimiter="\t")}
    baseline = [
        [[float(rows[cell, mark][name]) for name in ("pearson", "spearman", "mse")] for mark in MARKS] for cell in CELLS
    ]
    np.savez_compressed(
        path, regions=[row["name"] for row in layout], chroms=[row["chrom"] for row in layout],
        n_bins=[int(row["n_bins"]) for row in layout], values=values, baseline=baseline,
    )  # fmt: skip


def unpack(path: Path) -> Pilot:
    """Read what `pack` wrote."""
    with np.load(path) as packed:
        values = packed["values"].astype(np.float32) * np.float32(STEP)
        return Pilot(
            packed["regions"].tolist(), packed["chroms"].tolist(), packed["n_bins"].tolist(), values,
            packed["baseline"],
        )  # fmt: skip


def write_store(pilot: Pilot, path: Path) -> None:
    """Write the signal as a store in which each region is a chromosome of its own."""
    sizes = {name: n * RESOLUTION for name, n in zip(pilot.regions, pilot.n_bins, strict=True)}
    ends = np.cumsum(pilot.n_bins)
    with Store.create(path, rule=CountingRule(resolution=RESOLUTION), chromsizes=sizes) as store:
        for cell, mark in np.ndindex(len(CELLS), len(MARKS)):
            store.add_experiment(CELLS[cell], MARKS[mark])
            for name, n, end in zip(pilot.regions, pilot.n_bins, ends, strict=True):
                signal = np.sinh(pilot.values[end - n : end, cell, mark])
                store.write(CELLS[cell], MARKS[mark], "signal", name, signal)
                store.write_spans(CELLS[cell], MARKS[mark], name, np.array([[0, n * RESOLUTION]]))
            store.describe(CELLS[cell], MARKS[mark], Covariates())


def regions_of(pilot: Pilot, chroms: tuple[str, ...]) -> list[int]:
    """Return the numbers of the regions on some chromosomes."""
    return [number for number, chrom in enumerate(pilot.chroms) if chrom in chroms]


def train(options: argparse.Namespace, pilot: Pilot, store: Store, kept_out: tuple[str, ...]) -> Model:
    """Train a network on all regions but those of some chromosomes."""
    config = preset(
        "base", MARKS, resolution=RESOLUTION, reads_sequence=False, input="signal", reads_reference=True
    )  # fmt: skip
    flank = options.context // 8
    config = replace(config, context_bins=options.context, flank_bins=flank)
    starts = {
        name: np.array([[0, n - config.context_bins + 1]])
        for name, chrom, n in zip(pilot.regions, pilot.chroms, pilot.n_bins, strict=True)
        if chrom not in kept_out
    }
    members = [Lanes(store, cell, MARKS) for cell in CELLS]
    dataset = TrainingDataset(
        config, [(lanes, Loci(starts)) for lanes in members], corruption=CORRUPTION, batch_size=options.batch_size,
        seed=options.seed, reference=ReferenceAverage(MARKS, members),
    )  # fmt: skip
    dataset.decode()
    model = Model(config, LossWeights(signal=1.0, imputed=1.0, signal_beta=options.signal_beta))
    model.start_at_marginals([dataset.batch(step) for step in range(4)])
    print(f"{cohorts.total(model.parameters()):,} parameters", flush=True)
    clock = cohorts.Stopwatch()

    def show(progress: Progress) -> None:
        print(f"step {progress.step:6} loss {progress.loss:.4f} {clock.seconds():6.0f} s", flush=True)

    schedule = Schedule(steps=options.steps, learning_rate=options.learning_rate, average=options.average)
    batches = dataset.batches(workers=options.workers, pin=choose(options.device).type == "cuda")
    fit(
        model,
        batches,
        schedule,
        device=choose(options.device),
        seed=options.seed,
        report_every=options.report,
        on_step=show,
    )
    print(f"trained {options.steps} steps of {options.batch_size} windows in {clock.seconds():.0f} s", flush=True)
    return model


@torch.inference_mode()
def impute(model: Model, store: Store, cell: int, names: list[str], device: torch.device) -> Array:
    """Return mean and sd of arcsinh(-log10 p) of each mark, hidden in turn, in all bins of some regions: (2, L, A)."""
    config = model.config
    lanes = Lanes(store, CELLS[cell], MARKS)
    reference = ReferenceAverage(MARKS, [Lanes(store, name, MARKS) for name in CELLS])
    dataset = PredictionDataset(
        config, lanes, lanes.covariates(), [Covariates()] * len(MARKS), None, reference
    )  # fmt: skip
    pieces = []
    for name in names:
        n_bins = store.n_bins(name)
        windows = list(tile(name, 0, n_bins, n_bins=n_bins, context=config.context_bins, flank=config.flank_bins))
        for first in range(0, len(windows), cohorts.SCORED_AT_ONCE):
            here = windows[first : first + cohorts.SCORED_AT_ONCE]
            batch = dataset.batch(here)
            columns = [predict_hidden(model, batch, mark, device) for mark in range(len(MARKS))]
            values = np.stack(columns, axis=-1)  # (2, N, L, A)
            for row, window in enumerate(here):
                kept = slice(window.core_start - window.context_start, window.core_end - window.context_start)
                pieces.append(values[:, row, kept])
    return np.concatenate(pieces, axis=1)


def predict_hidden(model: Model, batch: CandiBatch, mark: int, device: torch.device) -> Array:
    """Return mean and sd of one mark after it was hidden: shape (2, N, L)."""
    values, availability = batch.values.clone(), batch.availability.clone()
    values[..., mark], availability[..., mark] = 0, MASKED
    output = model(move(batch._replace(values=values, availability=availability), device))
    return torch.stack([output.signal_mean[..., mark], output.signal_sd[..., mark]]).float().cpu().numpy()


def score(model: Model, pilot: Pilot, store: Store, chroms: tuple[str, ...], device: torch.device) -> Array:
    """Return scores (cells, marks, 8): Pearson, Spearman, MSE, PIT error; then the first three of the mean of others.

    The last is the variance of what was observed.
    """
    model.eval()
    numbers = regions_of(pilot, chroms)
    ends = np.cumsum(pilot.n_bins)
    bins = np.concatenate([np.arange(ends[number] - pilot.n_bins[number], ends[number]) for number in numbers])
    observed = pilot.values[bins]
    scores = np.zeros((len(CELLS), len(MARKS), 8))
    for cell in range(len(CELLS)):
        means, sds = impute(model, store, cell, [pilot.regions[number] for number in numbers], device)
        for mark in range(len(MARKS)):
            truth, mean, sd = observed[:, cell, mark], means[:, mark], sds[:, mark]
            average = mean_of_others(observed[:, :, mark].T)[cell]
            scores[cell, mark] = [
                pearson(truth, mean), spearman(truth, mean), mse(truth, mean), pit_error(gaussian_cdf(truth, mean, sd)),
                pearson(truth, average), spearman(truth, average), mse(truth, average), truth.var(),
            ]  # fmt: skip
    return scores


HEADINGS = ("Pearson", "Spearman", "MSE", "PIT error")


def report(scores: Array) -> None:
    """Print the scores of each mark in the mean over cells, and of each (cell, mark)."""
    print(f"\n{'':18}" + "".join(f"{text:>11}" for text in HEADINGS) + "   mean of others: Pearson, Spearman, MSE")
    rows = [(f"{cell} {mark}", scores[i, j]) for i, cell in enumerate(CELLS) for j, mark in enumerate(MARKS)]
    rows += [(f"mean {mark}", scores[:, j].mean(axis=0)) for j, mark in enumerate(MARKS)]
    rows.append(("macro mean", scores.mean(axis=(0, 1))))
    for name, row in rows:
        better = row[0] > row[4], row[1] > row[5], row[2] < row[6]
        marks = (
            ""
            if all(better)
            else "  not better in " + ", ".join(text for text, good in zip(HEADINGS, better, strict=False) if not good)
        )
        print(f"{name:18}" + "".join(f"{value:11.4f}" for value in row[:4]), end="   ")
        print("".join(f"{value:9.4f}" for value in row[4:7]) + marks)


def main() -> None:
    """Train, impute and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what --pack wrote, or the folder with the bigWigs")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write --data into one file, and no more")
    parser.add_argument("--validate", action="store_true", help="choose settings on chr11,16,18,19, not on the test")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--context", type=int, default=600, help="bins")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--average", type=float, default=0.995)
    parser.add_argument("--signal-beta", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=int, default=100, help="steps between lines")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("-o", "--output", type=Path, help="write the scores as JSON")
    options = parser.parse_args()
    if options.pack:
        pack(options.data, options.pack)
        return
    prepare(threads=options.threads, seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        packed = options.data
        if packed.is_dir():
            packed = Path(folder) / "pilot.npz"
            pack(options.data, packed)
        pilot = unpack(packed)
        path = Path(folder) / "pilot.h5"
        write_store(pilot, path)
        with Store.open(path) as store:
            scored = VALIDATION_CHROMS if options.validate else TEST_CHROMS
            model = train(options, pilot, store, tuple({*scored, *TEST_CHROMS}))
            scores = score(model, pilot, store, scored, choose(options.device))
    if not options.validate:
        difference = np.abs(scores[:, :, 4:7] - pilot.baseline).max()
        print(f"the mean of the other cells differs from the published scores by at most {difference:.5f}")
    report(scores)
    if options.output:
        names = [*HEADINGS, *(f"average {name}" for name in HEADINGS[:3]), "variance"]
        rows = [
            {"cell": cell, "mark": mark, **dict(zip(names, scores[i, j].tolist(), strict=True))}
            for i, cell in enumerate(CELLS)
            for j, mark in enumerate(MARKS)
        ]
        settings = {name: str(value) for name, value in vars(options).items()}
        options.output.write_text(json.dumps({"settings": settings, "scores": rows}, indent=1))


if __name__ == "__main__":
    main()
