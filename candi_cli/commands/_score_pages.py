"""What the pages of `candi calibrate`, `cindex` and `evaluate` show: tables and pictures of their scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.commands._judging import Judgement
from candi_cli.evaluation.calibration import PIT_LEVELS
from candi_cli.evaluation.reliability import ReliabilityCurve
from candi_cli.evaluation.scores import CvErrors
from candi_cli.evaluation.tallies import LEVELS, Curves
from candi_cli.judging.calibration import Calibration
from candi_cli.judging.classes import GENOME, Mask
from candi_cli.judging.table import ALL, MODEL, Row
from candi_cli.judging.tracks import JudgedTrack
from candi_cli.report.judgement import Estimate, JudgementReport, Table
from candi_cli.report.pictures import Bars, Density, Histogram, Lines, Picture

Array = NDArray[np.float64]
_CELLS, _SHOWN_CV = 60, 0.999  # of maps, along each axis; the share of bins that a map of errors by CV shows
_IN_WORDS = {"counts": "reads per bin", "signal": "arcsinh(-log10 p)"}


class Calibrated(NamedTuple):
    """The curves of one track, for pictures."""

    name: str
    pool: str
    kind: str
    curves: dict[str, Curves]
    reliability: ReliabilityCurve | None

    @classmethod
    def of(cls, track: JudgedTrack, found: Calibration, *, predictor: str = MODEL) -> "Calibrated":
        """Return the curves of a track."""
        name = _name(track) if predictor == MODEL else f"{_name(track)}, recalibrated"
        plain = {key: curve for key, curve in found.curves.items() if key == predictor}
        return cls(name, track.pool, track.kind, plain, found.reliability)


class Agreement(NamedTuple):
    """What pictures of one track's agreement are drawn from.

    Attributes
    ----------
    edges : of both axes of `density`, in arcsinh of reads, or in arcsinh(-log10 p)
    density : bins of each observed (rows) and predicted (columns) value
    cv_edges : of the coefficient of variation; cv_map : bins of each coefficient (rows) and absolute error (columns),
        the error in the unit of `edges`
    """

    name: str
    pool: str
    kind: str
    edges: Array
    density: NDArray[np.int64]
    cv_edges: Array
    cv_map: NDArray[np.int64]
    errors: CvErrors | None

    @classmethod
    def of(cls, track: JudgedTrack, chosen: Mask, errors: CvErrors | None) -> "Agreement":
        """Return what is drawn of the chosen bins of a track."""
        observed = track.observed[chosen].astype(np.float64)
        expected = track.expected[chosen]
        if track.kind == "counts":
            observed, expected = np.arcsinh(observed), np.arcsinh(expected)
        top = max(float(np.max(observed, initial=0)), float(np.max(expected, initial=0)), 1e-6)
        edges = np.linspace(0, top, _CELLS + 1)
        density = np.histogram2d(observed, np.clip(expected, 0, None), bins=(edges, edges))[0].astype(np.int64)
        cv = track.cv[chosen]
        cv_edges = np.linspace(0, float(np.quantile(cv, _SHOWN_CV)) if len(cv) else 1, _CELLS + 1)
        cv_edges = cv_edges if cv_edges[-1] > 0 else np.linspace(0, 1, _CELLS + 1)
        cv_map = np.histogram2d(cv, np.abs(observed - expected), bins=(cv_edges, edges))[0].astype(np.int64)
        return cls(_name(track), track.pool, track.kind, edges, density, cv_edges, cv_map, errors)


def _name(track: JudgedTrack) -> str:
    return f"{track.biosample} {track.assay}"


def calibration_page(judgement: Judgement, rows: Sequence[Row], judged: Sequence[Calibrated]) -> JudgementReport:
    """Return the page of `candi calibrate`."""
    scores = ("pit_error", "coverage_50", "coverage_90", "coverage_95", "crps", "sharpness", "bias")
    delivered = tuple(name for name in ("delivered_coverage_90", "delivered_coverage_95") if _has(rows, name))
    tables = [
        _table("Distributions", (*scores, *delivered), rows, ("counts", "signal"), _DISTRIBUTIONS),
        _table("Peaks", ("ece", "brier", "log_loss", "auroc", "auprc", "base_rate"), rows, ("peaks",), _PEAKS),
    ]
    pictures: list[Picture] = []
    for kind in ("counts", "signal"):
        for pool in dict.fromkeys(each.pool for each in judged):
            here = [each for each in judged if each.kind == kind and each.pool == pool]
            if here:
                pictures += _calibration_pictures(kind, pool, here)
    for pool in dict.fromkeys(each.pool for each in judged):
        here = [each for each in judged if each.reliability is not None and each.pool == pool]
        if here:
            pictures.append(_reliability_picture(pool, here))
    return _report(judgement, "calibrate", "Calibration", rows, tables, pictures, _READ_CALIBRATION)


def _calibration_pictures(kind: str, pool: str, here: Sequence[Calibrated]) -> list[Picture]:
    curves = {each.name: curve for each in here for curve in each.curves.values()}
    known = {name: curve for name, curve in curves.items() if np.isfinite(curve.pit).all()}
    if not known:
        return []
    shown = _each(known, "coverage")
    if kind == "counts" and len(known) <= _FEW:
        shown |= {f"{name}, if it were right": curve.expected for name, curve in known.items()}
    widths = np.diff(PIT_LEVELS)
    return [
        Lines(
            f"coverage_{kind}_{pool}", f"Coverage of central intervals, {kind}, {pool}", _COVERAGE[kind],
            "level of the interval", "share of bins inside", LEVELS, shown, diagonal=True,
        ),
        Lines(
            f"pit_{kind}_{pool}", f"PIT, {kind}, {pool}",
            "Mean distribution function of the non-randomised probability integral transform (Czado, Gneiting & Held "
            "2009): on the diagonal where the predicted distributions are right, for whole counts too.",
            "probability", "share of observations below", PIT_LEVELS, _each(known, "pit"),
            diagonal=True,
        ),
        Histogram(
            f"pit_histogram_{kind}_{pool}", f"PIT histogram, {kind}, {pool}",
            "Flat where the predicted distributions are right; a valley: too narrow; a hill: too wide; a slope: bias.",
            "probability", PIT_LEVELS, {name: np.diff(curve.pit) / widths for name, curve in known.items()}, 1.0,
        ),
    ]  # fmt: skip


def _each(curves: Mapping[str, Curves], name: str) -> dict[str, Any]:
    return {key: getattr(curve, name) for key, curve in curves.items()}


def _reliability_picture(pool: str, here: Sequence[Calibrated]) -> Lines:
    found = {each.name: each.reliability for each in here if each.reliability is not None}
    kept = {name: np.isfinite(curve.observed) for name, curve in found.items()}
    return Lines(
        f"reliability_{pool}", f"Reliability of peaks, {pool}",
        "How often bins are in a peak that are predicted to be at a probability: on the diagonal where it is right.",
        "predicted probability", "share of bins in a peak", np.linspace(0, 1, 2),
        {name: curve.observed[kept[name]] for name, curve in found.items()}, diagonal=True,
        xs={name: curve.probability[kept[name]] for name, curve in found.items()},
    )  # fmt: skip


def concordance_page(judgement: Judgement, rows: Sequence[Row]) -> JudgementReport:
    """Return the page of `candi cindex`."""
    scores = ("cindex", "harrell_c", "oriented_probability", "comparable_pairs")
    tables = [_table("Concordance", scores, rows, ("counts", "signal"), _CONCORDANCE)]
    pictures: list[Picture] = []
    for kind in ("counts", "signal"):
        for pool in dict.fromkeys(row.pool for row in rows):
            here = [row for row in rows if row.track == kind and row.pool == pool and row.score == "cindex"]
            if here:
                title = f"Concordance index, {kind}, {pool}"
                pictures.append(_bars(f"cindex_{kind}_{pool}", title, "C-index (paper)", here, by="region"))
    return _report(judgement, "cindex", "Concordance", rows, tables, pictures, _READ_CONCORDANCE)


def evaluation_page(
    judgement: Judgement, rows: Sequence[Row], judged: Sequence[Agreement], summary: Sequence[Row]
) -> JudgementReport:
    """Return the page of `candi evaluate`."""
    tables = [
        _table(
            "Tracks", ("pearson", "spearman", "mse", "r2", "nll"), rows, ("counts", "signal"), _TRACKS, every=True
        ),
        _table("Peaks", ("auprc", "auroc", "precision", "recall", "base_rate"), rows, ("peaks",), _PEAKS, every=True),
        _table("Mean over tracks, and gains over baselines", ("pearson", "spearman", "mse", "nll"), summary,
               ("counts", "signal", "peaks"), _GAINS, every=True),
        _expression_table(rows),
    ]  # fmt: skip
    pictures: list[Picture] = []
    for kind in ("counts", "signal"):
        for pool in dict.fromkeys(each.pool for each in judged):
            for score, label in (("pearson", "Pearson"), ("mse", "MSE")):
                here = [
                    row for row in rows
                    if (row.track, row.pool, row.region, row.score) == (kind, pool, GENOME, score)
                    and row.biosample != ALL
                ]  # fmt: skip
                if here:
                    title = f"{label}, {kind}, {pool}"
                    pictures.append(_bars(f"{score}_{kind}_{pool}", title, label, here, by="predictor"))
            here_tracks = [each for each in judged if each.kind == kind and each.pool == pool]
            pictures += _agreement_pictures(kind, pool, here_tracks)
    return _report(judgement, "evaluate", "Evaluation", [*rows, *summary], tables, pictures, _READ_EVALUATION)


_MOST_DENSITIES, _FEW = 6, 3  # tracks that are drawn one by one; with a second curve each


def _agreement_pictures(kind: str, pool: str, here: Sequence[Agreement]) -> list[Picture]:
    found: list[Picture] = []
    unit = "arcsinh(reads per bin)" if kind == "counts" else "arcsinh(-log10 p)"
    for number, each in enumerate(here[:_MOST_DENSITIES]):
        more = f"; {len(here) - _MOST_DENSITIES} more tracks are not drawn" if number == _MOST_DENSITIES - 1 else ""
        found.append(
            Density(
                f"scatter_{kind}_{pool}_{number + 1}", f"{each.name}, {kind}, {pool}",
                f"Bins by observed and predicted value{more if len(here) > _MOST_DENSITIES else ''}.",
                f"observed, {unit}", f"predicted, {unit}", each.edges, each.edges, each.density, diagonal=True,
            )
        )  # fmt: skip
        found.append(
            Density(
                f"cv_map_{kind}_{pool}_{number + 1}",
                f"{each.name}, {kind}, {pool}: error by predicted uncertainty",
                "Bins by coefficient of variation and error. Of counts, the one falls with the mean, the other rises.",
                "coefficient of variation (sd / mean)", f"absolute error, {unit}", each.cv_edges, each.edges,
                each.cv_map,
            )
        )  # fmt: skip
    errors = {each.name: each.errors for each in here if each.errors is not None}
    if errors:
        found.append(
            Lines(
                f"cv_{kind}_{pool}", f"Error by predicted uncertainty, {kind}, {pool}",
                "Mean absolute error of bins in groups of rising coefficient of variation (sd / mean).",
                "coefficient of variation", f"mean absolute error, {_IN_WORDS[kind]}", np.linspace(0, 1, 2),
                {name: each.mean_absolute_error[each.n > 0] for name, each in errors.items()}, diagonal=False,
                xs={name: each.cv[each.n > 0] for name, each in errors.items()},
            )
        )  # fmt: skip
    return found


def _bars(key: str, title: str, label: str, rows: Sequence[Row], *, by: str) -> Bars:
    groups = list(dict.fromkeys(f"{row.biosample} {row.assay}" for row in rows))
    names = list(dict.fromkeys(getattr(row, by) for row in rows))
    values = {name: np.full(len(groups), np.nan) for name in names}
    errors = {name: np.full(len(groups), np.nan) for name in names}
    for row in rows:
        place = groups.index(f"{row.biosample} {row.assay}")
        values[getattr(row, by)][place] = row.value
        errors[getattr(row, by)][place] = row.standard_error
    caption = "Bars are scores, lines their standard errors over blocks of the genome."
    return Bars(key, title, caption, label, groups, values, errors)


def _has(rows: Iterable[Row], score: str) -> bool:
    return any(row.score == score for row in rows)


def _table(
    title: str, scores: Sequence[str], rows: Sequence[Row], kinds: Sequence[str], caption: str, *, every: bool = False
) -> Table:
    """Return a table of scores over all bins, a row for each track and predictor.

    Parameters
    ----------
    every : also predictors other than the model's
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        shown = every or row.predictor.startswith(MODEL)
        if row.region == GENOME and row.track in kinds and row.score in scores and shown:
            key = (row.biosample, row.assay, row.pool, row.track, row.predictor)
            found.setdefault(key, {})[row.score] = Estimate(row.value, row.standard_error)
    columns = ["biosample", "assay", "pool", "track", "predictor", *scores]
    lines = [dict(zip(columns, key, strict=False)) | cells for key, cells in found.items()]
    return Table(title, caption, columns, lines)


def _expression_table(rows: Sequence[Row]) -> Table:
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        if row.track == "expression":
            key = (row.pool, row.predictor)
            found.setdefault(key, {})[row.score] = Estimate(row.value, row.standard_error)
    columns = ["features", "regression", "pearson", "spearman", "r2"]
    lines = [dict(zip(columns, key, strict=False)) | cells for key, cells in found.items()]
    return Table("Expression", _EXPRESSION, columns, lines)


def _report(
    judgement: Judgement,
    command: str,
    title: str,
    rows: Sequence[Row],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    how_to_read: Sequence[str],
) -> JudgementReport:
    facts: Mapping[str, Any] = judgement.facts
    kept = [table for table in tables if table.rows]
    return JudgementReport(
        command, title, judgement.subject, list(rows), kept, list(pictures), dict(facts),
        list(judgement.notes), list(how_to_read),
    )  # fmt: skip


_DISTRIBUTIONS = "Scores over all judged bins, with standard errors over blocks of the genome."
_PEAKS = "Scores of the predicted probability of a peak, over all judged bins."
_CONCORDANCE = "Concordance over all judged bins; errors of the C-index are over blocks of the genome."
_TRACKS = "Scores over all judged bins. Baselines are fitted to the very truth that they are compared with."
_GAINS = "Errors are clustered by track: tracks vary, bins of one track do not count as independent."
_EXPRESSION = "Expression of genes that no fold shares, predicted from their start, body and end."
_COVERAGE = {
    "counts": "Whole counts: an interval holds at least its level, more so the fewer the reads. Even a perfect one "
    "lies above the diagonal; judge counts by the PIT.",
    "signal": "On the diagonal where the predicted distributions are right; below it they are too narrow. Signal has a "
    "point mass at 0, which a Gaussian has not; see 'censored at 0' in the scores.",
}
_READ_CALIBRATION = (
    "pit_error is the mean distance of the PIT curve from the diagonal, 0 to 0.5; it is the score to decide by, of "
    "counts and signal alike.",
    "Coverage of intervals is no test of counts: a perfect negative binomial of mean 1 and n = 2 has an interval error "
    "of 0.29 and a PIT error near 0. expected_coverage is what a perfect forecast of these distributions would have.",
    "crps is a distance in the units of the track; sharpness is the mean predicted sd: of two calibrated forecasts the "
    "sharper one knows more.",
    "Strata are by what was predicted: bins picked by what was observed are no fair test of a forecast.",
)
_READ_CONCORDANCE = (
    "cindex is the paper's: the AUC of P(Y_i > Y_j) under the predicted distributions against the observed order of "
    "pairs. An overall wrong spread does not change it, so show calibration beside it.",
    "harrell_c compares the means alone, over all pairs; oriented_probability is the mean probability of the observed "
    "order, and falls when spreads are too wide.",
    "The standard error is over blocks of the genome; that of drawing pairs is far smaller.",
    "comparable_pairs is the share of pairs whose observed values differ.",
)
_READ_EVALUATION = (
    "Denoising is compared with reads that the model did not see, imputation with assays that it did not see.",
    "Every baseline is fitted to the truth itself (scale, bandwidth, dispersion), so it is the best of its kind.",
    "A gain is positive where the model is better, whatever the score.",
)
