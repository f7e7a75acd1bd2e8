"""`candi denoise` from reads to bigWig: what is in the track, and what it depends on."""

from pathlib import Path

import numpy as np
import pyBigWig
import pysam
import pytest

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM = TEST_DATA / "sim1.H3K4me3.bam"
SHEET = TEST_DATA / "meta.tsv"
SIZES = {"chr1": 300_010, "chr2": 120_000}


@pytest.fixture
def denoise(candi, model_path, tmp_path):
    def run(*arguments, name="out.bw", model=model_path, sheet=SHEET) -> Path:
        output = tmp_path / name
        ran = candi("denoise", *arguments, "--covariates", sheet, "-m", model, "-o", output)
        assert ran.code == 0, ran.err
        return output

    return run


def values(path: Path, chrom="chr1", start=0, end=None) -> np.ndarray:
    with pyBigWig.open(str(path)) as track:
        return track.values(chrom, start, end or track.chroms(chrom), numpy=True)


@pytest.mark.parametrize("track", ["counts", "signal", "peaks"])
def test_the_track_covers_the_genome_with_finite_values(denoise, track):
    path = denoise(BAM, "--track", track)
    with pyBigWig.open(str(path)) as written:
        assert written.chroms() == SIZES
        for chrom, length in SIZES.items():
            found = written.values(chrom, 0, length, numpy=True)
            assert np.isfinite(found).all()
            assert found.min() >= 0
            intervals = written.intervals(chrom)
            assert intervals[-1][1] == length
            assert all(end - start == 25 for start, end, _ in intervals[:-1])
    if track == "peaks":
        assert values(path).max() <= 1


def test_the_bytes_do_not_depend_on_batch_size_threads_or_the_run(denoise):
    tracks = [
        denoise(BAM, "--batch-size", batch_size, "-@", threads, name=f"{batch_size}.{threads}.bw").read_bytes()
        for batch_size, threads in ((32, 1), (1, 1), (32, 2), (7, 2), (32, 1))
    ]
    assert len(set(tracks)) == 1


def test_cram_bam_and_store_give_the_same_track(denoise, candi, tmp_path):
    cram_sheet = tmp_path / "cram.tsv"
    cram_sheet.write_text(SHEET.read_text().replace("sim1.H3K4me3.bam", "sim1.H3K4me3.cram"))
    fasta = ("-T", TEST_DATA / "genome.fa.gz")
    control = TEST_DATA / "sim1.control.bam"
    cram_sheet.write_text(cram_sheet.read_text().replace("sim1.control.bam", str(control)))
    one = denoise(BAM, *fasta, name="bam.bw")
    other = denoise(TEST_DATA / "sim1.H3K4me3.cram", *fasta, name="cram.bw", sheet=cram_sheet)
    assert one.read_bytes() == other.read_bytes()
    store = tmp_path / "one.h5"
    assert candi("bin", BAM, "--covariates", SHEET, "-o", store, "--quiet").code == 0
    assert denoise(store, *fasta, name="store.bw").read_bytes() == one.read_bytes()


def test_dna_is_read_when_it_is_given(denoise):
    without, given = denoise(BAM, name="a.bw"), denoise(BAM, "-T", TEST_DATA / "genome.fa.gz", name="b.bw")
    assert not np.array_equal(values(without), values(given))


def test_the_control_is_read_when_the_sheet_names_it(denoise, tmp_path):
    alone = tmp_path / "alone.tsv"
    alone.write_text("biosample\tassay\nsim1\tH3K4me3\n")
    assert not np.array_equal(values(denoise(BAM, name="a.bw")), values(denoise(BAM, sheet=alone, name="b.bw")))


def test_a_greater_requested_depth_gives_greater_counts_everywhere(denoise):
    shallow, deep = (values(denoise(BAM, "--as", f"depth={depth}", name=f"{depth}.bw")) for depth in ("10k", "40k"))
    assert (deep > shallow).all()
    assert 2 < deep.sum() / shallow.sum() < 8


def test_a_requested_depth_outside_of_training_is_named_with_its_range(candi, model_path, tmp_path):
    ran = candi("denoise", BAM, "--covariates", SHEET, "-m", model_path, "-o", tmp_path / "o.bw", "--as", "depth=900M")
    assert ran.code == 0
    (warning,) = [line for line in ran.errors if "warning" in line]
    assert "H3K4me3" in warning
    assert "training range" in warning


@pytest.mark.parametrize("region", ["chr2", "chr1:100,001-150,000", "chr1:1-3,010", "chr1:299,000-300,010"])
def test_a_region_holds_the_same_values_as_the_whole(denoise, region):
    whole, part = denoise(BAM, name="whole.bw"), denoise(BAM, "-r", region, name="part.bw")
    chrom = region.partition(":")[0]
    with pyBigWig.open(str(part)) as track:
        assert list(track.chroms()) == [chrom]
        intervals = track.intervals(chrom)
    start, end = intervals[0][0], intervals[-1][1]
    np.testing.assert_array_equal(values(whole, chrom, start, end), values(part, chrom, start, end))


def test_neighbouring_regions_that_share_a_bin_are_joined(denoise):
    path = denoise(BAM, "-r", "chr1:1-1010", "-r", "chr1:1011-2000")
    with pyBigWig.open(str(path)) as track:
        assert [start for start, _, _ in track.intervals("chr1")] == list(range(0, 2000, 25))


def test_a_region_is_widened_to_whole_bins(denoise):
    path = denoise(BAM, "-r", "chr1:1,010-2,010")
    with pyBigWig.open(str(path)) as track:
        intervals = track.intervals("chr1")
    assert (intervals[0][0], intervals[-1][1]) == (1000, 2025)


def test_chromosomes_without_reads_are_left_out_unless_asked_for(denoise, tmp_path):
    some = tmp_path / "chr1.bam"
    with pysam.AlignmentFile(str(BAM)) as source, pysam.AlignmentFile(str(some), "wb", template=source) as target:
        for read in source.fetch("chr1"):
            target.write(read)
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text("biosample\tassay\nsim1\tH3K4me3\n")
    with pyBigWig.open(str(denoise(some, sheet=sheet))) as track:
        assert list(track.chroms()) == ["chr1"]
    with pyBigWig.open(str(denoise(some, "-r", "chr2", sheet=sheet))) as track:
        assert list(track.chroms()) == ["chr2"]


def test_a_window_without_reads_equals_one_that_is_computed_for_itself(denoise, model_path, tmp_path):
    # windows without reads share one computation; a read far away in the window must not change how they are computed
    from candi_cli.binning import Binning
    from candi_cli.commands._experiments import find_given, find_inputs, open_store
    from candi_cli.commands._tracks import lane_covariates, prediction_dataset
    from candi_cli.genome import tile
    from candi_cli.model import load
    from candi_cli.model.device import choose
    from candi_cli.model.forward import forwarding
    from candi_cli.model.prediction import predict

    model = load(model_path)
    reads = [TEST_DATA / "sim2.H3K9me3.bam"]
    inputs = find_inputs(find_given(reads, SHEET), Binning(), rule=model.card.counting, genome=None)
    with open_store(inputs, Binning(), command="", threads=1) as store:
        dataset = prediction_dataset(model, store, "sim2", lane_covariates(model, store, "sim2", []))
        dataset.lanes.read = lambda _lane, _layer, _chrom, start, end: np.zeros(end - start, dtype=np.uint8)
        size = {"context": model.config.context_bins, "flank": model.config.flank_bins}
        windows = list(tile("chr1", 1000, 4000, n_bins=store.n_bins("chr1"), **size))
        common = {"chromsizes": SIZES, "resolution": 25, "batch_size": 4}
        with forwarding(model.network, lambda o: o.track("counts"), device=choose("cpu"), threads=1) as forward:
            shared = list(predict(forward, dataset, windows, **common))
            dataset.signatures = lambda windows: [None] * len(windows)
            separate = list(predict(forward, dataset, windows, **common))
    assert len(shared) == len(separate) > 4
    for (region, one), (other_region, other) in zip(shared, separate, strict=True):
        assert region == other_region
        np.testing.assert_array_equal(one, other)


def test_several_reads_write_one_track_each_into_a_folder(denoise, tmp_path):
    folder = tmp_path / "tracks"
    folder.mkdir()
    denoise(BAM, TEST_DATA / "sim2.H3K9me3.bam", name="tracks")
    companions = {"index.html", "manifest.json", "igv_session.xml"}
    assert {path.name for path in folder.iterdir()} == {"sim1.H3K4me3.bw", "sim2.H3K9me3.bw"} | companions


def test_the_model_can_be_named_by_the_environment(candi, model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("CANDI_MODEL", str(model_path))
    ran = candi("denoise", BAM, "--covariates", SHEET, "-o", tmp_path / "o.bw", "-r", "chr2")
    assert ran.code == 0
    assert f"model {model_path.name}" in ran.err


def test_an_output_has_the_permissions_of_any_new_file(denoise, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    assert denoise(BAM, "-r", "chr2").stat().st_mode == plain.stat().st_mode


def test_md5_sums_of_signal_and_peaks_do_not_matter_to_reads(denoise, tmp_path):
    reads, sheet = TEST_DATA / "sim1.H3K4me3.bam", tmp_path / "md5.tsv"
    sheet.write_text(f"biosample\tassay\tfile\tsignal\tsignal_md5\nsim1\tH3K4me3\t{reads}\tabsent.bw\t{'0' * 32}\n")
    assert denoise(reads, "-r", "chr2", sheet=sheet).exists()
