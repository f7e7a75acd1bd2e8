"""R1C: does a calibration that was fitted on held-out cells hold in another cell?

For each cell, the predictions of the other three on chr1-19, each by the model that never saw that cell, are what a
correction of each mark is fitted to; it is judged on the cell's chr20-22. The hidden track of the cell is not among
them. (The models of the other three cells did learn from this cell's chr1-19: they are not wholly without it.) Beside
it stands a fit to the hidden track's own chr1-19: what such a correction can do at all.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import figures
import numpy as np
import tables
from impute import models_of, predicted
from numpy.typing import NDArray
from pilot import CELLS, MARKS, Pilot, leave_one_out
from trained import Models
from units import Row, kept_rows

from candi_cli.evaluation.calibration import coverage, critical_levels, pit_error
from candi_cli.evaluation.crps import crps
from candi_cli.evaluation.distributions import censored_normal_cdf
from candi_cli.evaluation.levels import Levels, fit_levels
from candi_cli.evaluation.recalibration import SignalFactors, fit_signal_factors

BEFORE, AFTER, OWN = "before", "after", "fitted to the track itself"
SHOWN = ("pit_error", "coverage_90", "coverage_95", "crps")
COVERED = (0.9, 0.95)
Array = NDArray[np.floating]


class Correction(NamedTuple):
    """What a fit on held-out cells found: factors of the distribution, and levels to ask for of its intervals."""

    factors: SignalFactors
    levels: Levels | None


UNCHANGED = Correction(SignalFactors(), None)


class HeldOutTrack(NamedTuple):
    """A mark of a cell that the model never saw: what was observed, (L,), and the mean and sd predicted, (2, L)."""

    observed: Array
    parameters: Array


def fit(tracks: Sequence[HeldOutTrack]) -> Correction:
    """Return the correction that `candi calibrate --fit` would make of some cells' tracks, which count alike."""
    observed = np.concatenate([track.observed for track in tracks])
    parameters = np.concatenate([track.parameters for track in tracks], axis=1)
    factors = fit_signal_factors(observed, parameters, censored=True)
    after = factors.apply(parameters)
    critical = critical_levels(censored_normal_cdf(observed, *after))
    return Correction(factors, fit_levels("signal", critical, after[0]))


def judge(correction: Correction, track: HeldOutTrack) -> dict[str, float]:
    """Return the calibration of a track after a correction: coverage is that of the intervals as they are delivered."""
    parameters = correction.factors.apply(track.parameters)
    cumulative = censored_normal_cdf(track.observed, *parameters)
    critical = critical_levels(cumulative)
    found = {
        "pit_error": pit_error(cumulative),
        "crps": float(crps("signal", track.observed, parameters, censored=True).mean()),
    }
    for level in COVERED:
        asked = correction.levels.at(level, parameters[0]) if correction.levels else None
        inside = coverage(critical, [level])[0] if asked is None else np.mean(critical <= asked)
        found[f"coverage_{round(100 * level)}"] = float(inside)
    return found


def held_out_tracks(
    pilot: Pilot, models: Models, number: int, folder: Path, *, test: bool
) -> dict[tuple[str, str], HeldOutTrack]:
    """Return each mark of each cell by the cell's model of one seed, on chr20-22 or on the other chromosomes."""
    bins = pilot.test if test else ~pilot.test
    found = {}
    for cohort in leave_one_out():
        model = models_of(models, pilot, cohort)[number]
        values = predicted(pilot, model, cohort, folder, test=test, threads=models.threads)
        observed = pilot.observed(cohort.cell)
        for row, mark in enumerate(MARKS):
            found[cohort.cell, mark] = HeldOutTrack(observed[mark][bins], values[row][:, bins])
    return found


def _scored(pilot: Pilot, models: Models, number: int, seed: str, folder: Path) -> Iterator[Row]:
    learned, judged = (held_out_tracks(pilot, models, number, folder, test=test) for test in (False, True))
    for cell in CELLS:
        for mark in MARKS:
            found = {
                BEFORE: UNCHANGED,
                AFTER: fit([learned[other, mark] for other in CELLS if other != cell]),
                OWN: fit([learned[cell, mark]]),
            }
            for name, correction in found.items():
                for score, value in judge(correction, judged[cell, mark]).items():
                    yield Row(f"{cell}/{mark}", mark, name, seed, score, value)


def run(pilot: Pilot, models: Models, folder: Path) -> None:
    """Score calibration before and after the fit, print the table and draw it."""
    rows: list[Row] = []
    named = [models_of(models, pilot, cohort) for cohort in leave_one_out()]
    for number, same_seed in enumerate(zip(*named, strict=True)):
        tag = "_".join(model.tag()[:6] for model in same_seed)
        seed = same_seed[0].seed
        path = folder / "scores" / f"transfer.{tag}.tsv"
        rows += kept_rows(path, lambda number=number, seed=seed: _scored(pilot, models, number, seed, folder))
    tables.report(
        "R1C", "a calibration fitted on three held-out cells' chr1-19, in a fourth cell's chr20-22", rows, folder,
        shown=SHOWN, model=AFTER,
    )  # fmt: skip
    _print_tracks(rows)
    before, after = (
        tables.by_track(row for row in rows if (row.method, row.score) == (name, "pit_error"))
        for name in (BEFORE, AFTER)
    )
    figures.pairs(
        list(before.values()), list(after.values()), folder / "R1C.svg", title="imputed marks of held-out cells",
        label="PIT error",
    )  # fmt: skip


def _print_tracks(rows: Sequence[Row]) -> None:
    """Print PIT error and coverage of each track, in the mean over seeds."""
    print("  track, PIT error, coverage of 90 % and of 95 % intervals: before -> after (if fitted to the track itself)")
    found = {
        (name, score): tables.by_track(row for row in rows if (row.method, row.score) == (name, score))
        for name in (BEFORE, AFTER, OWN)
        for score in SHOWN
    }
    for track in found[BEFORE, "pit_error"]:
        texts = [
            f"{found[BEFORE, score][track]:.3f} -> {found[AFTER, score][track]:.3f} ({found[OWN, score][track]:.3f})"
            for score in SHOWN[:3]
        ]
        print(f"  {track:16}" + "   ".join(texts))
