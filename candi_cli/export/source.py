"""Predictions that lie in several files, as one: the parts of a run, or the shards of several machines."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import StoreError
from candi_cli.genome import Region
from candi_cli.store.predictions import Described, Predictions

BLOCK_BINS = 1 << 18
_PATIENCE_S = 0.1
_MOST_OPEN = 16  # files; a run has one for each contig
Laid = dict[str, list[tuple[Region, Path]]]  # for each biosample, which file holds which region, in genome order


class Source:
    """Predictions in one or several files; use it as a context manager. It travels to other processes.

    Parameters
    ----------
    described : what all files hold
    laid : which file holds what; a file that is not there yet is waited for
    abandoned : when this file appears, waiting is over
    """

    def __init__(
        self,
        described: Described,
        laid: Mapping[str, Sequence[tuple[Region, Path]]],
        *,
        abandoned: Path | None = None,
    ) -> None:
        self.described, self._abandoned = described, abandoned
        self.laid: Laid = {name: list(found) for name, found in laid.items()}
        self._on_chrom: dict[tuple[str, str], list[tuple[Region, Path]]] = {}
        for name, found in self.laid.items():
            for region, path in found:
                self._on_chrom.setdefault((name, region.chrom), []).append((region, path))
        self._files = dict[Path, Predictions]()  # that are open, the one that was read last at the end

    def __getstate__(self) -> dict[str, Any]:
        return {"described": self.described, "laid": self.laid, "abandoned": self._abandoned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def abandon(self) -> None:
        """Tell whoever waits for a file that it will not be made."""
        if self._abandoned is not None:
            self._abandoned.touch()

    def regions(self, biosample: str) -> list[Region]:
        """Return what is predicted of a biosample in genome order, regions that abut as one."""
        return joined([region for region, _ in self.laid.get(biosample, ())])

    def blocks(
        self, biosample: str, assay: str, parameters: Sequence[str]
    ) -> Iterator[tuple[Region, NDArray[np.float32]]]:
        """Yield all that is predicted in genome order: regions of at most `BLOCK_BINS` bins, and values (P, n_bins).

        Where blocks begin does not depend on which file holds what.
        """
        resolution = self.described.resolution
        for chrom, start, end in self.regions(biosample):
            for first in range(start, end, BLOCK_BINS * resolution):
                block = Region(chrom, first, min(first + BLOCK_BINS * resolution, end))
                yield block, self.read(biosample, assay, parameters, block)

    def whole_regions(
        self, biosample: str, assay: str, parameters: Sequence[str]
    ) -> Iterator[tuple[Region, NDArray[np.float32]]]:
        """Yield all that is predicted in genome order, each region as one: values (P, n_bins)."""
        for region in self.regions(biosample):
            yield region, self.read(biosample, assay, parameters, region)

    def read(self, biosample: str, assay: str, parameters: Sequence[str], block: Region) -> NDArray[np.float32]:
        """Return the values of a region that is predicted: (P, n_bins)."""
        pieces, resolution = [], self.described.resolution
        for region, path in self._on_chrom[biosample, block.chrom]:
            start, end = max(region.start, block.start), min(region.end, block.end)
            if start < end:
                bins = (start // resolution, -(-end // resolution))
                pieces.append(self._file(path).read(biosample, assay, parameters, block.chrom, *bins))
        return np.concatenate(pieces, axis=1)

    def _file(self, path: Path) -> Predictions:
        file = self._files.pop(path, None)
        if file is None:
            while not path.exists():
                if self._abandoned is not None and self._abandoned.exists():
                    raise StoreError(f"{path}: will not be made; see the error before")
                time.sleep(_PATIENCE_S)
            file = Predictions(path)
        self._files[path] = file
        if len(self._files) > _MOST_OPEN:
            self._files.pop(next(iter(self._files))).close()
        return file


def joined(regions: Sequence[Region]) -> list[Region]:
    """Return regions in order, those that abut as one."""
    found: list[Region] = []
    for region in regions:
        if found and (found[-1].chrom, found[-1].end) == (region.chrom, region.start):
            found[-1] = found[-1]._replace(end=region.end)
        else:
            found.append(region)
    return found


def merged(paths: Sequence[Path], wanted: Sequence[Region]) -> Source:
    """Return the shards of one prediction as one source.

    Parameters
    ----------
    wanted : what the shards together must hold; without, all that a run over everything predicts

    Raises
    ------
    StoreError
        The shards are of different models, requests or inputs, overlap, or leave a gap.
    """
    described: Described | None = None
    laid: Laid = {}
    for path in paths:
        with Predictions(path) as shard:
            if described is None:
                described = shard.described
                laid = {name: [] for name in described.biosamples}
            _check_alike(described, shard.described, paths[0], path)
            for name in laid:
                laid[name] += [(region, path) for region in shard.regions(name)]
    assert described is not None
    order = {chrom: number for number, chrom in enumerate(described.chromsizes)}
    for name, found in laid.items():
        found.sort(key=lambda each: (order[each[0].chrom], each[0].start))
        for (one, first), (other, second) in pairwise(found):
            if one.chrom == other.chrom and other.start < one.end:
                where = f"{one.chrom}:{other.start + 1:,}-{min(one.end, other.end):,}"
                raise StoreError(f"{second}: overlaps {first} at {where}; give each part of the genome once")
        held = joined([region for region, _ in found])
        missing = lacking(held, wanted or described.wanted.get(name, ()))
        if missing:
            gaps = ", ".join(f"{gap.chrom}:{gap.start + 1:,}-{gap.end:,}" for gap in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise StoreError(
                f"{paths[0]}{others}: nothing of {name} at {gaps}{more}; "
                "give the shards that hold it, or -r for what is to be merged"
            )
    return Source(described, {name: within(found, wanted) for name, found in laid.items()})


def _check_alike(one: Described, other: Described, first: Path, second: Path) -> None:
    if one.to_json() == other.to_json():
        return
    if one.model != other.model:
        made_by = [described.model.get("sha256", "")[:12] for described in (other, one)]
        fact = f"was made by another model (sha256 {made_by[0]}) than {first} ({made_by[1]})"
    elif one.chromsizes != other.chromsizes or one.resolution != other.resolution:
        fact = f"is of another genome or resolution than {first}"
    elif list(one.tracks) != list(other.tracks):
        fact = f"holds other biosamples or assays than {first}"
    else:
        fact = f"is of other reads, covariates or requests than {first}"
    raise StoreError(f"{second}: {fact}; merge shards of one prediction only")


def lacking(held: Sequence[Region], wanted: Sequence[Region]) -> list[Region]:
    """Return what of some regions is not held; both in order."""
    gaps = []
    for chrom, start, end in wanted:
        at = start
        for region in held:
            if region.chrom == chrom and region.end > at and region.start < end:
                if region.start > at:
                    gaps.append(Region(chrom, at, region.start))
                at = region.end
        if at < end:
            gaps.append(Region(chrom, at, end))
    return gaps


def within(found: Sequence[tuple[Region, Path]], wanted: Sequence[Region]) -> list[tuple[Region, Path]]:
    """Return what lies in wanted regions, cut to them; everything when none is wanted."""
    if not wanted:
        return list(found)
    return [
        (Region(chrom, max(start, region.start), min(end, region.end)), path)
        for chrom, start, end in wanted
        for region, path in found
        if region.chrom == chrom and max(start, region.start) < min(end, region.end)
    ]
