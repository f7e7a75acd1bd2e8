"""Sequence the simulated experiments: draw fragments around their expected number and turn them into SAM records.

Among the reads that the default filters keep lies a known number of records of every class that they drop. Each such
record is dropped for one reason alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from simulation import (
    CHROMSIZES,
    DISPERSION,
    Array,
    Biosample,
    Experiment,
    Noise,
    Rng,
    bin_starts,
    bin_widths,
    fragment_lengths,
    read_rate,
    room_to_the_right,
)

MISMATCH_RATE = 0.002  # per base
MAPQ, MAPQ_SHARES = (60, 42, 30), (0.9, 0.05, 0.05)  # of kept reads; 30 is the lowest that the default filters keep
LOW_MAPQ_MAX = 20
WITHOUT_SEQUENCE = {("sim1", "H3K27me3"), ("sim1", "control")}  # SEQ is *, as in privacy-preserving BAM files: small

PAIRED, PROPER, UNMAPPED, MATE_UNMAPPED, REVERSE, MATE_REVERSE, READ1, READ2 = 1, 2, 4, 8, 16, 32, 64, 128
SECONDARY, QC_FAIL, DUPLICATE, SUPPLEMENTARY = 0x100, 0x200, 0x400, 0x800


class Read(NamedTuple):
    """One SAM record in the making; it is named after its fragment."""

    fragment: int
    flag: int
    chrom: str
    start: int
    mapq: int
    cigar: str
    sequence: str | None
    mate_chrom: str | None = None
    mate_start: int = -1
    template_length: int = 0


def draw_counts(rng: Rng, mean: Array, dispersion: float) -> Array:
    """Return negative-binomial counts with this mean and variance mean + mean^2 / dispersion."""
    return rng.negative_binomial(dispersion, dispersion / (dispersion + mean))


def draw_fragments(rng: Rng, experiment: Experiment, biosample: Biosample, dispersion: float) -> Array:
    """Return fragments as sorted rows (chromosome index, start, end, reverse), shape (F, 4).

    Paired-end: counts of left ends are drawn per bin; `reverse` tells on which strand read 1 lies. Single-end: counts
    of 5' ends are drawn per bin, and the strand by the bin's expected left (forward) and right (reverse) ends.
    """
    lengths, chances = fragment_lengths()
    parts = []
    for index, chrom in enumerate(CHROMSIZES):
        mean = experiment.fragment_rate[chrom] if biosample.paired else read_rate(experiment, biosample, chrom)
        bins = np.repeat(np.arange(len(mean)), draw_counts(rng, mean, dispersion))
        ends_5p = bin_starts(chrom)[bins] + rng.integers(0, bin_widths(chrom)[bins])
        length = rng.choice(lengths, size=len(bins), p=chances)
        if biosample.paired:
            reverse, kept = rng.random(len(bins)) < 0.5, length <= room_to_the_right(chrom)[ends_5p]
            starts, ends = ends_5p, ends_5p + length
        else:
            left, right = experiment.left_rate[chrom][bins], experiment.right_rate[chrom][bins]
            reverse, kept = rng.random(len(bins)) >= left / (left + right), np.full(len(bins), True)
            starts = np.where(reverse, ends_5p + 1 - biosample.read_length, ends_5p)
            ends = starts + biosample.read_length
        columns = [np.full(len(bins), index), starts, ends, reverse.astype(int)]
        parts.append(np.stack(columns, axis=1)[kept])
    fragments = np.concatenate(parts)
    return fragments[np.lexsort(fragments.T[::-1])]


def draw_reads(
    rng: Rng, genome: dict[str, str], experiment: Experiment, biosample: Biosample, assay: str
) -> list[Read]:
    """Return the records of one file in coordinate order: the kept reads and the noise among them."""
    noise, dispersion = biosample.noise, DISPERSION[assay]
    kept = draw_fragments(rng, experiment, biosample, dispersion)
    others = draw_fragments(rng, experiment, biosample, dispersion)  # a second library supplies the low-quality reads
    pick = rng.choice(len(others), noise.low_mapq_fragments + noise.qc_fail_fragments, replace=False)
    low_mapq, qc_fail = np.split(others[pick], [noise.low_mapq_fragments])
    duplicates = kept[rng.choice(len(kept), noise.duplicate_fragments, replace=False)]
    orphans = set(rng.choice(len(kept), noise.orphans, replace=False).tolist())

    classes = [(kept, 0), (duplicates, DUPLICATE), (low_mapq, 0), (qc_fail, QC_FAIL)]
    rows = np.concatenate([part for part, _ in classes])
    flags = np.concatenate([np.full(len(part), flag) for part, flag in classes])
    mapq = rng.choice(MAPQ, size=len(rows), p=MAPQ_SHARES)
    is_low = slice(len(kept) + len(duplicates), len(kept) + len(duplicates) + len(low_mapq))
    mapq[is_low] = rng.integers(0, LOW_MAPQ_MAX + 1, size=len(low_mapq))
    number = np.empty(len(rows), int)
    number[np.lexsort(rows.T[::-1])] = np.arange(len(rows))  # fragments are numbered in genome order

    reads: list[Read] = []
    for i, (row, flag, quality) in enumerate(zip(rows.tolist(), flags.tolist(), mapq.tolist(), strict=True)):
        reads += sequence_fragment(rng, genome, biosample, int(number[i]), row, flag, quality, orphan=i in orphans)
    primary = [read for read in reads if is_kept(read) and not read.flag & MATE_UNMAPPED]
    reads += extra_alignments(rng, genome, primary, noise)
    order = {chrom: index for index, chrom in enumerate(CHROMSIZES)}
    reads.sort(key=lambda read: (order[read.chrom], read.start, read.fragment, read.flag))
    reads += unplaced_reads(rng, biosample, first=len(rows))
    if (biosample.name, assay) in WITHOUT_SEQUENCE:
        reads = [read._replace(sequence=None) for read in reads]
    return reads


def sequence_fragment(
    rng: Rng,
    genome: dict[str, str],
    biosample: Biosample,
    number: int,
    row: list[int],
    flag: int,
    mapq: int,
    *,
    orphan: bool,
) -> list[Read]:
    """Return the one or two records of a fragment; of an orphan, one mate at random stays unmapped."""
    chrom, (start, end), reverse = list(CHROMSIZES)[row[0]], row[1:3], bool(row[3])
    length = biosample.read_length
    cigar = f"{length}M"
    if not biosample.paired:
        sequence = with_mismatches(rng, genome[chrom][start:end])
        return [Read(number, flag | REVERSE * reverse, chrom, start, mapq, cigar, sequence)]
    spans = (start, start + length), (end - length, end)
    sequences = [with_mismatches(rng, genome[chrom][a:b]) for a, b in spans]
    sides = (READ2 if reverse else READ1), (READ1 if reverse else READ2)  # of the left and the right mate
    if orphan:
        mapped = int(rng.random() < 0.5)
        at = spans[mapped][0]
        strand = (REVERSE, MATE_REVERSE) if mapped else (0, 0)
        return [
            Read(
                number,
                PAIRED | MATE_UNMAPPED | strand[0] | sides[mapped],
                chrom,
                at,
                mapq,
                cigar,
                sequences[mapped],
                chrom,
                at,
            ),
            Read(
                number,
                PAIRED | UNMAPPED | strand[1] | sides[1 - mapped],
                chrom,
                at,
                0,
                "*",
                random_sequence(rng, length),
                chrom,
                at,
            ),
        ]
    flags = (PAIRED | PROPER | MATE_REVERSE | sides[0] | flag), (PAIRED | PROPER | REVERSE | sides[1] | flag)
    left, right = spans[0][0], spans[1][0]
    return [
        Read(number, flags[0], chrom, left, mapq, cigar, sequences[0], chrom, right, end - start),
        Read(number, flags[1], chrom, right, mapq, cigar, sequences[1], chrom, left, start - end),
    ]


def extra_alignments(rng: Rng, genome: dict[str, str], primary: list[Read], noise: Noise) -> Iterator[Read]:
    """Yield secondary alignments (elsewhere, without a sequence) and supplementary ones (hard-clipped) of reads."""
    picked = rng.choice(len(primary), noise.secondary_records + noise.supplementary_records, replace=False)
    chroms = list(CHROMSIZES)
    for rank, index in enumerate(picked.tolist()):
        read = primary[index]
        chrom = chroms[int(rng.integers(len(chroms)))]
        start = int(rng.integers(1_000, 100_000))  # clear of the chromosomes' ends and of the gap
        shared = read._replace(chrom=chrom, start=start, flag=read.flag & ~PROPER, template_length=0)
        if rank < noise.secondary_records:
            yield shared._replace(flag=shared.flag | SECONDARY, sequence=None)
        else:
            clipped = int(read.cigar[:-1]) - 20
            sequence = genome[chrom][start : start + 20]
            yield shared._replace(flag=shared.flag | SUPPLEMENTARY, cigar=f"20M{clipped}H", sequence=sequence)


def unplaced_reads(rng: Rng, biosample: Biosample, *, first: int) -> list[Read]:
    """Return the unmapped records at the end of the file."""
    flags = (PAIRED | UNMAPPED | MATE_UNMAPPED | READ1, PAIRED | UNMAPPED | MATE_UNMAPPED | READ2)
    flags = flags if biosample.paired else (UNMAPPED,)
    numbers = range(first, first + biosample.noise.unmapped_fragments)
    length = biosample.read_length
    return [Read(i, flag, "*", -1, 0, "*", random_sequence(rng, length)) for i in numbers for flag in flags]


def random_sequence(rng: Rng, length: int) -> str:
    """Return a sequence from nowhere."""
    return "".join(rng.choice(list("ACGT"), size=length))


def with_mismatches(rng: Rng, sequence: str) -> str:
    """Return the sequence with a sequencing error now and then."""
    if rng.random() >= len(sequence) * MISMATCH_RATE:
        return sequence
    at = int(rng.integers(len(sequence)))
    other = "ACGT".replace(sequence[at], "")[int(rng.integers(3))]
    return sequence[:at] + other + sequence[at + 1 :]


def is_kept(read: Read) -> bool:
    """Return whether the default filters keep a read: mapped, primary, not a duplicate, QC passed, MAPQ at least 30."""
    return not read.flag & (UNMAPPED | SECONDARY | SUPPLEMENTARY | QC_FAIL | DUPLICATE) and read.mapq >= 30


def thin(rng: Rng, reads: list[Read], factor: int) -> list[Read]:
    """Return the reads of every `factor`-th fragment, chosen at random; all records of one name stay together."""
    names = np.unique([read.fragment for read in reads])
    chosen = set(rng.permutation(names)[: len(names) // factor].tolist())
    return [read for read in reads if read.fragment in chosen]
