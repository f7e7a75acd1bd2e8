"""`index.html`: one page that says what a folder holds, how it was made and how to look at it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from candi_cli.genome import Region
from candi_cli.report.appearance import KINDS, QUANTITIES, colour, made_by, one_line, place
from candi_cli.report.delivery import Delivery
from candi_cli.report.files import DeliveredFile, delivered_files
from candi_cli.report.templates import NOT_KNOWN as _NOT_KNOWN
from candi_cli.report.templates import readable as _readable
from candi_cli.report.templates import templates

if TYPE_CHECKING:
    from jinja2 import Template

_LONGEST_HEADING = 120
_PLACES_SHOWN = 24


def write_page(
    delivery: Delivery,
    figure: bytes | None,
    figure_caption: str,
    summary: Sequence[Mapping[str, Any]],
    *,
    summary_caption: str = "",
) -> Path:
    """Write `index.html` and return its path.

    It links to the manifest, the hub and the IGV session where they exist, so write them first.

    Parameters
    ----------
    figure : PNG, embedded in the page
    summary : rows of a table, from column to value; columns are in the order in which they first appear
    """
    folder = delivery.folder
    text = _template().render(
        vars(delivery),
        heading=_heading(delivery),
        files=delivered_files(delivery),
        figure=b64encode(figure).decode() if figure else None,
        figure_caption=figure_caption,
        summary=summary,
        summary_caption=summary_caption,
        places=_places(delivery),
        columns=list(dict.fromkeys(column for row in summary for column in row)),
        has_manifest=(folder / "manifest.json").exists(),
        has_hub=(folder / "hub" / "hub.txt").exists(),
        has_session=(folder / "igv_session.xml").exists(),
    )
    path = folder / "index.html"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _template() -> "Template":
    environment = templates()
    environment.filters |= {
        "described": _described,
        "in_words": _in_words,
        "link": lambda path: quote(path.as_posix()),
        "made_by": made_by,
        "readable": _readable,
        "size": _size,
    }
    environment.globals |= {"percent": lambda level: f"{100 * level:.4g}", "shade": lambda way: colour("mean", way)}
    return environment.from_string(files("candi_cli.report").joinpath("page.html").read_text(encoding="utf-8"))


def _heading(delivery: Delivery) -> str:
    shown = [(track.biosample, track.observed) for track in delivery.tracks]
    shown = shown or [(each["biosample"], each["observed"]) for each in delivery.experiments]
    biosamples = dict.fromkeys(biosample for biosample, _ in shown)
    ways = [made_by(way) for way in (True, False) if any(observed is way for _, observed in shown)]
    return one_line(f"{' and '.join(ways).capitalize()} tracks of {', '.join(biosamples)}", _LONGEST_HEADING)


def _places(delivery: Delivery) -> list[tuple[str, int, str]]:
    """Return where was predicted: in words, how many bp, and of which biosamples ("" where all are alike)."""
    alike: dict[tuple[Region, ...], list[str]] = {}
    for biosample, regions in delivery.regions.items():
        alike.setdefault(tuple(regions), []).append(one_line(biosample))
    return [
        (_in_genome(regions, delivery.chromsizes), sum(region.end - region.start for region in regions), names)
        for regions, names in ((each, ", ".join(of) if len(alike) > 1 else "") for each, of in alike.items())
    ]


def _in_genome(regions: Sequence[Region], chromsizes: Mapping[str, int]) -> str:
    """Return the names of regions; a whole chromosome goes by its own, and so does a whole genome of several."""
    whole = [(region.start, region.end) == (0, chromsizes[region.chrom]) for region in regions]
    if len(regions) == len(chromsizes) > 1 and all(whole):
        return f"all {len(regions)} chromosomes"
    names = [region.chrom if is_whole else place(region) for region, is_whole in zip(regions, whole, strict=True)]
    more = len(names) - _PLACES_SHOWN
    return ", ".join(names[:_PLACES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _described(file: DeliveredFile) -> str:
    track = file.track
    if track is None:
        return ""
    kind, quantity = KINDS.get(track.kind, track.kind), QUANTITIES.get(track.quantity, track.quantity)
    return f"{track.biosample}, {track.assay}, {made_by(track.observed)}: {kind}, {quantity}"


def _in_words(covariates: Mapping[str, Any]) -> str:
    """Return what was asked for in a few words; what is not known goes without saying."""
    units = {"depth": " reads", "read_length": " bp", "run_type": "", "platform": ""}
    known = [f"{_readable(covariates[name])}{unit}" for name, unit in units.items() if covariates.get(name) is not None]
    known = ["1 read" if words == "1 reads" else words for words in known]
    return ", ".join(known) or _NOT_KNOWN


def _size(n_bytes: int) -> str:
    if n_bytes < 1000:
        return "1 byte" if n_bytes == 1 else f"{n_bytes} bytes"
    size, units = n_bytes / 1000, ["kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
