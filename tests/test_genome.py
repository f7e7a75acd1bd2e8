"""Regions, bins and windows, against samtools' reading of regions and by their invariants."""

import re
from pathlib import Path

import pysam
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from candi_cli.errors import GenomeError
from candi_cli.genome import (
    Region,
    bin_count,
    parse_region,
    parse_regions,
    read_chromsizes,
    tile,
)

ROOT = Path(__file__).parents[1]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"
SIZES = {"chr1": 300_010, "chr2": 120_000}
COLON = "chr17:56000000-57000000"


@given(length=st.integers(1, 10**9), resolution=st.integers(1, 10**4))
def test_bins_reach_the_end_and_none_lies_beyond_it(length, resolution):
    n_bins = bin_count(length, resolution)
    assert (n_bins - 1) * resolution < length <= n_bins * resolution


@pytest.mark.parametrize(
    "text",
    ["chr1", "chr2", "chr1:160001-160050", "chr1:160,001-160,050", "chr2:119990", "chr2:7-7", "chr1:299990-400000"],
)
def test_a_region_names_the_bases_that_samtools_fetches_for_it(tmp_path, text):
    fasta = TEST_DATA / "genome.fa.gz"
    pysam.faidx("-o", str(tmp_path / "out.fa"), str(fasta), text)
    fetched = "".join((tmp_path / "out.fa").read_text().splitlines()[1:])
    region = parse_region(text, SIZES)
    with pysam.FastaFile(str(fasta)) as genome:
        assert genome.fetch(region.chrom, region.start, region.end) == fetched
    assert region.end - region.start == len(fetched)


@given(st.integers(1, 300_010), st.integers(1, 300_010), st.booleans())
def test_a_region_written_in_samtools_form_reads_back(one, other, commas):
    start, end = min(one, other), max(one, other)
    text = f"chr1:{start:,}-{end:,}" if commas else f"chr1:{start}-{end}"
    assert parse_region(text, SIZES) == Region("chr1", start - 1, end)


def test_a_colon_may_be_part_of_a_chromosome_name():
    sizes = {COLON: 1_000_001, "HLA-A*01:01": 3_503}
    assert parse_region(COLON, sizes) == Region(COLON, 0, 1_000_001)
    assert parse_region(f"{COLON}:101-200", sizes) == Region(COLON, 100, 200)
    assert parse_region("HLA-A*01:01", sizes) == Region("HLA-A*01:01", 0, 3_503)
    assert parse_region("HLA-A*01:01:3,000", sizes) == Region("HLA-A*01:01", 2_999, 3_503)


@pytest.mark.real_data
def test_a_contig_of_a_real_file_whose_name_looks_like_a_region_is_taken_whole():
    with pysam.AlignmentFile(str(REAL_DATA / "ChIP_ATAC_small_hg19" / "SRR5675973_chr17.bam")) as reads:
        sizes = dict(zip(reads.references, reads.lengths, strict=True))
    assert COLON in sizes
    assert parse_region(COLON, sizes) == Region(COLON, 0, sizes[COLON])


@pytest.mark.parametrize("text", ["chr1:0-5", "chr1:5-4", "chr1:300011", "chr1:300011-300020", "chr2:0", "chr1:0"])
def test_a_span_outside_of_its_chromosome_is_refused_with_the_span_that_exists(text):
    chrom = text.split(":")[0]
    with pytest.raises(GenomeError, match=rf"^region {text}: not inside {chrom}:1-{SIZES[chrom]};"):
        parse_region(text, SIZES)


@pytest.mark.parametrize(
    "text", ["", "chr3", "Chr1", "chr3:1-5", "chr1:", "chr1:-5", "chr1:a-b", "chr1:5-", "chr1 :1-5"]
)
def test_an_unknown_chromosome_is_refused_with_those_that_exist(text):
    with pytest.raises(GenomeError, match=r"known are chr1, chr2$"):
        parse_region(text, SIZES)


@example("chr1:,")
@example("chr1:5-,")
@example("chr1:²")
@given(st.from_regex(r"\A(chr1|chr3)?:?[\d,.:²-]*\Z"))
def test_any_text_is_a_region_inside_its_chromosome_or_a_genome_error(text):
    try:
        region = parse_region(text, SIZES)
    except GenomeError:
        return
    assert 0 <= region.start < region.end <= SIZES[region.chrom]


@given(
    spans=st.lists(st.tuples(st.sampled_from(["b", "a"]), st.integers(1, 107), st.integers(1, 60)), max_size=4),
    resolution=st.sampled_from([1, 7, 25]),
)
def test_regions_become_the_bins_they_touch_in_genome_order_and_must_not_share_a_base(spans, resolution):
    sizes = {"b": 107, "a": 130}
    spans = [(chrom, start, min(start + width - 1, sizes[chrom])) for chrom, start, width in spans]
    bases = [(list(sizes).index(chrom), base) for chrom, start, end in spans for base in range(start, end + 1)]
    texts = [f"{chrom}:{start}-{end}" for chrom, start, end in spans]
    if len(set(bases)) < len(bases):
        with pytest.raises(GenomeError, match="overlaps"):
            parse_regions(texts, sizes, resolution)
        return
    regions = parse_regions(texts, sizes, resolution)
    bins = [
        (list(sizes).index(chrom), number)
        for chrom, start, end in regions
        for number in range(start // resolution, -(-end // resolution))
    ]
    assert bins == sorted({(chrom, (base - 1) // resolution) for chrom, base in bases})
    for chrom, start, end in regions:
        assert start % resolution == 0
        assert end % resolution == 0 or end == sizes[chrom]


def test_chrom_sizes_and_a_fasta_index_say_the_same():
    assert read_chromsizes(TEST_DATA / "chrom.sizes") == SIZES
    assert read_chromsizes(TEST_DATA / "genome.fa.gz.fai") == SIZES


def test_chrom_sizes_may_have_comments_blank_lines_spaces_and_windows_line_ends(tmp_path):
    path = tmp_path / "sizes"
    path.write_bytes(b"# genome\r\n\r\nchr1\t300010\r\nchr2   120000\r\n")
    assert list(read_chromsizes(path).items()) == list(SIZES.items())


@pytest.mark.parametrize(
    "line", ["chr2", "chr2\t", "chr2\t-4", "chr2\t0", "chr2\t1.5", "chr2\tx", "chr2\t²", "\t5x", "chr2\t+1"]
)
def test_a_line_without_a_positive_length_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "sizes"
    path.write_text(f"chr1\t100\n{line}\n", encoding="utf-8")
    with pytest.raises(GenomeError, match=rf"^{re.escape(str(path))}:2: not a name and a length;"):
        read_chromsizes(path)


def test_a_chromosome_listed_twice_is_refused_by_its_second_line(tmp_path):
    path = tmp_path / "sizes"
    path.write_text("chr1\t100\nchr2\t100\nchr1\t100\n")
    with pytest.raises(GenomeError, match=r"sizes:3: chr1 is listed twice"):
        read_chromsizes(path)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "No such file"),
        (b"", "lists no chromosome"),
        (b"# only\n\n", "lists no chromosome"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
    ids=["missing", "empty", "only comments", "binary"],
)
def test_a_file_that_lists_no_chromosomes_is_refused_by_name(tmp_path, content, fact):
    path = tmp_path / "sizes"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GenomeError, match=rf"^{re.escape(str(path))}: {fact}"):
        read_chromsizes(path)


@given(
    start=st.integers(0, 500), length=st.integers(1, 500), beyond=st.integers(0, 200),
    flank=st.integers(0, 20), core=st.integers(1, 60),
)  # fmt: skip
def test_cores_cover_the_bins_once_in_order_inside_of_their_contexts(start, length, beyond, flank, core):
    context, end, n_bins = core + 2 * flank, start + length, start + length + beyond
    windows = list(tile("chr1", start, end, n_bins=n_bins, context=context, flank=flank))
    assert [b for w in windows for b in range(w.core_start, w.core_end)] == list(range(start, end))
    for window in windows:
        assert window.chrom == "chr1"
        assert window.context_end - window.context_start == context
        assert window.context_start <= window.core_start
        assert window.core_end <= window.context_end
        if n_bins >= context:  # a context only leaves a chromosome that is shorter
            assert window.context_start >= 0
            assert window.context_end <= n_bins
        else:
            assert window.context_start == 0
        at_left, at_right = window.context_start == 0, window.context_end >= n_bins
        assert at_left or window.core_start - window.context_start >= flank
        assert at_right or window.context_end - window.core_end >= flank


@given(start=st.integers(0, 300), length=st.integers(1, 200), flank=st.integers(0, 9), core=st.integers(1, 40))
def test_a_bin_has_the_same_context_in_a_region_as_in_the_whole_chromosome(start, length, flank, core):
    def contexts(first, last):
        windows = tile("chr1", first, last, n_bins=500, context=core + 2 * flank, flank=flank)
        return {b: w.context_start for w in windows for b in range(w.core_start, w.core_end)}

    whole, part = contexts(0, 500), contexts(start, start + length)
    assert part == {b: whole[b] for b in range(start, start + length)}


@given(
    align=st.sampled_from([1, 2, 8]), core=st.integers(1, 12), flank=st.integers(0, 4), n_bins=st.integers(1, 400),
    span=st.tuples(st.integers(0, 399), st.integers(1, 400)),
)  # fmt: skip
def test_aligned_contexts_start_on_whole_positions_and_leave_the_chromosome_by_less_than_one(
    align, core, flank, n_bins, span
):
    core, flank = core * align, flank * align
    context, start = core + 2 * flank, min(span[0], n_bins - 1)
    end = min(start + span[1], n_bins)
    windows = list(tile("chr1", start, end, n_bins=n_bins, context=context, flank=flank, align=align))
    plain = list(tile("chr1", start, end, n_bins=n_bins, context=context, flank=flank))
    assert [(w.core_start, w.core_end) for w in windows] == [(w.core_start, w.core_end) for w in plain]
    for window, other in zip(windows, plain, strict=True):
        assert window.context_start % align == 0
        assert window.context_start >= 0
        assert window.context_end - window.context_start == context
        assert window.context_end - n_bins < align or window.context_start == 0
        assert 0 <= window.context_start - other.context_start < align
        assert window.context_start <= window.core_start
        assert window.core_end <= window.context_end
        assert window.context_start == 0 or window.core_start - window.context_start >= flank
        assert window.context_end >= n_bins or window.context_end - window.core_end >= flank


@pytest.mark.parametrize(("context", "flank"), [(8, 4), (8, 5), (0, 0)])
def test_a_context_without_a_core_is_refused(context, flank):
    with pytest.raises(ValueError, match="leaves nothing"):
        next(tile("chr1", 0, 10, n_bins=10, context=context, flank=flank))
