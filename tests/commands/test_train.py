"""`candi train` as a command: reproducible files, and what it refuses."""

from pathlib import Path

import pytest

from candi_cli.model import load

TEST_DATA = Path(__file__).parents[2] / "test_data"
QUICK = ("--preset", "tiny", "--steps", 3, "--batch-size", 2, "--quiet")


def test_the_same_seed_gives_the_same_file(candi, store_path, tmp_path):
    files = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        path = tmp_path / f"{name}.safetensors"
        assert candi("train", store_path, "-o", path, "--seed", seed, *QUICK).code == 0
        files.append(path.read_bytes())
    assert files[0] == files[1] != files[2]


def test_held_out_scores_and_regions_are_in_the_card(candi, store_path, tmp_path):
    path = tmp_path / "m.safetensors"
    blacklist = TEST_DATA / "blacklist.bed"
    ran = candi(
        "train", store_path, "-o", path, "-r", "chr1:1-200,000", "--valid-region", "chr1:250,001-290,000",
        "--blacklist", blacklist, *QUICK,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    training = load(path).card.training
    assert training["regions"] == ["chr1:1-200,000"]
    assert training["valid_regions"] == ["chr1:250,001-290,000"]
    assert training["blacklist"] == "blacklist.bed"
    (scores,) = training["held_out_scores"]
    assert scores["step"] == 3
    assert scores["count_imp"] > 0


def test_stores_with_different_rules_are_refused(candi, store_path, tmp_path):
    other = tmp_path / "other.h5"
    assert candi("bin", "--covariates", TEST_DATA / "meta_one.tsv", "-o", other, "-q", 0, "--quiet").code == 0
    ran = candi("train", store_path, other, "-o", tmp_path / "m.safetensors", *QUICK)
    assert ran.code == 1
    assert len(ran.errors) == 1
    assert str(other) in ran.err


def test_a_region_too_small_for_a_window_is_refused(candi, store_path, tmp_path):
    ran = candi("train", store_path, "-o", tmp_path / "m.safetensors", "-r", "chr1:1-5000", *QUICK)
    assert ran.code == 2
    assert "240 bins" in ran.err


def test_counts_without_folds_can_be_trained_on(candi, tmp_path):
    store = tmp_path / "plain.h5"
    sheet = TEST_DATA / "meta.tsv"
    assert candi("bin", "--covariates", sheet, "-o", store, "--count", "five-prime", "--folds", 0, "--quiet").code == 0
    path = tmp_path / "m.safetensors"
    assert candi("train", store, "-o", path, *QUICK).code == 0
    assert load(path).card.counting.rule == "five-prime"


@pytest.mark.parametrize("preset", ["paper", "base"])
def test_the_larger_presets_train(candi, tmp_path, store_path, preset):
    path = tmp_path / "m.safetensors"
    options = ("--preset", preset, "--steps", 1, "--batch-size", 1, "--quiet")
    assert candi("train", store_path, "-o", path, *options).code == 0
    assert load(path).card.training["preset"] == preset


def test_experiments_of_the_splits_validation_and_test_are_never_trained_on(candi, tmp_path):
    lines = (TEST_DATA / "meta.tsv").read_text().splitlines()
    split = [
        "split",
        *("test" if "H3K9me3" in line else "validation" if "H3K27me3" in line else "NA" for line in lines[1:]),
    ]
    sheet, store, path = tmp_path / "split.tsv", tmp_path / "split.h5", tmp_path / "m.safetensors"
    sheet.write_text("".join(f"{line}\t{cell}\n" for line, cell in zip(lines, split, strict=True)))
    for file in TEST_DATA.iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert candi("bin", "--covariates", sheet, "-o", store, "--quiet").code == 0
    ran = candi("train", store, "-o", path, *(option for option in QUICK if option != "--quiet"))
    assert ran.code == 0, ran.err
    assert "2 experiments of the splits validation and test are left out" in ran.err
    card = load(path).card
    assert set(card.assays) == {"H3K4me3", "H3K36me3"}
    assert card.training["kept_out"] == ["sim1/H3K27me3", "sim2/H3K9me3"]
