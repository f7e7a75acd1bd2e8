"""Every BAM of ../shared/data: counts are those of samtools and of windows counted by searching sorted ends."""

import gzip
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pysam
import pytest

from candi_cli.binning import Binning, bin_experiment
from candi_cli.counting import FIVE_PRIME, FRAGMENT, MIDPOINT, OVERLAP, CountingRule
from candi_cli.covariates import Covariates, Experiment
from candi_cli.errors import ReadsError
from candi_cli.io import bam
from candi_cli.io.reads import ReadCounter, ReadsSummary
from candi_cli.store import Store

pytestmark = pytest.mark.real_data
REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
BAMS = sorted(str(path.relative_to(REAL_DATA)) for path in REAL_DATA.rglob("*.bam")) or ["absent.bam"]
RULES = [OVERLAP, FIVE_PRIME, FRAGMENT, MIDPOINT]
OF_SINGLES = [OVERLAP, FIVE_PRIME, MIDPOINT]  # rules by which single-ended reads count
FILTERS = ["-F", "0xF04", "-q", "30"]
RESOLUTION = 25
N_WINDOWS = 200
YEAST = "yeast_ATAC_sacCer3/ATAC_SRR1822137.sacCer3.bam"
CONTIGS = {YEAST: ["chrI", "chrIV", "chrVI"]}  # else all of a file's


class Aligned(NamedTuple):
    """What samtools prints of the reads that pass the filters, as columns."""

    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    flag: np.ndarray
    mate_start: np.ndarray
    template: np.ndarray


class Counted(NamedTuple):
    """The bins of each chromosome that are not zero, their counts, and what the summary says."""

    bins: dict[str, tuple[np.ndarray, np.ndarray]]
    blocks: dict[str, np.ndarray]
    summary: ReadsSummary
    sizes: dict[str, int]


@lru_cache(maxsize=1)
def aligned(name: str) -> Aligned:
    """Return the reads of a BAM that pass the filters, by `samtools view`."""
    text = pysam.view(*FILTERS, str(REAL_DATA / name), *CONTIGS.get(name, []))
    rows = [line.split("\t", 9) for line in text.splitlines()]
    _, flag, contig, position, _, cigar, _, mate, template, _ = zip(*rows, strict=True)
    spans = {text: span_of(text) for text in set(cigar)}
    flags, starts, mates, templates = (np.array(column, dtype=int) for column in (flag, position, mate, template))
    ends = starts - 1 + np.array([spans[text] for text in cigar])
    return Aligned(np.array(contig), starts - 1, ends, flags, mates - 1, templates)


def span_of(cigar: str) -> int:
    return sum(int(bases) for bases, operation in re.findall(r"(\d+)([MIDNSHP=X])", cigar) if operation in "MDN=X")


def intervals_counted(reads: Aligned, rule: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return contig, start and end of what the definition of a rule counts."""
    reverse = reads.flag & 0x10 != 0
    if rule == OVERLAP:
        return reads.contig, reads.start, reads.end
    five_prime = np.where(reverse, reads.end - 1, reads.start)
    if rule == FIVE_PRIME:
        return reads.contig, five_prime, five_prime + 1
    leftmost = np.where(reads.start == reads.mate_start, ~reverse, reads.template > 0)
    chosen = leftmost & (reads.flag & 0x2 != 0) & (reads.template != 0)
    if rule == MIDPOINT:
        single = reads.flag & 0x1 == 0
        base = np.where(single, five_prime, reads.start + np.abs(reads.template) // 2)[chosen | single]
        return reads.contig[chosen | single], base, base + 1
    start = reads.start[chosen]
    return reads.contig[chosen], start, start + np.abs(reads.template[chosen])


def assert_windows(bins: np.ndarray, counts: np.ndarray, start: np.ndarray, end: np.ndarray, length: int) -> None:
    """Check the bins that are not zero, and that no interval touches another one.

    Of intervals, those that start before a window's end less those that end before it overlap the window.
    """
    begun = np.searchsorted(np.sort(start), np.minimum((bins + 1) * RESOLUTION, length), side="left")
    np.testing.assert_array_equal(counts, begun - np.searchsorted(np.sort(end), bins * RESOLUTION, side="right"))
    n_touched = (end - 1) // RESOLUTION - start // RESOLUTION + 1
    assert counts.sum() == n_touched.sum()


def count(name: str, rule: str) -> Counted:
    counter = ReadCounter(REAL_DATA / name, CountingRule(rule))
    bins, blocks = {}, {}
    for found in counter:
        where = np.flatnonzero(found.counts)
        bins[found.chrom], blocks[found.chrom] = (where, found.counts[where].astype(int)), found.blocks
    return Counted(bins, blocks, counter.summary, counter.header_sizes)


counted = cache(count)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", BAMS)
def test_every_bin_is_that_of_windows_over_what_samtools_prints(name, rule):
    contig, start, end = intervals_counted(aligned(name), rule)
    if not len(contig):
        with pytest.raises(ReadsError, match="passes the filters"):
            count(name, rule)
        return
    found = counted(name, rule)
    chroms = np.unique(contig).tolist()
    if name not in CONTIGS:
        assert found.summary.depth == len(contig)
        assert sorted(found.bins) == chroms
    for chrom in chroms:
        assert_windows(*found.bins[chrom], start[contig == chrom], end[contig == chrom], found.sizes[chrom])


@pytest.mark.parametrize("name", BAMS)
def test_totals_are_those_of_samtools_view(name):
    path = str(REAL_DATA / name)
    n_reads, n_all = int(pysam.view("-c", *FILTERS, path)), int(pysam.view("-c", path))
    for rule in (OVERLAP, FIVE_PRIME):
        found = counted(name, rule)
        assert (found.summary.depth, found.summary.seen) == (n_reads, n_all)
        assert sum(int(blocks.sum()) for blocks in found.blocks.values()) == n_reads
    assert sum(int(counts.sum()) for _, counts in counted(name, FIVE_PRIME).bins.values()) == n_reads


@pytest.mark.parametrize("name", BAMS)
def test_windows_count_the_reads_that_samtools_bedcov_finds_there(name, tmp_path, rng):
    filtered, windows = tmp_path / "filtered.bam", tmp_path / "windows.bed"
    pysam.view("-b", *FILTERS, "-o", str(filtered), str(REAL_DATA / name), catch_stdout=False)
    pysam.index(str(filtered))
    found = counted(name, OVERLAP)
    lines, counts = [], []
    for chrom, (bins, values) in found.bins.items():
        near = np.concatenate([bins - 1, bins, bins + 1])
        near = near[(near >= 0) & (near * RESOLUTION < found.sizes[chrom])]
        for number in np.unique(rng.choice(near, max(1, N_WINDOWS // len(found.bins)))).tolist():
            end = min((number + 1) * RESOLUTION, found.sizes[chrom])
            lines.append(f"{chrom}\t{number * RESOLUTION}\t{end}\n")
            counts.append(int(values[bins == number].sum()))
    windows.write_text("".join(lines))
    rows = pysam.bedcov("-c", str(windows), str(filtered)).splitlines()
    assert [int(row.split("\t")[4]) for row in rows] == counts
    assert sum(counts) > 0


@pytest.mark.parametrize("name", BAMS)
def test_pysam_and_the_compiled_loop_give_the_same_counts_and_summary(name, monkeypatch):
    monkeypatch.setattr(bam, "FAST", False)
    assert_same(count(name, FIVE_PRIME), counted(name, FIVE_PRIME))


def assert_same(one: Counted, other: Counted) -> None:
    np.testing.assert_equal(one.bins, other.bins)
    np.testing.assert_equal(one.blocks, other.blocks)
    np.testing.assert_equal(vars(one.summary), vars(other.summary))


@pytest.mark.parametrize("name", [name for name in BAMS if name.startswith("fly_ChIP_dm6/")])
@pytest.mark.parametrize("rule", RULES)
def test_pysam_and_the_compiled_loop_give_the_same_folds(name, rule, monkeypatch):
    found = []
    for fast in (True, False):
        monkeypatch.setattr(bam, "FAST", fast)
        counter = ReadCounter(REAL_DATA / name, CountingRule(rule, keep_duplicates=False), n_folds=3)
        try:
            found.append(({each.chrom: each.folds for each in counter}, vars(counter.summary)))
        except ReadsError as error:
            found.append(({}, str(error)))
    np.testing.assert_equal(found[0], found[1])


# One set of reads in every format


def stored(path: Path, rule: str, sizes: Mapping[str, int], *, reference: Path | None = None) -> dict[str, Any]:
    """Return all that a store holds of an experiment but where it came from."""
    with Store.create(None, rule=CountingRule(rule), chromsizes=sizes) as store:
        experiment = Experiment("cell", "assay", covariates=Covariates(), file=path)
        outcome = bin_experiment(experiment, store, Binning(reference=reference, n_folds=2))
        assert outcome.summary is not None
        found: dict[str, Any] = {
            "depth": outcome.summary.depth,
            "folds": outcome.summary.fold_depths.tolist(),
            "covariates": outcome.covariates,
        }
        for chrom, length in sizes.items():
            n_bins = -(-length // RESOLUTION)
            if store.has("cell", "assay", "counts", chrom):
                for layer in ("counts", "folds"):
                    found[f"{chrom} {layer}"] = store.read("cell", "assay", layer, chrom, 0, n_bins)
                found[f"{chrom} blocks"] = store.covered_blocks("cell", chrom)[0]
        return found


def assert_same_store(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_equal(found[key], value, err_msg=key)


def sizes_of(path: Path) -> dict[str, int]:
    with pysam.AlignmentFile(str(path)) as alignment:
        return dict(zip(alignment.references, alignment.lengths, strict=True))


def span_text(read: pysam.AlignedSegment) -> str:
    return f"{read.reference_name}\t{read.reference_start}\t{read.reference_end}"


def bed_lines(reads: list[pysam.AlignedSegment]) -> str:
    return "".join(f"{span_text(read)}\tr\t0\t{'-' if read.is_reverse else '+'}\n" for read in reads)


def bedpe_lines(pairs: list[tuple[pysam.AlignedSegment, pysam.AlignedSegment]]) -> str:
    return "".join(
        "\t".join(
            [
                *map(span_text, pair),
                "p\t0",
                *("-" if mate.is_reverse else "+" for mate in pair),
            ]
        )
        + "\n"
        for pair in pairs
    )


SUBSETS = {
    "yeast, pairs": (YEAST, "ref/fasta/sacCer3.R64-1-1.fa.gz", ["chrI"]),
    "fly, pairs": ("fly_ChIP_dm6/cutnrun_ip_1.tiny.paired.sorted.bam", "ref/fasta/dm6.small.fa", []),
    "fly, single reads": ("fly_ChIP_dm6/ip_2.tiny.single.sorted.bam", "ref/fasta/dm6.small.fa", []),
}


@pytest.mark.parametrize("case", SUBSETS)
def test_the_same_reads_in_every_format_make_one_store(case, tmp_path, rng):
    name, reference, chroms = SUBSETS[case]
    subset = tmp_path / "subset.bam"
    paired = "pairs" in case
    only = [*FILTERS, *(["-f", "2"] if paired else [])]
    pysam.view("-b", *only, "-o", str(subset), str(REAL_DATA / name), *chroms, catch_stdout=False)
    sizes = sizes_of(subset)
    with pysam.AlignmentFile(str(subset)) as alignment:
        reads = list(alignment)
        header = alignment.header
    mates = Counter(read.query_name for read in reads)
    if paired and min(mates.values()) < 2:  # the mate of some did not pass
        reads = [read for read in reads if mates[read.query_name] == 2]
        with pysam.AlignmentFile(str(subset), "wb", header=header) as out:
            for read in reads:
                out.write(read)
    expected = {rule: stored(subset, rule, sizes) for rule in (RULES if paired else OF_SINGLES)}
    fasta = REAL_DATA / reference
    cram = tmp_path / "subset.cram"
    pysam.view("-C", "-T", str(fasta), "-o", str(cram), str(subset), catch_stdout=False)
    text = tmp_path / "subset.txt"
    if paired:
        by_name: dict[str, list[pysam.AlignedSegment]] = {}
        for number in rng.permutation(len(reads)):
            by_name.setdefault(reads[number].query_name, []).append(reads[number])
        text.write_text(bedpe_lines([(one, other) for one, other in by_name.values()]))
    else:
        text.write_text(bed_lines([reads[number] for number in rng.permutation(len(reads))]))
    for rule, content in expected.items():
        assert_same_store(stored(cram, rule, sizes, reference=fasta), content)
        found = stored(text, rule, sizes)
        assert (found["covariates"].depth, found["covariates"].run_type) == (
            content["covariates"].depth,
            content["covariates"].run_type,
        )
        assert_same_store({**found, "covariates": None}, {**content, "covariates": None})
    if paired:  # mates are not told apart in BED, so that their folds are others
        text.write_text(bed_lines(reads))
        for rule in RULES[:2]:
            found, content = stored(text, rule, sizes), expected[rule]
            assert found["depth"] == content["depth"]
            for key in content:
                if key.endswith(("counts", "blocks")):
                    np.testing.assert_array_equal(found[key], content[key], err_msg=key)


CTCF = "GM12878_CTCF_hg19/CTCF"


@pytest.mark.parametrize(
    ("bam_name", "text_name", "read_length"),
    [
        (f"{CTCF}_PE_ChIP_chr22.bam", f"{CTCF}_PE_ChIP_chr22_50k.bedpe.gz", 101),
        (f"{CTCF}_PE_CTRL_chr22.bam", f"{CTCF}_PE_CTRL_chr22_50k.bedpe.gz", 101),
        (f"{CTCF}_SE_ChIP_chr22.bam", f"{CTCF}_SE_ChIP_chr22_50k.bed.gz", None),
        (f"{CTCF}_SE_CTRL_chr22.bam", f"{CTCF}_SE_CTRL_chr22_50k.bed.gz", None),
        (YEAST, "yeast_ATAC_sacCer3/yeast_500k_SRR1822137.bedpe.gz", 50),
    ],
)
def test_the_text_that_others_made_of_a_bam_counts_as_the_bam_does(bam_name, text_name, read_length):
    stated = Covariates(run_type="paired-ended" if read_length else None, read_length=read_length)
    for rule in RULES if read_length else OF_SINGLES:
        reads = ReadCounter(REAL_DATA / bam_name, CountingRule(rule), n_folds=2)
        expected = {found.chrom: found for found in reads}
        text = ReadCounter(
            REAL_DATA / text_name, CountingRule(rule), n_folds=2, chromsizes=reads.header_sizes, stated=stated
        )
        found = {each.chrom: each for each in text}
        assert (text.summary.depth, text.summary.run_type) == (reads.summary.depth, reads.summary.run_type)
        assert found.keys() == expected.keys()
        for chrom, each in expected.items():
            np.testing.assert_equal(found[chrom]._asdict(), each._asdict())


def hg(build: str) -> dict[str, int]:
    rows = (line.split() for line in (REAL_DATA / f"ref/annot/{build}.chrom.sizes").read_text().splitlines())
    return {chrom: int(length) for chrom, length in rows}


@pytest.mark.parametrize(
    ("name", "build", "rule"),
    [
        ("ChIP_ATAC_small_hg19/prepeak_pe_tn5.tagAlign.gz", "hg19", OVERLAP),
        ("ChIP_ATAC_small_hg19/prepeak_pe_tn5.tagAlign.gz", "hg19", FIVE_PRIME),
        ("GM12878_CTCF_hg19/CTCF_ChIP_200K.bed.gz", "hg19", FIVE_PRIME),
        ("GM12878_CTCF_hg19/CTCF_ChIP_200K.bed.gz", "hg19", MIDPOINT),
        ("GM12878_CTCF_hg19/PBMC_scATAC_chr22_hg38.fragments.tsv.gz", "hg38", FRAGMENT),
        ("GM12878_CTCF_hg19/PBMC_scATAC_chr22_hg38.fragments.tsv.gz", "hg38", MIDPOINT),
    ],
)
def test_every_bin_of_real_text_is_that_of_windows_over_its_columns(name, build, rule):
    rows = [line.split("\t") for line in gzip.decompress((REAL_DATA / name).read_bytes()).decode().splitlines()]
    contig, reverse = np.array([row[0] for row in rows]), np.array([row[-1] == "-" for row in rows])
    start, end = (np.array([int(row[column]) for row in rows]) for column in (1, 2))
    if rule in (FIVE_PRIME, MIDPOINT):
        middles = rule == MIDPOINT and "fragments" in name
        start = (start + end) // 2 if middles else np.where(reverse, end - 1, start)
        end = start + 1
    sizes = hg(build)
    counter = ReadCounter(REAL_DATA / name, CountingRule(rule), chromsizes=sizes)
    chroms = set()
    for chrom, counts, _, _ in counter:
        first, last, bins = start[contig == chrom], end[contig == chrom], np.flatnonzero(counts)
        assert_windows(bins, counts[bins].astype(int), first, last, sizes[chrom])
        chroms.add(chrom)
    assert counter.summary.depth == len(rows)
    assert chroms == set(contig.tolist())
