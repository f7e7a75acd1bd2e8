"""The manifest against hashlib and the files themselves."""

import hashlib
import json
from dataclasses import replace

import pytest

from candi_cli.report.manifest import write_manifest


def test_each_delivered_file_is_listed_with_its_size_and_checksum(delivery):
    expected = {}
    for path in delivery.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            expected[path.relative_to(delivery.folder).as_posix()] = len(content), hashlib.sha256(content).hexdigest()
    listed = json.loads(write_manifest(delivery).read_text())["files"]
    assert {file["path"]: (file["size"], file["sha256"]) for file in listed} == expected
    assert len(listed) == len(expected)


def test_a_track_says_what_it_is_and_other_files_do_not(delivery):
    listed = {file["path"]: file for file in json.loads(write_manifest(delivery).read_text())["files"]}
    for track in (*delivery.tracks, *delivery.texts):
        assert listed[track.path.as_posix()].items() >= (vars(track).items() - {("path", track.path)})
    assert set(listed["table.tsv"]) == {"path", "size", "sha256"}


def test_how_it_was_made_is_kept_as_it_was_given(delivery):
    manifest = json.loads(write_manifest(delivery).read_text())
    names = ["command", "versions", "model", "interval", "experiments", "genome", "resolution", "chromsizes", "notes"]
    assert {name: manifest[name] for name in names} == {name: getattr(delivery, name) for name in names}


def test_regions_are_lists_of_chromosome_start_and_end(delivery):
    regions = json.loads(write_manifest(delivery).read_text())["regions"]
    assert regions == {'<grp1>&"x"': [["chr21", 0, 46_709_983]], "a-b": [["chr1", 1_000, 2_500], ["chr21", 0, 75]]}


def test_the_same_delivery_in_another_order_gives_the_same_bytes(delivery):
    once = write_manifest(delivery).read_bytes()
    turned = replace(
        delivery,
        tracks=delivery.tracks[::-1],
        versions=dict(reversed(delivery.versions.items())),
        chromsizes=dict(reversed(delivery.chromsizes.items())),
    )
    assert write_manifest(turned).read_bytes() == once


def test_a_file_that_changed_is_read_again(delivery):
    write_manifest(delivery)
    (delivery.folder / "table.tsv").write_bytes(b"longer than it was before" * 1000)
    listed = {file["path"]: file for file in json.loads(write_manifest(delivery).read_text())["files"]}
    assert listed["table.tsv"]["sha256"] == hashlib.sha256(b"longer than it was before" * 1000).hexdigest()


def test_a_value_that_json_does_not_know_is_refused(delivery):
    delivery.experiments[0]["asked"] = {"depth": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(delivery)
