"""Reads of BED, BEDPE and fragments files: they count as a BAM of the same reads does."""

import gzip
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pysam
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from candi_cli.counting import FIVE_PRIME, FRAGMENT, MIDPOINT, OVERLAP, CountingRule
from candi_cli.covariates import Covariates
from candi_cli.errors import GenomeError, ReadsError
from candi_cli.io import columns, intervals
from candi_cli.io.reads import ReadCounter
from candi_cli.io.tally import BLOCK_BP

CHROMSIZES = {"chr1": 260_010, "chr2": 150, "chrE": 40}
HG38 = {"chr1": 248_956_422, "chr2": 242_193_529}
HG38_CHR1 = ["chr1", "1", "NC_000001.11", "CM000663.2"]
RULES = {
    "overlap": CountingRule(),
    "five-prime": CountingRule(FIVE_PRIME),
    "five-prime shifted": CountingRule(FIVE_PRIME, shift=(4, -5)),
    "fragment": CountingRule(FRAGMENT),
    "midpoint": CountingRule(MIDPOINT),
    "midpoint shifted": CountingRule(MIDPOINT, shift=(75, -75)),
}
LINE = "chr1\t10\t60\tread\t0\t+\n"


class Read(NamedTuple):
    """A single read."""

    chrom: str
    start: int
    end: int
    reverse: bool

    @property
    def bed(self) -> str:
        """The read as BED6, `bedtools bamtobed`'s columns."""
        return f"{self.chrom}\t{self.start}\t{self.end}\tr\t60\t{'-' if self.reverse else '+'}\n"


class Pair(NamedTuple):
    """Two mates, as they lie on the genome; `second_first` changes which of them a BEDPE line names first."""

    left: Read
    right: Read
    left_is_first: bool
    second_first: bool

    @property
    def bedpe(self) -> str:
        """The pair as BEDPE of 10 columns, `bedtools bamtobed -bedpe`'s."""
        one, other = (self.right, self.left) if self.second_first else (self.left, self.right)
        spans = [f"{mate.chrom}\t{mate.start}\t{mate.end}" for mate in (one, other)]
        strands = ["-" if mate.reverse else "+" for mate in (one, other)]
        return "\t".join([*spans, "p", "60", *strands]) + "\n"

    @property
    def proper(self) -> bool:
        """Whether the mates face each other on one contig."""
        return self.left.chrom == self.right.chrom and (self.left.reverse, self.right.reverse) == (False, True)


def write_bam(path: Path, reads: Sequence[Read | Pair]) -> Path:
    """Write reads as a BAM sorted by coordinate."""
    header = pysam.AlignmentHeader.from_references(list(CHROMSIZES), list(CHROMSIZES.values()))
    tids = {chrom: tid for tid, chrom in enumerate(CHROMSIZES)}
    records = []
    for read in reads:
        mates = (read.left, read.right) if isinstance(read, Pair) else (read,)
        for number, mate in enumerate(mates):
            record = pysam.AlignedSegment(header)
            record.query_name, record.mapping_quality = "r", 60
            record.reference_id, record.reference_start = tids[mate.chrom], mate.start
            record.cigarstring = f"{mate.end - mate.start}M"
            record.flag = 0x10 * mate.reverse
            if isinstance(read, Pair):
                other = mates[1 - number]
                first = read.left_is_first == (number == 0)
                record.flag |= 0x1 | 0x2 * read.proper | 0x20 * other.reverse | (0x40 if first else 0x80)
                record.next_reference_id, record.next_reference_start = tids[other.chrom], other.start
                if read.left.chrom == read.right.chrom and read.proper:
                    length = max(read.left.end, read.right.end) - read.left.start
                    record.template_length = -length if number else length
            records.append(record)
    records.sort(key=lambda record: (record.reference_id, record.reference_start))
    with pysam.AlignmentFile(str(path), "wb", header=header) as out:
        for record in records:
            out.write(record)
    return path


def content(path: Path, rule: CountingRule, *, read_length: bool = True, **options: Any) -> dict[str, Any]:
    """Return all that is counted of a file, or what it is refused for."""
    counter = ReadCounter(path, rule, chromsizes=CHROMSIZES, n_folds=3, **options)
    try:
        found = {
            each.chrom: [*map(nonzero, (each.counts, each.folds)), each.blocks.tolist()]
            for each in counter
            if each.blocks.any()
        }
    except ReadsError as error:
        return {"refused": "passes the filters" in str(error)}
    summary = counter.summary
    measured = [summary.depth, summary.duplicates, summary.fold_depths.tolist(), summary.covered_bp, summary.run_type]
    return {**found, "summary": measured, "read length": summary.read_length if read_length else None}


def nonzero(values: np.ndarray) -> dict[Any, int]:
    where = np.nonzero(values)
    return dict(zip(zip(*map(np.ndarray.tolist, where), strict=True), values[where].tolist(), strict=True))


def write_text(path: Path, lines: Sequence[str], packing: str = "plain") -> Path:
    text = "".join(lines).encode()
    if packing == "bgzip":
        with pysam.BGZFile(str(path), "wb") as handle:
            handle.write(text)
    else:
        path.write_bytes(gzip.compress(text) if packing == "gzip" else text)
    return path


@st.composite
def single_reads(draw: st.DrawFn) -> Read:
    chrom = draw(st.sampled_from(["chr1", "chr1", "chr2"]))
    start = draw(st.integers(0, 140) | (st.integers(0, 260_000) if chrom == "chr1" else st.just(149)))
    end = min(start + draw(st.integers(1, 60)), CHROMSIZES[chrom])
    return Read(chrom, start, end, draw(st.booleans()))


@st.composite
def proper_pairs(draw: st.DrawFn) -> Pair:
    chrom = draw(st.sampled_from(["chr1", "chr1", "chr2"]))
    start = draw(st.integers(0, 140))
    end = start + draw(st.integers(1, min(400, CHROMSIZES[chrom] - start)))
    left = Read(chrom, start, start + draw(st.integers(1, end - start)), reverse=False)
    right = Read(chrom, end - draw(st.integers(1, end - start)), end, reverse=True)
    return Pair(left, right, draw(st.booleans()), draw(st.booleans()))


ANY_RULE = st.builds(
    CountingRule,
    rule=st.sampled_from([OVERLAP, FIVE_PRIME, MIDPOINT]),
    resolution=st.sampled_from([1, 7, 25, 1_000]),
    shift=st.tuples(st.integers(-70, 70), st.integers(-70, 70)),
    keep_duplicates=st.booleans(),
)
ANY_PAIR_RULE = st.builds(
    CountingRule,
    rule=st.sampled_from([OVERLAP, FIVE_PRIME, FRAGMENT, MIDPOINT]),
    resolution=st.sampled_from([1, 7, 25, 1_000]),
    shift=st.tuples(st.integers(-70, 70), st.integers(-70, 70)),
    keep_duplicates=st.booleans(),
)
PACKINGS = st.sampled_from(["plain", "gzip", "bgzip"])
PIECES = st.sampled_from([1, 50, 1 << 20])
NO_SHRINKING = settings(deadline=None, max_examples=150, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def in_pieces(piece: int, rows: int, run: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_PIECE", piece)
        patch.setattr(intervals, "_AT_ONCE", rows)
        return run()


@NO_SHRINKING
@given(st.lists(single_reads(), min_size=1, max_size=20), ANY_RULE, PACKINGS, PIECES, st.randoms())
def test_single_reads_as_bed_count_as_in_a_bam(tmp_path_factory, reads, rule, packing, piece, random):
    folder = tmp_path_factory.getbasetemp()
    expected = content(write_bam(folder / "i.bam", reads), rule)
    random.shuffle(reads)
    path = write_text(folder / "i.bed", [read.bed for read in reads], packing)
    assert in_pieces(piece, 3, lambda: content(path, rule)) == expected


@NO_SHRINKING
@given(st.lists(proper_pairs(), min_size=1, max_size=12), ANY_PAIR_RULE, PACKINGS, PIECES, st.randoms())
def test_proper_pairs_as_bedpe_count_as_in_a_bam_whichever_mate_comes_first(
    tmp_path_factory, pairs, rule, packing, piece, random
):
    folder = tmp_path_factory.getbasetemp()
    pairs = [  # BEDPE does not tell read 1, which of duplicates and of mates at one base is the one counted by
        pair._replace(left_is_first=True) if not rule.keep_duplicates or pair.left.start == pair.right.start else pair
        for pair in pairs
    ]
    expected = content(write_bam(folder / "p.bam", pairs), rule)
    random.shuffle(pairs)
    path = write_text(folder / "p.bedpe", [pair.bedpe for pair in pairs], packing)
    assert in_pieces(piece, 3, lambda: content(path, rule)) == expected


@NO_SHRINKING
@given(
    st.lists(proper_pairs(), min_size=1, max_size=5),
    st.lists(st.tuples(single_reads(), single_reads()), min_size=1, max_size=8),
    st.sampled_from(list(RULES.values())),
    st.booleans(),
)
def test_mates_on_two_contigs_or_one_strand_count_as_reads_and_not_as_fragments(
    tmp_path_factory, pairs, loose, rule, swapped
):
    folder = tmp_path_factory.getbasetemp()
    apart = [
        Pair(one, other if one.chrom != other.chrom else other._replace(reverse=one.reverse), True, swapped)
        for one, other in loose
    ]
    expected = content(write_bam(folder / "a.bam", [*pairs, *apart]), rule)
    path = write_text(folder / "a.bedpe", [pair.bedpe for pair in [*apart, *pairs]])
    found = content(path, rule)
    assert found.pop("read length", 0) is not None
    expected.pop("read length")
    assert found == expected


@NO_SHRINKING
@given(st.lists(proper_pairs(), min_size=1, max_size=12), st.integers(1, 100), ANY_PAIR_RULE, PACKINGS)
def test_fragments_count_as_a_bam_of_reads_at_both_of_their_ends(tmp_path_factory, pairs, read_bp, rule, packing):
    folder = tmp_path_factory.getbasetemp()
    trimmed = []
    for left, right, _, _ in pairs:
        length = min(read_bp, right.end - left.start)
        one, other = left._replace(end=left.start + length), right._replace(start=right.end - length)
        trimmed.append(Pair(one, other, True, False))
    expected = content(write_bam(folder / "f.bam", trimmed), rule)
    stated = Covariates(read_length=read_bp, run_type="paired-ended")
    lines = [f"{pair.left.chrom}\t{pair.left.start}\t{pair.right.end}" for pair in trimmed]
    fragments = write_text(folder / "f.tsv", [f"{line}\tACGTACGT-1\t1\n" for line in lines], packing)
    assert content(fragments, rule, stated=stated) == expected
    of_macs = write_text(folder / "f.bedpe", [f"{line}\n" for line in lines], packing)
    assert content(of_macs, rule, stated=stated) == expected
    if rule.rule != OVERLAP:  # where the ends lie is known without the read length
        found = content(fragments, rule, read_length=False)
        assert found == {**expected, "read length": None}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_number_of_reads_of_a_fragment_does_not_matter(tmp_path, rule):
    """The fifth column of 10x files counts PCR duplicates of one fragment."""
    stated = Covariates(read_length=30)
    found = [
        content(write_text(tmp_path / "f", [f"chr1\t10\t99\tACGTACGT-1\t{times}\n"]), rule, stated=stated)
        for times in (1, 2, 300)
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["summary"][0] == (1 if rule.rule in (FRAGMENT, MIDPOINT) else 2)


@pytest.mark.parametrize("end", [12, 13, 60, 61])
def test_a_fragment_in_text_counts_once_in_its_middle(tmp_path, end):
    rule = CountingRule(MIDPOINT, resolution=1, shift=(75, -75))
    for line in (
        f"chr1\t10\t{end}\tACGTACGT-1\t1\n",
        f"chr1\t10\t11\tchr1\t11\t{end}\tp\t0\t+\t-\n",
        f"chr1\t11\t{end}\tchr1\t10\t11\tp\t0\t.\t.\n",
    ):
        found = content(write_text(tmp_path / "a", [line]), rule)
        assert found["chr1"][0] == {((10 + end) // 2,): 1}
        assert (found["summary"][0], found["summary"][-1]) == (1, "paired-ended")


def test_bed_without_strands_counts_by_overlap(tmp_path):
    stranded = content(write_text(tmp_path / "a", [LINE]), RULES["overlap"])
    for line in ("chr1\t10\t60\n", "chr1\t10\t60\tread\n", "chr1\t10\t60\tread\t0\t.\n", "chr1 10 60\r\n"):
        assert content(write_text(tmp_path / "b", [line]), RULES["overlap"]) == stranded


def test_scores_headers_and_blank_lines_do_not_matter(tmp_path):
    plain = content(write_text(tmp_path / "a", [LINE]), RULES["five-prime"])
    for lines in (
        ["#chrom\tstart\n", LINE],
        ["track name=x\n", LINE],
        ["browser position chr1:1-5\n", "\n", LINE, "#end\n"],
        [LINE.replace("\t0\t", "\t1000\t")],
        [LINE.rstrip("\n")],
        [LINE.replace("\n", "\r\n")],
    ):
        assert content(write_text(tmp_path / "b", lines), RULES["five-prime"]) == plain


def test_unmapped_mates_of_bedpe_are_left_out(tmp_path):
    lines = [
        "chr1\t10\t60\t.\t-1\t-1\tp\t0\t+\t.\n",
        ".\t-1\t-1\tchr1\t100\t130\tp\t0\t.\t-\n",
        ".\t-1\t-1\t.\t-1\t-1\t.\t0\t.\t.\n",
    ]
    path = write_text(tmp_path / "a", lines)
    assert content(path, RULES["overlap"])["summary"][0] == 2
    counts = content(path, CountingRule(FIVE_PRIME, resolution=1))["chr1"][0]
    assert counts == {(10,): 1, (129,): 1}


def test_blocks_are_those_of_the_starts_of_the_reads(tmp_path):
    starts = [0, 99_990, 99_999, 100_000, 260_000]
    path = write_text(tmp_path / "a", [f"chr1\t{start}\t{start + 10}\n" for start in starts])
    assert content(path, RULES["overlap"])["chr1"][2] == [3, 1, 1]
    assert BLOCK_BP == 100_000


def test_contigs_come_in_the_order_of_their_first_lines_and_once_each(tmp_path):
    lines = [f"chr{1 + number % 2}\t{number}\t{number + 5}\n" for number in range(60)][::-1]
    counter = ReadCounter(write_text(tmp_path / "a", lines), RULES["overlap"], chromsizes=CHROMSIZES)
    assert [found.chrom for found in counter] == ["chr2", "chr1"]
    assert counter.summary.seen == counter.summary.depth == 60


def test_contigs_that_the_genome_does_not_have_are_left_out_and_named(tmp_path):
    lines = [LINE, "chrUn\t5\t9\n", LINE, "chr9\t5\t2000000000\n"]
    counter = ReadCounter(write_text(tmp_path / "a", lines), RULES["overlap"], chromsizes=CHROMSIZES)
    assert [found.chrom for found in counter] == ["chr1"]
    assert counter.summary.skipped_contigs == ["chrUn", "chr9"]
    assert (counter.summary.depth, counter.summary.seen) == (2, 4)


@pytest.mark.parametrize("name", HG38_CHR1)
def test_other_names_of_a_contig_are_known_by_the_length_that_the_genome_gives_it(tmp_path, name):
    path = write_text(tmp_path / "a", [LINE.replace("chr1", name)])
    (found,) = ReadCounter(path, RULES["overlap"], chromsizes=HG38)
    assert found.chrom == "chr1"
    assert found.counts[:4].tolist() == [1, 1, 1, 0]
    if name != "chr1":  # a length that no assembly gives it
        refused(path, GenomeError, f"has reads on {name} only", chromsizes={"chr1": 5_000})


def test_aliases_of_the_user_name_contigs_too(tmp_path):
    path = write_text(tmp_path / "a", [LINE.replace("chr1", "one")])
    counter = ReadCounter(path, RULES["overlap"], chromsizes=CHROMSIZES, aliases=(frozenset({"one", "chr1"}),))
    assert [found.chrom for found in counter] == ["chr1"]


def refused(path: Path, error: type[Exception], fact: str, rule: str = OVERLAP, **options: Any) -> None:
    """Check that a file is refused with its path, in one line, with a fact and a remedy."""
    with pytest.raises(error) as caught:
        list(ReadCounter(path, CountingRule(rule), **{"chromsizes": CHROMSIZES, **options}))
    assert str(caught.value).startswith(str(path))
    message = str(caught.value).removeprefix(str(path))
    assert fact in message
    assert "; " in message
    assert "\n" not in message


def test_two_names_of_one_contig_are_refused(tmp_path):
    for one, other in (("chr1", "1"), ("1", "chr1"), ("1", "NC_000001.11")):
        path = write_text(tmp_path / "a", [LINE.replace("chr1", one), LINE, LINE.replace("chr1", other)])
        refused(path, GenomeError, "are both chr1", chromsizes=HG38)


FRAGMENTS = "chr1\t10\t60\tACGTACGT-1\t1\n"
PAIR = "chr1\t10\t60\tchr1\t90\t140\tp\t0\t+\t-\n"
LONG_PAIR = PAIR.replace("chr1", "chr2").replace("140", "151")


@pytest.mark.parametrize(
    ("text", "rule", "fact"),
    [
        (LINE, FRAGMENT, "single reads, which have no fragments"),
        ("chr1\t10\t60\n", FIVE_PRIME, ":1: no strand"),
        ("chr1\t10\t60\n", MIDPOINT, ":1: no strand"),
        (f"{LINE}{LINE.replace('+', '.')}", FIVE_PRIME, ":2: no strand"),
        (FRAGMENTS, OVERLAP, "give read_length"),
        (f"{LINE}chr1\t10\n", OVERLAP, ":2: 2 fields, at least 3 are needed"),
        (f"{LINE}chr1\n", OVERLAP, ":2: 1 fields, at least 2 are needed"),
        (f"#c\n\n{LINE}chr1\tx\t5\n", OVERLAP, ":4: 'x' is not a whole number"),
        (f"{LINE}chr1\t10\t10\n", OVERLAP, ":2: 10-10 is no interval"),
        (f"{LINE}chr1\t10\t9\n", OVERLAP, ":2: 10-9 is no interval"),
        (f"{LINE}chr1\t-1\t9\n", OVERLAP, ":2: -1-9 is no interval"),
        (f"{LINE}chr1\t1\t2147483648\n", OVERLAP, ":2: 1-2147483648 is no interval"),
        (f"{LINE}chr1\t1\t{'9' * 19}\n", OVERLAP, ":2: '9999999999999999999' is not a whole number"),
        (f"{FRAGMENTS}chr1\t70\t60\tACGTACGT-1\t1\n", FRAGMENT, ":2: 70-60 is no interval"),
        (f"{PAIR}chr1\t70\t60\tchr1\t90\t140\tp\t0\t+\t-\n", FRAGMENT, ":2: 70-60 is no interval"),
        (f"{PAIR}chr1\t10\t60\tchr1\t140\t90\tp\t0\t+\t-\n", OVERLAP, ":2: 140-90 is no interval"),
        (f"{PAIR}chr1\t10\t60\tchr1\t90\n", OVERLAP, ":2: 5 fields, at least 6 are needed"),
    ],
)
def test_lines_that_cannot_be_counted_are_refused_with_their_number(tmp_path, text, rule, fact):
    refused(write_text(tmp_path / "a", [text]), ReadsError, fact, rule)
    refused(write_text(tmp_path / "a.gz", [text], "gzip"), ReadsError, fact, rule)


@pytest.mark.parametrize("rule", [OVERLAP, FIVE_PRIME, MIDPOINT])
@pytest.mark.parametrize("line", ["chr2\t100\t151\tr\t0\t+\n", LONG_PAIR, "chr2\t1\t151\tACGTACGT\t1\n"])
def test_reads_that_end_past_their_chromosome_are_refused(tmp_path, line, rule):
    path = write_text(tmp_path / "a", [line])
    stated = Covariates(read_length=20)
    refused(path, GenomeError, "a read ends at chr2:151 but chr2 has 150 bp", rule, stated=stated)
    inside = write_text(tmp_path / "b", [line.replace("151", "150")])
    assert content(inside, CountingRule(rule), stated=stated)["summary"][0] > 0


def test_files_without_any_contig_of_the_genome_or_without_a_genome_are_refused(tmp_path):
    path = write_text(tmp_path / "a", [LINE.replace("chr1", "chr7")])
    refused(path, GenomeError, "has reads on chr7 only, but the genome of this run has chr1, chr2")
    refused(path, GenomeError, "-g CHROM.SIZES", chromsizes=None)


def test_a_truncated_or_damaged_file_is_refused(tmp_path, rng):
    lines = [f"chr1\t{start}\t{start + 36}\n" for start in rng.integers(0, 260_000, 30_000)]
    packed = write_text(tmp_path / "a", lines, "gzip").read_bytes()
    (tmp_path / "a").write_bytes(packed[: len(packed) // 2])
    refused(tmp_path / "a", ReadsError, "damaged or truncated")
    flipped = bytearray(packed)
    flipped[-len(packed) // 4] ^= 0xFF
    (tmp_path / "a").write_bytes(flipped)
    refused(tmp_path / "a", ReadsError, "damaged or truncated")


@pytest.mark.parametrize("keep_duplicates", [True, False])
def test_memory_does_not_grow_with_the_number_of_lines(tmp_path, monkeypatch, rng, keep_duplicates):
    """Without duplicates the reads of one contig are sorted in memory, but never those of all."""
    monkeypatch.setattr(columns, "_PIECE", 1 << 16)
    monkeypatch.setattr(intervals, "_AT_ONCE", 1 << 11)
    sizes = {f"scaffold_{number}": 20_000 for number in range(40)}
    peaks = []
    for n_lines in (40_000, 160_000):
        which, starts = rng.integers(0, 40, n_lines), rng.integers(0, 19_900, n_lines)
        rows = zip(which.tolist(), starts.tolist(), strict=True)
        text = "".join(f"scaffold_{number}\t{start}\t{start + 36}\t.\t0\t+\n" for number, start in rows)
        path = write_text(tmp_path / "a", [text])
        del rows, text
        tracemalloc.start()
        counter = ReadCounter(path, CountingRule(keep_duplicates=keep_duplicates), chromsizes=sizes)
        assert sum(int(found.blocks.sum()) for found in counter) == counter.summary.depth
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counter.summary.seen == n_lines
    all_reads = 160_000 * 8 * 4  # bytes of the eight columns of a read
    assert peaks[1] < all_reads
    assert peaks[1] < peaks[0] * (1.2 if keep_duplicates else 2)


# Defects, each with the smallest file that shows it


@pytest.mark.parametrize(
    ("plus", "minus"),
    [(30, -30), (-30, 30), (-30, -30), (30, 30)],
)
def test_a_pair_that_starts_at_one_base_is_one_fragment_whatever_signs_an_aligner_gave_it(tmp_path, plus, minus):
    """Of ATAC_hg19_chr1/GL1.bam both mates of 5,520 such pairs (13 % of all) have a negative TLEN; the sign is free."""
    header = pysam.AlignmentHeader.from_references(list(CHROMSIZES), list(CHROMSIZES.values()))
    with pysam.AlignmentFile(str(tmp_path / "a.bam"), "wb", header=header) as out:
        for flag, length in ((0x63, plus), (0x93, minus)):
            record = pysam.AlignedSegment(header)
            record.query_name, record.flag, record.mapping_quality, record.cigarstring = "r", flag, 60, "30M"
            record.reference_id = record.next_reference_id = 0
            record.reference_start = record.next_reference_start = 10
            record.template_length = length
            out.write(record)
    found = content(tmp_path / "a.bam", RULES["fragment"])
    assert found["summary"][0] == 1
    assert found["chr1"][0] == {(0,): 1, (1,): 1}


def test_pairs_without_a_fragment_are_refused_as_such_by_the_fragment_rule(tmp_path):
    path = write_text(tmp_path / "a", ["chr1\t10\t60\tchr1\t90\t140\tp\t0\t+\t+\n"])
    for rule in (FRAGMENT, MIDPOINT):
        refused(path, ReadsError, "no read of 1 passes", rule)


def test_a_piece_of_a_file_may_lack_proper_pairs(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a", [PAIR.replace("-", "+"), PAIR])
    monkeypatch.setattr(columns, "_PIECE", 30)
    assert content(path, RULES["fragment"])["summary"][0] == 1


@pytest.mark.parametrize(("line", "read_length"), [(LONG_PAIR, None), ("chr2\t1\t151\tACGTACGT\t1\n", 20)])
def test_fragments_that_end_past_their_chromosome_are_refused(tmp_path, line, read_length):
    path = write_text(tmp_path / "a", [line])
    refused(path, GenomeError, "ends at chr2:151", FRAGMENT, stated=Covariates(read_length=read_length))


@pytest.mark.parametrize("span", ["140\t90", "90\t99999999999"])
def test_a_right_mate_that_is_no_interval_is_refused_by_the_fragment_rule(tmp_path, span):
    path = write_text(tmp_path / "a", [f"chr1\t10\t60\tchr1\t{span}\tp\t0\t+\t-\n"])
    refused(path, ReadsError, ":1: ", FRAGMENT)


@pytest.mark.parametrize("rule", [FIVE_PRIME, FRAGMENT, MIDPOINT])
def test_fragments_do_not_tell_the_length_of_their_reads(tmp_path, rule):
    counter = ReadCounter(write_text(tmp_path / "a", [FRAGMENTS]), CountingRule(rule), chromsizes=CHROMSIZES)
    assert sum(int(found.counts.sum()) for found in counter) > 0
    assert counter.summary.read_length is None


def test_a_line_without_a_strand_leaves_the_strands_of_the_others_alone(tmp_path):
    reverse = LINE.replace("+", "-")
    alone = content(write_text(tmp_path / "a", [reverse, LINE]), CountingRule(keep_duplicates=False))
    path = write_text(tmp_path / "b", [reverse, LINE, "chrE\t1\t5\n"])
    found = content(path, CountingRule(keep_duplicates=False))
    assert found["chr1"] == alone["chr1"]
    refused(path, ReadsError, ":3: no strand", FIVE_PRIME)


def test_five_prime_ends_of_pairs_without_strands_are_refused(tmp_path):
    path = write_text(tmp_path / "a", ["chr1\t10\t60\tchr1\t90\t140\tp\t0\t.\t.\n"])
    refused(path, ReadsError, ":1: no strand", FIVE_PRIME)


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path):
    found = content(write_text(tmp_path / "a", ["\ufeff", LINE, LINE]), RULES["overlap"])
    assert found["summary"][0] == 2


def test_a_small_damaged_file_is_said_to_be_damaged(tmp_path):
    packed = gzip.compress("".join(f"chr1\t{start}\t{start + 36}\n" for start in range(900)).encode())
    for position in range(60, len(packed) - 8, 97):
        (tmp_path / "a").write_bytes(packed[:position] + bytes([packed[position] ^ 0xFF]) + packed[position + 1 :])
        refused(tmp_path / "a", ReadsError, "damaged")
