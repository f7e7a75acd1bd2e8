"""Write the small test data of this folder: simulated reads whose expected counts are known exactly.

`simulation.py` says what is expected, `sequencing.py` draws reads around it, and this file writes reads, signal, peaks,
the sample sheet and the truth behind them. README.md says what each file holds.

    python test_data/make.py [FOLDER]

The output depends on nothing but these files and the versions of the libraries: a second run writes the same bytes.
"""

import hashlib
import sys
from collections.abc import Iterable
from contextlib import chdir
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyBigWig
import pysam
from sequencing import Read, draw_reads, is_kept, thin
from simulation import (
    BIOSAMPLES,
    BLACKLIST,
    CHROMSIZES,
    DISPERSION,
    RESOLUTION,
    Array,
    Biosample,
    Experiment,
    bin_starts,
    draw_genome,
    draw_landscape,
    expected_rates,
    random_stream,
    read_rate,
    round_to_bits,
    smooth,
)

SHEET_COLUMNS = [
    "biosample",
    "assay",
    "file",
    "control",
    "depth",
    "read_length",
    "run_type",
    "platform",
    "signal",
    "peaks",
]
NOT_KNOWN = {  # entries of the sample sheet left NA, to be measured or marked as missing by the reader
    ("sim1", "control", "read_length"),
    ("sim1", "H3K27me3", "platform"),
    ("sim2", "H3K36me3", "run_type"),
    ("sim2", "H3K9me3", "platform"),
}
DEPTH_GIVEN = {("sim1", "H3K36me3")}

THINNED = ("sim1", "H3K4me3", 4)  # biosample, assay, downsampling factor
# where a region counts as a peak: on the enrichment, relative to its 99.5th percentile
PEAK_CUTOFF = {"H3K4me3": 0.15, "H3K36me3": 0.3, "H3K27me3": 0.4}


def write_rows(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write tab-separated rows."""
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def write_genome(folder: Path, genome: dict[str, str]) -> None:
    """Write the FASTA with its two indexes, the chromosome sizes and the blacklist."""
    path = folder / "genome.fa.gz"
    with pysam.BGZFile(str(path), "wb") as fasta:
        for chrom, sequence in genome.items():
            lines = [f">{chrom}", *(sequence[i : i + 60] for i in range(0, len(sequence), 60))]
            fasta.write(("\n".join(lines) + "\n").encode())
    pysam.faidx(str(path))
    write_rows(folder / "chrom.sizes", CHROMSIZES.items())
    write_rows(folder / "blacklist.bed", BLACKLIST)


def alignment_header(genome: dict[str, str], biosample: Biosample, assay: str) -> dict[str, Any]:
    """Return the header of a BAM file; the reference is named relative to the file, never by an absolute path."""
    contigs = [
        {"SN": chrom, "LN": len(sequence), "M5": hashlib.md5(sequence.encode()).hexdigest(), "UR": "genome.fa.gz"}
        for chrom, sequence in genome.items()
    ]
    group = {"ID": f"{biosample.name}.{assay}", "SM": biosample.name, "LB": assay, "PL": "ILLUMINA"}
    return {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": contigs, "RG": [group | {"PM": biosample.platform}]}


def write_reads(path: Path, header: dict[str, Any], reads: list[Read]) -> None:
    """Write reads in the given order as BAM or CRAM, by the file's suffix, and index the file."""
    sam_header = pysam.AlignmentHeader.from_dict(header)
    group = header["RG"][0]["ID"]
    mode = "wc" if path.suffix == ".cram" else "wb"
    # Told where the reference is, htslib writes its absolute path into the CRAM header; here it finds it by its UR.
    with chdir(path.parent):
        with pysam.AlignmentFile(path.name, mode, header=sam_header, format_options=["level=9"]) as out:
            for read in reads:
                out.write(aligned_segment(read, sam_header, group))
        pysam.index(path.name)


def aligned_segment(read: Read, header: pysam.AlignmentHeader, group: str) -> pysam.AlignedSegment:
    """Return a read as pysam's record; base qualities are left out."""
    segment = pysam.AlignedSegment(header)
    segment.query_name = f"{group}:{read.fragment}"
    segment.flag = read.flag
    segment.reference_id = header.get_tid(read.chrom)
    segment.reference_start = read.start
    segment.mapping_quality = read.mapq
    segment.cigarstring = None if read.cigar == "*" else read.cigar
    segment.next_reference_id = header.get_tid(read.mate_chrom) if read.mate_chrom else -1
    segment.next_reference_start = read.mate_start
    segment.template_length = read.template_length
    segment.query_sequence = read.sequence
    segment.set_tag("RG", group)
    return segment


def overlap_counts(reads: list[Read]) -> dict[str, Array]:
    """Return the kept reads that overlap each bin, shape (L,) per chromosome."""
    counts = {}
    for chrom in CHROMSIZES:
        spans = [(r.start, r.start + int(r.cigar[:-1])) for r in reads if r.chrom == chrom and is_kept(r)]
        first, last = np.array([(start // RESOLUTION, (end - 1) // RESOLUTION) for start, end in spans]).T
        n_bins = len(bin_starts(chrom))
        steps = np.bincount(first, minlength=n_bins + 1) - np.bincount(last + 1, minlength=n_bins + 1)
        counts[chrom] = np.cumsum(steps)[:n_bins]
    return counts


def poisson_signal(counts: dict[str, Array], control: dict[str, Array]) -> dict[str, Array]:
    """Return -log10 P(X >= count) per bin, X Poisson with the larger of the mean and the local, scaled control."""
    n_bins = sum(len(track) for track in counts.values())
    total, control_total = (sum(track.sum() for track in part.values()) for part in (counts, control))
    signal = {}
    for chrom, observed in counts.items():
        local = np.maximum(smooth(control[chrom], 20), smooth(control[chrom], 100)) * total / control_total
        signal[chrom] = np.round(minus_log10_upper_tail(observed, np.maximum(local, total / n_bins)), 2)
    return signal


def minus_log10_upper_tail(counts: Array, mean: Array) -> Array:
    """Return -log10 P(X >= counts), X Poisson: the first term in log space times the sum of the ratios to it."""
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, counts.max() + 1)))])
    log_first = counts * np.log(mean) - mean - log_factorial[counts]
    ratio, total = np.ones_like(mean), np.ones_like(mean)
    for step in range(1, 400):
        ratio = ratio * mean / (counts + step)
        total += ratio
    return np.where(counts > 0, np.maximum(-(log_first + np.log(total)) / np.log(10), 0), 0)


def write_signal(path: Path, signal: dict[str, Array]) -> None:
    """Write a bigWig at 25 bp whose last interval ends with the chromosome."""
    with pyBigWig.open(str(path), "w") as out:
        out.addHeader(list(CHROMSIZES.items()), maxZooms=2)
        for chrom, values in signal.items():
            start, size = int(bin_starts(chrom)[-1]), CHROMSIZES[chrom]
            out.addEntries(chrom, 0, values=values[:-1].astype(float), span=RESOLUTION, step=RESOLUTION)
            out.addEntries([chrom], [start], ends=[size], values=[float(values[-1])])


def write_peaks(path: Path, experiment: Experiment, signal: dict[str, Array], cutoff: float) -> None:
    """Write the regions whose true enrichment exceeds a cutoff as narrowPeak, with the signal's maximum as summit."""
    scale = float(np.percentile(np.concatenate(list(experiment.enrichment.values())), 99.5))
    rows: list[tuple[object, ...]] = []
    for chrom, track in experiment.enrichment.items():
        relative = track / scale
        edges = np.flatnonzero(np.diff(np.concatenate([[0], relative > cutoff, [0]])))
        for first, last in edges.reshape(-1, 2).tolist():
            start, end = first * RESOLUTION, min(last * RESOLUTION, CHROMSIZES[chrom])
            summit = first + int(signal[chrom][first:last].argmax())
            height, p_value = float(relative[first:last].mean()), float(signal[chrom][summit])
            offset = (summit - first) * RESOLUTION + min(RESOLUTION // 2, end - 1 - summit * RESOLUTION)
            score = min(1_000, int(10 * p_value))
            rows.append(
                (
                    chrom,
                    start,
                    end,
                    f"peak_{len(rows) + 1}",
                    score,
                    ".",
                    f"{height:.3f}",
                    f"{p_value:.2f}",
                    -1,
                    offset,
                )
            )
    write_rows(path, rows)


def write_truth(truth: h5py.File, biosample: Biosample, assay: str, experiment: Experiment, reads: list[Read]) -> None:
    """Write one experiment's expected rates, shape (L,) per chromosome, and what describes its draw."""
    group = truth.create_group(f"{biosample.name}/{assay}")
    group.attrs["dispersion"] = DISPERSION[assay]
    group.attrs["reads_kept"] = sum(map(is_kept, reads))
    group.attrs["run_type"] = "paired-ended" if biosample.paired else "single-ended"
    group.attrs["read_length"] = biosample.read_length
    group.attrs["platform"] = biosample.platform
    for chrom in CHROMSIZES:
        rates = {"rate": read_rate(experiment, biosample, chrom)}
        if biosample.paired:
            rates["fragment_rate"] = round_to_bits(experiment.left_rate[chrom])
        for name, values in rates.items():
            options = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
            group.create_dataset(f"{chrom}/{name}", data=values.astype(np.float32), chunks=values.shape, **options)


def sheet_row(biosample: Biosample, assay: str, n_kept: int) -> list[object]:
    """Return an experiment's row of the sample sheet."""
    stem, has_signal = f"{biosample.name}.{assay}", biosample.name == "sim1" and assay != "control"
    row: dict[str, object] = dict.fromkeys(SHEET_COLUMNS, "NA")
    row |= {"biosample": biosample.name, "assay": assay, "file": f"{stem}.bam", "platform": biosample.platform}
    row |= {"read_length": biosample.read_length, "run_type": "paired-ended" if biosample.paired else "single-ended"}
    if (biosample.name, assay) in DEPTH_GIVEN:
        row["depth"] = n_kept
    if has_signal:
        row |= {"signal": f"{stem}.bw", "peaks": f"{stem}.narrowPeak"}
    row |= {column: "NA" for column in SHEET_COLUMNS if (biosample.name, assay, column) in NOT_KNOWN}
    return [row[column] for column in SHEET_COLUMNS]


def make(folder: Path) -> None:
    """Write all test data into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    genome = draw_genome()
    write_genome(folder, genome)
    landscape = draw_landscape(genome)
    sheet: list[list[object]] = []
    with h5py.File(folder / "truth.h5", "w", libver="v110") as truth:
        for biosample in BIOSAMPLES:
            control: dict[str, Array] | None = None
            for assay in sorted(biosample.assays, key=lambda name: name != "control"):
                experiment = expected_rates(landscape, biosample, assay)
                reads = draw_reads(random_stream("reads", biosample.name, assay), genome, experiment, biosample, assay)
                header, stem = alignment_header(genome, biosample, assay), f"{biosample.name}.{assay}"
                write_reads(folder / f"{stem}.bam", header, reads)
                write_truth(truth, biosample, assay, experiment, reads)
                sheet.append(sheet_row(biosample, assay, sum(map(is_kept, reads))))
                counts = overlap_counts(reads)
                control = counts if assay == "control" else control
                if control and assay != "control":
                    signal = poisson_signal(counts, control)
                    write_signal(folder / f"{stem}.bw", signal)
                    write_peaks(folder / f"{stem}.narrowPeak", experiment, signal, PEAK_CUTOFF[assay])
                if (biosample.name, assay) == THINNED[:2]:
                    fewer = thin(random_stream("thin"), reads, THINNED[2])
                    write_reads(folder / f"{stem}.dsf{THINNED[2]}.bam", header, fewer)
                    write_reads(folder / f"{stem}.cram", header, reads)
    write_rows(folder / "meta.tsv", [SHEET_COLUMNS, *sheet])
    pair = [row for row in sheet if row[:2] in (["sim1", "H3K4me3"], ["sim1", "control"])]
    write_rows(folder / "meta_one.tsv", [SHEET_COLUMNS, *pair])


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
