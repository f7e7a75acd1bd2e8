"""Training loci against a test of every start, base by base."""

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from candi_cli.genome import Region
from candi_cli.loci import (
    Loci,
    allowed_bins,
    any_start,
    apart,
    around_elements,
    find_loci,
    merged,
    tiled,
    within,
    without,
)

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


# ---- strategies, each against windows that are looked at base by base

GENOME = {"chr1": 9_010, "chr2": 6_000, "chr3": 700}
CONTEXT, RESOLUTION = 12, 25


@pytest.fixture
def allowed() -> dict[str, np.ndarray]:
    return allowed_bins(
        GENOME, resolution=RESOLUTION, regions=[Region("chr1", 0, 9_010), Region("chr2", 500, 6_000)],
        covered={chrom: np.array([[0, length]]) for chrom, length in GENOME.items()},
        blacklist={"chr1": np.array([[3_010, 3_020], [5_000, 5_700]])}, test_chroms=["chr3"],
    )  # fmt: skip


def elements(rng) -> dict[str, np.ndarray]:
    found = {}
    for chrom, length in GENOME.items():
        start = rng.integers(0, length - 1, 60)
        spans = np.stack([start, np.minimum(start + rng.integers(1, 500, 60), length)], axis=1)
        found[chrom] = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    return found


def strategies(allowed, rng) -> dict[str, Loci]:
    return {
        "any": any_start(allowed, CONTEXT),
        "ccre": around_elements(allowed, CONTEXT, elements(rng), resolution=RESOLUTION),
        "random": apart(allowed, CONTEXT, 15, seed=1),
        "tiled": tiled(allowed, CONTEXT),
    }


@pytest.mark.parametrize("name", ["any", "ccre", "random", "tiled"])
def test_no_window_of_any_strategy_touches_the_blacklist_or_a_test_chromosome(allowed, rng, name):
    loci = strategies(allowed, rng)[name]
    windows = starts_of(loci)
    assert windows
    assert {loci.draw(rng)[0] for _ in range(200)} == {"chr1", "chr2"}
    for chrom, start in windows:
        first, last = start * RESOLUTION, (start + CONTEXT) * RESOLUTION
        assert chrom != "chr3"
        assert last <= GENOME[chrom]
        assert chrom != "chr2" or first >= 500
        assert chrom != "chr1" or not any(
            first < end and begin < last for begin, end in [(3_010, 3_020), (5_000, 5_700)]
        )


def test_windows_around_elements_are_all_the_allowed_windows_that_hold_one(allowed, rng):
    bed = elements(rng)
    found = around_elements(allowed, CONTEXT, bed, resolution=RESOLUTION)
    everywhere, expected = set(starts_of(any_start(allowed, CONTEXT))), []
    for chrom, spans in bed.items():
        for start, end in spans.tolist():
            first, last = start // RESOLUTION, -(-end // RESOLUTION)
            if last - first > CONTEXT:
                first, last = (first + last) // 2, (first + last) // 2 + 1
            places = [at for at in range(last - CONTEXT, first + 1) if (chrom, at) in everywhere]
            if places:
                expected.append((chrom, places[0], places[-1] + 1))
                assert len(places) == places[-1] - places[0] + 1
    runs = [(chrom, *run) for chrom, rows in found.starts.items() for run in rows.tolist()]
    assert sorted(runs) == sorted(expected)


def test_elements_are_drawn_alike_however_many_windows_hold_them(rng):
    runs = {"chr1": np.array([[0, 1], [10, 40]]), "chr2": np.array([[5, 7]])}
    drawn = Counter(Loci(runs, runs_alike=True).draw(rng) for _ in range(9_000))
    shares = [drawn["chr1", 0], sum(n for (chrom, at), n in drawn.items() if chrom == "chr1" and at),
              drawn["chr2", 5] + drawn["chr2", 6]]  # fmt: skip
    assert chisquare(shares).pvalue > 1e-3
    assert len(drawn) == 33


@pytest.mark.parametrize("n_windows", [1, 7, 20, 10_000])
def test_random_windows_never_overlap_and_are_as_many_as_asked_for_or_as_there_is_room_for(allowed, n_windows):
    room = sum(int((run[1] - run[0]) // CONTEXT) for runs in allowed.values() for run in runs)
    for seed in range(20):
        windows = sorted(starts_of(apart(allowed, CONTEXT, n_windows, seed=seed)))
        assert len(windows) == min(n_windows, room)
        for one, other in itertools.pairwise(windows):
            assert one[0] != other[0] or other[1] - one[1] >= CONTEXT
        assert windows == sorted(starts_of(apart(dict(reversed(allowed.items())), CONTEXT, n_windows, seed=seed)))
    assert n_windows > room or windows != sorted(starts_of(apart(allowed, CONTEXT, n_windows, seed=99)))


def test_every_way_to_place_random_windows_is_equally_likely():
    runs = {"chr1": np.array([[0, 7]])}
    drawn = Counter(tuple(starts_of(apart(runs, 2, 2, seed=seed))) for seed in range(3_000))
    assert len(drawn) == 10  # of 2 windows of 2 bins in 7: 5 choose 2
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_tiles_hold_every_bin_that_any_window_can_hold_the_tail_included(allowed):
    found = tiled(allowed, CONTEXT)
    tiles = starts_of(found)
    held = {(chrom, number) for chrom, start in tiles for number in range(start, start + CONTEXT)}
    windows = starts_of(any_start(allowed, CONTEXT))
    assert held == {(chrom, number) for chrom, start in windows for number in range(start, start + CONTEXT)}
    assert ("chr1", GENOME["chr1"] // RESOLUTION - CONTEXT) in tiles
    assert len(tiles) == sum(
        -(-int(b - a) // CONTEXT) for runs in allowed.values() for a, b in runs if b - a >= CONTEXT
    )


def test_what_is_left_of_windows_for_a_biosample_is_what_it_allows(allowed, rng):
    drawn = apart(allowed, CONTEXT, 30, seed=2)
    narrower = {"chr1": np.array([[0, 100], [130, 300]]), "chr2": np.zeros((0, 2), dtype=np.int64)}
    inside = set(starts_of(any_start(narrower, CONTEXT)))
    assert starts_of(within(drawn, narrower, CONTEXT)) == [window for window in starts_of(drawn) if window in inside]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8),
       st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8), st.integers(0, 3))  # fmt: skip
def test_intervals_are_joined_and_taken_away_as_sets_of_numbers_are(one, other, gap):
    def intervals(pairs):
        return np.array([(start, start + length) for start, length in pairs], dtype=np.int64).reshape(-1, 2)

    def numbers(rows):
        return {number for start, end in rows.tolist() for number in range(start, end)}

    joined = merged(intervals(one))
    assert numbers(joined) == numbers(intervals(one))
    assert (joined[1:, 0] > joined[:-1, 1]).all()
    closed = merged(intervals(one), gap=gap)
    assert (closed[1:, 0] > closed[:-1, 1] + gap).all()
    assert numbers(joined) <= numbers(closed)
    assert numbers(without(joined, intervals(other))) == numbers(joined) - numbers(intervals(other))


def test_a_million_elements_of_a_whole_genome_take_a_second_or_two(rng):
    sizes = {f"chr{number}": 130_000_000 for number in range(1, 25)}
    bed, blacklist = {}, {}
    for chrom, length in sizes.items():
        start = np.sort(rng.integers(0, length - 400, 42_000))
        bed[chrom] = np.stack([start, start + 300], axis=1)
        blacklist[chrom] = bed[chrom][::1_500]
    began = time.process_time()
    everything = allowed_bins(
        sizes, resolution=25, regions=[], covered={chrom: np.array([[10_000, n]]) for chrom, n in sizes.items()},
        blacklist=blacklist,
    )  # fmt: skip
    loci = around_elements(everything, 1_200, bed, resolution=25)
    assert sum(len(runs) for runs in loci.starts.values()) > 900_000
    assert len(starts_of(apart(everything, 1_200, 5_000, seed=0))) == 5_000
    assert sum(len(runs) for runs in tiled(everything, 1_200).starts.values()) > 100_000
    assert time.process_time() - began < 8
