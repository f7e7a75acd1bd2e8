"""One delivery for all tests of the room: users' names as bad as they come, and of every sort of track one."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from candi_cli.genome import Region
from candi_cli.report.delivery import Delivery, Track

BAD = '<grp1>&"x"'
ASKED = {"depth": 50e6, "read_length": 100.0, "run_type": "paired-ended", "platform": None}


def tracks_of(biosample: str, assay: str, kind: str, *quantities: str, stem: str, observed: bool) -> list[Track]:
    return [Track(biosample, assay, kind, quantity, Path(f"{stem}.{quantity}.bw"), observed) for quantity in quantities]


@pytest.fixture
def delivery(tmp_path) -> Delivery:
    tracks = [
        *tracks_of(BAD, "H3K4me3", "counts", "mean", "lower", "upper", "sd", stem="a b#1%/x&y", observed=True),
        *tracks_of(BAD, "H3K4me3", "signal", "median", "cv", stem="signal", observed=True),
        *tracks_of("a-b", "CTCF", "peaks", "probability", "lower", "upper", "sd", stem="a-b", observed=False),
        *tracks_of("a_b", "CTCF", "peaks", "probability", stem="a_b", observed=False),
        *tracks_of("K562\nline\\", "H3K27ac", "counts", "mean", "skewness", stem="K562", observed=False),
    ]
    texts = [
        Track(BAD, "H3K4me3", "peaks", "calls", Path("called.narrowPeak.gz"), True),
        Track("a-b", "CTCF", "peaks", "calls", Path("a-b.narrowPeak"), False),
        Track("a-b", "CTCF", "counts", "mean", Path("a-b.bedGraph.gz"), False),
    ]
    others = [Path("table.tsv")]
    contents = itertools.count()
    for path in [track.path for track in tracks + texts] + others:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"content %d" % next(contents) * 1000)
    measured = {"depth": 1234567.0, "read_length": 36.0, "run_type": "single-ended", "platform": None}
    return Delivery(
        folder=tmp_path,
        tracks=tracks,
        texts=texts,
        other_files=others,
        command="candi denoise '<a>.bam' --interval 0.9",
        versions={"torch": "2.13.0", "candi": "0.1.0"},
        model={"name": "<m>.safetensors", "sha256": "ab" * 32, "assays": ["H3K4me3", "CTCF", "<new>"]},
        genome="hg38",
        chromsizes={"chr1": 248_956_422, "chr21": 46_709_983},
        resolution=25,
        regions={BAD: [Region("chr21", 0, 46_709_983)], "a-b": [Region("chr1", 1_000, 2_500), Region("chr21", 0, 75)]},
        interval=0.9,
        experiments=[
            {"biosample": BAD, "assay": "H3K4me3", "observed": True, "covariates": measured, "asked": ASKED},
            {"biosample": "a-b", "assay": "CTCF", "observed": False, "covariates": None, "asked": ASKED},
        ],
        inputs=[{"name": "a.bam", "size": 3, "mtime": 5}],
        notes=["read length of <x> & y is outside of the model's"],
    )


@pytest.fixture
def without_genome(delivery) -> Delivery:
    return replace(delivery, genome=None)
