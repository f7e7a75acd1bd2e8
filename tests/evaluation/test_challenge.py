"""The nine measures against loops over annotations with Python's own slices."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from candi_cli.evaluation.challenge import (
    Annotations,
    ChallengeScores,
    annotated_bins,
    annotated_error,
    challenge_scores,
    promoter_bins,
)

LENGTHS = (900, 600)  # bins of two chromosomes
OFFSETS = np.cumsum([0, *LENGTHS])
NONE = [np.zeros((0, 2), int)] * 2


@pytest.fixture
def tracks(rng):
    observed = rng.exponential(size=1500).round()  # with ties
    return observed, observed * rng.uniform(0.5, 2, 1500).round(1)


@pytest.fixture
def genes(rng):
    """For each chromosome starts, ends (bp) and strands, crowded, and some out of the chromosome."""
    result = []
    for length in LENGTHS:
        starts = np.append(rng.integers(0, 25 * length, 40), [0, 300, 2000, 25 * length - 10])
        result.append((starts, starts + rng.integers(1, 3000, 44), rng.random(44) < 0.5))
    return result


def annotate(genes):
    bodies = [annotated_bins(starts, ends) for starts, ends, _ in genes]
    promoters = [promoter_bins(*each) for each in genes]
    return Annotations(promoters, bodies, [each[::3] for each in bodies])


def test_gene_bodies_are_summed_one_by_one_over_their_unclipped_widths(tracks, genes):
    total = bins = 0
    for first, length, (starts, ends, _) in zip(OFFSETS, LENGTHS, genes, strict=False):
        observed, predicted = (track[first : first + length] for track in tracks)
        for start, end in zip(starts, ends, strict=True):
            part = slice(start // 25, end // 25 + 1)
            total += ((observed[part] - predicted[part]) ** 2).sum()
            bins += end // 25 + 1 - start // 25
    assert challenge_scores(*tracks, OFFSETS, annotate(genes)).msegene == pytest.approx(total / bins, rel=1e-12)


def test_promoters_are_80_bins_upstream_and_those_before_the_chromosome_add_nothing_but_their_width(tracks, genes):
    total = n_genes = n_dropped = 0
    for first, length, chromosome in zip(OFFSETS, LENGTHS, genes, strict=False):
        observed, predicted = (track[first : first + length] for track in tracks)
        for start, end, reverse in zip(*chromosome, strict=True):
            edge = end // 25 + 1 if reverse else start // 25 - 80
            part = slice(edge, edge + 80)  # of a negative edge, Python's slice is empty
            n_dropped += edge < 0
            total += ((observed[part] - predicted[part]) ** 2).sum()
            n_genes += 1
    assert n_dropped > 0
    expected = total / (80 * n_genes)
    assert challenge_scores(*tracks, OFFSETS, annotate(genes)).mseprom == pytest.approx(expected, rel=1e-12)


def test_measures_over_all_bins_and_over_enhancers(tracks, genes, rng):
    observed, predicted = tracks
    variance = rng.exponential(size=1500)
    annotations = annotate(genes)
    found = challenge_scores(observed, predicted, OFFSETS, annotations, variance)
    squares = (observed - predicted) ** 2
    assert found.mse == pytest.approx(squares.mean())
    assert found.gwcorr == pytest.approx(pearsonr(observed, predicted)[0])
    assert found.gwspear == pytest.approx(spearmanr(observed, predicted)[0])
    assert found.msevar == pytest.approx(np.average(squares, weights=variance))
    assert found.mseenh == annotated_error(squares, OFFSETS, annotations.enhancers)
    assert len({round(value, 9) for value in found}) == 9


def test_the_highest_percent_are_all_that_reach_the_nth_highest(tracks):
    observed, predicted = tracks
    found = challenge_scores(observed, predicted, OFFSETS, Annotations(NONE, NONE, NONE))
    for value, track in ((found.mse1obs, observed), (found.mse1imp, predicted)):
        threshold = sorted(track)[-15]
        chosen = [bin_ for bin_ in range(1500) if track[bin_] >= threshold]
        assert value == pytest.approx(np.mean([(observed[bin_] - predicted[bin_]) ** 2 for bin_ in chosen]))
    # fifteen bins would be right but for ties
    assert (observed >= sorted(observed)[-15]).sum() > 15


def test_bins_of_two_annotations_count_twice():
    pairs = np.array([[0, 2], [1, 2]])
    assert annotated_error([1.0, 4.0, 9.0], [0, 3], [pairs]) == pytest.approx((1 + 4 + 4) / 3)


def test_a_chromosome_has_its_own_annotations_only():
    squares = np.arange(6.0)
    assert annotated_error(squares, [0, 3, 6], [np.array([[2, 9]]), np.array([[0, 1]])]) == pytest.approx((2 + 3) / 8)
    assert annotated_error(squares, [0, 3, 6], [np.array([[5, 9]]), np.array([[-2, 1]])]) == 0


def test_bins_of_annotations_by_hand():
    np.testing.assert_array_equal(annotated_bins([0, 30, 2500], [25, 49, 2600]), [[0, 2], [1, 2], [100, 105]])
    np.testing.assert_array_equal(
        promoter_bins([2500, 2500, 100], [2600, 2600, 200], [False, True, False]), [[20, 100], [105, 185], [-76, 4]]
    )


def test_measures_that_do_not_exist_are_nan(tracks):
    found = challenge_scores(*tracks, OFFSETS, Annotations(NONE, NONE, NONE))
    assert [name for name, value in found._asdict().items() if math.isnan(value)] == [
        "mseprom",
        "msegene",
        "mseenh",
        "msevar",
    ]
    assert math.isnan(challenge_scores(*tracks, OFFSETS, Annotations(NONE, NONE, NONE), np.zeros(1500)).msevar)
    few = challenge_scores([0.0, 1.0], [1.0, 1.0], [0, 2], Annotations(NONE[:1], NONE[:1], NONE[:1]))
    assert np.isnan([few.mse1obs, few.mse1imp, few.gwcorr]).all()
    assert few.mse == 0.5


def test_a_perfect_prediction_has_no_error(tracks, genes):
    found = challenge_scores(tracks[0], tracks[0], OFFSETS, annotate(genes), np.ones(1500))
    assert found == ChallengeScores(0, pytest.approx(1), pytest.approx(1), 0, 0, 0, 0, 0, 0)


def test_tracks_that_do_not_fit_their_chromosomes_are_refused(tracks):
    with pytest.raises(ValueError, match="shape"):
        challenge_scores(*tracks, [0, 900], Annotations(NONE[:1], NONE[:1], NONE[:1]))
    with pytest.raises(ValueError, match="variances"):
        challenge_scores(*tracks, OFFSETS, Annotations(NONE, NONE, NONE), [1.0])
    with pytest.raises(ValueError, match="zip"):
        challenge_scores(*tracks, OFFSETS, Annotations(NONE[:1], NONE, NONE))
