"""The model of counts that ships on real reads: K562 (paired, no SEQ, reads named "1") and IMR90 (single, no MAPQ)."""

import importlib
import time
from pathlib import Path

import numpy as np
import pyBigWig
import pytest

from candi_cli.model import load
from candi_cli.models import default_model

pytestmark = pytest.mark.real_data
DATA = Path(__file__).parents[2] / "shared" / "data"
HALF = DATA / "K562_ChIP_hg19" / "dsf2"
CASES = {
    "K562": (HALF / "K562_H3K4me3.bam", f"{HALF / 'K562_Input.bam'}", "chr1", 249_250_621),
    "IMR90": (DATA / "IMR90_ChIP_hg19_chr21" / "H3K4me3.bam", "NA", "chr21", 48_129_895),
}


@pytest.fixture
def denoise(candi, tmp_path):
    def run(biosample: str, *options) -> Path:
        reads, control, _, _ = CASES[biosample]
        sheet = tmp_path / f"{biosample}.tsv"
        sheet.write_text(f"biosample\tassay\tcontrol\tdepth\n{biosample}\tH3K4me3\t{control}\tNA\n")
        output = tmp_path / f"{biosample}{'.'.join(map(str, options))}.bw"
        ran = candi("denoise", reads, "--covariates", sheet, "-o", output, "--quiet", *options)
        assert (ran.code, ran.err) == (0, "")
        return output

    return run


@pytest.mark.parametrize("biosample", CASES)
def test_a_whole_chromosome_is_finite_and_the_same_for_every_batch_size(denoise, biosample):
    _, _, chrom, length = CASES[biosample]
    started = time.process_time()
    path = denoise(biosample, "--batch-size", 32)
    assert time.process_time() - started < 60, "seconds, not minutes: windows without reads cost nothing"
    assert path.read_bytes() == denoise(biosample, "--batch-size", 1, "-@", 2).read_bytes()
    with pyBigWig.open(str(path)) as track:
        assert track.chroms() == {chrom: length}
        assert track.intervals(chrom, length - 100, length)[-1][1] == length
        for start in range(0, length, 25_000_000):
            values = track.values(chrom, start, min(start + 25_000_000, length), numpy=True)
            assert np.isfinite(values).all()
            assert values.min() >= 0


@pytest.mark.parametrize(
    ("biosample", "region"), [("K562", "chr1:22,500,001-22,600,000"), ("IMR90", "chr21:48,030,001-48,129,895")]
)
def test_every_assay_that_the_model_knows_is_written_with_bounds_around_it(candi, tmp_path, biosample, region):
    reads, control, chrom, _ = CASES[biosample]
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"biosample\tassay\tcontrol\n{biosample}\tH3K4me3\t{control}\n")
    options = ("--assay", "all", "--interval", 0.9, "--sd", "--digits", 5, "-r", region, "--quiet")
    ran = candi("impute", reads, "--covariates", sheet, "-o", tmp_path / "tracks", *options)
    assert (ran.code, ran.err) == (0, "")
    start, end = (int(number) for number in region.partition(":")[2].replace(",", "").split("-"))
    for assay in load(default_model()).card.assays:
        shown = {}
        for name in ("", ".lower", ".upper", ".sd"):
            with pyBigWig.open(str(tmp_path / "tracks" / f"{biosample}.{assay}{name}.bw")) as track:
                intervals = track.intervals(chrom)
                assert (intervals[0][0], intervals[-1][1]) == (start - 1, end)
                shown[name] = track.values(chrom, start - 1, end, numpy=True)
                assert np.isfinite(shown[name]).all()
        assert (shown[".lower"] <= shown[""]).all()
        assert (shown[".lower"] <= shown[".upper"]).all()
        assert ((shown[""] <= shown[".upper"]) | (shown[".upper"] == 0)).mean() > 0.99
        assert len(np.unique(shown[""])) > 100, assay
        assert (shown[".sd"] ** 2 >= 0.99 * shown[""]).all(), "less than a Poisson distribution has"


@pytest.mark.parametrize(
    ("assay", "reads"),
    [
        ("CTCF", "GM12878_CTCF_hg38_chr21/GM12878_hg38_CTCF_r1.chr21.bam"),
        ("CTCF", "GM12878_CTCF_hg19/CTCF_SE_ChIP_chr22.bam"),
        ("ATAC-seq", "ATAC_hg19_chr1/GL1.bam"),
    ],
)
@pytest.mark.parametrize("command", ["denoise", "impute"])
def test_reads_of_an_assay_that_the_model_lacks_are_one_line_that_names_those_it_knows(
    candi, tmp_path, command, assay, reads
):
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"biosample\tassay\nGM12878\t{assay}\n")
    options = ("--assay", "H3K4me3") if command == "impute" else ()
    ran = candi(command, DATA / reads, "--covariates", sheet, "-o", tmp_path / "out.bw", *options)
    assert ran.code == 1
    (line,) = ran.errors
    assert f"does not know {assay}, only {', '.join(load(default_model()).card.assays)}; " in line
    assert list(tmp_path.iterdir()) == [sheet]


def test_denoised_counts_predict_the_independent_half_better_than_the_raw_ones(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks" / "real")
    denoise, trained = (importlib.import_module(name) for name in ("denoise", "trained"))
    model = trained.Named(default_model(), "-")
    given = list(importlib.import_module("experiments").k562(DATA, 1))
    assert [each.assay for each in given] == ["H3K4me3", "H3K36me3", "H3K27me3"]
    for each in given[:2]:
        inputs, test = denoise.prepared(each, model), each.place.inside(each.place.test)
        raw, blocks = importlib.import_module("count_rivals").copy(inputs), each.place.blocks()
        spread = np.zeros(int(test.sum()))
        before = denoise.count_scores(inputs.y[test], np.log(raw[test]), spread, blocks)
        after = denoise.count_scores(inputs.y[test], *denoise.denoised(model, each, DATA, tmp_path, 1), blocks)
        assert after["pearson"][0] > before["pearson"][0], each.assay
        assert after["nb"][0] < before["nb"][0], each.assay
        assert after["poisson"][0] < before["poisson"][0], each.assay
