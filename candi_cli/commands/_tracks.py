"""What a model reads and is asked for when it predicts tracks of a store, for the commands that do."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from candi_cli.commands._absent_tracks import absent_of
from candi_cli.commands._console import console
from candi_cli.commands._experiments import Inputs
from candi_cli.commands._track_files import Target, Track
from candi_cli.contigs import shorten
from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, Covariates
from candi_cli.errors import GenomeError, ModelError, RequestError
from candi_cli.genome import Region
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.loci import merged
from candi_cli.model import Loaded
from candi_cli.model.candi import Lanes, PredictionDataset
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.requests import Asked, asked_of, fit_to_card, request
from candi_cli.store import Store


def check_counting(model: Loaded, rule: CountingRule, source: str) -> None:
    """Raise ModelError unless reads were counted as in training; of signal only the bins must be of one width.

    Parameters
    ----------
    source : what was counted by the rule, for the message
    """
    trained = model.card.counting
    if trained == rule or (model.config.input == "signal" and trained.resolution == rule.resolution):
        return
    raise ModelError(
        f"{model.path}: trained on counts by {trained}, but {source} holds counts by {rule}; "
        f"use another model, or rebuild the store with 'candi bin {trained.options()}'"
    )


def check_model(model: Loaded, inputs: Inputs, targets: Sequence[Target]) -> None:
    """Check that a model can read what is given, before it is read.

    Raises
    ------
    ModelError
        It does not know an assay, or was trained under another counting rule.
    """
    card = model.card
    check_counting(model, inputs.rule, str(inputs.store))
    unknown = [assay for _, assay in (*targets, *inputs.targets) if assay not in card.assays]
    if unknown:
        raise ModelError(f"{model.path}: does not know {unknown[0]}, only {', '.join(card.assays)}; use another model")


def never_learned(
    model: Loaded, targets: Sequence[Target], kinds: Sequence[str], *, named: bool, formats: Sequence[str] = ()
) -> set[Track]:
    """Return the tracks that are asked for and a model never learned, and tell that they are left out.

    Parameters
    ----------
    named : the assays were asked for by their names
    formats : what must show something

    Raises
    ------
    ModelError
        A track was asked for by the name of its assay and its own alone, or nothing is left to write.
    """
    outputs = {assay: model.card.assays[assay].outputs for _, assay in targets}
    absent = absent_of(outputs, kinds, named=named, formats=formats)
    if absent.refused:
        assay, kind = absent.refused
        raise ModelError(
            f"{model.path}: never learned {kind} of {assay}, only {', '.join(outputs[assay])}; use another --track"
        )
    absent.warn("the model never learned")
    return absent.tracks


def check_asked(model: Loaded, several: Sequence[Asked], targets: Sequence[Target]) -> None:
    """Raise RequestError where covariates are asked for an assay that the model does not know; warn where for none."""
    written = {assay for _, assay in targets}
    for asked in several:
        if asked.assay not in (None, *model.card.assays):
            raise RequestError(
                f"--as {asked.assay}: the model knows no such assay, only {', '.join(model.card.assays)}; name one"
            )
        if asked.assay not in (None, *written):
            console.warn(f"--as {asked.assay}: no track of it is written, only of {shorten(sorted(written))}")


def measured(store: Store, biosample: str, layer: str) -> list[Region]:
    """Return every chromosome on which a biosample has reads, or every stretch on which any signal was measured."""
    present = store.chroms_with(biosample, layer)
    absent = [chrom for chrom in store.chromsizes if chrom not in present]
    if absent:
        console.log(f"{biosample}: no {'read' if layer == 'counts' else layer} on {shorten(absent)}: left out")
    if layer == "counts":
        return [Region(chrom, 0, store.chromsizes[chrom]) for chrom in present]
    assays, resolution = [assay for assay in store.assays(biosample) if assay != CONTROL], store.rule.resolution
    found: list[Region] = []
    for chrom in present:
        spans = merged(np.concatenate([store.signal_spans(biosample, assay, chrom) for assay in assays]))
        for span_start, end in spans.tolist():
            start = span_start // resolution * resolution
            if found and found[-1].chrom == chrom and start < found[-1].end:  # they share a bin
                found[-1] = found[-1]._replace(end=end)
            else:
                found.append(Region(chrom, start, end))
    return found


def open_sequence(
    model: Loaded, store: Store, chroms: Sequence[str], reference: Path | None, stack: ExitStack
) -> Fasta | None:
    """Return the DNA that a model reads, None where it reads none or none was given."""
    if reference is None or not model.config.reads_sequence:
        return None
    fasta = stack.enter_context(Fasta(reference))
    fasta.name_as(store.chromsizes, source=store.name)
    for chrom in chroms:
        length = store.chromsizes[chrom]
        if fasta.chromsizes.get(chrom, length) != length:
            raise GenomeError(
                f"{reference}: {chrom} is not {length:,} bp as in {store.name}; use the same genome build"
            )
        if chrom not in fasta.chromsizes:
            console.warn(f"{reference}: has no {chrom}; it is predicted without DNA")
    return fasta


class LaneCovariates(NamedTuple):
    """The covariates of a biosample's lanes.

    own : of each lane as the store has them, None where there is no experiment
    known : the same as the model can use them
    requested : of each assay's output
    """

    own: list[Covariates | None]
    known: list[Covariates | None]
    requested: list[Covariates]


def lane_covariates(
    model: Loaded, store: Store, biosample: str, asked: Sequence[Asked], *, shown: Sequence[str] = ()
) -> LaneCovariates:
    """Return what a model is told of a biosample and asked for, and warn of covariates it had never met.

    Parameters
    ----------
    shown : assays whose tracks are wanted; what is asked of others is not warned of
    """
    own = Lanes(store, biosample, model.config.assays).covariates()
    known: list[Covariates | None] = []
    for name, item in zip((*model.config.assays, CONTROL), own, strict=True):
        fitted = fit_to_card(item, model.card, name) if item is not None else None
        known.append(fitted.covariates if fitted else None)
        for warning in fitted.warnings if fitted else ():
            console.warn(f"{biosample}/{name}: {warning}")
    spans = [item.span_bp for item in own if item is not None and item.span_bp]
    requested = []
    for assay, item in zip(model.config.assays, own, strict=False):
        span_bp = item.span_bp if item else max(spans, default=None)
        fitted = request(model.card, assay, asked_of(assay, asked, item), span_bp=span_bp)
        requested.append(fitted.covariates)
        for warning in fitted.warnings if assay in shown else ():
            console.warn(f"--as for {assay}: {warning}")
    return LaneCovariates(own, known, requested)


def prediction_dataset(
    model: Loaded,
    store: Store,
    biosample: str,
    covariates: LaneCovariates,
    fasta: Fasta | None = None,
    average: ReferenceAverage | None = None,
) -> PredictionDataset:
    """Return the windows of a biosample as a model reads them.

    Parameters
    ----------
    average : the mean signal of other biosamples, for a model that reads it
    """
    lanes = Lanes(store, biosample, model.config.assays).match(model.config.typical_signal)
    return PredictionDataset(model.config, lanes, covariates.known, covariates.requested, fasta, average)
