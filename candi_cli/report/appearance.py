"""How tracks are named, coloured and put together, wherever they are shown."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from candi_cli.report.delivery import Track

KINDS = {"counts": "expected reads per bin", "signal": "-log10 p", "peaks": "peak probability"}
QUANTITIES = {
    "lower": "lower end of the interval",
    "upper": "upper end of the interval",
    "sd": "standard deviation",
    "cv": "coefficient of variation",
}
ON_ONE_SCALE = ("mean", "lower", "upper")  # in the unit of the measurement, so that they can share an axis

# Blue and vermilion of Okabe & Ito (2008), which colour-blind readers tell apart, with a pale and a dark shade of each.
# All are drawn from the axis up, so the mean is where the middle shade ends: below it dark, above it pale.
_DENOISED = {"upper": "166,206,237", "mean": "0,114,178", "lower": "0,57,105"}
_IMPUTED = {"upper": "250,205,170", "mean": "213,94,0", "lower": "130,50,0"}
_OTHER = "110,110,110"


class Group(NamedTuple):
    """The tracks of one kind of one assay of one biosample."""

    biosample: str
    assay: str
    kind: str
    tracks: list[Track]

    def chosen(self, *quantities: str) -> list[Track]:
        """Return the tracks of these quantities, in this order."""
        return [track for quantity in quantities for track in self.tracks if track.quantity == quantity]

    def others(self, *quantities: str) -> list[Track]:
        """Return the tracks of all quantities but these."""
        return [track for track in self.tracks if track.quantity not in quantities]


def grouped(tracks: Iterable[Track]) -> list[Group]:
    """Return tracks by biosample, assay and kind, in the order of their first ones."""
    groups: dict[tuple[str, str, str], list[Track]] = {}
    for track in tracks:
        groups.setdefault((track.biosample, track.assay, track.kind), []).append(track)
    return [Group(*key, members) for key, members in groups.items()]


def made_by(observed: bool) -> str:
    """Return how a track was made, in a word."""
    return "denoised" if observed else "imputed"


def title(track: Track) -> str:
    """Return the readable name of a track, on one line."""
    return one_line(f"{track.biosample} {track.assay}, {made_by(track.observed)} {track.kind}: {track.quantity}")


def colour(track: Track) -> str:
    """Return the colour of a track as `red,green,blue` from 0 to 255."""
    return (_DENOISED if track.observed else _IMPUTED).get(track.quantity, _OTHER)


def is_narrow_peak(path: Path) -> bool:
    """Return whether a file holds called peaks, by its name."""
    return path.name.lower().endswith((".narrowpeak", ".narrowpeak.gz"))


def one_line(text: str, longest: int | None = None) -> str:
    """Return a name without line breaks and control characters, cut to a length."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1].rstrip()}…"
