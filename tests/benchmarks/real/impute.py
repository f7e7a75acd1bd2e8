"""R1: impute a mark in a cell from the cell's other four marks and from three other cells, on chr20-22.

The hidden track is used nowhere: the model and the rivals of a cell learn from chr1-19 of the other three cells, and
their average is that of the other three. R1K is the same in a cell that is known: model and rivals also learned from
the cell's own tracks on chr1-19, as a model does that ships and is used on one of its own cells. Nothing of chr20-22 is
learned from in either.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import figures
import numpy as np
import tables
from numpy.typing import NDArray
from pilot import MARKS, TEST_CHROMS, Cohort, Pilot, leave_one_out
from signal_rivals import LEARNING, RIVALS, Setting, with_spread
from trained import SIGNAL, Models, Named
from units import Row, kept_arrays, kept_rows

from candi_cli.evaluation.calibration import coverage, critical_levels, pit_error
from candi_cli.evaluation.crps import crps
from candi_cli.evaluation.distributions import censored_normal_cdf
from candi_cli.evaluation.metrics import mse, pearson, spearman

MODEL = "candi"
SHOWN = ("pearson", "spearman", "mse", "crps", "crps_gaussian", "pit_error", "coverage_90", "coverage_95")
DRAWN = ("pearson", "spearman", "mse", "crps", "pit_error")
COVERED = (0.9, 0.95)
PUBLISHED = "baseline_mean_of_other_cells_chr20-22.tsv"


def signal_scores(observed: NDArray, mean: NDArray, sd: NDArray) -> dict[str, float]:
    """Return scores of arcsinh(-log10 p), all but `crps_gaussian` of a normal that is censored at 0, as -log10 p is."""
    cumulative = censored_normal_cdf(observed, mean, sd)
    inside = coverage(critical_levels(cumulative), COVERED)
    return {
        "pearson": pearson(observed, mean),
        "spearman": spearman(observed, mean),
        "mse": mse(observed, mean),
        "crps": float(crps("signal", observed, (mean, sd), censored=True).mean()),
        "crps_gaussian": float(crps("signal", observed, (mean, sd)).mean()),
        "pit_error": pit_error(cumulative),
        **{f"coverage_{round(100 * level)}": float(value) for level, value in zip(COVERED, inside, strict=True)},
    }


def models_of(models: Models, pilot: Pilot, cohort: Cohort) -> list[Named]:
    """Return the models of each seed that learned from the other cells; of a known cell, from all of them."""
    tests = [word for chrom in TEST_CHROMS for word in ("--test-chrom", chrom)]
    cells = sorted((cohort.cell, *cohort.others)) if cohort.known else cohort.others
    subset = "all_cells" if cohort.known else f"without_{cohort.cell}"
    return models.of(SIGNAL, subset, lambda: [pilot.store(cell) for cell in cells], *tests)


def predicted(pilot: Pilot, model: Named, cohort: Cohort, folder: Path, *, test: bool, threads: int) -> NDArray:
    """Return mean and sd of each mark, (M, 2, L), on chr20-22, or on the others; kept."""
    chroms = {region.chrom for region in pilot.regions}
    wanted = [chrom for chrom in chroms if (chrom in TEST_CHROMS) == test]
    name = f"{cohort.cell}.{model.tag()}.{'test' if test else 'train'}.npz"
    return kept_arrays(
        folder / "predictions" / name,
        lambda: {"values": pilot.imputed(model, cohort.cell, cohort.others, wanted, threads)},
    )["values"]


def rows_of_model(pilot: Pilot, models: Models, cohort: Cohort, folder: Path) -> Iterator[Row]:
    """Yield the scores of the models of a cell."""
    for model in models_of(models, pilot, cohort):

        def score(model: Named = model) -> Iterator[Row]:
            observed = pilot.observed(cohort.cell)
            values = predicted(pilot, model, cohort, folder, test=True, threads=models.threads)
            for mark, (mean, sd) in zip(MARKS, values[:, :, pilot.test], strict=True):
                if mark in observed:
                    found = signal_scores(observed[mark][pilot.test], mean, sd)
                    yield from _rows(cohort.cell, mark, MODEL, model.seed, found)

        yield from kept_rows(folder / "scores" / f"{cohort.cell}.{model.tag()}.tsv", score)


def rows_of_rivals(pilot: Pilot, cohort: Cohort, folder: Path) -> Iterator[Row]:
    """Yield the scores of what a cell's imputed tracks must beat."""
    for mark in MARKS:
        for name, rival in RIVALS.items():

            def score(mark: str = mark, name: str = name, rival=rival) -> Iterator[Row]:
                tracks = {cell: pilot.observed(cell) for cell in (cohort.cell, *cohort.others)}
                own = tracks[cohort.cell]
                marks = [each for each in MARKS if each in own]
                setting = Setting(tracks, pilot.grid.edges, ~pilot.test, marks, seed=0, known=cohort.known)
                rows = np.flatnonzero(pilot.test)
                mean, sd = with_spread(rival, setting, cohort.cell, mark, cohort.others, rows)
                yield from _rows(cohort.cell, mark, name, "-", signal_scores(own[mark][pilot.test], mean, sd))

            if mark in pilot.files(cohort.cell):
                path = folder / "scores" / f"{cohort.cell}.{mark}.{name.replace(', ', '_').replace(' ', '_')}.tsv"
                path = path.with_stem(f"{path.stem}.known") if cohort.known and name in LEARNING else path
                yield from kept_rows(path, score)


def _rows(cell: str, mark: str, method: str, seed: str, found: dict[str, float]) -> Iterator[Row]:
    for score, value in found.items():
        yield Row(f"{cell}/{mark}", mark, method, seed, score, value)


def run(pilot: Pilot, models: Models, folder: Path, cohorts: Sequence[Cohort] | None = None, name: str = "R1") -> None:
    """Score the models and their rivals in each cell, print the table and draw it."""
    chosen = leave_one_out() if cohorts is None else cohorts
    rows = [row for cohort in chosen for row in rows_of_rivals(pilot, cohort, folder)]
    rows += [row for cohort in chosen for row in rows_of_model(pilot, models, cohort, folder)]
    kind = "a known cell" if all(cohort.known for cohort in chosen) else "a cell that nothing learned from"
    n_others = len(chosen[0].others)
    title = f"a mark of {kind}, from its others and {n_others} other cells, chr20-22; arcsinh(-log10 p)"
    tables.report(name, title, rows, folder, shown=SHOWN, model=MODEL)
    figures.bars(rows, folder / f"{name}.svg", scores=DRAWN, model=MODEL, title=title)
    if cohorts is None:
        print(f"  the average differs from the published scores by at most {_difference(pilot, rows):.5f}")


def _difference(pilot: Pilot, rows: Sequence[Row]) -> float:
    """Return how far the scores of the average are from those that came with the data."""
    lines = (pilot.data / "roadmap_pilot_hg19" / PUBLISHED).read_text().splitlines()
    header, *table = (line.split("\t") for line in lines)
    published = {(row["cell"], row["assay"]): row for row in (dict(zip(header, line, strict=True)) for line in table)}
    return float(
        np.max(
            [
                abs(row.value - float(published[tuple(row.track.split("/"))][row.score]))
                for row in rows
                if row.method == "average of others" and row.score in ("pearson", "spearman", "mse")
            ]
        )
    )
