"""Thinning counts beside thinning reads: what is the same in distribution, and what is not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pysam
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from candi_cli.counting import FIVE_PRIME, MIDPOINT, OVERLAP, CountingRule
from candi_cli.io.reads import ReadCounter

BAM = Path(__file__).parents[1] / "test_data" / "sim2.H3K4me3.bam"
PAIRED = BAM.with_name("sim1.H3K4me3.bam")
CHROM, N_SEEDS = "chr1", 120


def counts(path: Path, rule: str) -> NDArray[np.int64]:
    return next(each.counts for each in ReadCounter(path, CountingRule(rule)) if each.chrom == CHROM).astype(np.int64)


def renamed(path: Path, source: Path = BAM) -> None:
    """Write the BAM with names that say nothing of where a read lies, as those of a sequencer do not.

    Of names that are numbered along the genome, samtools' hash keeps neighbours apart: the variance of a bin is then
    up to 19 % below the binomial one (dsf 2).
    """
    rng = np.random.default_rng(0)
    names: dict[str, str] = {}
    with pysam.AlignmentFile(str(source)) as bam, pysam.AlignmentFile(str(path), "wb", template=bam) as target:
        for read in bam:
            read.query_name = names.setdefault(read.query_name, rng.bytes(8).hex())
            target.write(read)


def thinned_by_samtools(named: Path, part: Path, dsf: int) -> Iterator[Path]:
    """Yield a BAM with one in `dsf` of the templates of another, for N_SEEDS seeds of samtools' own hash."""
    for seed in np.random.default_rng(dsf).integers(0, 2**31, N_SEEDS):
        pysam.view("--subsample", str(1 / dsf), "--subsample-seed", str(seed), "-b", "-o", str(part), str(named),
                   catch_stdout=False)  # fmt: skip
        yield part


@pytest.fixture(scope="module")
def thinned(tmp_path_factory) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Counts of the BAM thinned by samtools' own hash: shape (N_SEEDS, n_bins) for each rule and dsf."""
    path = tmp_path_factory.mktemp("thinned") / "part.bam"
    named = path.with_name("named.bam")
    renamed(named)
    found: dict[tuple[str, int], list] = {}
    for dsf in (2, 4, 8):
        for part in thinned_by_samtools(named, path, dsf):
            for rule in (FIVE_PRIME, OVERLAP):
                found.setdefault((rule, dsf), []).append(counts(part, rule))
    return {key: np.stack(values) for key, values in found.items()}


@pytest.mark.parametrize("dsf", [2, 4, 8])
@pytest.mark.parametrize("rule", [FIVE_PRIME, OVERLAP])
def test_mean_and_variance_of_a_bin_are_binomial_when_the_reads_of_a_bam_are_thinned(thinned, rule, dsf):
    whole, parts = counts(BAM, rule), thinned[rule, dsf]
    where = whole > 0
    p = 1 / dsf
    expected, variance = whole[where] * p, whole[where] * p * (1 - p)
    n_values = where.sum() * N_SEEDS
    error_of_mean = np.sqrt(variance.sum() / N_SEEDS * overlap_factor(rule)) / expected.sum()
    assert parts[:, where].mean(axis=0).sum() / expected.sum() == pytest.approx(1, abs=4 * error_of_mean)
    found = ((parts[:, where] - expected) ** 2).sum() / (variance.sum() * N_SEEDS)
    assert found == pytest.approx(1, abs=4 * np.sqrt(3 * overlap_factor(rule) / n_values) * dsf)


def overlap_factor(rule: str) -> float:
    """A read of 36 bp lies in 2 or 3 bins at once, so that the sum over bins varies as much more."""
    return 1 if rule == FIVE_PRIME else 3


@pytest.mark.parametrize("dsf", [2, 4, 8])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_five_prime_counts_of_a_thinned_bam_are_binomial_in_distribution(thinned, dsf, n):
    whole, parts = counts(BAM, FIVE_PRIME), thinned[FIVE_PRIME, dsf]
    assert_binomial(parts[:, whole == n], n, dsf)


def assert_binomial(parts: NDArray[np.int64], n: int, dsf: int) -> None:
    """Check that what is left of n reads is binomial, by a chi-squared test."""
    seen = np.bincount(parts.reshape(-1), minlength=n + 1)
    assert len(seen) == n + 1
    expected = binom.pmf(np.arange(n + 1), n, 1 / dsf) * seen.sum()
    assert ((seen - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-4, n)


def test_midpoint_counts_of_a_thinned_bam_of_pairs_are_binomial_and_no_molecule_is_in_two_bins(tmp_path):
    """Mates share a template: by `five-prime` two bins lose them together, which thinning counts cannot do."""
    renamed(tmp_path / "named.bam", PAIRED)
    found: dict[str, list] = {MIDPOINT: [], FIVE_PRIME: []}
    for part in thinned_by_samtools(tmp_path / "named.bam", tmp_path / "part.bam", 2):
        for rule, parts in found.items():
            parts.append(counts(part, rule))
    spread = {}
    for rule, thinned_counts in found.items():
        whole, parts = counts(PAIRED, rule), np.stack(thinned_counts)
        for n in (1, 2) if rule == MIDPOINT else ():
            assert_binomial(parts[:, whole == n], n, 2)
        spread[rule] = parts.sum(axis=1).var() / (whole.sum() / 4)  # of all bins together: 1 where they are independent
    error = np.sqrt(2 / N_SEEDS)
    assert spread[MIDPOINT] == pytest.approx(1, abs=4 * error)
    assert spread[FIVE_PRIME] == pytest.approx(2, abs=8 * error)


@pytest.mark.parametrize("dsf", [2, 4, 8])
def test_neighbouring_bins_are_thinned_together_by_reads_and_apart_by_counts(thinned, dsf, rng):
    whole = counts(BAM, OVERLAP)
    p = 1 / dsf
    drawn = rng.binomial(whole, p, size=(N_SEEDS, len(whole)))
    by_reads, by_counts = (
        correlation_of_neighbours(parts - whole * p, whole) for parts in (thinned[OVERLAP, dsf], drawn)
    )
    assert by_counts == pytest.approx(0, abs=0.02)
    assert by_reads == pytest.approx(shared_reads(whole), abs=0.04)
    assert by_reads > 0.4
    fives = correlation_of_neighbours(thinned[FIVE_PRIME, dsf] - counts(BAM, FIVE_PRIME) * p, whole)
    assert fives == pytest.approx(0, abs=0.02)


def correlation_of_neighbours(residual: NDArray, whole: NDArray) -> float:
    where = np.flatnonzero((whole[1:] > 0) & (whole[:-1] > 0))
    one, other = residual[:, where], residual[:, where + 1]
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def shared_reads(whole: NDArray) -> float:
    """What the correlation must be: the reads that two neighbouring bins share, over those of either."""
    with pysam.AlignmentFile(str(BAM)) as bam:
        shared = np.zeros(len(whole))
        for read in bam.fetch(CHROM):
            if not read.flag & 0xF04 and read.mapping_quality >= 30:
                first, last = read.reference_start // 25, (read.reference_end - 1) // 25
                shared[first:last] += 1
    where = np.flatnonzero((whole[1:] > 0) & (whole[:-1] > 0))
    return float(shared[where].sum() / np.sqrt(whole[where].sum() * whole[where + 1].sum()))
