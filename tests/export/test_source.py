"""Predictions in several files read as in one, against loops over single bins; shards that do not fit are refused."""

import itertools
import pickle
import re
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candi_cli.errors import StoreError
from candi_cli.export import source as source_module
from candi_cli.export.source import Source, joined, lacking, merged, within
from candi_cli.genome import Region

CHROMS = ["chr2", "chr10", "chr1"]
TRACK = ("a", "H3K4me3")
PARAMETERS = ["signal_sd", "peak_logit"]


@st.composite
def regions_in_order(draw: st.DrawFn, *, length: int = 24) -> list[Region]:
    """Draw regions of some chromosomes that do not overlap and may abut."""
    found = []
    for chrom in CHROMS[:2]:
        cuts = sorted(draw(st.sets(st.integers(0, length), max_size=9)))
        found += [Region(chrom, *span) for span in itertools.pairwise(cuts) if draw(st.booleans())]
    return found


def bases(regions: list[Region]) -> list[tuple[str, int]]:
    return [(chrom, base) for chrom, start, end in regions for base in range(start, end)]


@given(regions_in_order())
@example([Region("chr2", 3, 9), Region("chr10", 9, 12), Region("chr10", 12, 20)])
def test_joined_regions_are_the_longest_runs_of_the_same_bases(regions):
    runs: list[list[tuple[str, int]]] = []
    for chrom, base in bases(regions):
        if runs and runs[-1][-1] == (chrom, base - 1):
            runs[-1].append((chrom, base))
        else:
            runs.append([(chrom, base)])
    assert joined(regions) == [Region(run[0][0], run[0][1], run[-1][1] + 1) for run in runs]


@given(held=regions_in_order(), wanted=regions_in_order())
def test_what_is_lacking_is_every_wanted_base_that_is_not_held(held, wanted):
    expected = [base for base in bases(wanted) if base not in bases(held)]
    for regions in (held, joined(held)):
        assert bases(lacking(regions, wanted)) == expected


@given(found=regions_in_order(), wanted=regions_in_order())
def test_what_lies_within_is_every_held_base_that_is_wanted_with_its_file(found, wanted):
    laid = [(region, Path(str(number))) for number, region in enumerate(found)]
    owner = {base: path for region, path in laid for base in bases([region])}
    expected = [(base, owner[base]) for base in bases(wanted or found) if base in owner]
    assert [(base, path) for region, path in within(laid, wanted) for base in bases([region])] == expected


def laid_over(known, regions: list[Region], owners: list[Path]) -> Source:
    """Return a source of regions of one biosample, each in its file."""
    for path in dict.fromkeys(owners):
        known.write(path, {"a": [region for region, own in zip(regions, owners, strict=True) if own == path]})
    return Source(known.described, {"a": list(zip(regions, owners, strict=True))})


@st.composite
def splits(draw: st.DrawFn) -> list[list[tuple[Region, int]]]:
    """Draw what is predicted of chr2 and chr10 of `known`, cut in several ways: regions and the numbers of files."""
    step, spans = 25, []
    for chrom, n_bins in (("chr2", 40), ("chr10", 20)):
        cuts = sorted(draw(st.sets(st.integers(0, n_bins), min_size=2, max_size=5)))
        spans += [(chrom, *span) for span in itertools.pairwise(cuts) if draw(st.booleans())]
    found = []
    for _ in range(2):
        regions = []
        for chrom, first, last in spans or [("chr2", 3, 30)]:
            inner = draw(st.sets(st.integers(first, last), max_size=4))
            for one, other in itertools.pairwise(sorted({first, last, *inner})):
                regions.append((Region(chrom, one * step, other * step), draw(st.integers(0, 2))))
        found.append(regions)
    return found


@settings(max_examples=20)
@given(several=splits(), block_bins=st.sampled_from([3, 16, 1 << 18]))
def test_blocks_do_not_depend_on_which_file_holds_what(known, tmp_path_factory, several, block_bins):
    folder, found = tmp_path_factory.mktemp("splits"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "BLOCK_BINS", block_bins)
        for number, cut in enumerate(several):
            regions = [region for region, _ in cut]
            owners = [folder / f"{number}.{owner}.h5" for _, owner in cut]
            with laid_over(known, regions, owners) as source:
                blocks = list(source.blocks(*TRACK, PARAMETERS))
                whole = list(source.whole_regions(*TRACK, PARAMETERS))
            assert [region for region, _ in whole] == source.regions("a") == joined(regions)
            for region, values in (*blocks, *whole):
                np.testing.assert_array_equal(values, known.of(*TRACK, PARAMETERS, region))
            assert all(region.end - region.start <= block_bins * 25 for region, _ in blocks)
            assert bases([region for region, _ in blocks]) == bases(regions)
            found.append([region for region, _ in blocks])
    assert found[0] == found[1]


def test_a_source_that_travels_reads_the_same_and_takes_no_open_file_along(known, tmp_path):
    with known.source(tmp_path / "p.h5") as source:
        expected = source.read(*TRACK, PARAMETERS, Region("chr10", 50, 500))
        packed = pickle.dumps(source)
    with pickle.loads(packed) as other:
        assert (other.described, other.laid) == (source.described, source.laid)
        np.testing.assert_array_equal(other.read(*TRACK, PARAMETERS, Region("chr10", 50, 500)), expected)
    np.testing.assert_array_equal(expected, known.of(*TRACK, PARAMETERS, Region("chr10", 50, 500)))


def test_more_files_than_may_be_open_are_read_in_any_order(known, tmp_path, rng):
    regions = [Region("chr2", 25 * bin_, 25 * bin_ + 25) for bin_ in range(40)]
    paths = [tmp_path / f"{number}.h5" for number in range(40)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with laid_over(known, regions, paths) as source:
        used = {int(path.name) for path in Path("/dev/fd").iterdir()}
        free = (number for number in itertools.count() if number not in used)
        limit = next(itertools.islice(free, 30, None))  # room for 30 files more
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            for number in (*range(40), *rng.integers(0, 40, 60).tolist(), *range(39, -1, -1)):
                found = source.read(*TRACK, PARAMETERS, regions[number])
                np.testing.assert_array_equal(found, known.of(*TRACK, PARAMETERS, regions[number]))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_biosample_without_predictions_has_no_block(known, tmp_path):
    with known.source(tmp_path / "p.h5") as source:
        assert source.regions("none") == []
        assert list(source.blocks("none", "x", PARAMETERS)) == []


def test_a_file_that_is_still_being_made_is_waited_for(known, tmp_path):
    region, path = Region("chr10", 0, 5_000), tmp_path / "p.h5"
    known.write(tmp_path / "made", {"a": [region]})
    later = threading.Timer(0.3, lambda: (tmp_path / "made").rename(path))
    later.start()
    with Source(known.described, {"a": [(region, path)]}, abandoned=tmp_path / "abandoned") as source:
        (block,) = source.blocks(*TRACK, PARAMETERS)
    later.join()
    np.testing.assert_array_equal(block[1], known.of(*TRACK, PARAMETERS, region))


def test_waiting_ends_when_the_file_will_not_be_made(known, tmp_path):
    source = Source(
        known.described, {"a": [(Region("chr10", 0, 50), tmp_path / "p.h5")]}, abandoned=tmp_path / "abandoned"
    )
    later, began = threading.Timer(0.3, source.abandon), time.monotonic()
    later.start()
    with source, pytest.raises(StoreError, match=rf"^{re.escape(str(tmp_path / 'p.h5'))}: will not be made; "):
        list(source.blocks(*TRACK, PARAMETERS))
    assert 0.25 < time.monotonic() - began < 5
    later.join()


HALVES = (
    {"a": [Region("chr2", 0, 7_500), Region("chr10", 0, 5_000)], "b": [Region("chr2", 5_000, 10_000)]},
    {
        "a": [Region("chr2", 7_500, 20_010), Region("chr1", 0, 260)],
        "b": [Region("chr2", 10_000, 20_010), Region("chr1", 100, 260)],
    },
)


@pytest.fixture
def shards(known, tmp_path) -> list[Path]:
    return [known.write(tmp_path / f"{number}.h5", regions) for number, regions in enumerate(HALVES)]


def test_shards_in_any_order_are_one_source_of_all_that_is_wanted(known, shards):
    for paths in itertools.permutations(shards):
        with merged(paths, []) as source:
            for name, wanted in known.described.wanted.items():
                assert source.regions(name) == wanted
                assay = known.described.assays(name)[0]
                for region, values in source.whole_regions(name, assay, ["peak_logit"]):
                    np.testing.assert_array_equal(values, known.of(name, assay, ["peak_logit"], region))
            assert source.described == known.described


def test_of_shards_only_what_is_wanted_is_merged_whatever_else_they_hold_or_lack(known, shards):
    wanted = [Region("chr2", 5_000, 7_600), Region("chr2", 10_000, 10_025)]
    with merged(shards, wanted) as source:
        for name in ("a", "b"):
            assert source.regions(name) == wanted
            for region, values in source.whole_regions(name, "H3K4me3", PARAMETERS):
                np.testing.assert_array_equal(values, known.of(name, "H3K4me3", PARAMETERS, region))
    with merged(shards[:1], [Region("chr2", 5_000, 7_500)]) as source:
        assert source.regions("b") == [Region("chr2", 5_000, 7_500)]


def refusal(paths: list[Path], wanted: list[Region] | None = None) -> str:
    with pytest.raises(StoreError, match="; ") as caught:
        merged(paths, wanted or [])
    assert "\n" not in str(caught.value)
    assert "None" not in str(caught.value)
    return str(caught.value)


def test_shards_that_overlap_are_refused_with_both_and_the_place(known, shards, tmp_path):
    third = known.write(tmp_path / "2.h5", {"a": [Region("chr2", 7_000, 8_000)]})
    told = refusal([*shards, third])
    assert told == f"{third}: overlaps {shards[0]} at chr2:7,001-7,500; give each part of the genome once"
    assert refusal([shards[0], shards[0]]) == (
        f"{shards[0]}: overlaps {shards[0]} at chr2:1-7,500; give each part of the genome once"
    )


def test_a_gap_is_refused_with_its_place(known, shards, tmp_path):
    assert refusal(shards[:1]) == (
        f"{shards[0]}: nothing of a at chr2:7,501-20,010, chr1:1-260; "
        "give the shards that hold it, or -r for what is to be merged"
    )
    holes = [Region("chr2", start, start + 1_000) for start in range(0, 20_000, 2_000)]
    path = known.write(tmp_path / "holes.h5", {"a": holes})
    assert "at chr2:1,001-2,000, chr2:3,001-4,000, chr2:5,001-6,000 and 9 more; " in refusal([path])
    assert "nothing of b at chr10:1-25; " in refusal(shards, [Region("chr10", 0, 25)])


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ("model", "was made by another model (sha256 cdcdcdcdcdcd) than"),
        ("chromsizes", "is of another genome or resolution than"),
        ("assays", "holds other biosamples or assays than"),
        ("asked", "is of other reads, covariates or requests than"),
        ("covariates", "is of other reads, covariates or requests than"),
        ("wanted", "is of other reads, covariates or requests than"),
    ],
)
def test_shards_that_are_not_of_one_prediction_are_refused_by_what_differs(known, shards, tmp_path, changed, fact):
    described, key = known.described, ("a", "CTCF")
    other = {
        "model": lambda: replace(described, model={"family": "candi", "sha256": "cd" * 32}),
        "chromsizes": lambda: replace(described, chromsizes={**described.chromsizes, "chrX": 9}),
        "assays": lambda: described.only([key, ("b", "H3K4me3")]),
        "wanted": lambda: replace(described, wanted={"b": described.wanted["b"]}),
    }.get(changed, lambda: replace(described, tracks=described.tracks | {key: described.tracks[key] | {changed: {}}}))()
    path = known.write(tmp_path / "other.h5", {"b": HALVES[1]["b"]}, other)
    told = refusal([shards[0], path])
    assert told.startswith(f"{path}: {fact} {shards[0]}")
    assert told.endswith("; merge shards of one prediction only")


def test_a_shard_that_is_no_file_of_predictions_is_named(shards, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"text")
    with pytest.raises(StoreError, match=rf"^{re.escape(str(tmp_path / 'x.h5'))}: not a file of predictions"):
        merged([shards[0], tmp_path / "x.h5"], [])
