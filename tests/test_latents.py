"""Files of latents: values as they were, rounded, and the stretch of the genome that each position stands for."""

import gc
import shutil
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest

from candi_cli.errors import OutputError
from candi_cli.genome import Region
from candi_cli.store import latents
from candi_cli.store.latents import LatentWriter
from candi_cli.store.predictions import Described, rounded

SIZES = {"chr2": 1_010, "chr1": 400}
DESCRIBED = Described(25, SIZES, {"sha256": "ab"}, {("b", "x"): {"parameters": ["peak_logit"]}})
WIDTH = 3
Disk = namedtuple("Disk", "total used free")


def writer_of(path: Path, shown_as: Path = Path("z.h5")) -> LatentWriter:
    return LatentWriter(path, DESCRIBED, position_bins=8, width=WIDTH, command="candi denoise", shown_as=shown_as)


def write(path: Path, pieces: list[tuple[str, Region, np.ndarray]]) -> Path:
    with writer_of(path) as writer:
        for piece in pieces:
            writer.add(*piece)
    return path


@pytest.fixture
def pieces(rng) -> list[tuple[str, Region, np.ndarray]]:
    regions = [
        ("b", Region("chr2", 0, 400)),
        ("b", Region("chr2", 400, 600)),
        ("b", Region("chr2", 800, 1_010)),  # the last position ends with the chromosome
        ("b", Region("chr1", 200, 400)),
        ("a", Region("chr2", 200, 400)),
    ]
    return [
        (name, region, rng.normal(size=(-(-(region.end - region.start) // 200), WIDTH)).astype(np.float32))
        for name, region in regions
    ]


@pytest.mark.parametrize("chunk", [2, 1 << 10])
def test_hdf5_alone_reads_what_was_written_and_where_it_lies(tmp_path, monkeypatch, pieces, chunk):
    monkeypatch.setattr(latents, "_CHUNK_POSITIONS", chunk)
    with h5py.File(write(tmp_path / "z.h5", pieces)) as file:
        attributes = dict(file.attrs)
        assert (attributes["format"], attributes["format_version"]) == ("candi-latents", 1)
        assert (attributes["position_bp"], attributes["command"]) == (200, "candi denoise")
        assert Described.from_json(attributes["described"]) == DESCRIBED
        found = {
            (name, chrom): {key: dataset[:] for key, dataset in group.items()}
            for name, chroms in file["biosamples"].items()
            for chrom, group in chroms.items()
        }
    assert set(found) == {("b", "chr2"), ("b", "chr1"), ("a", "chr2")}
    for (name, chrom), datasets in found.items():
        own = [values for biosample, region, values in pieces if (biosample, region.chrom) == (name, chrom)]
        np.testing.assert_array_equal(datasets["latent"], rounded(np.concatenate(own)))
        assert datasets["latent"].shape[1] == WIDTH
    assert found["b", "chr2"]["start"].tolist() == [0, 200, 400, 800, 1_000]
    assert found["b", "chr2"]["end"].tolist() == [200, 400, 600, 1_000, 1_010]
    assert found["b", "chr1"]["start"].tolist() == found["a", "chr2"]["start"].tolist() == [200]


def test_the_same_latents_are_the_same_bytes(tmp_path, pieces):
    assert write(tmp_path / "one.h5", pieces).read_bytes() == write(tmp_path / "other.h5", pieces).read_bytes()


def test_what_cannot_be_written_is_named_by_what_the_user_asked_for(tmp_path):
    with pytest.raises(OutputError, match=r"^out/z\.h5: cannot be written \(No such file"):
        writer_of(tmp_path / "none" / "z.h5", Path("out/z.h5"))


def open_files() -> int:
    gc.collect()  # what other tests have left
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


def test_a_disk_that_is_full_is_told_before_hdf5_meets_it(tmp_path, monkeypatch, pieces):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Disk(10**9, 10**9 - 10**6, 10**6))
    before = open_files()
    with pytest.raises(OutputError, match=r"^z\.h5: the disk is full; make room"):
        write(tmp_path / "z.h5", pieces)
    assert open_files() == before


def test_an_error_on_the_way_is_not_hidden_and_leaves_no_file_open(tmp_path, pieces):
    def fail() -> None:
        with writer_of(tmp_path / "z.h5") as writer:
            writer.add(*pieces[0])
            raise KeyError

    before = open_files()
    with pytest.raises(KeyError):
        fail()
    assert open_files() == before
