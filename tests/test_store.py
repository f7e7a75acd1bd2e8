"""The tensor store: what goes in comes out, in the smallest width, and damage is noticed."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.errors import StoreError
from candi_cli.store import FORMAT_VERSION, LAYERS, Store

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
