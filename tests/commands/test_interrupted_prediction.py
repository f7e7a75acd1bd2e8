"""Predictions that are killed, interrupted, resumed, or computed otherwise: the same bytes, and nothing left over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from candi_cli.commands import main
from candi_cli.export.files import TrackFile
from candi_cli.model import parts
from candi_cli.store.predictions import PredictionWriter

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM = TEST_DATA / "sim1.H3K4me3.bam"
SHEET = TEST_DATA / "meta.tsv"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
FORMATS = ("--interval", "0.9", "-O", "bigwig", "-O", "bedgraph", "-O", "narrowpeak")
NAMES = {f"out{end}.{suffix}" for end in ("", ".lower", ".upper") for suffix in ("bw", "bedGraph.gz")}
NAMES |= {"out.narrowPeak"}


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, hidden files and folders too."""
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def kept(output: Path) -> list[Path]:
    return sorted((output.parent / f".{output.name}.parts").glob("*.h5"))


@pytest.fixture(scope="module")
def arguments(vivid_model_path) -> list[str]:
    """The command, but for the output: two chromosomes are two parts."""
    return ["denoise", str(BAM), "--covariates", str(SHEET), "-m", str(vivid_model_path), *FORMATS]


@pytest.fixture(scope="module")
def unbroken(arguments, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert main([*arguments, "-o", str(folder / "out.bw"), "--quiet"]) == 0
    found = contents(folder)
    assert set(found) == NAMES
    return found


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The chromosomes whose windows are computed, one for each part."""
    chroms: list[str] = []
    predict = parts.predict

    def noted(network, dataset, windows, *rest, **more):
        windows = list(windows)
        chroms.extend(dict.fromkeys(window.chrom for window in windows))
        return predict(network, dataset, windows, *rest, **more)

    monkeypatch.setattr(parts, "predict", noted)
    return chroms


# ---- the same bytes however they are computed


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (64, 1), (64, 4)])
def test_the_bytes_of_every_file_do_not_depend_on_batch_size_and_threads(
    candi, arguments, unbroken, tmp_path, batch_size, threads
):
    # with threads, files are written by several processes
    options = ("-o", tmp_path / "out.bw", "--batch-size", batch_size, "-@", threads)
    assert candi(*arguments, *options).code == 0
    assert contents(tmp_path) == unbroken


# ---- kills

STALLED = """
import sys, time
from pathlib import Path
from candi_cli.commands import main
from candi_cli.export.files import TrackFile
from candi_cli.store.predictions import PredictionWriter

def stall():
    Path(sys.argv[1]).touch()
    time.sleep(600)

add, write = PredictionWriter.add, TrackFile.write

def stalled_add(self, biosample, region, values):
    add(self, biosample, region, values)
    if (region.chrom, region.start // 40_000) == ("chr2", 1):
        stall()

def stalled_write(self, source):
    write(self, source)
    if self.shown_as.name == "out.upper.bw":
        stall()

if sys.argv[2] == "computing":
    PredictionWriter.add = stalled_add
else:
    TrackFile.write = stalled_write
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def stopped(arguments, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command in a process of its own, and send it a signal in the middle of its work."""
    script, reached = tmp_path / "stalled.py", tmp_path / "reached"
    script.write_text(STALLED)

    def run(output: Path, number: int, *, during: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(script), str(reached), during, *arguments, "-o", str(output)]
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        try:
            until = time.monotonic() + 120
            while not reached.exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.02)
            process.send_signal(number)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(command, process.returncode, "", told)

    return run


def test_a_killed_run_goes_on_after_its_last_complete_part_to_the_bytes_of_an_unbroken_one(
    candi, arguments, unbroken, stopped, computed, tmp_path
):
    folder = tmp_path / "made"
    folder.mkdir()
    output = folder / "out.bw"
    assert stopped(output, signal.SIGKILL, during="computing").returncode == -signal.SIGKILL
    assert set(contents(folder)) == {".out.bw.parts"}
    (part,) = kept(output)
    assert len(list(part.parent.glob("*.tmp"))) == 1, "the second part is not complete"
    ran = candi(*arguments, "-o", output, "--resume")
    assert ran.code == 0
    assert "1 of 2 parts are there from a run that was interrupted" in ran.err
    assert computed == ["chr2"]
    assert contents(folder) == unbroken


def test_a_run_that_was_killed_while_it_wrote_computes_nothing_again_and_leaves_nothing(
    candi, arguments, unbroken, stopped, computed, tmp_path
):
    folder = tmp_path / "made"
    folder.mkdir()
    output = folder / "out.bw"
    assert stopped(output, signal.SIGKILL, during="writing").returncode == -signal.SIGKILL
    assert len(kept(output)) == 2
    left = set(contents(folder)) - {".out.bw.parts"}
    assert left, "files under temporary names"
    assert all(name.startswith(".") for name in left), "no file has its name before all are complete"
    ran = candi(*arguments, "-o", output, "--resume")
    assert ran.code == 0
    assert "2 of 2 parts are there" in ran.err
    assert computed == []
    assert contents(folder) == unbroken


def test_an_interrupt_ends_with_130_and_keeps_complete_parts_which_a_run_without_resume_removes(
    candi, arguments, unbroken, stopped, computed, tmp_path
):
    folder = tmp_path / "made"
    folder.mkdir()
    output = folder / "out.bw"
    ran = stopped(output, signal.SIGINT, during="computing")
    assert ran.returncode == 130
    assert "Traceback" not in ran.stderr
    told = [line for line in ran.stderr.splitlines() if "kept" in line or "interrupted" in line]
    assert told == [
        "candi denoise: warning: 1 of 2 parts are kept; give --resume to go on from them",
        "candi denoise: interrupted; nothing was left half-written",
    ]
    assert set(contents(folder)) == {".out.bw.parts"}
    assert [path.suffix for path in (folder / ".out.bw.parts").iterdir() if path.name != "lock"] == [".h5"]
    anew = candi(*arguments, "-o", output)
    assert anew.code == 0
    assert "1 part of a run that was interrupted was removed; --resume would go on from them" in anew.err
    assert computed == ["chr1", "chr2"]
    assert contents(folder) == unbroken


@pytest.fixture
def interrupted(monkeypatch) -> Callable[..., None]:
    """Let the next run get a signal when it has predicted the first window of a chromosome of a biosample."""

    def at(biosample: str, chrom: str, number: int = signal.SIGINT) -> None:
        add = PredictionWriter.add

        def signalled(self, name, region, values):
            add(self, name, region, values)
            if (name, region.chrom, region.start) == (biosample, chrom, 0):
                monkeypatch.setattr(PredictionWriter, "add", add)
                signal.raise_signal(number)

        monkeypatch.setattr(PredictionWriter, "add", signalled)

    return at


def test_a_run_at_its_time_limit_ends_with_143_and_is_resumed(
    candi, arguments, unbroken, interrupted, computed, tmp_path
):
    output = tmp_path / "out.bw"
    interrupted("sim1", "chr2", signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        candi(*arguments, "-o", output)
    assert ended.value.code == 143
    assert len(kept(output)) == 1
    assert candi(*arguments, "-o", output, "--resume").code == 0
    assert computed == ["chr1", "chr2", "chr2"]
    assert contents(tmp_path) == unbroken


def test_a_part_that_is_damaged_is_computed_again(candi, arguments, unbroken, interrupted, computed, tmp_path):
    output = tmp_path / "out.bw"
    interrupted("sim1", "chr2")
    assert candi(*arguments, "-o", output).code == 130
    (part,) = kept(output)
    part.write_bytes(part.read_bytes()[:3000])
    ran = candi(*arguments, "-o", output, "--resume")
    assert ran.code == 0
    assert "0 of 2 parts are there" in ran.err
    assert computed == ["chr1", "chr2", "chr1", "chr2"]
    assert contents(tmp_path) == unbroken


@pytest.mark.parametrize("at", [0.03, 0.6, 0.999])
def test_of_two_parts_the_one_with_a_wrong_byte_is_computed_again_with_one_warning(
    candi, arguments, unbroken, computed, monkeypatch, tmp_path, at
):
    output = tmp_path / "out.bw"

    def failing(self, source):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TrackFile, "write", failing)
        assert candi(*arguments, "-o", output).code == 1
    part = kept(output)[0]
    content = bytearray(part.read_bytes())
    content[int(at * len(content))] ^= 16
    part.write_bytes(content)
    ran = candi(*arguments, "-o", output, "--resume")
    assert ran.code == 0
    assert [line for line in ran.errors if "warning" in line] == [
        f"candi denoise: warning: 1 of 2 parts in {part.parent} are damaged, and are computed again"
    ]
    assert "1 of 2 parts are there from a run that was interrupted" in ran.err
    assert len(computed) == 3
    assert contents(tmp_path) == unbroken


@pytest.mark.parametrize("changed", ["request", "reads", "model"])
def test_parts_of_another_prediction_are_not_taken(
    candi, arguments, unbroken, interrupted, computed, model_path, tmp_path, changed
):
    folder = tmp_path / "made"
    folder.mkdir()
    reads = tmp_path / BAM.name
    reads.write_bytes(BAM.read_bytes())
    now = [str(reads) if word == str(BAM) else word for word in arguments]
    other = [str(model_path) if name == "-m" else word for name, word in zip(["", *now], now, strict=False)]
    before = {"request": [*now, "--as", "depth=9000"], "model": other, "reads": now}[changed]
    interrupted("sim1", "chr2")
    assert candi(*before, "-o", folder / "out.bw").code == 130
    if changed == "reads":
        os.utime(reads, (1e9, 1e9))
    ran = candi(*now, "-o", folder / "out.bw", "--resume")
    assert ran.code == 0
    assert "0 of 2 parts are there" in ran.err
    assert computed == ["chr1", "chr2", "chr1", "chr2"]
    assert contents(folder) == unbroken


def test_a_run_over_several_biosamples_is_resumed_in_the_middle_of_the_second(
    candi, model_path, store_path, interrupted, computed, tmp_path
):
    options = ("-m", model_path, "--assay", "H3K4me3,H3K27me3", "-O", "bigwig", "-O", "hdf5")
    assert candi("impute", store_path, *options, "-o", tmp_path / "whole").code == 0
    computed.clear()
    broken = tmp_path / "broken"
    interrupted("sim2", "chr1")
    assert candi("impute", store_path, *options, "-o", broken).code == 130
    assert not broken.exists()  # what is kept lies beside it
    ran = candi("impute", store_path, *options, "-o", broken, "--resume")
    assert ran.code == 0
    assert "2 of 4 parts are there" in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "broken"}
    assert computed == ["chr1", "chr2", "chr1", "chr1", "chr2"]
    tracks = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.bw")}
    assert len(tracks) == 4
    assert {path.name: path.read_bytes() for path in broken.glob("*.bw")} == tracks
    with h5py.File(tmp_path / "whole" / "predictions.h5") as one, h5py.File(broken / "predictions.h5") as other:
        names: list[str] = []
        one.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) > 10
        for name in names:
            np.testing.assert_array_equal(one[name][:], other[name][:], err_msg=name)


def test_a_run_that_fails_while_it_writes_leaves_older_files_as_they_were(
    candi, arguments, computed, monkeypatch, tmp_path
):
    for name in NAMES:
        (tmp_path / name).write_text("older")
    write = TrackFile.write

    def failing(self, source):
        write(self, source)
        if self.shown_as.name == "out.narrowPeak":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrackFile, "write", failing)
    ran = candi(*arguments, "-o", tmp_path / "out.bw")
    assert ran.code == 1
    assert "No space left on device" in ran.errors[-1]
    assert contents(tmp_path) == {**dict.fromkeys(NAMES, b"older"), ".out.bw.parts": b""}
    assert len(kept(tmp_path / "out.bw")) == 2
