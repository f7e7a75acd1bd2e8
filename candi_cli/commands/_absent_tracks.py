"""Tracks that are asked for and that a model never learned, or shards do not hold: left out, or refused."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from candi_cli.commands._console import console
from candi_cli.commands._track_files import Track
from candi_cli.export.files import NARROWPEAK


class Absent(NamedTuple):
    """Tracks that are asked for and that there are not.

    tracks : all of them
    refused : one without which the command is pointless; None where the others are worth it
    """

    tracks: set[Track]
    refused: Track | None

    def warn(self, lacks: str) -> None:
        """Tell what is left out, and what lacks it."""
        for kind in sorted({kind for _, kind in self.tracks}):
            assays = ", ".join(sorted(assay for assay, of in self.tracks if of == kind))
            console.warn(f"{lacks} {kind} of {assays}: left out")


def absent_of(
    held: Mapping[str, Collection[str]], kinds: Sequence[str], *, named: bool, formats: Sequence[str]
) -> Absent:
    """Return what is asked for and not held.

    It is refused where nothing is left to write, or nothing in a format, and where a track was asked for by its own
    name alone and that of its assay.

    Parameters
    ----------
    held : the kinds of tracks that there are of each assay
    named : the assays were asked for by their names
    """
    absent = [(assay, kind) for kind in kinds for assay in held if kind not in held[assay]]
    peaks = [track for track in absent if track[1] == "peaks"]
    nothing = len(absent) == len(kinds) * len(held) or (NARROWPEAK in formats and len(peaks) == len(held))
    refused = (peaks if NARROWPEAK in formats and peaks else absent)[0] if nothing else None
    if named and len(kinds) == 1 and absent:
        refused = absent[0]
    return Absent(set(absent), refused)
