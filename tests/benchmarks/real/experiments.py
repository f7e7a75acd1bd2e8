"""Halves of real experiments: what is denoised, and the independent reads that say how well (rows R2 and R3)."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fragments import RESOLUTION, Fragments, read_fragments
from numpy.typing import NDArray

K562_MARKS, IMR90_MARKS = ("H3K4me3", "H3K36me3", "H3K27me3"), ("H3K4me3", "H3K36me3", "H3K9me3")
DSFS = (2, 4, 8)  # downsampling factors of IMR90's inputs


class Place(NamedTuple):
    """Where an experiment lies, in bp: what may be learned from, and what is scored, in blocks for errors."""

    chrom: str
    train: tuple[int, int]
    test: tuple[int, int]
    block_bp: int

    @property
    def span(self) -> tuple[int, int]:
        """Both together."""
        return min(self.train[0], self.test[0]), max(self.train[1], self.test[1])

    def inside(self, part: tuple[int, int]) -> NDArray[np.bool_]:
        """Return which bins of the span lie in a part of it: shape (L,)."""
        start = np.arange(self.span[0], self.span[1], RESOLUTION)
        return (start >= part[0]) & (start + RESOLUTION <= part[1])

    def blocks(self) -> NDArray[np.int64]:
        """Return the number of the block of each scored bin, from 0 on."""
        return np.arange(0, self.test[1] - self.test[0], RESOLUTION) // self.block_bp


K562 = Place("chr1", (22_500_000, 24_100_000), (24_100_000, 24_500_000), 20_000)
IMR90 = Place("chr21", (43_000_000, 48_100_000), (40_000_000, 42_960_000), 100_000)


class Experiment(NamedTuple):
    """Reads to denoise and independent ones.

    Attributes
    ----------
    group : of the table, such as `H3K4me3` or `H3K4me3 DSF 4`
    split : the seed that halves were drawn by; `-` where they came as files
    control : fragments of the input control; None without one
    """

    biosample: str
    assay: str
    group: str
    place: Place
    split: str
    source: Fragments
    truth: Fragments
    control: Fragments | None

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.biosample}.{self.group.replace(' ', '_')}.split{self.split}".replace("split-", "given")


@cache
def _read(path: Path, chrom: str) -> Fragments:
    return read_fragments(path, chrom).unique()


def k562(data: Path, seeds: int) -> Iterator[Experiment]:
    """Yield the halves of K562: dsf2 and what else is in dsf1, or random halves of dsf1 where there is no dsf2."""
    folder = data / "K562_ChIP_hg19"
    control = _read(folder / "dsf2" / "K562_Input.bam", K562.chrom)
    for mark in K562_MARKS:
        whole, half = _read(folder / "dsf1" / f"K562_{mark}.bam", K562.chrom), folder / "dsf2" / f"K562_{mark}.bam"
        if half.exists():
            source = _read(half, K562.chrom)
            yield Experiment("K562", mark, mark, K562, "-", source, whole.without(source), control)
            continue
        for seed in range(seeds):
            source, truth = whole.split((0.5, 0.5), seed)
            yield Experiment("K562", mark, mark, K562, str(seed), source, truth, control)


def imr90(data: Path, seeds: int) -> Iterator[Experiment]:
    """Yield random halves of IMR90, and quarters and eighths of the same halves, with one truth."""
    for mark in IMR90_MARKS:
        whole = _read(data / "IMR90_ChIP_hg19_chr21" / f"{mark}.bam", IMR90.chrom)
        for seed in range(seeds):
            truth, *parts = whole.split((0.5, 0.125, 0.125, 0.25), seed)
            for dsf, n_parts in zip(DSFS, (3, 2, 1), strict=True):
                chosen = [
                    np.concatenate(columns) for columns in zip(*(part[:3] for part in parts[:n_parts]), strict=True)
                ]
                source = Fragments(*chosen, whole.read_length)
                yield Experiment("IMR90", mark, f"{mark} DSF {dsf}", IMR90, str(seed), source, truth, None)
