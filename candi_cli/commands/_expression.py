"""Whether tracks predict the expression of genes: observed, denoised, denoised with imputed, and the latent."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.commands._console import console
from candi_cli.commands._judging import Judgement
from candi_cli.commands._tracks import lane_covariates, measured, open_sequence, prediction_dataset
from candi_cli.errors import RequestError
from candi_cli.evaluation.expression import cross_validate, score_prediction
from candi_cli.evaluation.gene_features import (
    LATENT_STATISTICS,
    GeneBins,
    gene_features,
    gene_regions,
    locate_genes,
)
from candi_cli.export.source import joined
from candi_cli.genome import Region, parse_regions, regions_within
from candi_cli.io.expression import match_genes, read_expression
from candi_cli.io.genes import Genes, unversioned
from candi_cli.judging.grid import Grid
from candi_cli.judging.table import ALL, Row
from candi_cli.judging.tracks import Observed
from candi_cli.model import Loaded
from candi_cli.model.parts import Computing, latents, predict_regions
from candi_cli.model.prediction import Windows
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Described

SOURCES = ("observed", "denoised", "denoised and imputed", "latent")
LEAST_GENES = 50  # in all folds together; fewer leave inner folds with a handful
Array = NDArray[np.float64]


class Sampled(NamedTuple):
    """The features of genes in one biosample.

    Attributes
    ----------
    gene : shape (K,), which genes; features : by source, shape (K, F)
    """

    biosample: str
    gene: NDArray[np.int64]
    features: dict[str, Array]


class Expressed(NamedTuple):
    """Genes, their expression, and the biosamples that it was measured in.

    Attributes
    ----------
    values : shape (K, S), of the genes in the samples of the table
    column : of each sample in `values`
    pairs : biosamples, and the stores that they are in
    kind : of the tracks that features are made of
    assays : that all of them have
    """

    genes: Genes
    values: Array
    column: dict[str, int]
    pairs: list[tuple[Store, str]]
    kind: str
    assays: list[str]


def read_expressed(judgement: Judgement, genes: Genes, path: Path) -> Expressed:
    """Return what the expression of genes is predicted in; only assays that all biosamples have count as observed.

    Raises
    ------
    AnnotationError
        The table cannot be read, or names none of the genes.
    RequestError
        It has no column of a biosample, or there are too few genes.
    """
    table = read_expression(path)
    matched = match_genes(genes, table, annotation=str(judgement.options.genes), table=str(path))
    chosen, values = genes.take(matched.genes), table.values[matched.expression]
    column = {name: at for at, name in enumerate(table.sample.tolist())}
    pairs = [(store, name) for store in judgement.stores for name in store.biosamples if name in column]
    if not pairs:
        names = sorted({name for store in judgement.stores for name in store.biosamples})
        raise RequestError(
            f"{path}: has columns {', '.join(table.sample[:5])}, none of the biosamples {', '.join(names)}; "
            "name the columns as the biosamples"
        )
    kind, assays = _shared(judgement, pairs)
    if not assays:
        raise RequestError(
            f"{path}: its biosamples share no assay whose signal or counts the model predicts; give biosamples that "
            "have one in common"
        )
    judged = set[str]()
    for store, name in pairs:
        regions = _regions(judgement, store, name)
        for chrom in dict.fromkeys(region.chrom for region in regions):
            here = chosen.take(chosen.chrom == chrom)
            own = [region for region in regions if region.chrom == chrom]
            judged.update(here.gene_id[_located(here, own, store.rule.resolution).gene].tolist())
    if len(judged) < LEAST_GENES:
        raise RequestError(
            f"{path}: {len(judged):,} of its genes lie in the judged regions, {LEAST_GENES} are needed; "
            "judge more of the genome with -r"
        )
    return Expressed(chosen, values, column, pairs, kind, assays)


def expression_rows(judgement: Judgement, expressed: Expressed) -> list[Row]:
    """Return how well the expression of genes that no fold shares is predicted from each source of features.

    Raises
    ------
    RequestError
        There are too few genes of which all features are known.
    """
    chosen, values, column, pairs, kind, assays = expressed
    sampled = [_sample(judgement, store, name, kind, assays, chosen) for store, name in pairs]
    identifiers = np.array([unversioned(gene) for gene in chosen.gene_id.tolist()])
    gene = np.concatenate([identifiers[each.gene] for each in sampled])
    biosample = np.concatenate([np.full(len(each.gene), each.biosample) for each in sampled])
    target = np.log1p(np.concatenate([values[each.gene, column[each.biosample]] for each in sampled]))
    judgement.note(
        f"expression: {len(np.unique(gene)):,} genes in {', '.join(dict.fromkeys(biosample.tolist()))}, "
        f"observed {kind} of {', '.join(assays)}"
    )
    found: list[Row] = []
    for source in SOURCES:
        features = np.concatenate([each.features[source] for each in sampled])
        found += _rows(source, features, target, gene, biosample, seed=judgement.options.seed)
    return found


def _rows(
    source: str, features: Array, target: Array, gene: NDArray, biosample: NDArray, *, seed: int
) -> Iterator[Row]:
    known = np.isfinite(features).all(axis=1)
    console.log(f"expression from {source}: {features.shape[1]:,} features")
    try:
        predictions = cross_validate(features[known], target[known], gene[known], seed=seed)
    except ValueError as error:
        raise RequestError(f"--expression: {error}; judge more of the genome with -r") from error
    for regression, prediction in predictions.items():
        for name, score in score_prediction(target[known], prediction, biosample[known]).items():
            note = "standard error over the five outer folds"
            yield Row(
                ALL, ALL, source, "expression", "TSS, body, TES", regression, name, score.value, score.se_fold,
                int(known.sum()), note,
            )  # fmt: skip


def _shared(judgement: Judgement, pairs: Sequence[tuple[Store, str]]) -> tuple[str, list[str]]:
    """Return what features are made of, and the assays of which all biosamples have it and the model predicts it.

    It is signal or counts, whichever more assays have, the same in all biosamples: features are of one unit.
    """
    model = judgement.model
    assert model is not None

    def shared(kind: str) -> list[str]:
        known = [assay for assay in model.config.assays if kind in model.card.assays[assay].outputs]
        return [assay for assay in known if all(kind in Observed(store).kinds(name, assay) for store, name in pairs)]

    found = {kind: shared(kind) for kind in ("signal", "counts")}
    kind = max(found, key=lambda each: len(found[each]))
    return kind, found[kind]


def _regions(judgement: Judgement, store: Store, biosample: str) -> list[Region]:
    """Return what is judged of one biosample."""
    model, wanted = judgement.model, judgement.options.regions
    assert model is not None
    here = regions_within(wanted, store.chromsizes)
    return parse_regions(here, store.chromsizes, store.rule.resolution) or measured(
        store, biosample, model.config.input
    )


def _sample(
    judgement: Judgement, store: Store, biosample: str, kind: str, assays: Sequence[str], genes: Genes
) -> Sampled:
    """Return the features of the genes of one biosample, chromosome by chromosome."""
    model, computing = judgement.model, judgement.computing
    assert model is not None
    regions = _regions(judgement, store, biosample)
    parts: list[tuple[NDArray[np.int64], dict[str, Array]]] = []
    with ExitStack() as stack:
        chroms = sorted({region.chrom for region in regions})
        fasta = open_sequence(model, store, chroms, judgement.options.reference, stack)
        covariates = lane_covariates(model, store, biosample, ())
        dataset = prediction_dataset(model, store, biosample, covariates, fasta, judgement.average)
        for chrom in dict.fromkeys(region.chrom for region in regions):
            own = [region for region in regions if region.chrom == chrom]
            on_chrom = np.flatnonzero(genes.chrom == chrom)
            if not len(on_chrom):
                continue
            bins = _located(genes.take(on_chrom), own, store.rule.resolution)
            if len(bins.gene):
                console.log(f"expression: {len(bins.gene):,} genes of {biosample} on {chrom}")
                place = _Place(model, store, biosample, kind, own, dataset, computing)
                parts.append((on_chrom[bins.gene], _features(place, assays, genes.take(on_chrom), bins)))
    if not parts:
        return Sampled(biosample, np.zeros(0, dtype=np.int64), {source: np.zeros((0, 1)) for source in SOURCES})
    gene = np.concatenate([found for found, _ in parts])
    return Sampled(biosample, gene, {name: np.concatenate([each[name] for _, each in parts]) for name in SOURCES})


def _located(genes: Genes, regions: Sequence[Region], resolution: int) -> GeneBins:
    return locate_genes(
        gene_regions(genes.start, genes.end, genes.reverse), genes.chrom,
        judged_chrom=[region.chrom for region in regions], judged_start=[region.start for region in regions],
        judged_end=[region.end for region in regions], resolution=resolution,
    )  # fmt: skip


class _Place(NamedTuple):
    """Regions of one chromosome of a biosample, what predicts them, and the kind of track that features are of."""

    model: Loaded
    store: Store
    biosample: str
    kind: str
    regions: Sequence[Region]
    dataset: Windows
    computing: Computing


def _features(place: _Place, assays: Sequence[str], genes: Genes, bins: GeneBins) -> dict[str, Array]:
    """Return the features of genes on one chromosome, by source."""
    model, store, biosample, kind = place.model, place.store, place.biosample, place.kind
    grid, observed = Grid(place.regions, store.rule.resolution), Observed(store)
    columns = [gene_features(_scaled(observed.read(biosample, assay, kind, grid), kind), bins) for assay in assays]
    known = [assay for assay in model.config.assays if kind in model.card.assays[assay].outputs]
    by_assay = {
        assay: gene_features(values, bins) for assay, values in zip(known, _predicted(place, known), strict=True)
    }
    return {
        "observed": np.concatenate(columns, axis=1),
        "denoised": np.concatenate([by_assay[assay] for assay in assays], axis=1),
        "denoised and imputed": np.concatenate(list(by_assay.values()), axis=1),
        "latent": _latent_features(place, genes, bins),
    }


def _scaled(values: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Return values as features see them: arcsinh, which signal already is."""
    return values if kind == "signal" else np.arcsinh(values)


def _predicted(place: _Place, assays: Sequence[str]) -> NDArray[np.float32]:
    """Return arcsinh of the expected value of each assay: shape (A, L)."""
    name = PARAMETERS[place.kind][0]
    described = Described(
        place.store.rule.resolution, place.store.chromsizes, {},
        {(place.biosample, assay): {"parameters": [name]} for assay in assays},
    )  # fmt: skip
    pieces = predict_regions(place.model, described, place.biosample, place.regions, place.dataset, place.computing)
    values = np.concatenate([values for _, values in pieces]).T
    return np.arcsinh(np.exp(values)) if place.kind == "counts" else values


def _latent_features(place: _Place, genes: Genes, bins: GeneBins) -> Array:
    """Return six statistics of each dimension of the latent, for the genes of `bins`."""
    resolution, config = place.store.rule.resolution, place.model.config
    described = Described(resolution, place.store.chromsizes, {}, {})
    found = latents(place.model, described, place.regions, place.dataset, place.computing)
    regions, values = zip(*found, strict=True)
    located = _located(genes.take(bins.gene), joined(regions), resolution * config.latent_bins)
    statistics = gene_features(np.concatenate(values), located, statistics=LATENT_STATISTICS)
    features = np.full((len(bins.gene), statistics.shape[1]), np.nan)
    features[located.gene] = statistics
    return features
