"""`candi sheet`: a metadata.tsv of the ENCODE portal becomes a sheet that `candi bin` reads."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

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
    assert "sheet: 2 biosamples (0 replicates in groups, 2 with a control) of 7 experiments" in ran.err


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
        (["absent.tsv"], 1, "absent.tsv: no such file; give a metadata.tsv of the ENCODE portal, or a sample sheet"),
        (["in/metadata.tsv", "--assembly", "mm10"], 1,
         "in/metadata.tsv: File assembly: no file of mm10; give one of GRCh38 (9) with --assembly"),
        (["in/metadata.tsv", "--folder", "nowhere"], 1,
         "nowhere: No such file or directory; give the folder of the files with --folder"),
        (["in/metadata.tsv", "-o", "in/metadata.tsv"], 2,
         "-o in/metadata.tsv: is METADATA itself; give the sheet another name"),
        (["in/metadata.tsv", "-o", "nowhere/sheet.tsv"], 1,
         "nowhere/sheet.tsv: folder nowhere does not exist; make it first"),
        ([str(TEST_DATA / "meta.tsv"), "--merge"], 2,
         f"{TEST_DATA / 'meta.tsv'}: not a metadata.tsv; --merge, --min-assays, --assembly and --folder need one"),
        (["in/metadata.tsv", "--split", "0.1,0.2", "--challenge", "x.csv"], 2,
         "--split, --challenge: two splits; give one of them"),
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


def test_a_split_keeps_a_donor_and_a_cell_type_on_one_side_and_is_the_same_for_a_seed(candi, tmp_path):
    sheet = tmp_path / "in.tsv"
    rows = [(f"b{number}", f"H3K{mark}me3", f"d{number // 2}") for number in range(12) for mark in (4, 27)]
    sheet.write_text("biosample\tassay\tdonor\tfile\n" + "".join("\t".join([*row, "x.bam"]) + "\n" for row in rows))
    outputs = []
    for seed in (0, 0, 1, 2, 3):
        ran = candi("sheet", sheet, "--split", "0.17,0.34", "--seed", seed, "-o", tmp_path / "out.tsv")
        assert ran.code == 0
        outputs.append((tmp_path / "out.tsv").read_text())
    assert outputs[0] == outputs[1]
    assert len(set(outputs)) > 1
    found = read_sheet(tmp_path / "out.tsv")
    for donor in {row.donor for row in found}:
        assert len({row.split for row in found if row.donor == donor}) == 1
    assert {row.split for row in found} == {"train", "validation", "test"}


def test_a_sheet_passes_through_with_nothing_lost(candi, tmp_path):
    copied = tmp_path / "copy.tsv"
    assert candi("sheet", TEST_DATA / "meta.tsv", "-o", copied, "--quiet").code == 0
    assert [replace(row, remark=None) for row in read_sheet(copied)] == [
        replace(row, remark=None) for row in read_sheet(TEST_DATA / "meta.tsv")
    ]


@pytest.mark.real_data
def test_the_split_of_the_challenge_fills_its_biosamples(candi, tmp_path):
    table = TEST_DATA.parents[1] / "shared" / "data" / "encode_metadata" / "EIC_experiments.csv"
    sheet = tmp_path / "in.tsv"
    sheet.write_text("biosample\tassay\nT_adrenal_gland\tATAC-seq\nT_heart_left_ventricle\tATAC-seq\n")
    ran = candi("sheet", sheet, "--challenge", table, "-o", tmp_path / "out.tsv")
    assert ran.code == 0, ran.err
    assert {row.split for row in read_sheet(tmp_path / "out.tsv")} == {"train"}
