"""The test data hold what their README says: each fact is read back by a route that make.py does not use."""

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pysam
import pytest

HERE = Path(__file__).resolve().parent
CHROMSIZES = {"chr1": 300_010, "chr2": 120_000}
ASSAYS = {
    "sim1": ("control", "H3K4me3", "H3K36me3", "H3K27me3"),
    "sim2": ("H3K4me3", "H3K36me3", "H3K9me3"),
}
EXPERIMENTS = [f"{biosample}.{assay}" for biosample, assays in ASSAYS.items() for assay in assays]
RECORDS_DROPPED = {
    "sim1": {
        "unplaced": 60,
        "placed unmapped": 24,
        "secondary": 60,
        "supplementary": 40,
        "qc fail": 100,
        "duplicate": 300,
        "low mapq": 300,
    },
    "sim2": {
        "unplaced": 40,
        "secondary": 50,
        "supplementary": 30,
        "qc fail": 60,
        "duplicate": 120,
        "low mapq": 200,
    },
}


def open_reads(path: Path) -> pysam.AlignmentFile:
    return pysam.AlignmentFile(str(path), reference_filename=str(HERE / "genome.fa.gz"))


def reasons_to_drop(read: pysam.AlignedSegment) -> list[str]:
    reasons = {
        "unplaced": read.is_unmapped and read.reference_id < 0,
        "placed unmapped": read.is_unmapped and read.reference_id >= 0,
        "secondary": read.is_secondary,
        "supplementary": read.is_supplementary,
        "qc fail": read.is_qcfail,
        "duplicate": read.is_duplicate,
        "low mapq": not read.is_unmapped and read.mapping_quality < 30,
    }
    return [reason for reason, holds in reasons.items() if holds]


def kept_reads(path: Path) -> list[pysam.AlignedSegment]:
    with open_reads(path) as reads:
        return [read for read in reads if not reasons_to_drop(read)]


def five_prime_counts(reads: list[pysam.AlignedSegment]) -> np.ndarray:
    """Return the 5' ends per 25 bp bin, the chromosomes one after the other."""
    counts = []
    for chrom, size in CHROMSIZES.items():
        here = [read for read in reads if read.reference_name == chrom]
        ends = [read.reference_end - 1 if read.is_reverse else read.reference_start for read in here]
        counts.append(np.bincount(np.array(ends) // 25, minlength=-(-size // 25)))
    return np.concatenate(counts)


def truth(stem: str, dataset: str = "rate") -> tuple[np.ndarray, dict[str, object]]:
    with h5py.File(HERE / "truth.h5") as store:
        group = store[stem.replace(".", "/")]
        return np.concatenate([group[f"{chrom}/{dataset}"][:].astype(float) for chrom in CHROMSIZES]), dict(group.attrs)


@pytest.mark.parametrize("stem", EXPERIMENTS)
def test_each_record_is_kept_or_dropped_for_one_reason_and_their_numbers_are_known(stem):
    with open_reads(HERE / f"{stem}.bam") as reads:
        reasons = [reasons_to_drop(read) for read in reads]
    n_kept = reasons.count([])
    assert max(map(len, reasons)) == 1
    assert Counter(reason for found in reasons for reason in found) == RECORDS_DROPPED[stem.split(".")[0]]
    assert n_kept == truth(stem)[1]["reads_kept"]


@pytest.mark.parametrize("stem", EXPERIMENTS)
def test_five_prime_ends_follow_the_rate(stem):
    rate, attributes = truth(stem)
    counts = five_prime_counts(kept_reads(HERE / f"{stem}.bam"))
    assert not counts[rate == 0].any()
    strata = np.digitize(rate, np.quantile(rate, [0.25, 0.5, 0.75, 0.9, 0.97]))
    observed, expected = np.bincount(strata, counts), np.bincount(strata, rate)
    ends_drawn_together = 2 if attributes["run_type"] == "paired-ended" else 1
    variance = np.bincount(strata, ends_drawn_together * rate + rate**2 / attributes["dispersion"])
    assert (np.abs(observed - expected) < 4 * np.sqrt(variance)).all()


@pytest.mark.parametrize("stem", EXPERIMENTS)
def test_the_draws_are_as_dispersed_as_stated(stem):
    paired = stem.startswith("sim1")
    rate, attributes = truth(stem, "fragment_rate" if paired else "rate")
    reads = kept_reads(HERE / f"{stem}.bam")
    if paired:  # a fragment begins at its left mate; the few orphans that lost it are 1 in 600
        reads = [read for read in reads if not read.is_reverse]
    dispersion = attributes["dispersion"]
    draws = np.random.default_rng(1).negative_binomial(dispersion, dispersion / (dispersion + rate), (50, len(rate)))

    def excess(counts: np.ndarray) -> np.ndarray:  # 1 / dispersion, as the variance is rate + rate^2 / dispersion
        return ((counts - rate) ** 2 - rate).sum(axis=-1) / (rate**2).sum()

    found, spread = excess(five_prime_counts(reads)), excess(draws).std()
    assert found == pytest.approx(1 / dispersion, abs=3 * spread)
    assert found > 2 * spread, "no more dispersed than Poisson counts"


def test_cram_and_bam_hold_the_same_records_and_the_thinned_file_whole_fragments_of_them():
    fields = ("query_name", "flag", "reference_start", "mapping_quality", "cigarstring", "template_length")
    fields += ("next_reference_id", "next_reference_start", "reference_id", "query_sequence")
    files = {}
    for suffix in ("bam", "cram", "dsf4.bam"):
        with open_reads(HERE / f"sim1.H3K4me3.{suffix}") as reads:
            assert "/" not in str(reads.header)
            files[suffix] = [(*(getattr(r, field) for field in fields), r.get_tag("RG")) for r in reads]
    assert files["bam"] == files["cram"]
    names = {record[0] for record in files["dsf4.bam"]}
    assert files["dsf4.bam"] == [record for record in files["bam"] if record[0] in names]
    assert len(names) == len({record[0] for record in files["bam"]}) // 4


@pytest.mark.parametrize("assay", ["H3K4me3", "H3K36me3", "H3K27me3"])
def test_signal_covers_the_chromosomes_and_peaks_lie_inside_with_their_summits(assay):
    with pyBigWig.open(str(HERE / f"sim1.{assay}.bw")) as track:
        assert track.chroms() == CHROMSIZES
        for chrom, size in CHROMSIZES.items():
            starts, ends, values = zip(*track.intervals(chrom), strict=True)
            assert starts == tuple(range(0, size, 25))
            assert ends == (*starts[1:], size)
            assert np.isfinite(values).all()
            assert min(values) >= 0
        peaks = [line.split("\t") for line in (HERE / f"sim1.{assay}.narrowPeak").read_text().splitlines()]
        spans = [(chrom, int(start), int(end)) for chrom, start, end, *_ in peaks]
        assert spans == sorted(spans)
        for (chrom, start, end), peak in zip(spans, peaks, strict=True):
            assert len(peak) == 10
            assert 0 <= start < end <= CHROMSIZES[chrom]
            summit = start + int(peak[9])
            assert start <= summit < end
            assert track.values(chrom, summit, summit + 1)[0] == max(track.values(chrom, start, end))


def test_sheet_names_files_that_exist_and_its_depth_is_the_number_of_kept_reads():
    with (HERE / "meta.tsv").open() as sheet:
        rows = list(csv.DictReader(sheet, delimiter="\t"))
    assert [row["file"] for row in rows] == [f"{stem}.bam" for stem in EXPERIMENTS]
    for row in rows:
        _, attributes = truth(f"{row['biosample']}.{row['assay']}")
        assert row["depth"] in {"NA", str(attributes["reads_kept"])}
        for column in ("read_length", "run_type", "platform"):
            assert row[column] in {"NA", str(attributes[column])}
        assert all((HERE / row[column]).exists() for column in ("signal", "peaks") if row[column] != "NA")


def test_two_runs_write_the_same_bytes_and_the_records_of_this_folder(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, str(HERE / "make.py")]
    other_arithmetic = os.environ | {"OPENBLAS_CORETYPE": "Prescott"}  # sums in another order, as on an older CPU
    runs = [
        subprocess.Popen([*command, str(folder)], env=environment)
        for folder, environment in zip(folders, (os.environ, other_arithmetic), strict=True)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two
    assert all((HERE / name).exists() for name in one)
    # how tightly the libraries compress depends on their versions, hence the records and not the bytes
    for name in one:
        if name.endswith((".tsv", ".bed", ".sizes", ".narrowPeak", ".fai")):
            assert (HERE / name).read_bytes() == one[name]
    for stem in EXPERIMENTS:
        with open_reads(HERE / f"{stem}.bam") as ours, open_reads(folders[0] / f"{stem}.bam") as theirs:
            assert [read.to_string() for read in ours] == [read.to_string() for read in theirs]
