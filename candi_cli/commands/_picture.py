"""What the page of a folder shows of its tracks: a table of all of them, and a figure of one stretch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.commands._track_files import Target
from candi_cli.export.overview import Overview, look_over, most_to_show, windows
from candi_cli.export.quantities import Quantity, levels_of, quantities
from candi_cli.export.source import Source
from candi_cli.genome import Region
from candi_cli.report.appearance import made_by, place
from candi_cli.report.figures import FigureRow, Legend, locus_figure
from candi_cli.store import Store
from candi_cli.store.predictions import kinds_of

_ROWS_SHOWN = 35
_SHOWN = {"counts": "expected reads per bin", "signal": "median of -log10 p", "peaks": "probability of a peak"}


class Picture(NamedTuple):
    """What is shown of a kind of tracks; of no bin, there is no figure.

    summary : one row for each track, from column to value
    locus : what the figure shows
    """

    summary: list[dict[str, Any]]
    summary_caption: str
    figure: bytes | None = None
    caption: str = ""
    locus: Region | None = None


class _Observed(NamedTuple):
    """What was measured at a locus, and what it was multiplied by, to be as deep as what is asked for."""

    values: NDArray[np.float64]
    scale: float
    depth: float | None


def draw_picture(
    source: Source, kind: str, experiments: Sequence[dict[str, Any]], *, interval: float | None, store: Store | None
) -> Picture:
    """Return a table of all tracks of one kind, and a figure of the first biosample where its tracks show most.

    Parameters
    ----------
    experiments : what is predicted, with the covariates of the input and those that were asked for, over one span
    interval : its bounds are drawn too
    store : what was observed, for the figure
    """
    described = source.described
    shown = [target for target, track in described.tracks.items() if kind in kinds_of(track["parameters"])]
    with source:
        found = {target: look_over(source, *target, Quantity(kind)) for target in shown}
    summary = _summary(found, described.tracks)
    caption = f"Over all bins that were predicted: {_SHOWN[kind]}."
    biosample = min(name for name, _ in shown)
    assays = [assay for name, assay in shown if name == biosample][:_ROWS_SHOWN]
    cut = list(windows(source.regions(biosample), described.resolution))
    if not cut:
        return Picture(summary, caption)
    number = most_to_show([found[biosample, assay].contrasts for assay in assays])
    locus = _lengthened(cut[number], cut[:number])
    by_target = {(each["biosample"], each["assay"]): each for each in experiments}
    with source:
        observed = {
            assay: _observed(store, by_target[biosample, assay], kind, locus, described.resolution) for assay in assays
        }
        rows = [_row(source, (biosample, assay), kind, locus, interval, observed[assay]) for assay in assays]
    legend = _legend(kind, interval, [each for each in observed.values() if each is not None])
    figure = locus_figure(f"{biosample} {place(locus)}", locus.start, described.resolution, rows, legend)
    return Picture(summary, caption, figure, _caption(biosample, locus, kind, len(cut), observed), locus)


def _summary(found: Mapping[Target, Overview], tracks: Mapping[Target, Any]) -> list[dict[str, Any]]:
    rows = []
    for (biosample, assay), track in found.items():
        numbers = {
            "mean": track.mean, "median": track.median, "99th percentile": track.percentile_99, "highest": track.highest
        }  # fmt: skip
        rows.append(
            {
                "biosample": biosample, "assay": assay, "made by": made_by(tracks[biosample, assay]["observed"]),
                "bins": track.n_bins, **{name: float(f"{value:.3g}") for name, value in numbers.items()},
            }
        )  # fmt: skip
    return rows


def _lengthened(locus: Region, before: Sequence[Region]) -> Region:
    """Return the last window of a region as long as the one before, which it then overlaps."""
    if before and (before[-1].chrom, before[-1].end) == (locus.chrom, locus.start):
        return locus._replace(start=locus.end - (before[-1].end - before[-1].start))
    return locus


def _row(
    source: Source, target: Target, kind: str, locus: Region, interval: float | None, observed: _Observed | None
) -> FigureRow:
    levels = levels_of(source.described.tracks[target], kind)
    shown = {
        each.name: each.of(source.read(*target, each.parameters, locus), levels)
        for each in quantities([kind], interval=interval)
    }
    is_observed = source.described.tracks[target]["observed"]
    return FigureRow(
        f"{target[1]} ({made_by(is_observed)})", shown["mean"], shown.get("lower"), shown.get("upper"),
        observed.values if observed else None, is_observed,
    )  # fmt: skip


def _observed(
    store: Store | None, experiment: dict[str, Any], kind: str, locus: Region, resolution: int
) -> _Observed | None:
    """Return what was observed in the unit of the track, where it is; reads at the depth that was asked for."""
    biosample, assay = experiment["biosample"], experiment["assay"]
    if store is None or kind == "peaks" or assay not in store.assays(biosample):
        return None
    if kind not in store.experiment(biosample, assay).layers:
        return None
    bins = (locus.start // resolution, -(-locus.end // resolution))
    values = store.read(biosample, assay, kind, locus.chrom, *bins).astype(np.float64)
    own, asked = (experiment["covariates"] or {}).get("depth"), experiment["asked"]["depth"]
    if kind != "counts" or not own or not asked:
        return _Observed(values, 1, None)
    return _Observed(values * (asked / own), asked / own, asked)


def _legend(kind: str, interval: float | None, observed: Sequence[_Observed]) -> Legend:
    raw, depths = "observed", {each.depth for each in observed}
    if kind == "counts":
        raw = "observed reads"
        if any(each.scale != 1 for each in observed):
            (depth,) = depths if len(depths) == 1 else (None,)
            raw += f", scaled to {_readable(depth)}" if depth else ", scaled to the depth asked for"
    bounds = f"{100 * interval:.4g} % interval" if interval else "interval"
    return Legend(Quantity(kind).statistic, bounds, raw)


def _readable(depth: float) -> str:
    return f"{depth / 1e6:.3g} M" if depth >= 1e5 else f"{depth:,.0f}"


def _caption(biosample: str, locus: Region, kind: str, n_windows: int, observed: Mapping[str, _Observed | None]) -> str:
    text = f"{biosample}, {place(locus)}: {_SHOWN[kind]}."
    if n_windows > 1:
        text += f" Of {n_windows:,} stretches that were predicted, peaks stand out here from what lies around them."
    scaled = [f"those of {assay} by {each.scale:.3g}" for assay, each in observed.items() if each and each.scale != 1]
    if scaled:
        text += f" Observed reads are multiplied, {', '.join(scaled)}, to be as many as the depth asked for would give."
    return text
