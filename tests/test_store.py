"""The tensor store: what goes in comes out, in the smallest width, and damage is noticed."""

import json
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.errors import StoreError
from candi_cli.store import CHUNK_BINS, FORMAT_VERSION, LAYERS, Store
from candi_cli.store.chunks import compressed

TEST_DATA = Path(__file__).parents[1] / "test_data"
SIZES = {"chr2": 1_010, "chr10": 500, "chr1": 75}  # in an order that no sorting gives
RULE = CountingRule("five-prime", 25, 20, 0x404, (4, -5))
COVARIATES = Covariates(1e6, 50.0, None, "Illumina HiSeq 4000", 3e8)
SOURCES = [{"name": "x.bam", "size": 3, "mtime": 5}]


@pytest.fixture
def memory() -> Iterator[Store]:
    with Store.create(None, rule=RULE, chromsizes=SIZES) as store:
        store.add_experiment("b", "x")
        yield store


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    folds = rng.integers(0, 300, (41, 4)).astype(np.uint32)
    return {
        "counts": folds.sum(axis=1, dtype=np.uint32),
        "folds": folds,
        "signal": rng.gamma(0.5, 3, 41).astype(np.float32),
        "peaks": rng.integers(0, 2, 41).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory, values) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.h5"
    with Store.create(path, rule=RULE, chromsizes=SIZES, command="candi bin") as store:
        store.add_experiment("b", "x")
        store.add_experiment("b", "control")
        store.add_experiment("a", "x")
        for layer in LAYERS:
            store.write("b", "x", layer, "chr2", values[layer])
        store.describe("b", "x", COVARIATES, fold_depths=[5, 6, 7, 8], sources=SOURCES)
        store.describe("b", "control", Covariates())
        store.write("b", "control", "signal", "chr1", np.ones(3, dtype=np.float32))
        store.write("a", "x", "peaks", "chr10", np.ones(20, dtype=np.uint8))
        store.describe("a", "x", Covariates())
    return path


def test_an_opened_store_says_what_was_written(written, values):
    with Store.open(written) as store:
        assert (store.rule, store.name, store.path) == (RULE, str(written), written)
        assert list(store.chromsizes.items()) == list(SIZES.items())
        assert {chrom: store.n_bins(chrom) for chrom in SIZES} == {"chr2": 41, "chr10": 20, "chr1": 3}
        assert store.biosamples == ["a", "b"]
        assert store.assays("b") == ["control", "x"]
        found = store.experiment("b", "x")
        assert found[:3] == ("b", "x", COVARIATES)
        assert found.fold_depths.tolist() == [5, 6, 7, 8]
        assert found.layers == set(LAYERS)
        assert store.sources("b", "x") == SOURCES
        control = store.experiment("b", "control")
        assert (control.covariates, len(control.fold_depths), control.layers) == (Covariates(), 0, {"signal"})
        for layer, expected in values.items():
            np.testing.assert_array_equal(store.read("b", "x", layer, "chr2", 0, 41), expected)


def test_chromosomes_with_reads_are_listed_in_the_order_of_the_genome_and_those_with_signal_alone_are_not(written):
    with Store.open(written) as store:
        assert store.has("b", "control", "signal", "chr1")
        assert store.chroms_with_reads("b") == ["chr2"]
        assert store.chroms_with_reads("a") == []


def test_a_store_in_memory_reads_as_one_on_disk(written, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.create(None, rule=RULE, chromsizes=SIZES) as store, Store.open(written) as disk:
        store.add_experiment("b", "x")
        for layer in LAYERS:
            store.write("b", "x", layer, "chr2", values[layer])
            found, expected = (each.read("b", "x", layer, "chr2", -3, 50) for each in (store, disk))
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        assert store.path is None
        assert store.chroms_with_reads("b") == ["chr2"]
    assert not list(tmp_path.iterdir())


def test_two_stores_in_memory_do_not_meet():
    with Store.create(None, rule=RULE, chromsizes={"chr1": 50}) as one:
        with Store.create(None, rule=CountingRule(), chromsizes={"chr2": 75}) as other:
            other.add_experiment("b", "x")
            assert (one.chromsizes, other.chromsizes) == ({"chr1": 50}, {"chr2": 75})
        assert one.biosamples == []


@pytest.mark.parametrize("largest", [0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63])
def test_counts_are_kept_exactly_in_the_narrowest_width_that_holds_them(tmp_path, largest):
    counts = np.array([largest, 0, largest // 2], dtype=np.uint64)
    path = tmp_path / "s.h5"
    with Store.create(path, rule=RULE, chromsizes=SIZES) as store:
        store.add_experiment("b", "x")
        store.write("b", "x", "counts", "chr1", counts)
    with Store.open(path) as store:
        assert store.read("b", "x", "counts", "chr1", 0, 3).tolist() == counts.tolist()
    with h5py.File(path) as file:
        bytes_needed = max(1, -(-largest.bit_length() // 8))
        next_power_of_two = 1 << (bytes_needed - 1).bit_length()
        assert file["biosamples/b/x/counts/chr1"].dtype.itemsize == next_power_of_two


def test_signal_keeps_its_type_and_every_bit(memory):
    signal = np.array([1.1, -0.0, 3.4e38], dtype=np.float32)
    memory.write("b", "x", "signal", "chr1", signal)
    found = memory.read("b", "x", "signal", "chr1", 0, 3)
    assert found.dtype == np.float32
    assert found.tobytes() == signal.tobytes()


@settings(deadline=None)
@given(start=st.integers(-60, 60), width=st.integers(0, 80), layer=st.sampled_from(LAYERS))
def test_bins_outside_of_the_chromosome_read_as_zero(written, values, start, width, layer):
    padded = np.concatenate(
        [np.zeros((100, *values[layer].shape[1:])), values[layer], np.zeros((150, *values[layer].shape[1:]))]
    )
    with Store.open(written) as store:
        np.testing.assert_array_equal(
            store.read("b", "x", layer, "chr2", start, start + width), padded[start + 100 : start + 100 + width]
        )


@pytest.mark.parametrize("layer", LAYERS)
def test_a_chromosome_without_data_reads_as_zeros_of_the_same_kind(written, values, layer):
    with Store.open(written) as store:
        found, like = store.read("b", "x", layer, "chr10", -2, 22), store.read("b", "x", layer, "chr2", 0, 1)
    assert found.shape == (24, *values[layer].shape[1:])
    assert found.dtype == like.dtype
    assert not found.any()


def test_values_that_do_not_fit_the_grid_are_refused(memory):
    with pytest.raises(ValueError, match="counts of chr1 has 4 bins, the grid 3"):
        memory.write("b", "x", "counts", "chr1", np.zeros(4, dtype=np.uint32))


def test_blocks_are_covered_when_any_experiment_of_the_biosample_has_a_read_there(memory):
    memory.add_experiment("b", "y")
    memory.add_experiment("c", "x")
    for name, assay, starts in (("b", "x", [0, 5, 0]), ("b", "y", [1, 0, 0]), ("c", "x", [0, 0, 9])):
        memory.write_blocks(name, assay, "chr2", np.array(starts, dtype=np.uint32), 400)
    blocks, width = memory.covered_blocks("b", "chr2")
    assert (blocks.tolist(), width) == ([True, True, False], 400)
    blocks, width = memory.covered_blocks("c", "chr2")
    assert (blocks.tolist(), width) == ([False, False, True], 400)


def test_a_chromosome_without_reads_is_not_covered(memory):
    blocks, width = memory.covered_blocks("b", "chr10")
    assert (blocks.tolist(), width) == ([False], 500)


def test_the_file_states_its_format_its_rule_and_its_command(written):
    with h5py.File(written) as file:
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert file.attrs["command"] == "candi bin"
        assert CountingRule.from_json(json.loads(file.attrs["counting"])) == RULE


def refusal(path: Path) -> str:
    with pytest.raises(StoreError, match=rf"^{re.escape(str(path))}: .*; ") as caught:
        Store.open(path)
    return str(caught.value)


def test_a_store_of_another_version_is_refused_with_both_versions(written, tmp_path):
    path = Path(shutil.copy(written, tmp_path))
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = FORMAT_VERSION + 1
    assert f"format version {FORMAT_VERSION + 1}, expected {FORMAT_VERSION}" in refusal(path)


def test_what_is_no_store_is_refused_by_what_it_is(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.h5")
    assert "an HDF5 file but not a store" in refusal(TEST_DATA / "truth.h5")
    for path in (TEST_DATA / "sim1.control.bam", TEST_DATA / "meta.tsv", tmp_path):
        assert "not a store" in refusal(path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_store_is_refused(written, tmp_path, part):
    path = tmp_path / "cut.h5"
    content = written.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("layer", LAYERS)
def test_damaged_values_are_noticed_and_the_others_still_read(written, values, tmp_path, layer):
    path = Path(shutil.copy(written, tmp_path))
    with h5py.File(path) as file:
        chunk = file[f"biosamples/b/x/{layer}/chr2"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0x10
    path.write_bytes(content)
    with Store.open(path) as store:
        with pytest.raises(
            StoreError, match=rf"^{re.escape(str(path))}: {layer} of b/x on chr2 cannot be read; it is damaged,"
        ):
            store.read("b", "x", layer, "chr2", 0, 41)
        for other in set(LAYERS) - {layer}:
            np.testing.assert_array_equal(store.read("b", "x", other, "chr2", 0, 41), values[other])


LONG = {"chr1": 3 * 25 * CHUNK_BINS + 1_010, "chr2": 25 * CHUNK_BINS, "chr3": 60}  # chunks: cut, whole, one alone
BINS = {chrom: -(-length // 25) for chrom, length in LONG.items()}
KINDS = {  # layer of an experiment -> the type that its values need
    ("narrow", "counts"): np.uint8,
    ("narrow", "folds"): np.uint8,
    ("narrow", "peaks"): np.uint8,
    ("narrow", "signal"): np.float32,
    ("wide", "counts"): np.uint16,
    ("wide", "folds"): np.uint16,
    ("widest", "counts"): np.uint32,
    ("widest", "folds"): np.uint32,
}


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """A store whose chromosomes have several chunks, of every type of values."""
    rng = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("long") / "long.h5"
    with Store.create(path, rule=RULE, chromsizes=LONG) as store:
        for assay in sorted({assay for assay, _ in KINDS}):
            store.add_experiment("b", assay)
        for (assay, layer), dtype in KINDS.items():
            for chrom, n_bins in BINS.items():
                shape = (n_bins, 3) if layer == "folds" else (n_bins,)
                if dtype == np.float32:
                    values = rng.gamma(0.5, 1e4, shape).astype(np.float32)
                else:
                    top = np.iinfo(dtype).max
                    values = np.minimum(rng.integers(0, top, shape, endpoint=True), top).astype(np.uint32)
                    values.reshape(-1)[-1] = top
                store.write("b", assay, layer, chrom, values)
        for assay in store.assays("b"):
            store.describe("b", assay, Covariates())
    return path


@pytest.mark.parametrize(("assay", "layer"), KINDS)
def test_random_windows_are_the_slices_that_hdf5_itself_reads(long, assay, layer):
    rng = np.random.default_rng(3)
    with h5py.File(long) as file, Store.open(long) as store:
        for chrom, n_bins in BINS.items():
            dataset = file[f"biosamples/b/{assay}/{layer}/{chrom}"]
            assert dataset.dtype == KINDS[assay, layer]
            everything = dataset[:].T
            assert len(everything) == n_bins
            chunk = dataset.chunks[-1]
            edges = [at + near for at in range(0, n_bins + 1, chunk) for near in (-1, 0, 1)] + [n_bins - 1, n_bins]
            edges = sorted({edge for edge in edges if 0 <= edge <= n_bins})
            windows = [(one, other) for one in edges for other in edges if one <= other]
            windows += [tuple(sorted(rng.integers(0, n_bins, 2, endpoint=True).tolist())) for _ in range(50)]
            for start, end in windows:
                found = store.read("b", assay, layer, chrom, start, end)
                assert found.dtype == dataset.dtype
                assert found.shape == everything[start:end].shape
                assert found.tobytes() == np.ascontiguousarray(everything[start:end]).tobytes()


def test_a_window_that_is_read_may_be_written_into_without_changing_the_store(long):
    with Store.open(long) as store:
        first = store.read("b", "narrow", "counts", "chr1", 0, 100)
        expected = first.copy()
        first[:] = 77
        np.testing.assert_array_equal(store.read("b", "narrow", "counts", "chr1", 0, 100), expected)


def test_the_checksum_of_a_dataset_is_zlib_crc32_of_its_values(long, written):
    seen = []

    def check(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and name.count("/") == 4:
            assert int(item.attrs["crc32"]) == zlib.crc32(np.ascontiguousarray(item[:]).tobytes())
            assert item.dtype.byteorder in "<|="
            seen.append(name)

    for path in (long, written):
        with h5py.File(path) as file:
            file["biosamples"].visititems(lambda name, item: check(f"x/{name}", item))
    assert len(seen) == len(KINDS) * len(LONG) + len(LAYERS) + 2


def test_chunks_have_the_same_bytes_wherever_the_thread_that_writes_them_has_its_stack():
    """A compressor that takes an address into its hashes, as igzip does, writes others in half of the threads."""
    motifs = np.random.default_rng(5).integers(0, 256, (64, 20), dtype=np.uint8)
    rows, found = np.tile(motifs, 3), []
    barrier = threading.Barrier(50)  # all alive at once, each with a stack of its own

    def write() -> None:
        barrier.wait(timeout=60)
        found.append(tuple(compressed(row, row.shape) for row in rows))

    threads = [threading.Thread(target=write) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == barrier.parties
    assert [zlib.decompress(chunk) for chunk in found[0]] == [row.tobytes() for row in rows]
    assert len(set(found)) == 1


def test_hdf5_alone_reads_a_store(long, tmp_path):
    """A process that has h5py and nothing of candi, and checks the chunks through HDF5's own filters."""
    script = tmp_path / "read.py"
    script.write_text(
        "import json, sys, zlib\nimport h5py\n"
        "with h5py.File(sys.argv[1]) as store:\n"
        "    sizes = dict(zip(store['genome/chroms'].asstr()[:], store['genome/lengths'][:].tolist()))\n"
        "    sums = {}\n"
        "    store['biosamples'].visititems(\n"
        "        lambda name, item: sums.update({name: zlib.crc32(item[:].tobytes())})\n"
        "        if isinstance(item, h5py.Dataset) else None)\n"
        "    facts = {k: v if isinstance(v, str) else int(v) for k, v in store.attrs.items()}\n"
        "    print(json.dumps([facts, sizes, sums]))\n"
        "assert not [name for name in sys.modules if name.startswith(('candi', 'isal'))]\n"
    )
    ran = subprocess.run([sys.executable, "-I", script, long], capture_output=True, text=True, check=True)
    header, sizes, sums = json.loads(ran.stdout)
    assert header["format"] == "candi-store"
    assert sizes == LONG
    with h5py.File(long) as file:
        assert sums == {name: int(file["biosamples"][name].attrs["crc32"]) for name in sums}
    assert len(sums) == len(KINDS) * len(LONG)


Asked = tuple[str, str, str, int, int]


def asked_windows(n_windows: int = 60) -> list[Asked]:
    rng = np.random.default_rng(4)
    pairs, chroms = list(KINDS), list(LONG)
    found = []
    for _ in range(n_windows):
        assay, layer = pairs[rng.integers(len(pairs))]
        chrom = chroms[rng.integers(len(chroms))]
        start = int(rng.integers(-10, BINS[chrom]))
        found.append((assay, layer, chrom, start, start + int(rng.integers(1, 3_000))))
    return found


def checksums(store: Store, asked: list[Asked]) -> list[int]:
    return [
        zlib.crc32(np.ascontiguousarray(store.read("b", assay, layer, chrom, start, end)).tobytes())
        for assay, layer, chrom, start, end in asked
    ]


def answer(store: Store, asked: list[Asked], answers: Any) -> None:
    answers.put(checksums(store, asked))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_that_were_given_an_open_store_read_the_same_values(long, method):
    context, asked = multiprocessing.get_context(method), asked_windows()
    with Store.open(long) as store:
        expected = checksums(store, asked)  # before the fork: what is cached travels
        answers = context.Queue()
        processes = [context.Process(target=answer, args=(store, asked, answers)) for _ in range(2)]
        for process in processes:
            process.start()
        assert checksums(store, asked) == expected  # while they read
        assert [answers.get(timeout=60) for _ in processes] == [expected] * 2
        for process in processes:
            process.join(timeout=60)
            assert process.exitcode == 0
        assert checksums(store, asked) == expected  # their end has not closed it here


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_of_a_data_loader_give_the_windows_of_one_process(long):
    from torch.utils.data import DataLoader, Dataset

    asked = asked_windows(20)
    with Store.open(long) as store:
        expected = checksums(store, asked)

        class Windows(Dataset):
            def __len__(self) -> int:
                return len(asked)

            def __getitem__(self, index: int) -> int:
                return checksums(store, [asked[index]])[0]

        loader = DataLoader(Windows(), batch_size=3, num_workers=2, multiprocessing_context="fork")
        for _ in range(2):
            assert [value for batch in loader for value in batch.tolist()] == expected


def test_threads_that_share_an_open_store_read_the_same_values(long):
    asked = asked_windows(40)
    with Store.open(long) as alone:
        expected = checksums(alone, asked)
    with Store.open(long) as store, ThreadPoolExecutor(8) as threads:
        shuffled = [asked[at:] + asked[:at] for at in range(0, 40, 5)]
        answers = list(threads.map(lambda each: checksums(store, each), shuffled))
    assert answers == [expected[at:] + expected[:at] for at in range(0, 40, 5)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_a_thread_reads_neither_hangs_nor_errs(long):
    context, asked = multiprocessing.get_context("fork"), asked_windows(10)
    with Store.open(long) as store, ThreadPoolExecutor(1) as thread:
        expected = checksums(store, asked)
        reading = thread.submit(lambda: [checksums(store, asked) for _ in range(60)])
        for _ in range(5):
            answers = context.SimpleQueue()
            process = context.Process(target=answer, args=(store, asked, answers))
            process.start()
            process.join(timeout=30)
            assert process.exitcode == 0
            assert answers.get() == expected
        assert reading.result() == [expected] * 60


def test_a_pickled_store_is_opened_again_wherever_it_is_loaded(long, tmp_path, monkeypatch):
    monkeypatch.chdir(long.parent)
    with Store.open(Path(long.name)) as store:
        packed = pickle.dumps(store)
        expected = checksums(store, asked_windows(10))
    assert len(packed) < 1_000
    monkeypatch.chdir(tmp_path)
    with pickle.loads(packed) as store:
        assert checksums(store, asked_windows(10)) == expected
        assert (store.rule, store.chromsizes) == (RULE, LONG)


def test_a_store_in_memory_cannot_be_pickled(memory):
    with pytest.raises(TypeError, match="in memory"):
        pickle.dumps(memory)


def test_a_pickled_store_that_is_gone_is_named(written, tmp_path):
    path = Path(shutil.copy(written, tmp_path))
    with Store.open(path) as store:
        packed = pickle.dumps(store)
    path.unlink()
    with pytest.raises(StoreError, match=f"^{re.escape(str(path))}: no such file"):
        pickle.loads(packed)
