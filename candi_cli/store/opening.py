"""Opening and reading HDF5 files that may be damaged: whatever h5py raises becomes one line that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from isal import isal_zlib

from candi_cli.errors import StoreError

# what h5py, and what is made of its values, raise on damaged files; RuntimeError has RecursionError, ValueError has
# UnicodeDecodeError and JSONDecodeError
DAMAGE: tuple[Any, ...] = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
    NotImplementedError, isal_zlib.error,
)  # fmt: skip


@contextmanager
def naming_damage(path: Path | str, what: str, *, remedy: str) -> Iterator[None]:
    """Raise StoreError where HDF5, or what is in it, cannot be read.

    Parameters
    ----------
    what : is being read, such as "its header"
    remedy : what to do about it, such as "make it again"
    """
    try:
        yield
    except DAMAGE as error:
        raise StoreError(f"{path}: {what} cannot be read; it is damaged, {remedy}") from error


def open_hdf5(path: Path, *, format_: str, version: int, kind: str, remedy: str) -> h5py.File:
    """Open a file of one of our formats for reading.

    Parameters
    ----------
    kind : what it should be, such as "a store"
    remedy : what to do about one that is not, such as "make it again"

    Raises
    ------
    StoreError
        It is missing, may not be read, is something else, damaged, or of another format version.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise StoreError(f"{path}: a folder, not {kind}; give a file")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise StoreError(f"{path}: may not be read ({error.strerror}); check its permissions") from error
    except BlockingIOError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); is another program writing it?") from error
    except DAMAGE as error:
        raise StoreError(f"{path}: not {kind}, or damaged; {remedy}") from error
    try:
        _check_format(file, path, format_=format_, version=version, kind=kind, remedy=remedy)
    except BaseException:
        file.close()
        raise
    return file


def _check_format(file: h5py.File, path: Path, *, format_: str, version: int, kind: str, remedy: str) -> None:
    with naming_damage(path, "its header", remedy=remedy):
        is_ours, found = bool(file.attrs.get("format") == format_), file.attrs.get("format_version")
        is_right = bool(found == version)
    if not is_ours:
        raise StoreError(f"{path}: an HDF5 file but not {kind.removeprefix('a file ')}; {remedy}")
    if not is_right:
        raise StoreError(f"{path}: format version {found}, expected {version}; {remedy}")


def says_it_is(path: Path, format_: str) -> bool:
    """Return whether an HDF5 file can be opened and says that it is of a format."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == format_)
    except DAMAGE:
        return False


def is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5, as a store is; what comes through a pipe is not, as it can be read only once.

    Raises
    ------
    StoreError
        It may not be read.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as handle:
            return handle.read(8) == b"\x89HDF\r\n\x1a\n"
    except PermissionError as error:
        raise StoreError(f"{path}: may not be read ({error.strerror}); check its permissions") from error
    except OSError:
        return False
