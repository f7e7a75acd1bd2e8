"""`candi train --init`: fine-tuning, and assays that a model did not know; and the other things that training reads."""

from pathlib import Path

import numpy as np
import pytest
import torch

from candi_cli.commands import main
from candi_cli.model import load

TEST_DATA = Path(__file__).parents[2] / "test_data"
QUICK = ("--preset", "tiny", "--steps", "3", "--batch-size", "4", "--quiet")


@pytest.fixture(scope="module")
def known_path(tmp_path_factory) -> Path:
    """A model of the three assays of one biosample."""
    folder = tmp_path_factory.mktemp("known")
    sheet, store, model = folder / "known.tsv", folder / "known.h5", folder / "known.safetensors"
    lines = (TEST_DATA / "meta.tsv").read_text().splitlines(keepends=True)
    sheet.write_text("".join(line for line in lines if not line.startswith("sim2")))
    for file in TEST_DATA.iterdir():
        (folder / file.name).symlink_to(file)
    assert main(["bin", "--covariates", str(sheet), "-o", str(store), "--quiet"]) == 0
    assert main(["train", str(store), "-o", str(model), *QUICK]) == 0
    return model


def test_a_new_assay_is_learned_and_a_frozen_trunk_keeps_the_known_ones_to_the_bit(
    candi, known_path, store_path, tmp_path
):
    path = tmp_path / "more.safetensors"
    options = ("--init", known_path, "--add-assay", "H3K9me3", "--freeze-trunk", "--learning-rate", 0.01)
    assert candi("train", store_path, "-o", path, *QUICK, *options).code == 0
    old, new = load(known_path), load(path)
    assert new.config.assays == (*old.config.assays, "H3K9me3")
    assert set(new.card.assays) == set(new.config.assays)
    assert new.card.training["initial"]["file"] == "known.safetensors"
    bias = {model.path: model.network.output_biases()["counts"] for model in (old, new)}
    assert torch.equal(bias[path][:, :3], bias[known_path])
    assert bias[path][0, 3] != 0
    shared = [
        name for name, value in old.network.state_dict().items() if value.shape == new.network.state_dict()[name].shape
    ]
    assert all(old.network.state_dict()[name].equal(new.network.state_dict()[name]) for name in shared)


def test_the_card_of_a_model_that_was_trained_twice_covers_both_data(candi, known_path, store_path, tmp_path):
    path = tmp_path / "tuned.safetensors"
    ran = candi("train", store_path, "-o", path, *QUICK[:-1], "--init", known_path)
    assert ran.code == 0, ran.err
    assert "left out, as --init does not know them: H3K9me3" in ran.err
    old, new = load(known_path).card.assays, load(path).card.assays
    assert set(new) == set(old)
    assert new["H3K4me3"].standard == old["H3K4me3"].standard
    assert new["H3K4me3"].read_length_range == (36, 50)
    assert new["H3K4me3"].run_types == ("paired-ended", "single-ended")
    assert new["H3K4me3"].depth_range[0] < old["H3K4me3"].depth_range[0]
    weights = [load(model).network.state_dict() for model in (known_path, path)]
    change = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert 0 < change < 0.1  # three steps from where the other ended, not from a new network


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--add-assay", "H3K9me3"), "give --init"),
        (("--init", "KNOWN", "--freeze-trunk"), "leaves nothing to train without --add-assay"),
        (("--init", "KNOWN", "--add-assay", "H3K4me3"), "has this assay already"),
        (("--init", "KNOWN", "--add-assay", "H3K9me33"), "--add-assay H3K9me33: no store has it; known are"),
        (("--init", "KNOWN", "-T", str(TEST_DATA / "genome.fa.gz")), "does not read that; leave it out"),
        (("--init", "KNOWN", "--input", "signal"), "does not read that; leave it out"),
        (("--init", "KNOWN", "--drop-reference", "0.5"), "hides what a network of --reference-average reads; leave it"),
        (("--drop-reference", "0.5"), "hides what a network of --reference-average reads; give it, or leave this out"),
        (("--match-signal",), "is for a network that reads signal; give --input signal"),
        (("--init", "KNOWN", "--match-signal"), "does not read that; leave it out"),
        (("--loci", "ccre"), "--ccre BED go together"),
        (("--patience", "3"), "counts scorings of --valid-region; give one"),
    ],
)
def test_options_that_do_not_go_together_are_refused(candi, known_path, store_path, tmp_path, options, told):
    words = [known_path if word == "KNOWN" else word for word in options]
    ran = candi("train", store_path, "-o", tmp_path / "m.safetensors", *QUICK, *words)
    assert ran.code == 2, ran.err
    assert len(ran.errors) == 1
    assert told in ran.errors[0]


def test_a_model_of_another_counting_rule_is_refused(candi, known_path, tmp_path):
    store = tmp_path / "five.h5"
    sheet = TEST_DATA / "meta.tsv"
    assert candi("bin", "--covariates", sheet, "-o", store, "--count", "five-prime", "--quiet").code == 0
    ran = candi("train", store, "-o", tmp_path / "m.safetensors", *QUICK, "--init", known_path)
    assert ran.code == 1
    assert "learned from reads counted by overlap" in ran.err


def test_a_model_that_reads_signal_and_the_average_is_trained_and_says_so(candi, store_path, tmp_path):
    path = tmp_path / "signal.safetensors"
    options = ("--input", "signal", "--reference-average", "--thin", 0)
    ran = candi("train", store_path, "-o", path, *QUICK, *options)
    assert ran.code == 0, ran.err
    config = load(path).config
    assert (config.input, config.reads_reference, config.outputs) == ("signal", True, ("signal", "peaks"))


def test_a_reference_that_is_never_shown_is_refused(candi, store_path, tmp_path):
    # its weights would stay as they were drawn, and mix noise into predictions that meet a reference
    options = ("--input", "signal", "--reference-average", "--drop-reference", 1)
    ran = candi("train", store_path, "-o", tmp_path / "m.safetensors", *QUICK, *options)
    assert ran.code == 2
    assert "1 is not in the range 0<=x<1" in ran.err.replace("1.0", "1")
    assert not list(tmp_path.iterdir())


def test_workers_and_unpacked_windows_change_nothing_but_the_speed(candi, store_path, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("plain", "fast")]
    folder = tmp_path / "unpacked"
    fast = ("--workers", 1, "--unpack", folder, "--checkpoint-every", 2)
    for path, options in zip(paths, ((), fast), strict=True):
        assert candi("train", store_path, "-o", path, *QUICK, *options).code == 0
    weights = [load(path).network.state_dict() for path in paths]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert any(folder.iterdir())


def test_random_loci_are_those_of_the_seed_and_stand_in_the_card(candi, store_path, tmp_path):
    path = tmp_path / "random.safetensors"
    assert candi("train", store_path, "-o", path, *QUICK, "--loci", "random", "--n-loci", 5, "--seed", 3).code == 0
    windows = load(path).card.training["windows"]
    assert (windows["loci"], windows["n_windows"], windows["seed"]) == ("random", 5, 3)
    assert np.isclose(sum(windows["shares"].values()), 1, atol=1e-4)
