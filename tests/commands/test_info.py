"""`candi info`: what it says of a file is what an independent reader finds, and no damage escapes it."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors import safe_open

from candi_cli.covariates import read_sheet
from candi_cli.store import Store

TEST_DATA = Path(__file__).parents[2] / "test_data"
EXPERIMENT = "biosamples/sim1/H3K4me3"
DATASETS = {
    layer: f"{EXPERIMENT}/{layer}/chr1" for layer in ("counts", "folds", "signal", "peaks", "blocks", "signal_spans")
}  # one of each layer


@pytest.fixture
def store(store_path, tmp_path) -> Path:
    """A store that a test may damage."""
    return Path(shutil.copy(store_path, tmp_path / "s.h5"))


def refused(ran, path: Path, *parts: str) -> str:
    """Assert that a command ended with 1 and one line of path, fact and remedy; return it."""
    assert ran.code == 1, ran.out
    assert len(ran.errors) == 1, ran.err
    line = ran.errors[0]
    assert line.startswith(f"candi info: {path}: ")
    assert "; " in line
    for part in parts:
        assert part in line
    return line


def test_a_good_store_is_verified(candi, store_path):
    ran = candi("info", store_path)
    assert ran.code == 0
    with h5py.File(store_path) as file:
        names = []
        file["biosamples"].visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    assert ran.errors == [f"candi info: {store_path}: {len(names)} datasets verified"]
    table = [line.split("\t") for line in ran.out.partition("\n\n")[2].splitlines()]
    sheet = {row.name: row for row in read_sheet(TEST_DATA / "meta.tsv")}
    assert {f"{row[0]}/{row[1]}" for row in table[1:]} == sheet.keys()
    assert {len(row) for row in table} == {len(table[0])}
    for row in (dict(zip(table[0], cells, strict=True)) for cells in table[1:]):
        given = sheet[f"{row['biosample']}/{row['assay']}"]
        files = [path.name for path in (given.file, given.signal, given.peaks) if path]
        assert row["files"] == ",".join(files)


def test_json_is_what_hdf5_itself_reads(candi, store_path):
    ran = candi("info", store_path, "--json")
    assert ran.code == 0
    facts = json.loads(ran.out)
    with h5py.File(store_path) as file:
        assert facts["format_version"] == file.attrs["format_version"]
        assert (facts["command"], facts["candi_version"]) == (file.attrs["command"], file.attrs["candi_version"])
        assert facts["counting"] == json.loads(file.attrs["counting"])
        names, lengths = file["genome/chroms"].asstr()[:].tolist(), file["genome/lengths"][:].tolist()
        assert facts["chromsizes"] == dict(zip(names, lengths, strict=True))
        assert facts["faults"] == []
        found = {(item["biosample"], item["assay"]): item for item in facts["experiments"]}
        groups = {
            (name, assay): group for name, assays in file["biosamples"].items() for assay, group in assays.items()
        }
        assert found.keys() == groups.keys()
        n_datasets = 0
        for pair, group in groups.items():
            told = found[pair]
            assert told["covariates"] == json.loads(group.attrs["covariates"])
            assert told["sources"] == json.loads(group.attrs["sources"])
            assert told["fold_depths"] == group.attrs["fold_depths"].tolist()
            assert {key: told[key] for key in ("donor", "tissue", "split")} == json.loads(group.attrs["origin"])
            assert set(told["layers"]) == set(group) - {"blocks", "signal_spans"}
            n_datasets += sum(len(layer) for layer in group.values())
        assert facts["datasets"] == n_datasets


def test_json_gives_the_chromosomes_in_the_order_of_the_genome(candi, tmp_path):
    sizes = tmp_path / "chrom.sizes"
    sizes.write_text("chr2\t120000\nchr1\t300010\n")
    out = tmp_path / "s.h5"
    assert candi("bin", "--covariates", TEST_DATA / "meta_one.tsv", "-g", sizes, "-o", out, "--quiet").code == 0
    assert list(json.loads(candi("info", out, "--json", "--quick").out)["chromsizes"]) == ["chr2", "chr1"]


def test_quick_reads_the_header_alone(candi, store):
    flip(store, DATASETS["counts"])
    ran = candi("info", "--quick", store)
    assert (ran.code, ran.err) == (0, "")
    assert "H3K4me3" in ran.out
    facts = json.loads(candi("info", "--quick", "--json", store).out)
    assert "faults" not in facts


def flip(path: Path, dataset: str, *, at: float = 0.5, bit: int = 4) -> None:
    """Flip one bit of a dataset's bytes in the file."""
    with h5py.File(path) as file:
        item = file[dataset]
        if item.chunks:
            chunk = item.id.get_chunk_info(0)
            start, size = chunk.byte_offset, chunk.size
        else:
            start, size = item.id.get_offset(), item.id.get_storage_size()
    with path.open("r+b") as handle:
        handle.seek(start + int(at * (size - 1)))
        byte = handle.read(1)[0]
        handle.seek(-1, 1)
        handle.write(bytes([byte ^ (1 << bit)]))


@pytest.mark.parametrize("layer", DATASETS)
@pytest.mark.parametrize("at", [0.0, 0.02, 0.5, 1.0], ids=["first byte", "near the start", "middle", "last byte"])
def test_a_flipped_bit_is_found_in_every_layer(candi, store, layer, at):
    flip(store, DATASETS[layer], at=at)
    refused(candi("info", store), store, DATASETS[layer].removeprefix("biosamples/"))


def test_several_faults_are_all_told(candi, store):
    for dataset in DATASETS.values():
        flip(store, dataset)
    ran = candi("info", store, "--json")
    assert ran.code == 1
    assert len(ran.errors) == len(DATASETS)
    faults = json.loads(ran.out)["faults"]
    for dataset in DATASETS.values():
        name = dataset.removeprefix("biosamples/")
        assert [line for line in ran.errors if name in line]
        assert [fault for fault in faults if fault.startswith(name)]


@pytest.mark.parametrize("layer", DATASETS)
def test_a_dataset_of_the_wrong_length_is_found(candi, store, layer):
    with h5py.File(store, "r+") as file:
        old = file[DATASETS[layer]]
        values, attributes = old[:], dict(old.attrs)
        del file[DATASETS[layer]]
        chunks = {"chunks": (*values.shape[:-1], 100)} if layer not in ("blocks", "signal_spans") else {}
        file.create_dataset(DATASETS[layer], data=values[..., :-1], **chunks).attrs.update(attributes)
    refused(candi("info", store), store, DATASETS[layer].removeprefix("biosamples/"), f"{values.shape[-1] - 1:,}")


def test_values_that_were_changed_through_hdf5_are_found(candi, store):
    with h5py.File(store, "r+") as file:
        file[DATASETS["counts"]][17] += 1  # every filter of HDF5 is satisfied
    refused(candi("info", store), store, DATASETS["counts"].removeprefix("biosamples/"))


@pytest.mark.parametrize("spans", [[[50, 20]], [[0, 300_011]], [[0, 50], [50, 90]], [[-25, 50]], [[0, 25, 50]]])
def test_spans_that_are_no_sorted_intervals_of_the_chromosome_are_found(candi, store, spans):
    import zlib

    values = np.array(spans, dtype=np.int64)
    with h5py.File(store, "r+") as file:
        del file[DATASETS["signal_spans"]]
        made = file.create_dataset(DATASETS["signal_spans"], data=values)
        made.attrs["crc32"] = np.uint32(zlib.crc32(values.tobytes()))
    refused(candi("info", store), store, "signal_spans/chr1 holds no sorted intervals")


def test_a_store_of_an_earlier_version_without_spans_is_whole_and_measured_throughout(candi, store):
    with h5py.File(store, "r+") as file:
        for assay in ("H3K4me3", "H3K36me3", "H3K27me3"):
            del file[f"biosamples/sim1/{assay}/signal_spans"]
    assert candi("info", store).code == 0
    with Store.open(store) as opened:
        assert opened.signal_spans("sim1", "H3K4me3", "chr1").tolist() == [[0, 300_010]]
        assert opened.signal_spans("sim2", "H3K4me3", "chr1").shape == (0, 2)


def test_folds_that_are_fewer_than_their_depths_are_found(candi, store):
    with h5py.File(store, "r+") as file:
        old = file[DATASETS["folds"]]
        values = old[:-1]
        del file[DATASETS["folds"]]
        made = file.create_dataset(DATASETS["folds"], data=values, chunks=(len(values), 100))
        import zlib

        made.attrs["crc32"] = np.uint32(zlib.crc32(np.ascontiguousarray(values).tobytes()))
    refused(candi("info", store), store, DATASETS["folds"].removeprefix("biosamples/"))


@pytest.mark.parametrize(
    ("where", "attribute"),
    [
        *((name, "crc32") for name in DATASETS.values()),
        (DATASETS["blocks"], "block_bp"),
        *((EXPERIMENT, name) for name in ("covariates", "origin", "sources", "fold_depths")),
        *(("/", name) for name in ("format", "format_version", "candi_version", "command", "counting")),
    ],
)
def test_an_attribute_that_is_missing_is_found(candi, store, where, attribute):
    with h5py.File(store, "r+") as file:
        del file[where].attrs[attribute]
    refused(candi("info", store), store, "sim1/H3K4me3" if where != "/" else "")


@pytest.mark.parametrize("name", ["genome", "genome/chroms", "genome/lengths", "biosamples"])
def test_a_group_that_is_missing_is_found(candi, store, name):
    with h5py.File(store, "r+") as file:
        del file[name]
    refused(candi("info", store), store)


@pytest.mark.parametrize("layer", ["counts", "folds", "blocks", "peaks", "signal_spans"])
def test_a_chromosome_that_one_layer_has_lost_is_found(candi, store, layer):
    """Without a dataset its counts would read as zeros."""
    with h5py.File(store, "r+") as file:
        del file[DATASETS[layer]]
    refused(candi("info", store), store, "sim1/H3K4me3")


def test_a_dataset_of_a_chromosome_that_the_genome_lacks_is_found(candi, store):
    with h5py.File(store, "r+") as file:
        file.move(DATASETS["counts"], f"{EXPERIMENT}/counts/chr9")
    ran = candi("info", store)
    assert ran.code == 1
    assert "internal error" not in ran.err
    assert [line for line in ran.errors if "sim1/H3K4me3/counts/chr9" in line and "; " in line]


def test_what_the_format_does_not_know_is_passed_over(candi, store):
    """As `candi-store(5)` asks of a reader."""
    with h5py.File(store, "r+") as file:
        file[EXPERIMENT].create_dataset("later/chr1", data=np.zeros(3))
        file[EXPERIMENT].attrs["later"] = "1"
        file.attrs["later"] = "1"
    assert candi("info", store).code == 0


@pytest.mark.parametrize("part", [0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_store_is_refused(candi, store, part):
    content = store.read_bytes()
    store.write_bytes(content[: int(part * len(content))])
    for options in ((), ("--quick",), ("--json",)):
        ran = candi("info", store, *options)
        refused(ran, store, "damaged")
        assert ran.out == ""


def test_random_damage_is_found_or_changes_nothing(candi, store, rng):
    """64 bytes overwritten somewhere: the values and the header stay, or the exit code is 1 with one line a fault."""
    whole = store.read_bytes()
    expected = candi("info", store, "--json").out
    for _ in range(60):
        content = bytearray(whole)
        at = int(rng.integers(0, len(content) - 64))
        content[at : at + 64] = rng.bytes(64)
        store.write_bytes(content)
        ran = candi("info", store, "--json")
        assert "internal error" not in ran.err, (at, ran.err)
        if ran.code == 0:
            assert json.loads(ran.out)["datasets"] == json.loads(expected)["datasets"], at
        else:
            assert ran.code == 1
            assert all(line.startswith(f"candi info: {store}: ") and "; " in line for line in ran.errors), ran.err


def test_a_model_is_told_by_its_card(candi, model_path):
    ran = candi("info", model_path)
    assert (ran.code, ran.err) == (0, "")
    with safe_open(model_path, "np") as file:
        card = json.loads(file.metadata()["candi"])
    assert json.loads(candi("info", model_path, "--json").out) == card
    lines = dict(line.split("\t", 1) for line in ran.out.splitlines() if "\t" in line)
    assert (lines["model"], lines["family"]) == (str(model_path), card["family"])
    assert card["assays"].keys() <= lines.keys()


@pytest.mark.parametrize(
    "name", ["sim1.H3K4me3.bam", "sim1.H3K4me3.bw", "meta.tsv", "truth.h5", "genome.fa.gz", "absent.h5", "."]
)
def test_a_file_that_is_neither_store_nor_model_is_refused(candi, name):
    path = TEST_DATA / name
    ran = candi("info", path)
    refused(ran, path)
    assert ran.out == ""


def test_an_empty_file_is_refused(candi, tmp_path):
    (tmp_path / "s.h5").touch()
    refused(candi("info", tmp_path / "s.h5"), tmp_path / "s.h5")


def test_a_model_that_is_cut_is_refused(candi, model_path, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(model_path.read_bytes()[:-100])
    refused(candi("info", path), path)


def test_a_store_is_told_without_torch(store_path):
    """Looking at a store takes no seconds."""
    import subprocess
    import sys

    command = [sys.executable, "-X", "importtime", "-m", "candi_cli", "info", "--quick", str(store_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    imported = {line.split("|")[-1].strip().split(".")[0] for line in told.splitlines() if "|" in line}
    assert not imported & {"torch", "numba", "scipy", "rich"}


def test_predictions_are_described(candi, model_path, tmp_path):
    output = tmp_path / "part.h5"
    bam, sheet = TEST_DATA / "sim1.H3K4me3.bam", TEST_DATA / "meta.tsv"
    made = candi("impute", bam, "--covariates", sheet, "-m", model_path, "--assay", "all", "-r", "chr2", "-o", output)
    assert made.code == 0, made.err
    shown = candi("info", output)
    assert shown.code == 0
    assert "predicted of sim1\t120,000 bp on chr2" in shown.out
    assert "sim1\tH3K4me3\tdenoised\tcount_log_mean,count_log_dispersion" in shown.out
    described = json.loads(candi("info", output, "--json").out)
    assert described["resolution"] == 25
    assert {assay for _, assay, _ in described["tracks"]} >= {"H3K4me3", "H3K9me3"}
