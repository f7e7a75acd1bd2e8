"""Predicting tracks of a store's assays and writing them, for the commands that do."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from candi_cli.commands._console import console
from candi_cli.commands._experiments import Inputs
from candi_cli.commands._output import check_writable, replacing
from candi_cli.contigs import shorten
from candi_cli.covariates import CONTROL, Covariates
from candi_cli.errors import GenomeError, ModelError, OutputError
from candi_cli.genome import Region, tile
from candi_cli.io.bigwig import TrackWriter
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.loci import merged
from candi_cli.model import Loaded
from candi_cli.model.candi import Lanes, PredictionDataset
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.device import Device
from candi_cli.model.prediction import predict
from candi_cli.model.requests import fit_to_card, request
from candi_cli.store import Store

Target = tuple[str, str]  # biosample, assay


@dataclass(frozen=True)
class TrackPlan:
    """What to predict and how: options of the command line that have been parsed."""

    track: str
    asked: Covariates
    regions: list[Region]
    reference: Path | None
    batch_size: int
    threads: int
    device: Device


def default_model() -> Path:
    """Return the model that ships inside the package."""
    return Path(__file__).parents[1] / "models" / "default.safetensors"


def plan_outputs(output: Path, targets: Sequence[Target], *, inputs: Sequence[Path]) -> dict[Target, Path]:
    """Return where each track goes: `output` itself for one, files in the folder `output` for several."""
    if output.is_dir():
        paths = {target: output / f"{'.'.join(target)}.bw" for target in targets}
    elif len(targets) == 1:
        paths = {targets[0]: output}
    else:
        raise OutputError(f"{output}: {len(targets)} tracks need a folder; make one and give it with -o")
    for path in paths.values():
        check_writable(path, inputs=inputs)
    return paths


def check_model(model: Loaded, inputs: Inputs, track: str) -> None:
    """Check that a model can do what is asked, before anything is read.

    Raises
    ------
    ModelError
        It does not know an assay, never learned the output, or was trained under another counting rule.
    """
    card, targets = model.card, inputs.targets
    reads_signal = model.config.input == "signal"
    if card.counting != inputs.rule and not (reads_signal and card.counting.resolution == inputs.rule.resolution):
        raise ModelError(
            f"{model.path}: trained on counts by {card.counting}, but {inputs.store} holds counts by {inputs.rule}; "
            f"use another model, or rebuild the store with 'candi bin {card.counting.options()}'"
        )
    unknown = [assay for _, assay in targets if assay not in card.assays]
    if unknown:
        raise ModelError(f"{model.path}: does not know {unknown[0]}, only {', '.join(card.assays)}; use another model")
    for _, assay in targets:
        if track not in card.assays[assay].outputs:
            outputs = ", ".join(card.assays[assay].outputs)
            raise ModelError(f"{model.path}: never learned {track} of {assay}, only {outputs}; use another --track")


def write_tracks(model: Loaded, store: Store, outputs: Mapping[Target, Path], plan: TrackPlan) -> None:
    """Predict the tracks of a store's experiments and write one bigWig for each."""
    console.log(f"model {model.path.name}, on {plan.device}")
    biosamples = sorted({biosample for biosample, _ in outputs})
    layer = model.config.input
    spans = {biosample: plan.regions or _measured(store, biosample, layer) for biosample in biosamples}
    core, resolution = model.config.core_bins, store.rule.resolution
    n_windows = sum(-(-_bins(region, resolution) // core) for regions in spans.values() for region in regions)
    with ExitStack() as stack:
        fasta = _open_sequence(model, store, [r for span in spans.values() for r in span], plan.reference, stack)
        temporary = {target: stack.enter_context(replacing(path)) for target, path in outputs.items()}
        with console.progress(plan.track, n_windows, "windows") as advance:
            for biosample in biosamples:
                assays = {
                    assay: (path, outputs[name, assay])
                    for (name, assay), path in temporary.items()
                    if name == biosample
                }
                _write_biosample(model, store, biosample, assays, spans[biosample], fasta, plan, advance)


def _measured(store: Store, biosample: str, layer: str) -> list[Region]:
    """Return every chromosome on which a biosample has reads, or every stretch on which any signal was measured."""
    present = store.chroms_with(biosample, layer)
    absent = [chrom for chrom in store.chromsizes if chrom not in present]
    if absent:
        console.log(f"{biosample}: no {'read' if layer == 'counts' else layer} on {shorten(absent)}: left out")
    if layer == "counts":
        return [Region(chrom, 0, store.chromsizes[chrom]) for chrom in present]
    assays, resolution = [assay for assay in store.assays(biosample) if assay != CONTROL], store.rule.resolution
    found = []
    for chrom in present:
        spans = merged(np.concatenate([store.signal_spans(biosample, assay, chrom) for assay in assays]))
        found += [Region(chrom, start // resolution * resolution, end) for start, end in spans.tolist()]
    return found


def _bins(region: Region, resolution: int) -> int:
    return -(-region.end // resolution) - region.start // resolution


def _open_sequence(
    model: Loaded, store: Store, regions: Sequence[Region], reference: Path | None, stack: ExitStack
) -> Fasta | None:
    if reference is None:
        return None
    if not model.config.reads_sequence:
        console.log("the model reads no DNA; -T serves for CRAM alone")
        return None
    fasta = stack.enter_context(Fasta(reference))
    fasta.name_as(store.chromsizes, source=store.name)
    for chrom in sorted({region.chrom for region in regions}):
        length = store.chromsizes[chrom]
        if fasta.chromsizes.get(chrom, length) != length:
            raise GenomeError(
                f"{reference}: {chrom} is not {length:,} bp as in {store.name}; use the same genome build"
            )
        if chrom not in fasta.chromsizes:
            console.warn(f"{reference}: has no {chrom}; it is predicted without DNA")
    return fasta


def _write_biosample(
    model: Loaded,
    store: Store,
    biosample: str,
    paths: Mapping[str, tuple[Path, Path]],
    spans: Sequence[Region],
    fasta: Fasta | None,
    plan: TrackPlan,
    advance: Callable[[int, str], None],
) -> None:
    config, resolution = model.config, store.rule.resolution
    dataset = prediction_dataset(model, store, biosample, plan.asked, fasta)
    columns = [config.assays.index(assay) for assay in paths]
    windows = (
        window
        for chrom, start, end in spans
        for window in tile(
            chrom,
            start // resolution,
            -(-end // resolution),
            n_bins=store.n_bins(chrom),
            context=config.context_bins,
            flank=config.flank_bins,
        )
    )
    chromsizes = {region.chrom: store.chromsizes[region.chrom] for region in spans}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(TrackWriter(path, chromsizes, resolution=resolution, shown_as=final))
            for path, final in paths.values()
        ]
        pieces = predict(
            model.network, dataset, windows, lambda output: output.track(plan.track)[..., columns],
            chromsizes=store.chromsizes, resolution=resolution,
            device=plan.device, batch_size=plan.batch_size, threads=plan.threads,
        )  # fmt: skip
        for region, values in pieces:
            for column, writer in enumerate(writers):
                writer.add(region, values[:, column])
            advance(1, "")


def prediction_dataset(
    model: Loaded, store: Store, biosample: str, asked: Covariates, fasta: Fasta | None
) -> PredictionDataset:
    """Return the windows of a biosample as a model reads them, and warn of covariates it had never met."""
    lanes = Lanes(store, biosample, model.config.assays)
    covariates: list[Covariates | None] = []
    for item in lanes.covariates():
        name = (*model.config.assays, CONTROL)[len(covariates)]
        if item is None:
            covariates.append(None)
            continue
        fitted = fit_to_card(item, model.card, name)
        covariates.append(fitted.covariates)
        for warning in fitted.warnings:
            console.warn(f"{biosample}/{name}: {warning}")
    requested = []
    for assay, item in zip(model.config.assays, lanes.covariates(), strict=False):
        fitted = request(model.card, assay, asked, span_bp=item.span_bp if item else None)
        requested.append(fitted.covariates)
        for warning in fitted.warnings if item else ():
            console.warn(f"--as for {assay}: {warning}")
    average = None
    if model.config.reads_reference:
        average = ReferenceAverage(
            model.config.assays, [Lanes(store, name, model.config.assays) for name in store.biosamples]
        )
    return PredictionDataset(model.config, lanes, covariates, requested, fasta, average)
