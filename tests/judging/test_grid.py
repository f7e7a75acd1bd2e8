"""The grid of judged bins, against loops over single bins."""

import numpy as np
import pytest

from candi_cli.genome import Region
from candi_cli.judging.grid import BLOCKS_BP, Grid, common_regions

SIZES = {"chrA": 100_010, "chrB": 60_000}
REGIONS = [Region("chrA", 0, 1_000), Region("chrA", 2_500, 100_010), Region("chrB", 50, 60_000)]


def bins_of(grid: Grid) -> list[tuple[str, int]]:
    """Return chromosome and number of each bin, by a loop over base pairs."""
    return [
        (region.chrom, start // grid.resolution)
        for region in grid.regions
        for start in range(region.start, region.end, grid.resolution)
    ]


def random_intervals(rng: np.random.Generator, n: int = 60) -> dict[str, np.ndarray]:
    found = {}
    for chrom, length in SIZES.items():
        start = rng.integers(0, length - 1, n)
        end = np.minimum(start + rng.integers(1, 400, n), length)
        found[chrom] = np.stack([start, end], axis=1)
    return found


def test_bins_lie_one_after_the_other_and_the_last_short_one_is_there():
    grid = Grid(REGIONS, 25)
    bins = bins_of(grid)
    assert grid.n_bins == len(bins)
    assert bins[-2_398] == ("chrB", 2)  # chrB from its third bin on
    assert ("chrA", 4_000) in bins  # the bin of 10 bp
    for stretch in grid.stretches:
        inside = bins[stretch.place]
        assert inside[0] == (stretch.region.chrom, stretch.first)
        assert inside[-1] == (stretch.region.chrom, stretch.last - 1)
    assert grid.edges.tolist() == [0, 40, 40 + 3_901, len(bins)]
    assert grid.chroms == ["chrA", "chrB"]
    assert grid.chrom_of("chrB").tolist() == [chrom == "chrB" for chrom, _ in bins]


def test_bins_within_intervals_are_those_that_share_a_base_pair(rng: np.random.Generator):
    grid = Grid(REGIONS, 25)
    intervals = random_intervals(rng) | {"chrC": np.array([[0, 100]])}
    expected = [
        any(start < 25 * (number + 1) and end > 25 * number for start, end in intervals[chrom].tolist())
        for chrom, number in bins_of(grid)
    ]
    assert 0.1 < np.mean(expected) < 0.99
    assert grid.within(intervals).tolist() == expected
    assert not grid.within({}).any()


def test_ranges_are_the_bins_of_each_interval_in_each_stretch(rng: np.random.Generator):
    grid = Grid(REGIONS, 25)
    intervals = random_intervals(rng)
    intervals["chrA"] = np.concatenate([intervals["chrA"], [[900, 2_600], [0, 100_010]]])
    place = {each: at for at, each in enumerate(bins_of(grid))}
    expected = []
    for chrom, spans in intervals.items():
        for start, end in spans.tolist():
            touched = [place[chrom, n] for n in range(start // 25, -(-end // 25)) if (chrom, n) in place]
            for region in [each for each in grid.stretches if each.region.chrom == chrom]:
                here = [at for at in touched if region.place.start <= at < region.place.stop]
                if here:
                    expected.append((min(here), max(here) + 1))
    assert sorted(map(tuple, grid.ranges(intervals).tolist())) == sorted(expected)


@pytest.mark.parametrize("most_bins", [1, 7, 40, 10_000])
def test_pieces_make_up_the_grid(most_bins: int):
    grid = Grid(REGIONS, 25)
    covered = np.zeros(grid.n_bins, dtype=int)
    bins = bins_of(grid)
    for piece in grid.pieces(most_bins):
        assert piece.last - piece.first <= most_bins
        covered[piece.place] += 1
        assert bins[piece.at] == (piece.region.chrom, piece.first)
        assert piece.region.start == 25 * piece.first
        assert piece.region.end == min(25 * piece.last, SIZES[piece.region.chrom])
    assert (covered == 1).all()


@pytest.mark.parametrize("resolution", [25, 100])
def test_blocks_are_stretches_of_the_genome_wherever_regions_begin(resolution: int):
    grid = Grid([Region("chrA", 0, 1_000), Region("chrA", 30_000, 100_010), Region("chrB", 1_000, 60_000)], resolution)
    assert grid.block_bp == BLOCKS_BP[-1]
    labels = [(chrom, number * resolution // grid.block_bp) for chrom, number in bins_of(grid)]
    numbers = {label: at for at, label in enumerate(dict.fromkeys(labels))}
    assert grid.blocks.tolist() == [numbers[label] for label in labels]
    assert (np.diff(grid.blocks) >= 0).all()


@pytest.mark.parametrize(("length", "block_bp"), [(15_999_975, 250_000), (16_000_000, 1_000_000), (4_000_000, 250_000)])
def test_blocks_are_the_widest_of_which_there_are_sixteen(length: int, block_bp: int):
    assert Grid([Region("chrA", 0, length)], 25).block_bp == block_bp


def test_a_grid_without_regions_has_no_bins():
    grid = Grid([], 25)
    assert (grid.n_bins, grid.chroms, grid.edges.tolist(), len(grid.blocks)) == (0, [], [0], 0)
    assert not len(grid.within({"chrA": np.array([[0, 10]])}))


def test_common_regions_are_the_base_pairs_of_both():
    one = [Region("chrB", 0, 500), Region("chrA", 100, 1_000), Region("chrA", 2_000, 3_000)]
    other = [Region("chrA", 500, 2_500), Region("chrB", 250, 60_000), Region("chrA", 2_900, 3_100)]

    def pairs(regions: list[Region]) -> set[tuple[str, int]]:
        return {(region.chrom, at) for region in regions for at in range(region.start, region.end)}

    found = common_regions(one, other, SIZES)
    assert pairs(found) == pairs(one) & pairs(other)
    assert found == sorted(found)
    assert len(found) == 4
