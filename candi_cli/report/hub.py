"""A track hub for the UCSC genome browser.

After UCSC's "Track Database Definition" (hub version 3). Paths are relative, so the hub works wherever the whole folder
is put on a web server.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from candi_cli.errors import OutputError
from candi_cli.report.appearance import CENTRES, ON_ONE_SCALE, Group, colour, grouped, one_line, title
from candi_cli.report.delivery import Delivery, Track

Stanza = dict[str, str]

PLACEHOLDER_EMAIL = "nobody@example.com"  # a hub must name someone; nobody can be reached at this domain (RFC 2606)
_GENOME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHORT, _LONG, _NAME = 17, 76, 100  # UCSC's limits for labels, and one of ours
_HEIGHTS = "100:48:8"  # pixels: the most, at first, the least


def write_hub(delivery: Delivery, *, email: str = PLACEHOLDER_EMAIL) -> list[Path]:
    """Write `hub/hub.txt`, `hub/genomes.txt` and `hub/<genome>/trackDb.txt`, and return their paths.

    Where the ends of an interval were delivered, they and the centre are overlaid in one track. Other quantities, such
    as the standard deviation, are there but hidden at first. narrowPeak files are left out: a hub shows indexed binary
    files only. Nothing is written where UCSC's name of the genome is not known.

    Parameters
    ----------
    email : whom the users of a public hub can ask

    Raises
    ------
    OutputError
        The genome's name cannot be one of UCSC's.
    """
    genome = delivery.genome
    if genome is None:
        return []
    folder = delivery.folder / "hub"
    if not _GENOME.fullmatch(genome):
        raise OutputError(f"{folder}: no hub for a genome named {genome!r}; give UCSC's name, such as hg38")
    texts = {
        folder / "hub.txt": _render([_hub(delivery, email)]),
        folder / "genomes.txt": _render([{"genome": genome, "trackDb": f"{genome}/trackDb.txt"}]),
        folder / genome / "trackDb.txt": _render(list(_stanzas(delivery))),
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(texts)


def _render(stanzas: list[Stanza]) -> str:
    """Return stanzas as UCSC reads them: one setting a line, an empty line between stanzas, members indented."""
    texts = []
    for stanza in stanzas:
        indent = "    " if "parent" in stanza else ""
        texts.append("".join(f"{indent}{setting} {value}\n" for setting, value in stanza.items()))
    return "\n".join(texts)


def _hub(delivery: Delivery, email: str) -> Stanza:
    biosamples = ", ".join(dict.fromkeys(track.biosample for track in delivery.tracks))
    return {
        "hub": "candi_tracks",
        "shortLabel": "CANDI tracks",
        "longLabel": _label(f"CANDI: denoised and imputed tracks of {biosamples}", _LONG),
        "genomesFile": "genomes.txt",
        "email": one_line(email),
    }


def _stanzas(delivery: Delivery) -> Iterator[Stanza]:
    used: set[str] = set()
    for group in grouped(delivery.tracks):
        overlaid = {"lower", "upper"} <= {track.quantity for track in group.tracks}
        if overlaid:
            yield from _overlay(group, delivery.interval, used)
        else:
            for track in group.chosen(*ON_ONE_SCALE):
                yield _track(track, used) | _scale(group.kind) | {"visibility": "full"}
        for track in group.others(*ON_ONE_SCALE):
            yield _track(track, used) | _scale("") | {"visibility": "hide"}


def _overlay(group: Group, interval: float | None, used: set[str]) -> Iterator[Stanza]:
    """Yield one track of several: pale up to the upper end, over it the centre, over it, dark, the lower end."""
    members = group.chosen("upper", *CENTRES, "lower")
    level = "its interval" if interval is None else f"its {100 * interval:g} % interval"
    centre = "".join(f"{track.quantity} and " for track in members if track.quantity in CENTRES)
    parent = _name(f"{group.biosample}_{group.assay}_{group.kind}", used)
    yield {
        "track": parent,
        "type": "bigWig",
        "container": "multiWig",
        "aggregate": "transparentOverlay",
        "showSubtrackColorOnUi": "on",
        "shortLabel": _label(f"{group.assay} {group.biosample}", _SHORT),
        "longLabel": _label(f"{title(members[0]).rpartition(':')[0]}: {centre}{level}", _LONG),
        "maxHeightPixels": _HEIGHTS,
        **_scale(group.kind),
        "visibility": "full",
    }
    for priority, track in enumerate(members, start=1):
        settings = _track(track, used)
        yield {"track": settings.pop("track"), "parent": parent, **settings, "priority": str(priority)}


def _track(track: Track, used: set[str]) -> Stanza:
    return {
        "track": _name(f"{track.biosample}_{track.assay}_{track.kind}_{track.quantity}", used),
        "type": "bigWig",
        "bigDataUrl": f"../../{quote(track.path.as_posix())}",
        "shortLabel": _label(f"{track.quantity} {track.assay} {track.biosample}", _SHORT),
        "longLabel": _label(title(track), _LONG),
        "color": colour(track.quantity, track.observed),
        "maxHeightPixels": _HEIGHTS,
    }


def _scale(kind: str) -> Stanza:
    if kind == "peaks":
        return {"autoScale": "off", "viewLimits": "0:1"}
    return {"autoScale": "on", "alwaysZero": "on"}


def _label(text: str, longest: int) -> str:
    """Return a label; a backslash at the end of a line would join the next line to it."""
    return one_line(text.replace("\\", "/"))[:longest].rstrip()


def _name(text: str, used: set[str]) -> str:
    """Return a name that UCSC allows and that no other track has."""
    base = "candi_" + re.sub(r"[^A-Za-z0-9_]", "_", text)[:_NAME]
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}_{number}"
    used.add(name)
    return name
