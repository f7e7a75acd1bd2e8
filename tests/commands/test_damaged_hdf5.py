"""HDF5 files that are damaged, or may not be read: one line of path, fact and remedy, whatever h5py raises."""

import os
import re
import shutil
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.errors import StoreError
from candi_cli.genome import Region
from candi_cli.store import Store
from candi_cli.store.opening import DAMAGE, is_hdf5, naming_damage
from candi_cli.store.predictions import Described, PredictionWriter

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM, SHEET = TEST_DATA / "sim1.H3K4me3.bam", TEST_DATA / "meta.tsv"


@pytest.fixture(scope="module")
def predictions_path(model_path, pair_store_path, tmp_path_factory) -> Path:
    from candi_cli.commands import main

    path = tmp_path_factory.mktemp("predictions") / "whole.h5"
    arguments = ["impute", str(pair_store_path), "-m", str(model_path), "--assay", "H3K4me3", "-O", "hdf5"]
    assert main([*arguments, "-r", "chr2", "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def commands(model_path, tmp_path):
    """The commands that read a store, and those that read predictions, of one that lies at a path."""

    def of(kind: str, path: Path) -> list[list[object]]:
        out = tmp_path / "out.bw"
        if kind == "store":
            return [
                ["info", path],
                ["info", "--quick", path],
                ["denoise", path, "-m", model_path, "-o", tmp_path / "out"],
            ]
        return [["info", path], ["info", "--json", path], ["impute", "--merge", path, "-o", out]]

    return of


def refused(ran, path: Path, *parts: str) -> None:
    assert ran.code == 1, ran.err
    assert ran.out == ""
    line = ran.errors[-1]
    assert re.fullmatch(rf"candi \w+: {re.escape(str(path))}: .+; .+", line), ran.err
    assert "internal error" not in line
    for part in parts:
        assert part in line


SAID = [
    *(("store", text) for text in (b'"rule"', b'"read_length"', b'"name"', b'"tissue"')),
    *(("predictions", text) for text in (b'"parameters"', b'"family"', b'"observed"', b'"resolution": 25')),
]


@pytest.mark.parametrize(("kind", "text"), SAID)
def test_a_changed_letter_in_what_a_file_says_of_itself_is_refused_by_every_command(
    candi, commands, store_path, predictions_path, tmp_path, kind, text
):
    content = (store_path if kind == "store" else predictions_path).read_bytes()
    at = content.index(text) + len(text) - 2
    path = tmp_path / "damaged.h5"
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    for command in commands(kind, path):
        refused(candi(*command), path, "cannot be read")


@pytest.mark.parametrize(
    ("name", "made"), [("genome/chroms", "type"), ("genome", "dataset"), ("biosamples", "dataset"), ("genome", "type")]
)
def test_something_else_in_the_place_of_a_group_or_dataset_is_refused(
    candi, commands, store_path, tmp_path, name, made
):
    path = Path(shutil.copy(store_path, tmp_path / "s.h5"))
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = np.dtype("i4") if made == "type" else np.zeros(3)
    for command in commands("store", path):
        refused(candi(*command), path)


@pytest.mark.parametrize("kind", ["store", "predictions"])
@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), AttributeError("x"), OSError("x"), MemoryError()])
def test_whatever_h5py_raises_when_an_attribute_is_read_is_told_with_the_path(
    candi, commands, store_path, predictions_path, monkeypatch, kind, error
):
    path = store_path if kind == "store" else predictions_path

    def failing(self, name):
        raise error

    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", failing)
    for command in commands(kind, path):
        refused(candi(*command), path)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Path]:
    """A store and a file of predictions of a few kB, mostly names, tables and attributes: the same bytes each time."""
    folder = tmp_path_factory.mktemp("small")
    paths = {"store": folder / "s.h5", "predictions": folder / "p.h5"}
    sizes = {"chr1": 100_000, "chr2": 60_000}
    with Store.create(paths["store"], rule=CountingRule(), chromsizes=sizes, command="candi bin") as store:
        store.add_experiment("one", "H3K4me3")
        for chrom, length in sizes.items():
            store.write("one", "H3K4me3", "counts", chrom, np.arange(length // 25, dtype=np.uint32) % 7)
            store.write_blocks("one", "H3K4me3", chrom, np.array([5], dtype=np.uint32), 100_000)
        store.describe("one", "H3K4me3", Covariates(depth=9.0), sources=[{"name": "a.bam"}])
    tracks = {("one", "H3K4me3"): {"observed": True, "parameters": ["peak_logit"]}}
    described = Described(25, sizes, {"family": "candi", "sha256": "0"}, tracks)
    with PredictionWriter(paths["predictions"], described, command="candi impute") as writer:
        for chrom, length in sizes.items():
            writer.add("one", Region(chrom, 0, length), np.zeros((length // 25, 1), dtype=np.float32))
    return paths


@pytest.mark.parametrize("kind", ["store", "predictions"])
def test_random_damage_ends_in_lines_of_the_path_or_changes_nothing(candi, small, tmp_path, kind):
    whole, path = small[kind].read_bytes(), tmp_path / "damaged.h5"
    expected = candi("info", small[kind], "--json").out
    codes = []
    for seed in range(300):
        rng, content = np.random.default_rng(seed), bytearray(whole)
        at, n = int(rng.integers(8, len(content))), int(rng.integers(1, 9))
        content[at : at + n] = rng.bytes(n)
        path.write_bytes(content)
        ran = candi("info", path, "--json")
        codes.append(ran.code)
        if ran.code == 0:
            assert ran.out == expected, seed
        else:
            lines = [re.fullmatch(rf"candi info: {re.escape(str(path))}: .+; .+", line) for line in ran.errors]
            assert ran.code == 1, (seed, ran.err)
            assert lines, seed
            assert all(lines), (seed, ran.err)
            assert "internal error" not in ran.err, (seed, ran.err)
    assert set(codes) == {0, 1}


def test_every_kind_of_damage_becomes_one_error_and_interrupts_do_not():
    for kind in DAMAGE:
        with (
            pytest.raises(StoreError, match=r"^a\.h5: its header cannot be read; it is damaged, make it again$"),
            naming_damage("a.h5", "its header", remedy="make it again"),
        ):
            raise kind("x")
    with pytest.raises(KeyboardInterrupt), naming_damage("a.h5", "its header", remedy="make it again"):
        raise KeyboardInterrupt


# ---- files that may not be read, and pipes


@pytest.fixture
def forbidden(monkeypatch):
    """Let the operating system refuse one file; root may read all."""

    def forbid(path: Path) -> None:
        open_path, open_hdf5 = Path.open, h5py.File

        def refusing(self, *values, **more):
            if self == path:
                raise PermissionError(13, "Permission denied", str(path))
            return open_path(self, *values, **more)

        def refusing_hdf5(name, *values, **more):
            if Path(str(name)) == path:
                raise PermissionError(13, "Permission denied")
            return open_hdf5(name, *values, **more)

        monkeypatch.setattr(Path, "open", refusing)
        monkeypatch.setattr(h5py, "File", refusing_hdf5)

    return forbid


def test_a_store_that_may_not_be_read_is_named(candi, commands, store_path, forbidden):
    forbidden(store_path)
    for command in commands("store", store_path):
        refused(candi(*command), store_path, "may not be read (Permission denied)", "check its permissions")


def test_a_model_that_may_not_be_read_is_named(candi, model_path, forbidden, tmp_path):
    forbidden(model_path)
    ran = candi("denoise", BAM, "--covariates", SHEET, "-m", model_path, "-o", tmp_path / "out.bw")
    refused(ran, model_path, "may not be read (Permission denied)", "check its permissions")


def test_reads_that_may_not_be_read_are_named(candi, model_path, forbidden, tmp_path):
    forbidden(BAM)
    ran = candi("denoise", BAM, "--covariates", SHEET, "-m", model_path, "-o", tmp_path / "out.bw")
    refused(ran, BAM, "may not be read (Permission denied)", "check its permissions")


def test_reads_through_a_named_pipe_are_denoised_as_those_of_the_file(candi, model_path, tmp_path):
    pipe, sheet = tmp_path / "reads.fifo", tmp_path / "sheet.tsv"
    os.mkfifo(pipe)
    sheet.write_text("biosample\tassay\nsim1\tH3K4me3\n")
    options = ("--covariates", sheet, "-m", model_path, "-r", "chr2", "-o", tmp_path / "out.bw")
    writer = threading.Thread(target=lambda: pipe.write_bytes(BAM.read_bytes()), daemon=True)
    writer.start()
    ran = candi("denoise", pipe, *options)
    assert ran.code == 0, ran.err
    writer.join(timeout=10)
    through_pipe = (tmp_path / "out.bw").read_bytes()
    assert candi("denoise", BAM, *options).code == 0
    assert (tmp_path / "out.bw").read_bytes() == through_pipe


def test_what_is_not_a_file_is_not_hdf5_and_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    assert not is_hdf5(tmp_path / "pipe")
    assert not is_hdf5(tmp_path)
    assert not is_hdf5(tmp_path / "absent")
