"""Reads, signal and peaks on one grid, and the covariates that the reads themselves tell."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.binning import Binning, bin_experiment, genome_of, measured_covariates
from candi_cli.counting import FIVE_PRIME, CountingRule
from candi_cli.covariates import Covariates, Experiment, depth_density, read_sheet
from candi_cli.errors import GenomeError, ReadsError, SheetError, TrackError
from candi_cli.io.reads import ReadCounter, ReadsSummary
from candi_cli.io.tally import BLOCK_BP
from candi_cli.store import Store

TEST_DATA = Path(__file__).parents[1] / "test_data"
ENDS = CountingRule(FIVE_PRIME)
CHROMSIZES = {"chr1": 300_010, "chr2": 120_000}
SHEET = {experiment.name: experiment for experiment in read_sheet(TEST_DATA / "meta.tsv")}


def binned(
    *experiments: Experiment, rule: CountingRule = ENDS, report: Callable = lambda _outcome: None, **options: object
) -> Store:
    """Return experiments in a store in memory, on the genome of the test data."""
    store = Store.create(None, rule=rule, chromsizes=options.pop("chromsizes", CHROMSIZES))
    try:
        for experiment in experiments:
            report(bin_experiment(experiment, store, Binning(**options)))
    except BaseException:
        store.close()
        raise
    return store


def test_counts_folds_and_blocks_are_those_of_the_reads():
    experiment = SHEET["sim2/H3K4me3"]
    counter = ReadCounter(experiment.file, ENDS, n_folds=3)
    expected = {found.chrom: found for found in counter}
    with binned(experiment, n_folds=3) as store:
        for chrom, found in expected.items():
            n_bins = -(-CHROMSIZES[chrom] // 25)
            np.testing.assert_array_equal(store.read("sim2", "H3K4me3", "counts", chrom, 0, n_bins), found.counts)
            np.testing.assert_array_equal(store.read("sim2", "H3K4me3", "folds", chrom, 0, n_bins), found.folds)
            blocks, width = store.covered_blocks("sim2", chrom)
            assert width == BLOCK_BP
            np.testing.assert_array_equal(blocks, found.blocks > 0)
        stored = store.experiment("sim2", "H3K4me3")
        assert stored.layers == {"counts", "folds"}
        np.testing.assert_array_equal(stored.fold_depths, counter.summary.fold_depths)


@pytest.mark.parametrize("resolution", [25, 130])
def test_signal_and_peaks_are_what_a_loop_over_the_bins_finds(resolution):
    experiment = replace(SHEET["sim1/H3K4me3"], file=None)
    lines = [line.split("\t") for line in experiment.peaks.read_text().splitlines()]
    with (
        binned(experiment, rule=CountingRule(resolution=resolution)) as store,
        pyBigWig.open(str(experiment.signal)) as track,
    ):
        for chrom, length in CHROMSIZES.items():
            bases, peaks = np.array(track.values(chrom, 0, length)), np.zeros(length, dtype=bool)
            for _, start, end, *_ in (line for line in lines if line[0] == chrom):
                peaks[int(start) : int(end)] = True
            starts = range(0, length, resolution)
            means = [bases[start : start + resolution].mean() for start in starts]
            touched = [peaks[start : start + resolution].any() for start in starts]
            found = [store.read("sim1", "H3K4me3", layer, chrom, 0, len(starts)) for layer in ("signal", "peaks")]
            np.testing.assert_allclose(found[0], means, rtol=1e-5)
            np.testing.assert_array_equal(found[1], touched)
            assert 0 < sum(touched) < len(touched)


def test_what_the_sheet_does_not_know_is_what_the_reads_were_drawn_from():
    reported = []
    experiments = list(SHEET.values())
    with (
        binned(*experiments, report=reported.append) as store,
        h5py.File(TEST_DATA / "truth.h5") as truth,
    ):
        assert [told[0] for told in reported] == experiments
        for experiment, summary, told in reported:
            drawn = truth[experiment.name].attrs
            stored = store.experiment(experiment.biosample, experiment.assay).covariates
            assert stored == told
            assert stored.depth == summary.depth == drawn["reads_kept"]
            assert (stored.read_length, stored.run_type) == (drawn["read_length"], drawn["run_type"])
            assert stored.platform == drawn["platform"]
            assert stored.span_bp == pytest.approx(sum(CHROMSIZES.values()), abs=10)  # the block of 10 bp is empty


@pytest.mark.parametrize("depth", [9e6, None])
def test_what_the_sheet_says_is_kept_against_what_the_reads_show(depth):
    experiment = SHEET["sim2/H3K4me3"]
    stated = Covariates(depth, 75.0, "paired-ended", "Illumina MiSeq")
    with binned(replace(experiment, covariates=stated)) as store:
        kept = store.experiment("sim2", "H3K4me3").covariates
    assert replace(kept, depth=depth, span_bp=None) == stated
    assert kept.depth == depth or depth is None


def test_an_experiment_with_signal_alone_keeps_the_covariates_of_its_sheet():
    experiment = replace(SHEET["sim1/H3K36me3"], file=None, peaks=None)
    reported = []
    with binned(experiment, report=reported.append) as store:
        stored = store.experiment("sim1", "H3K36me3")
    assert stored.layers == {"signal"}
    assert stored.covariates == experiment.covariates
    assert reported == [(experiment, None, experiment.covariates)]


def test_sources_name_size_and_time_each_file(tmp_path):
    experiment = SHEET["sim1/H3K4me3"]
    with binned(experiment) as store:
        sources = store.sources("sim1", "H3K4me3")
    assert sources == [
        {"layer": layer, "name": path.name, "size": len(path.read_bytes()), "mtime": int(path.stat().st_mtime)}
        for layer, path in (("file", experiment.file), ("signal", experiment.signal), ("peaks", experiment.peaks))
    ]


SUMMARIES = st.builds(
    ReadsSummary,
    depth=st.integers(1, 10**9),
    covered_bp=st.integers(100_000, 3 * 10**9),
    paired=st.sampled_from([-1, 1]),
)


@given(SUMMARIES, st.integers(3 * 10**9, 4 * 10**9))
def test_a_measured_depth_was_counted_over_the_part_of_the_genome_that_has_reads(summary, genome_bp):
    found = measured_covariates(Covariates(), summary, genome_bp=genome_bp)
    assert (found.depth, found.span_bp) == (summary.depth, summary.covered_bp)
    assert depth_density(found) == pytest.approx(math.log2(summary.depth / (summary.covered_bp / 1e9)))


@given(SUMMARIES, st.integers(3 * 10**9, 4 * 10**9), st.floats(0.75, 1.3))
def test_a_stated_depth_is_of_the_file_or_of_the_genome_whichever_fits_the_reads(summary, genome_bp, off_by):
    density = summary.depth / summary.covered_bp
    of_the_genome = measured_covariates(Covariates(density * genome_bp * off_by), summary, genome_bp=genome_bp)
    of_the_file = measured_covariates(Covariates(summary.depth * off_by), summary, genome_bp=genome_bp)
    if genome_bp > 2 * summary.covered_bp:  # else the two readings of the sheet are hardly different
        assert (of_the_genome.span_bp, of_the_file.span_bp) == (genome_bp, summary.covered_bp)
    for found in (of_the_genome, of_the_file):
        assert found.span_bp in (genome_bp, summary.covered_bp)
        assert abs(depth_density(found) - math.log2(density * 1e9)) <= abs(math.log2(off_by)) + 1e-9


@pytest.mark.parametrize(
    ("change", "error", "fact"),
    [
        ({"file": "sim9.bam"}, ReadsError, "no such file"),
        ({"signal": "sim9.bw"}, TrackError, "no such file"),
        ({"peaks": "sim9.bed"}, TrackError, "no such file"),
        ({"signal": "meta.tsv"}, TrackError, "not a bigWig"),
        ({"peaks": "sim1.H3K4me3.bw"}, TrackError, "not a BED file"),
        ({"file": "meta.tsv"}, ReadsError, "not a BAM"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(change, error, fact):
    files = {name: TEST_DATA / file for name, file in change.items()}
    (path,) = files.values()
    with pytest.raises(error, match=rf"^{re.escape(str(path))}: .*{fact}"):
        binned(replace(SHEET["sim1/H3K4me3"], **files))


def write_bigwig(path: Path, sizes: dict[str, int]) -> Path:
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader(list(sizes.items()))
        for chrom in sizes:
            track.addEntries(chrom, 0, values=[1.0], span=25, step=25)
    return path


def test_a_bigwig_of_another_genome_is_refused(tmp_path):
    experiment = SHEET["sim1/H3K4me3"]
    names = write_bigwig(tmp_path / "names.bw", {"I": 300_010, "II": 120_000})
    with pytest.raises(GenomeError, match=r"names.bw: has contigs I, II but the genome of this run has chr1, chr2; "):
        binned(replace(experiment, signal=names))
    lengths = write_bigwig(tmp_path / "lengths.bw", {"chr1": 300_011, "chr2": 120_000})
    with pytest.raises(TrackError, match=r"lengths.bw: chr1 is 300,011 bp but 300,010 bp"):
        binned(replace(experiment, signal=lengths))


def test_a_bigwig_without_one_of_the_chromosomes_has_signal_on_the_others_alone(tmp_path):
    signal = write_bigwig(tmp_path / "one.bw", {"chr2": 120_000, "chrM": 16_569})
    with binned(replace(SHEET["sim1/H3K4me3"], file=None, peaks=None, signal=signal)) as store:
        found = [chrom for chrom in store.chromsizes if store.has("sim1", "H3K4me3", "signal", chrom)]
        assert found == ["chr2"]
        assert store.read("sim1", "H3K4me3", "signal", "chr2", 0, 2).tolist() == [1, 0]


def test_peaks_of_another_genome_are_refused(tmp_path):
    peaks = tmp_path / "peaks.bed"
    experiment = replace(SHEET["sim1/H3K4me3"], peaks=peaks)
    peaks.write_text("chr2\t119990\t120001\n")
    with pytest.raises(GenomeError, match=r"peaks.bed: a peak ends at chr2:120,001 but chr2 has 120,000 bp; "):
        binned(experiment)
    peaks.write_text("2\t5\t10\n")
    with pytest.raises(GenomeError, match=r"peaks.bed: shares no chromosome"):
        binned(experiment)


def test_a_peak_may_end_with_its_chromosome_and_no_peak_at_all_is_no_error(tmp_path):
    peaks = tmp_path / "peaks.bed"
    experiment = replace(SHEET["sim1/H3K4me3"], file=None, signal=None, peaks=peaks)
    peaks.write_text("chr1\t300009\t300010\nchrUn\t1\t5\n")
    with binned(experiment) as store:
        found = store.read("sim1", "H3K4me3", "peaks", "chr1", 0, 12_001)
        assert np.flatnonzero(found).tolist() == [12_000]
        assert not store.read("sim1", "H3K4me3", "peaks", "chr2", 0, 4_800).any()
    peaks.write_text("")
    with binned(experiment) as store:
        assert not store.read("sim1", "H3K4me3", "peaks", "chr1", 0, 12_001).any()


def test_reads_of_another_genome_are_refused():
    with pytest.raises(GenomeError, match="chr1 is 300,010 bp but 300,000 bp"):
        binned(SHEET["sim1/H3K4me3"], chromsizes={"chr1": 300_000})


def test_the_genome_is_the_one_given_else_that_of_the_first_reads_else_that_of_the_signal():
    rule, experiments = CountingRule(), list(SHEET.values())
    given_sizes = {"chrZ": 5}
    assert genome_of(experiments, rule, reference=None, chromsizes=given_sizes) == given_sizes
    assert genome_of(experiments, rule, reference=None, chromsizes=None) == CHROMSIZES
    signal = [replace(SHEET["sim1/H3K4me3"], file=None)]
    assert genome_of(signal, rule, reference=None, chromsizes=None) == CHROMSIZES
    with pytest.raises(SheetError, match="names no file"):
        genome_of([Experiment("b", "x")], rule, reference=None, chromsizes=None)
