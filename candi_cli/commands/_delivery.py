"""What goes with the tracks: a manifest, a track hub, an IGV session, a page with a figure; or a provenance file."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from candi_cli import __version__
from candi_cli.commands import command_line
from candi_cli.commands._amounts import counted
from candi_cli.commands._console import console
from candi_cli.commands._output import replacing
from candi_cli.commands._picture import draw_picture
from candi_cli.commands._track_files import STDOUT, FilePlan, manifest_in
from candi_cli.commands._track_options import TrackOptions
from candi_cli.contigs import assembly_of, shorten
from candi_cli.export.files import BIGWIG, NARROWPEAK, PEAK_THRESHOLD
from candi_cli.export.peaks import MAX_GAP_BP, MIN_LENGTH_BP
from candi_cli.export.source import Source
from candi_cli.model.device import versions
from candi_cli.report.delivery import Delivery, Track
from candi_cli.report.hub import write_hub
from candi_cli.report.igv import write_igv_session
from candi_cli.report.manifest import write_manifest
from candi_cli.report.page import write_page
from candi_cli.store import Store
from candi_cli.store.predictions import kinds_of


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
        former = manifest_in(plan.place)
        delivery = _delivery(made, options, plan.place)
        picture = draw_picture(
            made.source, _shown_kind(made), delivery.experiments, interval=options.interval, store=store
        )
        delivery = replace(delivery, locus=picture.locus)
        write_manifest(delivery)
        if delivery.tracks:  # a hub shows no other files
            write_hub(delivery)
        write_igv_session(delivery)
        write_page(delivery, picture.figure, picture.caption, picture.summary, summary_caption=picture.summary_caption)
        if delivery.genome is None:
            console.log(f"{plan.place}: no track hub, as the genome is none that candi knows by its lengths")
        console.log(f"wrote {plan.place}/index.html, manifest.json and what a genome browser opens")
        _tell_of_stale(delivery, former)
    if options.provenance is not None:
        folder = options.provenance.resolve().parent
        with replacing(options.provenance) as temporary:
            write_manifest(_delivery(made, options, folder), path=temporary)
        console.log(f"wrote {options.provenance}")


def _shown_kind(made: Made) -> str:
    """Return the first kind that was asked for and that a track has."""
    held = {kind for track in made.source.described.tracks.values() for kind in kinds_of(track["parameters"])}
    return next(kind for kind in made.plan.kinds if kind in held)


def _tell_of_stale(delivery: Delivery, former: dict[str, Any] | None) -> None:
    """Warn of what an earlier delivery has left in the folder and this one does not hold."""
    names = {path.as_posix() for path in (*(track.path for track in delivery.tracks), *delivery.other_files)}
    named = [entry["path"] for entry in former["files"]] if former else []
    stale = [name for name in named if name not in names and (delivery.folder / name).is_file()]
    if (delivery.genome is None or not delivery.tracks) and former and (delivery.folder / "hub").is_dir():
        stale.append("hub")
    if stale:
        console.warn(
            f"{delivery.folder}: {shorten(stale)} are left of an earlier run and no part of this delivery; remove them"
        )


def _delivery(made: Made, options: TrackOptions, folder: Path) -> Delivery:
    described, plan = made.source.described, made.plan
    tracks, texts, others = list[Track](), list[Track](), list[Path]()
    for file in plan.files:
        if file.path == STDOUT:
            continue
        path = _relative(file.path, folder)
        if file.target is None or file.quantity is None:
            others.append(path)
            continue
        quantity = "calls" if file.format == NARROWPEAK else file.quantity.statistic
        track = Track(*file.target, file.quantity.kind, quantity, path, described.tracks[file.target]["observed"])
        (tracks if file.format == BIGWIG else texts).append(track)
    if options.latent is not None:
        others.append(_relative(options.latent, folder))
    return Delivery(
        folder=folder, tracks=tracks, texts=texts, other_files=others, command=command_line(),
        versions=versions(__version__),
        model={"name": made.model_name, "assays": [], **described.model},
        genome=assembly_of(described.chromsizes), chromsizes=described.chromsizes, resolution=described.resolution,
        regions={biosample: made.source.regions(biosample) for biosample in described.biosamples},
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
        row["recalibrated"] = bool(track.get("recalibration"))
        rows.append({**row, "covariates": track["covariates"], "asked": asked})
    return rows


def _as_over(span_bp: float | None, asked: dict[str, Any]) -> dict[str, Any]:
    """Return covariates with the depth that they mean over another span."""
    if not span_bp or not asked["depth"] or not asked["span_bp"]:
        return asked
    return {**asked, "depth": float(round(asked["depth"] * span_bp / asked["span_bp"])), "span_bp": span_bp}


def _notes(made: Made, options: TrackOptions) -> list[str]:
    notes = [_recalibration(made, options)]
    if any(not track["observed"] for track in made.source.described.tracks.values()):
        notes.append("Imputed tracks are of experiments that nobody has made: they are what the model expects.")
    if any(file.format == NARROWPEAK for file in made.plan.files):
        notes.append(
            f"Called peaks are runs of bins of probability {options.threshold or PEAK_THRESHOLD:g} or more; runs "
            f"at most {MAX_GAP_BP} bp apart are joined, and what is then shorter than {MIN_LENGTH_BP} bp is left out."
        )
    if "signal" in made.plan.kinds:
        notes.append("The track of signal is the median of -log10 p: the mean of its arcsinh, taken back.")
    notes.append(f"Values are rounded to {counted(options.digits, 'significant digit')}.")
    return [note for note in notes if note]


def _recalibration(made: Made, options: TrackOptions) -> str:
    """Return whether the distributions are those of the model, or recalibrated; nothing where nobody would ask."""
    tracks = made.source.described.tracks
    n = sum(bool(track.get("recalibration")) for track in tracks.values())
    if n == len(tracks):
        return "The predicted distributions are recalibrated by what the model got wrong on data that it had not seen."
    if n:
        return f"The distributions of {n} of {len(tracks)} tracks are recalibrated; the others are the model's own."
    if options.interval:
        return "Intervals are those of the predicted distribution as the model gives it; it was not recalibrated."
    return ""
