"""Training windows: what is shown, what is asked for, and what they depend on."""

import gc
import re
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, MISSING, UNKNOWN, Covariates
from candi_cli.genome import Region
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.loci import find_loci
from candi_cli.model.candi import Corruption, Lanes, TrainingDataset, preset
from candi_cli.model.candi.dataset import shares_of
from candi_cli.model.candi.masking import PAPER
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


def dataset(store, corruption=None, *, seed=0, batch_size=4, fasta=None, regions=(), **options):
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=fasta is not None)
    return TrainingDataset(
        config, cohort(store, config.context_bins, regions=regions),
        corruption=corruption or Corruption(), batch_size=batch_size, seed=seed,
        sequences={store.name: fasta} if fasta else None, **options,
    )  # fmt: skip


def flat(batch) -> list:
    return [part for half in batch for part in half]


def equal(one, other) -> bool:
    pairs = list(zip(flat(one), flat(other), strict=True))
    return all(a is b if a is None else torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)) for a, b in pairs)


def windows_of(windows, step=0):
    """Biosample, chromosome and start of each window, as `describe` names them."""
    found = [re.fullmatch(r"(.+) (.+):([0-9,]+)", text) for text in windows.describe(step).split("; ")]
    return [(one[1], one[2], (int(one[3].replace(",", "")) - 1) // 25) for one in found]


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


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_test_chromosome_is_never_read(store, monkeypatch, unpacked):
    touched = set()

    def spy(holder, name, chrom_at):
        plain = getattr(holder, name)
        monkeypatch.setattr(holder, name, lambda *given: (touched.add(given[chrom_at]), plain(*given))[1])

    spy(Store, "read", 4)
    spy(Fasta, "codes", 1)
    with Fasta(FASTA) as fasta:
        windows = dataset(store, batch_size=16, fasta=fasta)
        if unpacked:
            assert windows.decode() > 0
        for step in range(6):
            windows.batch(step)
    assert touched == {"chr1"}


def test_windows_stay_inside_their_regions(store):
    region = Region("chr1", 100_000, 120_000)
    for _, loci in cohort(store, 240, regions=[region]):
        starts = [loci.draw(np.random.default_rng(seed))[1] for seed in range(300)]
        assert min(starts) * 25 >= region.start
        assert (max(starts) + 240) * 25 <= region.end


def test_uncorrupted_windows_show_the_store_as_it_is(store):
    windows = dataset(store, NOTHING, batch_size=8)
    inputs, targets = windows.batch(0)
    members = {lanes.biosample: lanes for lanes, _ in cohort(store, 240)}
    for row, (biosample, chrom, start) in enumerate(windows_of(windows)):
        lanes = members[biosample]
        for lane, experiment in enumerate(lanes.experiments):
            state, shown = inputs.availability[row, :, lane], inputs.values[row, :, lane]
            if experiment is None:
                assert (state == MISSING_LANE).all()
                assert not shown.any()
                continue
            assert (state == OBSERVED).all()
            np.testing.assert_array_equal(shown, lanes.read(lane, "counts", chrom, start, start + 240))
            for layer in ("signal", "peaks"):
                if lane < 4 and layer in experiment.layers:
                    expected = lanes.read(lane, layer, chrom, start, start + 240)
                    np.testing.assert_array_equal(getattr(targets, layer)[row, :, lane], expected)
                    assert targets.valid[row, ("counts", "signal", "peaks").index(layer), lane]
    # all reads are seen, so nothing independent is left to predict
    assert not targets.valid[:, 0].any()


def test_seen_and_target_together_never_exceed_the_reads(store):
    windows = dataset(store, Corruption(0, 0, 1, 0, 0, 0), batch_size=16)
    inputs, targets = windows.batch(3)
    whole = dataset(store, NOTHING, batch_size=16).batch(3).inputs
    shown, asked = inputs.values[..., :-1].int(), targets.counts.int()
    valid = targets.valid[:, 0, None].expand_as(asked)
    # thinning draws after the window is chosen, so both datasets look at the same windows
    assert (shown[valid] + asked[valid] <= whole.values[..., :-1].int()[valid]).all()
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


def test_the_other_strand_is_the_window_backwards_with_its_bases_complemented(store):
    corruption = Corruption(1, 1, 1, 0.5, 0.2, 0)
    with Fasta(FASTA) as fasta:
        forward = dataset(store, corruption, fasta=fasta, batch_size=12).batch(2)
        backward = dataset(store, replace(corruption, reverse_complement=1), fasta=fasta, batch_size=12).batch(2)
    for name in ("values", "availability"):
        assert torch.equal(getattr(forward.inputs, name), getattr(backward.inputs, name).flip(1)), name
    for name in ("counts", "signal", "peaks", "masked"):
        assert torch.equal(getattr(forward.targets, name), getattr(backward.targets, name).flip(1)), name
    assert forward.inputs.values[..., -1].any()  # the control, too
    assert torch.equal(forward.targets.valid, backward.targets.valid)
    assert torch.equal(forward.inputs.covariates_in.nan_to_num(-9), backward.inputs.covariates_in.nan_to_num(-9))
    letters, pairs = "ACGTN-", dict(zip("ACGTN-", "TGCAN-", strict=True))
    for one, other in zip(forward.inputs.sequence.tolist(), backward.inputs.sequence.tolist(), strict=True):
        assert [letters[code] for code in other] == [pairs[letters[code]] for code in reversed(one)]


def test_half_of_the_windows_are_read_from_the_other_strand(store):
    both = dataset(store, replace(NOTHING, reverse_complement=0.5), batch_size=300).batch(0).inputs.values
    forward = dataset(store, NOTHING, batch_size=300).batch(0).inputs.values
    as_it_is = (both == forward).all(dim=(1, 2))
    assert (as_it_is | (both == forward.flip(1)).all(dim=(1, 2))).all()
    assert 0.4 < as_it_is.float().mean() < 0.6


def test_dna_is_dropped_as_often_as_stated_and_otherwise_the_windows_own(store):
    with Fasta(FASTA) as fasta:
        windows = dataset(store, Corruption(0, 0, 0, 0.5, 0, 0), batch_size=200, fasta=fasta)
        sequence = windows.batch(0).inputs.sequence.numpy()
        absent = (sequence == NO_SEQUENCE).all(axis=1)
        assert 0.35 < absent.mean() < 0.65
        row = int(np.flatnonzero(~absent)[0])
        _, chrom, start = windows_of(windows)[row]
        np.testing.assert_array_equal(sequence[row], fasta.codes(chrom, start * 25, (start + 240) * 25))


def test_the_control_is_the_last_lane(store):
    lanes = Lanes(store, "sim1", ASSAYS)
    assert lanes.experiments[-1].assay == CONTROL
    assert Lanes(store, "sim2", ASSAYS).experiments[-1] is None


@pytest.mark.parametrize("corruption", [Corruption(), PAPER, NOTHING], ids=["ours", "paper", "nothing"])
def test_unpacked_layers_give_the_same_batches(store, tmp_path, corruption):
    with Fasta(FASTA) as fasta:
        packed = dataset(store, corruption, batch_size=12, fasta=fasta)
        unpacked = dataset(store, corruption, batch_size=12, fasta=fasta)
        size = unpacked.decode(tmp_path / "layers")
        files = sorted((tmp_path / "layers").iterdir())
        # size is that of the layers; the DNA of 25 bp a bin comes on top
        assert size < sum(path.stat().st_size for path in files) < size + 100_000 * 25 + 128 * len(files) * 2
        assert all(equal(packed.batch(step), unpacked.batch(step)) for step in range(3))
        times = [path.stat().st_mtime_ns for path in files]
        again = dataset(store, corruption, batch_size=12, fasta=fasta)
        again.decode(tmp_path / "layers")
        assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "layers").iterdir())] == times
        assert equal(again.batch(1), packed.batch(1))


def test_unpacked_layers_above_the_limit_are_not_made(store, tmp_path):
    windows = dataset(store)
    assert windows.decode(tmp_path / "layers", limit_bytes=1000) == 0
    assert not list((tmp_path / "layers").iterdir())
    assert equal(windows.batch(0), dataset(store).batch(0))


def test_a_temporary_folder_of_unpacked_layers_goes_with_the_dataset(store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    windows = dataset(store)
    assert windows.decode() > 0
    assert len(list(tmp_path.iterdir())) == 1
    del windows
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_give_the_batches_of_one_in_order(store):
    with Fasta(FASTA) as fasta:
        windows = dataset(store, batch_size=3, fasta=fasta)
        expected = [windows.batch(step) for step in range(5, 12)]
        windows.decode()
        found = list(islice(windows.batches(5, workers=2), 7))
        assert all(equal(one, other) for one, other in zip(found, expected, strict=True))
        alone = list(islice(windows.batches(5), 7))
        assert all(equal(one, other) for one, other in zip(alone, expected, strict=True))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_out_the_rows_of_one_global_batch(store, world_size):
    whole = flat(dataset(store, batch_size=7).batch(4))
    for rank in range(world_size):
        part = flat(dataset(store, batch_size=7, rank=rank, world_size=world_size).batch(4))
        for one, other in zip(whole, part, strict=True):
            if one is not None:
                assert torch.equal(one[rank::world_size].nan_to_num(-9), other.nan_to_num(-9))


def test_the_order_of_biosamples_and_stores_changes_nothing(store, store_path, tmp_path):
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=False)
    copied = tmp_path / "another.h5"
    shutil.copy(store_path, copied)
    with Store.open(copied) as other:
        members = [*cohort(store, 240), *cohort(other, 240)]
        one, turned = (
            TrainingDataset(config, each, corruption=Corruption(), batch_size=16, seed=3)
            for each in (members, members[::-1])
        )
        assert equal(one.batch(0), turned.batch(0))
        assert one.describe(0) == turned.describe(0)


def test_half_of_the_draws_are_even_over_biosamples_and_half_over_assays():
    available = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
    shares = shares_of(available)
    # by hand: assays 0..3 are had by 3, 1, 1 and 1 biosamples
    by_assay = np.array([1 / 3 + 1 + 1, 1 / 3, 1 / 3 + 1, 0]) / 4
    np.testing.assert_allclose(shares, 0.5 * np.array([1, 1, 1, 0]) / 3 + 0.5 * by_assay)
    # the other route: drawing as it is described
    rng, drawn = np.random.default_rng(0), np.zeros(4)
    for _ in range(40_000):
        if rng.random() < 0.5:
            drawn[rng.choice(3)] += 1
        else:
            drawn[rng.choice(np.flatnonzero(available[:, rng.choice(4)]))] += 1
    np.testing.assert_allclose(drawn / 40_000, shares, atol=0.01)


def test_biosamples_are_drawn_as_often_as_their_shares(store):
    windows = dataset(store, batch_size=400)
    names = [biosample for step in range(5) for biosample, _, _ in windows_of(windows, step)]
    expected = shares_of(np.array([[1, 1, 1, 0], [0, 1, 1, 1]], dtype=bool))
    assert names.count("sim1") / len(names) == pytest.approx(expected[0], abs=0.035)


def test_counts_cross_in_the_smallest_integers_that_hold_them(tmp_path):
    rule = CountingRule()
    for largest, dtype in ((200, torch.uint8), (300, torch.uint16), (70_000, torch.int32)):
        with Store.create(None, rule=rule, chromsizes={"chr1": 240 * 25}) as store:
            counts = np.zeros(240, dtype=np.uint32)
            counts[::7] = largest
            store.add_experiment("b", ASSAYS[0])
            store.write("b", ASSAYS[0], "counts", "chr1", counts)
            store.describe("b", ASSAYS[0], Covariates(1e6, span_bp=6000))
            store.write_blocks("b", ASSAYS[0], "chr1", np.ones(1, dtype=np.uint32), 100_000)
            inputs, targets = dataset(store, replace(NOTHING, thin=0.5), batch_size=6).batch(0)
            assert inputs.values.dtype == dtype
            seen = [row[:, 0] for row, target in zip(inputs.values, targets.valid[:, 0, 0], strict=True) if not target]
            assert seen
            assert all(np.array_equal(row, counts) for row in seen)


def test_an_input_thinned_by_the_papers_factors_has_their_depth(store):
    inputs, targets = dataset(
        store, replace(PAPER, mask_assays=0, mask_loci=0, reverse_complement=0), batch_size=64
    ).batch(0)
    whole = dataset(store, NOTHING, batch_size=64).batch(0).inputs
    present = whole.availability.amax(dim=1) == OBSERVED
    factors = 2.0 ** (whole.covariates_in[:, 0] - inputs.covariates_in[:, 0])
    nearest = torch.tensor([1.0, 2.0, 4.0])[(factors[..., None] - torch.tensor([1.0, 2.0, 4.0])).abs().argmin(dim=-1)]
    assert (factors / nearest - 1).abs()[present].max() < 0.25  # folds are only about equal
    for row in range(64):  # one factor for the experiments of a window
        assert len(set(nearest[row][present[row]].tolist())) == 1
    assert set(nearest[present].tolist()) == {1.0, 2.0, 4.0}
    # at factor 1 no read is left; else the target is all of the rest
    assert torch.equal(targets.valid[:, 0], present[:, :-1] & (nearest[:, :-1] > 1))
    rest = targets.valid[:, 0, None].expand_as(targets.counts)
    total = (inputs.values[..., :-1].int() + targets.counts.int())[rest]
    assert torch.equal(total, whole.values[..., :-1].int()[rest])
