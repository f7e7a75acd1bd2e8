"""Contig aliases, against lengths from UCSC's files, by closed forms, and by the invariants of any match."""

import re
from pathlib import Path

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candi_cli.contigs import ContigMatch, assembly_of, match_contigs, read_aliases, shorten
from candi_cli.errors import GenomeError

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"
SIDES = {"source": "a.bam", "against": "hg38.sizes"}
TABLE = [line.split("\t") for line in (ROOT / "candi_cli" / "contig_aliases.tsv").read_text().splitlines()]
BUILDS = ("hg38", "hg19", "mm10", "mm39")
HUMAN = {*map(str, range(1, 23)), "X", "Y", "MT"}
MOUSE = {*map(str, range(1, 20)), "X", "Y", "MT"}
LENGTHS = {"chr1": 10, "chr2": 20, "chrX": 20, "chrM": 5}


def column(build: str, name: str) -> dict[str, int]:
    """Name -> length of one column of the package's table."""
    place = TABLE[0].index(name)
    return {row[place]: int(row[1]) for row in TABLE[1:] if row[0] == build and row[place]}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("one", ["ucsc", "ensembl", "refseq", "genbank"])
@pytest.mark.parametrize("other", ["ucsc", "ensembl", "refseq", "genbank"])
def test_every_naming_of_a_build_finds_every_other_row_by_row(build, one, other):
    places = TABLE[0].index(one), TABLE[0].index(other)
    rows = [[row[place] for place in places] for row in TABLE[1:] if row[0] == build]
    match = match_contigs(column(build, one), column(build, other), **SIDES)
    assert list(match.names.items()) == [(b, a) for a, b in rows if a and b]
    assert match.conflicts == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("hg19", "hg38", {"chrMT"}), ("mm10", "mm39", {"chrM"}), ("hg19", "mm10", set()), ("hg38", "mm39", set())],
)
def test_only_the_mitochondrion_is_of_one_length_in_two_builds(one, other, same):
    found = column(one, "ucsc")
    if not same:
        with pytest.raises(GenomeError, match="use the same genome build for both"):
            match_contigs(found, column(other, "ensembl"), **SIDES)
        return
    match = match_contigs(found, column(other, "ensembl"), **SIDES)
    assert match.names == {"MT": same.pop()}
    chromosomes = [chrom for chrom in found if not chrom.startswith("chrM")]
    assert [chrom for chrom, _, _ in match.conflicts] == chromosomes


@pytest.mark.parametrize("build", BUILDS)
def test_the_table_lists_the_primary_chromosomes_of_each_build_once(build):
    rows = [row for row in TABLE[1:] if row[0] == build]
    assert {row[3] for row in rows if row[3]} == (HUMAN if build.startswith("hg") else MOUSE)
    assert len({row[2] for row in rows}) == len(rows)
    assert all(row[2] == f"chr{row[3]}" for row in rows if row[3] not in ("MT", ""))
    for name, start in (("refseq", r"NC_\d{6}\.\d+"), ("genbank", r"(CM\d{6}|J01415|AY172335)\.\d")):
        assert all(re.fullmatch(start, accession) for accession in column(build, name))


@pytest.mark.parametrize("build", BUILDS)
def test_accessions_of_a_build_are_numbered_in_karyotype_order(build):
    rows = [row for row in TABLE[1:] if row[0] == build and row[3] not in ("MT", "")]
    for place, prefix in ((4, "NC_"), (5, "CM")):
        numbers = [int(row[place].removeprefix(prefix).split(".")[0]) for row in rows]
        assert numbers == list(range(numbers[0], numbers[0] + len(rows)))
        assert numbers[0] == {"NC_hg": 1, "NC_mm": 67, "CMhg": 663, "CMmm": 994}[prefix + build[:2]]


@pytest.mark.parametrize(("build", "total_bp"), [("mm10", 2_725_521_370), ("mm39", 2_723_414_844)])
def test_mouse_chromosomes_sum_to_the_published_totals(build, total_bp):
    assert sum(column(build, "ucsc").values()) - 16_299 == total_bp


@pytest.mark.real_data
@pytest.mark.parametrize("build", ["hg19", "hg38"])
def test_human_lengths_are_those_of_chrom_sizes(build):
    lines = (REAL_DATA / "ref" / "annot" / f"{build}.chrom.sizes").read_text().splitlines()
    sizes = {name: int(length) for name, length in (line.split()[:2] for line in lines)}
    listed = column(build, "ucsc")
    assert {chrom: length for chrom, length in listed.items() if chrom in sizes} == {
        c: sizes[c] for c in listed if c in sizes
    }
    assert listed.keys() - sizes.keys() <= {"chrMT"}  # UCSC added it to hg19 later


def test_names_keep_the_order_expected_and_unmatched_that_found():
    found = {"scaffold_9": 7, "MT": 5, "2": 20, "chr1": 10, "GL000220.1": 3}
    match = match_contigs(found, {"chr1": 10, "chr2": 20, "chrX": 20, "chrM": 5}, **SIDES)
    assert list(match.names.items()) == [("chr1", "chr1"), ("chr2", "2"), ("chrM", "MT")]
    assert match.unmatched == ["scaffold_9", "GL000220.1"]
    assert match.conflicts == []


def test_a_prefix_is_never_stripped_or_added():
    found, expected = {"scaffold1": 10, "chr1": 1}, {"chrscaffold1": 10, "chr1": 1}
    match = match_contigs(found, expected, **SIDES)
    assert match == ContigMatch({"chr1": "chr1"}, ["scaffold1"], [])


def test_the_long_mitochondrion_of_hg19_is_not_that_of_grch37():
    match = match_contigs({"chr1": 249_250_621, "chrM": 16_571}, {"1": 249_250_621, "MT": 16_569}, **SIDES)
    assert match.names == {"1": "chr1"}
    assert match.conflicts == [("chrM", 16_571, 16_569)]


def test_of_two_mitochondria_each_finds_the_one_of_its_length():
    expected = {"chrM": 16_571, "chrMT": 16_569}
    assert match_contigs({"MT": 16_569}, expected, **SIDES).names == {"chrMT": "MT"}
    assert match_contigs({"NC_001807.4": 16_571}, expected, **SIDES).names == {"chrM": "NC_001807.4"}
    assert match_contigs({"chrM": 16_571, "MT": 16_569}, {"chrM": 16_571}, **SIDES) == ContigMatch(
        {"chrM": "chrM"}, ["MT"], []
    )


def test_an_exact_name_of_another_length_is_a_conflict_beside_a_match():
    match = match_contigs({"chr1": 10, "chr2": 21}, {"chr1": 10, "chr2": 20}, **SIDES)
    assert match == ContigMatch({"chr1": "chr1"}, [], [("chr2", 21, 20)])


def test_an_exact_name_wins_over_an_alias():
    assert match_contigs({"1": 10, "chr1": 10}, {"chr1": 10}, **SIDES) == ContigMatch({"chr1": "chr1"}, ["1"], [])
    assert match_contigs({"1": 10, "chr1": 10}, {"1": 10, "chr1": 10}, **SIDES).names == {"1": "1", "chr1": "chr1"}


def test_two_aliases_of_one_contig_are_refused_with_both_names():
    with pytest.raises(GenomeError, match=r"^hg38.sizes: chr1 may be 1 or CM000663.2 of a.bam, all of one length;"):
        match_contigs({"1": 10, "CM000663.2": 10}, {"chr1": 10}, **SIDES)
    with pytest.raises(GenomeError, match=r"^a.bam: CM000663.2 may be 1 or chr1 of hg38.sizes, all of one length;"):
        match_contigs({"CM000663.2": 10}, {"chr1": 10, "1": 10}, **SIDES)


def test_another_length_without_any_match_is_told_with_both_lengths_and_the_builds():
    with pytest.raises(GenomeError) as caught:
        match_contigs({"chrUn": 3, "chr1": 249_250_621}, {"chr1": 248_956_422}, **SIDES)
    assert str(caught.value) == (
        "a.bam: chr1 is 249,250,621 bp but 248,956,422 bp in hg38.sizes; use the same genome build for both "
        "(by their lengths they are hg19 and hg38)"
    )


def test_builds_are_told_only_where_the_lengths_tell_them_apart():
    with pytest.raises(GenomeError, match=r"for both$"):  # MT of this length is in GRCh37 too
        match_contigs({"chrM": 16_571}, {"MT": 16_569}, **SIDES)
    with pytest.raises(GenomeError, match=r"\(by their lengths they are mm10 or mm39 and hg19\)$"):
        match_contigs({"chrM": 16_299}, {"chrM": 16_571}, **SIDES)


def test_an_alias_of_another_length_is_told_with_both_names_and_lengths():
    with pytest.raises(GenomeError) as caught:
        match_contigs({"1": 249_250_621}, {"chr1": 5}, **SIDES)
    assert str(caught.value) == (
        "a.bam: 1 is 249,250,621 bp but chr1 is 5 bp in hg38.sizes; use the same genome build for both"
    )


def test_other_names_are_told_with_names_of_both_sides():
    found = {f"contig{n}": n for n in range(1, 8)}
    with pytest.raises(GenomeError) as caught:
        match_contigs(found, {"chr1": 1, "chr2": 2}, **SIDES)
    assert str(caught.value) == (
        "a.bam: has contigs contig1, contig2, contig3, contig4 and 3 more but hg38.sizes has chr1, chr2; "
        "use the same genome build and chromosome names for both"
    )


NAMES = st.sampled_from(["chr1", "1", "NC_000001.11", "chr2", "2", "chrX", "X", "chrM", "MT", "other", "chrother"])
CONTIGS = st.dictionaries(NAMES, st.integers(1, 3), max_size=6)


def same_contig(one: str, other: str) -> bool:
    plain = {"NC_000001.11": "1", "MT": "M"}
    return plain.get(one, one.removeprefix("chr")) == plain.get(other, other.removeprefix("chr")) and "other" not in one


@given(found=CONTIGS, expected=CONTIGS)
def test_a_match_pairs_equal_lengths_one_to_one_and_accounts_for_every_contig_found(found, expected):
    pairs: dict[str, list[str]] = {}
    for one, length in found.items():
        others = [one] if one in expected else [other for other in expected if same_contig(one, other)]
        equal = [other for other in others if expected[other] == length]
        taken = one not in expected and any(found.get(other) == expected[other] for other in equal)
        pairs[one] = [] if taken else equal
    partners = [other for others in pairs.values() for other in others]
    open_to_doubt = len(partners) > len(set(partners)) or any(len(others) > 1 for others in pairs.values())
    if open_to_doubt or not partners:
        with pytest.raises(GenomeError, match="may be" if open_to_doubt else "for both"):
            match_contigs(found, expected, **SIDES)
        return
    match = match_contigs(found, expected, **SIDES)
    assert {name: [chrom] for chrom, name in match.names.items()} == {
        one: others for one, others in pairs.items() if others
    }
    assert list(match.names) == [chrom for chrom in expected if chrom in match.names]
    clashing = [chrom for chrom, _, _ in match.conflicts]
    assert sorted([*match.names.values(), *match.unmatched, *clashing]) == sorted(found)
    assert all(found[chrom] == length != other for chrom, length, other in match.conflicts)
    assert {chrom for chrom in found if expected.get(chrom, found[chrom]) != found[chrom]} <= set(clashing)


@given(found=CONTIGS)
def test_a_source_matches_itself_whatever_it_names(found):
    if found:
        assert match_contigs(found, found, **SIDES) == ContigMatch({c: c for c in found}, [], [])


def test_a_table_as_downloaded_from_ucsc_adds_its_names_to_those_of_the_package(tmp_path):
    path = tmp_path / "chromAlias.txt"
    path.write_bytes(
        b"# ucsc\tassembly\tgenbank\tncbi\trefseq\r\n"
        b"chr1\t1\tCM000663.2\t1\tNC_000001.11\r\n"
        b"chrUn_KI270302v1\tHSCHRUN_RANDOM_CTG19\tKI270302.1\t\tNT_187396.1\r\n"
        b"chrM\tMT\tJ01415.2\tMT\tNC_012920.1\r\n"
        b"mine\t2\r\n"
    )
    aliases = read_aliases(path)
    assert frozenset({"chrUn_KI270302v1", "HSCHRUN_RANDOM_CTG19", "KI270302.1", "NT_187396.1"}) in aliases
    found = {"KI270302.1": 2274, "mine": 20, "X": 9}
    match = match_contigs(found, {"chrUn_KI270302v1": 2274, "chr2": 20, "chrX": 9}, aliases=aliases, **SIDES)
    assert match.names == {"chrUn_KI270302v1": "KI270302.1", "chr2": "mine", "chrX": "X"}
    assert match_contigs({"chr2": 20}, {"mine": 20}, aliases=aliases, **SIDES).names == {"mine": "chr2"}
    assert match_contigs(found, {"chrUn_KI270302v1": 2274, "chrX": 9}, **SIDES).unmatched == ["KI270302.1", "mine"]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, ": No such file"),
        (b"\x1f\x8b\x08\x00\xff", ": not a text file"),
        (b"#only\tcomments\n\n", ": no line holds two names"),
        (b"chr1 1\nchr2 2\n", ": no line holds two names"),
        (b"1\tchr1\tensembl\n2\tchr2\tensembl\n", ":2: ensembl is on line 1 too"),
    ],
    ids=["missing", "packed", "empty", "spaces", "source column"],
)
def test_a_file_that_is_no_table_of_names_is_refused_by_its_path(tmp_path, content, fact):
    path = tmp_path / "aliases"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GenomeError, match=rf"^{re.escape(str(path))}{fact}"):
        read_aliases(path)


@given(st.lists(st.sampled_from("abcdef"), max_size=9), st.integers(1, 9))
def test_shortened_lists_name_or_count_every_entry(names, limit):
    named, _, more = shorten(names, limit).partition(" and ")
    shown = named.split(", ") if named else []
    assert shown == names[:limit]
    assert len(shown) + int(more.split()[0] if more else 0) == len(names)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("naming", ["ucsc", "ensembl", "refseq", "genbank"])
def test_a_genome_is_known_by_the_lengths_of_its_contigs_whatever_they_are_called(build, naming):
    genome = column(build, naming)
    assert assembly_of(genome) == build
    assert assembly_of({**genome, "chrUn_KI270302v1": 2_274, "chrEBV": 171_823}) == build
    without = {chrom: length for chrom, length in genome.items() if length > 17_000}
    for chrom, length in without.items():
        assert assembly_of({chrom: length}) in (build, None)  # mm10 and mm39 share the length of none or few
        assert assembly_of(without | {chrom: length + 1}) == build  # a contig of another length is not a known one


def test_a_genome_that_is_none_of_those_known_or_several_at_once_has_no_name():
    assert assembly_of({}) is None
    assert assembly_of({"chr1": 300_010, "chr2": 120_000}) is None
    assert assembly_of({"chrM": 16_299}) is None  # of two builds of the mouse
    assert assembly_of({"chr1": 248_956_422, "chr2": 243_199_373}) is None  # of hg38 and of hg19
    assert assembly_of({"chrM": 16_299, **column("mm39", "ucsc")}) == "mm39"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("HESC_HSMM_ChIP_hg19_chr19/HSMM_IN_R2.bam", "hg19"),
        ("GM12878_CTCF_hg38_chr21/GM12878_hg38_CTCF_r1.chr21.bam", "hg38"),
        ("fly_ChIP_dm6/ip_1.tiny.single.sorted.bam", None),
    ],
)
def test_the_genome_of_real_files_is_known_by_their_header(path, expected):
    with pysam.AlignmentFile(str(REAL_DATA / path)) as reads:
        assert assembly_of(dict(zip(reads.references, reads.lengths, strict=True))) == expected


def test_a_build_is_known_by_its_chromosomes_whatever_its_mitochondrion():
    genome = column("hg19", "ucsc")
    assert assembly_of({**genome, "chrM": 16_569}) == "hg19"  # that of GRCh37, under UCSC's name
