"""Where a cohort's training windows lie, by the strategy that `candi train` was asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.covariates import CONTROL
from candi_cli.errors import GenomeError, RequestError
from candi_cli.genome import Chromsizes, Region, parse_region
from candi_cli.io.bed import read_intervals
from candi_cli.loci import (
    STRATEGIES,
    Covered,
    Loci,
    allowed_bins,
    any_start,
    apart,
    around_elements,
    merged,
    tiled,
    within,
)
from candi_cli.store import Store

Intervals = Mapping[str, NDArray[np.int64]]
Allowed = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Strategy:
    """How training windows are chosen.

    Attributes
    ----------
    name : one of `loci.STRATEGIES`
    ccre : BED of elements, for `ccre`
    n_windows, seed : for `random`
    """

    name: str = "any"
    ccre: Path | None = None
    n_windows: int = 5_000
    seed: int = 0

    def check(self, *, has_regions: bool) -> None:
        """Raise RequestError where an option is missing or would do nothing."""
        if self.name not in STRATEGIES:
            raise RequestError(f"--loci {self.name}: not one of {', '.join(STRATEGIES)}")
        if (self.name == "ccre") != (self.ccre is not None):
            raise RequestError("--loci ccre and --ccre BED go together; give both or neither")
        if self.name == "full-chr" and not has_regions:
            raise RequestError("--loci full-chr: tiles the chromosomes given with -r; give -r CHROM, or --loci gw")
        if self.name == "gw" and has_regions:
            raise RequestError("--loci gw: tiles all chromosomes; leave -r out, or use --loci full-chr")

    def describe(self) -> dict[str, Any]:
        """Return what a card tells of it."""
        more: dict[str, Any] = {}
        if self.ccre is not None:
            more = {"elements": self.ccre.name}
        elif self.name == "random":
            more = {"n_windows": self.n_windows, "seed": self.seed}
        return {"loci": self.name, **more}

    def find(self, allowed: Sequence[Allowed], context: int, *, resolution: int, known: Chromsizes) -> list[Loci]:
        """Return the loci of each biosample from the bins that are allowed to it."""
        one: Callable[[Allowed], Loci]
        if self.name == "ccre" and self.ccre is not None:
            elements = _on(known, self.ccre)

            def one(bins: Allowed) -> Loci:
                return around_elements(bins, context, elements, resolution=resolution)
        elif self.name == "random":
            everywhere = {chrom: [bins[chrom] for bins in allowed if chrom in bins] for chrom in known}
            union = {chrom: merged(np.concatenate(runs)) for chrom, runs in everywhere.items() if runs}
            drawn = apart(union, context, self.n_windows, seed=self.seed)

            def one(bins: Allowed) -> Loci:
                return within(drawn, bins, context)
        elif self.name in ("full-chr", "gw"):

            def one(bins: Allowed) -> Loci:
                return tiled(bins, context)
        else:

            def one(bins: Allowed) -> Loci:
                return any_start(bins, context)

        found: dict[object, Loci] = {}  # biosamples measured in the same places share theirs
        keys = [tuple((chrom, runs.tobytes()) for chrom, runs in bins.items()) for bins in allowed]
        for key, bins in zip(keys, allowed, strict=True):
            if key not in found:
                found[key] = one(bins)
        return [found[key] for key in keys]


@dataclass
class Places:
    """Where a cohort may look: regions, less what is excluded.

    Attributes
    ----------
    regions : none for the whole genome
    excluded : intervals in bp
    """

    known: Chromsizes
    test_chroms: Sequence[str]
    regions: list[Region]
    excluded: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def allowed(self, store: Store, covered: Mapping[str, Covered], regions: Sequence[Region]) -> Allowed:
        """Return the bins of a store's chromosomes where windows may lie."""
        return allowed_bins(
            store.chromsizes, resolution=store.rule.resolution, regions=regions, covered=covered,
            blacklist=self.excluded, test_chroms=self.test_chroms,
        )  # fmt: skip

    def exclude(self, regions: Sequence[Region]) -> None:
        """Keep windows out of regions from now on."""
        for region in regions:
            intervals = np.array([[region.start, region.end]], dtype=np.int64)
            self.excluded[region.chrom] = np.concatenate([self.excluded.get(region.chrom, intervals[:0]), intervals])


def places(
    known: Chromsizes,
    *,
    test_chroms: Sequence[str],
    regions: Sequence[str],
    region_intervals: Path | None,
    blacklist: Path | None,
) -> Places:
    """Parse where training may look.

    Raises
    ------
    RequestError, GenomeError
        A chromosome is unknown, or a BED file shares none with the stores.
    """
    for chrom in test_chroms:
        if chrom not in known:  # a misspelt test chromosome would be trained on
            raise RequestError(f"--test-chrom {chrom}: not in any store; known are {', '.join(known)}")
    parsed = [parse_region(text, known) for text in regions]
    if region_intervals is not None:
        for chrom, spans in _on(known, region_intervals).items():
            spans = np.minimum(spans, known[chrom])
            parsed += [Region(chrom, start, end) for start, end in spans.tolist() if start < end]
    return Places(known, test_chroms, parsed, dict(_on(known, blacklist)) if blacklist else {})


def covered_by(store: Store, biosample: str, shown: Sequence[str], layer: str) -> dict[str, Covered]:
    """Return for each chromosome where a biosample was measured: where reads start, or where a signal was."""
    if layer == "counts":
        return {chrom: store.covered_blocks(biosample, chrom) for chrom in store.chroms_with_reads(biosample)}
    assays = [assay for assay in shown if assay != CONTROL]
    return {
        chrom: merged(np.concatenate([store.signal_spans(biosample, assay, chrom) for assay in assays]))
        for chrom in (store.chroms_with(biosample, "signal") if assays else ())
    }


def _on(known: Chromsizes, path: Path) -> Intervals:
    intervals = read_intervals(path)
    if intervals and not any(chrom in known for chrom in intervals):
        raise GenomeError(f"{path}: shares no chromosome with the stores; use the same genome build and names")
    return {chrom: spans for chrom, spans in intervals.items() if chrom in known}
