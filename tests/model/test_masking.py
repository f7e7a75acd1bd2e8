"""The corruptions: what they hide, and that what they show shares no read with what they ask for."""

import itertools

import numpy as np
import pytest

from candi_cli.model.candi import folds as compiled
from candi_cli.model.candi.folds import sum_folds
from candi_cli.model.candi.masking import (
    LOCI_FRACTION,
    PAPER,
    SEEN,
    TARGET,
    UNUSED,
    Corruption,
    Thinning,
    draw_masked_assays,
    draw_masked_loci,
    thin_counts,
)

FACTORS = (None, 1, 2, 4, 8)
NOT_HIDDEN = np.zeros(3, dtype=bool)


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


@pytest.mark.parametrize(("most", "expected"), [(1, {1}), (2, {1, 2}), (4, {1, 2, 3}), (None, {1, 2, 3})])
def test_no_more_assays_are_hidden_than_asked_for(rng, most, expected):
    available = np.array([True, False, True, True, True])
    assert {int(draw_masked_assays(rng, available, most).sum()) for _ in range(200)} == expected


def test_a_fifth_of_the_loci_is_hidden_in_whole_chunks(rng):
    for n_bins in (240, 1200):
        masked = draw_masked_loci(rng, n_bins)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], masked.view(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        assert LOCI_FRACTION <= masked.mean() < LOCI_FRACTION + 40 / n_bins
        assert runs.min() >= 40


@pytest.mark.parametrize(("input_factor", "target_factor"), list(itertools.product(FACTORS, FACTORS)))
def test_no_read_is_on_both_sides_whatever_the_factors(rng, input_factor, target_factor):
    # each fold counts in its own decimal digit, so that a fold on both sides, or twice on one, would show
    folds = np.array([[[10**k] for k in range(8)]] * 3, dtype=np.uint32)
    thinning = Thinning(True, input_factor, target_factor)
    for _ in range(20):
        sides, into = thinning.sides(rng, 8, NOT_HIDDEN), np.zeros((2, 3, 1), dtype=np.uint32)
        sum_folds(folds, 0, sides, np.arange(3), into)
        digits = np.array([[int(digit) for digit in f"{total:08}"] for total in into.reshape(-1)]).reshape(2, 3, 8)
        assert digits.sum(axis=0).max() <= 1
        n_seen, n_target = digits.sum(axis=2)
        assert (n_seen >= 1).all()
        if input_factor:
            assert (n_seen == 8 // input_factor).all()
        if target_factor:
            assert (n_target == np.maximum(np.rint((8 - n_seen) / target_factor), n_seen < 8)).all()
        assert ((n_target > 0) == (n_seen < 8)).all()


def test_without_factors_every_pair_of_disjoint_shares_occurs(rng):
    pairs = set()
    for _ in range(700):
        sides = Thinning(True).sides(rng, 8, NOT_HIDDEN)
        pairs |= set(zip((sides == SEEN).sum(1).tolist(), (sides == TARGET).sum(1).tolist(), strict=True))
    assert pairs == {(i, j) for i in range(1, 8) for j in range(1, 9 - i)}


@pytest.mark.parametrize(("on", "input_factor"), [(False, None), (False, 4), (True, 1)])
def test_an_input_that_shows_all_reads_leaves_no_target(rng, on, input_factor):
    sides = Thinning(on, input_factor).sides(rng, 8, NOT_HIDDEN)
    assert (sides == SEEN).all()
    counts = rng.poisson(3, (3, 50))
    seen_share, target_share = Thinning(on, input_factor).shares(rng, NOT_HIDDEN)
    seen, target = thin_counts(rng, counts, seen_share, target_share)
    np.testing.assert_array_equal(seen, counts)
    assert not target.any()


@pytest.mark.parametrize("thinning", [Thinning(False), Thinning(True), Thinning(True, 4, 2), Thinning(True, 1, 1)])
def test_a_hidden_assay_shows_nothing_and_has_up_to_all_reads_as_its_target(rng, thinning):
    hidden = np.ones(400, dtype=bool)
    sides = thinning.sides(rng, 8, hidden)
    assert not (sides == SEEN).any()
    shares = {None: set(range(1, 9)), 1: {8}, 2: {4}}[thinning.target_factor]
    assert set((sides == TARGET).sum(axis=1).tolist()) == shares
    seen_share, target_share = thinning.shares(rng, hidden)
    assert not seen_share.any()
    assert set(target_share.tolist()) == {1 / (thinning.target_factor or 1)}


def test_which_folds_are_seen_is_drawn_evenly_and_for_each_experiment_on_its_own(rng):
    sides = Thinning(True, 2, 2).sides(rng, 8, np.zeros(4_000, dtype=bool))
    for side, share in ((SEEN, 0.5), (TARGET, 0.25), (UNUSED, 0.25)):
        np.testing.assert_allclose((sides == side).mean(axis=0), share, atol=0.035)
    assert len(np.unique(sides, axis=0)) > 400


@pytest.mark.parametrize(("input_factor", "target_factor"), list(itertools.product((1, 2, 4), (1, 2, 4))))
def test_binomial_thinning_divides_each_count_and_is_unbiased(rng, input_factor, target_factor):
    counts = rng.poisson(20, (2, 20_000))
    shares = Thinning(True, input_factor, target_factor).shares(rng, np.zeros(2, dtype=bool))
    seen, target = thin_counts(rng, counts, *shares)
    assert (seen + target <= counts).all()
    expected = counts.mean() / input_factor, counts.mean() * (1 - 1 / input_factor) / target_factor
    assert (seen.mean(), target.mean()) == pytest.approx(expected, rel=0.02)
    if input_factor > 1:  # the parts of a Poisson count are independent
        assert abs(np.corrcoef(seen[0], target[0])[0, 1]) < 0.03


def test_factors_are_drawn_evenly_for_each_window_and_thinning_as_often_as_stated(rng):
    drawn = [PAPER.draw_thinning(rng) for _ in range(3_000)]
    for factor in (1, 2, 4):
        assert np.mean([thinning.input_factor == factor for thinning in drawn]) == pytest.approx(1 / 3, abs=0.03)
    assert {(thinning.on, thinning.target_factor) for thinning in drawn} == {(True, 1)}
    assert np.mean([Corruption(thin=0.3).draw_thinning(rng).on for _ in range(3_000)]) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_the_compiled_sum_of_folds_is_numpys(rng, monkeypatch, dtype):
    folds = rng.integers(0, np.iinfo(dtype).max, (5, 8, 90), endpoint=True, dtype=dtype) // 16
    sides, lanes = rng.integers(0, 3, (5, 8), dtype=np.uint8), np.array([6, 0, 2, 3, 1])
    found = np.zeros((2, 7, 40), dtype=np.uint32)
    sum_folds(folds, 31, sides, lanes, found)
    plain = np.zeros_like(found)
    monkeypatch.setattr(compiled, "_COMPILED", None)
    sum_folds(folds, 31, sides, lanes, plain)
    expected = np.zeros_like(found)
    for side in (SEEN, TARGET):
        expected[side - 1, lanes] = ((sides == side)[..., None] * folds[..., 31:71].astype(np.uint64)).sum(axis=1)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(plain, expected)


def test_thinning_is_a_function_of_the_generator():
    one, other = (Thinning(True).sides(np.random.default_rng(4), 8, NOT_HIDDEN) for _ in range(2))
    assert (one == other).all()
