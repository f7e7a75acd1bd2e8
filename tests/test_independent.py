"""Every BAM of ../shared/data: counts are those of samtools and of windows counted by searching sorted ends."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pysam
import pytest

from candi_cli.binning import Binning, bin_experiment
from candi_cli.counting import FIVE_PRIME, FRAGMENT, OVERLAP, CountingRule
from candi_cli.covariates import Covariates, Experiment
from candi_cli.errors import ReadsError
from candi_cli.io import bam
from candi_cli.io.reads import ReadCounter, ReadsSummary
from candi_cli.store import Store

pytestmark = pytest.mark.real_data
REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
BAMS = sorted(str(path.relative_to(REAL_DATA)) for path in REAL_DATA.rglob("*.bam")) or ["absent.bam"]
RULES = [OVERLAP, FIVE_PRIME, FRAGMENT]
FILTERS = ["-F", "0xF04", "-q", "30"]
RESOLUTION = 25
N_WINDOWS = 200
SAME_STARTS = ("ATAC_hg19_chr1/", "K562_ChIP_hg19/")  # both mates of pairs that start at one base have TLEN < 0


class Aligned(NamedTuple):
    """What samtools prints of the reads that pass the filters, as columns."""

    contig: np.ndarray
    start: np.ndarray
    end: np.ndarray
    flag: np.ndarray
    mate_start: np.ndarray
    template: np.ndarray


def span_of(cigar: str) -> int:
    return sum(int(bases) for bases, operation in re.findall(r"(\d+)([MIDNSHP=X])", cigar) if operation in "MDN=X")


@cache
def aligned(name: str) -> Aligned:
    """Return the reads of a BAM that pass the filters, by `samtools view`."""
    rows = [line.split("\t", 9) for line in pysam.view(*FILTERS, str(REAL_DATA / name)).splitlines()]
    _, flag, contig, position, _, cigar, _, mate, template = zip(*(row[:9] for row in rows), strict=True)
    spans = {text: span_of(text) for text in set(cigar)}
    start = np.array(position, dtype=np.int64) - 1
    end = start + np.array([spans[text] for text in cigar])
    numbers = (np.array(column, dtype=np.int64) for column in (flag, mate, template))
    flag_, mate_, template_ = numbers
    return Aligned(np.array(contig), start, end, flag_, mate_ - 1, template_)


def intervals_counted(reads: Aligned, rule: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return contig, start and end of what the definition of a rule counts."""
    reverse = reads.flag & 0x10 != 0
    if rule == OVERLAP:
        return reads.contig, reads.start, reads.end
    if rule == FIVE_PRIME:
        base = np.where(reverse, reads.end - 1, reads.start)
        return reads.contig, base, base + 1
    leftmost = np.where(reads.start == reads.mate_start, ~reverse, reads.template > 0)
    chosen = leftmost & (reads.flag & 0x2 != 0) & (reads.template != 0)
    start = reads.start[chosen]
    return reads.contig[chosen], start, start + np.abs(reads.template[chosen])


def in_windows(start: np.ndarray, end: np.ndarray, length: int) -> np.ndarray:
    """Return how many intervals overlap each window: those that start before its end less those that end before it."""
    edges = np.arange(0, length, RESOLUTION)
    begun = np.searchsorted(np.sort(start), np.minimum(edges + RESOLUTION, length), side="left")
    return begun - np.searchsorted(np.sort(end), edges, side="right")


def counted(name: str, rule: str, **options: Any) -> tuple[dict[str, Any], ReadCounter]:
    counter = ReadCounter(REAL_DATA / name, CountingRule(rule), **options)
    return {found.chrom: found for found in counter}, counter


def params() -> list[Any]:
    """Return each BAM and rule; fragments that are lost are marked."""
    lost = pytest.mark.xfail(strict=True, reason="a pair of which both mates have a negative TLEN is not counted")
    marked = {name for name in BAMS if name.startswith(SAME_STARTS) and loses_fragments(name)}
    return [
        pytest.param(name, rule, marks=[lost] if rule == FRAGMENT and name in marked else [])
        for name in BAMS
        for rule in RULES
    ]


def loses_fragments(name: str) -> bool:
    return name != "K562_ChIP_hg19/none"


@pytest.mark.parametrize(("name", "rule"), params())
def test_every_bin_is_that_of_windows_over_what_samtools_prints(name, rule):
    contig, start, end = intervals_counted(aligned(name), rule)
    if not len(contig):
        with pytest.raises(ReadsError, match="passes the filters"):
            counted(name, rule)
        return
    found, counter = counted(name, rule)
    assert counter.summary.depth == len(contig)
    assert set(found) == set(contig.tolist())
    for chrom, each in found.items():
        here = contig == chrom
        expected = in_windows(start[here], end[here], counter.header_sizes[chrom])
        np.testing.assert_array_equal(each.counts, expected, err_msg=chrom)


@pytest.mark.parametrize("name", BAMS)
def test_totals_are_those_of_samtools_view(name):
    path = str(REAL_DATA / name)
    n_reads, n_all = int(pysam.view("-c", *FILTERS, path)), int(pysam.view("-c", path))
    for rule in (OVERLAP, FIVE_PRIME):
        summary = counted(name, rule)[1].summary
        assert (summary.depth, summary.seen) == (n_reads, n_all)
    found, _ = counted(name, FIVE_PRIME)
    assert sum(int(each.counts.sum()) for each in found.values()) == n_reads


@pytest.mark.parametrize("name", BAMS)
def test_windows_count_the_reads_that_samtools_bedcov_finds_there(name, tmp_path, rng):
    filtered, windows = tmp_path / "filtered.bam", tmp_path / "windows.bed"
    pysam.view("-b", *FILTERS, "-o", str(filtered), str(REAL_DATA / name), catch_stdout=False)
    pysam.index(str(filtered))
    found, counter = counted(name, OVERLAP)
    lines = []
    for chrom, each in found.items():
        bins = np.flatnonzero(each.counts)
        near = np.concatenate([bins - 1, bins, bins + 1])
        near = near[(near >= 0) & (near < len(each.counts))]
        for number in np.unique(rng.choice(near, max(1, N_WINDOWS // len(found)))).tolist():
            end = min((number + 1) * RESOLUTION, counter.header_sizes[chrom])
            lines.append(f"{chrom}\t{number * RESOLUTION}\t{end}\n")
    windows.write_text("".join(lines))
    rows = [line.split("\t") for line in pysam.bedcov("-c", str(windows), str(filtered)).splitlines()]
    assert len(rows) == len(lines)
    expected = [int(row[4]) for row in rows]
    assert [int(found[row[0]].counts[int(row[1]) // RESOLUTION]) for row in rows] == expected
    assert sum(expected) > 0


@pytest.mark.parametrize("name", BAMS)
def test_pysam_and_the_compiled_loop_give_the_same_folds_and_summary(name, monkeypatch):
    fast, one = counted(name, OVERLAP, n_folds=3)
    monkeypatch.setattr(bam, "FAST", False)
    slow, other = counted(name, OVERLAP, n_folds=3)
    assert_same(one.summary, other.summary)
    assert fast.keys() == slow.keys()
    for chrom, each in fast.items():
        np.testing.assert_array_equal(each.folds, slow[chrom].folds)
        np.testing.assert_array_equal(each.blocks, slow[chrom].blocks)


def assert_same(one: ReadsSummary, other: ReadsSummary) -> None:
    for field, value in vars(one).items():
        np.testing.assert_equal(vars(other)[field], value, err_msg=field)


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


def bed_lines(reads: list[pysam.AlignedSegment]) -> str:
    return "".join(
        f"{read.reference_name}\t{read.reference_start}\t{read.reference_end}\tr\t0\t{'-' if read.is_reverse else '+'}\n"
        for read in reads
    )


def bedpe_lines(pairs: list[tuple[pysam.AlignedSegment, pysam.AlignedSegment]]) -> str:
    return "".join(
        "\t".join(
            [
                *(f"{mate.reference_name}\t{mate.reference_start}\t{mate.reference_end}" for mate in pair),
                "p\t0",
                *("-" if mate.is_reverse else "+" for mate in pair),
            ]
        )
        + "\n"
        for pair in pairs
    )


YEAST, FLY = "ref/fasta/sacCer3.R64-1-1.fa.gz", "ref/fasta/dm6.small.fa"
SUBSETS = {
    "yeast, pairs": ("yeast_ATAC_sacCer3/ATAC_SRR1822137.sacCer3.bam", YEAST, ["chrI", "chrVI"]),
    "fly, pairs": ("fly_ChIP_dm6/cutnrun_ip_1.tiny.paired.sorted.bam", FLY, []),
    "fly, single reads": ("fly_ChIP_dm6/ip_2.small.single.sorted.bam", FLY, []),
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
    expected = {rule: stored(subset, rule, sizes) for rule in (RULES if paired else RULES[:2])}
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


HG19 = "GM12878_CTCF_hg19"


@pytest.mark.parametrize(("bam_name", "text_name", "run_type"), [
    (f"{HG19}/CTCF_PE_ChIP_chr22.bam", f"{HG19}/CTCF_PE_ChIP_chr22_50k.bedpe.gz", "paired-ended"),
    (f"{HG19}/CTCF_PE_CTRL_chr22.bam", f"{HG19}/CTCF_PE_CTRL_chr22_50k.bedpe.gz", "paired-ended"),
    (f"{HG19}/CTCF_SE_ChIP_chr22.bam", f"{HG19}/CTCF_SE_ChIP_chr22_50k.bed.gz", None),
    (f"{HG19}/CTCF_SE_CTRL_chr22.bam", f"{HG19}/CTCF_SE_CTRL_chr22_50k.bed.gz", None),
    ("yeast_ATAC_sacCer3/ATAC_SRR1822137.sacCer3.bam", "yeast_ATAC_sacCer3/yeast_500k_SRR1822137.bedpe.gz", "paired-ended"),
])  # fmt: skip
def test_the_text_that_others_made_of_a_bam_counts_as_the_bam_does(bam_name, text_name, run_type):
    rules = [FRAGMENT, FIVE_PRIME] if run_type else [OVERLAP, FIVE_PRIME]
    for rule in rules:
        expected, reads = counted(bam_name, rule, n_folds=2)
        stated = Covariates(run_type=run_type)
        found, text = counted(text_name, rule, n_folds=2, chromsizes=reads.header_sizes, stated=stated)
        assert text.summary.depth == reads.summary.depth
        assert text.summary.run_type == reads.summary.run_type
        assert found.keys() == expected.keys()
        for chrom, each in expected.items():
            np.testing.assert_array_equal(found[chrom].counts, each.counts)
            np.testing.assert_array_equal(found[chrom].folds, each.folds)
            np.testing.assert_array_equal(found[chrom].blocks, each.blocks)
