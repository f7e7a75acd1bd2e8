"""What each repair of the preset `base` is worth: arms with one of them undone, at equal steps, over several seeds.

Run as `python tests/benchmarks/ablation.py` it simulates a cohort (`simulator.py`); with `--stores` it takes stores
made by `candi bin`, for example those of `make models`, with regions to train on and to score:

    python tests/benchmarks/ablation.py --stores k562.h5 imr90.h5 \
        --train chr1:22500001-24100000 chr21:43000001-48100000 \
        --valid chr1:23800001-24000000 chr21:45000001-45400000

An arm is a network's configuration, a change to the network, or a change to the batches that puts a fault back. All
arms of a seed see the same batches, which are drawn once. Runs are shared out between `--jobs` processes on one device;
each line is printed when its run ends, the table of means and standard deviations over seeds at the end.

Scores are of counts on held-out windows, in the mean over assays: log-loss of the negative binomial in nats per bin,
the PIT error and Pearson's correlation; *imp* of assays that are hidden, *obs* of half of the reads given the others.
"""

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cohorts
import numpy as np
import simulator
import torch
from arms import ARMS, CORRUPTION, WEIGHTS, Arm, Batch, forget_metadata, merge_missing_and_masked

from candi_cli.genome import Region, parse_region
from candi_cli.model.candi import Config, Model, TrainingDataset, preset
from candi_cli.model.device import choose, prepare
from candi_cli.model.training import Schedule, fit
from candi_cli.store import Store

BATCHES_A_FILE = 25
HELD_OUT = "held-out.pt"


class Task(NamedTuple):
    """What all runs share; travels to other processes."""

    stores: tuple[Path, ...]
    train: tuple[Region, ...]
    valid: tuple[Region, ...]
    folder: Path
    steps: int
    batch_size: int
    learning_rate: float
    every: int
    context: int
    device: str


def configure(task: Task, arm: Arm, assays: tuple[str, ...], depths: tuple[float, float]) -> Config:
    """Return an arm's configuration."""
    config = preset(arm.preset, assays, resolution=simulator.RESOLUTION, reads_sequence=False)
    turned = {name: not getattr(config, name) if value is None else value for name, value in arm.fields.items()}
    context = {"context_bins": task.context, "flank_bins": task.context // 8}
    return replace(config, depth_range=depths, **context, **turned)


def draw_batches(task: Task, seed: int, file: int) -> Path:
    """Draw the batches of some steps of one seed and save them."""
    torch.set_num_threads(1)
    stores = [Store.open(path) for path in task.stores]
    assays, cohort = cohorts.open_lanes(stores)
    config = configure(task, ARMS["base"], assays, cohorts.depth_range(cohort))
    members = []
    for lanes in cohort:
        regions = [region for region in task.train if region.chrom in lanes.store.chroms_with_reads(lanes.biosample)]
        loci = cohorts.find_loci(regions, task.valid, resolution=config.resolution, context=config.context_bins)
        members.append((lanes, loci))
    dataset = TrainingDataset(config, members, corruption=CORRUPTION, batch_size=task.batch_size, seed=seed)
    steps = range(file * BATCHES_A_FILE, min((file + 1) * BATCHES_A_FILE, task.steps))
    path = task.folder / f"batches-{seed}-{file:05d}.pt"
    torch.save([dataset.batch(step) for step in steps], path)
    return path


def draw_held_out(task: Task) -> None:
    """Save the held-out windows, which are the same for all runs."""
    assays, cohort = cohorts.open_lanes([Store.open(path) for path in task.stores])
    config = configure(task, ARMS["base"], assays, cohorts.depth_range(cohort))
    torch.save(cohorts.hold_out_all(cohort, config, task.valid, every=task.every), task.folder / HELD_OUT)


def run(task: Task, name: str, seed: int) -> dict[str, Any]:
    """Train and score one arm with one seed."""
    arm, clock = ARMS[name], cohorts.Stopwatch()
    prepare(threads=1, seed=seed)
    device = choose(task.device)
    stores = [Store.open(path) for path in task.stores]
    assays, cohort = cohorts.open_lanes(stores)
    config = configure(task, arm, assays, cohorts.depth_range(cohort))
    model = arm.network(Model(config, arm.weights))
    paths = sorted(task.folder.glob(f"batches-{seed}-*.pt"))
    first = next(cohorts.saved_batches(paths[:1]))
    model.start_at_marginals([arm.batch(batch) for batch in [first, *cohorts.saved_batches(paths[:1])]])
    began = clock.seconds()
    fit(
        model,
        (arm.batch(batch) for batch in cohorts.saved_batches(paths)),
        Schedule(
            **{
                "steps": task.steps,
                "learning_rate": task.learning_rate,
                "average": cohorts.average_of(task.steps),
                **arm.schedule,
            }
        ),
        device=device,
    )
    seconds = clock.seconds() - began
    held_out = torch.load(task.folder / HELD_OUT, weights_only=False)
    scores = cohorts.score(model, [changed(arm, item) for item in held_out], config, device)
    return {
        "arm": name, "seed": seed, "parameters": cohorts.total(model.parameters()),
        "windows_per_s": task.steps * task.batch_size / seconds, "seconds": clock.seconds(),
        **{f"{kind}_{field}": value for kind, row in scores.items() for field, value in row._asdict().items()},
    }  # fmt: skip


def changed(arm: Arm, item: cohorts.HeldOut) -> cohorts.HeldOut:
    """Return held-out windows as an arm sees them; targets stay what they are."""
    if arm.batch not in (merge_missing_and_masked, forget_metadata):
        return item
    batch = arm.batch(Batch(item.inputs, None))  # type: ignore[arg-type]
    return item._replace(inputs=batch.inputs)


COLUMNS = ("imp_log_loss", "imp_pit_error", "imp_pearson", "obs_log_loss", "obs_pit_error", "obs_pearson")
HEADINGS = ("imp nats", "imp PIT", "imp r", "obs nats", "obs PIT", "obs r")


def print_table(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> None:
    """Print mean and standard deviation over seeds for each arm."""
    print(f"\n{'arm':44}{'seeds':>6}{'params':>11}{'win/s':>7}" + "".join(f"{text:>17}" for text in HEADINGS))
    for name in arms:
        mine = [row for row in rows if row["arm"] == name]
        if mine:
            values = np.array([[row[column] for column in COLUMNS] for row in mine])
            spread = values.std(axis=0, ddof=1) if len(mine) > 1 else np.full(len(COLUMNS), np.nan)
            speed = np.mean([row["windows_per_s"] for row in mine])
            cells = "".join(f"{mean:9.4f} ±{sd:6.4f}" for mean, sd in zip(values.mean(axis=0), spread, strict=True))
            print(f"{name:44}{len(mine):6}{mine[0]['parameters']:11,}{speed:7.0f}{cells}")


def prepare_task(options: argparse.Namespace, folder: Path) -> Task:
    """Simulate a cohort unless stores are given, and say where to train and to score."""
    stores = tuple(options.stores)
    if not stores:
        design = simulator.Design(n_bins=options.bins, seed=options.cohort_seed)
        stores = (folder / "simulated.h5",)
        simulator.write_store(simulator.simulate(design), stores[0]).close()
        split = options.bins * 4 // 5 * simulator.RESOLUTION
        train = (Region(simulator.CHROM, 0, split),)
        valid = (Region(simulator.CHROM, split, options.bins * simulator.RESOLUTION),)
    else:
        known: dict[str, int] = {}
        for path in stores:
            with Store.open(path) as store:
                known |= {chrom: max(length, known.get(chrom, 0)) for chrom, length in store.chromsizes.items()}
        train, valid = (
            tuple(parse_region(text.replace(",", ""), known) for text in texts)
            for texts in (options.train, options.valid)
        )
    return Task(
        stores, train, valid, folder, options.steps, options.batch_size, options.learning_rate, options.every,
        options.context, options.device,
    )  # fmt: skip


def main() -> None:
    """Run all arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", nargs="*", type=Path, default=[], help="instead of a simulated cohort")
    parser.add_argument("--train", nargs="*", default=[], metavar="REGION")
    parser.add_argument("--valid", nargs="*", default=[], metavar="REGION")
    parser.add_argument("--bins", type=int, default=160_000, help="of the simulated chromosome")
    parser.add_argument("--cohort-seed", type=int, default=0)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=1200, help="bins of a window")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=2, help="score every so many of the held-out windows")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--drawers", type=int, default=1, help="processes that draw batches beforehand")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which runs are cut off")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for batches, about 50 kB a window")
    parser.add_argument("-o", "--output", type=Path, help="write every run's scores as JSON lines")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.scratch))
    try:
        run_all(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_all(options: argparse.Namespace, folder: Path) -> None:
    """Draw the batches, run all arms with all seeds, and print each result and the table."""
    clock, context = cohorts.Stopwatch(), get_context("spawn")
    task = prepare_task(options, folder)
    files = range(math.ceil(options.steps / BATCHES_A_FILE))
    with ProcessPoolExecutor(options.drawers, mp_context=context) as pool:
        drawn = [pool.submit(draw_batches, task, seed, file) for seed in range(options.seeds) for file in files]
        for one in [*drawn, pool.submit(draw_held_out, task)]:
            one.result()
    print(f"{options.seeds} x {options.steps} batches of {options.batch_size} drawn in {clock.seconds():.0f} s")
    print(json.dumps({"corruption": asdict(CORRUPTION), "weights": asdict(WEIGHTS)}), flush=True)
    rows: list[dict[str, Any]] = []
    pool = ProcessPoolExecutor(options.jobs, mp_context=context)
    runs = [pool.submit(run, task, name, seed) for seed in range(options.seeds) for name in options.arms]
    try:
        for done in as_completed(runs, timeout=options.budget - clock.seconds()):
            if done.exception():
                print(f"a run failed: {done.exception()}", flush=True)  # the others go on
                continue
            rows.append(done.result())
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True)
            if options.output:
                with options.output.open("a") as handle:
                    handle.write(json.dumps(rows[-1]) + "\n")
    except TimeoutError:
        print(f"{options.budget:.0f} s are over: {len(rows)} of {len(runs)} runs ended")
    print_table(rows, options.arms)
    print(f"{clock.seconds():.0f} s in all", flush=True)
    for process in [] if len(rows) == len(runs) else list(pool._processes.values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
