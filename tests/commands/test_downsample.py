"""`candi downsample` from the command line: its outputs, its lines, and what it refuses."""

import hashlib
from pathlib import Path

import pysam
import pytest

from candi_cli.commands import downsample

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM = TEST_DATA / "sim1.H3K4me3.bam"
FASTA = TEST_DATA / "genome.fa.gz"


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def lines_of(path):
    return pysam.view("-T", str(FASTA), str(path)).splitlines()


def refused(ran, *parts, code=1):
    assert ran.code == code, ran.err
    assert len(ran.errors) == 1, ran.err
    assert "; " in ran.err or ": use" in ran.err, "no remedy"
    for part in parts:
        assert str(part) in ran.err


def test_several_factors_in_one_call(candi, out):
    ran = candi("downsample", BAM, "--dsf", 4, "--dsf", 2, "-o", out / "x.dsf{dsf}.bam", "--write-index")
    assert ran.code == 0, ran.err
    assert ran.out == ""
    assert sorted(path.name for path in out.iterdir()) == [
        "x.dsf2.bam", "x.dsf2.bam.bai", "x.dsf4.bam", "x.dsf4.bam.bai",
    ]  # fmt: skip
    half, quarter = (lines_of(out / f"x.dsf{dsf}.bam") for dsf in (2, 4))
    assert {*quarter} < {*half} < {*lines_of(BAM)}
    assert half == pysam.view("-s", "0.5", str(BAM)).splitlines()
    assert f"{len(half):,} of {len(lines_of(BAM)):,} records) at dsf 2, seed 0" in ran.errors[0]
    with pysam.AlignmentFile(str(out / "x.dsf4.bam")) as indexed:
        assert indexed.check_index()
        program = indexed.header.to_dict()["PG"][-1]
    assert (program["ID"], program["DS"]) == ("candi", "downsample dsf=4 seed=0 by=name")


def test_a_factor_between_whole_numbers(candi, out):
    assert candi("downsample", BAM, "--dsf", "2.5", "--seed", 3, "-o", out / "x.{dsf}.bam").code == 0
    assert lines_of(out / "x.2.5.bam") == pysam.view("-s", "3.4", str(BAM)).splitlines()


def test_stdout_is_a_bam(out, capfdbinary):
    from candi_cli.commands import main

    assert main(["downsample", str(BAM), "--dsf", "2", "--no-PG", "-o", "-"]) == 0
    assert main(["downsample", str(BAM), "--dsf", "2", "--no-PG", "-o", str(out / "x.bam")]) == 0
    assert capfdbinary.readouterr().out == (out / "x.bam").read_bytes()


def test_a_cram_becomes_a_cram_and_a_bam(candi, out):
    arguments = ["downsample", BAM.with_suffix(".cram"), "--dsf", 2, "-T", FASTA]
    assert candi(*arguments, "-o", out / "x.cram", "--write-index").code == 0
    assert candi(*arguments, "-o", out / "x.bam").code == 0
    assert candi(*arguments, "-o", out / "y.out", "-O", "cram").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["x.bam", "x.cram", "x.cram.crai", "y.out"]
    assert lines_of(out / "x.cram") == lines_of(out / "x.bam") == lines_of(out / "y.out")


def test_the_input_is_not_touched(candi, out):
    before = hashlib.sha256(BAM.read_bytes()).digest()
    assert candi("downsample", BAM, "--dsf", 2, "--exact-count", "-o", out / "x.bam").code == 0
    assert hashlib.sha256(BAM.read_bytes()).digest() == before


def test_an_exact_count(candi, out):
    ran = candi("downsample", BAM, "--dsf", 3, "--exact-count", "-o", out / "x.bam")
    templates = int(pysam.view("-c", "-F", "0x980", str(BAM)))
    assert int(pysam.view("-c", "-F", "0x980", str(out / "x.bam"))) == round(templates / 3)
    assert f"{round(templates / 3):,} of {templates:,} templates" in ran.err


@pytest.mark.parametrize("options", [[], ["--exact-count"], ["--by", "position"]], ids=str)
def test_nothing_kept_is_a_warning(candi, out, options):
    ran = candi("downsample", BAM, "--dsf", "1e8", *options, "-o", out / "x.bam")
    assert ran.code == 0
    assert "warning" in ran.errors[0]
    assert lines_of(out / "x.bam") == []


def test_the_same_seed_a_second_time(candi, out):
    once = out / "once.bam"
    assert candi("downsample", BAM, "--dsf", 2, "-o", once).code == 0
    refused(candi("downsample", once, "--dsf", 4, "-o", out / "twice.bam"), once, "--seed", "original")
    assert [*out.iterdir()] == [once]
    assert candi("downsample", once, "--dsf", 2, "--seed", 1, "-o", out / "twice.bam").code == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--dsf", "2", "--dsf", "4", "-o", "x.bam"], ["x.bam", "{dsf}"]),
        (["--dsf", "2", "--dsf", "2.0", "-o", "x{dsf}.bam"], ["twice"]),
        (["--dsf", "1", "-o", "x.bam"], ["'1'", "above 1"]),
        (["--dsf", "half", "-o", "x.bam"], ["'half'", "above 1"]),
        (["--dsf", "nan", "-o", "x.bam"], ["'nan'"]),
        (["--dsf", "inf", "-o", "x.bam"], ["'inf'"]),
        (["-o", "x.bam"], ["--dsf"]),
        (["--dsf", "2"], ["--output"]),
        (["--dsf", "2", "-o", "x.bed"], ["x.bed", "-O"]),
        (["--dsf", "2", "-o", "x.cram"], ["x.cram", "-T"]),
        (["--dsf", "2", "--write-index", "-o", "-"], ["--write-index"]),
        (["--dsf", "2", "--dsf", "4", "-o", "-"], ["{dsf}"]),
        (["--dsf", "2", "--seed", str(2**31), "-o", "x.bam"], ["--seed"]),
        (["--dsf", "2", "-o", str(BAM)], [BAM, "input"]),
    ],
)
def test_a_request_that_cannot_be_met(candi, out, monkeypatch, arguments, parts):
    monkeypatch.chdir(out)
    before = BAM.read_bytes()
    refused(candi("downsample", BAM, *arguments), *parts, code=2)
    assert [*out.iterdir()] == []
    assert BAM.read_bytes() == before


def test_an_input_under_another_name(candi, out, tmp_path):
    link = tmp_path / "link.bam"
    link.symlink_to(BAM)
    refused(candi("downsample", BAM, "--dsf", 2, "-o", link), link, "input", code=2)


def bad_inputs(tmp_path):
    content = BAM.read_bytes()
    made = {"truncated": content[: len(content) // 2], "not a BAM": b"chr1\t0\t100\n", "is empty": b""}
    paths = {fact: tmp_path / f"{fact}.bam" for fact in made}
    for fact, path in paths.items():
        path.write_bytes(made[fact])
    damaged = tmp_path / "damaged.bam"
    damaged.write_bytes(content[:200_000] + bytes(range(200)) + content[200_200:])
    header_only = tmp_path / "header_only.bam"
    with pysam.AlignmentFile(str(BAM)) as source:
        pysam.AlignmentFile(str(header_only), "wb", template=source).close()
    absent = tmp_path / "absent.bam"
    pipe = Path("/dev/null")
    others = {"is damaged": damaged, "holds no read": header_only, "no such file": absent, "is a pipe": pipe}
    return {**paths, **others, "is a folder": tmp_path, "needs its reference": BAM.with_suffix(".cram")}


@pytest.mark.parametrize("options", [[], ["--by", "position", "--exact-count"]], ids=["name", "position"])
@pytest.mark.parametrize(
    "fact",
    ["truncated", "not a BAM", "is empty", "is damaged", "holds no read", "no such file", "is a pipe", "is a folder",
     "needs its reference"],
)  # fmt: skip
def test_a_bad_input(candi, out, tmp_path, fact, options):
    path = bad_inputs(tmp_path)[fact]
    refused(candi("downsample", path, "--dsf", 2, "--dsf", 4, *options, "-o", out / "x{dsf}.bam"), path, fact)
    assert [*out.iterdir()] == []


def test_a_level_that_fails_leaves_none_and_older_files_as_they_were(candi, out, monkeypatch):
    from candi_cli.io.downsampling import Downsampler

    (out / "x4.bam").write_text("older")
    monkeypatch.setattr(Downsampler, "_write_by_samtools", lambda _, dsf, path, *_rest: path.write_bytes(b"no BAM"))
    refused(candi("downsample", BAM, "--dsf", 2, "--dsf", 4, "-o", out / "x{dsf}.bam"), "cannot be read back")
    assert [path.name for path in out.iterdir()] == ["x4.bam"]
    assert (out / "x4.bam").read_text() == "older"


def test_reads_that_are_not_sorted_have_no_index(candi, out, tmp_path):
    by_name = tmp_path / "by_name.bam"
    pysam.sort("-n", "-o", str(by_name), str(BAM))
    arguments = ["downsample", by_name, "--dsf", 2, "-o", out / "x.bam"]
    refused(candi(*arguments, "--write-index"), by_name, "samtools sort")
    assert [*out.iterdir()] == []
    assert candi(*arguments).code == 0


def test_the_formats_are_those_of_the_library():
    from candi_cli.io import downsampling

    assert downsample.FORMATS == downsampling.FORMATS
    assert downsample.METHODS == downsampling.METHODS
