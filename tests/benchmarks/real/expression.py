"""R7: do tracks predict the expression of genes that the regression has not seen?

Each cell's tracks are those of the model that never saw the cell. Features, regressions and nested cross-validation are
those of `candi evaluate --expression`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import figures
import numpy as np
import tables
from impute import models_of, predicted
from numpy.typing import NDArray
from pilot import MARKS, RESOLUTION, Cohort, Pilot, leave_one_out
from trained import Models, Named
from units import Row, kept_arrays, kept_rows

from candi_cli.commands._tracks import lane_covariates
from candi_cli.evaluation.expression import cross_validate, score_prediction
from candi_cli.evaluation.gene_features import LATENT_STATISTICS, gene_features, gene_regions, locate_genes
from candi_cli.evaluation.metrics import pearson, spearman
from candi_cli.export.source import joined
from candi_cli.genome import Region
from candi_cli.io.expression import match_genes, read_expression
from candi_cli.io.genes import Genes, read_genes
from candi_cli.model.candi import Lanes, PredictionDataset
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing, latents, predict_regions
from candi_cli.store import Store
from candi_cli.store.predictions import Described

CELLS = ("E003", "E065", "E116")  # whose expression is known
TSS_BP = 1_000  # to each side, of the plain correlation
SHOWN = ("pearson", "spearman", "r2")
POOLED = "the three cells in one regression"
LATENT = "latent"
Array = NDArray[np.float64]


class Measured(NamedTuple):
    """The genes, and their RPKM in each cell: shape (G, cells)."""

    genes: Genes
    rpkm: Array


def read_measured(data: Path) -> Measured:
    """Return the protein-coding genes of the pilot regions and their expression."""
    genes = read_genes(data / "rna" / "genes_in_pilot_regions.hg19.tsv")
    table = read_expression(data / "rna" / "roadmap57.RPKM.clean.tsv.gz")
    matched = match_genes(genes, table, annotation="the pilot genes", table="Roadmap RPKM")
    samples = table.sample.tolist()
    values = table.values[matched.expression]
    return Measured(genes.take(matched.genes), values[:, [samples.index(cell) for cell in CELLS]])


def located(regions: NDArray[np.int64], genes: Genes, judged: Sequence[Region], resolution: int = RESOLUTION):
    """Return the bins of regions of genes, shape (G, 3, 2), among those of judged regions."""
    return locate_genes(
        regions, genes.chrom, judged_chrom=[region.chrom for region in judged],
        judged_start=[region.start for region in judged], judged_end=[region.end for region in judged],
        resolution=resolution,
    )  # fmt: skip


def spans_of(genes: Genes) -> NDArray[np.int64]:
    """Return TSS, body and TES of genes."""
    return gene_regions(genes.start, genes.end, genes.reverse)


def shown_all(pilot: Pilot, model: Named, cohort: Cohort, genes: Genes, threads: int) -> dict[str, NDArray]:
    """Return each mark's mean when all are shown, (M, L), and the latent's features at genes; NaN where none is."""
    loaded, computing = model.load(), Computing.on(choose("cpu"), batch_size=None, threads=threads)
    assays = loaded.config.assays
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(pilot.store(cohort.cell)))
        others = [stack.enter_context(Store.open(pilot.store(other))) for other in cohort.others]
        covariates = lane_covariates(loaded, store, cohort.cell, ())
        average = None
        if loaded.config.reads_reference:
            members = [Lanes(each, name, assays) for each in others for name in each.biosamples]
            average = ReferenceAverage(assays, members)
        dataset = PredictionDataset(
            loaded.config, Lanes(store, cohort.cell, assays), covariates.known, covariates.requested, None, average
        )
        described = Described(
            RESOLUTION, store.chromsizes, {}, {(cohort.cell, mark): {"parameters": ["signal_mean"]} for mark in MARKS}
        )
        values = np.full((len(MARKS), pilot.grid.n_bins), np.nan, dtype=np.float32)
        for stretch in pilot.grid.stretches:
            pieces = predict_regions(loaded, described, cohort.cell, [stretch.region], dataset, computing)
            columns = described.assays(cohort.cell)
            found = np.concatenate([piece for _, piece in pieces]).T
            for column, mark in enumerate(columns):
                values[MARKS.index(mark), stretch.place] = found[column]
        features = None
        for chrom in dict.fromkeys(region.chrom for region in pilot.regions):
            own = sorted((region for region in pilot.regions if region.chrom == chrom), key=lambda each: each.start)
            here = np.flatnonzero(genes.chrom == chrom)
            if not len(here):
                continue
            regions, latent = zip(*latents(loaded, described, own, dataset, computing), strict=True)
            bins = located(
                spans_of(genes.take(here)), genes.take(here), joined(regions), RESOLUTION * loaded.config.latent_bins
            )
            if not len(bins.gene):
                continue
            statistics = gene_features(np.concatenate(latent), bins, statistics=LATENT_STATISTICS)
            if features is None:
                features = np.full((len(genes.start), statistics.shape[1]), np.nan)
            features[here[bins.gene]] = statistics
    return {"denoised": values, LATENT: np.zeros((len(genes.start), 1)) if features is None else features}


def features_of(
    pilot: Pilot, models: Models, number: int, cohort: Cohort, measured: Measured, folder: Path, imputed: Path
) -> dict[str, Array]:
    """Return the features of genes in one cell by their source, each (G, F); NaN of genes beyond the regions."""
    genes, model = measured.genes, models_of(models, pilot, cohort)[number]
    bins = located(spans_of(genes), genes, pilot.regions)

    def at_genes(tracks: Sequence[NDArray]) -> Array:
        found = np.full((len(genes.start), len(tracks) * 12), np.nan)
        found[bins.gene] = np.hstack([gene_features(track, bins) for track in tracks])
        return found

    kept = kept_arrays(
        folder / "tracks" / f"{cohort.cell}.{model.tag()}.npz",
        lambda: shown_all(pilot, model, cohort, genes, models.threads),
    )
    hidden = np.full((len(MARKS), pilot.grid.n_bins), np.nan)
    for test in (True, False):
        part = predicted(pilot, model, cohort, imputed, test=test, threads=models.threads)
        where = pilot.test if test else ~pilot.test
        hidden[:, where] = part[:, 0][:, where]
    observed = pilot.observed(cohort.cell)
    found = {
        "observed": at_genes([observed[mark] for mark in MARKS]),
        "denoised": at_genes(kept["denoised"]),
        "imputed": at_genes(hidden),
        LATENT: kept[LATENT],
    }
    found["denoised and imputed"] = np.hstack([found["denoised"], found["imputed"]])
    return found


def scored(
    group: str, source: str, seed: str, features: Array, target: Array, gene: NDArray, cell: NDArray
) -> Iterator[Row]:
    """Yield the scores of held-out genes, with the standard error over the outer folds."""
    known = np.isfinite(features).all(axis=1)
    predictions = cross_validate(features[known], target[known], gene[known])
    for regression, prediction in predictions.items():
        for name, score in score_prediction(target[known], prediction, cell[known]).items():
            yield Row(group, group, f"{source}, {regression}", seed, name, score.value, score.se_fold)


def _rows(sources: dict[str, dict[str, Array]], measured: Measured, seed: str) -> Iterator[Row]:
    """Yield the scores in each cell, and in all together, of each source.

    Latents of different cells' models have no coordinates in common: they are not put together.

    Parameters
    ----------
    sources : features by cell and source
    """
    genes, target = measured.genes.gene_id, np.log1p(measured.rpkm)
    for name in sources[CELLS[0]]:
        parts = [sources[cell][name] for cell in CELLS]
        for column, cell in enumerate(CELLS):
            one = np.full(len(genes), cell)
            yield from scored(cell, name, seed, parts[column], target[:, column], genes, one)
        if name == LATENT:
            continue
        cells = np.repeat(CELLS, len(genes))
        together = np.concatenate(parts)
        yield from scored(POOLED, name, seed, together, target.T.ravel(), np.tile(genes, len(CELLS)), cells)


def rows_of_observed(pilot: Pilot, measured: Measured) -> Iterator[Row]:
    """Yield what single observed marks tell, and all with the genes' expression exchanged; no model is in it."""
    genes = measured.genes
    bins = located(spans_of(genes), genes, pilot.regions)
    tss = np.where(genes.reverse, genes.end, genes.start)
    around = np.repeat(np.stack([tss - TSS_BP, tss + TSS_BP], axis=1)[:, None], 3, axis=1)
    tss_bins = located(around, genes, pilot.regions)
    order = np.random.default_rng(0).permutation(len(genes.start))
    sources: dict[str, dict[str, Array]] = {}
    for column, cell in enumerate(CELLS):
        observed = pilot.observed(cell)
        target = np.log2(measured.rpkm[tss_bins.gene, column] + 0.1)
        sources[cell] = {}
        for mark in MARKS:
            mean = gene_features(observed[mark], tss_bins, statistics=["mean"])[:, 0]
            name = f"{mark} mean at the TSS, no regression"
            yield Row(cell, cell, name, "-", "pearson", pearson(target, mean))
            yield Row(cell, cell, name, "-", "spearman", spearman(target, mean))
            found = np.full((len(genes.start), 12), np.nan)
            found[bins.gene] = gene_features(observed[mark], bins)
            sources[cell][f"observed {mark}"] = found
        every = np.hstack(list(sources[cell].values()))
        inside = np.isfinite(every).all(axis=1)
        exchanged = np.full_like(every, np.nan)
        exchanged[inside] = every[inside][np.argsort(np.argsort(order[inside]))]
        sources[cell]["observed, genes exchanged"] = exchanged
    yield from _rows(sources, measured, "-")


def run(pilot: Pilot, models: Models, folder: Path, imputed: Path) -> None:
    """Score each source of features, print the table and draw it.

    Parameters
    ----------
    imputed : the folder of R1, whose predictions are used
    """
    measured = read_measured(pilot.data)
    rows = kept_rows(folder / "scores" / "observed.tsv", lambda: rows_of_observed(pilot, measured))
    cohorts = {cohort.cell: cohort for cohort in leave_one_out() if cohort.cell in CELLS}
    named = [models_of(models, pilot, cohort) for cohort in cohorts.values()]
    for number, same_seed in enumerate(zip(*named, strict=True)):

        def score(number: int = number, seed: str = same_seed[0].seed) -> Iterator[Row]:
            sources = {
                cell: features_of(pilot, models, number, cohort, measured, folder, imputed)
                for cell, cohort in cohorts.items()
            }
            yield from _rows(sources, measured, seed)

        tag = "_".join(model.tag()[:6] for model in same_seed)
        rows += kept_rows(folder / "scores" / f"expression.{tag}.tsv", score)
    title = "log(1 + RPKM) of held-out genes of the pilot regions, nested cross-validation"
    single = [row for row in rows if row.group != POOLED]
    tables.report("R7", title, single, folder, shown=SHOWN)
    pooled = [row for row in rows if row.group == POOLED]
    tables.report("R7P", f"{title}; {POOLED}", pooled, folder, shown=SHOWN)
    figures.bars(single, folder / "R7.svg", scores=SHOWN, model="denoised", title=title)
