"""The delivered files: how large they are and what they hold, by checksum."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from candi_cli.report.delivery import Delivery, Track


class DeliveredFile(NamedTuple):
    """One file of a delivery; `path` is relative to its folder, and `track` None for what is not a track."""

    path: Path
    n_bytes: int
    sha256: str
    track: Track | None


class _State(NamedTuple):
    """A file as it was when its checksum was computed."""

    path: Path
    n_bytes: int
    changed_ns: int


def delivered_files(delivery: Delivery) -> list[DeliveredFile]:
    """Return the tracks and other files of a delivery, by path; what describes them is not among them."""
    paths: dict[Path, Track | None] = dict.fromkeys(delivery.other_files)
    paths |= {track.path: track for track in (*delivery.tracks, *delivery.texts)}
    found = []
    for path, track in sorted(paths.items(), key=lambda item: item[0].as_posix()):
        where = delivery.folder / path
        state = where.stat()
        sha256 = _sha256(_State(where, state.st_size, state.st_mtime_ns))
        found.append(DeliveredFile(path, state.st_size, sha256, track))
    return found


@cache
def _sha256(state: _State) -> str:
    """Return the checksum of a file, which is read once for the manifest and the page: it may be large."""
    with state.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
