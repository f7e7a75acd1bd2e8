"""R2 and R3: reads in, an independent half of the reads as truth; see `experiments` for the halves."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import figures
import numpy as np
import tables
from count_rivals import RIVALS, Denoising, log_dispersion
from experiments import Experiment
from fragments import RESOLUTION, counts, write_reads
from numpy.typing import NDArray
from scipy.stats import poisson
from trained import COUNTS, Models, Named, kept_store, shipped
from units import Row, kept_arrays, kept_rows

from candi_cli.commands._held_out import held_out, predict_held_out
from candi_cli.counting import OVERLAP
from candi_cli.evaluation.effective_depth import effective_depth
from candi_cli.evaluation.scores import mean_with_error, track_scores
from candi_cli.evaluation.tallies import scores, tally
from candi_cli.genome import Region
from candi_cli.judging.tracks import DENOISED
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Predictions

MODEL = "candi"
COARSE = 8  # bins of 200 bp
SHOWN = (
    "pearson", "pearson_200bp", "poisson", "nb", "pit_error", "coverage_90", "expected_coverage_90", "coverage_95",
    "expected_coverage_95", "effective_depth",
)  # fmt: skip
DRAWN = ("pearson", "poisson", "nb", "pit_error", "effective_depth")
Array = NDArray[np.float64]


def count_scores(
    truth: Array, log_mean: Array, log_dispersion: Array, blocks: NDArray[np.int64]
) -> dict[str, tuple[float, float]]:
    """Return scores of predicted counts with errors by a jackknife of blocks: Pearson's r, log-losses, calibration."""
    mean, n_blocks = np.exp(log_mean), int(blocks.max()) + 1
    judged = scores(tally("counts", truth, (log_mean, log_dispersion), blocks, n_blocks))
    whole = len(truth) // COARSE * COARSE
    coarse = [each[:whole].reshape(-1, COARSE).sum(axis=1) for each in (truth, mean)]
    found = {
        "pearson": track_scores(truth, mean, blocks).pearson,
        "pearson_200bp": track_scores(*coarse, blocks[:whole:COARSE]).pearson,
    }
    names = {"nll": "nb", "crps": "crps", "pit_error": "pit_error"}
    names |= {name: name for name in judged if name.startswith(("coverage_9", "expected_coverage_9"))}
    return {
        **{name: (score.value, score.se) for name, score in found.items()},
        "poisson": mean_with_error(-poisson.logpmf(truth, mean), blocks),
        **{shown: (judged[name].value, judged[name].se) for name, shown in names.items()},
    }


def bin_options(model: Named) -> list[str]:
    """Return the options of `candi bin` that count as a model reads."""
    return model.load().card.counting.options().split()


def stores_of(model: Named, given: Experiment, data: Path, folder: Path) -> tuple[Path, Path]:
    """Return stores of what is denoised and of the truth, counted by the model's rule."""
    options = ("-g", data / "ref" / "annot" / "hg19.chrom.sizes", *bin_options(model))
    paths = []
    for part in ("source", "truth"):
        reads = folder / "reads" / f"{given.name}.{part}.bedpe"
        reads.parent.mkdir(parents=True, exist_ok=True)
        write_reads(getattr(given, part), given.place.chrom, reads)
        control = reads.with_name(f"{given.biosample}.control.bedpe")
        if given.control is not None:
            write_reads(given.control, given.place.chrom, control)
        sheet = "biosample\tassay\tfile\tcontrol\n"
        sheet += (
            f"{given.biosample}\t{given.assay}\t{reads.resolve()}\t{control.resolve() if given.control else 'NA'}\n"
        )
        rule = model.load().card.counting.rule
        paths.append(kept_store(folder / "stores" / f"{given.name}.{part}.{rule}.h5", sheet, *options))
    return paths[0], paths[1]


def denoised(model: Named, given: Experiment, data: Path, folder: Path, threads: int) -> Array:
    """Return the model's log mean and log dispersion in the scored bins, at the covariates of the truth: (2, L)."""
    place = given.place
    region = Region(place.chrom, *place.test)
    with ExitStack() as stack:
        source, truth = (stack.enter_context(Store.open(path)) for path in stores_of(model, given, data, folder))
        path = folder / f"making.{given.name}.{model.tag()}.h5"
        loaded = model.load()
        (held,) = held_out(loaded, source, truth, pools=[DENOISED], assays=(), kinds=["counts"], dna=False)
        predict_held_out(
            loaded, held, [region], path, Computing.on(choose("cpu"), batch_size=None, threads=threads),
            average=None, fasta=None, recalibrated=False, advance=lambda n, name: None,
        )  # fmt: skip
        with Predictions(path) as predictions:
            first, last = (end // RESOLUTION for end in place.test)
            values = predictions.read(given.biosample, given.assay, PARAMETERS["counts"], place.chrom, first, last)
        path.unlink()
    return np.asarray(values, dtype=np.float64)


def prepared(given: Experiment, model: Named) -> Denoising:
    """Return input and truth in bins, counted by a model's rule."""
    rule, span = model.load().card.counting, given.place.span
    x, y = (counts(each, rule, span) for each in (given.source, given.truth))
    seed = 0 if given.split == "-" else int(given.split)
    return Denoising(given.source, x, y, given.place.inside(given.place.train), span, seed)


def _rows(
    given: Experiment, method: str, seed: str, inputs: Denoising, parameters: Array, *, points: bool
) -> Iterator[Row]:
    test, blocks = given.place.inside(given.place.test), given.place.blocks()
    track, truth = f"{given.biosample}/{given.group}", inputs.y[test]
    for name, (value, error) in count_scores(truth, *parameters, blocks).items():
        yield Row(track, given.group, method, seed, name, value, error)
    if points:
        found = effective_depth(inputs.x[test], np.exp(parameters[0]), truth, blocks, seed=0)
        numbers = {"": found.multiple, "_low": found.low, "_high": found.high, "_ceiling": float(found.curve.ceiling)}
        for ending, value in numbers.items():
            yield Row(track, given.group, method, seed, f"effective_depth{ending}", value)


def rows_of_rivals(given: Experiment, model: Named, folder: Path) -> Iterator[Row]:
    """Yield the scores of the rivals, on counts by the rule of a model."""
    rule = model.load().card.counting.rule
    for name, rival in RIVALS.items():

        def score(name: str = name, rival: Callable[[Denoising], Array] = rival) -> Iterator[Row]:
            inputs, test = prepared(given, model), given.place.inside(given.place.test)
            mean = rival(inputs)
            spread = log_dispersion(inputs.y[inputs.train], mean[inputs.train])
            parameters = np.stack([np.log(mean[test]), np.full(int(test.sum()), spread)])
            yield from _rows(given, name, given.split, inputs, parameters, points=rule != OVERLAP)

        plain = "".join(letter if letter.isalnum() else "_" for letter in name)
        yield from kept_rows(folder / "scores" / f"{given.name}.{plain}.{rule}.tsv", score)


def rows_of_model(given: Experiment, model: Named, data: Path, folder: Path, threads: int) -> Iterator[Row]:
    """Yield the scores of a model."""

    def score() -> Iterator[Row]:
        path = folder / "predictions" / f"{given.name}.{model.tag()}.npz"
        parameters = kept_arrays(path, lambda: {"values": denoised(model, given, data, folder, threads)})["values"]
        points = model.load().card.counting.rule != OVERLAP
        yield from _rows(given, MODEL, model.seed, prepared(given, model), parameters, points=points)

    for row in kept_rows(folder / "scores" / f"{given.name}.{model.tag()}.tsv", score):
        yield row._replace(seed=given.split if model.seed == "-" else model.seed)


def training_stores(data: Path, folder: Path) -> list[Path]:
    """Return the stores that counts-core learns from, counted by the rule of the one that ships."""
    rule = bin_options(Named(shipped(COUNTS), "-"))
    found = []
    for name in ("k562", "imr90"):
        lines = (Path(__file__).parents[3] / "packaging" / "models" / f"{name}.tsv").read_text().splitlines()
        rows = [lines[0]] + [
            "\t".join(str((data / field).resolve()) if "/" in field else field for field in line.split("\t"))
            for line in lines[1:]
        ]
        label = "_".join(word.strip("-") for word in rule[:2])
        found.append(kept_store(folder / f"{name}.{label}.h5", "\n".join(rows) + "\n", *rule))
    return found


def models_of(models: Models, data: Path, stores: Path) -> list[Named]:
    """Return the models of each seed."""
    return models.of(COUNTS, "reads", lambda: training_stores(data, stores))


def run(
    name: str, title: str, given: Sequence[Experiment], models: Sequence[Named], data: Path, folder: Path, threads: int
) -> None:
    """Score the models and their rivals on some experiments, print the table and draw it."""
    rows = [row for each in given for row in rows_of_rivals(each, models[0], folder)]
    for each in given:
        for number, model in enumerate(models):
            if each.split in ("-", str(number)) or len(models) == 1:
                rows += rows_of_model(each, model, data, folder, threads)
    rule = models[0].load().card.counting
    heading = f"{title}; counts by {rule.rule} at {RESOLUTION} bp"
    tables.report(name, heading, rows, folder, shown=SHOWN, model=MODEL)
    drawn = [score for score in DRAWN if any(row.score == score for row in rows)]
    figures.bars(rows, folder / f"{name}.svg", scores=drawn, model=MODEL, title=title)
