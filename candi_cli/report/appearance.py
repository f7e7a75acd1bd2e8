"""How tracks are named, coloured and put together, wherever they are shown."""

from collections.abc import Iterable
from typing import NamedTuple

from candi_cli.genome import Region
from candi_cli.report.delivery import Track

KINDS = {"counts": "reads per bin", "signal": "-log10 p", "peaks": "peaks"}
QUANTITIES = {
    "calls": "as called",
    "lower": "lower end of the interval",
    "upper": "upper end of the interval",
    "sd": "standard deviation",
    "cv": "coefficient of variation",
}
CENTRES = ("mean", "median", "probability")  # what a track shows first, of counts, signal and peaks
ON_ONE_SCALE = (*CENTRES, "lower", "upper")  # in the unit of the measurement, so that they can share an axis

# Blue and vermilion of Okabe & Ito (2008), which colour-blind readers tell apart, with a pale and a dark shade of each.
# All are drawn from the axis up, so the centre is where the middle shade ends: below it dark, above it pale.
_DENOISED = {"upper": "166,206,237", "centre": "0,114,178", "lower": "0,57,105"}
_IMPUTED = {"upper": "250,205,170", "centre": "213,94,0", "lower": "130,50,0"}
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


def colour(quantity: str, observed: bool) -> str:
    """Return the colour of a track as `red,green,blue` from 0 to 255."""
    shade = "centre" if quantity in (*CENTRES, "calls") else quantity
    return (_DENOISED if observed else _IMPUTED).get(shade, _OTHER)


def place(region: Region) -> str:
    """Return a region as it is spoken of: 1-based, with both ends."""
    return f"{region.chrom}:{region.start + 1:,}-{region.end:,}"


def one_line(text: str, longest: int | None = None) -> str:
    """Return a name without line breaks and control characters, cut to a length."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1].rstrip()}…"
