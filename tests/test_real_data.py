"""The default model on real reads: K562 (paired, no SEQ, all reads named "1") and IMR90 (single, no MAPQ)."""

import importlib.util
from pathlib import Path

import numpy as np
import pyBigWig
import pytest

from candi_cli.commands._tracks import default_model
from candi_cli.model import load

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
    path = denoise(biosample, "--batch-size", 32)
    assert path.read_bytes() == denoise(biosample, "--batch-size", 1, "-@", 2).read_bytes()
    with pyBigWig.open(str(path)) as track:
        assert track.chroms() == {chrom: length}
        assert track.intervals(chrom, length - 100, length)[-1][1] == length
        for start in range(0, length, 25_000_000):
            values = track.values(chrom, start, min(start + 25_000_000, length), numpy=True)
            assert np.isfinite(values).all()
            assert values.min() >= 0


def test_denoised_counts_predict_the_independent_half_better_than_the_raw_ones():
    path = Path(__file__).parent / "benchmarks" / "denoise_real.py"
    spec = importlib.util.spec_from_file_location("denoise_real", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    model = load(default_model())
    for mark in benchmark.MARKS:
        scores = benchmark.compare(model, DATA / "K562_ChIP_hg19", mark)
        raw, denoised = scores["raw counts of dsf2"], scores["denoised"]
        assert denoised.pearson > raw.pearson, mark
        assert denoised.negative_binomial < raw.negative_binomial, mark
        assert denoised.poisson < raw.poisson, mark
