"""The corruptions: what they hide, and that what they show shares no read with what they ask for."""

import numpy as np
import pytest

from candi_cli.model.candi.masking import LOCI_FRACTION, draw_masked_assays, draw_masked_loci, thin_counts, thin_folds


@pytest.mark.parametrize("n_available", range(6))
def test_between_one_and_all_but_one_of_the_assays_are_hidden(rng, n_available):
    available = np.zeros(8, dtype=bool)
    available[rng.choice(8, n_available, replace=False)] = True
    seen = set()
    for _ in range(200):
        masked = draw_masked_assays(rng, available)
        assert not (masked & ~available).any()
        seen.add(int(masked.sum()))
    assert seen == (set(range(1, n_available)) if n_available > 1 else {0})


def test_a_fifth_of_the_loci_is_hidden_in_whole_chunks(rng):
    for n_bins in (240, 1200):
        masked = draw_masked_loci(rng, n_bins)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], masked.view(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        assert LOCI_FRACTION <= masked.mean() < LOCI_FRACTION + 40 / n_bins
        assert runs.min() >= 40


def test_input_and_target_never_share_a_read(rng):
    # each fold counts in its own decimal digit, so a fold that is in both would show
    folds = np.array([[10**k for k in range(8)]])
    depths = np.arange(1, 9)
    pairs = set()
    for _ in range(2000):
        thinned = thin_folds(rng, folds, depths, hidden=False)
        digits = str(int(thinned.seen[0] + thinned.target[0]))
        assert set(digits) <= {"0", "1"}
        seen = [k for k in range(8) if int(thinned.seen[0]) // 10**k % 10]
        target = [k for k in range(8) if int(thinned.target[0]) // 10**k % 10]
        assert seen
        assert target
        assert thinned.seen_share == pytest.approx(depths[seen].sum() / depths.sum())
        assert thinned.target_share == pytest.approx(depths[target].sum() / depths.sum())
        pairs.add((len(seen), len(target)))
    assert pairs == {(i, j) for i in range(1, 8) for j in range(1, 9 - i)}


def test_a_hidden_assay_shows_nothing_and_may_be_asked_for_in_full(rng):
    folds = np.full((5, 8), 2)
    targets = {thin_folds(rng, folds, np.ones(8), hidden=True).target_share for _ in range(300)}
    assert targets == {k / 8 for k in range(1, 9)}
    assert not thin_folds(rng, folds, np.ones(8), hidden=True).seen.any()


def test_binomial_thinning_splits_each_count_and_is_unbiased(rng):
    counts = rng.poisson(20, 50_000)
    for _ in range(20):
        thinned = thin_counts(rng, counts, hidden=False)
        assert (thinned.seen + thinned.target == counts).all()
        share = thinned.seen_share
        assert thinned.seen.mean() == pytest.approx(share * counts.mean(), rel=0.02)
        # seen and target of a Poisson count are independent
        assert abs(np.corrcoef(thinned.seen, thinned.target)[0, 1]) < 0.03


def test_thinning_is_a_function_of_the_generator():
    folds = np.arange(80).reshape(10, 8)
    one, other = (thin_folds(np.random.default_rng(4), folds, np.ones(8), hidden=False) for _ in range(2))
    assert (one.seen == other.seen).all()
    assert (one.target == other.target).all()
