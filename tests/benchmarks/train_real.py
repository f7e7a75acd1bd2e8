"""Do both presets learn from real reads? Benchmark rows R2 and R3: K562 (paired-end, control) and IMR90 (single-end).

Make the two stores as `make models` does (`candi bin --keep-dup 1`), then

    python tests/benchmarks/train_real.py k562.h5 imr90.h5 --seconds 600

Each preset learns for about so many seconds on the training rows less two regions that are held out: `base` with the
settings of the default model, `paper` with the paper's optimiser and loss weights, or (`--alike`) with those of `base`.
Printed are the loss curve (of training and of held-out windows) and, for each assay on the held-out regions,
the mean log-likelihood of counts in nats per bin: of the half of all reads that the network did not see, given the
other half (*obs*), and of all reads of an assay that is hidden (*imp*). Beside it stand a marginal negative binomial of
the assay whose mean follows the depth, and (for *obs*) the seen half itself as the expected counts, with the
pseudo-count and the dispersion that fit best; both are fitted on parts of the training rows. Kept is the moving average
of the weights at the end, or (`--keep-best`) that of the scoring with the lowest held-out loss. `--test` scores the
test rows instead; look at them once, at the end.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cohorts
import numpy as np
import torch
from numpy.typing import NDArray

from candi_cli.evaluation.baselines import fit_marginal, fit_scaled_track
from candi_cli.evaluation.calibration import pit_error
from candi_cli.evaluation.distributions import negative_binomial_cdf, negative_binomial_log_pmf
from candi_cli.evaluation.metrics import pearson
from candi_cli.genome import Region
from candi_cli.model.candi import Config, Corruption, Lanes, LossWeights, Model, TrainingDataset, preset
from candi_cli.model.device import choose, prepare
from candi_cli.model.training import Progress, Schedule, fit, score
from candi_cli.store import Store

Array = NDArray[Any]
TRAIN = (Region("chr1", 22_500_000, 24_100_000), Region("chr21", 43_000_000, 48_100_000))
VALID = (Region("chr1", 23_800_000, 24_000_000), Region("chr21", 45_000_000, 45_400_000))
FITTED = (Region("chr1", 22_500_000, 23_800_000), Region("chr21", 43_000_000, 45_000_000))  # the baselines
TEST = (Region("chr1", 24_100_000, 24_500_000), Region("chr21", 40_000_000, 42_960_000))
WEIGHTS = {  # ours are those of the default model
    "base": LossWeights(count=1.0, signal=0.2, peak=0.1, observed=1.0, imputed=0.25, beta=1.0),
    "paper": LossWeights(),
}
OPTIMISERS = {"base": ("adamw", 2e-3), "paper": ("adamax", 5e-4)}
CORRUPTION = Corruption(mask_assays=0.5, mask_loci=0.5, thin=0.9)
TIMED_STEPS = 6


class Half:
    """Bins of one assay in one biosample, as `cohorts.hold_out` gives them: target, what was seen, and depths."""

    def __init__(self, item: cohorts.HeldOut, config: Config, assay: int) -> None:
        core = slice(config.flank_bins, config.context_bins - config.flank_bins)
        self.core, self.assay = core, assay
        self.counts = item.counts[:, core, assay].ravel()
        self.seen = item.inputs.values[:, core, assay].numpy().ravel()
        into, out = (float(each[0, 0, assay]) * math.log(2) for each in item.inputs[2:4])
        self.log_depth, self.log_ratio = out, out - into


def members_of(stores: Sequence[Store], config: Config, regions: Sequence[Region], excluded: Sequence[Region]) -> Any:
    """Return the lanes of each biosample with its training loci."""
    _, cohort = cohorts.open_lanes(stores)
    members = []
    for lanes in cohort:
        here = [region for region in regions if region.chrom in lanes.store.chroms_with_reads(lanes.biosample)]
        loci = cohorts.find_loci(here, excluded, resolution=config.resolution, context=config.context_bins)
        members.append((lanes, loci))
    return members


def train(
    options: argparse.Namespace, name: str, config: Config, members: Any, held_out: Any
) -> tuple[Model, dict[str, Any]]:
    """Train one preset for about the time given and print its loss curve."""
    settings = "base" if options.alike else name
    weights, (optimiser, rate) = WEIGHTS[settings], OPTIMISERS[settings]
    device = choose(options.device)
    prepare(threads=options.threads, seed=options.seed)
    dataset = TrainingDataset(
        config, members, corruption=CORRUPTION, batch_size=options.batch_size, seed=options.seed
    )  # fmt: skip
    dataset.decode()
    scored = TrainingDataset(
        config, held_out, corruption=CORRUPTION, batch_size=options.batch_size, seed=options.seed + 1
    )  # fmt: skip
    scored_batches = [scored.batch(step) for step in range(options.scored_batches)]
    trial, clock = Model(config, weights), cohorts.Stopwatch()
    precision = "bf16" if device.type == "cuda" else "float32"
    if not options.steps:
        fit(trial, dataset, Schedule(steps=TIMED_STEPS), device=device, seed=options.seed, precision=precision)
    steps = options.steps or max(20, int(options.seconds / clock.seconds() * TIMED_STEPS))
    model = Model(config, weights)
    model.start_at_marginals([dataset.batch(step) for step in range(8)])
    every = max(1, steps // options.lines)
    print(f"{'step':>8}{'seconds':>9}{'loss':>10}{'held-out':>10}{'count_obs':>11}{'count_imp':>11}", flush=True)
    clock = cohorts.Stopwatch()

    def show(progress: Progress) -> None:
        if progress.step % every and progress.step != steps:
            return
        scores = progress.held_out or score(model, scored_batches, device)
        values = (progress.loss, *(scores[name] for name in ("loss", "count_obs", "count_imp")))
        line = f"{progress.step:8}{clock.seconds():9.0f}" + "".join(f"{value:10.4f} " for value in values)
        print(line, flush=True)

    schedule = Schedule(steps=steps, learning_rate=rate, optimiser=optimiser, average=cohorts.average_of(steps))
    fit(
        model, dataset, schedule, device=device, seed=options.seed, precision=precision, report_every=every,
        on_step=show, held_out=scored_batches if options.keep_best else (), score_every=every,
    )  # fmt: skip
    return model, {"steps": steps, "seconds": clock.seconds(), "parameters": cohorts.total(model.parameters())}


def baselines(cohort: Sequence[Lanes], config: Config, regions: Sequence[Region]) -> dict[tuple[str, int], Any]:
    """Fit marginals (for *obs* and *imp*) and the copy of the seen half, by assay, on the training regions."""
    fitted: dict[tuple[str, int], Any] = {}
    items = cohorts.hold_out_all(cohort, config, regions)
    for kind in ("obs", "imp"):
        for assay in range(len(config.assays)):
            halves = [Half(item, config, assay) for item in items if item.kind == kind and item.scored[assay]]
            if not halves:
                continue
            counts, seen = (np.concatenate([getattr(half, name) for half in halves]) for name in ("counts", "seen"))
            depth, ratio = (
                np.repeat([getattr(half, name) for half in halves], [len(half.counts) for half in halves])
                for name in ("log_depth", "log_ratio")
            )
            fitted["marginal " + kind, assay] = fit_marginal(counts, depth)
            if kind == "obs":
                fitted["copy", assay] = fit_scaled_track(counts, seen, ratio)
    return fitted


def compare(
    model: Model, items: Sequence[cohorts.HeldOut], fitted: dict[tuple[str, int], Any], device: torch.device
) -> list[dict[str, Any]]:
    """Return a row for each biosample, assay and kind: log-likelihoods per bin, PIT error and Pearson's correlation."""
    config, rows = model.config, []
    for item in items:
        log_mean, log_dispersion = cohorts.predict(model, item.inputs, device)
        for assay in np.flatnonzero(item.scored):
            half = Half(item, config, int(assay))
            predicted = [part[:, half.core, assay].ravel() for part in (log_mean, log_dispersion)]
            row: dict[str, Any] = {"kind": item.kind, "biosample": item.biosample, "assay": config.assays[assay]}
            row["model"] = float(negative_binomial_log_pmf(half.counts, *predicted).mean())
            marginal = fitted.get(("marginal " + item.kind, int(assay)))
            row["marginal"] = float(marginal.log_likelihood(half.counts, half.log_depth).mean()) if marginal else np.nan
            copy = fitted.get(("copy", int(assay))) if item.kind == "obs" else None
            row["copy"] = float(copy.log_likelihood(half.counts, half.seen, half.log_ratio).mean()) if copy else np.nan
            row["pit_error"] = pit_error(negative_binomial_cdf(half.counts, *predicted))
            row["pearson"], row["pearson_copy"] = (pearson(half.counts, p) for p in (np.exp(predicted[0]), half.seen))
            rows.append(row)
    return rows


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print the comparison."""
    print(f"{'':28}{'log-likelihood, nats per bin':^30}")
    print(f"{'':28}{'model':>10}{'marginal':>10}{'copy':>10}{'PIT error':>11}{'Pearson':>9}{'of copy':>9}")
    for kind in ("obs", "imp"):
        mine = [row for row in rows if row["kind"] == kind]
        numbers = ("model", "marginal", "copy", "pit_error", "pearson", "pearson_copy")
        mean = {
            "biosample": "mean",
            "assay": "",
            **{name: float(np.mean([row[name] for row in mine])) for name in numbers},
        }
        for row in [*mine, mean]:
            beaten = row["model"] > row["marginal"] and not row["model"] <= row["copy"]
            name = f"{kind} {row['biosample']} {row['assay']}"
            print(
                f"{name:28}"
                + "".join(f"{row[key]:10.4f}" for key in numbers)
                + ("" if beaten else "   below a baseline")
            )


def main() -> None:
    """Train both presets and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--presets", nargs="*", default=["base", "paper"])
    parser.add_argument("--seconds", type=float, default=600, help="of training for each preset, about")
    parser.add_argument("--steps", type=int, help="instead of seconds")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--keep-best", action="store_true", help="keep the weights with the lowest held-out loss")
    parser.add_argument("--alike", action="store_true", help="train both with the settings of base")
    parser.add_argument("--lines", type=int, default=10, help="of the loss curve")
    parser.add_argument("--scored-batches", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="score the test rows")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("-o", "--output", type=Path, help="write the comparison as JSON lines")
    options = parser.parse_args()
    stores = [Store.open(path) for path in options.stores]
    assays, cohort = cohorts.open_lanes(stores)
    for name in options.presets:
        config = replace(
            preset(name, assays, resolution=25, reads_sequence=False), depth_range=cohorts.depth_range(cohort)
        )
        members = members_of(stores, config, TRAIN, VALID)
        fitted = baselines(cohort, config, FITTED)
        print(f"\n{name}", flush=True)
        model, facts = train(options, name, config, members, members_of(stores, config, VALID, ()))
        print(f"{facts['parameters']:,} parameters, {facts['steps']} steps of {options.batch_size} windows in", end=" ")
        print(f"{facts['seconds']:.0f} s; scored on {'the test rows' if options.test else 'the held-out regions'}")
        items = cohorts.hold_out_all(cohort, config, TEST if options.test else VALID)
        rows = compare(model, items, fitted, choose(options.device))
        report(rows)
        if options.output:
            with options.output.open("a") as handle:
                handle.write(json.dumps({"preset": name, **facts, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
