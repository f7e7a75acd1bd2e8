"""Scores against scipy and against leaving out each block by hand; top bins, errors by CV and misses by loops."""

import math

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from candi_cli.evaluation.metrics import mse, pearson, r2, spearman
from candi_cli.evaluation.scores import TrackScores, error_by_cv, in_top, jackknife_error, missed, track_scores

BLOCKS = np.repeat(np.arange(12), [50] * 11 + [17])


@pytest.fixture
def tracks(rng):
    rate = np.exp(rng.normal(size=len(BLOCKS)) + 0.5 * rng.normal(size=12)[BLOCKS])
    return rng.poisson(rate).astype(float), rate * np.exp(rng.normal(0, 0.3, len(BLOCKS)))


def left_out(metric, observed, predicted, blocks):
    return [metric(observed[blocks != block], predicted[blocks != block]) for block in np.unique(blocks)]


def test_scores_are_those_of_the_metrics(tracks):
    scores = track_scores(*tracks, BLOCKS)
    for score, metric in zip(scores, (mse, pearson, spearman, r2), strict=True):
        assert score.value == pytest.approx(metric(*tracks), rel=1e-12)
        assert (score.n, score.note) == (567, "")


@pytest.mark.parametrize(("name", "metric"), [("mse", mse), ("pearson", pearson), ("r2", r2)])
def test_errors_are_those_of_leaving_out_each_block_by_hand(name, metric, tracks):
    estimates = np.array(left_out(metric, *tracks, BLOCKS))
    expected = math.sqrt(11 / 12 * ((estimates - estimates.mean()) ** 2).sum())
    assert getattr(track_scores(*tracks, BLOCKS), name).se == pytest.approx(expected, rel=1e-9)


def test_the_error_of_spearman_is_that_of_ranks_taken_anew_to_first_order(tracks):
    anew = jackknife_error(left_out(spearman, *tracks, BLOCKS))
    assert track_scores(*tracks, BLOCKS).spearman.se == pytest.approx(anew, rel=0.05)
    # the smaller the blocks, the smaller what is beyond the first order
    blocks = np.arange(len(BLOCKS)) // 3
    anew = jackknife_error(left_out(spearman, *tracks, blocks))
    assert track_scores(*tracks, blocks).spearman.se == pytest.approx(anew, rel=0.01)


def test_the_error_of_spearman_is_not_that_of_ranks_that_stay_as_they_are(tracks):
    stayed = jackknife_error(left_out(pearson, *(rankdata(track) for track in tracks), BLOCKS))
    assert track_scores(*tracks, BLOCKS).spearman.se > 1.3 * stayed


def test_the_order_of_bins_and_the_names_of_blocks_change_nothing(rng, tracks):
    order = rng.permutation(len(BLOCKS))
    shuffled = track_scores(*(track[order] for track in tracks), (5 - 3 * BLOCKS)[order])
    for one, other in zip(track_scores(*tracks, BLOCKS), shuffled, strict=True):
        assert one[:2] == pytest.approx(other[:2], rel=1e-9)


def test_the_errors_are_what_repeated_tracks_scatter_by(rng):
    blocks = np.repeat(np.arange(40), 25)

    def draw():
        shared = rng.normal(size=(2, 40))[:, blocks]  # adjacent bins are alike
        observed = shared[0] + 0.5 * rng.normal(size=1000)
        return track_scores(observed, observed + shared[1] + 0.2 * rng.normal(size=1000), blocks)

    runs = [draw() for _ in range(150)]
    for name in TrackScores._fields:
        values, errors = np.array([getattr(run, name)[:2] for run in runs]).T
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.2)


def test_far_from_zero_the_errors_keep_their_digits(tracks):
    near = track_scores(*tracks, BLOCKS)
    far = track_scores(*(track + 1e8 for track in tracks), BLOCKS)
    for one, other in zip(near, far, strict=True):
        assert other.se == pytest.approx(one.se, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-70, 1e70])
def test_correlations_and_r2_have_no_scale(scale, tracks):
    near, far = track_scores(*tracks, BLOCKS), track_scores(*(track * scale for track in tracks), BLOCKS)
    for one, other in zip(near[1:], far[1:], strict=True):
        assert one[:2] == pytest.approx(other[:2], rel=1e-9)


def test_scores_that_do_not_exist_are_nan_with_a_reason(rng):
    track, blocks = rng.normal(size=40), np.repeat([0, 1], 20)
    flat = track_scores(np.full(40, 0.1), track, blocks)
    assert [score.note for score in flat] == ["", *["the observed track is constant"] * 3]
    assert np.isnan([score[:2] for score in flat[1:]]).all()
    dull = track_scores(track, np.full(40, 0.1), blocks)
    assert dull.pearson.note == dull.spearman.note == "the predicted track is constant"
    assert dull.r2.note == dull.mse.note == ""
    assert np.isfinite([*dull.r2[:2], *dull.mse[:2]]).all()
    for empty in track_scores([], [], []):
        assert math.isnan(empty.value)
        assert (empty.n, empty.note) == (0, "no bins")
    track[3] = np.nan
    for score in track_scores(track, rng.normal(size=40), blocks):
        assert math.isnan(score.value)
        assert "not numbers" in score.note
    single = track_scores([2.0], [3.0], [0])
    assert single.mse.value == 1
    assert single.pearson.note == "the observed track is constant"


def test_a_single_block_has_a_score_without_an_error(rng):
    for score in track_scores(rng.normal(size=30), rng.normal(size=30), np.zeros(30, int)):
        assert np.isfinite(score.value)
        assert math.isnan(score.se)
        assert score.note == "a single block has no spread between blocks"


def test_a_block_without_which_a_track_is_constant_leaves_no_error(rng):
    blocks = np.repeat([0, 1, 2, 3, 4], [7, 30, 13, 29, 11])  # whose means of 0.1 differ by rounding
    observed, predicted = np.full(90, 0.1), rng.normal(size=90)
    observed[blocks == 1] += rng.normal(size=30)
    scores = track_scores(observed, predicted, blocks)
    assert np.isfinite(scores.mse[:2]).all()
    for score in scores[1:]:
        assert np.isfinite(score.value)
        assert math.isnan(score.se)
        assert "without one of its blocks" in score.note


def test_tracks_and_blocks_of_unlike_length_are_refused():
    with pytest.raises(ValueError, match="shape"):
        track_scores([1, 2, 3], [1, 2, 3], [0, 0])


def test_the_jackknife_of_a_mean_is_the_textbooks_error(rng):
    values = rng.normal(size=20)
    estimates = [np.delete(values, row).mean() for row in range(20)]
    assert jackknife_error(estimates) == pytest.approx(values.std(ddof=1) / math.sqrt(20))
    assert math.isnan(jackknife_error([1.0]))


def test_the_highest_bins_are_the_highest_and_their_ties(rng):
    values = rng.normal(size=1000)
    assert set(np.flatnonzero(in_top(values))) == set(np.argsort(values)[-10:])
    np.testing.assert_array_equal(in_top([5, 1, 5, 0, 7, 5, 1, 2, 3, 4], 0.2), [1, 0, 1, 0, 1, 1, 0, 0, 0, 0])
    assert in_top([0, 0, 0, 2], 0.5).all()
    assert not in_top(np.arange(99.0)).any()
    assert in_top(np.arange(100.0)).sum() == 1
    with pytest.raises(ValueError, match="NaN"):
        in_top([1.0, np.nan])


def test_errors_by_cv_are_those_of_sorted_bins(rng):
    cv = rng.permutation(np.linspace(0.1, 3, 1000))
    mean = rng.normal(size=1000)
    observed = mean + cv * rng.normal(size=1000)
    found = error_by_cv(observed, mean, cv)
    order = np.argsort(cv).reshape(20, 50)
    np.testing.assert_allclose(found.cv, np.median(cv[order], axis=1))
    np.testing.assert_allclose(found.mean_absolute_error, np.abs(observed - mean)[order].mean(axis=1))
    np.testing.assert_allclose(found.rmse, np.sqrt(((observed - mean) ** 2)[order].mean(axis=1)))
    np.testing.assert_array_equal(found.n, 50)
    assert found.spearman == pytest.approx(spearmanr(cv, np.abs(observed - mean))[0])
    assert found.spearman > 0.3


def test_equal_cvs_share_a_group_and_what_is_not_a_number_is_left_out():
    cv = [0, 0, 0, 0, 1, 2, 3, 4, np.nan]
    found = error_by_cv([0, 0, 0, 2, 1, 1, 1, 9, 5], np.zeros(9), cv, n_groups=4)
    np.testing.assert_array_equal(found.n, [0, 4, 2, 2])
    np.testing.assert_array_equal(found.mean_absolute_error, [np.nan, 0.5, 1, 5])
    np.testing.assert_array_equal(found.rmse, [np.nan, 1, 1, math.sqrt(41)])
    np.testing.assert_array_equal(found.cv, [np.nan, 0, 1.5, 3.5])
    assert math.isnan(error_by_cv([1, 2, 3], [0, 0, 0], [1, 1, 1]).spearman)
    assert math.isnan(error_by_cv([], [], []).spearman)


def test_the_largest_cvs_have_a_finite_median():
    largest = np.finfo(float).max
    assert error_by_cv([1, 2], [0, 0], [largest, largest], n_groups=1).cv[0] == largest


def test_misses_and_their_flags_are_counted_bin_by_bin(rng):
    observed, lower, width = rng.exponential(size=500), rng.exponential(size=500) / 4, rng.exponential(size=500)
    cv, upper = rng.normal(size=500), lower + width
    peaks = in_top(observed, 0.2)
    found = missed(observed, lower, upper, peaks, cv, cv_share=0.3)
    above = [k for k in range(500) if peaks[k] and observed[k] > upper[k]]
    below = [k for k in range(500) if peaks[k] and observed[k] < lower[k]]
    flags = set(np.argsort(cv)[-150:])
    assert list(np.flatnonzero(found.missed)) == above
    assert (found.n, found.n_above, found.n_below) == (100, len(above), len(below))
    assert 0 < len(above) < 100
    assert found.flagged_missed == pytest.approx(np.mean([k in flags for k in above]))
    assert found.flagged_found == pytest.approx(np.mean([k in flags for k in np.flatnonzero(peaks) if k not in above]))
    assert found.flagged == pytest.approx(0.3)


def test_an_uncertainty_that_knows_of_misses_flags_them():
    observed, upper = np.array([9.0, 9, 9, 9, 0, 0, 0, 0, 0, 0]), np.array([1.0, 1, 9, 9, 1, 1, 1, 1, 1, 1])
    cv = [8, 7, 0.1, 0.2, 1, 1, 1, 1, 1, 1]
    found = missed(observed, np.zeros(10), upper, observed > 5, cv, cv_share=0.2)
    assert (found.n_above, found.flagged_missed, found.flagged_found, found.flagged) == (2, 1, 0, 0.2)


def test_without_misses_there_is_no_share_of_them():
    found = missed(np.ones(10), np.zeros(10), np.full(10, 2.0), np.ones(10, bool), np.arange(10))
    assert (found.n, found.n_above) == (10, 0)
    assert math.isnan(found.flagged_missed)
    assert found.flagged_found == pytest.approx(0.1)
    with pytest.raises(ValueError, match="NaN"):
        missed([np.nan], [0], [1], [True], [1])
    with pytest.raises(ValueError, match="shape"):
        missed([1, 2], [0], [1], [True], [1])
