"""Networks that read signal: windows where it was measured, nothing thinned, and the mean of other biosamples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Window
from candi_cli.loci import allowed_bins, any_start, merged
from candi_cli.model.candi import Corruption, Lanes, Model, PredictionDataset, TrainingDataset, preset
from candi_cli.model.candi.decoding import Spans
from candi_cli.model.candi.network import MASKED, MISSING, OBSERVED
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.store import Store

ASSAYS = ("a", "b", "c")
SIZES = {"chr1": 40_000, "chr2": 30_000}
HAS = {"one": "abc", "two": "ab", "three": "bc", "four": "a"}
SPANS = {"chr1": [[1_000, 15_000], [20_000, 36_000]], "chr2": [[0, 30_000]]}
NOTHING = Corruption(0, 0, 0, 0, 0, 0)


def signal_of(biosample, assay, chrom):
    seed = [*map(ord, biosample + assay + chrom)]
    return np.random.default_rng(seed).gamma(0.5, 4.0, SIZES[chrom] // 25).astype(np.float32)


def fill(store, changed=None):
    """Write the signals; those of `changed` are others."""
    for biosample, assays in HAS.items():
        for assay in assays:
            store.add_experiment(biosample, assay)
            store.describe(biosample, assay, Covariates())
            for chrom in SIZES:
                if (biosample, assay, chrom) == ("three", "b", "chr2"):
                    continue
                values, inside = signal_of(biosample, assay, chrom), np.zeros(SIZES[chrom] // 25, dtype=bool)
                if biosample == changed:
                    values = values[::-1] * 3 + 1
                for start, end in SPANS[chrom]:
                    inside[start // 25 : end // 25] = True
                store.write(biosample, assay, "signal", chrom, np.where(inside, values, 0).astype(np.float32))
                store.write_spans(biosample, assay, chrom, np.array(SPANS[chrom]))
    return store


@pytest.fixture(scope="module")
def store():
    with Store.create(None, rule=CountingRule(), chromsizes=SIZES) as made:
        yield fill(made)


def members_of(store):
    found = []
    for biosample in store.biosamples:
        lanes = Lanes(store, biosample, ASSAYS)
        covered = {
            chrom: merged(np.concatenate([store.signal_spans(biosample, assay, chrom) for assay in HAS[biosample]]))
            for chrom in store.chroms_with(biosample, "signal")
        }
        bins = allowed_bins(store.chromsizes, resolution=25, regions=[], covered=covered, blacklist={})
        found.append((lanes, any_start(bins, 240)))
    return found


def average_of(store):
    return ReferenceAverage(ASSAYS, [Lanes(store, biosample, ASSAYS) for biosample in store.biosamples])


def dataset(store, corruption, **options):
    config = preset(
        "tiny", ASSAYS, resolution=25, reads_sequence=False, input="signal", reads_reference="reference" in options
    )
    return TrainingDataset(config, members_of(store), corruption=corruption, batch_size=24, seed=1, **options)


def places(windows, step=0):
    parts = [text.rsplit(" ", 1) for text in windows.describe(step).split("; ")]
    return [(name, at.split(":")[0], (int(at.split(":")[1].replace(",", "")) - 1) // 25) for name, at in parts]


@pytest.mark.parametrize("unpacked", [False, True])
def test_windows_of_signal_show_the_store_and_stay_where_it_was_measured(store, unpacked):
    windows = dataset(store, NOTHING)
    if unpacked:
        windows.decode()
    inputs, targets = windows.batch(0)
    assert inputs.values.dtype == torch.float32
    assert not targets.valid[:, 0].any()
    assert not targets.counts.any()
    for row, (biosample, chrom, start) in enumerate(places(windows)):
        assert any(a <= start * 25 and (start + 240) * 25 <= b for a, b in SPANS[chrom])
        for lane, assay in enumerate(ASSAYS):
            there = assay in HAS[biosample] and (biosample, assay, chrom) != ("three", "b", "chr2")
            assert (inputs.availability[row, :, lane] == (OBSERVED if there else MISSING)).all()
            assert targets.valid[row, 1, lane] == there
            expected = signal_of(biosample, assay, chrom)[start : start + 240] if there else np.zeros(240)
            np.testing.assert_array_equal(inputs.values[row, :, lane], expected)
            np.testing.assert_array_equal(targets.signal[row, :, lane], expected)
    assert (inputs.availability[..., -1] == MISSING).all()


def test_masked_signal_is_hidden_and_is_the_only_thing_that_is(store):
    whole = dataset(store, NOTHING).batch(0)
    inputs, targets = dataset(store, replace(NOTHING, mask_assays=1, mask_loci=1, thin=1)).batch(0)
    masked = inputs.availability == MASKED
    assert torch.equal(masked[..., :-1], targets.masked)
    assert masked.any()
    assert not inputs.values[masked].any()
    assert torch.equal(inputs.values[~masked], whole.inputs.values[~masked])
    assert torch.equal(targets.signal, whole.targets.signal)


def test_a_network_of_signal_learns_from_the_masked_entries_of_such_a_batch(store):
    windows = dataset(store, Corruption(1, 1, 1, 0, 0, 0.5), reference=average_of(store))
    inputs, targets = windows.batch(0)
    model = Model(windows.config)
    model.start_at_marginals([windows.batch(0)])
    terms = model.loss(model(inputs), targets)
    assert terms["signal_imp"].entries > 0
    assert terms["signal_imp"].total.isfinite()
    assert not any(name.startswith("count") and term.entries for name, term in terms.items())


def every_array(batch):
    """All arrays of a batch by name, with NaN as -1."""
    parts = {"inputs": batch.inputs, "targets": batch.targets}
    arrays = {(part, name): array for part, arrays in parts.items() for name, array in arrays._asdict().items()}
    return {key: array.nan_to_num(-1) for key, array in arrays.items() if array is not None}


@pytest.mark.parametrize("unpacked", [False, True])
def test_hiding_the_reference_changes_nothing_else_of_a_seed(store, unpacked):
    corruption, reads = Corruption(0.5, 0.5, 1, 0.5, 0.3, 0.5), {"reference": average_of(store)}
    shown, never, half = (
        dataset(store, replace(corruption, drop_reference=share), **reads) for share in (0.0, 1.0, 0.5)
    )
    unread = dataset(store, corruption, reference=None)  # a network of the same kind that is given none
    if unpacked:
        for each in (shown, never, half):
            each.decode()
    key, n_hidden = ("inputs", "reference"), 0
    for step in range(4):
        whole, hidden, some, nothing = (every_array(each.batch(step)) for each in (shown, never, half, unread))
        assert all(torch.equal(array, nothing[name]) for name, array in hidden.items())
        for found in (hidden, some):
            assert all(torch.equal(array, whole[name]) for name, array in found.items() if name != key)
        gone = (some[key] == -1).flatten(1).all(dim=1)
        assert torch.equal(some[key][~gone], whole[key][~gone])
        n_hidden += int(gone.sum())
    assert 30 < n_hidden < 66  # of 96, at a half


def test_draws_of_a_seed_are_those_of_a_training_without_a_reference(store):
    corruption = Corruption(0.5, 0.5, 1, 0.5, 0.3, 0.5)
    plain, reads = (every_array(dataset(store, corruption, **more).batch(0)) for more in ({}, {"reference": None}))
    assert all(torch.equal(array, reads[name]) for name, array in plain.items())


def test_a_training_that_never_shows_the_reference_does_not_depend_on_it(store):
    """The same weights whatever the others' signal is, and others where it is shown."""
    weights = {}
    for drop in (0.0, 1.0):
        for changed in ("values", "nothing"):
            average = average_of(store)
            if changed == "values":
                average = Mirrored(average)
            windows = dataset(store, Corruption(1, 1, 1, 0, 0, 0.5, drop_reference=drop), reference=average)
            torch.manual_seed(0)
            model = Model(windows.config)
            optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
            for step in range(2):
                inputs, targets = windows.batch(step)
                terms = model.loss(model(inputs), targets)
                sum(term.total / term.entries for term in terms.values() if term.entries).backward()
                optimiser.step()
                optimiser.zero_grad()
            weights[drop, changed] = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    assert torch.equal(weights[1.0, "values"], weights[1.0, "nothing"])
    assert not torch.equal(weights[0.0, "values"], weights[0.0, "nothing"])


class Mirrored:
    """A reference of other values."""

    def __init__(self, average):
        self.average = average

    def read(self, *place, **more):
        return 3 - self.average.read(*place, **more)


def expected_mean(without, chrom, start, end):
    """The mean by hand: shape (L, A)."""
    mean = np.full((end - start, len(ASSAYS)), np.nan)
    for column, assay in enumerate(ASSAYS):
        for number in range(start, end):
            inside = any(a <= number * 25 < b for a, b in SPANS[chrom])
            values = [
                np.arcsinh(signal_of(name, assay, chrom)[number])
                for name in HAS
                if inside and name != without and assay in HAS[name] and (name, assay, chrom) != ("three", "b", "chr2")
            ]
            if values:
                mean[number - start, column] = np.mean(values)
    return mean


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("without", [*HAS, "nobody"])
def test_the_reference_is_the_mean_of_all_other_biosamples(store, without, unpacked):
    average = average_of(store)
    if unpacked:
        average.decode(Spans({chrom: np.array([[0, size // 25]]) for chrom, size in SIZES.items()}))
    for chrom, start, end in (("chr1", 500, 700), ("chr2", 0, 40)):
        found = average.read(ASSAYS, chrom, start, end, without=without)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected_mean(without, chrom, start, end), atol=3e-5)
    swapped = average.read(("c", "a"), "chr2", 0, 40, without=without)
    np.testing.assert_array_equal(swapped, average.read(ASSAYS, "chr2", 0, 40, without=without)[:, [2, 0]])


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("changed", HAS)
def test_a_biosamples_own_signal_never_reaches_its_reference(store, changed, unpacked):
    with Store.create(None, rule=CountingRule(), chromsizes=SIZES) as made:
        other = fill(made, changed=changed)
        batches = []
        for each in (store, other):
            windows = dataset(each, Corruption(0.5, 0.5, 0, 0, 0, 0.5), reference=average_of(each))
            if unpacked:
                windows.decode()
            batches.append(windows.batch(0))
        own = torch.tensor([name == changed for name, _, _ in places(windows)])
        one, two = (batch.inputs.reference for batch in batches)
        assert own.any()
        assert torch.equal(one[own].nan_to_num(-1), two[own].nan_to_num(-1))  # to the bit
        assert not torch.equal(one[~own].nan_to_num(-1), two[~own].nan_to_num(-1))
        assert not torch.equal(batches[0].targets.signal[own], batches[1].targets.signal[own])


def test_the_reference_is_turned_with_its_window(store):
    average = average_of(store)
    forward = dataset(store, NOTHING, reference=average).batch(0).inputs.reference
    backward = dataset(store, replace(NOTHING, reverse_complement=1), reference=average).batch(0).inputs.reference
    assert torch.equal(forward.nan_to_num(-1), backward.flip(1).nan_to_num(-1))
    for row, (biosample, chrom, start) in enumerate(places(dataset(store, NOTHING))):
        expected = average.read(ASSAYS, chrom, start, start + 240, without=biosample)
        np.testing.assert_array_equal(forward[row], expected)


def test_prediction_reads_signal_where_it_was_measured_and_the_reference_without_itself(store):
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=False, input="signal", reads_reference=True)
    lanes, average = Lanes(store, "three", ASSAYS), average_of(store)
    windows = PredictionDataset(config, lanes, lanes.covariates(), [Covariates()] * 3, None, average)
    batch = windows.batch([Window("chr1", 440, 680, 500, 600), Window("chr1", 1_500, 1_740, 1_500, 1_600)])
    for lane, assay in ((1, "b"), (2, "c")):
        expected = np.where((np.arange(440, 680) < 600), signal_of("three", assay, "chr1")[440:680], 0)
        np.testing.assert_array_equal(batch.values[0, :, lane], expected)
        assert (batch.availability[0, :, lane] == torch.where(torch.arange(440, 680) < 600, OBSERVED, MISSING)).all()
    assert (batch.availability[:, :, 0] == MISSING).all()  # not measured in this biosample
    assert (batch.availability[1] == MISSING).all()  # past the end of the chromosome
    np.testing.assert_array_equal(batch.reference[0], average.read(ASSAYS, "chr1", 440, 680, without="three"))
    near = [Window("chr1", at, at + 240, at, at + 240) for at in (380, 420, 500, 640)]  # they overlap
    for row, (chrom, start, end, *_) in enumerate(near):
        expected = average.read(ASSAYS, chrom, start, end, without="three")
        np.testing.assert_array_equal(windows.batch(near).reference[row], expected)
    alone = PredictionDataset(
        replace(config, reads_reference=False), lanes, lanes.covariates(), [Covariates()] * 3, None
    )
    assert alone.batch([Window("chr1", 0, 240, 0, 240)]).reference is None
    assert alone.signatures([Window("chr1", 1_500, 1_740, 1_500, 1_600)]) == ["no signal"]
    assert alone.signatures([Window("chr1", 440, 680, 500, 600)]) == [None]
    # on chr2 one of two lanes was measured
    assert alone.signatures([Window("chr2", at, at + 240, at, at + 240) for at in (0, 100, 960)]) == [None] * 3
