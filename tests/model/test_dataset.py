"""Training windows: what is shown, what is asked for, and what they depend on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from candi_cli.covariates import CONTROL, MISSING, UNKNOWN
from candi_cli.genome import Region
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.loci import find_loci
from candi_cli.model.candi import Corruption, Lanes, TrainingDataset, preset
from candi_cli.model.candi.dataset import _reverse_complement
from candi_cli.model.candi.network import MASKED, NO_SEQUENCE, OBSERVED
from candi_cli.model.candi.network import MISSING as MISSING_LANE
from candi_cli.store import LAYERS, Store

ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3", "H3K9me3")
FASTA = Path(__file__).parents[2] / "test_data" / "genome.fa.gz"
NOTHING = Corruption(0, 0, 0, 0, 0, 0)


def cohort(store, context, test_chroms=("chr2",), regions=()):
    members = []
    for biosample in store.biosamples:
        covered = {chrom: store.covered_blocks(biosample, chrom) for chrom in store.chroms_with_reads(biosample)}
        loci = find_loci(
            store.chromsizes, resolution=25, context=context, regions=regions, covered=covered, blacklist={},
            test_chroms=test_chroms,
        )  # fmt: skip
        members.append((Lanes(store, biosample, ASSAYS), loci))
    return members


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def dataset(store, corruption=None, *, seed=0, batch_size=4, fasta=None, regions=()):
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=fasta is not None)
    return TrainingDataset(
        config, cohort(store, config.context_bins, regions=regions),
        corruption=corruption or Corruption(), batch_size=batch_size, seed=seed,
        sequences={store.name: fasta} if fasta else None,
    )  # fmt: skip


def equal(one, other) -> bool:
    flat = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return all(a is b if a is None else torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)) for a, b in flat)


def test_a_batch_is_a_function_of_seed_and_step(store):
    one, other = dataset(store), dataset(store)
    stream = one.batches()
    batches = [next(stream) for _ in range(3)]
    assert equal(batches[2], other.batch(2))
    assert equal(batches[1], next(other.batches(first_step=1)))
    assert not equal(batches[0], batches[1])
    assert not equal(batches[0], dataset(store, seed=1).batch(0))


def test_the_order_of_assays_in_the_store_changes_nothing(store, tmp_path):
    shuffled_path = tmp_path / "shuffled.h5"
    with Store.create(shuffled_path, rule=store.rule, chromsizes=store.chromsizes) as shuffled:
        for biosample in reversed(store.biosamples):
            for assay in reversed(store.assays(biosample)):
                found = store.experiment(biosample, assay)
                shuffled.add_experiment(biosample, assay)
                shuffled.describe(biosample, assay, found.covariates, fold_depths=found.fold_depths)
                for chrom in store.chromsizes:
                    for layer in found.layers & set(LAYERS):
                        bins = store.read(biosample, assay, layer, chrom, 0, store.n_bins(chrom))
                        shuffled.write(biosample, assay, layer, chrom, bins)
                    covered, block_bp = store.covered_blocks(biosample, chrom)
                    shuffled.write_blocks(biosample, assay, chrom, covered.astype(np.uint32), block_bp)
    with Store.open(shuffled_path) as shuffled:
        assert equal(dataset(store).batch(5), dataset(shuffled).batch(5))


def test_the_test_chromosome_is_never_read(store):
    drawn = set()
    windows = dataset(store, batch_size=16)
    for lanes, _ in windows.cohort:
        read = lanes.read
        lanes.read = lambda lane, layer, chrom, start, end, read=read: (
            drawn.add(chrom),
            read(lane, layer, chrom, start, end),
        )[1]
    for step in range(10):
        windows.batch(step)
    assert drawn == {"chr1"}


def test_windows_stay_inside_their_regions(store):
    region = Region("chr1", 100_000, 120_000)
    for _, loci in cohort(store, 240, regions=[region]):
        starts = [loci.draw(np.random.default_rng(seed))[1] for seed in range(300)]
        assert min(starts) * 25 >= region.start
        assert (max(starts) + 240) * 25 <= region.end


def test_uncorrupted_windows_show_the_store_as_it_is(store):
    windows = dataset(store, NOTHING, batch_size=8)
    inputs, targets = windows.batch(0)
    counts = inputs.values.numpy()
    for row in range(8):
        rng = np.random.default_rng((0, 0, row))
        lanes, loci = windows.cohort[int(rng.integers(2))]
        chrom, start = loci.draw(rng)
        for lane, experiment in enumerate(lanes.experiments):
            state = inputs.availability[row, :, lane]
            if experiment is None:
                assert (state == MISSING_LANE).all()
                assert not counts[row, :, lane].any()
                continue
            assert (state == OBSERVED).all()
            np.testing.assert_array_equal(counts[row, :, lane], lanes.read(lane, "counts", chrom, start, start + 240))
            if lane < 4 and "signal" in experiment.layers:
                np.testing.assert_array_equal(
                    targets.signal[row, :, lane], lanes.read(lane, "signal", chrom, start, start + 240)
                )
    # all reads are seen, so nothing independent is left to predict
    assert not targets.valid[:, 0].any()


def test_seen_and_target_together_never_exceed_the_reads(store):
    windows = dataset(store, Corruption(0, 0, 1, 0, 0, 0), batch_size=16)
    inputs, targets = windows.batch(3)
    whole = dataset(store, NOTHING, batch_size=16).batch(3).inputs
    shown, asked = inputs.values[..., :-1], targets.counts
    valid = targets.valid[:, 0, None].expand_as(asked)
    # thinning draws after the window is chosen, so both datasets look at the same windows
    assert (shown[valid] + asked[valid] <= whole.values[..., :-1][valid]).all()
    assert valid.any()
    assert (asked[valid] > 0).any()


def test_input_and_target_are_as_unrelated_as_independent_halves(store):
    # in background bins the correlation of two independent thinnings is that of the rate, not 1
    inputs, targets = dataset(store, Corruption(0, 0, 1, 0, 0, 0), batch_size=64).batch(0)
    control_like = (inputs.availability[..., 1] == OBSERVED) & targets.valid[:, 0, 1, None]
    seen, asked = inputs.values[..., 1][control_like].numpy(), targets.counts[..., 1][control_like].numpy()
    assert np.corrcoef(seen, asked)[0, 1] < 0.9
    assert not np.array_equal(seen, asked)


def test_masked_entries_are_zero_and_the_control_is_never_masked(store):
    inputs, targets = dataset(store, Corruption(1, 1, 1, 0, 0, 0), batch_size=32).batch(0)
    masked = inputs.availability == MASKED
    assert masked.any()
    assert not inputs.values[masked].any()
    assert not masked[..., -1].any()
    assert torch.equal(targets.masked, masked[..., :-1])
    whole_lanes = (inputs.availability.amax(dim=1) == MASKED).sum(dim=1)
    assert (whole_lanes >= 1).all()
    visible = (inputs.availability[..., :-1] == OBSERVED).any(dim=1).sum(dim=1)
    assert (visible >= 1).all()


def test_what_does_not_exist_has_no_target(store):
    _, targets = dataset(store, batch_size=32).batch(0)
    missing = (dataset(store, batch_size=32).batch(0).inputs.availability == MISSING_LANE)[..., :-1]
    assert missing.any()
    for target in (targets.counts, targets.signal, targets.peaks):
        assert not target[missing].any()
    # H3K9me3 is in sim2 alone, which has neither signal nor peaks
    assert not targets.valid[:, 1:, ASSAYS.index("H3K9me3")].any()
    assert not targets.valid.transpose(1, 2)[missing.all(dim=1)].any()


def test_covariates_are_at_the_depth_of_what_is_shown_and_asked(store):
    inputs, targets = dataset(store, Corruption(0, 0, 1, 0, 0, 0), batch_size=32).batch(0)
    whole = dataset(store, NOTHING, batch_size=32).batch(0).inputs.covariates_in
    asked = targets.valid[:, 0]
    share = 2.0 ** (inputs.covariates_in[:, 0, :-1] - whole[:, 0, :-1])[asked]
    target_share = 2.0 ** (inputs.covariates_out[:, 0] - whole[:, 0, :-1])[asked]
    assert (share + target_share <= 1 + 1e-4).all()
    assert (share > 0.05).all()


def test_forgotten_covariates_are_unknown_and_missing_ones_missing(store):
    inputs, _ = dataset(store, Corruption(0, 0, 0, 0, 1, 0), batch_size=16).batch(0)
    present = inputs.availability.amax(dim=1) == OBSERVED
    assert inputs.covariates_in[:, :2].isnan().all()
    assert (inputs.covariates_in[:, 2:].transpose(1, 2)[present] == UNKNOWN).all()
    untouched, _ = dataset(store, NOTHING, batch_size=16).batch(0)
    assert (untouched.covariates_in[:, 2:].transpose(1, 2)[~present] == MISSING).all()


def test_the_reverse_complement_twice_is_the_sample_itself(rng):
    tracks = [rng.integers(0, 9, (6, 3)) for _ in range(2)]
    covariates = [rng.normal(size=(4, 3)), rng.normal(size=(4, 2))]
    sequence = rng.integers(0, 6, 150).astype(np.uint8)
    sample = (*tracks, *covariates, sequence, *(rng.normal(size=(6, 2)) for _ in range(4)))
    once = _reverse_complement(sample)
    for a, b in zip(sample, _reverse_complement(once), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(once[0], tracks[0][::-1])
    letters = "ACGTN-"
    pairs = dict(zip("ACGTN-", "TGCAN-", strict=True))
    assert [letters[c] for c in once[4]] == [pairs[letters[c]] for c in sequence[::-1]]


def test_dna_is_dropped_as_often_as_stated_and_otherwise_the_windows_own(store):
    with Fasta(FASTA) as fasta:
        windows = dataset(store, Corruption(0, 0, 0, 0.5, 0, 0), batch_size=200, fasta=fasta)
        sequence = windows.batch(0).inputs.sequence.numpy()
        absent = (sequence == NO_SEQUENCE).all(axis=1)
        assert 0.35 < absent.mean() < 0.65
        row = int(np.flatnonzero(~absent)[0])
        draws = np.random.default_rng((0, 0, row))
        _, loci = windows.cohort[int(draws.integers(2))]
        chrom, start = loci.draw(draws)
        np.testing.assert_array_equal(sequence[row], fasta.codes(chrom, start * 25, (start + 240) * 25))


def test_the_control_is_the_last_lane(store):
    lanes = Lanes(store, "sim1", ASSAYS)
    assert lanes.experiments[-1].assay == CONTROL
    assert Lanes(store, "sim2", ASSAYS).experiments[-1] is None
