"""Which reads a level keeps, checked by names, tags and flags, and against 'samtools view --subsample'."""

from array import array
from collections import Counter
from pathlib import Path

import pysam
import pytest

from candi_cli.errors import OutputError, ReadsError, RequestError
from candi_cli.io.downsampling import Downsampler, template_hash
from candi_cli.io.programs import earlier_downsamplings, with_program

ROOT = Path(__file__).parents[2]
BAM = ROOT / "test_data" / "sim1.H3K4me3.bam"
CRAM = BAM.with_suffix(".cram")
FASTA = ROOT / "test_data" / "genome.fa.gz"
K562 = ROOT.parent / "shared" / "data" / "K562_ChIP_hg19"
HEADER = pysam.AlignmentHeader.from_dict(
    {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 1_000_000}, {"SN": "chr2", "LN": 900_000}]}
)
FORWARD, REVERSED, HALF, UNPLACED, ACROSS, SINGLE, SAME_START = range(7)
WAYS = [("name", False), ("name", True), ("position", False), ("position", True)]


def read(name, flag, chrom, start, mate_chrom=-1, mate_start=-1, template=0, tag=None):
    made = pysam.AlignedSegment(HEADER)
    made.query_name, made.flag, made.reference_id, made.reference_start = name, flag, chrom, start
    made.next_reference_id, made.next_reference_start, made.template_length = mate_chrom, mate_start, template
    made.query_sequence, made.query_qualities = "ACGTACGTAC", array("B", [30] * 10)
    if not flag & 4:
        made.cigarstring, made.mapping_quality = "10M", 60
    made.set_tag("XI", tag or name)  # the template's own name, which stays when the read name is taken away
    return made


def template(name, kind, chrom, start, length):
    """Return the reads of one template: a pair of either orientation, an odd pair, or a single read."""
    right = start + length - 10
    if kind in (FORWARD, REVERSED):
        left_flag, right_flag = (99, 147) if kind == FORWARD else (163, 83)
        return [
            read(name, left_flag, chrom, start, chrom, right, length),
            read(name, right_flag, chrom, right, chrom, start, -length),
        ]
    if kind == HALF:  # bowtie2 writes 133, not 165, for the mate of a reverse read
        return [read(name, 89, chrom, start, chrom, start), read(name, 133, chrom, start, chrom, start)]
    if kind == UNPLACED:
        return [read(name, 77, -1, -1), read(name, 141, -1, -1)]
    if kind == ACROSS:
        return [read(name, 65, 0, start, 1, right), read(name, 129, 1, right, 0, start)]
    if kind == SAME_START:  # bowtie2 may give both the same sign
        return [read(name, flag, chrom, start, chrom, start, -10) for flag in (99, 147)]
    return [read(name, 16 * (length % 2), chrom, start)]


def write_bam(path, reads, header=HEADER):
    with pysam.AlignmentFile(str(path), "wb", header=header) as alignment:
        for each in sorted(reads, key=lambda each: (each.reference_id % 1000, each.reference_start)):
            alignment.write(each)
    return path


def nameless(source, target):
    """Copy a file, giving every read the name '1'."""
    with pysam.AlignmentFile(str(source)) as named, pysam.AlignmentFile(str(target), "wb", template=named) as bare:
        for each in named:
            each.query_name = "1"
            bare.write(each)
    return target


def reads_of(path):
    with pysam.AlignmentFile(str(path), check_sq=False) as alignment:
        return list(alignment)


def lines_of(path):
    return [each.to_string() for each in reads_of(path)]


def tags_of(path):
    return Counter(each.get_tag("XI") for each in reads_of(path))


@pytest.fixture
def pairs(tmp_path, rng):
    kinds = rng.choice(7, size=3000, p=[0.4, 0.25, 0.1, 0.05, 0.05, 0.1, 0.05])
    starts = rng.choice(800_000, size=3000, replace=False)
    lengths = rng.integers(50, 500, size=3000)
    templates = [
        template(f"t{number}", kind, number % 2, int(start), int(length))
        for number, (kind, start, length) in enumerate(zip(kinds, starts, lengths, strict=True))
    ]
    return write_bam(tmp_path / "pairs.bam", [each for reads in templates for each in reads])


@pytest.fixture
def thin(tmp_path):
    """Write levels of a file and return their paths."""

    def run(source, *dsfs, **options):
        outputs = {dsf: tmp_path / f"level{dsf}.{len(list(tmp_path.iterdir()))}.bam" for dsf in dsfs}
        Downsampler(source, **options).write(outputs)
        return list(outputs.values())

    return run


@pytest.mark.parametrize("source", [BAM, CRAM], ids=["BAM", "CRAM"])
@pytest.mark.parametrize(("dsf", "seed"), [(2, 0), (2.5, 7), (3, 1234)])
def test_by_name_keeps_what_samtools_view_keeps(thin, source, dsf, seed):
    (level,) = thin(source, dsf, seed=seed, reference=FASTA)
    options = ("--subsample", str(1 / dsf), "--subsample-seed", str(seed), "-T", str(FASTA))
    assert lines_of(level) == pysam.view(*options, str(source)).splitlines()


@pytest.mark.parametrize(("by", "exact"), WAYS)
def test_levels_nest(thin, pairs, by, exact):
    source = {*lines_of(pairs)}
    first, second, third = ({*lines_of(level)} for level in thin(pairs, 1.5, 2, 4, by=by, seed=3, exact_count=exact))
    assert third < second < first < source


@pytest.mark.parametrize(("by", "exact"), WAYS)
def test_mates_stay_together(thin, pairs, by, exact):
    before = tags_of(pairs)
    for level in thin(pairs, 2, 4, by=by, exact_count=exact):
        after = tags_of(level)
        assert after
        assert all(after[tag] == before[tag] for tag in after)


@pytest.mark.parametrize(("by", "exact"), WAYS)
def test_the_order_of_the_records_stays(thin, pairs, by, exact):
    (level,) = thin(pairs, 2, by=by, exact_count=exact)
    kept = {*lines_of(level)}
    assert lines_of(level) == [line for line in lines_of(pairs) if line in kept]


@pytest.mark.parametrize("by", ["name", "position"])
@pytest.mark.parametrize("dsf", [1.25, 2, 8])
def test_the_kept_fraction_is_binomial(thin, pairs, by, dsf):
    (level,) = thin(pairs, dsf, by=by, seed=11)
    n, p = len(tags_of(pairs)), 1 / dsf
    assert abs(len(tags_of(level)) - n * p) < 4 * (n * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("by", ["name", "position"])
def test_another_seed_draws_independently(thin, pairs, by):
    first, second = ({*tags_of(*thin(pairs, 2, by=by, seed=seed))} for seed in (0, 1))
    assert len(first & second) == pytest.approx(len(tags_of(pairs)) / 4, rel=0.12)


@pytest.mark.parametrize(("by", "exact"), WAYS)
def test_the_same_seed_writes_the_same_bytes_with_any_number_of_threads(thin, pairs, by, exact):
    alone, threaded = (thin(pairs, 2, by=by, exact_count=exact, threads=threads)[0] for threads in (1, 3))
    assert alone.read_bytes() == threaded.read_bytes()


@pytest.mark.parametrize("by", ["name", "position"])
def test_an_exact_count_is_exact(thin, pairs, by):
    n = len(tags_of(pairs))
    for dsf, level in zip((1.7, 2, 9), thin(pairs, 1.7, 2, 9, by=by, exact_count=True), strict=True):
        assert len(tags_of(level)) == round(n / dsf)


def test_an_exact_count_is_exact_and_paired_where_all_templates_lie_in_one_place(thin, tmp_path):
    stacked = [template(f"t{number}", FORWARD, 0, 100, 200) for number in range(100)]
    source = write_bam(tmp_path / "stacked.bam", [each for reads in stacked for each in reads])
    half, tenth = thin(source, 2, 10, by="position", exact_count=True)
    assert [Counter(each.is_read1 for each in reads_of(level)) for level in (half, tenth)] == [
        {True: 50, False: 50},
        {True: 10, False: 10},
    ]
    assert {*tags_of(tenth)} < {*tags_of(half)}


def test_names_play_no_part_by_position(thin, pairs, tmp_path):
    (named,), (bare,) = (
        thin(source, 2, by="position") for source in (pairs, nameless(pairs, tmp_path / "nameless.bam"))
    )
    assert tags_of(named) == tags_of(bare)


def test_duplicates_share_a_fate_by_position(thin, tmp_path, rng):
    starts = rng.integers(0, 900_000, size=200).tolist()
    source = write_bam(
        tmp_path / "duplicates.bam", [read("1", 0, 0, start, tag=str(start)) for start in starts for _ in range(3)]
    )
    (level,) = thin(source, 2, by="position")
    assert {*tags_of(level).values()} == {3}


def test_the_hash_is_that_of_every_version_and_platform():
    assert template_hash(b"read1", 0) == 8392282447603031213
    assert template_hash(b"read1", 1) == 9698630339748210712


def test_by_position_keeps_what_every_version_keeps(thin, tmp_path):
    reads = [
        each
        for number, kind in enumerate([*range(7)] * 3)
        for each in template(f"t{number}", kind, 0, 1000 * number, 100 + number)
    ]
    (level,) = thin(write_bam(tmp_path / "pinned.bam", reads), 2, by="position", seed=5)
    assert " ".join(sorted({*tags_of(level)})) == "t10 t11 t13 t5 t6 t8"


def names_checked(tmp_path, reads):
    Downsampler(write_bam(tmp_path / "names.bam", reads))


def test_reads_that_are_all_called_1_are_refused(pairs, tmp_path):
    with pytest.raises(ReadsError, match=r"are called '1'.*--by position"):
        Downsampler(nameless(pairs, tmp_path / "nameless.bam"))


def test_part_of_the_reads_without_names_are_refused(tmp_path):
    reads = [read(f"r{number}" if number > 50 else "*", 0, 0, 100 * number, tag="x") for number in range(1000)]
    with pytest.raises(ReadsError, match=r"51 of the first 1,000 are called '\*'.*--by position"):
        names_checked(tmp_path, reads)


def test_mates_whose_names_differ_are_refused(tmp_path):
    first, second = template("t", FORWARD, 0, 100, 200)
    first.query_name, second.query_name = "t/1", "t/2"
    with pytest.raises(ReadsError, match=r"end in /1 and /2.*--by position"):
        names_checked(tmp_path, [first, second])


def test_names_that_are_rightly_shared_pass(tmp_path):
    names_checked(tmp_path, template("t", FORWARD, 0, 100, 200))  # one pair
    names_checked(tmp_path, [read("t/1", 0, 0, 100), read("u/1", 0, 0, 100)])  # single reads of an old aligner
    names_checked(tmp_path, [read("t", 0x100 if start else 0, 0, start) for start in range(0, 5000, 100)])
    merged = [read(f"r{number % 500}", 0, 0, 100 * number) for number in range(1000)]  # two runs with equal names
    names_checked(tmp_path, merged)


def test_a_downsampled_file_is_not_downsampled_again_with_its_seed(pairs, tmp_path):
    once = tmp_path / "once.bam"
    Downsampler(pairs, seed=4).write({2: once}, command="candi downsample")
    with pytest.raises(ReadsError, match=r"seed 4.*another --seed"):
        Downsampler(once, seed=4)
    with pytest.raises(ReadsError, match=r"seed 4.*another --seed"):
        Downsampler(once, seed=4, exact_count=True)
    twice = tmp_path / "twice.bam"
    Downsampler(once, seed=5).write({2: twice}, command="candi downsample")
    with pytest.raises(ReadsError, match="seed 4"):
        Downsampler(twice, seed=4)
    assert len(tags_of(twice)) == pytest.approx(len(tags_of(pairs)) / 4, rel=0.12)
    Downsampler(once, seed=4, by="position")  # an independent hash


def test_a_file_that_samtools_subsampled_is_known(pairs, tmp_path):
    once = tmp_path / "once.bam"
    pysam.view("-b", "-s", "4.5", "-o", str(once), str(pairs), catch_stdout=False)
    with pytest.raises(ReadsError, match=r"seed 4 before \(@(PG samtools: samtools view -b -s 4\.5|CO Sub-sampled)"):
        Downsampler(once, seed=4)
    Downsampler(once, seed=5)


@pytest.mark.parametrize(
    ("command", "seed"),
    [
        ("samtools view -s 0.5 in.bam", 0),
        ("samtools view -s .5 in.bam", 0),
        ("samtools view -b -s 42.25 -o out.bam in.bam", 42),
        ("/usr/bin/samtools view -bs42.25 in.bam", 42),
        ("samtools view -hb --subsample 0.5 --subsample-seed 7 in.bam", 7),
        ("samtools view --subsample=0.5 --subsample-seed=7 in.bam", 7),
        ("samtools view --subsample 0.5 in.bam", 0),
        ("samtools view -q 30 -F 0x904 in.bam", None),
        ("samtools view -o s.bam in.bam", None),
        ("samtools view -os.5 in.bam", None),
        ("samtools view -s 3 in.bam", None),
        ("samtools view -s 3.0 in.bam", None),
        ("samtools view --subsample-seed 7 in.bam", None),
        ("samtools sort -@ 4 in.bam", None),
    ],
)
def test_the_seed_of_a_samtools_command(command, seed):
    found = earlier_downsamplings(f"@HD\tVN:1.6\n@PG\tID:samtools.1\tPN:samtools\tVN:1.20\tCL:{command}\n")
    assert [earlier.seed for earlier in found] == ([] if seed is None else [seed])


def test_a_seed_that_samtools_drew_itself_is_in_its_comment():
    header = "@HD\tVN:1.6\n@CO\tSub-sampled fraction=0.5 seed=937332727\n"
    program = "@PG\tID:samtools\tPN:samtools\tVN:1.24\tCL:samtools view --subsample 0.5 in.bam\n"
    assert [earlier.seed for earlier in earlier_downsamplings(header + program)] == [937332727]


def test_the_programs_of_a_header_form_a_chain(pairs, tmp_path):
    header = "@HD\tVN:1.6\n@PG\tID:bwa\tPN:bwa\n@PG\tID:candi\tPN:candi\tPP:bwa\n"
    added = with_program(header, "downsample dsf=2 seed=0 by=name", "candi\tdownsample").splitlines()[-1].split("\t")
    assert added[:4] == ["@PG", "ID:candi.1", "PN:candi", "PP:candi"]
    assert added[-2:] == ["DS:downsample dsf=2 seed=0 by=name", "CL:candi downsample"]
    written = tmp_path / "written.bam"
    Downsampler(pairs).write({2: written}, command="candi downsample pairs.bam")
    with pysam.AlignmentFile(str(written)) as alignment:
        (program,) = alignment.header.to_dict()["PG"]
    assert program["DS"] == "downsample dsf=2 seed=0 by=name"
    assert "PP" not in program


def test_without_a_command_the_header_is_the_input_s(thin, pairs):
    headers = []
    for path in (pairs, *thin(pairs, 2), *thin(pairs, 2, exact_count=True)):
        with pysam.AlignmentFile(str(path)) as alignment:
            headers.append(str(alignment.header))
    assert len({*headers}) == 1


def test_what_is_told_is_what_is_there(pairs, tmp_path):
    for by, exact in WAYS:
        downsampler, level = Downsampler(pairs, by=by, exact_count=exact), tmp_path / "level.bam"
        kept = downsampler.write({3: level})[3]
        assert kept == (len(reads_of(level)), len(tags_of(level)))
        assert downsampler.total == (len(reads_of(pairs)), len(tags_of(pairs)))


def test_unaligned_reads_without_a_header(tmp_path):
    source = tmp_path / "unaligned.bam"
    header = pysam.AlignmentHeader()
    with pysam.AlignmentFile(str(source), "wb", header=header) as alignment:
        for number in range(100):
            alignment.write(pysam.AlignedSegment.fromstring(f"r{number}\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII", header))
    for by, exact in WAYS:
        level = tmp_path / "level.bam"
        assert 25 < Downsampler(source, by=by, exact_count=exact).write({2: level})[2].templates < 75
        assert {*lines_of(level)} < {*lines_of(source)}


def test_a_cram_written_holds_the_reads(tmp_path):
    for exact in (False, True):
        level = tmp_path / "level.cram"
        Downsampler(BAM, reference=FASTA, exact_count=exact).write({2: level}, output_format="cram")
        with pysam.AlignmentFile(str(level), reference_filename=str(FASTA)) as alignment:
            assert alignment.is_cram
            kept = [(each.query_name, each.flag, each.query_sequence) for each in alignment]
        assert {*kept} < {(each.query_name, each.flag, each.query_sequence) for each in reads_of(BAM)}


def test_a_full_disk_is_told(pairs):
    with pytest.raises(OutputError, match="/dev/full"):
        Downsampler(pairs, exact_count=True).write({2: Path("/dev/full")})


def test_a_file_that_lacks_records_is_told(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(Downsampler, "_write_by_samtools", lambda *_: write_bam(tmp_path / "level.bam", []) and 7)
    with pytest.raises(OutputError, match="7 records written, 0 read back"):
        Downsampler(pairs).write({2: tmp_path / "level.bam"})


def test_a_truncated_output_is_told(pairs, tmp_path, monkeypatch):
    level = tmp_path / "level.bam"
    monkeypatch.setattr(Downsampler, "_write_by_samtools", lambda *_: level.write_bytes(pairs.read_bytes()[:-28]))
    with pytest.raises(OutputError, match="cannot be read back"):
        Downsampler(pairs).write({2: level})


def test_a_seed_that_samtools_cannot_take(pairs):
    with pytest.raises(RequestError, match="--seed 2147483648"):
        Downsampler(pairs, seed=2**31)


def place(each):
    """What mates of a pair have in common, from flags, starts and TLEN."""
    starts = sorted([each.reference_start, each.next_reference_start])
    return (*starts, abs(each.template_length), each.reference_id)


@pytest.mark.real_data
@pytest.mark.parametrize("exact", [False, True])
def test_k562_reads_without_names_are_thinned_by_position(thin, exact):
    source = K562 / "dsf1" / "K562_H3K4me3.bam"
    with pytest.raises(ReadsError, match=r"83,824 of the first 83,824 are called '1'.*--by position"):
        Downsampler(source)
    half, quarter = thin(source, 2, 4, by="position", exact_count=exact)
    before = Counter((place(each), each.is_read1) for each in reads_of(source))
    n_templates = sum(count for (_, first), count in before.items() if first)
    for level, part in ((half, 0.5), (quarter, 0.25)):
        after = Counter((place(each), each.is_read1) for each in reads_of(level))
        n_kept = sum(count for (_, first), count in after.items() if first)
        assert n_kept == round(n_templates * part) if exact else n_kept == pytest.approx(n_templates * part, rel=0.03)
        whole = {where for where, _ in before if before[where, True] == before[where, False]}
        assert all(after[where, True] == after[where, False] for where in whole)
    assert not Counter(lines_of(quarter)) - Counter(lines_of(half))


@pytest.mark.real_data
@pytest.mark.parametrize(("assay", "share"), [("H3K36me3", 1), ("H3K4me3", 0.98), ("Input", 0.98)])
def test_the_third_party_half_of_k562_is_a_part_of_the_whole(assay, share):
    # of the latter two, reads that fit several places lie elsewhere in the half: it was aligned anew
    whole, half = (
        Counter((place(each), each.flag) for each in reads_of(K562 / level / f"K562_{assay}.bam"))
        for level in ("dsf1", "dsf2")
    )
    assert (half & whole).total() >= share * half.total()
    assert half.total() == pytest.approx(whole.total() / 2, rel=0.01)
