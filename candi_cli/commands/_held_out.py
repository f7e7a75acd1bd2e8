"""Predictions of what a model was not shown: each assay from the others, and reads from the other half of the reads."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from candi_cli.commands._console import console
from candi_cli.covariates import CONTROL, Covariates
from candi_cli.errors import ModelError
from candi_cli.genome import Region
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.judging.tracks import DENOISED, IMPUTED, Observed
from candi_cli.model import Loaded
from candi_cli.model.candi import Lanes, PredictionDataset
from candi_cli.model.candi.halves import HalfLanes, halves, of_share, share_of
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.parts import Computing, predict_regions
from candi_cli.model.requests import fit_to_card, request
from candi_cli.store import Store
from candi_cli.store.predictions import Described, PredictionWriter, parameters_of


class HeldOut(NamedTuple):
    """Tracks of one biosample that are predicted together, and what they are compared with.

    Attributes
    ----------
    kinds : of each assay, what is both learned and observed
    lanes : what the model reads
    inputs : of each assay in the denoised pool, the folds that are its input; none where it is all of its reads
    """

    biosample: str
    pool: str
    kinds: dict[str, list[str]]
    lanes: Lanes
    observed: Observed
    inputs: dict[str, list[int]]


def held_out(
    model: Loaded,
    store: Store,
    truth: Store | None,
    *,
    pools: Sequence[str],
    assays: Sequence[str],
    kinds: Sequence[str],
    dna: bool,
    average: ReferenceAverage | None = None,
) -> Iterator[HeldOut]:
    """Yield what can be judged of a model on a store.

    In the imputed pool each assay is hidden in turn and predicted from the biosample's others. In the denoised pool the
    model reads half of the folds of every experiment and is compared with the other half; with a `truth` of other reads
    it reads all, and is compared with that.

    Parameters
    ----------
    truth : a store of independent measurements of the same experiments
    assays : to be judged; all that the model knows where there are none
    kinds : of tracks
    dna : a model that reads DNA is given it
    average : the mean signal of other biosamples that the model is given
    """
    known = [assay for assay in model.config.assays if not assays or assay in assays]
    for biosample in store.biosamples:
        present = [assay for assay in store.assays(biosample) if assay != CONTROL]
        layer = model.config.input
        shown = [assay for assay in present if layer in store.experiment(biosample, assay).layers]
        observed = Observed(truth or store)
        judged = {assay: _kinds(model, observed, biosample, assay, kinds) for assay in known}
        if IMPUTED in pools:
            more = (model.config.reads_sequence and dna) or bool(average and average.others(biosample))
            yield from _imputed(model, store, biosample, shown, judged, observed, more=more)
        if DENOISED in pools:
            found = _denoised(model, store, truth, biosample, [assay for assay in shown if assay in known], kinds)
            if found is not None:
                yield found


def _kinds(model: Loaded, observed: Observed, biosample: str, assay: str, wanted: Sequence[str]) -> list[str]:
    outputs = model.card.assays[assay].outputs
    return [kind for kind in observed.kinds(biosample, assay) if kind in outputs and kind in wanted]


def _imputed(
    model: Loaded,
    store: Store,
    biosample: str,
    shown: Sequence[str],
    judged: dict[str, list[str]],
    observed: Observed,
    *,
    more: bool,
) -> Iterator[HeldOut]:
    """Yield each assay to be predicted from the others; where there are none, from `more` than them, if there is."""
    for assay, kinds in judged.items():
        others = [other for other in shown if other != assay and other in model.config.assays]
        if not kinds:
            continue
        if not (others or more):
            console.warn(f"{biosample}/{assay}: nothing else was measured of {biosample}, so it cannot be imputed")
            continue
        lanes = Lanes(store, biosample, model.config.assays, shown={*others, CONTROL} & set(store.assays(biosample)))
        lanes.match(model.config.typical_signal)
        yield HeldOut(biosample, IMPUTED, {assay: kinds}, lanes, observed, {})


def _denoised(
    model: Loaded, store: Store, truth: Store | None, biosample: str, assays: Sequence[str], kinds: Sequence[str]
) -> HeldOut | None:
    if truth is not None:
        observed = Observed(truth)
        judged = {
            assay: _kinds(model, observed, biosample, assay, kinds)
            for assay in assays
            if not _same_reads(store, truth, biosample, assay)
        }
        lanes = Lanes(store, biosample, model.config.assays).match(model.config.typical_signal)
        inputs = {}
    elif model.config.input == "counts":
        folds = {
            assay: halves(len(experiment.fold_depths))
            for assay in assays
            if "folds" in (experiment := store.experiment(biosample, assay)).layers
        }
        for assay in [assay for assay in assays if assay not in folds]:
            console.warn(
                f"{biosample}/{assay}: {store.name} keeps no folds of its reads, so no half is left to judge denoising "
                "by; rebuild it with 'candi bin --folds 8'"
            )
        observed = Observed(store, {(biosample, assay): rest for assay, (_, rest) in folds.items()})
        judged = {assay: _kinds(model, observed, biosample, assay, kinds) for assay in folds}
        lanes = HalfLanes(store, biosample, model.config.assays)
        inputs = {assay: read for assay, (read, _) in folds.items()}
    else:
        return None  # a signal has no halves
    judged = {assay: found for assay, found in judged.items() if found}
    return HeldOut(biosample, DENOISED, judged, lanes, observed, inputs) if judged else None


def _same_reads(store: Store, truth: Store, biosample: str, assay: str) -> bool:
    """Return whether two stores hold the same counts of an experiment, which is to say the same reads; warn of it."""
    if biosample not in truth.biosamples or assay not in truth.assays(biosample):
        return False
    own, other = (each.experiment(biosample, assay).covariates.depth for each in (store, truth))
    if own is None or own != other:  # two halves may well have one depth, but not in every bin
        return False
    if not all(_same_counts(store, truth, biosample, assay, chrom) for chrom in store.chromsizes):
        return False
    console.warn(
        f"{biosample}/{assay}: {truth.name} holds the very reads that the model is shown of {store.name}, so denoising "
        "is not judged by them; give a --truth of other reads, or none"
    )
    return True


def _same_counts(store: Store, truth: Store, biosample: str, assay: str, chrom: str) -> bool:
    if chrom not in truth.chromsizes:
        return not store.has(biosample, assay, "counts", chrom)
    own, other = (each.read(biosample, assay, "counts", chrom, 0, each.n_bins(chrom)) for each in (store, truth))
    return np.array_equal(own, other)


def predict_held_out(
    model: Loaded,
    held: HeldOut,
    regions: Sequence[Region],
    path: Path,
    computing: Computing,
    *,
    average: ReferenceAverage | None,
    fasta: Fasta | None,
    recalibrated: bool,
    advance: Callable[[int, str], None],
) -> None:
    """Predict what is held out, at the covariates of what it is compared with, into a file of predictions.

    Parameters
    ----------
    average : the mean signal of other biosamples, for a model that reads it
    recalibrated : apply what the model's card holds
    advance : is told how many bins are done, and what of
    """
    config, store = model.config, held.lanes.store
    own = held.lanes.covariates()
    known = [
        fit_to_card(item, model.card, name).covariates if item is not None else None
        for name, item in zip((*config.assays, CONTROL), own, strict=True)
    ]
    requested = [_requested(model, held, assay) for assay in config.assays]
    dataset = PredictionDataset(config, held.lanes, known, requested, fasta, average)
    described = Described(
        store.rule.resolution,
        store.chromsizes,
        {"family": model.card.family, "sha256": model.card.weights_sha256},
        {
            (held.biosample, assay): _track(model, held, assay, own, requested, recalibrated=recalibrated)
            for assay in held.kinds
        },
        {held.biosample: list(regions)},
    )
    with PredictionWriter(path, described) as writer:
        for region, values in predict_regions(model, described, held.biosample, regions, dataset, computing):
            writer.add(held.biosample, region, values)
            advance(len(values), held.biosample)


def _requested(model: Loaded, held: HeldOut, assay: str) -> Covariates:
    """Return the covariates of an assay's output: those of what it is compared with, else the model's standard."""
    asked, span_bp = Covariates(), None
    if assay in held.kinds:
        experiment = held.observed.store.experiment(held.biosample, assay)
        folds = held.observed.folds.get((held.biosample, assay))
        share = share_of(experiment, folds) if folds is not None else 1.0
        if not share:
            raise ModelError(
                f"{held.observed.store.name}: no read of {held.biosample}/{assay} lies in the half that is to be "
                "judged; leave it out with --assay"
            )
        asked, span_bp = of_share(experiment.covariates, share), experiment.covariates.span_bp
    return request(model.card, assay, replace(asked, span_bp=None), span_bp=span_bp).covariates


def _track(
    model: Loaded,
    held: HeldOut,
    assay: str,
    own: Sequence[Covariates | None],
    requested: Sequence[Covariates],
    *,
    recalibrated: bool,
) -> dict[str, object]:
    lane = model.config.assays.index(assay)
    item, parameters = own[lane], parameters_of(held.kinds[assay])
    fits = model.card.recalibration if recalibrated else None
    return {
        "observed": held.pool == DENOISED,
        "covariates": asdict(item) if item else None,
        "asked": asdict(requested[lane]),
        "parameters": parameters,
        "recalibration": fits.of(assay, held.pool, parameters) if fits else None,
    }


def trained_on(model: Loaded, regions: Sequence[Region]) -> str:
    """Return a line about which of some regions the model was trained on; nothing where it was on none."""
    training = model.card.training
    tests = set(training.get("test_chroms") or ())
    left = sorted({region.chrom for region in regions} - tests)
    stated = training.get("regions") or []
    if stated:
        spans = [_span(text) for text in stated]
        left = sorted(
            {
                region.chrom
                for region in regions
                for chrom, start, end in spans
                if region.chrom == chrom and max(region.start, start) < min(region.end, end)
            }
            - tests
        )
    if not left or not training:
        return ""
    return f"{model.path.name} was trained on {', '.join(left)}: scores there say how it fits, not how it generalises"


def _span(text: str) -> tuple[str, int, int]:
    """Return a region as a model card states it; the whole chromosome where it names no span."""
    chrom, colon, span = text.rpartition(":")
    start, _, end = span.replace(",", "").partition("-")
    if not colon or not start.isdigit() or not end.isdigit():
        return text, 0, 1 << 62
    return chrom, int(start) - 1, int(end)
