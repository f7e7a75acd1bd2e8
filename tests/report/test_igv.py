"""The IGV session, read back as XML."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from candi_cli.genome import Region
from candi_cli.report.igv import write_igv_session

SCALED = ("mean", "median", "probability", "lower", "upper")


@pytest.fixture
def session(delivery):
    return Xml.parse(write_igv_session(delivery)).getroot()


def tracks_by_id(session):
    return {track.get("id"): track for track in session.iter("Track")}


def test_every_resource_is_a_file_and_every_track_one_of_them(delivery, session):
    paths = [resource.get("path") for resource in session.iter("Resource")]
    assert all((delivery.folder / path).is_file() and not Path(path).is_absolute() for path in paths)
    called = ["called.narrowPeak.gz", "a-b.narrowPeak"]
    assert sorted(paths) == sorted([track.path.as_posix() for track in delivery.tracks] + called)
    assert sorted(track.get("id") for track in session.iter("Track")) == sorted(paths)


def test_it_opens_at_the_locus_of_the_figure_or_at_everything(delivery, session):
    assert session.get("locus") == "All"
    there = write_igv_session(replace(delivery, locus=Region("chr21", 44_492_800, 44_544_000)))
    assert Xml.parse(there).getroot().get("locus") == "chr21:44492801-44544000"


def test_calls_are_named_and_coloured_as_the_tracks_that_they_are_of(session):
    tracks = tracks_by_id(session)
    assert tracks["a-b.narrowPeak"].get("name") == "a-b CTCF, imputed peaks: calls"
    assert tracks["called.narrowPeak.gz"].get("name") == '<grp1>&"x" H3K4me3, denoised peaks: calls'
    assert tracks["a-b.narrowPeak"].get("color") == tracks["a_b.probability.bw"].get("color")
    assert tracks["called.narrowPeak.gz"].get("color") == tracks["signal.median.bw"].get("color")
    assert tracks["a-b.narrowPeak"].get("color") != tracks["called.narrowPeak.gz"].get("color")


def test_there_is_one_panel_with_all_tracks(session):
    panels = session.findall("Panel")
    assert [panel.get("name") for panel in panels] == ["DataPanel"]
    assert len(panels[0].findall("Track")) == len(list(session.iter("Track")))


def test_the_genome_is_named_or_left_to_igv(session, without_genome):
    assert session.get("genome") == "hg38"
    assert Xml.parse(write_igv_session(without_genome)).getroot().get("genome") == ""


def test_names_are_readable_and_as_given(session):
    tracks = tracks_by_id(session)
    assert tracks["a b#1%/x&y.lower.bw"].get("name") == '<grp1>&"x" H3K4me3, denoised counts: lower'
    assert tracks["K562.mean.bw"].get("name") == "K562 line\\ H3K27ac, imputed counts: mean"
    names = [track.get("name") for track in tracks.values()]
    assert len(set(names)) == len(names)


def test_mean_and_interval_share_a_scale_with_nothing_else(delivery, session):
    tracks = tracks_by_id(session)
    sharing: dict[str, set[tuple[str, str, str]]] = {}
    for track in delivery.tracks:
        element = tracks[track.path.as_posix()]
        group = element.get("autoscaleGroup")
        assert (group is not None) == (track.kind != "peaks" and track.quantity in SCALED)
        if group is not None:
            sharing.setdefault(group, set()).add((track.biosample, track.assay, track.kind))
    assert all(len(experiments) == 1 for experiments in sharing.values())
    assert len(set.union(*sharing.values())) == len(sharing)


def test_peak_probabilities_go_from_0_to_1(session):
    tracks = tracks_by_id(session)
    for name in ("a-b.probability.bw", "a-b.lower.bw", "a-b.upper.bw", "a_b.probability.bw"):
        span = tracks[name].find("DataRange")
        assert tracks[name].get("autoScale") == "false"
        assert (float(span.get("minimum")), float(span.get("maximum"))) == (0, 1)
    assert tracks["a-b.sd.bw"].get("autoScale") == "true"


def test_the_same_delivery_gives_the_same_bytes(delivery):
    assert write_igv_session(delivery).read_bytes() == write_igv_session(delivery).read_bytes()
