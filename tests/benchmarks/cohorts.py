"""What the benchmarks of the network share: windows to train on, windows held out, training and scores.

A held-out window is scored in two ways. *imp*: one assay is hidden, the others show all their reads, the target is all
of the hidden assay's reads. *obs*: of every assay half of its folds are seen, the other half are the target.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candi_cli.covariates import CONTROL, Covariates, encode
from candi_cli.evaluation.calibration import pit_error
from candi_cli.evaluation.distributions import negative_binomial_cdf, negative_binomial_log_pmf
from candi_cli.evaluation.metrics import pearson
from candi_cli.genome import Region
from candi_cli.loci import Loci
from candi_cli.model.candi import Config, Lanes
from candi_cli.model.candi.network import MASKED, MISSING, OBSERVED, CandiBatch
from candi_cli.model.device import move
from candi_cli.store import Store

Array = NDArray[Any]
SCORED_AT_ONCE = 32


class HeldOut(NamedTuple):
    """Held-out windows of one biosample.

    counts : (N, L, A) reads of the target; scored : (A,) whose target counts; kind : obs or imp
    seen : (N, L, A) what is seen of each assay, and seen_share of its reads, for a copy of the input
    """

    biosample: str
    kind: str
    inputs: CandiBatch
    counts: Array
    scored: NDArray[np.bool_]
    starts: list[tuple[str, int]]


def find_loci(regions: Sequence[Region], excluded: Sequence[Region], *, resolution: int, context: int) -> Loci:
    """Return the starts of windows that lie wholly inside a region and touch no excluded one."""
    starts: dict[str, list[tuple[int, int]]] = {}
    for region in regions:
        pieces = [(region.start // resolution, region.end // resolution)]
        for other in (other for other in excluded if other.chrom == region.chrom):
            first, last = other.start // resolution, other.end // resolution
            pieces = [
                piece
                for start, end in pieces
                for piece in ((start, min(end, first)), (max(start, last), end))
                if piece[0] < piece[1]
            ]
        runs = [(start, end - context + 1) for start, end in pieces if end - start >= context]
        starts.setdefault(region.chrom, []).extend(runs)
    return Loci({chrom: np.array(sorted(set(runs)), dtype=np.int64).reshape(-1, 2) for chrom, runs in starts.items()})


def find_windows(regions: Sequence[Region], config: Config, *, every: int = 1) -> list[tuple[str, int]]:
    """Return chromosome and first bin of windows whose cores tile the regions; every so many of them."""
    windows = [
        (region.chrom, start)
        for region in regions
        for start in range(
            region.start // config.resolution,
            region.end // config.resolution - config.context_bins + 1,
            config.core_bins,
        )
    ]
    return windows[::every]


def hold_out(
    lanes: Lanes, config: Config, windows: Sequence[tuple[str, int]], *, hide: int | None = None
) -> HeldOut | None:
    """Return windows of one biosample, with one assay hidden, or (None) half of the reads of all seen.

    None when the biosample does not have the assay, or no other one.
    """
    n_assays, length = len(config.assays), config.context_bins
    present = lanes.available("counts")
    if hide is not None and not (present[hide] and present[:-1].sum() > 1):
        return None
    seen = np.zeros((len(windows), length, n_assays + 1), dtype=np.int32)
    counts = np.zeros((len(windows), length, n_assays), dtype=np.int32)
    given, asked = lanes.covariates(), lanes.covariates()[:-1]
    for lane in np.flatnonzero(present):
        share = 1.0
        for row, (chrom, start) in enumerate(windows):
            folds = lanes.read(lane, "folds", chrom, start, start + length)
            n_seen = folds.shape[1] if hide is not None else folds.shape[1] // 2
            share = n_seen / folds.shape[1]
            seen[row, :, lane] = folds[:, :n_seen].sum(axis=1)
            if lane < n_assays:
                counts[row, :, lane] = folds.sum(axis=1) if hide is not None else folds[:, n_seen:].sum(axis=1)
        given[lane] = thinned(given[lane], share)
        if lane < n_assays and hide is None:
            asked[lane] = thinned(asked[lane], 1 - share)
    availability = np.where(present, OBSERVED, MISSING).astype(np.uint8)
    if hide is not None:
        availability[hide], seen[..., hide] = MASKED, 0
    scored = np.arange(n_assays) == hide if hide is not None else present[:-1]
    n = len(windows)
    inputs = CandiBatch(
        torch.from_numpy(seen),
        torch.from_numpy(availability).expand(n, length, -1),
        torch.from_numpy(encode(given)).expand(n, -1, -1),
        torch.from_numpy(encode(asked)).expand(n, -1, -1),
        None,
    )
    return HeldOut(lanes.biosample, "obs" if hide is None else "imp", inputs, counts, scored, list(windows))


def thinned(covariates: Covariates | None, share: float) -> Covariates | None:
    """Return covariates at a share of their depth."""
    return replace(covariates, depth=covariates.depth * share) if covariates and covariates.depth else covariates


def hold_out_all(
    cohort: Sequence[Lanes], config: Config, regions: Sequence[Region], *, every: int = 1
) -> list[HeldOut]:
    """Return the held-out windows of all biosamples, each assay hidden once, and none hidden once."""
    windows = find_windows(regions, config, every=every)
    found = []
    for lanes in cohort:
        inside = [window for window in windows if lanes.store.has(lanes.biosample, _any(lanes), "counts", window[0])]
        if inside:
            found += [hold_out(lanes, config, inside, hide=hide) for hide in (None, *range(len(config.assays)))]
    return [item for item in found if item is not None]


def _any(lanes: Lanes) -> str:
    return next(item.assay for item in lanes.experiments if item is not None and "counts" in item.layers)


@torch.inference_mode()
def predict(model: torch.nn.Module, inputs: CandiBatch, device: torch.device) -> tuple[Array, Array]:
    """Return log mean and log dispersion of the counts, (N, L, A) each."""
    model.eval()
    pieces = []
    for first in range(0, len(inputs.values), SCORED_AT_ONCE):
        part = CandiBatch(*(None if each is None else each[first : first + SCORED_AT_ONCE] for each in inputs))
        output = model(move(part, device))
        pieces.append(torch.stack([output.count_log_mean, output.count_log_dispersion]).float().cpu().numpy())
    log_mean, log_dispersion = np.concatenate(pieces, axis=1)
    return log_mean, log_dispersion


class Scores(NamedTuple):
    """Scores of counts in bins, in the mean over assays: log-loss in nats, PIT error, Pearson's correlation."""

    log_loss: float
    pit_error: float
    pearson: float


def score_counts(counts: Array, log_mean: Array, log_dispersion: Array) -> Scores:
    """Score predicted negative binomials on bins of one assay: shape (K,) each."""
    cumulative = negative_binomial_cdf(counts, log_mean, log_dispersion)
    log_loss = -float(negative_binomial_log_pmf(counts, log_mean, log_dispersion).mean())
    return Scores(log_loss, pit_error(cumulative), pearson(counts, np.exp(log_mean)))


def score(
    model: torch.nn.Module, held_out: Sequence[HeldOut], config: Config, device: torch.device
) -> dict[str, Scores]:
    """Return the scores of *obs* and *imp*: the mean over assays, each over all of its biosamples' core bins."""
    core = slice(config.flank_bins, config.context_bins - config.flank_bins)
    gathered: dict[tuple[str, int], list[tuple[Array, ...]]] = {}
    for item in held_out:
        predicted = predict(model, item.inputs, device)
        for assay in np.flatnonzero(item.scored):
            bins = tuple(part[:, core, assay].ravel() for part in (item.counts, *predicted))
            gathered.setdefault((item.kind, int(assay)), []).append(bins)
    rows = {key: score_counts(*map(np.concatenate, zip(*parts, strict=True))) for key, parts in gathered.items()}
    kinds = sorted({kind for kind, _ in rows})
    return {kind: Scores(*np.mean([row for (k, _), row in rows.items() if k == kind], axis=0)) for kind in kinds}


def open_lanes(stores: Sequence[Store]) -> tuple[tuple[str, ...], list[Lanes]]:
    """Return the assays of stores in order, and the lanes of each of their biosamples."""
    members = [(store, biosample) for store in stores for biosample in store.biosamples]
    assays = sorted({assay for store, name in members for assay in store.assays(name)} - {CONTROL})
    return tuple(assays), [Lanes(store, name, assays) for store, name in members]


def depth_range(cohort: Sequence[Lanes], *, thinnest: int = 8) -> tuple[float, float]:
    """Return log2 reads per Gb that training covers: from the shallowest experiment's thinnest part to the deepest."""
    depths = [encode([item])[0, 0] for lanes in cohort for item in lanes.covariates() if item is not None]
    known = [float(depth) for depth in depths if np.isfinite(depth)]
    return min(known) - float(np.log2(thinnest)), max(known)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds that have passed."""
        return time.perf_counter() - self.start


def average_of(steps: int) -> float:
    """Return the decay of a moving average of the weights over the last tenth of a training, or so."""
    return max(0.0, 1 - 10 / steps)


def saved_batches(paths: Sequence[Path]) -> Iterator[Any]:
    """Yield the batches in files written by `torch.save`, one after the other."""
    for path in paths:
        yield from torch.load(path, weights_only=False)


def total(parameters: Iterator[Tensor]) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in parameters)
