"""A folder of finished parts beside an output that is being made, so that an interrupted run can go on."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from isal import isal_zlib

from candi_cli.errors import OutputError
from candi_cli.processes import locked

_PART = re.compile(r"^[0-9a-f]{32}\.h5$")
_SEAL_BYTES, _AT_ONCE = 4, 1 << 20


class PartsFolder:
    """The folder `.OUTPUT.parts`; use it as a context manager, which also locks the output.

    Parts are kept when the run is interrupted, and go when it is complete.

    Parameters
    ----------
    output : what the parts are for

    Raises
    ------
    OutputError
        Another process is making the same output, or the folder cannot be made.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts")
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = locked(self.folder / "lock")
        except OSError as error:
            raise OutputError(f"{self.output}: cannot be written ({error.strerror}); choose another -o") from error
        if self._lock is None:
            raise OutputError(f"{self.output}: another candi is writing it; wait for that, or choose another -o")
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sweep()
        if kind is None or not self.own():
            for path in (*self.own(), self.folder / "lock"):
                path.unlink()
            with contextlib.suppress(OSError):  # something is in it that is not ours
                self.folder.rmdir()
        if self._lock is not None:
            self._lock.close()

    def _sweep(self) -> None:
        for path in self.folder.glob("*.tmp"):
            path.unlink(missing_ok=True)

    def own(self) -> list[Path]:
        """Return the parts that are there."""
        return [path for path in self.folder.glob("*.h5") if _PART.match(path.name)]

    def path(self, made_of: Any) -> Path:
        """Return where a part is: a name that changes with anything that the part depends on."""
        text = json.dumps(made_of, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.h5"


@contextmanager
def making(part: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes a part when the block succeeds, and vanishes when it does not.

    A part ends with the CRC-32 of the bytes before, which HDF5 passes over.

    Raises
    ------
    OutputError
        The disk is full.
    """
    temporary = temporary_of(part)
    try:
        yield temporary
        _seal(temporary)
        temporary.replace(part)
    finally:
        temporary.unlink(missing_ok=True)


def _seal(path: Path) -> None:
    try:
        with path.open("r+b") as handle:
            handle.write(_checksum(handle, path.stat().st_size))
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written ({error.strerror}); make room on that disk") from error


def is_whole(part: Path) -> bool:
    """Return whether a part is there, as it was when it was finished."""
    try:
        with part.open("rb") as handle:
            n_bytes = part.stat().st_size - _SEAL_BYTES
            return n_bytes > 0 and _checksum(handle, n_bytes) == handle.read()
    except OSError:
        return False


def _checksum(handle: BinaryIO, n_bytes: int) -> bytes:
    """Return the CRC-32 of the next bytes of a file."""
    found = 0
    while n_bytes > 0 and (piece := handle.read(min(n_bytes, _AT_ONCE))):
        found, n_bytes = isal_zlib.crc32(piece, found), n_bytes - len(piece)
    return found.to_bytes(_SEAL_BYTES, "little")


def temporary_of(part: Path) -> Path:
    """Return a name for a part that is not complete; what is left of it is swept away by the next run."""
    return part.with_name(f"{part.stem}.{os.getpid()}.tmp")
