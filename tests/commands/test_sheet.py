"""`candi sheet`: a metadata.tsv of the ENCODE portal becomes a sheet that `candi bin` reads."""

import hashlib
from pathlib import Path

import pytest

from candi_cli import commands
from candi_cli.covariates import COLUMNS, read_sheet

TEST_DATA = Path(__file__).parents[2] / "test_data"
COLUMNS_OF_PORTAL = (
    "File accession", "File format", "Output type", "File assembly", "Experiment accession", "Assay", "Donor(s)",
    "Biosample term name", "Experiment target", "Biological replicate(s)", "Read length", "Run type", "Derived from",
    "Lab", "md5sum", "Platform", "File Status", "File analysis title",
)  # fmt: skip
MARKS = {"H3K4me3": 1, "H3K27ac": 2, "H3K36me3": 3}


def rows(target: str, number: int, replicate: int) -> list[str]:
    """Return the FASTQ and the BAM of one replicate of an experiment."""
    title, label = ("Histone ChIP-seq", f"{target}-human") if target else ("Control ChIP-seq", "")
    fastq, bam, experiment = f"ENCFF{number}{replicate}FQ", f"ENCFF{number}{replicate}BM", f"ENCSR{number}AA"
    where = (experiment, title, "/human-donors/ENCDO1AA/", "cardiac muscle cell", label, str(replicate))
    sequenced = ("36", "single-ended", "", "Lab", "a" * 32, "Illumina HiSeq 2000", "released", "")
    mapped = ("", "", f"/files/{fastq}/", "Lab", "b" * 32, "", "released", "ENCODE4 v1.6.0 GRCh38")
    return [
        "\t".join((fastq, "fastq", "reads", "", *where, *sequenced)),
        "\t".join((bam, "bam", "alignments", "GRCh38", *where, *mapped)),
    ]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(commands, "COMMANDS", tuple({*commands.COMMANDS, "sheet"}))


@pytest.fixture
def metadata(tmp_path, monkeypatch):
    """Three experiments and a control on two isogenic replicates, and DNase-seq on the first."""
    monkeypatch.chdir(tmp_path)
    lines = ["\t".join(COLUMNS_OF_PORTAL)]
    for replicate in (1, 2):
        for target, number in {**MARKS, "": 9}.items():
            lines += rows(target, number, replicate)
    lines += [line.replace("Histone ChIP-seq", "DNase-seq") for line in rows("H3K9me3", 5, 1)]
    path = Path("in") / "metadata.tsv"
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n")
    return path


def test_without_an_output_the_sheet_goes_to_stdout_and_the_rest_to_stderr(candi, metadata):
    for output in ((), ("-o", "-")):
        ran = candi("sheet", metadata, *output)
        lines = ran.out.splitlines()
        assert ran.code == 0
        assert tuple(lines[0].split("\t")) == COLUMNS
        assert len(lines) == 1 + 4 + 1 + 3 + 1
        assert all(line.startswith("candi sheet: ") for line in ran.errors)
    assert "chosen: experiments (4), controls (1), biosamples (2), terms (1); alignments (9)" in ran.err
    assert "stdout: 2 biosamples (0 replicates in groups, 2 with a control) of 7 experiments" in ran.err


def test_quiet_says_nothing(candi, metadata):
    assert candi("sheet", metadata, "--quiet").err == ""


def test_the_sheet_reads_back_with_paths_as_seen_from_its_folder(candi, metadata):
    Path("out").mkdir()
    assert candi("sheet", metadata, "-o", "out/sheet.tsv").code == 0
    assert {path.name for path in Path("out").iterdir()} == {"sheet.tsv"}
    first = read_sheet(Path("out/sheet.tsv"))[0]
    assert (first.name, first.file) == ("cardiac_muscle_cell_ENCDO1AA_rep1/DNase-seq", Path("../in/ENCFF51BM.bam"))
    assert (first.donor, first.tissue, first.md5sums) == ("ENCDO1AA", "cardiac muscle cell", {"file": "b" * 32})
    assert (first.covariates.platform, first.covariates.depth) == ("Illumina HiSeq 2000", None)


def test_merge_makes_the_cell_types_of_the_paper(candi, metadata):
    ran = candi("sheet", metadata, "--merge")
    biosamples = [line.split("\t")[0] for line in ran.out.splitlines()[1:]]
    assert biosamples == [
        *["cardiac_muscle_cell_grp1_rep1"] * 4,
        *["cardiac_muscle_cell_grp1_rep2"] * 4,
        "cardiac_muscle_cell_nonrep",
    ]
    assert "3 biosamples (2 replicates in groups, 2 with a control) of 7 experiments" in ran.err


def test_min_assays_leaves_out_biosamples_and_says_so_when_none_is_left(candi, metadata):
    ran = candi("sheet", metadata, "--min-assays", 4)
    assert {line.split("\t")[0] for line in ran.out.splitlines()[1:]} == {"cardiac_muscle_cell_ENCDO1AA_rep1"}
    ran = candi("sheet", metadata, "--min-assays", 5)
    assert (ran.code, ran.out) == (1, "")
    assert ran.errors == [f"candi sheet: {metadata}: Assay: no biosample has 5 assays or more; lower --min-assays"]


def test_a_sheet_of_downloaded_files_is_binned(candi, metadata):
    for name in ("ENCFF11BM.bam", "ENCFF91BM.bam"):
        (metadata.parent / name).symlink_to(TEST_DATA / "sim1.H3K4me3.bam")
    md5 = hashlib.md5((TEST_DATA / "sim1.H3K4me3.bam").read_bytes()).hexdigest()
    metadata.write_text(metadata.read_text().replace("b" * 32, md5))
    assert "not in in and left out: alignments (7)" in candi("sheet", metadata, "-o", "sheet.tsv").err
    assert candi("bin", "--covariates", "sheet.tsv", "-o", "store.h5", "--quiet").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["absent.tsv"], 1, "absent.tsv: No such file or directory; give the portal's metadata.tsv"),
        (["in/metadata.tsv", "--assembly", "mm10"], 1,
         "in/metadata.tsv: File assembly: no file of mm10; give one of GRCh38 (9) with --assembly"),
        (["in/metadata.tsv", "--folder", "nowhere"], 1,
         "nowhere: No such file or directory; give the folder of the files with --folder"),
        (["in/metadata.tsv", "-o", "in/metadata.tsv"], 2,
         "-o in/metadata.tsv: is METADATA itself; give the sheet another name"),
        (["in/metadata.tsv", "-o", "nowhere/sheet.tsv"], 1,
         "nowhere/sheet.tsv: folder nowhere does not exist; make it first"),
        ([str(TEST_DATA / "meta.tsv")], 1,
         f"{TEST_DATA / 'meta.tsv'}:1: no metadata.tsv of the ENCODE portal; download the table from the portal again"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_sheet(candi, metadata, arguments, code, line):
    ran = candi("sheet", *arguments)
    assert (ran.code, ran.out, ran.errors) == (code, "", [f"candi sheet: {line}"])
    assert not list(Path().rglob("sheet.tsv"))


def test_each_problem_of_the_table_is_a_line_and_an_old_sheet_stays(candi, metadata):
    Path("sheet.tsv").write_text("old")
    metadata.write_text(metadata.read_text().replace("b" * 32, "b", 2))
    ran = candi("sheet", metadata, "-o", "sheet.tsv")
    assert ran.code == 1
    assert [line.split(": ")[1] for line in ran.errors] == [f"{metadata}:3", f"{metadata}:5"]
    assert Path("sheet.tsv").read_text() == "old"


def test_verbose_names_the_platforms_that_are_not_known(candi, metadata):
    metadata.write_text(metadata.read_text().replace("HiSeq 2000", "Typewriter", 1))
    assert "Illumina Typewriter is not in the vocabulary" not in candi("sheet", metadata).err
    assert "Illumina Typewriter is not in the vocabulary" in candi("sheet", metadata, "-v").err
