"""Every bad input ends in one line on stderr (path, fact, remedy), the documented exit code, and no output file."""

import os
import stat
from pathlib import Path

import numpy as np
import pysam
import pytest
from outcomes import one_line

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM = TEST_DATA / "sim1.H3K4me3.bam"
SHEET = TEST_DATA / "meta.tsv"
HEADER = "biosample\tassay\tfile\tdepth\tread_length\n"


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "out.bw"


def nothing_left(out: Path):
    assert list(out.parent.iterdir()) == []


@pytest.fixture
def denoise(candi, model_path, out):
    def run(*reads, sheet=SHEET, model=model_path, output=out, options=()):
        return candi("denoise", *reads, "--covariates", sheet, "-m", model, "-o", output, *options)

    return run


def bad_bams(tmp_path: Path) -> dict[str, Path]:
    """BAM files that cannot be used, by what is wrong with them."""
    truncated = tmp_path / "truncated.bam"
    truncated.write_bytes(BAM.read_bytes()[: BAM.stat().st_size // 2])
    text = tmp_path / "text.bam"
    text.write_text("these are no reads\n")
    empty = tmp_path / "empty.bam"
    empty.touch()
    with pysam.AlignmentFile(str(BAM)) as source:
        header_only = tmp_path / "header_only.bam"
        pysam.AlignmentFile(str(header_only), "wb", template=source).close()
        unsorted = tmp_path / "unsorted.bam"
        with pysam.AlignmentFile(str(unsorted), "wb", template=source) as target:
            for read in reversed(list(source)[:2000]):
                target.write(read)
    return {
        "truncated": truncated,
        "is not a BAM": text,
        "is empty": empty,
        "holds no read": header_only,
        "samtools sort": unsorted,
        "no such file": tmp_path / "absent.bam",
        "is a folder": tmp_path,
    }


@pytest.mark.parametrize(
    "fact",
    ["truncated", "is not a BAM", "is empty", "holds no read", "samtools sort", "no such file", "is a folder"],
)
def test_a_bad_bam(denoise, candi, tmp_path, out, fact):
    path = bad_bams(tmp_path / "." if tmp_path.exists() else tmp_path)[fact]
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"{HEADER}sim1\tH3K4me3\t{path}\tNA\tNA\n")
    one_line(denoise(path, sheet=sheet), path, fact)
    nothing_left(out)
    one_line(candi("bin", "--covariates", sheet, "-o", out), path, fact)
    nothing_left(out)


def test_a_bam_damaged_in_its_middle(denoise, tmp_path, out):
    damaged = tmp_path / BAM.name
    content = bytearray(BAM.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    damaged.write_bytes(content)
    one_line(denoise(damaged), damaged)
    nothing_left(out)


def test_contigs_that_do_not_match_the_reference(denoise, candi, tmp_path, out):
    fasta = tmp_path / "other.fa"
    fasta.write_text(">chr1\n" + "ACGT" * 100 + "\n>chr2\n" + "ACGT" * 50 + "\n")
    one_line(denoise(BAM, options=["-T", fasta]), "chr1", "300,010", "400")
    nothing_left(out)
    fasta.write_text(">1\n" + "ACGT" * 100 + "\n")
    one_line(candi("bin", "--covariates", SHEET, BAM, "-T", fasta, "-o", out), "chr1", fasta)
    nothing_left(out)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("biosample\tassay\tfile\tcolour\nsim1\tH3K4me3\tx.bam\tred\n", [":1: colour: unknown column"]),
        (f"{HEADER}sim1\t\tx.bam\tNA\tNA\n", [":2: assay: "]),
        ("biosample\tfile\nsim1\tx.bam\n", [":1: assay: "]),
        (f"{HEADER}sim1\tH3K4me3\tx.bam\tNA\tNA\nsim1\tH3K4me3\ty.bam\tNA\tNA\n", [":3: ", "line 2"]),
        (f"{HEADER}sim1\tH3K4me3\tx.bam\t0\tNA\n", [":2: depth: ", "NA"]),
        (f"{HEADER}sim1\tH3K4me3\tx.bam\tNA\tlong\n", [":2: read_length: ", "'long'"]),
        ("", ["no experiment"]),
        ("\x00\xff\xfe", ["sheet"]),
    ],
    ids=["unknown column", "no assay", "no assay column", "duplicate", "depth 0", "read length", "empty", "binary"],
)
def test_a_bad_sheet(denoise, tmp_path, out, content, parts):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_bytes(content.encode("latin-1"))
    one_line(denoise(BAM, sheet=sheet), sheet, *parts)
    nothing_left(out)


def test_reads_that_no_row_names(denoise, tmp_path, out):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"{HEADER}sim1\tH3K4me3\ta.bam\tNA\tNA\nsim1\tH3K27me3\tb.bam\tNA\tNA\n")
    one_line(denoise(BAM, sheet=sheet), sheet, BAM, "matches no row")
    nothing_left(out)


def test_reads_without_a_sheet(candi, model_path, out):
    one_line(candi("denoise", BAM, "-m", model_path, "-o", out), "--covariates", code=2)
    nothing_left(out)


def test_an_assay_that_the_model_does_not_know(denoise, tmp_path, out):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"{HEADER}sim1\tATAC-seq\t{BAM}\tNA\tNA\n")
    one_line(denoise(BAM, sheet=sheet), "ATAC-seq", "H3K27me3, H3K36me3, H3K4me3, H3K9me3")
    nothing_left(out)


def test_a_track_that_the_model_never_learned(denoise, out):
    reads = TEST_DATA / "sim2.H3K9me3.bam"
    one_line(denoise(reads, options=["--track", "signal"]), "signal of H3K9me3", "counts")
    nothing_left(out)


def test_an_output_folder_that_does_not_exist(denoise, tmp_path):
    one_line(denoise(BAM, output=tmp_path / "absent" / "out.bw"), tmp_path / "absent", "does not exist")


def test_an_output_folder_that_may_not_be_written(denoise, out):
    out.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.access(out.parent, os.W_OK):  # permissions do not bind root: a file in the folder's place does
            out.parent.chmod(stat.S_IRWXU)
            blocked = out.parent / "file"
            blocked.touch()
            one_line(denoise(BAM, output=blocked / "out.bw"), blocked)
            blocked.unlink()
        else:
            one_line(denoise(BAM), out)
    finally:
        out.parent.chmod(stat.S_IRWXU)
    nothing_left(out)


def test_several_tracks_need_a_folder(denoise, out):
    one_line(denoise(BAM, TEST_DATA / "sim1.H3K27me3.bam"), out, "folder", code=2)
    nothing_left(out)


@pytest.mark.parametrize("kind", ["text", "truncated", "absent", "folder", "other safetensors"])
def test_a_model_file_that_is_not_one(denoise, model_path, tmp_path, out, kind):
    bad = tmp_path / "bad.safetensors"
    if kind == "text":
        bad.write_text("weights\n")
    elif kind == "truncated":
        bad.write_bytes(model_path.read_bytes()[:1000])
    elif kind == "folder":
        bad.mkdir()
    elif kind == "other safetensors":
        import torch
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(3)}, bad)
    one_line(denoise(BAM, model=bad), bad)
    nothing_left(out)


@pytest.mark.parametrize("changed", [("--count", "five-prime"), ("--resolution", "50"), ("-q", "10")], ids=str)
def test_a_model_trained_under_another_counting_rule(candi, model_path, tmp_path, out, changed):
    store = tmp_path / "other.h5"
    assert candi("bin", "--covariates", TEST_DATA / "meta_one.tsv", "-o", store, *changed, "--quiet").code == 0
    one_line(candi("denoise", store, "-m", model_path, "-o", out), model_path, store, "another model")
    nothing_left(out)


def test_a_store_that_is_not_one(candi, model_path, tmp_path, out):
    import h5py

    bad = tmp_path / "bad.h5"
    h5py.File(bad, "w").close()
    one_line(candi("denoise", bad, "-m", model_path, "-o", out), bad, "not a store")
    nothing_left(out)
    one_line(candi("train", bad, "-o", out), bad, "not a store")
    nothing_left(out)


@pytest.mark.parametrize("region", ["chr9", "chr1:500-400", "chr1:9000000-9000100"])
def test_a_region_outside_of_the_genome(denoise, out, region):
    one_line(denoise(BAM, options=["-r", region]), "-r", region, code=2)
    nothing_left(out)


@pytest.mark.parametrize("asked", ["depth=0", "depth=many", "colour=red", "platform=abacus", "depth"])
def test_a_request_that_means_nothing(denoise, out, asked):
    one_line(denoise(BAM, options=["--as", asked]), "--as", code=2)
    nothing_left(out)


def test_a_test_chromosome_that_is_misspelt(candi, store_path, out):
    one_line(candi("train", store_path, "-o", out, "--test-chrom", "Chr2"), "Chr2", code=2)
    nothing_left(out)


def test_a_failed_run_leaves_an_older_output_as_it_was(denoise, out, tmp_path):
    out.write_text("older")
    assert denoise(tmp_path / "absent.bam").code == 1
    assert out.read_text() == "older"
    assert list(out.parent.iterdir()) == [out]
