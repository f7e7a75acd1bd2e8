"""Does `base` find the true rate of an assay that it cannot see? Known truth: the simulator's cohort.

Run as `python tests/benchmarks/known_truth.py`. It trains on the first four fifths of the simulated chromosome, with
and without the depth offset, and reports on the last fifth:

1. Rates of fully hidden assays at their own covariates, against the truth: the mean squared error of the log rate,
   Pearson's correlation, and the negative binomial deviance of the prediction from the true rate; beside the mean of
   the other biosamples, brought to the same depth, read length and run type by the simulator's own factors: from their
   counts, from their counts smoothed (bandwidth chosen on the training part), and from their true rates.
2. PIT error of the counts of hidden assays (imp) and of half of the reads given the others (obs); 0 for a perfect one.
3. Dose and response: the slope of the log of the predicted mean over the log of the requested depth, from 1/4 to 4
   times an experiment's depth as far as training covered it. The truth is 1.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cohorts
import numpy as np
import simulator
import torch
from arms import CORRUPTION, WEIGHTS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from candi_cli.covariates import encode
from candi_cli.evaluation.metrics import pearson
from candi_cli.genome import Region
from candi_cli.model.candi import Config, Lanes, Model, TrainingDataset, preset
from candi_cli.model.device import choose, prepare
from candi_cli.model.training import Progress, Schedule, fit
from candi_cli.store import Store

Array = NDArray[Any]
DOSED_WINDOWS = 8
DOSES = (0.25, 0.5, 1.0, 2.0, 4.0)
BANDWIDTHS = (0.0, 1.0, 2.0, 4.0, 8.0)
FLOOR = 1e-3  # of a rate, in its mean: the log of a mean of others' counts may be of 0


class Errors(NamedTuple):
    """How far predicted rates are from the truth."""

    log_mse: float
    pearson: float
    deviance: float


def compare(truth: Array, rate: Array, dispersion: float) -> Errors:
    """Return the errors of a rate: shape (K,) each."""
    rate = np.maximum(rate, FLOOR * truth.mean())
    n = dispersion
    deviance = 2 * (truth * np.log(truth / rate) - (truth + n) * np.log((truth + n) / (rate + n)))
    return Errors(float(np.mean(np.log(rate / truth) ** 2)), pearson(truth, rate), float(deviance.mean()))


def others(cohort: simulator.Cohort, biosample: str, assay: str, bandwidth: float | None) -> Array:
    """Return the mean of other biosamples at one experiment's covariates: of smoothed counts, or (None) of rates."""
    own = simulator.scale(cohort.experiments[biosample, assay].covariates, cohort.design.n_bins)
    densities = []
    for name in cohort.design.biosamples:
        if name != biosample:
            experiment = cohort.experiments[name, assay]
            factor = simulator.scale(experiment.covariates, cohort.design.n_bins)
            counts = experiment.counts.astype(float)
            smooth = gaussian_filter1d(counts, bandwidth) if bandwidth else counts
            densities.append(experiment.density if bandwidth is None else smooth / factor)
    return own * np.mean(densities, axis=0)


def best_bandwidth(cohort: simulator.Cohort, assay: str, fitted: slice) -> float:
    """Return the bandwidth in bins at which the mean of others has the lowest deviance on the training part."""

    def loss(bandwidth: float) -> float:
        return sum(
            compare(
                cohort.rate(name, assay)[fitted],
                others(cohort, name, assay, bandwidth)[fitted],
                simulator.DISPERSION[assay],
            ).deviance
            for name in cohort.design.biosamples
        )

    return min(BANDWIDTHS, key=loss)


def train(options: argparse.Namespace, store: Store, config: Config, train_bins: int, name: str) -> Model:
    """Train a network on the first bins of the chromosome."""
    _, members = cohorts.open_lanes([store])
    region = Region(simulator.CHROM, 0, train_bins * config.resolution)
    loci = cohorts.find_loci([region], [], resolution=config.resolution, context=config.context_bins)
    dataset = TrainingDataset(
        config, [(lanes, loci) for lanes in members],
        corruption=CORRUPTION, batch_size=options.batch_size, seed=options.seed,
    )  # fmt: skip
    dataset.decode()
    model = Model(config, WEIGHTS)
    model.start_at_marginals([dataset.batch(step) for step in range(4)])

    def show(progress: Progress) -> None:
        print(f"  {name}: step {progress.step:5} loss {progress.loss:.4f}", flush=True)

    schedule = Schedule(
        steps=options.steps, learning_rate=options.learning_rate, average=cohorts.average_of(options.steps)
    )
    fit(
        model,
        dataset,
        schedule,
        device=choose(options.device),
        seed=options.seed,
        report_every=options.report,
        on_step=show,
    )
    return model


def dose_response(model: Model, item: cohorts.HeldOut, lanes: Lanes, device: torch.device) -> dict[int, float]:
    """Return for each scored assay the slope of the log mean over the log of the requested depth."""
    config, slopes = model.config, {}
    core = slice(config.flank_bins, config.context_bins - config.flank_bins)
    asked = lanes.covariates()[:-1]
    logs: dict[float, Array] = {}
    for dose in DOSES:
        covariates = encode([cohorts.thinned(known, dose) for known in asked])
        inputs = item.inputs._replace(covariates_out=torch.from_numpy(covariates).expand(len(item.counts), -1, -1))
        inputs = type(inputs)(*(each if each is None else each[:DOSED_WINDOWS] for each in inputs))
        logs[dose] = cohorts.predict(model, inputs, device)[0]
    for assay in np.flatnonzero(item.scored):
        depth = float(encode([asked[assay]])[0, 0])
        covered = [d for d in DOSES if config.depth_range[0] <= depth + np.log2(d) <= config.depth_range[1]]
        means = [logs[dose][:, core, assay].mean() for dose in covered]
        if len(covered) > 1:
            slopes[int(assay)] = float(np.polyfit(np.log(covered), means, 1)[0])
    return slopes


def judge(options: argparse.Namespace, store_path: Path, offset: bool) -> dict[str, Any]:
    """Train with or without the depth offset and measure all that is reported of it."""
    prepare(threads=options.threads, seed=options.seed)
    cohort = simulator.simulate(simulator.Design(n_bins=options.bins, seed=options.cohort_seed))
    device, store = choose(options.device), Store.open(store_path)
    assays, members = cohorts.open_lanes([store])
    config = preset("base", assays, resolution=simulator.RESOLUTION, reads_sequence=False)
    config = replace(
        config, depth_offset=offset, depth_range=cohorts.depth_range(members),
        context_bins=options.context, flank_bins=options.context // 8,
    )  # fmt: skip
    train_bins, clock = options.bins * 4 // 5, cohorts.Stopwatch()
    model = train(options, store, config, train_bins, "with the offset" if offset else "without")
    seconds = clock.seconds()
    valid = [Region(simulator.CHROM, train_bins * config.resolution, options.bins * config.resolution)]
    held_out = cohorts.hold_out_all(members, config, valid)
    scores = cohorts.score(model, held_out, config, device)
    slopes: dict[str, list[float]] = {"imp": [], "obs": []}
    by_name = {lanes.biosample: lanes for lanes in members}
    for item in held_out:
        slopes[item.kind] += dose_response(model, item, by_name[item.biosample], device).values()
    return {
        "offset": offset, "seconds": seconds, "parameters": cohorts.total(model.parameters()),
        "scores": {kind: row._asdict() for kind, row in scores.items()}, "slopes": slopes,
        "errors": errors_of(model, cohort, held_out, train_bins, device),
    }  # fmt: skip


def errors_of(
    model: Model,
    cohort: simulator.Cohort,
    held_out: Sequence[cohorts.HeldOut],
    train_bins: int,
    device: torch.device,
) -> dict[str, list[tuple[Any, ...]]]:
    """Return the errors of the rates of hidden assays, by what predicts them: (assay, *Errors) of each."""
    config, assays = model.config, model.config.assays
    core = slice(config.flank_bins, config.context_bins - config.flank_bins)
    bandwidths = {assay: best_bandwidth(cohort, assay, slice(0, train_bins)) for assay in assays}
    errors: dict[str, list[tuple[Any, ...]]] = {}
    for item in (item for item in held_out if item.kind == "imp"):
        (hidden,) = np.flatnonzero(item.scored)
        assay = assays[hidden]
        bins = np.concatenate([np.arange(start, start + config.context_bins)[core] for _, start in item.starts])
        truth = cohort.rate(item.biosample, assay)[bins]
        predicted = np.exp(cohorts.predict(model, item.inputs, device)[0][:, core, hidden]).ravel()
        for kind, rate in {
            "base": predicted,
            "mean of others' counts": others(cohort, item.biosample, assay, 0.0)[bins],
            "mean of others' smoothed counts": others(cohort, item.biosample, assay, bandwidths[assay])[bins],
            "mean of others' true rates": others(cohort, item.biosample, assay, None)[bins],
        }.items():
            errors.setdefault(kind, []).append((assay, *compare(truth, rate, simulator.DISPERSION[assay])))
    return errors


def show(result: dict[str, Any], steps: int) -> None:
    """Print what was measured of one network."""
    offset = "with the depth offset" if result["offset"] else "without the depth offset"
    print(f"\nbase {offset}: {result['parameters']:,} parameters, {steps} steps in {result['seconds']:.0f} s")
    assays = sorted({assay for assay, *_ in result["errors"]["base"]})
    print(f"  {'hidden assays: MSE of the log rate':36}" + "".join(f"{assay:>10}" for assay in assays), end="")
    print(f"{'mean':>10}{'Pearson':>10}{'deviance':>10}")
    for kind, rows in result["errors"].items():
        each = [np.mean([row[1] for row in rows if row[0] == assay]) for assay in assays]
        overall = np.mean([row[1:] for row in rows], axis=0)
        print(f"  {kind:36}" + "".join(f"{value:10.4f}" for value in (*each, *overall)))
    for kind, row in result["scores"].items():
        print(
            f"  {kind}: log-loss {row['log_loss']:.4f}, PIT error {row['pit_error']:.4f}, Pearson {row['pearson']:.4f}"
        )
    for kind, slopes in result["slopes"].items():
        low, middle, high = np.quantile(slopes, [0, 0.5, 1])
        print(f"  {kind}: slope {np.mean(slopes):.4f} (median {middle:.4f}, {low:.4f} to {high:.4f})")


def main() -> None:
    """Train both networks and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bins", type=int, default=160_000)
    parser.add_argument("--cohort-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=1200, help="bins of a window")
    parser.add_argument("--only", choices=["with", "without"], help="train one of the two")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--report", type=int, default=250, help="steps between lines")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="2 to train both networks at a time")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("-o", "--output", type=Path, help="write the results as JSON lines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.h5"
        design = simulator.Design(n_bins=options.bins, seed=options.cohort_seed)
        simulator.write_store(simulator.simulate(design), path).close()
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            runs = [
                pool.submit(judge, options, path, offset)
                for offset in (True, False)
                if options.only in (None, "with" if offset else "without")
            ]
            for run in runs:
                result = run.result()
                show(result, options.steps)
                if options.output:
                    with options.output.open("a") as handle:
                        handle.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
