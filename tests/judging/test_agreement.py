"""Rows of `evaluate`, against the same numbers by scipy, scikit-learn and loops."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from candi_cli.evaluation.levels import EDGES, Levels
from candi_cli.evaluation.recalibration import LEVEL_GRID, LevelMap
from candi_cli.export.quantities import Quantity
from candi_cli.genome import Region
from candi_cli.judging.agreement import (
    MATCHED_MODEL,
    TOP_OBSERVED,
    TOP_PREDICTED,
    GeneBins,
    Predictor,
    agreement_rows,
    challenge_rows,
    errors_of,
    interval_of,
    model_log_likelihood,
    partition_rows,
    peak_rows,
    predictors,
    summary_rows,
    uncertainty_rows,
)  # fmt: skip
from candi_cli.judging.grid import Grid
from candi_cli.judging.rivals import AVERAGE, Others, Rival
from candi_cli.judging.table import ALL, MODEL, Row, chosen
from candi_cli.judging.tracks import JudgedTrack

N_A, N = 4_001, 6_401


def one(rows: Iterable[Row], **wanted: str) -> Row:
    (found,) = chosen(list(rows), **wanted)
    return found


@pytest.fixture
def signal(make_track, rng: np.random.Generator) -> JudgedTrack:
    mean = np.convolve(rng.normal(size=N), np.ones(10) / 3, mode="same") + 1
    sd = np.exp(0.3 * rng.normal(size=N) - 0.5)
    observed = np.maximum(mean + sd * rng.normal(size=N), 0)
    observed[rng.random(N) < 0.02] = np.nan
    mean[100:130] = np.nan
    return make_track("signal", observed, mean, sd)


@pytest.fixture
def counts(make_track, rng: np.random.Generator) -> JudgedTrack:
    log_mean, log_n = rng.normal(size=N), np.full(N, 0.7)
    n, mean = np.exp(log_n), np.exp(log_mean)
    return make_track("counts", rng.negative_binomial(n, n / (n + mean)).astype(float), log_mean, log_n)


@pytest.fixture
def masks(rng: np.random.Generator) -> dict[str, np.ndarray]:
    kept = rng.random(N) < 0.9
    return {"genome": kept, "mine": kept & (np.arange(N) % 5 == 0), "empty": np.zeros(N, dtype=bool)}


def others(mean: np.ndarray, n: int = 3) -> Others:
    active = np.stack([np.arange(N) % (n + 1), np.full(N, n)])
    return Others(mean, np.abs(mean) + 0.1, active, np.sort(mean), ("a", "b", "c")[:n])


# ---- tracks


@pytest.mark.parametrize("kind", ["signal", "counts"])
def test_scores_of_a_class_are_scipys(kind: str, signal: JudgedTrack, counts: JudgedTrack, masks):
    track = signal if kind == "signal" else counts
    rival = Rival(np.where(np.arange(N) % 7, 0.5 * track.expected + 0.2, np.nan), np.full(N, np.nan))
    rows = list(agreement_rows(track, predictors(track, {"rival": rival}, None), masks))
    for name, expected in ((MODEL, track.expected), ("rival", rival.expected)):
        for region, mask in masks.items():
            here = mask & track.known & np.isfinite(expected)
            found = {row.score: row for row in chosen(rows, predictor=name, region=region)}
            assert {row.n for row in found.values()} == {int(here.sum())}
            if region == "empty":
                assert all(math.isnan(row.value) and row.note == "no bins" for row in found.values())
                continue
            y, x = track.observed[here].astype(float), expected[here]
            assert found["mse"].value == pytest.approx(metrics.mean_squared_error(y, x), rel=1e-9)
            assert found["r2"].value == pytest.approx(metrics.r2_score(y, x), rel=1e-9)
            assert found["pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic, rel=1e-9)
            assert found["spearman"].value == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-9)
            assert ("nll" in found) == (name == MODEL)
            blocks = track.grid.blocks[here]
            left_out = [metrics.mean_squared_error(y[blocks != g], x[blocks != g]) for g in np.unique(blocks)]
            error = np.sqrt((len(left_out) - 1) * np.var(left_out))
            assert found["mse"].standard_error == pytest.approx(error, rel=1e-6)


def test_the_log_likelihood_is_scipys(signal: JudgedTrack, counts: JudgedTrack, masks):
    mean, sd = signal.parameters.astype(float)
    expected = stats.norm.logpdf(signal.observed.astype(float), mean, sd)
    np.testing.assert_allclose(model_log_likelihood(signal), expected, rtol=1e-6)  # NaN where one is not known
    log_mean, log_n = counts.parameters.astype(float)
    n = np.exp(log_n)
    expected = stats.nbinom.logpmf(counts.observed, n, n / (n + np.exp(log_mean)))
    np.testing.assert_allclose(model_log_likelihood(counts), expected, rtol=1e-6)
    rows = list(agreement_rows(counts, predictors(counts, {}, None), masks))
    nll = one(rows, region="genome", score="nll", predictor=MODEL)
    assert nll.value == pytest.approx(-expected[masks["genome"]].mean(), rel=1e-6)


def test_the_top_percent_is_of_what_was_observed_and_of_each_prediction(signal: JudgedTrack, masks):
    rival = Rival(np.cos(np.arange(N)), np.full(N, np.nan))
    rows = list(agreement_rows(signal, predictors(signal, {"rival": rival}, None), masks))
    here = np.flatnonzero(masks["genome"] & signal.known)
    n = int(0.01 * len(here))
    observed = signal.observed.astype(float)
    for name, expected in ((MODEL, signal.expected), ("rival", rival.expected)):
        for region, by in ((TOP_OBSERVED, observed), (TOP_PREDICTED, expected)):
            top = here[np.argsort(by[here])[-n:]]
            row = one(rows, predictor=name, region=region, score="mse")
            assert row.n == n
            assert row.value == pytest.approx(np.mean((observed[top] - expected[top]) ** 2), rel=1e-9)


def test_the_matched_model_has_the_values_of_others(signal: JudgedTrack, rng: np.random.Generator):
    beside = others(rng.exponential(size=N))
    found = {each.name: each for each in predictors(signal, {}, beside)}
    matched = found[MATCHED_MODEL].expected
    np.testing.assert_array_equal(np.isfinite(matched), signal.known)
    assert stats.kstest(matched[signal.known], beside.quantiles).statistic < 2e-3
    assert stats.spearmanr(matched[signal.known], signal.expected[signal.known]).statistic == pytest.approx(1, abs=1e-4)


def test_matched_counts_have_as_many_reads_as_were_predicted(counts: JudgedTrack, rng: np.random.Generator):
    found = {each.name: each for each in predictors(counts, {}, others(rng.exponential(size=N) * 50))}
    assert found[MATCHED_MODEL].expected.sum() == pytest.approx(counts.expected.sum(), rel=1e-3)


def test_peaks_are_scored_as_scikit_learn_scores_them(make_track, masks, rng: np.random.Generator):
    logit = rng.normal(-1, 2, N)
    peaks = (rng.random(N) < 1 / (1 + np.exp(-logit))).astype(float)
    peaks[::50] = np.nan
    track = make_track("peaks", peaks, logit)
    share = np.clip(np.round(rng.random(N), 1), 0, 1)
    rows = list(peak_rows(track, masks, others(share)))
    for name, probability in ((MODEL, track.expected), (AVERAGE, np.clip(share, 1e-3, 1 - 1e-3))):
        here = masks["mine"] & np.isfinite(peaks)
        found = {row.score: row.value for row in chosen(rows, predictor=name, region="mine")}
        y, p = peaks[here], probability[here]
        assert found["auroc"] == pytest.approx(metrics.roc_auc_score(y, p), abs=2e-3)
        assert found["auprc"] == pytest.approx(metrics.average_precision_score(y, p), abs=5e-3)
        assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, p), rel=1e-5)
        assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p), rel=1e-5)
        assert found["base_rate"] == pytest.approx(y.mean())
        at_half = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}
        for score, of in at_half.items():
            assert found[score] == pytest.approx(of(y, p >= 0.5), abs=5e-3), score
    empty = chosen(rows, region="empty")
    assert empty
    assert all(math.isnan(row.value) and row.note == "no bins" for row in empty)


# ---- the challenge


def genes_and_enhancers(rng: np.random.Generator) -> tuple[dict[str, GeneBins], dict[str, np.ndarray]]:
    genes, enhancers = {}, {}
    for chrom, length in (("chrA", 100_010), ("chrB", 60_000)):
        start = np.append(rng.integers(0, length - 4_000, 30), 100)
        genes[chrom] = GeneBins(start, start + rng.integers(100, 4_000, 31), rng.random(31) < 0.5)
        first = rng.integers(0, length - 500, 40)
        enhancers[chrom] = np.stack([first, first + rng.integers(10, 500, 40)], axis=1)
    return genes, enhancers


def by_loop(squares: dict[str, np.ndarray], spans: dict[str, list[tuple[int, int]]]) -> float:
    """Return the mean squared error over annotations, gene by gene; one that begins before its chromosome adds none."""
    total, n = 0.0, 0
    for chrom, pairs in spans.items():
        for first, last in pairs:
            total += squares[chrom][first:last].sum() if first >= 0 else 0
            n += last - first
    return total / n


@pytest.mark.parametrize("whole", [True, False])
def test_the_challenges_measures_are_those_of_a_loop(whole: bool, make_track, sizes, rng: np.random.Generator):
    regions = [Region("chrA", 0, 100_010), Region("chrB", 0, 60_000)]
    if not whole:
        regions = [Region("chrA", 10_000, 70_000), Region("chrB", 0, 60_000)]
    grid = Grid(regions, 25)
    n = grid.n_bins
    mean = rng.normal(1, 1, n)
    observed = np.maximum(mean + 0.5 * rng.normal(size=n), 0)
    excluded = rng.random(n) < 0.1
    variance = rng.exponential(size=n)
    track = make_track("signal", observed, mean, np.ones(n), on=grid)
    genes, enhancers = genes_and_enhancers(rng)
    several = [Predictor(MODEL, track.expected, np.full(n, np.nan))]
    rows = list(challenge_rows(track, several, genes, enhancers, variance, sizes, ~excluded))
    found = {row.score.removeprefix("challenge_"): row.value for row in rows}

    truth = np.where(excluded, 0, np.sinh(track.observed.astype(float)))
    predicted = np.where(excluded, 0, np.maximum(np.sinh(track.expected), 0))
    squares = np.square(truth - predicted)
    placed = {}
    for stretch in grid.stretches:  # put back into whole chromosomes
        placed[stretch.region.chrom] = np.zeros(-(-sizes[stretch.region.chrom] // 25))
        placed[stretch.region.chrom][stretch.first : stretch.last] = squares[stretch.place]
    inside = {stretch.region.chrom: (stretch.first, stretch.last) for stretch in grid.stretches}

    def kept(chrom: str, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        first, last = inside[chrom]
        if whole or chrom == "chrB":
            return pairs
        return [pair for pair in pairs if pair[0] >= first and pair[1] <= last]

    bodies, proms, enhs = {}, {}, {}
    for chrom, (starts, ends, reverse) in genes.items():
        spans = [(int(s) // 25, int(e) // 25 + 1) for s, e in zip(starts, ends, strict=True)]
        bodies[chrom] = kept(chrom, spans)
        proms[chrom] = kept(
            chrom, [(b, b + 80) if r else (a - 80, a) for (a, b), r in zip(spans, reverse.tolist(), strict=True)]
        )
        enhs[chrom] = kept(chrom, [(int(s) // 25, int(e) // 25 + 1) for s, e in enhancers[chrom].tolist()])
    if not whole:
        assert 0 < len(bodies["chrA"]) < 31
    assert found["msegene"] == pytest.approx(by_loop(placed, bodies), rel=1e-9)
    assert found["mseprom"] == pytest.approx(by_loop(placed, proms), rel=1e-9)
    assert found["mseenh"] == pytest.approx(by_loop(placed, enhs), rel=1e-9)
    assert found["mse"] == pytest.approx(squares.mean(), rel=1e-9)
    assert found["gwcorr"] == pytest.approx(stats.pearsonr(truth, predicted).statistic, rel=1e-9)
    assert found["gwspear"] == pytest.approx(stats.spearmanr(truth, predicted).statistic, rel=1e-9)
    weights = np.where(excluded, 0, variance)
    assert found["msevar"] == pytest.approx((weights * squares).sum() / weights.sum(), rel=1e-9)
    top = np.argsort(truth)[-int(0.01 * n) :]
    assert found["mse1obs"] == pytest.approx(squares[top].mean(), rel=1e-9)
    assert all(f"{excluded.sum():,} bins" in row.note for row in rows)


def test_without_annotation_there_are_no_rows_of_it(signal: JudgedTrack, sizes):
    several = [Predictor(MODEL, signal.expected, np.full(N, np.nan))]
    rows = list(challenge_rows(signal, several, None, None, None, sizes, np.ones(N, dtype=bool)))
    assert {row.score.removeprefix("challenge_") for row in rows} == {"mse", "gwcorr", "gwspear", "mse1obs", "mse1imp"}


# ---- groups of bins, and uncertainty


def test_partitions_are_deciles_of_the_signal_and_numbers_of_active_biosamples(signal: JudgedTrack, masks, rng):
    average = Rival(rng.normal(size=N), np.full(N, np.nan))
    beside = others(rng.exponential(size=N))
    several = predictors(signal, {AVERAGE: average, "best marginal": average}, None)
    rows = list(partition_rows(signal, several, masks["genome"], beside))
    assert {row.predictor for row in rows} == {MODEL, AVERAGE}
    assert {row.score for row in rows} == {"mse", "pearson"}
    here = np.flatnonzero(masks["genome"] & signal.known)
    by_strength = [row for row in rows if row.region.startswith("signal") and row.predictor == MODEL]
    assert sum(row.n for row in by_strength if row.score == "mse") == len(here)
    order = here[np.argsort(signal.observed[here])]
    top = order[-(len(here) // 10) :]
    expected = np.mean((signal.observed[top] - signal.expected[top]) ** 2)
    assert one(by_strength, region="signal 90-100 %", score="mse").value == pytest.approx(expected, rel=0.02)
    nowhere = here[beside.active[0, here] == 0]
    row = one(rows, region="active in none", score="mse", predictor=MODEL)
    assert row.n == len(nowhere)
    assert row.value == pytest.approx(np.mean((signal.observed[nowhere] - signal.expected[nowhere]) ** 2), rel=1e-6)


def uncertainty(track: JudgedTrack, kept: np.ndarray) -> Iterable[Row]:
    return uncertainty_rows(track, kept, errors_of(track, kept))


@pytest.mark.parametrize("kind", ["signal", "counts"])
def test_uncertainty_by_scipy(kind: str, signal: JudgedTrack, counts: JudgedTrack, masks):
    track = signal if kind == "signal" else counts
    here = masks["genome"] & track.known
    y, x = track.observed[here].astype(float), track.expected[here]
    one_, other = track.parameters[:, here].astype(float)
    if kind == "counts":
        n, mean = np.exp(other), np.exp(one_)
        frozen = stats.nbinom(n, n / (n + mean))
        sd, upper = frozen.std(), frozen.ppf(0.975)
    else:
        sd, upper = other, np.maximum(stats.norm.ppf(0.975, one_, other), 0)
    cv = track.cv[here]
    if kind == "counts":
        np.testing.assert_allclose(cv, sd / x, rtol=1e-6)
    rows = list(uncertainty(track, masks["genome"]))
    spearman = one(rows, score="cv_error_spearman").value
    assert spearman == pytest.approx(stats.spearmanr(cv, np.abs(y - x)).statistic, abs=1e-9)
    threshold = np.sort(y)[-int(0.01 * len(y))]
    row = one(rows, score="missed")
    assert row.n == (y >= threshold).sum()
    assert row.value == pytest.approx((y > upper)[y >= threshold].mean())
    np.testing.assert_allclose(interval_of(track, here, 0.95)[1], upper, rtol=1e-6)


def test_scores_of_misses_that_do_not_exist_say_why(make_track):
    flat = make_track("signal", np.ones(N), np.ones(N), np.ones(N))  # nothing is above its interval
    rows = list(uncertainty(flat, np.ones(N, dtype=bool)))
    missing = [row for row in rows if math.isnan(row.value)]
    assert {row.score for row in missing} == {"cv_error_spearman", "flagged_missed"}
    assert all(row.note for row in missing)
    few = make_track("signal", np.ones(50), np.ones(50), np.ones(50), on=Grid([Region("chrA", 0, 1_250)], 25))
    assert all(row.note for row in uncertainty(few, np.ones(50, dtype=bool)) if math.isnan(row.value))


def test_no_bound_of_an_interval_is_below_0(make_track):
    low = make_track("signal", np.zeros(N), np.full(N, -5.0), np.ones(N))
    lower, upper = interval_of(low, np.ones(N, dtype=bool), 0.95)
    assert (lower == 0).all()
    assert (upper == 0).all()
    assert one(uncertainty(low, np.ones(N, dtype=bool)), score="missed").value == 0  # 0 is inside


@pytest.mark.parametrize("kind", ["signal", "counts"])
def test_misses_of_a_recalibrated_model_are_of_the_intervals_that_it_writes(kind: str, signal, counts, masks):
    track = signal if kind == "signal" else counts
    asked = 0.5 + np.arange(len(EDGES[kind]) + 1) / 20  # of an interval that is to cover anything, in each stratum
    track = replace(track, levels=Levels(kind, tuple(LevelMap(levels=(each,) * len(LEVEL_GRID)) for each in asked)))
    here = masks["genome"] & track.known
    lower, upper = (
        Quantity(kind, name, (1 + sign * 0.95) / 2).of(track.parameters[:, here], track.levels)
        for name, sign in (("lower", -1), ("upper", 1))
    )
    if kind == "signal":
        lower, upper = np.arcsinh(lower), np.arcsinh(upper)
    found = interval_of(track, here, 0.95)
    np.testing.assert_allclose(found, (lower, upper), rtol=1e-9, atol=1e-9)
    y = track.observed[here].astype(float)
    high = y >= np.sort(y)[-int(0.01 * len(y))]
    plain, recalibrated = (one(uncertainty(each, masks["genome"]), score="missed").value
                           for each in (replace(track, levels=None), track))  # fmt: skip
    assert recalibrated == pytest.approx((y > upper)[high].mean())
    assert recalibrated > plain


# ---- over tracks


def table(rng: np.random.Generator, n_tracks: int = 5) -> list[Row]:
    rows = []
    for number in range(n_tracks):
        where = (f"cell{number}", "H3K4me3", "imputed", "signal", "genome")
        for score in ("mse", "pearson", "challenge_mseprom"):
            for predictor in (MODEL, "average of others"):
                rows.append(Row(*where, predictor, score, float(rng.random()), 0.1, 100))
    return rows


def test_means_and_gains_are_over_tracks(rng: np.random.Generator):
    rows = table(rng)
    found = summary_rows(rows, seed=0)
    assert {row.biosample for row in found} == {ALL}
    for score, sign in (("mse", -1), ("challenge_mseprom", -1), ("pearson", 1)):
        model, rival = (
            np.array([row.value for row in chosen(rows, score=score, predictor=name)])
            for name in (MODEL, "average of others")
        )
        mean = one(found, score=score, predictor=MODEL)
        assert (mean.value, mean.n) == (pytest.approx(model.mean()), 5)
        assert mean.standard_error == pytest.approx(stats.sem(model))
        gained = one(found, score=score, predictor="gain over average of others")
        assert gained.value == pytest.approx(sign * (model - rival).mean())
        assert gained.standard_error == pytest.approx(stats.sem(model - rival))
        n_better = int((sign * (model - rival) > 0).sum())
        assert f"better on {n_better} of 5 tracks" in gained.note
        assert f"sign test p {stats.binomtest(n_better, 5).pvalue:.2g}" in gained.note


def test_the_order_of_tracks_is_nothing_to_the_summary_and_the_seed_is(rng: np.random.Generator):
    rows = table(rng)
    first, again, reversed_, other = (
        {(row.score, row.predictor): row for row in summary_rows(each, seed=seed)}
        for each, seed in ((rows, 0), (rows, 0), (rows[::-1], 0), (rows, 1))
    )
    assert first == again
    assert first.keys() == reversed_.keys()
    for key, row in first.items():
        assert reversed_[key].value == pytest.approx(row.value, rel=1e-12)
        assert other[key].value == row.value
    assert first != other  # the interval by resamples


def test_a_track_without_a_score_is_no_part_of_the_mean(rng: np.random.Generator):
    rows = table(rng)
    lacking = Row("cell9", "H3K4me3", "imputed", "signal", "genome", MODEL, "mse", math.nan, note="no bins")
    mean = one(summary_rows([*rows, lacking], seed=0), score="mse", predictor=MODEL)
    assert (mean.n, mean.value) == (5, one(summary_rows(rows, seed=0), score="mse", predictor=MODEL).value)
