"""Counting reads: every number against a plain loop over the records, every bad file by its error."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pysam
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from candi_cli.counting import FIVE_PRIME, FRAGMENT, MIDPOINT, OVERLAP, CountingRule
from candi_cli.errors import GenomeError, ReadsError, SequenceError
from candi_cli.io import alignment, bam
from candi_cli.io.reads import ReadCounter, ReadsSummary
from candi_cli.io.tally import BLOCK_BP

ROOT = Path(__file__).parents[2]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"
FASTA = TEST_DATA / "genome.fa.gz"
CHROMSIZES = {"chr1": 300_010, "chr2": 120_000}
EXPERIMENTS = [
    *(f"sim1.{assay}" for assay in ("H3K4me3", "H3K36me3", "H3K27me3", "control")),
    *(f"sim2.{assay}" for assay in ("H3K4me3", "H3K36me3", "H3K9me3")),
]
FILES = [*(f"{stem}.bam" for stem in EXPERIMENTS), "sim1.H3K4me3.dsf4.bam", "sim1.H3K4me3.cram"]
DEFAULT = CountingRule()
RULES = {
    "overlap": DEFAULT,
    "five-prime": CountingRule(FIVE_PRIME),
    "five-prime shifted": CountingRule(FIVE_PRIME, shift=(4, -5)),
    "fragment": CountingRule(FRAGMENT),
    "midpoint": CountingRule(MIDPOINT),
    "midpoint shifted": CountingRule(MIDPOINT, shift=(75, -75)),
    "overlap at 10 bp": CountingRule(resolution=10),
    "overlap at 1 kb": CountingRule(resolution=1_000),
}


class Kept(NamedTuple):
    """What the definitions of the rules speak of, of one read that passes the default filters."""

    chrom: str
    start: int
    end: int
    reverse: bool
    single: bool
    leftmost_of_proper_pair: bool
    template_length: int


def stands_for_both(read: pysam.AlignedSegment) -> bool:
    if read.reference_start != read.next_reference_start:
        return read.template_length > 0
    return read.is_read1 if read.is_reverse == read.mate_is_reverse else read.is_forward


@cache
def kept_reads(path: Path, reference: Path | None = None) -> list[Kept]:
    with pysam.AlignmentFile(str(path), reference_filename=str(reference) if reference else None) as alignment:
        return [
            Kept(
                read.reference_name,
                read.reference_start,
                read.reference_end,
                read.is_reverse,
                not read.is_paired,
                read.is_proper_pair and read.template_length != 0 and stands_for_both(read),
                abs(read.template_length),
            )
            for read in alignment.fetch(until_eof=True)
            if not (read.is_unmapped or read.is_secondary or read.is_supplementary)
            and not (read.is_qcfail or read.is_duplicate)
            and read.mapping_quality >= 30
        ]


def bases_counted(read: Kept, rule: CountingRule) -> range:
    """Return the bases of a chromosome that a read counts for, by the definition of the rule."""
    if rule.rule == OVERLAP:
        return range(read.start, read.end)
    if rule.rule == FRAGMENT:
        return range(read.start, read.start + read.template_length if read.leftmost_of_proper_pair else read.start)
    if rule.rule == MIDPOINT and not read.single:
        middle = read.start + read.template_length // 2
        return range(middle, middle + read.leftmost_of_proper_pair)
    five_prime = read.end - 1 + rule.shift[1] if read.reverse else read.start + rule.shift[0]
    return range(five_prime, five_prime + 1)


def loop_counts(reads: Sequence[Kept], rule: CountingRule, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    times = {chrom: Counter() for chrom in sizes}
    for read in reads:
        bases = bases_counted(read, rule)
        if bases:
            times[read.chrom].update(range(bases[0] // rule.resolution, bases[-1] // rule.resolution + 1))
    counts = {chrom: np.zeros(-(-length // rule.resolution), dtype=int) for chrom, length in sizes.items()}
    for chrom, here in counts.items():
        here[list(times[chrom].keys())] = list(times[chrom].values())
    return counts


def count(path: Path, rule: CountingRule = DEFAULT, **options: object) -> tuple[dict[str, np.ndarray], ReadCounter]:
    counter = ReadCounter(path, rule, **options)
    return {found.chrom: found.counts for found in counter}, counter


def refusal(path: Path, error: type[Exception] = ReadsError, **options: object) -> str:
    """Return what is said of a file that cannot be counted, without its path."""
    with pytest.raises(error) as caught:
        count(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value), "no remedy"
    return str(caught.value).removeprefix(f"{path}: ")


def assert_same_counts(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    for chrom, counts in expected.items():
        np.testing.assert_array_equal(found[chrom] if chrom in found else 0 * counts, counts, err_msg=chrom)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", FILES)
def test_counts_are_those_of_a_plain_loop_over_the_records(name, rule):
    reference = FASTA if name.endswith(".cram") else None
    kept = kept_reads(TEST_DATA / name, reference)
    if rule.rule == FRAGMENT and name.startswith("sim2"):
        assert "no read of" in refusal(TEST_DATA / name, rule=rule)
        return
    found, counter = count(TEST_DATA / name, rule, reference=reference)
    assert_same_counts(found, loop_counts(kept, rule, CHROMSIZES))
    assert counter.summary.depth == sum(len(bases_counted(read, rule)) > 0 for read in kept)


@pytest.mark.parametrize("name", ["sim1.H3K36me3.bam", "sim2.H3K4me3.bam"])
def test_counts_are_what_an_index_query_of_each_bin_finds(name, rng):
    found, _ = count(TEST_DATA / name)
    with pysam.AlignmentFile(str(TEST_DATA / name)) as alignment:

        def passes(read: pysam.AlignedSegment) -> bool:
            return not read.flag & 0xF04 and read.mapping_quality >= 30

        for number in rng.choice(len(found["chr2"]), 150, replace=False):
            queried = alignment.count("chr2", number * 25, (number + 1) * 25, read_callback=passes)
            assert found["chr2"][number] == queried


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_cram_counts_as_the_bam_of_the_same_records(rule):
    from_bam, bam = count(TEST_DATA / "sim1.H3K4me3.bam", rule, n_folds=3)
    from_cram, cram = count(TEST_DATA / "sim1.H3K4me3.cram", rule, n_folds=3, reference=FASTA)
    assert from_bam.keys() == from_cram.keys()
    assert_same_counts(from_cram, from_bam)
    np.testing.assert_array_equal(bam.summary.fold_depths, cram.summary.fold_depths)
    assert (bam.summary.depth, bam.summary.seen) == (cram.summary.depth, cram.summary.seen)


@pytest.mark.parametrize("stem", EXPERIMENTS)
def test_what_the_reads_show_is_what_they_were_drawn_from(stem):
    with h5py.File(TEST_DATA / "truth.h5") as store:
        truth = dict(store[stem.replace(".", "/")].attrs)
    summary = count(TEST_DATA / f"{stem}.bam")[1].summary
    assert summary.depth == truth["reads_kept"]
    assert (summary.read_length, summary.run_type) == (truth["read_length"], truth["run_type"])
    assert summary.platform == truth["platform"]
    with pysam.AlignmentFile(str(TEST_DATA / f"{stem}.bam")) as alignment:
        assert summary.seen == sum(1 for _ in alignment.fetch(until_eof=True))


def test_five_prime_counts_each_read_once():
    for name in ("sim1.H3K4me3.bam", "sim2.H3K9me3.bam"):
        found, counter = count(TEST_DATA / name, CountingRule(FIVE_PRIME))
        assert sum(int(counts.sum()) for counts in found.values()) == counter.summary.depth


# Records written for one purpose each

HEADER = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 110}, {"SN": "chr2", "LN": 60}]}


def write_bam(path: Path, *records: tuple, header: dict = HEADER) -> Path:
    """Write records of (contig, start, CIGAR, flag, MAPQ, template length, mate's start) as they come."""
    with pysam.AlignmentFile(str(path), "wb", header=header) as out:
        for number, (tid, start, cigar, flag, mapq, template_length, mate_start) in enumerate(records):
            read = pysam.AlignedSegment(out.header)
            read.query_name = f"read{number}"
            read.flag, read.mapping_quality = flag, mapq
            read.reference_id, read.reference_start, read.cigarstring = tid, start, cigar
            read.next_reference_id = tid if flag & 1 else -1
            read.next_reference_start, read.template_length = mate_start, template_length
            out.write(read)
    return path


def single(start: int, cigar: str = "20M", *, tid: int = 0, flag: int = 0, mapq: int = 60) -> tuple:
    return tid, start, cigar, flag, mapq, 0, -1


def pair(start: int, length: int, *, tid: int = 0, read_bp: int = 10, flag: int = 0) -> list[tuple]:
    """Return the two records of a proper pair over [start, start + length)."""
    right = start + length - read_bp
    return [
        (tid, start, f"{read_bp}M", 0x63 | flag, 60, length, right),
        (tid, right, f"{read_bp}M", 0x93 | flag, 60, -length, start),
    ]


@pytest.mark.parametrize(
    ("start", "cigar", "bins"),
    [
        (0, "25M", [0]),
        (0, "26M", [0, 1]),
        (24, "1M", [0]),
        (25, "25M", [1]),
        (24, "2M", [0, 1]),
        (20, "5M60N5M", [0, 1, 2, 3]),
        (20, "2M3D1M", [0, 1]),
        (20, "2M30I3M", [0]),
        (20, "30S5M30S", [0]),
        (100, "10M", [4]),
        (90, "20M", [3, 4]),
    ],
)
def test_a_read_touches_the_bins_it_overlaps_and_none_beyond_a_boundary(tmp_path, start, cigar, bins):
    found, _ = count(write_bam(tmp_path / "one.bam", single(start, cigar)))
    assert np.flatnonzero(found["chr1"]).tolist() == bins
    assert len(found["chr1"]) == 5
    assert found["chr1"].max() == 1


@pytest.mark.parametrize(("flag", "shift", "base"), [(0, 0, 30), (0, 4, 34), (16, 0, 49), (16, -5, 44), (16, 2, 51)])
def test_the_five_prime_end_of_a_reverse_read_is_its_last_base(tmp_path, flag, shift, base):
    rule = CountingRule(FIVE_PRIME, resolution=1, shift=(0, shift) if flag else (shift, 0))
    found, _ = count(write_bam(tmp_path / "one.bam", single(30, "20M", flag=flag)), rule)
    assert np.flatnonzero(found["chr1"]).tolist() == [base]


def test_a_pair_counts_once_over_its_span_as_a_fragment_and_twice_otherwise(tmp_path):
    path = write_bam(tmp_path / "pair.bam", *pair(10, 80))
    assert count(path, CountingRule(FRAGMENT))[0]["chr1"].tolist() == [1, 1, 1, 1, 0]
    assert count(path)[0]["chr1"].tolist() == [1, 0, 0, 1, 0]
    assert [count(path, CountingRule(rule))[1].summary.depth for rule in (OVERLAP, FIVE_PRIME, FRAGMENT)] == [2, 2, 1]


@pytest.mark.parametrize(("flags", "length"), [((0x61, 0x91), 80), ((0x63, 0x93), 0), ((0, 16), 80)])
def test_pairs_that_are_not_proper_or_have_no_length_are_no_fragments(tmp_path, flags, length):
    first, second = pair(10, 80)
    left, right = (
        (*mate[:3], flag, 60, np.sign(mate[5]) * length, mate[6])
        for mate, flag in zip((first, second), flags, strict=True)
    )
    path = write_bam(tmp_path / "pair.bam", left, *pair(60, 45)[:1], right, *pair(60, 45)[1:])
    assert count(path, CountingRule(FRAGMENT))[0]["chr1"].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(("start", "length", "base"), [(10, 80, 50), (10, 81, 50), (11, 79, 50), (0, 1, 0), (0, 2, 1)])
def test_a_pair_counts_once_in_the_middle_of_its_fragment_whatever_the_shift(tmp_path, start, length, base):
    path = write_bam(tmp_path / "pair.bam", *pair(start, length, read_bp=min(length, 10)))
    for shift in ((0, 0), (75, -75)):
        found, counter = count(path, CountingRule(MIDPOINT, resolution=1, shift=shift))
        assert np.flatnonzero(found["chr1"]).tolist() == [base]
        assert (counter.summary.depth, counter.summary.run_type) == (1, "paired-ended")
        assert counter.summary.read_length == min(length, 10)


@pytest.mark.parametrize(("flag", "shift", "base"), [(0, 0, 30), (0, 15, 45), (16, 0, 49), (16, -15, 34), (2, 15, 45)])
def test_a_single_ended_read_counts_by_its_five_prime_end_among_midpoints(tmp_path, flag, shift, base):
    rule = CountingRule(MIDPOINT, resolution=1, shift=(0, shift) if flag & 16 else (shift, 0))
    found, counter = count(write_bam(tmp_path / "one.bam", single(30, "20M", flag=flag)), rule)
    assert np.flatnonzero(found["chr1"]).tolist() == [base]
    assert (counter.summary.depth, counter.summary.run_type) == (1, "single-ended")


@pytest.mark.parametrize(("flags", "length"), [((0x61, 0x91), 80), ((0x63, 0x93), 0), ((0x69, 0x99), 0)])
def test_paired_reads_that_are_no_proper_pair_have_no_midpoint(tmp_path, flags, length):
    left, right = (
        (*mate[:3], flag, 60, np.sign(mate[5]) * length, mate[6])
        for mate, flag in zip(pair(10, 80), flags, strict=True)
    )
    found, counter = count(write_bam(tmp_path / "p.bam", left, single(27), right), CountingRule(MIDPOINT))
    assert found["chr1"].tolist() == [0, 1, 0, 0, 0]
    assert (counter.summary.depth, counter.summary.seen) == (1, 3)


def test_an_unknown_mapping_quality_passes_and_is_counted(tmp_path):
    qualities = [0, 29, 30, 254, 255, 255]
    summary = count(write_bam(tmp_path / "q.bam", *(single(5, mapq=mapq) for mapq in qualities)))[1].summary
    assert (summary.depth, summary.mapq_unknown, summary.seen) == (4, 2, 6)


def test_unmapped_reads_never_count_whatever_flags_are_excluded(tmp_path):
    path = write_bam(tmp_path / "u.bam", single(5), single(5, None, flag=4), single(-1, None, tid=-1, flag=4))
    summary = count(path, CountingRule(excl_flags=0, min_mapq=0))[1].summary
    assert (summary.depth, summary.seen) == (1, 3)


CIGARS = st.lists(st.tuples(st.integers(1, 40), st.sampled_from("MDNIS=X")), max_size=3).map(
    lambda parts: "5M" + "".join(f"{length}{operation}" for length, operation in parts if operation != "S")
)
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 59),
        CIGARS,
        st.sampled_from([0, 16, 0x63, 0x93, 0x61, 0x400]) | st.sampled_from([0x63, 0x53]) | st.integers(0, 0xFFF),
        st.sampled_from([29, 30, 60, 255]),
        st.integers(-70, 70),
        st.integers(0, 59),
    ),
    min_size=1,
    max_size=12,
).map(lambda records: sorted(records, key=lambda record: record[:2]))
ANY_RULE = st.builds(
    CountingRule,
    rule=st.sampled_from([OVERLAP, FIVE_PRIME, FRAGMENT, MIDPOINT]),
    resolution=st.sampled_from([1, 7, 25, 200]),
    min_mapq=st.sampled_from([0, 30]),
    excl_flags=st.sampled_from([0xF04, 0, 0x400]),
    shift=st.tuples(st.integers(-70, 70), st.integers(-70, 70)),
    keep_duplicates=st.booleans(),
)


def painted(records: Sequence[tuple], rule: CountingRule) -> dict[str, np.ndarray]:
    """Count by painting each read onto the bases of its chromosome; what lies outside counts at the end it left by."""
    counts, seen = {}, set()
    for tid, contig in enumerate(HEADER["SQ"]):
        length = contig["LN"]
        n_bins = -(-length // rule.resolution)
        counts[contig["SN"]] = np.zeros(n_bins, dtype=int)
        for read_tid, start, cigar, flag, mapq, template_length, mate_start in records:
            if read_tid != tid or flag & (rule.excl_flags | 4) or mapq < rule.min_mapq:
                continue
            end = start + sum(
                int(bp) for bp, operation in re.findall(r"(\d+)([MDNIS=X])", cigar) if operation in "MDN=X"
            )
            by_strand = flag & 64 if bool(flag & 16) == bool(flag & 32) else not flag & 16
            is_left = template_length > 0 if start != mate_start else by_strand
            as_single = rule.rule == MIDPOINT and not flag & 1
            once = rule.rule in (FRAGMENT, MIDPOINT) and not as_single
            if once and not (flag & 2 and template_length != 0 and is_left):
                continue
            strand_and_mate = (flag & 1, flag & 16, flag & 64, flag & 128, mate_start, template_length)
            kind = (tid, start, end, strand_and_mate)
            if rule.rule == MIDPOINT and once:
                kind = (tid, start, start + abs(template_length), strand_and_mate[:4])
            if not rule.keep_duplicates and kind in seen:
                continue
            seen.add(kind)
            if rule.rule == FRAGMENT:
                end = start + abs(template_length)
            elif rule.rule == MIDPOINT and once:
                start += abs(template_length) // 2
                end = start + 1
            elif rule.rule in (FIVE_PRIME, MIDPOINT):
                start = end - 1 + rule.shift[1] if flag & 16 else start + rule.shift[0]
                end = start + 1
            bases = np.zeros(n_bins * rule.resolution, dtype=bool)
            bases[min(max(start, 0), length - 1) : min(max(end, 1), length)] = True
            counts[contig["SN"]] += bases.reshape(n_bins, rule.resolution).any(axis=1)
    return counts


@settings(deadline=None, max_examples=150, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(records=RECORDS, rule=ANY_RULE, n_folds=st.integers(0, 4))
def test_any_records_count_as_painted_on_the_bases(tmp_path_factory, records, rule, n_folds):
    path = write_bam(tmp_path_factory.getbasetemp() / "any.bam", *records)
    expected = painted(records, rule)
    if not any(counts.any() for counts in expected.values()):
        refusal(path, rule=rule)
        return
    counter = ReadCounter(path, rule, n_folds=n_folds)
    found = {each.chrom: each for each in counter}
    assert_same_counts({chrom: each.counts for chrom, each in found.items()}, expected)
    for each in found.values():
        assert each.folds.shape == (len(each.counts), n_folds)
        if n_folds:
            np.testing.assert_array_equal(each.folds.sum(axis=1), each.counts)
    assert n_folds == 0 or counter.summary.fold_depths.sum() == counter.summary.depth


@settings(deadline=None, max_examples=100)
@given(records=RECORDS, rule=ANY_RULE)
def test_the_compiled_loop_and_pysam_give_the_same_counts_and_summary(tmp_path_factory, records, rule):
    path = write_bam(tmp_path_factory.getbasetemp() / "ways.bam", *records)
    results = []
    for fast in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bam, "FAST", fast)
            counter = ReadCounter(path, rule, n_folds=3)
            try:
                counts = {each.chrom: each.folds.tolist() for each in counter}
            except ReadsError as error:
                counts = {"error": str(error)}
            results.append((counts, replace(counter.summary, fold_depths=counter.summary.fold_depths.tolist())))
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [37, 5_733, 1 << 24])
def test_counts_do_not_depend_on_how_many_bytes_are_read_at_a_time(monkeypatch, size):
    expected, _ = count(TEST_DATA / "sim2.H3K4me3.bam", n_folds=2)
    monkeypatch.setattr(bam, "_PIECE", size)
    found, _ = count(TEST_DATA / "sim2.H3K4me3.bam", n_folds=2)
    assert_same_counts(found, expected)


@pytest.mark.parametrize("size", [1, 7, 5_733, 10**9])
def test_counts_do_not_depend_on_how_many_reads_pysam_gives_at_a_time(monkeypatch, size):
    expected, _ = count(TEST_DATA / "sim2.H3K4me3.bam", n_folds=2)
    monkeypatch.setattr(bam, "FAST", False)
    monkeypatch.setattr(alignment, "_AT_ONCE", size)
    found, _ = count(TEST_DATA / "sim2.H3K4me3.bam", n_folds=2)
    assert_same_counts(found, expected)


@pytest.mark.parametrize("name", ["sim1.H3K4me3.bam", "sim2.H3K9me3.bam"])
def test_duplicates_are_found_by_position_whether_they_are_flagged_or_not(name):
    unflagged = CountingRule(excl_flags=0xF04 & ~0x400, keep_duplicates=False)
    found, counter = count(TEST_DATA / name, unflagged)
    expected, flagged = count(TEST_DATA / name, CountingRule(keep_duplicates=False))
    assert_same_counts(found, expected)
    kept = kept_reads(TEST_DATA / name)
    n_flagged = 300 if name.startswith("sim1") else 120  # the README of the test data
    assert counter.summary.duplicates == flagged.summary.duplicates + n_flagged
    assert flagged.summary.depth + flagged.summary.duplicates == len(kept)


@pytest.mark.parametrize(
    ("other", "is_duplicate"),
    [
        ((0, 5, "10M", 0x63, 60, 60, 55), True),
        ((0, 5, "10M", 0x63, 30, 60, 55), True),
        ((0, 5, "11M", 0x63, 60, 60, 55), False),
        ((0, 5, "10M", 0x63, 60, 61, 55), False),
        ((0, 5, "10M", 0x63, 60, 60, 50), False),
        ((0, 5, "10M", 0x53, 60, 60, 55), False),
        ((0, 5, "10M", 0xA3, 60, 60, 55), False),
        ((0, 6, "9M", 0x63, 60, 60, 55), False),
        ((1, 5, "10M", 0x63, 60, 60, 55), False),
    ],
)
def test_reads_of_another_place_strand_end_or_mate_are_no_duplicates(tmp_path, other, is_duplicate):
    path = write_bam(tmp_path / "d.bam", (0, 5, "10M", 0x63, 60, 60, 55), other)
    summary = count(path, CountingRule(keep_duplicates=False))[1].summary
    assert (summary.depth, summary.duplicates) == (2 - is_duplicate, is_duplicate)
    assert count(path)[1].summary.depth == 2


FRAGMENT_ONCE = (0, 5, "10M", 0x63, 60, 60, 55)


@pytest.mark.parametrize(
    ("other", "is_duplicate"),
    [
        (FRAGMENT_ONCE, True),
        ((0, 5, "4M", 0x63, 60, 60, 55), True),
        ((0, 5, "10M", 0x63, 60, 60, 50), True),
        ((0, 5, "10M", 0x63, 60, 61, 55), False),
        ((0, 5, "10M", 0xA3, 60, 60, 55), False),
        ((0, 6, "10M", 0x63, 60, 60, 55), False),
        ((0, 6, "10M", 0x63, 60, 59, 55), False),
        ((1, 5, "10M", 0x63, 60, 60, 55), False),
        ((0, 5, "10M", 0, 60, 60, 55), False),
    ],
)
def test_fragments_of_one_start_end_and_orientation_are_duplicates_by_midpoint(tmp_path, other, is_duplicate):
    path = write_bam(tmp_path / "d.bam", FRAGMENT_ONCE, other)
    found, counter = count(path, CountingRule(MIDPOINT, keep_duplicates=False))
    assert (counter.summary.depth, counter.summary.duplicates) == (2 - is_duplicate, is_duplicate)
    assert sum(int(counts.sum()) for counts in found.values()) == 2 - is_duplicate
    assert count(path, CountingRule(MIDPOINT))[1].summary.depth == 2


@pytest.mark.parametrize(("other", "is_duplicate"), [((10, "20M"), True), ((10, "19M"), False), ((11, "19M"), False)])
def test_single_ended_reads_of_another_start_or_end_are_no_duplicates_by_midpoint(tmp_path, other, is_duplicate):
    path = write_bam(tmp_path / "d.bam", single(10, "20M"), single(*other))
    assert count(path, CountingRule(MIDPOINT, keep_duplicates=False))[1].summary.duplicates == is_duplicate


def test_what_is_a_duplicate_of_a_single_ended_read_is_so_by_five_prime_and_by_midpoint(tmp_path):
    reads = [(0, 10, "20M", 0, 60, template, mate_start) for template in (-5, 5) for mate_start in (-1, -1, 3)]
    path = write_bam(tmp_path / "d.bam", *reads)
    for rule in (FIVE_PRIME, MIDPOINT):
        summary = count(path, CountingRule(rule, keep_duplicates=False))[1].summary
        assert (summary.depth, summary.duplicates) == (4, 2)


def test_the_signs_that_an_aligner_gave_mates_at_one_base_make_no_other_fragment(tmp_path):
    mates = [(0, 10, "30M", flag, 60, length, 10) for length in (30, -30) for flag in (0x63, 0x93)]
    summary = count(write_bam(tmp_path / "d.bam", *mates), CountingRule(MIDPOINT, keep_duplicates=False))[1].summary
    assert (summary.depth, summary.duplicates) == (1, 1)


# Folds


def test_a_fragment_is_in_the_fold_of_its_mates_by_every_rule(tmp_path):
    for length in range(20, 60):
        path = write_bam(tmp_path / "f.bam", *pair(17, length))
        folds = []
        for rule in (OVERLAP, FIVE_PRIME, FRAGMENT, MIDPOINT):
            (found,) = ReadCounter(path, CountingRule(rule), n_folds=16)
            folds.append(np.flatnonzero(found.folds.any(axis=0)).tolist())
        assert folds == 4 * folds[:1]
        assert len(folds[0]) == 1


@pytest.mark.parametrize("name", ["sim1.H3K4me3.bam", "sim2.H3K36me3.bam"])
@pytest.mark.parametrize("rule", [OVERLAP, FIVE_PRIME, MIDPOINT])
def test_folds_sum_to_the_counts_and_share_the_reads_evenly(name, rule):
    counter = ReadCounter(TEST_DATA / name, CountingRule(rule), n_folds=4)
    for found in counter:
        np.testing.assert_array_equal(found.folds.sum(axis=1), found.counts)
    shares = counter.summary.fold_depths
    assert shares.sum() == counter.summary.depth
    drawn_together = 2 if name.startswith("sim1") else 1
    spread = np.sqrt(drawn_together * counter.summary.depth * 0.25 * 0.75)
    assert np.abs(shares - counter.summary.depth / 4).max() < 4 * spread


@pytest.mark.parametrize("n_folds", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("paired", [True, False])
def test_evenly_spaced_fragments_of_one_length_fall_into_all_folds_alike(tmp_path, n_folds, paired):
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 400_000}]}
    starts = range(0, 400_000 - 100, 100)
    records = [mate for start in starts for mate in (pair(start, 75) if paired else [single(start)])]
    counter = ReadCounter(
        write_bam(tmp_path / "a.bam", *records, header=header), CountingRule(FIVE_PRIME), n_folds=n_folds
    )
    folds = next(iter(counter)).folds[::4]
    assert folds.sum() == len(starts)
    assert chisquare(folds.sum(axis=0)).pvalue > 1e-3
    neighbours = np.zeros((n_folds, n_folds))
    np.add.at(neighbours, (folds[:-1].argmax(axis=1), folds[1:].argmax(axis=1)), 1)
    assert chisquare(neighbours.ravel()).pvalue > 1e-3, "the fold of a fragment tells that of the next one"


def test_mates_and_duplicates_share_a_fold_whatever_their_names(tmp_path, rng):
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 200_000}]}
    lengths = rng.integers(60, 180, 800)
    fragments = [(index * 250 + int(rng.integers(0, 60)), int(length)) for index, length in enumerate(lengths)]
    copies = rng.integers(1, 4, len(fragments))
    records = [
        mate for (start, length), n in zip(fragments, copies, strict=True) for mate in pair(start, length) * int(n)
    ]
    path = write_bam(tmp_path / "p.bam", *sorted(records, key=lambda record: record[1]), header=header)
    (found,) = ReadCounter(path, CountingRule(FIVE_PRIME, resolution=250), n_folds=4)
    np.testing.assert_array_equal(found.folds.max(axis=1), 2 * copies)
    np.testing.assert_array_equal(found.folds.sum(axis=1), 2 * copies)
    assert (found.folds.any(axis=0)).all()


def test_single_reads_of_one_five_prime_end_and_strand_share_a_fold(tmp_path):
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 50_000}]}
    forward = [single(start, f"{bp}M") for start in range(0, 50_000, 200) for bp in (20, 36, 50)]
    reverse = [single(start + 100 - bp, f"{bp}M", flag=16) for start in range(0, 50_000, 200) for bp in (50, 36, 20)]
    path = write_bam(tmp_path / "s.bam", *sorted(forward + reverse, key=lambda record: record[1]), header=header)
    (found,) = ReadCounter(path, CountingRule(FIVE_PRIME, resolution=1), n_folds=4)
    hit = found.folds[found.counts > 0]
    assert len(hit) == 500
    assert (hit.max(axis=1) == 3).all()
    assert (hit.sum(axis=1) == 3).all()


@pytest.mark.parametrize("shared", ["start", "end"])
def test_fragments_that_share_one_end_fall_into_folds_of_their_own(tmp_path, shared):
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 5_000}]}
    spans = [(100, 100 + length) if shared == "start" else (4_900 - length, 4_900) for length in range(50, 2_050)]
    records = [mate for start, end in spans for mate in pair(start, end - start)]
    path = write_bam(tmp_path / "f.bam", *sorted(records, key=lambda record: record[1]), header=header)
    (found,) = ReadCounter(path, CountingRule(FIVE_PRIME, resolution=1), n_folds=4)
    other_ends = found.folds[found.counts == 1]
    assert len(other_ends) == 2_000
    assert chisquare(other_ends.sum(axis=0)).pvalue > 1e-3


def test_the_two_strands_at_one_place_fall_into_folds_of_their_own(tmp_path):
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 50_000}]}
    records = [read for start in range(0, 49_000, 50) for read in (single(start, "1M"), single(start, "1M", flag=16))]
    path = write_bam(tmp_path / "s.bam", *records, header=header)
    (found,) = ReadCounter(path, CountingRule(FIVE_PRIME, resolution=1), n_folds=2)
    together = (found.folds[found.counts > 0].max(axis=1) == 2).mean()
    assert together == pytest.approx(0.5, abs=0.08)


# What the summary says


def test_blocks_count_the_reads_that_start_in_them_and_span_what_is_covered():
    kept = kept_reads(TEST_DATA / "sim1.H3K36me3.bam")
    counter = ReadCounter(TEST_DATA / "sim1.H3K36me3.bam", CountingRule())
    starts = Counter((read.chrom, read.start // BLOCK_BP) for read in kept)
    for found in counter:
        assert {(found.chrom, block): n for block, n in enumerate(found.blocks) if n} == {
            key: n for key, n in starts.items() if key[0] == found.chrom
        }
    covered = sum(min((block + 1) * BLOCK_BP, CHROMSIZES[chrom]) - block * BLOCK_BP for chrom, block in starts)
    assert counter.summary.covered_bp == covered


def test_the_read_length_is_the_most_frequent_one_of_the_whole_read(tmp_path):
    reads = [
        single(0, "36M"),
        single(0, "10S26M"),
        single(1, "30M"),
        single(2, "36M"),
        single(3, "50M"),
        single(4, "50M"),
    ]
    assert count(write_bam(tmp_path / "l.bam", *reads))[1].summary.read_length == 36


def test_the_run_type_is_that_of_most_counted_reads(tmp_path):
    mostly_paired = write_bam(tmp_path / "p.bam", *pair(0, 40), single(90))
    mostly_single = write_bam(tmp_path / "s.bam", *pair(0, 40), *(single(90 + offset) for offset in range(3)))
    assert count(mostly_paired)[1].summary.run_type == "paired-ended"
    assert count(mostly_single)[1].summary.run_type == "single-ended"
    assert ReadsSummary().run_type is None


@pytest.mark.parametrize(
    ("groups", "platform"),
    [
        ([{"PL": "ILLUMINA", "PM": "HiSeq 2500"}], "Illumina HiSeq 2500"),
        ([{"PL": "ILLUMINA", "PM": "HiSeq 2500"}, {"PM": "Illumina HiSeq 2500"}], "Illumina HiSeq 2500"),
        ([{"PM": "HiSeq 2500"}, {"PM": "HiSeq 4000"}], None),
        ([{"PM": "HiSeq 2500"}, {}], None),
        ([{"PL": "ILLUMINA"}], None),
        ([], None),
    ],
)
def test_the_platform_is_what_all_read_groups_agree_on(tmp_path, groups, platform):
    header = HEADER | {"RG": [{"ID": str(number)} | group for number, group in enumerate(groups)]}
    assert count(write_bam(tmp_path / "g.bam", single(0), header=header))[1].summary.platform == platform


# Genomes


def test_contigs_that_the_genome_does_not_have_are_skipped_and_named():
    found, counter = count(TEST_DATA / "sim1.H3K4me3.bam", chromsizes={"chr1": 300_010, "chrX": 5_000})
    kept = kept_reads(TEST_DATA / "sim1.H3K4me3.bam")
    assert set(found) == {"chr1"}
    assert counter.summary.skipped_contigs == ["chr2"]
    assert counter.summary.depth == sum(read.chrom == "chr1" for read in kept)


def test_the_genome_given_decides_on_the_bins():
    sizes = {"chrX": 999, "chr2": 120_000, "chr1": 300_010}
    found, _ = count(TEST_DATA / "sim1.H3K4me3.bam", chromsizes=sizes)
    assert_same_counts(found, count(TEST_DATA / "sim1.H3K4me3.bam")[0])


@pytest.mark.parametrize(
    ("sizes", "facts"),
    [
        ({"chr1": 300_011, "chr2": 120_001}, ["chr1 is 300,010 bp", "300,011 bp"]),
        ({"scaffold1": 300_010, "scaffold2": 120_000}, ["chr1, chr2", "scaffold1, scaffold2"]),
    ],
    ids=["other lengths", "other names"],
)
def test_a_file_of_another_genome_is_refused_before_it_is_read(sizes, facts):
    message = refusal(TEST_DATA / "sim1.H3K4me3.bam", GenomeError, chromsizes=sizes)
    assert all(fact in message for fact in facts)


def test_a_contig_of_another_length_is_refused_only_when_it_has_reads(tmp_path):
    sizes = {"chr1": 110, "chr2": 61}
    unread = write_bam(tmp_path / "unread.bam", single(5))
    assert count(unread, chromsizes=sizes)[1].summary.depth == 1
    read = write_bam(tmp_path / "read.bam", single(5), single(5, tid=1))
    message = refusal(read, chromsizes=sizes)
    assert "reads on chr2 of 60 bp, which is 61 bp" in message


# Files that cannot be counted


@pytest.fixture
def bam_bytes() -> bytes:
    return (TEST_DATA / "sim2.H3K4me3.bam").read_bytes()


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_truncated_bam_is_refused_as_such(tmp_path, bam_bytes, part):
    path = tmp_path / "cut.bam"
    path.write_bytes(bam_bytes[: int(len(bam_bytes) * part)])
    assert "truncated" in refusal(path)


def test_a_bam_without_its_end_marker_is_truncated(tmp_path, bam_bytes):
    path = tmp_path / "cut.bam"
    path.write_bytes(bam_bytes[:-28])  # the BGZF end-of-file block is 28 bytes (SAM specification, 4.1.2)
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_bam_with_a_flipped_byte_is_refused_as_damaged(tmp_path, bam_bytes, part):
    content = bytearray(bam_bytes)
    content[int(len(content) * part)] ^= 0xFF
    path = tmp_path / "flipped.bam"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_cram_is_refused(tmp_path, part):
    content = (TEST_DATA / "sim1.H3K4me3.cram").read_bytes()
    path = tmp_path / "cut.cram"
    path.write_bytes(content[: int(len(content) * part)])
    refusal(path, reference=FASTA)


def test_a_cram_without_its_reference_is_refused_with_the_option_to_give_it():
    assert "-T" in refusal(TEST_DATA / "sim1.H3K4me3.cram")


def test_a_cram_with_a_reference_that_is_missing_or_another_one_is_refused_with_the_reference_named(tmp_path):
    missing, other = tmp_path / "missing.fa", tmp_path / "other.fa"
    other.write_text(f">chr1\n{'A' * 300_010}\n>chr2\n{'C' * 120_000}\n")
    for reference in (missing, other):
        with pytest.raises((ReadsError, SequenceError), match=re.escape(str(reference))):
            count(TEST_DATA / "sim1.H3K4me3.cram", reference=reference)


def test_counting_a_cram_writes_nothing_beside_its_reference(tmp_path):
    fasta = tmp_path / FASTA.name
    fasta.write_bytes(FASTA.read_bytes())
    found, _ = count(TEST_DATA / "sim1.H3K4me3.cram", reference=fasta)
    assert_same_counts(found, count(TEST_DATA / "sim1.H3K4me3.bam")[0])
    assert [path.name for path in tmp_path.iterdir()] == [fasta.name]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "is empty"),
        (b"hello\n" * 50, "is not a BAM"),
        (b"\x1f\x8b\x08junk", "a damaged gzip file"),
        (b"a\tb\tc\n1\t2\t3\n", "is not a BAM"),
    ],
    ids=["empty", "text", "junk", "table"],
)
def test_a_file_that_is_only_named_bam_is_refused_by_what_it_is(tmp_path, content, fact):
    path = tmp_path / "not.bam"
    path.write_bytes(content)
    assert refusal(path).startswith(fact)


def test_missing_files_and_folders_are_refused_as_such(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.bam")
    assert "is a folder" in refusal(tmp_path)


def test_a_bam_without_reads_contigs_or_passing_reads_says_which_it_lacks(tmp_path):
    assert "holds no read" in refusal(write_bam(tmp_path / "header.bam"))
    assert "@SQ" in refusal(write_bam(tmp_path / "unaligned.bam", header={"HD": {"VN": "1.6"}}))
    message = refusal(write_bam(tmp_path / "low.bam", single(5, mapq=3), single(6, mapq=3)))
    assert "no read of 2 passes" in message
    assert str(CountingRule()) in message


@pytest.mark.parametrize(
    "records", [[single(50), single(49)], [single(5, tid=1), single(5)], [single(5), single(5, tid=1), single(6)]]
)
def test_an_unsorted_file_is_refused_with_the_record_that_comes_too_late(tmp_path, records):
    message = refusal(write_bam(tmp_path / "u.bam", *records))
    tid, start = records[-1][:2]
    assert message.startswith(f"not sorted by coordinate (record {len(records)}, chr{tid + 1}:{start + 1}, ")
    assert "samtools sort" in message


# Real reads


def real_bams() -> list[str]:
    folders = ("K562_ChIP_hg19/dsf1", "K562_ChIP_hg19/dsf2", "IMR90_ChIP_hg19_chr21")
    return [f"{folder}/{path.name}" for folder in folders for path in sorted((REAL_DATA / folder).glob("*.bam"))]


def hg19() -> dict[str, int]:
    lines = (REAL_DATA / "ref/annot/hg19.chrom.sizes").read_text().splitlines()
    return {line.split("\t")[0]: int(line.split("\t")[1]) for line in lines}


@pytest.mark.real_data
@pytest.mark.parametrize("name", real_bams() or ["absent.bam"])
def test_real_reads_count_as_in_a_plain_loop(name):
    chrom = "chr1" if name.startswith("K562") else "chr21"
    sizes = {chrom: hg19()[chrom]}
    kept = kept_reads.__wrapped__(REAL_DATA / name)
    found, counter = count(REAL_DATA / name, chromsizes=sizes)
    assert_same_counts(found, loop_counts(kept, DEFAULT, sizes))
    assert counter.summary.depth == len(kept)
    assert int(count(REAL_DATA / name, RULES["five-prime"], chromsizes=sizes)[0][chrom].sum()) == len(kept)


@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name in real_bams() if "/dsf1/" in name] or ["absent.bam"])
def test_midpoints_of_real_pairs_are_those_of_fragments_by_template_length(name, monkeypatch):
    """Every read of these files is named "1"; of mates at one base each tells half of a fragment, whatever its TLEN."""
    with pysam.AlignmentFile(str(REAL_DATA / name)) as alignment:
        rows = [
            (
                read.reference_start,
                abs(read.template_length),
                1 if read.reference_start < read.next_reference_start else 0.5,
            )
            for read in alignment
            if not read.flag & 0x904 and read.is_proper_pair and read.reference_start <= read.next_reference_start
        ]
        sizes = dict(zip(alignment.references, alignment.lengths, strict=True))
    start, length, fragments = np.array(rows).T
    edges = np.append(np.arange(0, sizes["chr1"], 25), sizes["chr1"])
    expected, _ = np.histogram(start + length // 2, edges, weights=fragments)
    for fast in (True, False):
        monkeypatch.setattr(bam, "FAST", fast)
        found, counter = count(REAL_DATA / name, CountingRule(MIDPOINT, min_mapq=0, excl_flags=0x904))
        np.testing.assert_array_equal(found["chr1"], expected)
        assert (counter.summary.depth, counter.summary.run_type) == (fragments.sum(), "paired-ended")


@pytest.mark.real_data
def test_folds_share_real_reads_evenly():
    counter = ReadCounter(REAL_DATA / "IMR90_ChIP_hg19_chr21" / "H3K9me3.bam", DEFAULT, n_folds=4)
    (found,) = counter
    np.testing.assert_array_equal(found.folds.sum(axis=1), found.counts)
    assert np.abs(counter.summary.fold_depths / counter.summary.depth - 0.25).max() < 0.01


@pytest.mark.real_data
def test_reads_without_mapping_qualities_are_all_counted_and_said_to_have_none():
    summary = count(REAL_DATA / "IMR90_ChIP_hg19_chr21" / "H3K4me3.bam")[1].summary
    assert summary.mapq_unknown == summary.depth > 0
    assert (summary.run_type, summary.read_length) == ("single-ended", 36)


@pytest.mark.real_data
def test_real_reads_of_another_build_are_refused():
    path = REAL_DATA / "GM12878_CTCF_hg38_chr21" / "GM12878_hg38_CTCF_r1.chr21.bam"
    assert "same genome build" in refusal(path, GenomeError, chromsizes=hg19())
