"""The model that ships: small, of known training rows, and used when none is named."""

from pathlib import Path

import numpy as np
import pyBigWig

from candi_cli.commands._tracks import default_model
from candi_cli.model import load

TEST_DATA = Path(__file__).parents[1] / "test_data"


def test_the_default_model_was_not_trained_on_test_rows():
    training = load(default_model()).card.training
    assert training["regions"] == ["chr1:22,500,001-24,100,000", "chr21:43,000,001-48,100,000"]
    files = {name for store in training["stores"] for names in store["experiments"].values() for name in names}
    assert len(files) == 13
    assert not any(word.startswith("/") for word in training["command"].split())


def test_the_default_model_is_small_and_knows_four_marks():
    assert default_model().stat().st_size < 15e6
    outputs = {assay: set(card.outputs) for assay, card in load(default_model()).card.assays.items()}
    everything = {"counts", "signal", "peaks"}
    assert outputs == {
        "H3K27me3": everything, "H3K36me3": everything, "H3K4me3": everything, "H3K9me3": {"counts"},
    }  # fmt: skip


def test_it_is_used_when_no_model_is_given(candi, tmp_path, monkeypatch):
    monkeypatch.delenv("CANDI_MODEL", raising=False)
    output = tmp_path / "out.bw"
    ran = candi("denoise", TEST_DATA / "sim1.H3K4me3.bam", "--covariates", TEST_DATA / "meta.tsv", "-o", output)
    assert ran.code == 0, ran.err
    assert f"model {default_model().name}" in ran.err
    with pyBigWig.open(str(output)) as track:
        values = track.values("chr1", 0, 300_010, numpy=True)
    assert np.isfinite(values).all()
    assert values.max() > 5 * np.median(values)


def test_a_store_made_by_another_rule_is_answered_with_the_options_that_make_the_right_one(candi, store_path, tmp_path):
    ran = candi("denoise", store_path, "-m", default_model(), "-o", tmp_path)
    assert ran.code == 1
    options = ran.err.partition("'candi bin ")[2].partition("'")[0].split()
    store = tmp_path / "again.h5"
    sheet = TEST_DATA / "meta_one.tsv"
    assert candi("bin", "--covariates", sheet, "-o", store, *options, "--quiet").code == 0
    assert candi("denoise", store, "-m", default_model(), "-o", tmp_path / "out.bw", "-r", "chr2").code == 0
