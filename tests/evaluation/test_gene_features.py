"""Features of genes agree with numpy bin by bin, and do not hang on the strand's direction."""

import numpy as np
import pytest

from candi_cli.evaluation.gene_features import (
    LATENT_STATISTICS,
    TRACK_STATISTICS,
    GeneBins,
    gene_features,
    gene_regions,
    locate_genes,
    non_overlapping,
)

RESOLUTION = 25
CHROM_BP = 100_000  # of each of two chromosomes: a multiple of the resolution
N_BINS = CHROM_BP // RESOLUTION


def random_genes(rng, n=60):
    start = rng.integers(10_000, 60_000, n)
    return start, start + rng.integers(40, 20_000, n), rng.random(n) < 0.5, rng.choice(["chr1", "chr2"], n)


def located(start, end, reverse, chrom):
    return locate_genes(
        gene_regions(start, end, reverse), chrom, judged_chrom=["chr1", "chr2"], judged_start=[0, 0],
        judged_end=[CHROM_BP, CHROM_BP], resolution=RESOLUTION,
    )  # fmt: skip


def brute_force(values, start, end, reverse, chrom):
    """Statistics of the bins that a region overlaps, found base by base."""
    features = []
    for begin, stop, backward, name in zip(start, end, reverse, chrom, strict=True):
        margin = round(0.1 * (stop - begin))
        tss, tes = (stop, begin) if backward else (begin, stop)
        row = []
        for left, right in ((tss - margin, tss + margin), (begin, stop), (tes - margin, tes + margin)):
            bins = sorted({base // RESOLUTION for base in range(left, right)})
            part = values[np.array(bins) + (N_BINS if name == "chr2" else 0)]
            row += [np.median(part), np.subtract(*np.quantile(part, [0.75, 0.25])), part.min(), part.max()]
        features.append(row)
    return np.array(features)


def test_features_are_the_statistics_of_the_bins_that_regions_overlap(rng):
    genes, values = random_genes(rng), rng.gamma(0.5, 2, 2 * N_BINS)
    bins = located(*genes)
    assert bins.gene.tolist() == list(range(60))
    assert gene_features(values, bins) == pytest.approx(brute_force(values, *genes))


def test_features_of_a_mirrored_genome_are_those_of_the_other_strand(rng):
    start, end, reverse, chrom = random_genes(rng)
    values = rng.gamma(0.5, 2, 2 * N_BINS)
    mirrored = np.concatenate([values[:N_BINS][::-1], values[N_BINS:][::-1]])
    there = gene_features(mirrored, located(CHROM_BP - end, CHROM_BP - start, ~reverse, chrom))
    assert (gene_features(values, located(start, end, reverse, chrom)) == there).all()


def test_strands_exchange_tss_and_tes():
    forward, backward = gene_regions([1_000, 1_000], [2_000, 2_000], [False, True])
    assert forward.tolist() == [[900, 1_100], [1_000, 2_000], [1_900, 2_100]]
    assert backward.tolist() == [[1_900, 2_100], [1_000, 2_000], [900, 1_100]]


def test_a_gene_of_few_bases_still_has_regions():
    bins = located(np.array([5_000]), np.array([5_001]), np.array([False]), np.array(["chr1"]))
    assert (bins.end > bins.first).all()


def test_only_genes_whose_regions_are_within_one_judged_region_are_located():
    start, end = (
        np.array([1_000, 1_050, 2_400, 2_500, 5_000, 1_000]),
        np.array([2_000, 2_050, 2_600, 2_900, 5_500, 2_000]),
    )
    chrom = np.array(["chr1", "chr1", "chr1", "chr2", "chr1", "chr3"])
    bins = locate_genes(
        gene_regions(start, end, np.zeros(6, dtype=bool)), chrom, judged_chrom=["chr2", "chr1", "chr1"],
        judged_start=[2_000, 5_000, 900], judged_end=[3_000, 5_510, 2_100], resolution=RESOLUTION,
    )  # fmt: skip
    assert bins.gene.tolist() == [0, 3]  # the second and fifth are overhung by 50 and 40 bp
    n_before = (3_000 - 2_000) // RESOLUTION, 21  # 510 bp begin 21 bins
    assert bins.first[0].tolist() == [sum(n_before) + at // RESOLUTION for at in (0, 100, 1_000)]
    assert bins.first[1].tolist() == [460 // RESOLUTION, 500 // RESOLUTION, 860 // RESOLUTION]


def test_bins_without_a_value_are_left_out(rng):
    genes, values = random_genes(rng), rng.gamma(0.5, 2, 2 * N_BINS)
    values[rng.random(len(values)) < 0.3] = np.nan
    bins = located(*genes)
    features = gene_features(values, bins).reshape(60, 3, 4)
    for row, region in np.ndindex(60, 3):
        part = values[bins.first[row, region] : bins.end[row, region]]
        part = part[~np.isnan(part)]
        expected = [np.median(part), np.subtract(*np.quantile(part, [0.75, 0.25])), part.min(), part.max()]
        assert features[row, region] == pytest.approx(expected) if len(part) else np.isnan(features[row, region]).all()
    assert np.isnan(gene_features(np.full(2 * N_BINS, np.nan), bins)).all()


def test_features_of_latents_are_those_of_each_dimension(rng):
    bins = GeneBins(np.arange(2), np.array([[0, 2, 7], [3, 1, 4]]), np.array([[3, 9, 10], [10, 8, 5]]))
    latents = rng.normal(size=(10, 5)).astype(np.float32)
    features = gene_features(latents, bins, statistics=LATENT_STATISTICS).reshape(2, 3, 6, 5)
    for dimension in range(5):
        alone = gene_features(latents[:, dimension], bins, statistics=LATENT_STATISTICS).reshape(2, 3, 6)
        assert (features[..., dimension] == alone).all()
    part = latents[2:9].astype(np.float64)
    assert features[0, 1, 4:] == pytest.approx(np.stack([part.mean(axis=0), part.std(axis=0)]))
    assert LATENT_STATISTICS[:4] == TRACK_STATISTICS
    latents[4, 2] = np.nan  # of one dimension
    gaps = gene_features(latents, bins, statistics=LATENT_STATISTICS).reshape(2, 3, 6, 5)
    others = [0, 1, 3, 4]
    assert gaps[..., others] == pytest.approx(features[..., others])
    assert gaps[0, 1, 4, 2] == pytest.approx(np.nanmean(latents[2:9, 2]))


def test_genes_that_overlap_no_other_are_found(rng):
    start, end, _, chrom = random_genes(rng, 25)
    expected = [
        not any(i != j and chrom[i] == chrom[j] and start[i] < end[j] and start[j] < end[i] for j in range(len(start)))
        for i in range(len(start))
    ]
    assert non_overlapping(chrom, start, end).tolist() == expected
    assert non_overlapping(["a", "a", "b"], [0, 5, 0], [5, 9, 9]).all()  # neighbours that touch do not overlap
    assert 0 < sum(expected) < 25
