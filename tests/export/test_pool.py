"""Files written by other processes are those that this one writes, and no process outlives a failure."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from candi_cli.errors import OutputError, TrackError
from candi_cli.export.files import BEDGRAPH, BIGWIG, HDF5, NARROWPEAK, TrackFile
from candi_cli.export.pool import writing
from candi_cli.export.quantities import Quantity
from candi_cli.export.source import Source

KINDS = {"t.bw": BIGWIG, "t.bedGraph.gz": BEDGRAPH, "t.narrowPeak": NARROWPEAK, "t.h5": HDF5}


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert not left


@pytest.fixture
def files(tmp_path) -> list[TrackFile]:
    return [
        TrackFile(tmp_path / name, Path(name), kind, "a", "H3K4me3", Quantity("counts", "upper", 0.9))
        for name, kind in KINDS.items()
    ]


@pytest.fixture
def coming(known, tmp_path) -> tuple[Source, Path]:
    """A source whose one file is not there yet, and the complete file under another name."""
    laid = {
        name: [(region, tmp_path / "part.h5") for region in found] for name, found in known.described.wanted.items()
    }
    known.write(tmp_path / "made.h5", known.described.wanted)
    return Source(known.described, laid, abandoned=tmp_path / "abandoned"), tmp_path / "made.h5"


def until(fact: Callable[[], object], *, seconds: float = 20) -> bool:
    """Wait for a fact, and return whether it came."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not fact():
        time.sleep(0.02)
    return bool(fact())


def test_files_written_elsewhere_while_predictions_are_made_are_those_written_here(files, coming, tmp_path):
    source, made = coming
    with writing(files, source, processes=2) as finish:
        assert until(lambda: len(multiprocessing.active_children()) == 2)
        made.rename(tmp_path / "part.h5")
        assert sorted(file.shown_as.name for file in finish()) == sorted(KINDS)
    (tmp_path / "here").mkdir()
    here = [replace(file, path=tmp_path / "here" / file.path.name) for file in files]
    with writing(here, source, processes=0) as finish:
        assert not list((tmp_path / "here").iterdir())
        assert list(finish()) == here
    for file, other in zip(files, here, strict=True):
        assert file.path.read_bytes() == other.path.read_bytes() != b""


def test_a_file_that_cannot_be_written_is_told_as_such_and_those_that_wait_leave(files, coming, known, tmp_path):
    source, made = coming
    region = known.described.wanted["a"][-1]
    source.laid = {"a": source.laid["a"], "b": [(region, made)]}  # of b all is there, of a nothing
    bad = replace(files[1], path=tmp_path / "none" / "t.gz", shown_as=Path("out/t.bg.gz"), biosample="b")

    def write() -> None:
        with writing([files[0], bad], source, processes=2) as finish:
            list(finish())

    began = time.monotonic()
    with pytest.raises(OutputError, match=r"^out/t\.bg\.gz: cannot be written \(No such file"):
        write()
    assert time.monotonic() - began < 30
    assert (tmp_path / "abandoned").exists()


def test_processes_leave_when_the_predictions_fail(files, coming, tmp_path):
    source, _ = coming

    def write() -> None:
        with writing(files[:1], source, processes=4):
            assert until(multiprocessing.active_children)
            assert len(multiprocessing.active_children()) == 1  # not more than there are files
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert (tmp_path / "abandoned").exists()


def test_a_process_that_is_killed_is_told_in_one_line(files, coming, tmp_path):
    source, _ = coming

    def write() -> None:
        with writing(files[:1], source, processes=1) as finish:
            assert until(multiprocessing.active_children)
            (process,) = multiprocessing.active_children()
            os.kill(process.pid or 0, signal.SIGKILL)
            list(finish())

    with pytest.raises(OutputError, match=r"^t\.bw: its process was ended; was memory short\? give fewer threads"):
        write()


def test_without_processes_a_bad_file_ends_the_writing_where_it_is(files, known, tmp_path):
    bad = replace(files[1], path=tmp_path / "none" / "t.gz")
    with writing([files[2], bad, files[3]], known.source(tmp_path / "p.h5"), processes=0) as finish:
        complete = finish()
        assert next(complete) == files[2]
        with pytest.raises((OutputError, TrackError)):
            next(complete)
    assert not files[3].path.exists()
