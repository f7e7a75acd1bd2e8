"""The ENCODE portal's metadata.tsv: which files are chosen, what is known of them, and what is refused and how."""

import hashlib
import random
from pathlib import Path

import pytest

from candi_cli.biosamples import merge, separate, to_experiments, write_sheet
from candi_cli.covariates import CONTROL, Covariates, read_sheet
from candi_cli.encode import is_portal_metadata, read_metadata
from candi_cli.errors import SheetError

# the columns of a download, in their order
HEADER = [
    "File accession", "File format", "File type", "File format type", "Output type", "File assembly",
    "Experiment accession", "Assay", "Donor(s)", "Biosample term id", "Biosample term name", "Biosample type",
    "Biosample organism", "Biosample treatments", "Biosample treatments amount", "Biosample treatments duration",
    "Biosample genetic modifications methods", "Biosample genetic modifications categories",
    "Biosample genetic modifications targets", "Biosample genetic modifications gene targets",
    "Biosample genetic modifications site coordinates", "Biosample genetic modifications zygosity",
    "Experiment target", "Library made from", "Library depleted in", "Library extraction method",
    "Library lysis method", "Library crosslinking method", "Library strand specific", "Experiment date released",
    "Project", "RBNS protein concentration", "Library fragmentation method", "Library size range",
    "Biological replicate(s)", "Technical replicate(s)", "Read length", "Mapped read length", "Run type",
    "Paired end", "Paired with", "Index of", "Derived from", "Size", "Lab", "md5sum", "dbxrefs", "File download URL",
    "Genome annotation", "Platform", "Controlled by", "File Status", "s3_uri", "Azure URL", "File analysis title",
    "File analysis status", "Audit WARNING", "Audit NOT_COMPLIANT", "Audit ERROR",
]  # fmt: skip
FORMATS = {
    "fastq": ("fastq", "fastq", "", "reads", ""),
    "unfiltered": ("bam", "bam", "", "unfiltered alignments", "GRCh38"),
    "bam": ("bam", "bam", "", "alignments", "GRCh38"),
    "signal": ("bigWig", "bigWig", "", "signal p-value", "GRCh38"),
    "fold": ("bigWig", "bigWig", "", "fold change over control", "GRCh38"),
    "peaks": ("bed narrowPeak", "bed", "narrowPeak", "pseudoreplicated peaks", "GRCh38"),
}
ANALYSIS = "ENCODE4 v1.6.0 GRCh38"


def md5(accession: str) -> str:
    return hashlib.md5(accession.encode()).hexdigest()


def file(accession: str, kind: str, experiment: str = "ENCSR000AAA", /, **cells: str) -> dict[str, str]:
    """Return a row of the table; cells are named as columns are, with underscores for spaces."""
    row = dict.fromkeys(HEADER, "")
    columns = ("File format", "File type", "File format type", "Output type", "File assembly")
    row |= dict(zip(columns, FORMATS[kind], strict=True))
    row |= {
        "File accession": accession,
        "Experiment accession": experiment,
        "Assay": "Histone ChIP-seq",
        "Experiment target": "H3K4me3-human",
        "Biosample term name": "cardiac muscle cell",
        "Donor(s)": "/human-donors/ENCDO000AAA/",
        "Biological replicate(s)": "1",
        "Lab": "Bradley Bernstein, Broad",
        "md5sum": md5(accession),
        "File Status": "released",
        "File download URL": f"https://www.encodeproject.org/files/{accession}/@@download/{accession}",
    }
    if kind == "fastq":
        row |= {"Platform": "Illumina HiSeq 2000", "Read length": "36", "Run type": "single-ended"}
    else:
        row |= {"File analysis title": ANALYSIS, "File analysis status": "released"}
    names = {"".join(name for name in column if name.isalnum()).lower(): column for column in HEADER}
    for name, cell in cells.items():
        row[names[name.replace("_", "").lower()]] = cell
    return row


def experiment(
    number: int, target: str = "H3K4me3-human", *, replicates: str = "1", derived: str = "", **cells: str
) -> list[dict[str, str]]:
    """Return the rows of an experiment: for each replicate FASTQ, BAM, signal and peaks."""
    accession = f"ENCSR{number:03}AAA"
    rows = []
    for replicate in replicates:
        fastq, bam, signal, peaks = (f"ENCFF{number}{replicate}{kind}" for kind in ("FQ", "BM", "SG", "PK"))
        own = {"experiment_target": target, "biological_replicates": replicate, **cells}
        rows += [
            file(fastq, "fastq", accession, **own),
            file(bam, "bam", accession, derived_from=f"/files/{fastq}/", **own),
            file(signal, "signal", accession, derived_from=f"/files/{bam}/{derived}", **own),
            file(peaks, "peaks", accession, derived_from=f"/files/{bam}/", **own),
        ]
    return rows


def control(number: int, *, replicates: str = "1", **cells: str) -> list[dict[str, str]]:
    rows = experiment(number, "", replicates=replicates, assay="Control ChIP-seq", **cells)
    return [row for row in rows if row["File format"] in ("fastq", "bam")]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write rows as a metadata.tsv in an otherwise empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(*rows: dict[str, str], rename=(), drop=(), start: str = "", newline: str = "\n") -> Path:
        columns = [name for name in HEADER if name not in drop]
        extra = [name for name in rows[0] if name not in HEADER]
        header = [dict(rename).get(name, name) for name in columns + extra]
        lines = [header, *([row.get(name, "") for name in columns + extra] for row in rows)]
        path = tmp_path / "metadata.tsv"
        path.write_bytes((start + "".join("\t".join(line) + newline for line in lines)).encode())
        return Path("metadata.tsv")

    return write


def only(path: Path, **options):
    """Return the one candidate of a table."""
    (candidate,) = read_metadata(path, **options).candidates
    return candidate


def names(candidate) -> dict[str, str]:
    return {layer: path.name for layer, path in candidate.files.items()}


def problems(path: Path, **options) -> list[str]:
    """Return the lines of the error that a table raises, without the table's path."""
    with pytest.raises(SheetError) as caught:
        read_metadata(path, **options)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") and "; " in line for line in lines), lines
    return [line.removeprefix(f"{path}:") for line in lines]


def test_an_experiment_is_read_with_all_that_the_table_says_of_it(table):
    found = only(table(*experiment(1)))
    assert (found.term, found.assay, found.experiment) == ("cardiac muscle cell", "H3K4me3", "ENCSR001AAA")
    assert (found.donor, found.lab) == ("ENCDO000AAA", "Bradley Bernstein, Broad")
    assert names(found) == {"file": "ENCFF11BM.bam", "signal": "ENCFF11SG.bigWig", "peaks": "ENCFF11PK.bed.gz"}
    assert found.md5sums == {"file": md5("ENCFF11BM"), "signal": md5("ENCFF11SG"), "peaks": md5("ENCFF11PK")}
    assert found.covariates == Covariates(None, 36, "single-ended", "Illumina HiSeq 2000")
    assert found.remark is None


def test_a_table_is_known_by_its_header_and_not_by_its_name(table, tmp_path):
    path = table(*experiment(1), start="\ufeff")
    assert is_portal_metadata(path)
    assert is_portal_metadata(path.rename("anything.txt"))
    for text in (b"", b"biosample\tassay\n", b"\x1f\x8b\x00\xff", b"https://www.encodeproject.org/metadata/?type=x\n"):
        (tmp_path / "other").write_bytes(text)
        assert not is_portal_metadata(tmp_path / "other")
    assert not is_portal_metadata(tmp_path)
    assert not is_portal_metadata(tmp_path / "absent")


@pytest.mark.parametrize("options", [{"start": "\ufeff"}, {"newline": "\r\n"}], ids=str)
def test_a_bom_and_windows_lines_do_not_matter(table, options):
    expected = read_metadata(table(*experiment(1)))
    assert read_metadata(table(*experiment(1), **options)) == expected


def test_old_spellings_of_headers_are_the_same_columns(table):
    expected = read_metadata(table(*experiment(1)))
    old = {"Donor(s)": "Donors", "File assembly": "Assembly", "File Status": "File status", "md5sum": "MD5sum"}
    assert read_metadata(table(*experiment(1), rename=old)) == expected


def test_a_column_in_both_spellings_is_read_in_the_newer(table):
    rows = [row | {"Assembly": "hg19"} for row in experiment(1)]
    assert names(only(table(*rows)))["file"] == "ENCFF11BM.bam"


@pytest.mark.parametrize(
    ("assay", "target", "name"),
    [
        ("Histone ChIP-seq", "H3K27ac-human", "H3K27ac"),
        ("Histone ChIP-seq", "H2AFZ-human", "H2AFZ"),
        ("Histone ChIP-seq", "H2AZ1-human", "H2AFZ"),
        ("Histone ChIP-seq", "H3-3A-human", "H3F3A"),
        ("TF ChIP-seq", "CTCF-mouse", "CTCF"),
        ("TF ChIP-seq", "eGFP-CTCF-human", "eGFP-CTCF"),
        ("ChIP-seq", "NKX3-1-human", "NKX3-1"),
        ("ChIP-seq", "POLR2A/B-human", "POLR2A_B"),
        ("DNase-seq", "", "DNase-seq"),
        ("ATAC-seq", "", "ATAC-seq"),
        ("Control ChIP-seq", "", CONTROL),
        ("ChIP-seq", "", CONTROL),
        ("ChIP-seq", "Control-human", CONTROL),
        ("ChIP-seq", "rabbit-IgG-control-human", CONTROL),
    ],
)
def test_assays_are_named_as_in_the_paper(table, assay, target, name):
    assert only(table(*experiment(1, target, assay=assay))).assay == name


@pytest.mark.parametrize("assay", ["Mint-ChIP-seq", "polyA plus RNA-seq", "snATAC-seq", "Control eCLIP"])
def test_other_assays_are_left_out_and_told(table, assay):
    found = read_metadata(table(*experiment(1), *experiment(2, "", assay=assay)))
    assert [item.experiment for item in found.candidates] == ["ENCSR001AAA"]
    assert f"experiments of other assays, left out: {assay} (1)" in found.remarks


def test_unfiltered_alignments_and_fold_change_are_never_chosen(table):
    rows = [file("ENCFF1", "unfiltered"), file("ENCFF2", "fold"), file("ENCFF3", "peaks")]
    assert names(only(table(*rows))) == {"peaks": "ENCFF3.bed.gz"}


PEAKS = ("IDR thresholded peaks", "replicated peaks", "pseudoreplicated peaks", "peaks")


@pytest.mark.parametrize("n", range(len(PEAKS)))
def test_peaks_are_idr_thresholded_else_replicated_else_pseudoreplicated_else_plain(table, n):
    rows = [file(f"ENCFF{9 - number}", "peaks", output_type=PEAKS[number]) for number in range(n, len(PEAKS))]
    rows.append(file("ENCFF0", "peaks", output_type="peaks and background as input for IDR"))
    assert names(only(table(*rows))) == {"peaks": f"ENCFF{9 - n}.bed.gz"}


def test_peaks_are_narrow_or_broad_beds_and_no_bigbeds(table):
    rows = [file(f"ENCFF{n}", "peaks", file_format=name) for n, name in enumerate(["bigBed narrowPeak", "bed bed3+"])]
    assert names(only(table(*rows, file("ENCFF9", "peaks", file_format="bed broadPeak"))))["peaks"] == "ENCFF9.bed.gz"
    newer = file("ENCFF9", "peaks", file_format="bed", file_format_type="broadPeak")
    assert names(only(table(*rows, newer)))["peaks"] == "ENCFF9.bed.gz"


def test_the_assembly_is_the_one_asked_for_else_grch38_else_the_most_frequent(table):
    old = [row | {"File assembly": "hg19"} for row in experiment(1)[1:]]
    older = [row | {"File assembly": "NCBI36"} for row in experiment(2)[1:2]]
    new = experiment(3)
    assert only(table(*old, *older, *new)).experiment == "ENCSR003AAA"
    assert only(table(*old, *older, *new), assembly="hg38").experiment == "ENCSR003AAA"
    assert only(table(*old, *older, *new), assembly="hg19").experiment == "ENCSR001AAA"
    found = read_metadata(table(*old, *older))
    assert [item.experiment for item in found.candidates] == ["ENCSR001AAA"]
    assert "assembly hg19; left out files of others: NCBI36 (1)" in found.remarks
    (line,) = problems(table(*old, *older), assembly="mm10")
    assert line == " File assembly: no file of mm10; give one of hg19 (3), NCBI36 (1) with --assembly"


@pytest.mark.parametrize("status", ["revoked", "deleted", "replaced"])
def test_withdrawn_files_are_never_chosen(table, status):
    rows = [file("ENCFF1", "bam", file_status=status), file("ENCFF2", "signal")]
    assert names(only(table(*rows))) == {"signal": "ENCFF2.bigWig"}


def test_released_files_come_before_archived_ones_and_archived_before_none(table):
    archived, released = file("ENCFF1", "bam", file_status="archived"), file("ENCFF2", "bam")
    assert names(only(table(archived, released)))["file"] == "ENCFF2.bam"
    assert names(only(table(archived)))["file"] == "ENCFF1.bam"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("ENCODE3 GRCh38", "ENCODE4 v1.1.6 GRCh38"),
        ("ENCODE4 v1.5.1 GRCh38", "ENCODE4 v1.10.0 GRCh38"),
        ("ENCODE4 v1.9.1 GRCh38", "ENCODE4 v2.0.0 GRCh38"),
        ("Lab custom GRCh38", "ENCODE3 GRCh38"),
        ("", "ENCODE3 GRCh38"),
    ],
)
def test_all_files_of_an_experiment_are_of_its_newest_analysis(table, older, newer):
    rows = [file("ENCFF1", "bam", file_analysis_title=older), file("ENCFF3", "signal", file_analysis_title=older)]
    rows += [file("ENCFF0", "peaks", file_analysis_title=older), file("ENCFF2", "bam", file_analysis_title=newer)]
    assert names(only(table(*rows))) == {"file": "ENCFF2.bam"}


def test_an_analysis_with_alignments_comes_before_a_newer_one_without(table):
    rows = [file("ENCFF1", "bam"), file("ENCFF2", "peaks"), file("ENCFF3", "peaks", file_analysis_title="ENCODE9")]
    assert names(only(table(*rows))) == {"file": "ENCFF1.bam", "peaks": "ENCFF2.bed.gz"}


def test_a_released_analysis_comes_before_a_newer_archived_one(table):
    newer = {"file_analysis_title": "ENCODE9 GRCh38", "file_analysis_status": "archived"}
    assert names(only(table(file("ENCFF1", "bam", **newer), file("ENCFF2", "bam"))))["file"] == "ENCFF2.bam"


def test_a_file_of_two_analyses_is_of_both(table):
    both = {"file_analysis_title": f"ENCODE3 GRCh38, {ANALYSIS}", "file_analysis_status": "archived, released"}
    assert names(only(table(file("ENCFF1", "bam"), file("ENCFF2", "signal", **both)))) == {
        "file": "ENCFF1.bam",
        "signal": "ENCFF2.bigWig",
    }


def test_each_replicate_has_its_own_reads_and_signal_and_shares_the_pooled_peaks(table):
    rows = [row for row in experiment(1, replicates="12") if row["Output type"] != "pseudoreplicated peaks"]
    rows.append(file("ENCFF0SG", "signal", "ENCSR001AAA", biological_replicates="1, 2"))
    rows.append(file("ENCFF0BM", "bam", "ENCSR001AAA", biological_replicates="1, 2"))
    rows.append(file("ENCFF0PK", "peaks", "ENCSR001AAA", biological_replicates="1, 2", output_type="replicated peaks"))
    found = read_metadata(table(*rows)).candidates
    assert [item.biosample for item in found] == ["ENCDO000AAA_rep1", "ENCDO000AAA_rep2"]
    for replicate, item in zip("12", found, strict=True):
        bam, signal = f"ENCFF1{replicate}BM.bam", f"ENCFF1{replicate}SG.bigWig"
        assert names(item) == {"file": bam, "signal": signal, "peaks": "ENCFF0PK.bed.gz"}


def test_a_replicate_without_signal_of_its_own_takes_the_pooled_one(table):
    rows = [file("ENCFF1", "bam"), file("ENCFF2", "signal", biological_replicates="2")]
    rows.append(file("ENCFF3", "signal", biological_replicates="1, 2"))
    assert names(only(table(*rows))) == {"file": "ENCFF1.bam", "signal": "ENCFF3.bigWig"}


def test_of_two_signals_the_one_derived_from_the_chosen_reads_is_taken(table):
    rows = [file("ENCFF1", "bam"), file("ENCFF2", "signal"), file("ENCFF3", "signal", derived_from="/files/ENCFF1/")]
    assert names(only(table(*rows)))["signal"] == "ENCFF3.bigWig"


def test_pooled_alignments_stand_for_themselves_where_no_replicate_has_its_own(table):
    found = only(table(file("ENCFF1", "bam", biological_replicates="2, 1, 10")))
    assert found.biosample == "ENCDO000AAA_rep1_2_10"


def test_without_alignments_the_signal_says_which_replicates_there_are(table):
    rows = [file(f"ENCFF{n}", "signal", biological_replicates=str(n)) for n in (1, 2)]
    assert [names(item) for item in read_metadata(table(*rows)).candidates] == [
        {"signal": "ENCFF1.bigWig"},
        {"signal": "ENCFF2.bigWig"},
    ]


def test_covariates_are_followed_over_several_steps_and_circles_end(table):
    rows = [
        file("ENCFF1", "bam", derived_from="/files/ENCFF2/, /files/ENCFF9NOTHERE/"),
        file("ENCFF2", "unfiltered", derived_from="/files/ENCFF3/, /files/ENCFF4/, /files/ENCFF1/"),
        file("ENCFF3", "fastq", read_length="101", run_type="paired-ended", platform="Illumina NovaSeq 6000"),
        file("ENCFF4", "fastq", read_length="101", run_type="paired-ended", platform="Illumina NovaSeq 6000"),
    ]
    for order in (rows, rows[::-1]):
        assert only(table(*order)).covariates == Covariates(None, 101, "paired-ended", "Illumina NovaSeq 6000")


def test_covariates_on_which_the_fastqs_disagree_are_not_known(table):
    rows = [
        file("ENCFF1", "bam", derived_from="/files/ENCFF2/, /files/ENCFF3/"),
        file("ENCFF2", "fastq", read_length="101", run_type="paired-ended"),
        file("ENCFF3", "fastq", read_length="36", platform="Illumina HiSeq 2500"),
    ]
    found = read_metadata(table(*rows))
    assert found.candidates[0].covariates == Covariates()
    assert found.candidates[0].remark == (
        "metadata.tsv:3: Platform: Illumina HiSeq 2000, Illumina HiSeq 2500 are different; taken as not known"
    )
    assert any("platform (1), read length (1), run type (1)" in line for line in found.remarks)


def test_two_spellings_of_one_platform_agree(table):
    rows = [file("ENCFF1", "bam", derived_from="/files/ENCFF2/, /files/ENCFF3/")]
    rows += [file(f"ENCFF{n}", "fastq", platform=name) for n, name in ((2, "HiSeq 2000"), (3, "Illumina HiSeq 2000"))]
    assert only(table(*rows)).covariates.platform == "Illumina HiSeq 2000"


def test_a_platform_outside_the_vocabulary_is_not_known_and_told(table):
    found = only(table(*experiment(1, platform="Helicos HeliScope")))
    assert found.covariates.platform is None
    assert found.remark == ("metadata.tsv:2: Platform: Helicos HeliScope is not in the vocabulary; taken as not known")


def test_the_mapped_read_length_comes_before_that_of_the_fastq(table):
    rows = experiment(1)
    rows[1]["Mapped read length"] = "30"
    assert only(table(*rows)).covariates.read_length == 30


def test_the_control_is_not_followed_for_covariates(table):
    rows = control(9, platform="Illumina HiSeq 4000", run_type="paired-ended")
    rows += experiment(1, derived=", /files/ENCFF91BM/")
    chip = next(item for item in read_metadata(table(*rows)).candidates if item.assay != CONTROL)
    assert chip.covariates == Covariates(None, 36, "single-ended", "Illumina HiSeq 2000")


@pytest.mark.parametrize("how", ["FASTQ", "signal"])
def test_the_control_that_an_experiment_names_is_its_control(table, how):
    rows = control(8) + control(9, biosample_term_name="liver", donors="/human-donors/ENCDO999ZZZ/")
    named = {"controlled_by": "/files/ENCFF91FQ/"} if how == "FASTQ" else {"derived": ", /files/ENCFF91BM/"}
    (cell_type,) = merge(read_metadata(table(*rows, *experiment(1, **named))).candidates)
    assert cell_type.control.experiment == "ENCSR009AAA"
    (cell_type,) = merge(read_metadata(table(*rows, *experiment(1))).candidates)
    assert cell_type.control.experiment == "ENCSR008AAA"


@pytest.mark.parametrize(
    ("cells", "biosample"),
    [
        ({}, "ENCDO000AAA_rep1"),
        ({"donors": ""}, "ENCSR001AAA_rep1"),
        ({"biological_replicates": ""}, "ENCDO000AAA"),
        ({"donors": "/human-donors/ENCDO2/, /human-donors/ENCDO1/"}, "ENCDO1_ENCDO2_rep1"),
        ({"biosample_treatments": "interferon alpha", "biosample_treatments_duration": "6 hour"},
         "ENCDO000AAA_rep1_interferon_alpha_6_hour"),
    ],
    ids=str,
)  # fmt: skip
def test_donor_and_replicate_stand_for_a_biosample_without_accession(table, cells, biosample):
    found = read_metadata(table(*experiment(1, **cells)))
    assert found.candidates[0].biosample == biosample
    assert any("no biosample accessions" in line for line in found.remarks)


@pytest.mark.parametrize("column", ["Biosample accession", "Biosample accession(s)"])
def test_a_biosample_accession_is_used_where_the_table_has_one(table, column):
    rows = [
        row | {column: f"/biosamples/ENCBS{row['Biological replicate(s)']}/"} for row in experiment(1, replicates="12")
    ]
    found = read_metadata(table(*rows))
    assert [item.biosample for item in found.candidates] == ["ENCBS1", "ENCBS2"]
    assert not any("no biosample accessions" in line for line in found.remarks)


def test_treated_biosamples_are_told(table):
    found = read_metadata(table(*experiment(1, biosample_treatments="EtOH"), *experiment(2)))
    assert "biosamples of experiments (1) are treated or genetically modified; they are kept" in found.remarks


def test_before_the_download_files_are_named_as_they_will_be_called(table):
    found = read_metadata(table(*experiment(1)), folder=Path())
    assert {path.parent for path in found.candidates[0].files.values()} == {Path()}
    assert any("none of the files is in" in line for line in found.remarks)


def test_once_something_is_downloaded_the_rest_is_left_out_and_told(table, tmp_path):
    path = table(*experiment(1), *experiment(2, "H3K27ac-human"), *experiment(3, "H3K9me3-human"))
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("ENCFF11BM.bam", "ENCFF11SG.bw", "ENCFF21PK.bed"):
        (folder / name).touch()
    found = read_metadata(path, folder=folder)
    assert [names(item) for item in found.candidates] == [
        {"file": "ENCFF11BM.bam", "signal": "ENCFF11SG.bw"},
        {"peaks": "ENCFF21PK.bed"},
    ]
    assert f"not in {folder} and left out: alignments (2), peaks (2), signal p-value (2)" in found.remarks
    assert found.candidates[0].covariates.platform == "Illumina HiSeq 2000"  # the FASTQ need not be downloaded


def test_a_file_of_an_older_analysis_is_used_where_only_it_was_downloaded(table):
    path = table(file("ENCFF1", "bam", file_analysis_title="ENCODE3 GRCh38"), file("ENCFF2", "bam"))
    Path("ENCFF1.bam").touch()
    assert names(only(path))["file"] == "ENCFF1.bam"


def test_a_sheet_of_the_table_reads_back_with_its_md5_sums(table):
    path = table(*experiment(1, replicates="12"), *control(9, replicates="12"))
    for name in ("ENCFF11BM.bam", "ENCFF12BM.bam", "ENCFF91BM.bam", "ENCFF92BM.bam"):
        Path(name).touch()
    experiments = to_experiments(separate(read_metadata(path).candidates))
    with Path("sheet.tsv").open("w") as handle:
        write_sheet(experiments, handle)
    assert read_sheet(Path("sheet.tsv")) == experiments
    names_of = [(row.name, row.file.name, row.md5sums["file"]) for row in experiments]
    assert names_of == [
        (f"cardiac_muscle_cell_ENCDO000AAA_rep{replicate}/{assay}", f"{accession}.bam", md5(accession))
        for replicate in "12"
        for assay, accession in (("H3K4me3", f"ENCFF1{replicate}BM"), (CONTROL, f"ENCFF9{replicate}BM"))
    ]
    assert {row.tissue for row in experiments} == {"cardiac muscle cell"}


def test_the_order_of_rows_never_matters(table):
    rows = [
        *control(9, replicates="12"),
        *experiment(1, replicates="12", derived=", /files/ENCFF91BM/"),
        *experiment(2, "H3K27ac-human", replicates="12"),
        *experiment(3, "H3K9me3-human", replicates="12"),
        *experiment(4, "H3K9me3-human", lab="Bing Ren, UCSD"),
        *(row | {"File accession": f"{row['File accession']}X"} for row in experiment(2, "H3K27ac-human")),
    ]
    expected = merge(read_metadata(table(*rows)).candidates)
    assert [item.name for item in expected] == [
        "cardiac_muscle_cell_grp1_rep1",
        "cardiac_muscle_cell_grp1_rep2",
        "cardiac_muscle_cell_nonrep",
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert merge(read_metadata(table(*shuffled)).candidates) == expected


@pytest.mark.parametrize(
    "column",
    ["File accession", "File format", "Output type", "File assembly", "Experiment accession", "Assay",
     "Experiment target", "Biosample term name"],
)  # fmt: skip
def test_a_needed_column_that_is_not_there_is_named(table, column):
    assert problems(table(*experiment(1), drop=[column])) == [
        f"1: {column}: column not there; download the table again"
    ]


def test_columns_that_are_not_needed_may_be_absent(table):
    needless = {
        "Donor(s)",
        "Derived from",
        "Platform",
        "Run type",
        "File Status",
        "md5sum",
        "Lab",
        "File analysis title",
    }
    found = only(table(*experiment(1), drop=needless))
    assert names(found)["file"] == "ENCFF11BM.bam"
    assert (found.donor, found.lab, found.md5sums, found.covariates) == (None, None, {}, Covariates())


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (file("", "bam"), "File accession: (empty) is no accession; download the table again"),
        (file("../x", "bam"), "File accession: ../x is no accession; download the table again"),
        (file("ENCFF1", "bam", ""), "Experiment accession: (empty) is no accession; download the table again"),
        (file("ENCFF1", "bam", biosample_term_name=""), "Biosample term name: is empty; name the cell type or tissue"),
        (file("ENCFF1", "bam", experiment_target=""),
         "Experiment target: is empty for Histone ChIP-seq; name the target"),
        (file("ENCFF1", "bam", md5sum="xyz"), "md5sum: 'xyz' is not an MD5 sum; download the table again"),
        (file("ENCFF1", "fastq", run_type="both"),
         "Run type: 'both' is not a run type; write single-ended, paired-ended or nothing"),
        (file("ENCFF1", "fastq", read_length="long"),
         "Read length: 'long' is not a number of bp; write a number of bp or nothing"),
        (file("ENCFF1", "bam", mapped_read_length="0"),
         "Mapped read length: '0' is not a read length in bp; write a number of bp or nothing"),
        (file("ENCFF11BM", "bam"), "File accession: ENCFF11BM was on line 3 already; keep one"),
    ],
    ids=lambda value: value.split(";")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_each_problem_is_one_line_with_its_column_and_remedy(table, row, line):
    assert problems(table(*experiment(1), row)) == [f"6: {line}"]


def test_all_problems_of_a_table_are_told_at_once(table):
    path = table(*experiment(1), file("ENCFF1", "bam", md5sum="x"), file("ENCFF2", "fastq", run_type="x"))
    with path.open("a") as handle:
        handle.write("ENCFF3\tbam\n")
    assert [line.split(":")[0] for line in problems(path)] == ["6", "7", "8"]
    assert problems(path)[-1] == f"8: 2 fields under {len(HEADER)} columns; download the table again"


def test_a_row_given_twice_is_one_file(table):
    assert only(table(*experiment(1), *experiment(1))) == only(table(*experiment(1)))


def test_problems_of_other_assays_are_no_problems(table):
    rna = file("ENCFF1", "fastq", "ENCSR999AAA", assay="polyA plus RNA-seq", run_type="unspecified", md5sum="x")
    assert only(table(*experiment(1), rna)).assay == "H3K4me3"


def test_a_table_without_a_usable_file_says_which_would_be(table):
    (line,) = problems(table(file("ENCFF1", "fastq")))
    assert line.startswith(" Output type: no alignments (bam), signal p-value (bigWig) or peaks (bed) of ChIP-seq")


def test_what_is_no_table_is_one_line(tmp_path):
    binary = tmp_path / "x.tsv"
    binary.write_bytes(b"\x1f\x8b\xff\x00")
    assert problems(binary) == [" not a text file; give the portal's metadata.tsv"]
    assert problems(tmp_path / "absent") == [" No such file or directory; give the portal's metadata.tsv"]
    binary.write_bytes(b"")
    assert problems(binary) == ["1: no metadata.tsv of the ENCODE portal; download the table from the portal again"]


def test_a_folder_that_is_not_there_is_named(table):
    path = table(*experiment(1))
    with pytest.raises(SheetError, match=r"^nowhere: No such file or directory; give the folder .* --folder$"):
        read_metadata(path, folder=Path("nowhere"))
