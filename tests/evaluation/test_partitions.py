"""Every bin is in one group, and in the right one."""

import numpy as np
import pytest

from candi_cli.evaluation.partitions import SPECIFICITIES, Activity, by_signal, by_specificity, count_active


def test_deciles_of_signal_are_those_of_sorted_bins(rng):
    signal = rng.normal(size=1230)
    labels, names = by_signal(signal)
    np.testing.assert_array_equal(np.bincount(labels), 123)
    np.testing.assert_array_equal(labels[np.argsort(signal)], np.repeat(np.arange(10), 123))
    assert names[0] == "signal 0-10 %"
    assert names[9] == "signal 90-100 %"


@pytest.mark.parametrize("n_bins", [1, 7, 99, 101])
def test_groups_are_as_equal_as_can_be(n_bins, rng):
    for n_groups in (1, 3, 10):
        sizes = np.bincount(by_signal(rng.normal(size=n_bins), n_groups).labels, minlength=n_groups)
        assert len(sizes) == n_groups
        assert sizes.sum() == n_bins
        assert sizes.max() - sizes.min() <= 1


def test_equal_signals_are_in_one_group_that_of_their_mean_rank(rng):
    signal = np.array([0.0] * 70 + [1.0] * 20 + [2.0] * 10)
    labels = by_signal(rng.permutation(signal)).labels
    assert list(np.bincount(labels, minlength=10)) == [0, 0, 0, 70, 0, 0, 0, 0, 20, 10]


def test_what_was_not_measured_is_in_no_group():
    np.testing.assert_array_equal(by_signal([np.nan, 1, 2, np.nan], 2).labels, [-1, 0, 1, -1])
    np.testing.assert_array_equal(by_signal([np.nan]).labels, [-1])
    assert len(by_signal([]).labels) == 0
    assert by_signal([1.0], 3).names == ("signal 0-33.3333 %", "signal 33.3333-66.6667 %", "signal 66.6667-100 %")


def test_biosamples_above_the_threshold_are_counted_bin_by_bin(rng):
    tracks = rng.normal(size=(6, 50))
    tracks[rng.random((6, 50)) < 0.3] = np.nan
    active, measured = count_active(iter(tracks), 0.2)
    for bin_ in range(50):
        values = [value for value in tracks[:, bin_] if value == value]
        assert measured[bin_] == len(values)
        assert active[bin_] == sum(value > 0.2 for value in values)


def test_the_threshold_itself_is_not_above_it():
    assert list(count_active([[2.0, 2.1]], 2.0).active) == [0, 1]


def test_specificity_is_none_one_few_many_or_all():
    labels, names = by_specificity(Activity(np.arange(9), np.full(9, 8)))
    assert [names[label] for label in labels] == ["none", "one", *["few"] * 3, *["many"] * 3, "all"]
    assert names == SPECIFICITIES


@pytest.mark.parametrize(
    ("active", "measured", "name"),
    [(0, 1, "none"), (1, 1, "one"), (1, 2, "one"), (2, 2, "all"), (2, 3, "many"), (2, 4, "few"), (3, 5, "many")],
)
def test_specificity_with_few_biosamples(active, measured, name):
    label = by_specificity(Activity(np.array([active]), np.array([measured]))).labels[0]
    assert SPECIFICITIES[label] == name


def test_a_bin_that_was_never_measured_has_no_specificity():
    assert list(by_specificity(count_active([[np.nan, 1.0]], 0.5)).labels) == [-1, 1]


def test_specificity_needs_biosamples_of_one_length():
    with pytest.raises(ValueError, match="no training biosample"):
        count_active([], 1.0)
    with pytest.raises(ValueError, match="shape"):
        count_active([[1.0, 2.0], [1.0]], 1.0)
