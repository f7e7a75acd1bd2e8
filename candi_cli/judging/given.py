"""Predictions of any program as plain tracks: a mean, a spread and what was observed, as bigWigs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from candi_cli.errors import TrackError
from candi_cli.genome import Chromsizes, Region, parse_regions
from candi_cli.io.bigwig import read_chroms, read_means
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import GIVEN, JudgedTrack

_LEAST_EXCESS = 1e-6  # of a variance over the mean, relative to the mean: below, counts are as good as Poisson
_LARGEST_LOG = 16.0  # of means and dispersions, to either side
_LARGEST_MEAN = float(np.exp(_LARGEST_LOG))  # reads per bin
_LEAST_MEAN = 1e-6  # reads per bin; a mean of 0 would make any read impossible


@dataclass(frozen=True)
class GivenTracks:
    """The files of one predicted track.

    Attributes
    ----------
    kind : `signal`, a Gaussian around the mean; `counts`, the negative binomial of that mean and sd
    arcsinh : the Gaussian is over arcsinh of the values of the tracks; `sd`, when it is given, is in that unit
    lower, upper : bounds of the central interval of level `interval`; what the sd is taken from where there is none
    """

    mean: Path
    observed: Path
    sd: Path | None = None
    lower: Path | None = None
    upper: Path | None = None
    interval: float | None = None
    kind: str = "signal"
    arcsinh: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """The files by what they hold."""
        named = {"mean": self.mean, "observed": self.observed, "sd": self.sd, "lower": self.lower, "upper": self.upper}
        return {name: path for name, path in named.items() if path is not None}


class Given:
    """Given tracks on common bins.

    Parameters
    ----------
    regions : to be judged, as text; where there are none, all chromosomes that the tracks share

    Raises
    ------
    TrackError
        A file is no bigWig, or the tracks differ in the lengths of chromosomes, share none, or hold nothing there.
    """

    def __init__(self, tracks: GivenTracks, regions: Sequence[str], *, resolution: int) -> None:
        self.tracks, self.resolution = tracks, resolution
        self.chromsizes = common_chromosomes(list(tracks.files.values()))
        wanted = parse_regions(regions, self.chromsizes, resolution)
        self.regions = wanted or [Region(chrom, 0, length) for chrom, length in self.chromsizes.items()]

    def read(self) -> JudgedTrack:
        """Return the track beside what was observed; bins that one of the files does not cover are NaN.

        Raises
        ------
        TrackError
            A standard deviation is negative, bounds are in the wrong order, or nothing is covered by all files.
        """
        grid = Grid(self.regions, self.resolution)
        values = {name: self._values(path, grid) for name, path in self.tracks.files.items()}
        if not np.isfinite(np.stack(list(values.values()))).all(axis=0).any():
            names = ", ".join(str(path) for path in self.tracks.files.values())
            raise TrackError(f"{names}: no bin is covered by all of them; give tracks of the same regions, or other -r")
        scaled = {name: self._scaled(name, each) for name, each in values.items()}
        sd = self._sd(scaled, grid)
        observed, mean = scaled["observed"], scaled["mean"]
        if self.tracks.kind == "counts":
            self._refuse(grid, observed < 0, "observed", "is negative, which counts are not; give --track signal")
            whole = (observed == np.round(observed)) | np.isnan(observed)
            self._refuse(grid, ~whole, "observed", "is no whole number; give --track signal")
            self._refuse(grid, mean < 0, "mean", "is negative, which expected reads are not; give --track signal")
            self._refuse(grid, mean > _LARGEST_MEAN, "mean", "is more than any count of reads; give --track signal")
            parameters = negative_binomial_of(mean, sd)
        else:
            parameters = np.stack([mean, sd])
        name = self.tracks.observed.stem
        return JudgedTrack(
            GIVEN, name, GIVEN, self.tracks.kind, grid, observed.astype(np.float32), parameters.astype(np.float32)
        )

    def _scaled(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arcsinh(values) if self.tracks.arcsinh and name != "sd" else values

    def _values(self, path: Path, grid: Grid) -> NDArray[np.float64]:
        values = np.full(grid.n_bins, np.nan)
        for chrom in grid.chroms:
            means, covered = read_means(path, chrom, self.chromsizes[chrom], self.resolution)
            track = np.where(covered, means, np.nan)
            for region, first, last, at in grid.stretches:
                if region.chrom == chrom:
                    values[at : at + last - first] = track[first:last]
        return values

    def _sd(self, values: Mapping[str, NDArray[np.float64]], grid: Grid) -> NDArray[np.float64]:
        lower, upper = values.get("lower"), values.get("upper")
        if lower is not None and upper is not None:
            self._refuse(grid, lower > upper, "lower", "is above the upper bound; were --lower and --upper swapped?")
        if "sd" in values:
            self._refuse(grid, values["sd"] < 0, "sd", "is negative; give standard deviations")
            self._refuse(grid, values["sd"] == 0, "sd", "is 0, which allows of no error; give a track with a spread")
            return values["sd"]
        if upper is None or self.tracks.interval is None:
            raise TrackError(f"{self.tracks.mean}: has no spread beside it; give --sd, or --lower, --upper, --interval")
        z = float(ndtri((1 + self.tracks.interval) / 2))
        one_sided = self.tracks.arcsinh or lower is None  # a lower bound of -log10 p is cut at 0
        sd = (upper - values["mean"]) / z if one_sided or lower is None else (upper - lower) / (2 * z)
        self._refuse(grid, sd <= 0, "upper", "is not above the mean; give bounds of an interval around it")
        return sd

    def _refuse(self, grid: Grid, wrong: NDArray[np.bool_], name: str, fact: str) -> None:
        """Raise TrackError with the first bin that is wrong."""
        if not wrong.any():
            return
        at = int(np.argmax(wrong))
        stretch = next(each for each in grid.stretches if each.place.start <= at < each.place.stop)
        position = (stretch.first + at - stretch.at) * self.resolution
        raise TrackError(f"{self.tracks.files[name]}: the value at {stretch.region.chrom}:{position + 1:,} {fact}")


def common_chromosomes(paths: Sequence[Path]) -> Chromsizes:
    """Return the chromosomes that all bigWigs have, in the order of the first.

    Raises
    ------
    TrackError
        One has another length in two of them, or they share none.
    """
    sizes = [read_chroms(path) for path in paths]
    first = sizes[0]
    for path, other in zip(paths[1:], sizes[1:], strict=True):
        for chrom in other.keys() & first.keys():
            if other[chrom] != first[chrom]:
                raise TrackError(
                    f"{path}: {chrom} is {other[chrom]:,} bp, but {first[chrom]:,} bp in {paths[0]}; "
                    "give tracks of one genome build"
                )
    shared = {chrom: length for chrom, length in first.items() if all(chrom in other for other in sizes)}
    if not shared:
        raise TrackError(f"{paths[0]}: shares no chromosome with {', '.join(map(str, paths[1:]))}; check their names")
    return shared


def negative_binomial_of(mean: NDArray[np.float64], sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log mean and log dispersion n of the negative binomial with a mean and an sd: shape (2, L).

    n = mean^2 / (sd^2 - mean); where the variance is not above the mean, n is so large that it is a Poisson's.
    """
    mean = np.maximum(mean, _LEAST_MEAN)
    excess = np.maximum(np.square(sd) - mean, _LEAST_EXCESS * mean)
    return np.stack([np.log(mean), np.clip(2 * np.log(mean) - np.log(excess), -_LARGEST_LOG, _LARGEST_LOG)])
