"""Score the models and their rivals on the real benchmark rows; see README.md beside this file."""

import argparse
from collections.abc import Callable
from pathlib import Path

import denoise
import dna
import experiments
import expression
import impute
import locus
import transfer
from pilot import CELLS, Cohort, Pilot, leave_one_out
from trained import COUNTS, SIGNAL, Models, shipped

TASKS = ("R1", "R1K", "R1C", "R2", "R3", "R6", "R7", "locus")


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of real data")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/bench_real"), help="folder; goes on in it")
    parser.add_argument("--only", action="append", choices=TASKS, help="task; repeatable; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--shipped", action="store_true", help="judge the models that ship instead of training")
    parser.add_argument("--steps", type=int, help="of each training, instead of the recipe's: to try the script")
    parser.add_argument("--counts-model", type=Path, metavar="MODEL", help="judge it instead of training counts-core")
    parser.add_argument("--signal-model", type=Path, metavar="MODEL", help="judge it instead of training signal-core")
    parser.add_argument(
        "--new-cell", action="append", default=[], metavar="NAME=FOLDER",
        help="bigWigs of a cell that is in no training: judge signal-core on it (and nothing else unless --only)",
    )  # fmt: skip
    parser.add_argument("--docs", type=Path, help="folder of the page of one locus; default: docs in the output")
    parser.add_argument("-@", "--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="of trainings")
    return parser.parse_args()


def main() -> None:
    """Run the tasks."""
    options = parse()
    given = {COUNTS: options.counts_model, SIGNAL: options.signal_model}
    if options.shipped:
        given = {name: path or shipped(name) for name, path in given.items()}
    models = Models(
        options.output / "models", range(options.seeds), options.steps,
        {name: path for name, path in given.items() if path}, options.threads, options.device,
    )  # fmt: skip
    pilot = Pilot(options.data, options.output / "stores")
    tasks: dict[str, Callable[[], None]] = {
        "R1": lambda: impute.run(pilot, models, options.output / "R1"),
        "R1K": lambda: impute.run(pilot, models, options.output / "R1", leave_one_out(known=True), name="R1K"),
        "R1C": lambda: transfer.run(pilot, models, options.output / "R1"),
        "R2": lambda: denoise_halves("R2", options, models),
        "R3": lambda: denoise_halves("R3", options, models),
        "R6": lambda: dna.run(models, options.data, options.output / "stores", options.output / "R6"),
        "R7": lambda: expression.run(pilot, models, options.output / "R7", options.output / "R1"),
        "locus": lambda: write_locus(options, models),
    }
    for name in options.only or ([] if options.new_cell else TASKS):
        tasks[name]()
    for text in options.new_cell:
        judge_new_cell(pilot, models, text, options.output)


def denoise_halves(name: str, options: argparse.Namespace, models: Models) -> None:
    """Denoise halves of K562 (R2) or of IMR90 (R3)."""
    found, title = {
        "R2": (experiments.k562, "K562, half of the fragments in, the others as truth, chr1:24.1-24.5 Mb"),
        "R3": (
            experiments.imr90,
            "IMR90, 1/2, 1/4 and 1/8 of the reads in, another half as truth, chr21:40.0-42.96 Mb",
        ),
    }[name]
    trained = denoise.models_of(models, options.data, options.output / "stores")
    given = list(found(options.data, options.seeds))
    denoise.run(name, title, given, trained, options.data, options.output / name, options.threads)


def write_locus(options: argparse.Namespace, models: Models) -> None:
    """Write the page of one locus, of the first model."""
    model = denoise.models_of(models, options.data, options.output / "stores")[0]
    half = next(experiments.k562(options.data, 1))
    docs = options.docs or options.output / "docs"
    locus.run(half, model, docs, options.output / "locus")


def judge_new_cell(pilot: Pilot, models: Models, text: str, output: Path) -> None:
    """Impute the marks of a cell that no model has seen, with the four cells as its cohort."""
    name, _, folder = text.partition("=")
    pilot.add(name, Path(folder))
    shipping = models._replace(given={SIGNAL: shipped(SIGNAL), **models.given})
    impute.run(pilot, shipping, output / "new_cells", [Cohort(name, CELLS)], name=name)


if __name__ == "__main__":
    main()
