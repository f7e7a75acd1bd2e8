"""Training loci against a test of every start, base by base."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from candi_cli.genome import Region
from candi_cli.loci import Loci, find_loci

SIZES = {"chr1": 610, "chr2": 400, "chr3": 90}
SPANS = st.lists(
    st.tuples(st.sampled_from(sorted(SIZES)), st.integers(0, 600), st.integers(1, 300)).map(
        lambda span: Region(span[0], min(span[1], SIZES[span[0]] - 1), min(span[1] + span[2], SIZES[span[0]]))
    ),
    max_size=3,
)


def as_intervals(spans: list[Region]) -> dict[str, np.ndarray]:
    return {
        chrom: np.array([[s.start, s.end] for s in spans if s.chrom == chrom], dtype=np.int64).reshape(-1, 2)
        for chrom in {span.chrom for span in spans}
    }


def starts_of(loci: Loci) -> list[tuple[str, int]]:
    return [(chrom, start) for chrom, runs in loci.starts.items() for run in runs.tolist() for start in range(*run)]


@settings(deadline=None, max_examples=200)
@given(
    context=st.integers(1, 8),
    resolution=st.sampled_from([10, 25]),
    regions=SPANS,
    uncovered=st.sets(st.integers(0, 8), max_size=2),
    block_bp=st.sampled_from([70, 100, 10_000]),
    blacklist=SPANS,
    test_chroms=st.sets(st.sampled_from(sorted(SIZES))),
    with_data=st.sets(st.sampled_from(sorted(SIZES))),
)
def test_loci_are_all_the_windows_whose_every_base_is_allowed(
    context, resolution, regions, uncovered, block_bp, blacklist, test_chroms, with_data
):
    covered = {}
    for chrom in with_data:
        blocks = np.ones(-(-SIZES[chrom] // block_bp), dtype=bool)
        blocks[[block for block in uncovered if block < len(blocks)]] = False
        covered[chrom] = (blocks, block_bp)
    found = find_loci(
        SIZES,
        resolution=resolution,
        context=context,
        regions=regions,
        covered=covered,
        blacklist=as_intervals(blacklist),
        test_chroms=sorted(test_chroms),
    )

    def bin_is_allowed(chrom: str, number: int) -> bool:
        bases = range(number * resolution, (number + 1) * resolution)
        inside = [r for r in regions if r.chrom == chrom] if regions else [Region(chrom, 0, SIZES[chrom])]
        return (
            any(region.start <= bases[0] and bases[-1] < region.end for region in inside)
            and not any(span.chrom == chrom and span.start <= base < span.end for span in blacklist for base in bases)
            and not any(base // block_bp in uncovered for base in bases)
        )

    expected = []
    for chrom in with_data - test_chroms:
        allowed = [bin_is_allowed(chrom, number) for number in range(SIZES[chrom] // resolution)]
        expected += [
            (chrom, start) for start in range(len(allowed) - context + 1) if all(allowed[start : start + context])
        ]
    assert sorted(starts_of(found)) == sorted(expected)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    "exclusion",
    [
        {"blacklist": {"chr1": np.array([[70, 140]])}},
        {"covered": {"chr1": (np.arange(9) != 1, 70)}},
        {"regions": [Region("chr1", 0, 70), Region("chr1", 140, 610)]},
    ],
    ids=["blacklist", "blocks without reads", "between regions"],
)
def test_a_bin_that_is_excluded_in_part_is_excluded(exclusion):
    everything = {"regions": [], "covered": {"chr1": (np.ones(9, dtype=bool), 70)}, "blacklist": {}}
    found = find_loci(SIZES, resolution=25, context=1, **(everything | exclusion))
    assert [start for _, start in starts_of(found)] == [*range(70 // 25), *range(-(-140 // 25), 610 // 25)]


@pytest.fixture
def loci() -> Loci:
    runs = {"chr1": [[3, 5], [10, 11]], "chr2": [], "chr3": [[0, 4]]}
    return Loci({chrom: np.array(each, dtype=np.int64).reshape(-1, 2) for chrom, each in runs.items()})


def test_each_allowed_start_is_drawn_equally_often(loci, rng):
    drawn = Counter(loci.draw(rng) for _ in range(14_000))
    assert sorted(drawn) == sorted(starts_of(loci))
    assert len(loci) == len(drawn) == 7
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_a_seed_fixes_the_draws(loci):
    one, same, other = (
        [loci.draw(generator) for _ in range(50)] for generator in map(np.random.default_rng, (1, 1, 2))
    )
    assert one == same != other


@pytest.mark.parametrize("starts", [{}, {"chr1": np.zeros((0, 2), dtype=np.int64)}])
def test_where_nothing_is_allowed_there_are_no_loci(starts):
    assert len(Loci(starts)) == 0
    assert starts_of(Loci(starts)) == []


def test_windows_longer_than_a_chromosome_have_no_place_on_it():
    everywhere = {chrom: (np.ones(1, dtype=bool), length) for chrom, length in SIZES.items()}
    found = find_loci(SIZES, resolution=10, context=41, regions=[], covered=everywhere, blacklist={})
    assert starts_of(found) == [("chr1", start) for start in range(61 - 41 + 1)]
