"""The hub as an independent little parser reads it, after UCSC's rules."""

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from candi_cli.errors import OutputError
from candi_cli.report.hub import write_hub


def parse(path: Path) -> list[dict[str, str]]:
    """Read stanzas: settings are a word and the rest of the line; an empty line ends a stanza."""
    stanzas = []
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8").strip()):
        stanza = {}
        for line in block.splitlines():
            assert not line.endswith("\\"), "joins the next line"
            setting, value = line.strip().split(" ", 1)
            assert setting not in stanza
            stanza[setting] = value
        stanzas.append(stanza)
    return stanzas


@pytest.fixture
def stanzas(delivery):
    return parse(write_hub(delivery)[-1])


@pytest.fixture
def by_file(stanzas):
    return {
        unquote(stanza["bigDataUrl"]).removeprefix("../../"): stanza for stanza in stanzas if "bigDataUrl" in stanza
    }


def test_the_hub_names_its_genomes_and_they_their_tracks(delivery):
    paths = write_hub(delivery)
    assert [path.relative_to(delivery.folder).as_posix() for path in paths] == [
        "hub/hub.txt",
        "hub/genomes.txt",
        "hub/hg38/trackDb.txt",
    ]
    (hub,), (genome,) = parse(paths[0]), parse(paths[1])
    assert {"hub", "shortLabel", "longLabel", "genomesFile", "email"} <= set(hub)
    assert len(hub["shortLabel"]) <= 17
    assert " " not in hub["hub"]
    assert (paths[0].parent / hub["genomesFile"]).samefile(paths[1])
    assert genome["genome"] == "hg38"
    assert (paths[1].parent / genome["trackDb"]).samefile(paths[2])


def test_every_track_has_the_required_settings_and_a_name_of_its_own(stanzas):
    for stanza in stanzas:
        assert {"track", "type", "shortLabel", "longLabel"} <= set(stanza)
        assert ("bigDataUrl" in stanza) != ("container" in stanza)
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", stanza["track"])
        assert len(stanza["shortLabel"]) <= 17
        assert len(stanza["longLabel"]) <= 76
    names = [stanza["track"] for stanza in stanzas]
    assert len(set(names)) == len(names)


def test_every_url_is_a_delivered_track_and_every_track_has_one(delivery, stanzas, by_file):
    trackdb = delivery.folder / "hub" / "hg38"
    for stanza in stanzas:
        if "bigDataUrl" in stanza:
            assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", stanza["bigDataUrl"])
            assert (trackdb / unquote(stanza["bigDataUrl"])).is_file()
    assert sorted(by_file) == sorted(track.path.as_posix() for track in delivery.tracks)


def test_an_interval_is_one_overlay_with_the_mean_between_its_ends(stanzas):
    parents = [stanza for stanza in stanzas if "container" in stanza]
    assert len(parents) == 2
    for parent in parents:
        assert parent["container"] == "multiWig"
        assert parent["aggregate"] == "transparentOverlay"
        children = [stanza for stanza in stanzas if stanza.get("parent") == parent["track"]]
        centre = "probability" if "peaks" in parent["track"] else "mean"
        assert f": {centre} and its 90 %" in parent["longLabel"]
        assert [child["track"].rsplit("_", 1)[1] for child in children] == ["upper", centre, "lower"]
        assert [child["priority"] for child in children] == ["1", "2", "3"]
        shades = [sum(int(part) for part in child["color"].split(",")) for child in children]
        assert shades == sorted(shades, reverse=True), "from pale to dark"
        assert stanzas.index(parent) < stanzas.index(children[0])


def test_a_parent_comes_before_its_children_and_exists(stanzas):
    for position, stanza in enumerate(stanzas):
        if "parent" in stanza:
            assert stanza["parent"] in [before["track"] for before in stanzas[:position]]


def test_only_means_and_intervals_are_shown_at_first(delivery, by_file):
    for track in delivery.tracks:
        stanza = by_file[track.path.as_posix()]
        if track.quantity not in ("mean", "median", "probability", "lower", "upper"):
            assert stanza["visibility"] == "hide"
        elif "parent" not in stanza:
            assert stanza["visibility"] == "full"


def test_peaks_go_from_0_to_1_but_not_their_spread(stanzas, by_file):
    (overlay,) = [stanza for stanza in stanzas if "container" in stanza and "peaks" in stanza["track"]]
    assert overlay["viewLimits"] == by_file["a_b.probability.bw"]["viewLimits"] == "0:1"
    assert "viewLimits" not in by_file["a-b.sd.bw"]
    assert "viewLimits" not in by_file["signal.median.bw"]


def test_one_end_alone_is_a_plain_track(delivery):
    alone = replace(delivery, tracks=[track for track in delivery.tracks if track.quantity != "upper"])
    stanzas = parse(write_hub(alone)[-1])
    assert not any("container" in stanza or "parent" in stanza for stanza in stanzas)
    assert len(stanzas) == len(alone.tracks)


def test_without_a_name_of_the_genome_there_is_no_hub(without_genome):
    assert write_hub(without_genome) == []
    assert not (without_genome.folder / "hub").exists()


def test_a_genome_that_is_no_name_is_refused_before_anything_is_written(delivery):
    with pytest.raises(OutputError, match="such as hg38"):
        write_hub(replace(delivery, genome="../../hg38"))
    assert not (delivery.folder / "hub").exists()
