"""What goes with the tracks: a manifest, a track hub, an IGV session, a page with a figure; or a provenance file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli import __version__
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import replacing
from candi_cli.commands._track_files import STDOUT, FilePlan, Target
from candi_cli.commands._track_options import TrackOptions
from candi_cli.contigs import assembly_of
from candi_cli.export.files import BIGWIG
from candi_cli.export.quantities import Quantity, quantities
from candi_cli.export.source import Source
from candi_cli.genome import Region
from candi_cli.model.device import versions
from candi_cli.report.delivery import Delivery, Track
from candi_cli.report.figures import FigureRow, locus_figure
from candi_cli.report.hub import write_hub
from candi_cli.report.igv import write_igv_session
from candi_cli.report.manifest import write_manifest
from candi_cli.report.page import write_page
from candi_cli.store import Store

LOCUS_BINS = 2_400
_LOOKED_AT_BINS = 1 << 20
_ROWS_SHOWN = 35


@dataclass(frozen=True)
class Made:
    """What was written, and from what.

    Attributes
    ----------
    sources : name, size and time of the files that were read
    model_name : of its file, None where only predictions were at hand
    """

    plan: FilePlan
    source: Source
    sources: list[dict[str, Any]]
    model_name: str | None


def deliver(made: Made, options: TrackOptions, *, store: Store | None) -> None:
    """Write what goes with a folder of tracks, and the provenance when it was asked for.

    Parameters
    ----------
    store : what was observed, for the figure
    """
    plan = made.plan
    if plan.is_folder:
        delivery = _delivery(made, options, plan.place)
        write_manifest(delivery)
        if delivery.tracks:  # a hub shows no other files
            write_hub(delivery)
        write_igv_session(delivery)
        figure, caption, summary = _picture(made, options, store)
        write_page(delivery, figure, caption, summary)
        if delivery.genome is None:
            console.log(f"{plan.place}: no track hub, as the genome is none that candi knows by its lengths")
        console.log(f"wrote {plan.place}/index.html, manifest.json and what a genome browser opens")
    if options.provenance is not None:
        folder = options.provenance.resolve().parent
        with replacing(options.provenance) as temporary:
            write_manifest(_delivery(made, options, folder), path=temporary)
        console.log(f"wrote {options.provenance}")


def _delivery(made: Made, options: TrackOptions, folder: Path) -> Delivery:
    described, plan = made.source.described, made.plan
    tracks, others = [], []
    for file in plan.files:
        if file.path == STDOUT:
            continue
        path = _relative(file.path, folder)
        if file.format == BIGWIG and file.target and file.quantity:
            observed = described.tracks[file.target]["observed"]
            tracks.append(Track(*file.target, file.quantity.kind, file.quantity.name, path, observed))
        else:
            others.append(path)
    if options.latent is not None:
        others.append(_relative(options.latent, folder))
    return Delivery(
        folder=folder, tracks=tracks, other_files=others, command=command_line(), versions=versions(__version__),
        model={"name": made.model_name, **described.model, "assays": sorted({assay for _, assay in described.tracks})},
        genome=assembly_of(described.chromsizes), chromsizes=described.chromsizes, resolution=described.resolution,
        interval=options.interval, experiments=experiments_of(made.source), inputs=made.sources,
        notes=_notes(made, options),
    )  # fmt: skip


def _relative(path: Path, folder: Path) -> Path:
    return Path(os.path.relpath(path.resolve(), folder.resolve()))


def experiments_of(source: Source) -> list[dict[str, Any]]:
    """Return what predictions are of, one row for each track; depths that were asked for as of the input's span."""
    described, rows = source.described, []
    for (biosample, assay), track in described.tracks.items():
        spans = [each["span_bp"] for each in described.inputs[biosample]["covariates"].values() if each["span_bp"]]
        own = track["covariates"] or {}
        asked = _as_over(own.get("span_bp") or max(spans, default=None), track["asked"])
        row = {"biosample": biosample, "assay": assay, "observed": track["observed"]}
        rows.append({**row, "covariates": track["covariates"], "asked": asked})
    return rows


def _as_over(span_bp: float | None, asked: dict[str, Any]) -> dict[str, Any]:
    """Return covariates with the depth that they mean over another span."""
    if not span_bp or not asked["depth"] or not asked["span_bp"]:
        return asked
    return {**asked, "depth": float(round(asked["depth"] * span_bp / asked["span_bp"])), "span_bp": span_bp}


def _notes(made: Made, options: TrackOptions) -> list[str]:
    notes = ["Intervals are those of the predicted distribution as the model gives it; it was not recalibrated."]
    if not options.interval:
        notes = []
    if any(not track["observed"] for track in made.source.described.tracks.values()):
        notes.append("Imputed tracks are of experiments that nobody has made: they are what the model expects.")
    notes.append(f"Values are rounded to {options.digits} significant digits.")
    return notes


def _picture(made: Made, options: TrackOptions, store: Store | None) -> tuple[bytes | None, str, list[dict[str, Any]]]:
    """Return a figure of a locus of the first biosample, what it shows, and a table of all its tracks."""
    described, kind = made.source.described, made.plan.kinds[0]
    biosample = described.biosamples[0]
    assays = described.assays(biosample)[:_ROWS_SHOWN]
    means = {assay: _mean(made.source, (biosample, assay), kind) for assay in assays}
    summary = _summary(means, described.tracks, biosample)
    region = _chosen(made.source, biosample, list(means.values()))
    if region is None:
        return None, "", summary
    rows = []
    with made.source as source:
        for assay in assays:
            values = _values(source, (biosample, assay), Quantity(kind), region)
            bounds = {
                quantity.name: _values(source, (biosample, assay), quantity, region)
                for quantity in quantities([kind], interval=options.interval)[1:]
            }
            raw = _raw(store, biosample, assay, kind, region, described.resolution)
            done = "denoised" if described.tracks[biosample, assay]["observed"] else "imputed"
            label = f"{assay} ({done})"
            rows.append(FigureRow(label, values, bounds.get("lower"), bounds.get("upper"), raw))
    what = {"counts": "expected reads per bin", "signal": "-log10 p", "peaks": "probability of a peak"}[kind]
    caption = (
        f"{biosample}, {region.chrom}:{region.start + 1:,}-{region.end:,}: {what}. "
        f"Of the first {_LOOKED_AT_BINS:,} bins predicted, this is the stretch where the tracks change most."
    )
    title = f"{biosample} {region.chrom}:{region.start + 1:,}-{region.end:,}"
    return locus_figure(title, region.start, described.resolution, rows), caption, summary


def _mean(source: Source, target: Target, kind: str) -> NDArray[np.float64]:
    """Return the track of the first bins that were predicted."""
    quantity, found, n_bins = Quantity(kind), [], 0
    with source:
        for _, parameters in source.blocks(*target, quantity.parameters):
            found.append(quantity.of(parameters))
            n_bins += parameters.shape[1]
            if n_bins >= _LOOKED_AT_BINS:
                break
    return np.concatenate(found)[:_LOOKED_AT_BINS] if found else np.zeros(0)


def _summary(means: dict[str, NDArray[np.float64]], tracks: dict[Target, Any], biosample: str) -> list[dict[str, Any]]:
    rows = []
    for assay, values in means.items():
        if not len(values):
            continue
        low, high = np.quantile(values, [0.5, 0.99])
        made = "denoised" if tracks[biosample, assay]["observed"] else "imputed"
        numbers = {"mean": values.mean(), "median": low, "99th percentile": high, "highest": values.max()}
        rows.append({"assay": assay, "made": made, **{name: f"{value:.3g}" for name, value in numbers.items()}})
    return rows


def _chosen(source: Source, biosample: str, tracks: Sequence[NDArray[np.float64]]) -> Region | None:
    """Return the stretch where the tracks together change most, each counted in units of its own changes."""
    resolution, bins, regions = source.described.resolution, 0, []
    for region in source.regions(biosample):
        regions.append((bins, region))
        bins += -(-(region.end - region.start) // resolution)
    if not tracks or not len(tracks[0]):
        return None
    if len(tracks[0]) == 1:
        return regions[0][1]
    changes = np.zeros(len(tracks[0]) - 1)
    for values in tracks:
        step = np.abs(np.diff(np.log1p(values)))
        changes += step / max(float(step.mean()), 1e-12)
    n = min(LOCUS_BINS, len(changes))
    sums = np.cumsum(np.concatenate([[0.0], changes]))
    best = int(np.argmax(sums[n:] - sums[:-n])) if len(sums) > n else 0
    first, region = next((first, region) for first, region in reversed(regions) if first <= best)
    start = region.start + (best - first) * resolution
    start = max(region.start, min(start, region.end - n * resolution) // resolution * resolution)
    return Region(region.chrom, start, min(start + n * resolution, region.end))


def _values(source: Source, target: Target, quantity: Quantity, region: Region) -> NDArray[np.float64]:
    return quantity.of(source.read(*target, quantity.parameters, region))


def _raw(
    store: Store | None, biosample: str, assay: str, kind: str, region: Region, resolution: int
) -> NDArray[np.float64] | None:
    """Return what was observed, when it is in the unit of the track."""
    if store is None or kind == "peaks" or assay not in store.assays(biosample):
        return None
    if kind not in store.experiment(biosample, assay).layers:
        return None
    bins = (region.start // resolution, -(-region.end // resolution))
    return store.read(biosample, assay, kind, region.chrom, *bins).astype(np.float64)
