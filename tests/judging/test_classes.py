"""Classes of bins: promoters, strata of what was predicted, and what is left out."""

from itertools import pairwise

import numpy as np
import pytest

from candi_cli.judging.classes import GENOME, STRATA, Annotation, promoters, strata


def test_promoters_reach_a_kilobase_to_both_sides_but_not_beyond_the_chromosome(sizes: dict[str, int]):
    starts = {"chrA": np.array([[10, 11], [50_000, 50_001], [100_000, 100_001]])}
    found = promoters(starts, sizes)["chrA"].tolist()
    assert found == [[0, 1_010], [49_000, 51_000], [99_000, 100_010]]


def test_excluded_bins_are_of_no_class(grid):
    spans = {"chrA": np.array([[1_000, 2_010]])}
    annotation = Annotation(
        {"mine": spans, "other": {"chrB": np.array([[0, 50]])}}, {"chrA": np.array([[1_990, 2_040]])}
    )
    masks = annotation.masks(grid)
    assert list(masks) == [GENOME, "mine", "other"]
    assert np.flatnonzero(~masks[GENOME]).tolist() == [79, 80, 81]
    assert np.flatnonzero(masks["mine"]).tolist() == list(range(40, 79))
    assert np.flatnonzero(masks["other"]).tolist() == [4_001, 4_002]
    assert Annotation({}, {}).masks(grid)[GENOME].all()


@pytest.mark.parametrize("kind", ["counts", "signal", "peaks"])
def test_strata_are_a_partition_by_quantiles_of_the_prediction(kind: str, grid, make_track, rng: np.random.Generator):
    first = rng.normal(size=grid.n_bins)
    track = make_track(kind, rng.integers(0, 2, grid.n_bins), first, *([np.ones(grid.n_bins)] * (kind != "peaks")))
    kept = rng.random(grid.n_bins) < 0.8
    labels = strata(track, kept)
    assert (labels[~kept] == -1).all()
    assert set(labels[kept].tolist()) == set(range(len(STRATA)))
    shares = np.bincount(labels[kept]) / kept.sum()
    assert shares == pytest.approx([0.5, 0.4, 0.09, 0.01], abs=2e-3)
    by_label = [first[labels == number] for number in range(len(STRATA))]
    for lower, upper in pairwise(by_label):
        assert lower.max() < upper.min()


def test_a_constant_prediction_has_one_stratum(grid, make_track):
    track = make_track("signal", np.zeros(grid.n_bins), np.ones(grid.n_bins), np.ones(grid.n_bins))
    assert (strata(track, np.ones(grid.n_bins, dtype=bool)) == 0).all()
    assert (strata(track, np.zeros(grid.n_bins, dtype=bool)) == -1).all()
