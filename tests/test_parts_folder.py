"""The folder of parts beside an output: whose it is, what stays in it, and when it goes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.errors import OutputError
from candi_cli.parts import PartsFolder, is_whole, making, temporary_of
from candi_cli.processes import locked

HOLDER = """
import sys
from pathlib import Path
from candi_cli.parts import PartsFolder
with PartsFolder(Path(sys.argv[1])) as folder:
    folder.path("kept").write_text("part")
    print("holds", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(output: Path) -> Iterator[subprocess.Popen]:
    """Let another process make an output until its stdin is closed."""
    command = [sys.executable, "-c", HOLDER, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: PartsFolder) -> list[str]:
    return sorted(path.name for path in folder.folder.iterdir())


def make(folder: PartsFolder, made_of: object, content: str = "part") -> Path:
    path = folder.path(made_of)
    with making(path) as temporary:
        temporary.write_text(content)
    return path


def fail(output: Path, work: Callable[[PartsFolder], object]) -> None:
    """Work in a folder until an error comes."""

    def broken() -> None:
        with PartsFolder(output) as folder:
            work(folder)
            raise KeyError

    with pytest.raises(KeyError):
        broken()


def test_of_two_processes_the_second_is_refused_until_the_first_is_gone(tmp_path):
    output = tmp_path / "o.h5"
    with held_by_another(output) as process:
        with pytest.raises(OutputError, match=rf"^{re.escape(str(output))}: another candi is writing it; "):
            PartsFolder(output).__enter__()
        assert locked(PartsFolder(output).folder / "lock") is None
        with PartsFolder(tmp_path / "other.h5") as other:  # of another output
            assert names(other) == ["lock"]
        process.kill()
        process.wait()
        with PartsFolder(output) as folder:
            assert [path.read_text() for path in folder.own()] == ["part"]


def test_a_process_that_ends_well_takes_its_folder_along(tmp_path):
    output = tmp_path / "o.h5"
    with held_by_another(output) as process:
        _, told = process.communicate("", timeout=20)
        assert (process.returncode, told) == (0, None)
    assert list(tmp_path.iterdir()) == []


def test_parts_are_kept_on_an_error_and_gone_on_success(tmp_path):
    output = tmp_path / "o.h5"
    fail(output, lambda folder: make(folder, ["chr1", 1]))
    with PartsFolder(output) as folder:
        assert folder.own() == [folder.path(["chr1", 1])]
        assert names(folder) == [folder.own()[0].name, "lock"]
        make(folder, ["chr2", 1])
        assert len(folder.own()) == 2
    assert list(tmp_path.iterdir()) == []


def test_an_error_before_the_first_part_leaves_nothing(tmp_path):
    fail(tmp_path / "o.h5", lambda folder: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_a_part_is_there_whole_or_not_at_all(tmp_path, error):
    with PartsFolder(tmp_path / "o.h5") as folder:
        path = folder.path("x")

        def half() -> None:
            with making(path) as temporary:
                temporary.write_text("ha")
                assert not path.exists()
                raise error

        with pytest.raises(error):
            half()
        assert names(folder) == ["lock"]
        make(folder, "x", "whole")
        assert path.read_bytes().startswith(b"whole")
        assert is_whole(path)


def test_what_is_not_complete_is_swept_away_by_the_next_run_and_at_the_end(tmp_path):
    output = tmp_path / "o.h5"

    def leave_half(folder: PartsFolder) -> None:
        make(folder, "x")
        temporary_of(folder.path("y")).write_text("ha")

    fail(output, leave_half)
    folder = PartsFolder(output)
    assert names(folder) == [folder.path("x").name, "lock"]
    temporary_of(folder.path("y")).write_text("of a process that was killed")
    with folder:
        assert names(folder) == [folder.path("x").name, "lock"]


def test_a_name_of_what_is_not_complete_is_of_this_process_and_no_part(tmp_path):
    folder = PartsFolder(tmp_path / "o.h5")
    temporary = temporary_of(folder.path("x"))
    assert temporary.parent == folder.folder
    assert temporary.name == f"{folder.path('x').stem}.{os.getpid()}.tmp"


def test_files_of_others_stay_and_are_no_parts(tmp_path):
    with PartsFolder(tmp_path / "o.h5") as folder:
        make(folder, "x")
        (folder.folder / "mine.h5").write_text("mine")
        (folder.folder / f"{'0' * 31}.h5").write_text("mine")
        assert folder.own() == [folder.path("x")]
    assert names(folder) == [f"{'0' * 31}.h5", "mine.h5"]


def test_a_folder_that_cannot_be_made_is_named_by_its_output(tmp_path):
    output = tmp_path / "none" / "o.h5"
    with pytest.raises(OutputError, match=rf"^{re.escape(str(output))}: cannot be written \(No such file"):
        PartsFolder(output).__enter__()


PLAIN = st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3))


@given(PLAIN, PLAIN)
def test_a_part_has_another_name_whenever_it_is_made_of_anything_else(one, other):
    folder = PartsFolder(Path("o.h5"))
    assert (folder.path(one) == folder.path(other)) == (json.dumps(one) == json.dumps(other))
    assert folder.path({"a": one, "b": other}) == folder.path({"b": other, "a": one})
    assert re.fullmatch(r"\.o\.h5\.parts/[0-9a-f]{32}\.h5", str(folder.path(one)))


def test_a_lock_is_of_one_holder_and_free_when_it_is_closed(tmp_path):
    first = locked(tmp_path / "lock")
    assert first is not None
    assert locked(tmp_path / "lock") is None
    first.close()
    second = locked(tmp_path / "lock")
    assert second is not None
    second.close()


def test_a_lock_that_its_holder_removed_is_not_taken_for_the_one_that_is_there(tmp_path, monkeypatch):
    """Between opening and locking, the holder may have removed the file, and another process made a new one."""
    from candi_cli import processes

    path, swapped = tmp_path / "lock", []
    plain = processes.fcntl.flock

    def swap(handle: object, flags: int) -> None:
        if not swapped:
            path.unlink()
            path.touch()
            swapped.append(True)
        plain(handle, flags)

    monkeypatch.setattr(processes.fcntl, "flock", swap)
    handle = locked(path)
    assert handle is not None
    assert os.fstat(handle.fileno()).st_ino == path.stat().st_ino
    assert locked(path) is None
    handle.close()
