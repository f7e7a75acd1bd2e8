"""Outputs that are complete or absent: written beside their final name and renamed at the end."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from candi_cli.errors import OutputError
from candi_cli.processes import heed_signals

_UMASK = os.umask(0)
os.umask(_UMASK)


def check_writable(path: Path, *, inputs: Iterable[Path | None] = (), option: str = "-o") -> None:
    """Raise OutputError unless a file can be made at `path`; call it before the work that fills it.

    Parameters
    ----------
    inputs : files that are read; writing onto one of them would destroy it
    option : that names the output
    """
    if path == Path("-"):
        raise OutputError(f"-: this output cannot be written to a pipe; give a file name with {option}")
    _check_name(path, option)
    for read in inputs:
        if read is not None and path.exists() and read.exists() and path.samefile(read):
            raise OutputError(f"{path}: is an input too ({read}); give another {option}")
    folder = path.parent
    if not folder.exists():
        raise OutputError(f"{path}: folder {folder} does not exist; make it first")
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is not a folder; give another {option}")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name with {option}")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is not a regular file, so it cannot be replaced; give a file name with {option}")
    probe = _temporary(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another {option}") from error


def _check_name(path: Path, option: str) -> None:
    """Raise OutputError where a path leads nowhere, or to a name that no library may be given."""
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{str(path.resolve())!a}: the name is not UTF-8; give another {option}") from error
    except (RuntimeError, OSError) as error:  # Python says it with the one or the other
        raise OutputError(f"{path}: is a link that leads to itself; give another {option}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block succeeds and vanishes when it does not."""
    path = path.resolve()  # of a link, the file that it points to is replaced
    temporary = _temporary(path)
    try:
        yield temporary
        heed_signals()
        temporary.chmod(0o666 & ~_UMASK)  # some libraries write files that only their owner may read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(paths: Iterable[Path]) -> None:
    """Remove what processes that were killed have left of outputs; one that still runs keeps its own."""
    for path in map(Path.resolve, paths):
        name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.tmp")
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            match = name.fullmatch(left.name)
            if match and not _runs(int(match[1])):
                left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
