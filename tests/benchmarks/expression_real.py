"""Do tracks predict expression? Benchmark row R7, with observed tracks.

Data: -log10 p at 25 bp of three cells x five marks on the ENCODE pilot regions (`roadmap_pilot_hg19`), the 353
protein-coding genes within them and Roadmap's RPKM (`rna`):

    python tests/benchmarks/expression_real.py --data ../shared/data

Log(1 + RPKM) of held-out genes is predicted from the features of each mark alone and of all five, in each cell and in
the three together. `shuffled` is the same with the genes' expression exchanged. First comes the plain correlation of
log2(0.1 + RPKM) and one mark's mean at the TSS, without any regression.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyBigWig
from numpy.typing import NDArray

from candi_cli.evaluation.expression import cross_validate, score_prediction
from candi_cli.evaluation.gene_features import GeneBins, gene_features, gene_regions, locate_genes
from candi_cli.evaluation.metrics import pearson, spearman
from candi_cli.io.expression import match_genes, read_expression
from candi_cli.io.genes import Genes, read_genes

CELLS = ("E003", "E065", "E116")
MARKS = ("H3K27me3", "H3K36me3", "H3K4me1", "H3K4me3", "H3K9me3")
RESOLUTION = 25
TSS_BP = 1_000  # to each side, of the plain correlation


class Layout(NamedTuple):
    """The pilot regions in the order of their bins, each of shape (R,)."""

    chrom: NDArray[np.str_]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def read_layout(path: Path) -> Layout:
    """Return the regions of `pilot_layout.tsv`."""
    with path.open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    start = np.array([int(row["first_bin_start"]) for row in rows])
    bins = np.array([int(row["n_bins"]) for row in rows])
    return Layout(np.array([row["chrom"] for row in rows]), start, start + bins * RESOLUTION)


def read_track(path: Path, layout: Layout) -> NDArray[np.float32]:
    """Return arcsinh(-log10 p) of the bins of the pilot regions; what a bigWig lacks is 0."""
    with pyBigWig.open(str(path)) as track:
        pieces = [
            track.values(chrom, int(start), int(end), numpy=True)[::RESOLUTION]  # each bin has one value
            for chrom, start, end in zip(*layout, strict=True)
        ]
    return np.arcsinh(np.nan_to_num(np.concatenate(pieces))).astype(np.float32)


def tss_bins(genes: Genes, layout: Layout) -> GeneBins:
    """Return the bins around each gene's TSS, as the one region repeated."""
    tss = np.where(genes.reverse, genes.end, genes.start)
    regions = np.repeat(np.stack([tss - TSS_BP, tss + TSS_BP], axis=1)[:, None], 3, axis=1)
    return locate(regions, genes, layout)


def locate(regions: NDArray[np.int64], genes: Genes, layout: Layout) -> GeneBins:
    """Return the bins of regions of genes."""
    return locate_genes(
        regions, genes.chrom, judged_chrom=layout.chrom, judged_start=layout.start, judged_end=layout.end,
        resolution=RESOLUTION,
    )  # fmt: skip


def main() -> None:
    """Print tables of correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder, rna = arguments.data / "roadmap_pilot_hg19", arguments.data / "rna"
    layout, genes = read_layout(folder / "pilot_layout.tsv"), read_genes(rna / "genes_in_pilot_regions.hg19.tsv")
    expression = read_expression(rna / "roadmap57.RPKM.clean.tsv.gz")
    matched = match_genes(genes, expression, annotation="the pilot genes", table="Roadmap RPKM")
    genes, rpkm = genes.take(matched.genes), expression.values[matched.expression]
    samples = expression.sample.tolist()
    chosen = rpkm[:, [samples.index(cell) for cell in CELLS]]  # (G, cells)
    target = np.log1p(chosen)
    tracks = {
        (cell, mark): read_track(folder / f"{cell}.{mark}.pilot.neglog10p.hg19.bw", layout)
        for cell in CELLS
        for mark in MARKS
    }
    print_correlations(tracks, genes, layout, np.log2(chosen + 0.1))
    print_predictions(tracks, genes, layout, target, arguments.seed)


def print_correlations(tracks: dict, genes: Genes, layout: Layout, target: NDArray[np.float64]) -> None:
    """Print how log expression correlates with the mean of each mark at the TSS."""
    bins = tss_bins(genes, layout)
    print(f"mean arcsinh(-log10 p) within {TSS_BP:,} bp of the TSS and log2(0.1 + RPKM), {len(bins.gene)} genes")
    print("mark", *(f"{cell} {name}" for cell in CELLS for name in ("pearson", "spearman")), sep="\t")
    for mark in MARKS:
        row = []
        for column, cell in enumerate(CELLS):
            mean = gene_features(tracks[cell, mark], bins, statistics=["mean"])[:, 0]
            observed = target[bins.gene, column]
            row += [pearson(observed, mean), spearman(observed, mean)]
        print(mark, *(f"{value:.3f}" for value in row), sep="\t")


def print_predictions(tracks: dict, genes: Genes, layout: Layout, target: NDArray[np.float64], seed: int) -> None:
    """Print the scores of held-out genes."""
    bins = locate(gene_regions(genes.start, genes.end, genes.reverse), genes, layout)
    by_track = {key: gene_features(track, bins) for key, track in tracks.items()}
    rng = np.random.default_rng(seed)
    exchanged = bins.gene[rng.permutation(len(bins.gene))]
    print(f"\nheld-out genes, {len(bins.gene)} of {len(genes.start)} with all of their regions")
    names = ("pearson", "spearman", "r2", "se_fold(pearson)", "se_cell(pearson)")
    print("cells", "features", "regression", *names, sep="\t")
    for cells in (*((cell,) for cell in CELLS), CELLS):
        for name, marks in (*((mark, (mark,)) for mark in MARKS), ("all", MARKS), ("shuffled", MARKS)):
            features = np.concatenate([np.hstack([by_track[cell, mark] for mark in marks]) for cell in cells])
            chosen = exchanged if name == "shuffled" else bins.gene
            observed = np.concatenate([target[chosen, CELLS.index(cell)] for cell in cells])
            gene, biosample = np.tile(genes.gene_id[bins.gene], len(cells)), np.repeat(cells, len(bins.gene))
            for regression, prediction in cross_validate(features, observed, gene, seed=seed).items():
                scores = score_prediction(observed, prediction, biosample)
                values = [scores[score].value for score in ("pearson", "spearman", "r2")]
                errors = [scores["pearson"].se_fold, scores["pearson"].se_biosample]
                print("+".join(cells), name, regression, *(f"{value:.3f}" for value in (*values, *errors)), sep="\t")


if __name__ == "__main__":
    main()
