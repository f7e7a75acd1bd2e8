"""The parts of a store: counted side by side, kept when a run is broken, and put together to the same bytes."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from candi_cli.binning import Binning, Parts
from candi_cli.binning.parts import _work
from candi_cli.commands import main
from candi_cli.counting import CountingRule
from candi_cli.covariates import read_sheet
from candi_cli.parts import is_whole, making
from candi_cli.processes import serve

TEST_DATA = Path(__file__).parents[1] / "test_data"
CANDI = [sys.executable, "-m", "candi_cli"]
READS = {"H3K4me3": "one.bam", "H3K36me3": "two.bam", "H3K9me3": "four.bam"}
COMMAND = ["bin", "--covariates", "sheet.tsv", "-g", "chrom.sizes", "-o", "s.h5"]
FOLDER = ".s.h5.parts"


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A folder of four experiments; the third, `late`, has reads and peaks."""
    folder = tmp_path_factory.mktemp("origin")
    for assay, name in READS.items():
        shutil.copy2(TEST_DATA / f"sim2.{assay}.bam", folder / name)
    shutil.copy2(TEST_DATA / "sim1.H3K27me3.bam", folder / "three.bam")
    shutil.copy2(TEST_DATA / "sim1.H3K27me3.narrowPeak", folder / "late.bed")
    shutil.copy2(TEST_DATA / "chrom.sizes", folder)
    (folder / "sheet.tsv").write_text(
        "biosample\tassay\tfile\tpeaks\n"
        "x\tH3K4me3\tone.bam\tNA\n"
        "x\tH3K36me3\ttwo.bam\tNA\n"
        "y\tH3K27me3\tthree.bam\tlate.bed\n"
        "y\tH3K9me3\tfour.bam\tNA\n"
    )
    return folder


@pytest.fixture
def cohort(origin, tmp_path, monkeypatch) -> Path:
    """A copy of the folder, as the working folder."""
    folder = tmp_path / "cohort"
    shutil.copytree(origin, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(candi, monkeypatch) -> Callable:
    """Run the command in this process, recorded as if it had been typed."""

    def run(*options: object, command=COMMAND):
        given = [*map(str, options)]
        plain = list(command)
        if "-g" in given:  # in the place of the other one
            at = plain.index("-g")
            del plain[at : at + 2]
        arguments = [*plain, *given]
        monkeypatch.setattr(sys, "argv", ["candi", *arguments])
        return candi(*arguments)

    return run


@pytest.fixture(scope="module")
def unbroken(origin, tmp_path_factory) -> bytes:
    """The store that a run makes which nothing interrupts."""
    folder = tmp_path_factory.mktemp("unbroken") / "cohort"
    shutil.copytree(origin, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["candi", *COMMAND])
        assert main([*COMMAND, "--quiet"]) == 0
    return (folder / "s.h5").read_bytes()


@pytest.fixture
def start(cohort):
    """Start the command in a process of its own, and let no process of it outlive the test."""
    started: list[subprocess.Popen] = []

    def start(*options: object) -> subprocess.Popen:
        command = [*CANDI, *COMMAND, *map(str, options)]
        started.append(subprocess.Popen(command, cwd=cohort, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        for pid in workers_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def until(fact: Callable[[], bool], *, seconds: float = 20) -> bool:
    """Wait for a fact, and return whether it came."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if fact():
            return True
        time.sleep(0.02)
    return fact()


def workers_of(parent: int) -> list[int]:
    """Return the process ids of a command's workers."""
    listed = subprocess.run(
        ["ps", "-Aww", "-o", "pid=", "-o", "ppid=", "-o", "args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == parent and "spawn_main" in row[-1]]


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def close_gate(cohort: Path) -> None:
    """Make the peaks of the third experiment a pipe that nothing comes through: a run stays there."""
    (cohort / "late.bed").unlink()
    os.mkfifo(cohort / "late.bed")


def open_gate(origin: Path, cohort: Path) -> None:
    (cohort / "late.bed").unlink()
    shutil.copy2(origin / "late.bed", cohort)


def parts(cohort: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (cohort / FOLDER).glob("*.h5")}


def spoil(path: Path) -> None:
    """Fill a file with zeros that keeps its size and time: a run that reads it fails."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def counted(ran) -> list[str]:
    """The experiments whose reads a run has counted."""
    return [line.split(": ")[1] for line in ran.errors if "records counted" in line]


def test_the_number_of_threads_changes_no_byte(start, cohort, unbroken):
    process = start("--threads=4")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert told.count("records counted") == 4
    assert (cohort / "s.h5").read_bytes() == unbroken
    assert not (cohort / FOLDER).exists()


@pytest.mark.parametrize(
    ("threads", "sent", "code", "kept"),
    [
        (1, signal.SIGINT, 130, 2),
        (1, signal.SIGKILL, -signal.SIGKILL, 2),
        (2, signal.SIGINT, 130, 3),
        (2, signal.SIGTERM, 143, 3),
        (2, signal.SIGKILL, -signal.SIGKILL, 3),
    ],
)
def test_a_broken_run_goes_on_where_it_stopped_and_gives_the_bytes_of_an_unbroken_one(
    start, run, origin, cohort, unbroken, tmp_path, monkeypatch, threads, sent, code, kept
):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    close_gate(cohort)
    process = start("-@", threads)
    assert until(lambda: len(parts(cohort)) == kept and list((cohort / FOLDER).glob("*.tmp")))
    workers = workers_of(process.pid)
    assert len(workers) == (threads if threads > 1 else 0)
    process.send_signal(sent)
    _, told = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in told
    assert until(lambda: not any(map(alive, workers)), seconds=10)
    assert {path.name for path in cohort.iterdir()} - {path.name for path in origin.iterdir()} == {FOLDER}
    if sent != signal.SIGKILL:
        assert f"{kept} of 4 experiments are kept in {cohort / FOLDER} for the next run" in told
        assert {path.name for path in (cohort / FOLDER).iterdir()} == {*parts(cohort), "lock"}

    open_gate(origin, cohort)
    for name in ("one.bam", "two.bam", *(["four.bam"] if kept == 3 else [])):
        spoil(cohort / name)
    ran = run()
    assert ran.code == 0, ran.err
    assert counted(ran) == ["y/H3K27me3", "y/H3K9me3"][: 4 - kept]
    assert f"{kept} of 4 experiments are there from a run that was interrupted" in ran.err
    assert (cohort / "s.h5").read_bytes() == unbroken
    assert not (cohort / FOLDER).exists()
    assert sent == signal.SIGKILL or not list((tmp_path / "scratch").glob("candi-*"))


def break_a_run(run, cohort: Path, *options: object, threads: int = 1) -> dict[str, int]:
    """Run with a last file that is damaged, and return the parts of the three that are finished."""
    content = (cohort / "four.bam").read_bytes()
    status = (cohort / "four.bam").stat()
    (cohort / "four.bam").write_bytes(content[: len(content) // 2])
    ran = run("-@", threads, *options)
    assert ran.code == 1
    assert [line for line in ran.errors if "four.bam" in line] == [ran.errors[-1]]
    (cohort / "four.bam").write_bytes(content)
    os.utime(cohort / "four.bam", ns=(status.st_atime_ns, status.st_mtime_ns))
    return parts(cohort)


def test_a_run_that_a_bad_file_ended_keeps_the_others(run, cohort, unbroken):
    kept = break_a_run(run, cohort)
    assert len(kept) == 3
    assert not (cohort / "s.h5").exists()
    assert break_a_run(run, cohort) == kept  # the same files, not made anew
    ran = run()
    assert counted(ran) == ["y/H3K9me3"]
    assert (cohort / "s.h5").read_bytes() == unbroken


def test_workers_stop_when_one_of_them_meets_a_bad_file(start, cohort):
    (cohort / "one.bam").write_bytes((cohort / "one.bam").read_bytes()[:20_000])
    close_gate(cohort)
    process = start("-@", 2, "--quiet")
    assert until(lambda: len(workers_of(process.pid)) == 2)
    workers = workers_of(process.pid)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    (line,) = told.splitlines()
    assert line.startswith("candi bin: one.bam: is truncated")
    assert not any(map(alive, workers))
    assert not list((cohort / FOLDER).glob("*.tmp"))


@pytest.mark.parametrize(
    "changed",
    [
        ("--count", "five-prime"),
        ("--resolution", "50"),
        ("-q", "10"),
        ("-F", "0x904"),
        ("--keep-dup", "1"),
        ("--folds", "4"),
        ("-g", "more.sizes"),
        ("--aliases", "aliases.tsv"),
    ],
    ids=" ".join,
)
def test_parts_of_another_rule_folds_genome_or_aliases_are_counted_anew(run, cohort, changed):
    (cohort / "more.sizes").write_text((cohort / "chrom.sizes").read_text() + "chr3\t5000\n")
    (cohort / "aliases.tsv").write_text("chr1\tone\n")
    assert run(*changed).code == 0
    fresh = (cohort / "s.h5").read_bytes()
    (cohort / "s.h5").unlink()
    assert len(break_a_run(run, cohort)) == 3
    ran = run(*changed)
    assert len(counted(ran)) == 4
    assert (cohort / "s.h5").read_bytes() == fresh
    assert not (cohort / FOLDER).exists()


def test_a_row_that_the_sheet_now_describes_otherwise_is_counted_anew(run, cohort):
    assert len(break_a_run(run, cohort)) == 3
    header, first, *others = (cohort / "sheet.tsv").read_text().splitlines()
    lines = [f"{header}\tplatform", f"{first}\tIllumina MiSeq", *(f"{line}\tNA" for line in others)]
    (cohort / "sheet.tsv").write_text("\n".join(lines) + "\n")
    assert counted(run()) == ["x/H3K4me3", "y/H3K9me3"]


@pytest.mark.parametrize("when", ["later", "within the same second", "later, with the time of the old one"])
def test_a_file_that_was_replaced_is_counted_anew(run, cohort, when):
    assert len(break_a_run(run, cohort)) == 3
    path, old = cohort / "one.bam", (cohort / "one.bam").stat()
    if when == "within the same second":  # a file of one size: only a finer clock tells it from the old one
        path.write_bytes((cohort / "one.bam").read_bytes())
        second = old.st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(second, second + (old.st_mtime_ns + 5 * 10**8) % 10**9))
    else:
        path.write_bytes((cohort / "four.bam").read_bytes())
        time_ns = old.st_mtime_ns + (0 if "old" in when else 10**10)
        os.utime(path, ns=(time_ns, time_ns))
    ran = run()
    assert counted(ran) == ["x/H3K4me3", "y/H3K9me3"]


def test_a_file_that_changes_while_it_is_counted_is_named(start, origin, cohort):
    close_gate(cohort)
    process = start("--quiet")
    assert until(lambda: len(parts(cohort)) == 2 and list((cohort / FOLDER).glob("*.tmp")))
    os.utime(cohort / "one.bam", (1, 1))
    shutil.copy2(origin / "late.bed", cohort / "regular.bed")
    with (cohort / "late.bed").open("wb"):  # the run waits for it no longer, and finds the file in its place
        (cohort / "regular.bed").rename(cohort / "late.bed")
    _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    (line,) = told.splitlines()
    assert "one.bam" in line or "late.bed" in line
    assert not (cohort / "s.h5").exists()


def test_of_two_that_write_one_store_the_second_is_refused_and_the_first_finishes(candi, cohort):
    experiments = read_sheet(Path("sheet.tsv"))
    store = cohort / "s.h5"
    with Parts(store, CountingRule(), {"chr1": 300_010, "chr2": 120_000}, Binning()) as first:
        outcomes = first.count(experiments, threads=1)
        next(outcomes)
        ran = candi(*COMMAND)
        assert (ran.code, ran.errors) == (
            1,
            [f"candi bin: {store}: another candi is writing it; wait for that, or choose another -o"],
        )
        assert not store.exists()
        assert len(list(outcomes)) == 3
        first.assemble(store, experiments, command="")
    assert store.exists()
    assert not (cohort / FOLDER).exists()
    assert candi(*COMMAND, "--quiet").code == 0


def test_two_stores_in_one_folder_are_written_at_once(candi, cohort):
    with Parts(cohort / "other.h5", CountingRule(), {"chr1": 300_010, "chr2": 120_000}, Binning()):
        assert candi(*COMMAND, "--quiet").code == 0


def test_a_lock_that_a_killed_process_has_left_does_not_block(run, cohort, unbroken):
    (cohort / FOLDER).mkdir()
    (cohort / FOLDER / "lock").touch()
    (cohort / FOLDER / "0123.4567.tmp").write_bytes(b"half")
    assert run().code == 0
    assert (cohort / "s.h5").read_bytes() == unbroken
    assert not (cohort / FOLDER).exists()


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)], ids=["empty", "text", "cut"])
def test_a_part_that_the_disk_has_lost_is_made_anew(run, cohort, unbroken, content):
    kept = break_a_run(run, cohort)
    (cohort / FOLDER / next(iter(kept))).write_bytes(content)
    ran = run()
    assert ran.code == 0, ran.err
    assert (cohort / "s.h5").read_bytes() == unbroken


@pytest.mark.parametrize("at", [0.02, 0.5, 0.999])
def test_a_part_with_a_wrong_byte_is_made_anew(run, cohort, unbroken, at):
    kept = break_a_run(run, cohort)
    part = cohort / FOLDER / next(iter(kept))
    content = bytearray(part.read_bytes())
    content[int(at * len(content))] ^= 16
    part.write_bytes(content)
    ran = run()
    assert ran.code == 0, ran.err
    assert f"{len(kept) - 1} of" in ran.err
    assert (cohort / "s.h5").read_bytes() == unbroken


def test_a_part_is_whole_until_a_byte_is_changed_cut_or_added_and_hdf5_reads_it(tmp_path):
    part = tmp_path / "part.h5"
    with making(part) as temporary, h5py.File(temporary, "w") as file:
        file["values"] = np.arange(10)
    assert is_whole(part)
    with h5py.File(part) as file:
        assert file["values"][:].tolist() == list(range(10))
    content = part.read_bytes()
    assert int.from_bytes(content[-4:], "little") == zlib.crc32(content[:-4])
    for at in range(0, len(content), 7):
        part.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert not is_whole(part), at
    for other in (b"", content[:4], content[:-1], content[: len(content) // 2], content + b"x"):
        part.write_bytes(other)
        assert not is_whole(part)
    part.unlink()
    assert not is_whole(part)


def test_a_worker_that_is_killed_is_told_in_one_line(start, cohort):
    close_gate(cohort)
    process = start("-@", 2, "--quiet")
    assert until(lambda: len(parts(cohort)) == 3 and list((cohort / FOLDER).glob("*.tmp")))
    workers = workers_of(process.pid)
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    (line,) = told.splitlines()
    assert line.startswith("candi bin: y/H3K27me3: its process ended with -9")
    assert "; " in line
    assert len(parts(cohort)) == 3


def test_workers_that_are_killed_before_they_begin_are_told_in_one_line(start, cohort):
    (cohort / "chrom.sizes").write_text(
        (cohort / "chrom.sizes").read_text() + "".join(f"scaffold_{number}\t1000\n" for number in range(20_000))
    )  # a task that is larger than what a pipe holds
    process = start("-@", 2, "--quiet")
    assert until(lambda: len(workers_of(process.pid)) > 0)
    for pid in workers_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    assert len(told.splitlines()) == 1, told
    assert "its process ended with -9" in told


def test_an_interrupt_from_the_keyboard_is_one_line_whenever_it_comes(cohort):
    """A terminal sends it to the workers too, and those that have just begun are not ready for it."""
    for wait in (0.0, 0.3):
        command = [*CANDI, *COMMAND, "-@", "2", "--quiet"]
        with subprocess.Popen(
            command, cwd=cohort, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert until(lambda process=process: len(workers_of(process.pid)) > 0)
            time.sleep(wait)
            os.killpg(process.pid, signal.SIGINT)
            _, told = process.communicate(timeout=20)
        assert process.returncode == 130
        assert told == "candi bin: interrupted; nothing was left half-written\n"


def test_files_that_are_not_its_own_stay_in_the_folder_of_parts(run, cohort):
    (cohort / FOLDER).mkdir()
    (cohort / FOLDER / "mine.txt").write_text("mine")
    (cohort / FOLDER / "sub").mkdir()
    ran = run("--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(path.name for path in (cohort / FOLDER).iterdir()) == ["mine.txt", "sub"]


def test_a_worker_whose_parent_has_ended_ends_without_a_word(capfd):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(theirs, 1))
    worker.start()
    theirs.close()
    ours.close()
    worker.join(timeout=60)
    assert worker.exitcode == 0
    assert capfd.readouterr().err == ""


class _Dropping:
    """What drops an exception that comes while it goes, as the callback of a weak reference does."""

    def __init__(self, ready):
        self.ready = ready

    def __del__(self):
        self.ready.set()
        time.sleep(30)


def _drop_the_first_end(ready) -> None:
    serve()
    _Dropping(ready)
    time.sleep(60)


def test_a_worker_that_drops_the_call_to_end_hears_it_again_without_a_word(capfd):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=_drop_the_first_end, args=(ready,))
    worker.start()
    assert ready.wait(timeout=60)
    began = time.monotonic()
    worker.terminate()
    worker.join(timeout=25)
    assert worker.exitcode == 1
    assert time.monotonic() - began < 20
    assert capfd.readouterr().err == ""
