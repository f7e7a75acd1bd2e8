"""A session for the IGV desktop browser that opens all tracks of a folder."""

from pathlib import Path
from xml.etree import ElementTree as Xml

from candi_cli.report.appearance import ON_ONE_SCALE, colour, grouped, title
from candi_cli.report.delivery import Delivery, Track

_TRACK_HEIGHT, _PEAKS_HEIGHT = "40", "30"  # pixels


def write_igv_session(delivery: Delivery) -> Path:
    """Write `igv_session.xml` and return its path.

    Centre, lower and upper of one kind of one assay of one biosample share a scale that follows the view; those of peak
    probabilities go from 0 to 1. Called peaks are loaded below the tracks. Where the genome is not known, IGV keeps
    the one that it shows.
    """
    calls = [track for track in delivery.texts if track.quantity == "calls"]
    locus = f"{delivery.locus.chrom}:{delivery.locus.start + 1}-{delivery.locus.end}" if delivery.locus else "All"
    session = Xml.Element("Session", genome=delivery.genome or "", locus=locus, version="8")
    resources = Xml.SubElement(session, "Resources")
    for track in (*delivery.tracks, *calls):
        Xml.SubElement(resources, "Resource", path=track.path.as_posix())
    panel = Xml.SubElement(session, "Panel", name="DataPanel", height="700", width="1200")
    for number, group in enumerate(grouped(delivery.tracks), start=1):
        for track in group.chosen(*ON_ONE_SCALE):
            _add_track(panel, track, None if group.kind == "peaks" else str(number))
        for track in group.others(*ON_ONE_SCALE):
            _add_track(panel, track, None)
    for track in calls:
        _add_calls(panel, track)
    Xml.indent(session)
    target = delivery.folder / "igv_session.xml"
    target.write_bytes(Xml.tostring(session, encoding="UTF-8", xml_declaration=True) + b"\n")
    return target


def _add_track(panel: Xml.Element, track: Track, autoscale_group: str | None) -> None:
    from_0_to_1 = track.kind == "peaks" and track.quantity in ON_ONE_SCALE
    element = Xml.SubElement(
        panel,
        "Track",
        id=track.path.as_posix(),
        name=title(track),
        clazz="org.broad.igv.track.DataSourceTrack",
        attributeKey=track.path.name,
        autoScale="false" if from_0_to_1 else "true",
        color=colour(track.quantity, track.observed),
        height=_TRACK_HEIGHT,
        renderer="BAR_CHART",
        visible="true",
        windowFunction="mean",
    )
    if autoscale_group is not None:
        element.set("autoscaleGroup", autoscale_group)
    Xml.SubElement(
        element, "DataRange", type="LINEAR", minimum="0.0", baseline="0.0", maximum="1.0", drawBaseline="true"
    )


def _add_calls(panel: Xml.Element, track: Track) -> None:
    Xml.SubElement(
        panel,
        "Track",
        id=track.path.as_posix(),
        name=title(track),
        clazz="org.broad.igv.track.FeatureTrack",
        attributeKey=track.path.name,
        color=colour(track.quantity, track.observed),
        height=_PEAKS_HEIGHT,
        visible="true",
    )
