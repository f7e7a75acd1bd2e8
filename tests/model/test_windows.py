"""Windows for prediction: many at once hold what each holds on its own, counted and copied bin by bin."""

import numpy as np
import pytest
from conftest import TEST_DATA
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Window
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.model.candi import Lanes, preset
from candi_cli.model.candi.config import MISSING, OBSERVED
from candi_cli.model.candi.windows import PredictionDataset
from candi_cli.store import Store

ASSAYS = ("H3K27me3", "H3K36me3", "H3K9me3", "H3K4me3")  # the third is not there
LENGTH = 240


@pytest.fixture(scope="module")
def store(store_path):
    with Store.open(store_path) as store:
        yield store


@pytest.fixture(scope="module")
def counts(store):
    """Reads per bin of each lane that is there, of whole chromosomes."""
    lanes = {0: "H3K27me3", 1: "H3K36me3", 3: "H3K4me3", 4: "control"}
    return {
        lane: {
            chrom: store.read("sim1", assay, "counts", chrom, 0, store.n_bins(chrom)).astype(np.int64)
            for chrom in store.chromsizes
        }
        for lane, assay in lanes.items()
    }


def dataset_of(store, *, sequence=None):
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=sequence is not None)
    lanes = Lanes(store, "sim1", ASSAYS)
    return PredictionDataset(config, lanes, lanes.covariates(), [Covariates()] * len(ASSAYS), sequence)


def window(chrom, start):
    return Window(chrom, start, start + LENGTH, start, start + LENGTH)


places = st.lists(
    st.one_of(
        st.tuples(st.just("chr1"), st.integers(0, 12_001 - LENGTH // 2)),
        st.tuples(st.just("chr2"), st.integers(0, 4_800 - LENGTH // 2)),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def check(batch, windows, counts):
    for row, (chrom, start, *_) in enumerate(windows):
        for lane in range(len(ASSAYS) + 1):
            whole = counts[lane][chrom] if lane in counts else np.zeros(0)
            inside = whole[start : start + LENGTH]
            expected = np.zeros(LENGTH)
            expected[: len(inside)] = inside
            np.testing.assert_array_equal(batch.values[row, :, lane], expected)
            known = np.where(np.arange(LENGTH) < len(inside), OBSERVED, MISSING)
            np.testing.assert_array_equal(batch.availability[row, :, lane], known)


@given(places=places, in_order=st.booleans())
def test_a_batch_of_any_windows_holds_each_of_them(store, counts, places, in_order):
    windows = [window(*place) for place in (sorted(places) if in_order else places)]
    dataset = dataset_of(store)
    check(dataset.batch(windows), windows, counts)
    dataset.signatures(windows)  # what it keeps of these does not show in the next
    check(dataset.batch(windows[::2]), windows[::2], counts)


@given(first=st.integers(0, 40), step=st.integers(1, 300), n=st.integers(1, 40))
def test_a_batch_of_windows_along_a_chromosome_holds_each_of_them(store, counts, first, step, n):
    windows = [window("chr1", at) for at in range(first, min(first + n * step, 12_001), step)]
    check(dataset_of(store).batch(windows), windows, counts)


def test_windows_alike_are_those_without_a_read_inside_of_a_chromosome():
    n_bins, reads = 12_001, {"H3K27me3": [5, 900, 901, 12_000], "control": [4_000]}
    with Store.create(None, rule=CountingRule(), chromsizes={"chr1": 25 * n_bins - 3}) as sparse:
        for assay, where in reads.items():
            sparse.add_experiment("sim1", assay)
            sparse.describe("sim1", assay, Covariates())
            sparse.write("sim1", assay, "counts", "chr1", np.isin(np.arange(n_bins), where).astype(np.uint32))
        windows = [window("chr1", start) for start in range(0, n_bins, 7)]
        places = [place for where in reads.values() for place in where]
        expected = [
            None
            if w.context_end > n_bins or any(w.context_start <= at < w.context_end for at in places)
            else "no reads"
            for w in windows
        ]
        assert 100 < expected.count("no reads") < len(windows) - 100
        dataset = dataset_of(sparse)
        assert dataset.signatures(windows) == expected
        assert [dataset.signatures([one])[0] for one in windows] == expected
        assert dataset.signatures([window("chr1", 1_000)]) == ["no reads"]
        assert dataset.signatures([window("chr1", -3)]) == [None]


def test_the_bases_of_windows_are_those_of_each(store):
    with Fasta(TEST_DATA / "genome.fa.gz") as fasta:
        dataset = dataset_of(store, sequence=fasta)
        windows = [window("chr1", start) for start in (100, 300, 301, 5_900, 11_990)] + [window("chr2", 7)]
        batch = dataset.batch(windows)
        for row, (chrom, start, end, *_) in enumerate(windows):
            np.testing.assert_array_equal(batch.sequence[row], fasta.codes(chrom, start * 25, end * 25))
        assert dataset.signatures(windows) == [None] * len(windows)
