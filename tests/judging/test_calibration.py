"""Rows of `calibrate`: strata add up, intervals deliver what they say, and errors leave out one block at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from candi_cli.evaluation.calibration import critical_levels
from candi_cli.evaluation.distributions import censored_normal_cdf, negative_binomial_cdf
from candi_cli.evaluation.levels import fit_levels
from candi_cli.genome import Region
from candi_cli.judging.calibration import CENSORED, calibration
from candi_cli.judging.classes import STRATA
from candi_cli.judging.grid import Grid
from candi_cli.judging.table import MODEL, Row, chosen
from candi_cli.judging.tracks import JudgedTrack

N = 6_401
SUMMED = ("nll", "crps", "coverage_50", "coverage_90", "coverage_95", "sharpness", "mean_observed", "bias")


@pytest.fixture
def signal(make_track, rng: np.random.Generator) -> JudgedTrack:
    mean, sd = rng.normal(0.8, 1, N), np.exp(0.3 * rng.normal(size=N))
    observed = np.maximum(mean + 1.5 * sd * rng.normal(size=N), 0)  # wider than it was said
    observed[::40] = np.nan
    return make_track("signal", observed, mean, sd)


@pytest.fixture
def counts(make_track, rng: np.random.Generator) -> JudgedTrack:
    log_mean, log_n = rng.normal(0.5, 1, N), np.full(N, 0.5)
    n, mean = np.exp(log_n) / 3, np.exp(log_mean)
    return make_track("counts", rng.negative_binomial(n, n / (n + mean)).astype(float), log_mean, log_n)


@pytest.fixture
def masks(rng: np.random.Generator) -> dict[str, np.ndarray]:
    kept = rng.random(N) < 0.9
    return {"genome": kept, "mine": kept & (np.arange(N) % 5 == 0), "empty": np.zeros(N, dtype=bool)}


def by_score(rows: list[Row], region: str, predictor: str = MODEL) -> dict[str, Row]:
    return {row.score: row for row in chosen(rows, region=region, predictor=predictor)}


@pytest.mark.parametrize(("kind", "predictor"), [("signal", MODEL), ("signal", MODEL + CENSORED), ("counts", MODEL)])
def test_all_bins_are_the_sum_of_the_strata(kind: str, predictor: str, signal, counts, masks):
    track = signal if kind == "signal" else counts
    rows = calibration(track, masks).rows
    whole = by_score(rows, "genome", predictor)
    parts = [by_score(rows, f"predicted {name}", predictor) for name in STRATA]
    here = masks["genome"] & track.known
    assert whole["crps"].n == here.sum() == sum(part["crps"].n for part in parts)
    for score in SUMMED:
        total = sum(part[score].n * part[score].value for part in parts)
        assert whole[score].value == pytest.approx(total / whole[score].n, rel=1e-9), score
    highest = here & (track.expected > np.quantile(track.expected[here], 0.99))
    assert parts[-1]["mean_observed"].n == highest.sum()
    assert parts[-1]["mean_observed"].value == pytest.approx(track.observed[highest].mean(), rel=1e-6)


def test_scores_of_signal_are_scipys(signal: JudgedTrack, masks):
    rows = calibration(signal, masks).rows
    for region in ("genome", "mine"):
        here = masks[region] & signal.known
        y, (mean, sd) = signal.observed[here].astype(float), signal.parameters[:, here].astype(float)
        found = by_score(rows, region)
        assert found["nll"].value == pytest.approx(-stats.norm.logpdf(y, mean, sd).mean(), rel=1e-9)
        z = (y - mean) / sd
        crps = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
        assert found["crps"].value == pytest.approx(crps.mean(), rel=1e-9)
        for level in (50, 80, 90, 95):
            inside = np.abs(z) <= stats.norm.ppf((1 + level / 100) / 2)
            assert found[f"coverage_{level}"].value == pytest.approx(inside.mean())
        assert found["bias"].value == pytest.approx((mean - y).mean(), rel=1e-6)


def test_scores_of_counts_are_scipys(counts: JudgedTrack, masks):
    found = by_score(calibration(counts, masks).rows, "mine")
    here = masks["mine"]
    log_mean, log_n = counts.parameters[:, here].astype(float)
    n = np.exp(log_n)
    frozen, y = stats.nbinom(n, n / (n + np.exp(log_mean))), counts.observed[here]
    assert found["nll"].value == pytest.approx(-frozen.logpmf(y).mean(), rel=1e-6)
    for level in (50, 90, 95):
        lower, upper = frozen.ppf((1 - level / 100) / 2), frozen.ppf((1 + level / 100) / 2)
        assert found[f"coverage_{level}"].value == pytest.approx(((y >= lower) & (y <= upper)).mean(), abs=1e-9)
        expected = (frozen.cdf(upper) - frozen.cdf(lower - 1)).mean()
        assert found[f"expected_coverage_{level}"].value == pytest.approx(expected, abs=1e-6)
    assert found["sharpness"].value == pytest.approx(frozen.std().mean(), rel=1e-6)


@pytest.mark.parametrize("kind", ["signal", "counts"])
def test_recalibrated_levels_deliver_their_coverage_and_plain_ones_have_no_such_row(kind: str, signal, counts, masks):
    track = signal if kind == "signal" else counts
    assert not [row for row in calibration(track, masks).rows if row.score.startswith("delivered")]
    cdf = negative_binomial_cdf if kind == "counts" else censored_normal_cdf
    parameters = track.parameters.astype(float)
    here = masks["genome"] & track.known
    critical = critical_levels(cdf(track.observed[here].astype(float), *parameters[:, here]))
    levels = fit_levels(kind, critical, parameters[0, here])
    found = calibration(replace(track, levels=levels), masks, predictor="after")
    plain = by_score(found.rows, "genome", "after")
    for level in (50, 80, 90, 95):
        row = plain[f"delivered_coverage_{level}"]
        # what was written: bounds of the interval at the level of each bin
        asked = levels.at(level / 100, parameters[0, here])
        one, other = parameters[:, here]
        y = track.observed[here].astype(float)
        if kind == "counts":
            frozen = stats.nbinom(np.exp(other), np.exp(other) / (np.exp(other) + np.exp(one)))
            lower, upper = frozen.ppf((1 - asked) / 2), frozen.ppf((1 + asked) / 2)
        else:
            lower, upper = (
                np.maximum(stats.norm.ppf(tail, one, other), 0) for tail in ((1 - asked) / 2, (1 + asked) / 2)
            )
        written = ((y >= lower - 1e-6) & (y <= upper + 1e-6)).mean()
        assert row.value == pytest.approx(written, abs=2e-3)
        if kind == "signal":
            assert row.value == pytest.approx(max(level / 100, (y == 0).mean()), abs=0.03)
            assert plain["coverage_50"].value < 0.45
        assert row.value > level / 100 - 0.01  # strata with few bins borrow from others
        assert row.n == here.sum()
        assert row.standard_error > 0


def test_errors_of_peaks_leave_out_one_block_at_a_time(make_track, masks, rng: np.random.Generator):
    logit = np.round(rng.normal(-1, 2, N) * 4) / 4  # exact in bfloat16
    peaks = (rng.random(N) < 1 / (1 + np.exp(-logit))).astype(float)
    peaks[::30] = np.nan
    track = make_track("peaks", peaks, logit)
    rows = calibration(track, masks).rows
    of = {
        "auroc": metrics.roc_auc_score, "auprc": metrics.average_precision_score,
        "brier": metrics.brier_score_loss, "log_loss": metrics.log_loss, "base_rate": lambda y, p: y.mean(),
    }  # fmt: skip
    for region in ("genome", "mine"):
        here = masks[region] & np.isfinite(peaks)
        y, p, blocks = peaks[here], track.expected[here], track.grid.blocks[here]
        for score, scored in of.items():
            row = by_score(rows, region)[score]
            left_out = [scored(y[blocks != g], p[blocks != g]) for g in np.unique(blocks)]
            assert len(left_out) > 3
            assert row.value == pytest.approx(scored(y, p), rel=1e-6), score
            assert row.standard_error == pytest.approx(np.sqrt((len(left_out) - 1) * np.var(left_out)), rel=1e-4), score


@pytest.mark.parametrize("kind", ["signal", "counts", "peaks"])
def test_what_does_not_exist_says_why(kind: str, signal, counts, make_track, masks):
    track = {"signal": signal, "counts": counts}.get(kind) or make_track("peaks", np.zeros(N), np.zeros(N))
    rows = calibration(track, masks).rows
    missing = [row for row in rows if math.isnan(row.value)]
    assert {row.region for row in missing} >= {"empty"}
    assert all(row.note for row in missing)
    assert {row.note for row in missing if row.region == "empty"} == {"no bins"}


def test_a_track_that_was_not_measured_has_rows_without_values(signal: JudgedTrack, masks):
    blank = replace(signal, observed=np.full(N, np.nan, dtype=np.float32))
    found = calibration(blank, masks)
    assert found.rows
    assert all(math.isnan(row.value) and row.n == 0 for row in found.rows)


def test_a_single_block_has_no_standard_error(make_track, rng: np.random.Generator):
    grid = Grid([Region("chrA", 0, 20_000)], 25)
    track = make_track("signal", rng.exponential(size=800), np.ones(800), np.ones(800), on=grid)
    found = by_score(calibration(track, {"genome": np.ones(800, dtype=bool)}).rows, "genome")
    assert math.isnan(found["crps"].standard_error)
    assert "fewer than two blocks" in found["crps"].note
