"""The models that ship: small, of known training rows, found by their names, and used when none is named."""

import csv
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyBigWig
import pytest
from outcomes import one_line
from safetensors import safe_open

from candi_cli.model import load
from candi_cli.models import default_model, find_model, shipped_models

ROOT = Path(__file__).parents[1]
TEST_DATA, RECIPES = ROOT / "test_data", ROOT / "packaging" / "models"
NAMES = ("counts-core", "signal-core")
SHEETS = {"counts-core": ("k562", "imr90"), "signal-core": ("roadmap",)}
BAM, SHEET = TEST_DATA / "sim1.H3K4me3.bam", TEST_DATA / "meta.tsv"
MB = 1_000_000
Interval = tuple[str, int, int]  # chrom, start, end: 0-based, half-open


# --- what they were trained on ------------------------------------------------------------------------------------


class Split(NamedTuple):
    """A row of the table of splits that every benchmark holds to: which data, and where they are tested."""

    biosamples: str
    files: str
    train: tuple[Interval, ...]
    test: tuple[Interval, ...]


def whole(*numbers: int) -> tuple[Interval, ...]:
    return tuple((f"chr{number}", 0, 1 << 40) for number in numbers)


SPLITS = {
    "R1": Split(r"E\d{3}", r"E\d{3}\.\w+\.pilot\.neglog10p\.hg19\.bw", whole(*range(1, 20)), whole(20, 21, 22)),
    "R2": Split(
        "K562", r"K562_\w+\.(bam|bw|narrowPeak|broadPeak)",
        (("chr1", 22_500_000, 24_100_000),), (("chr1", 24_100_000, 24_500_000),),
    ),
    "R3": Split("IMR90", r"H3K\d+me3\.bam", (("chr21", 43 * MB, 48_100_000),), (("chr21", 40 * MB, 42_960_000),)),
}  # fmt: skip
CHROMS = {chrom for split in SPLITS.values() for chrom, _, _ in (*split.train, *split.test)}


def interval(text: str) -> Interval:
    """Read a region of a card by its description: a chromosome, or 1-based places of which the last is in it."""
    chrom, colon, places = text.partition(":")
    assert chrom in CHROMS, f"{text}: of no split"
    if not colon:
        return chrom, 0, 1 << 40
    first, last = (int(place.replace(",", "")) for place in places.split("-"))
    return chrom, first - 1, last


def common_bp(one: tuple[Interval, ...], other: tuple[Interval, ...]) -> int:
    """The bases that are in an interval of one and in one of the other, counted once for each such pair."""
    return sum(
        max(0, min(end, last) - max(start, first))
        for chrom, start, end in one
        for name, first, last in other
        if chrom == name
    )


def split_of(experiment: str, files: list[str]) -> Split:
    """Return the row that an experiment's data are of; there must be one."""
    found = [
        split
        for split in SPLITS.values()
        if re.fullmatch(split.biosamples, experiment.partition("/")[0])
        and all(re.fullmatch(split.files, name) for name in files)
    ]
    assert len(found) == 1, f"{experiment}, {files}: of no split"
    return found[0]


def seen(training: dict[str, Any]) -> tuple[Interval, ...]:
    """Return where a training looked: at what it was trained on, and at what its weights were chosen by."""
    tests = set(training["test_chroms"])
    stated = tuple(interval(text) for text in training["regions"]) or tuple((chrom, 0, 1 << 40) for chrom in CHROMS)
    trained = tuple(each for each in stated if each[0] not in tests)
    return (*trained, *(interval(text) for text in training["valid_regions"]))


def trainings(training: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a training, and those of the models that it went on from."""
    yield training
    if "initial" in training:
        yield from trainings(training["initial"]["training"])


def check_splits(training: dict[str, Any], recalibration: dict[str, Any] | None = None) -> int:
    """Assert that nothing of a test row was looked at; return the number of experiments."""
    n_experiments = 0
    for each in trainings(training):
        where = seen(each)
        if recalibration is not None:
            where += tuple(interval(text) for text in recalibration["fitted_on"]["regions"])
        for experiment, files in (
            (key, names) for store in each["stores"] for key, names in store["experiments"].items()
        ):
            split = split_of(experiment, files)
            assert common_bp(where, split.test) == 0, f"{experiment}: trained on a test row"
            assert common_bp(where, split.train) > 0, f"{experiment}: trained on nothing"
            n_experiments += 1
    return n_experiments


def card_of(name: str) -> dict[str, Any]:
    """Read a card without candi."""
    with safe_open(ROOT / "candi_cli" / "models" / f"{name}.safetensors", "np") as file:
        return json.loads(file.metadata()["candi"])


@pytest.mark.parametrize("name", NAMES)
def test_no_model_that_ships_was_trained_on_test_rows(name):
    card = card_of(name)
    assert check_splits(card["training"], card.get("recalibration")) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_of_no_model_trains_on_test_rows(name):
    assert check_splits(planned(name)) >= 7


def planned(name: str) -> dict[str, Any]:
    """Return what the training of a recipe would state: its options, and the experiments of its sheets."""
    options = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    experiments: dict[str, list[str]] = {}
    for sheet in SHEETS[name]:
        for row in csv.DictReader((RECIPES / f"{sheet}.tsv").read_text().splitlines(), delimiter="\t"):
            files = [row[column] for column in ("file", "signal", "peaks") if row.get(column, "NA") != "NA"]
            assert not any(Path(file).is_absolute() for file in files)
            experiments[f"{row['biosample']}/{row['assay']}"] = [Path(file).name for file in files]
    regions = {"regions": "region", "test_chroms": "test-chrom", "valid_regions": "valid-region"}
    stated = {key: options.get(option, []) for key, option in regions.items()}
    return {**stated, "stores": [{"experiments": experiments}], "options": options}


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_is_that_of_the_model_that_ships(name):
    training, recipe = card_of(name)["training"], planned(name)
    made_of = {key: files for store in training["stores"] for key, files in store["experiments"].items()}
    assert made_of == recipe["stores"][0]["experiments"]
    for option, value in recipe["options"].items():
        if option == "loss-weights":
            weights = dict(each.split("=") for each in value.split(","))
            assert {key: training["loss_weights"][key] for key in weights} == {k: float(v) for k, v in weights.items()}
        elif option not in ("threads", "device"):  # they change nothing
            assert training[option.replace("-", "_")] == value, option


@pytest.mark.parametrize("name", NAMES)
def test_a_model_writes_of_each_assay_what_its_sheets_have_of_it(name):
    columns = {"file": "counts", "signal": "signal", "peaks": "peaks"}
    measured: dict[str, set[str]] = {}
    for sheet in SHEETS[name]:
        for row in csv.DictReader((RECIPES / f"{sheet}.tsv").read_text().splitlines(), delimiter="\t"):
            layers = {layer for column, layer in columns.items() if row.get(column, "NA") != "NA"}
            measured[row["assay"]] = measured.get(row["assay"], set()) | layers
    measured.pop("control", None)
    assert {assay: set(card["outputs"]) for assay, card in card_of(name)["assays"].items()} == measured


LEAKS = {
    "one base too far": ("counts-core", {"regions": ["chr1:22,500,001-24,100,001"]}),
    "one base too early": ("counts-core", {"regions": ["chr1:22,500,001-24,100,000", "chr21:42,960,000-48,100,000"]}),
    "a whole chromosome": ("counts-core", {"regions": ["chr1:22,500,001-24,100,000", "chr21"]}),
    "everything": ("counts-core", {"regions": []}),
    "chosen by a test row": ("counts-core", {"valid_regions": ["chr1:24,100,001-24,200,000"]}),
    "a test chromosome less": ("signal-core", {"test_chroms": ["chr20", "chr21"]}),
    "a part of a test chromosome": ("signal-core", {"regions": ["chr2", "chr22:1-1000"], "test_chroms": []}),
    "regions of a file": ("signal-core", {"regions": ["pilot.bed"]}),
    "unknown data": ("signal-core", {"stores": [{"experiments": {"E003/H3K4me3": ["other.bw"]}}]}),
    "unknown cells": ("counts-core", {"stores": [{"experiments": {"GM12878/H3K4me3": ["H3K4me3.bam"]}}]}),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_training_that_touches_a_test_row_is_found(leak):
    name, changes = LEAKS[leak]
    training = planned(name)
    check_splits(training)
    with pytest.raises(AssertionError, match=r"trained on a test row|of no split"):
        check_splits({**training, **changes})
    with pytest.raises(AssertionError, match=r"trained on a test row|of no split"):
        check_splits({**training, "initial": {"training": {**training, **changes}}})


def test_a_recalibration_on_a_test_row_is_found():
    check_splits(planned("signal-core"), {"fitted_on": {"regions": ["chr19"]}})
    with pytest.raises(AssertionError, match="trained on a test row"):
        check_splits(planned("signal-core"), {"fitted_on": {"regions": ["chr19", "chr21"]}})


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a card, keys too."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", NAMES)
def test_no_card_holds_an_absolute_path(name):
    words = [word for text in texts(card_of(name)) for word in re.split(r"[\s=,:'\"]+", text)]
    assert "candi" in words
    assert not [word for word in words if word.startswith(("/", "~", "\\"))]


def test_the_models_that_ship_are_small():
    assert sum(path.stat().st_size for path in shipped_models().values()) <= 25e6


# --- their names --------------------------------------------------------------------------------------------------


def test_the_models_are_the_files_of_the_package_and_each_has_its_card():
    folder = ROOT / "candi_cli" / "models"
    assert tuple(shipped_models()) == NAMES
    assert {path.name for path in folder.glob("*.*")} == {
        "__init__.py", "README.md", *(f"{name}{suffix}" for name in NAMES for suffix in (".md", ".safetensors"))
    }  # fmt: skip
    assert {layer: load(default_model(layer)).config.input for layer in ("counts", "signal")} == {
        "counts": "counts", "signal": "signal",
    }  # fmt: skip


def test_a_file_of_the_name_of_a_model_comes_first(tmp_path, monkeypatch):
    assert find_model(Path("signal-core")) == default_model("signal")
    assert find_model(Path("other")) == Path("other")
    assert find_model(tmp_path / "signal-core") == tmp_path / "signal-core"
    monkeypatch.chdir(tmp_path)
    Path("signal-core").touch()
    assert find_model(Path("signal-core")) == Path("signal-core")


def test_a_model_is_named_instead_of_given_as_a_file(candi, tmp_path, signal_store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = candi("denoise", signal_store, "-m", "counts-core", "-o", "out")
    one_line(ran, "no reads", code=2)
    monkeypatch.setenv("CANDI_MODEL", "signal-core")
    Path("sheet.tsv").write_text("biosample\tassay\nsim1\tH3K4me3\n")
    ran = candi("denoise", BAM, "--covariates", "sheet.tsv", "-o", "out")
    one_line(ran, "no signal", code=2)
    ran = candi("denoise", BAM, "--covariates", SHEET, "-o", "out.bw", "-m", "counts-core", "-r", "chr2")
    assert ran.code == 0, ran.err
    assert "model counts-core.safetensors, on cpu" in ran.err
    shutil.copy(default_model(), "signal-core")
    ran = candi("denoise", BAM, "--covariates", SHEET, "-o", "again.bw", "-r", "chr2")
    assert ran.code == 0, ran.err
    assert Path("again.bw").read_bytes() == Path("out.bw").read_bytes()


@pytest.mark.parametrize("command", ["denoise", "impute", "calibrate", "cindex", "evaluate", "train", "info"])
def test_a_name_that_is_of_no_model_is_answered_with_those_that_are(candi, store_path, tmp_path, command):
    named = {"train": "--init", "info": None}.get(command, "-m")
    more = {"denoise": ["-o", tmp_path], "impute": ["-o", tmp_path, "--assay", "all"], "train": ["-o", tmp_path / "m"]}
    ran = (
        candi(command, "nosuch")
        if named is None
        else candi(command, store_path, named, "nosuch", *more.get(command, []))
    )
    one_line(ran, "nosuch: no such file", "counts-core, signal-core")


def test_the_model_of_the_environment_may_be_named_where_predictions_are_merged(candi, tmp_path, monkeypatch):
    part = tmp_path / "part.h5"
    ran = candi("denoise", BAM, "--covariates", SHEET, "-o", part, "-r", "chr2:1-50", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    monkeypatch.setenv("CANDI_MODEL", "counts-core")
    merging = ("impute", "--merge", part, "-o", tmp_path / "out.bw", "-r", "chr2:1-50")
    assert candi(*merging).code == 0
    one_line(candi(*merging, "-m", "counts-core"), "-m has no meaning with it", code=2)


# --- which one is used when none is named -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_model_in_the_environment(monkeypatch):
    monkeypatch.delenv("CANDI_MODEL", raising=False)


@pytest.fixture(scope="module")
def signal_sheet(tmp_path_factory) -> Path:
    """A sheet of tracks alone: two biosamples with two assays each, and one of them with a control of reads."""
    folder = tmp_path_factory.mktemp("signal")
    rows, rng = ["biosample\tassay\tfile\tsignal"], np.random.default_rng(0)
    for biosample in ("one", "two"):
        for assay in list(load(default_model("signal")).card.assays)[:2]:
            path = folder / f"{biosample}.{assay}.bw"
            with pyBigWig.open(str(path), "w") as track:
                track.addHeader([("chr1", 300_010), ("chr2", 120_000)])
                track.addEntries("chr2", 20_000, values=rng.gamma(0.5, 4, 2_000), span=25, step=25)
            rows.append(f"{biosample}\t{assay}\tNA\t{path.name}")
    rows.append(f"one\tcontrol\t{TEST_DATA / 'sim1.control.bam'}\tNA")
    (folder / "sheet.tsv").write_text("\n".join(rows) + "\n")
    return folder / "sheet.tsv"


@pytest.fixture(scope="module")
def signal_store(signal_sheet) -> Path:
    from candi_cli.commands import main

    path = signal_sheet.with_name("signal.h5")
    assert main(["bin", "--covariates", str(signal_sheet), "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="module")
def counts_store(tmp_path_factory) -> Path:
    """A store of reads, signal and peaks, counted by the rule of the model that reads counts."""
    from candi_cli.commands import main

    path = tmp_path_factory.mktemp("counts") / "counts.h5"
    options = load(default_model()).card.counting.options().split()
    assert main(["bin", "--covariates", str(SHEET), "-o", str(path), *options, "--quiet"]) == 0
    return path


def test_reads_take_the_model_of_counts(candi, tmp_path):
    output = tmp_path / "out.bw"
    ran = candi("denoise", BAM, "--covariates", SHEET, "-o", output)  # the sheet names signal too
    assert ran.code == 0, ran.err
    assert "model counts-core.safetensors, on cpu" in ran.err
    with pyBigWig.open(str(output)) as track:
        values = track.values("chr1", 0, 300_010, numpy=True)
    assert np.isfinite(values).all()
    assert values.max() > 5 * np.median(values)


@pytest.mark.parametrize("command", ["denoise", "impute"])
@pytest.mark.parametrize("given", ["sheet", "store"])
def test_signal_alone_takes_the_model_of_signal(candi, signal_sheet, signal_store, tmp_path, command, given):
    source = [signal_store] if given == "store" else ["--covariates", signal_sheet]
    more = ["--assay", "all"] if command == "impute" else []
    ran = candi(command, *source, "-o", tmp_path / "out", *more, "-r", "chr2:20,001-70,000")
    assert ran.code == 0, ran.err
    assert "model signal-core.safetensors, on cpu" in ran.err
    known = list(load(default_model("signal")).card.assays)
    assays = known if command == "impute" else known[:2]
    written = {path.name for path in (tmp_path / "out").glob("*.bw")}
    assert written == {f"{biosample}.{assay}.bw" for biosample in ("one", "two") for assay in assays}
    with pyBigWig.open(str(tmp_path / "out" / f"two.{known[0]}.bw")) as track:
        assert np.isfinite(track.values("chr2", 20_000, 70_000, numpy=True)).all()


def test_a_store_with_counts_takes_the_model_of_counts(candi, counts_store, tmp_path):
    ran = candi("denoise", counts_store, "-o", tmp_path / "out", "-r", "chr2:1-1000")
    assert "model counts-core.safetensors, on cpu" in ran.err


@pytest.mark.parametrize("command", ["calibrate", "cindex", "evaluate"])
@pytest.mark.parametrize("layer", ["counts", "signal"])
def test_each_judge_takes_the_model_of_what_the_stores_hold(
    candi, counts_store, signal_store, tmp_path, command, layer
):
    store = counts_store if layer == "counts" else signal_store
    pairs = ["--pairs", 1000] if command == "cindex" else []
    ran = candi(command, store, "-r", "chr2", "--assay", "H3K4me3,H3K27me3", "-o", tmp_path / "out.json", *pairs)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out.json").read_text())["facts"]["model"]["file"] == default_model(layer).name


def test_counts_in_one_of_several_stores_are_read(counts_store, signal_store):
    from candi_cli.commands._experiments import layer_of
    from candi_cli.store import Store

    with Store.open(counts_store) as counts, Store.open(signal_store) as signal:
        assert layer_of([signal]) == "signal"  # its control has counts
        assert layer_of([counts]) == layer_of([signal, counts]) == "counts"


def test_reads_in_one_row_of_a_sheet_are_read(signal_sheet, tmp_path):
    from candi_cli.commands._experiments import find_given

    assert find_given([], signal_sheet).layer == "signal"
    sheet = signal_sheet.with_name("mixed.tsv")
    sheet.write_text(f"{signal_sheet.read_text()}three\tH3K4me3\t{BAM}\tNA\n")
    assert find_given([], sheet).layer == "counts"


def test_a_store_made_by_another_rule_is_answered_with_the_options_that_make_the_right_one(candi, store_path, tmp_path):
    ran = candi("denoise", store_path, "-m", default_model(), "-o", tmp_path)
    assert ran.code == 1
    options = ran.err.partition("'candi bin ")[2].partition("'")[0].split()
    store = tmp_path / "again.h5"
    sheet = TEST_DATA / "meta_one.tsv"
    assert candi("bin", "--covariates", sheet, "-o", store, *options, "--quiet").code == 0
    assert candi("denoise", store, "-m", default_model(), "-o", tmp_path / "out.bw", "-r", "chr2").code == 0


# --- candi info ---------------------------------------------------------------------------------------------------


def test_info_lists_the_models_that_ship(candi):
    ran = candi("info")
    assert (ran.code, ran.err) == (0, "")
    rows = list(csv.DictReader(ran.out.splitlines(), delimiter="\t"))
    assert [row["name"] for row in rows] == list(NAMES)
    told = json.loads(candi("info", "--json").out)
    for row, item in zip(rows, told, strict=True):
        card, path = card_of(row["name"]), shipped_models()[row["name"]]
        outputs = {assay: values["outputs"] for assay, values in card["assays"].items()}
        assert item["assays"] == outputs
        assert dict(each.split(":") for each in row["assays"].split(";")) == {
            a: ",".join(o) for a, o in outputs.items()
        }
        assert int(row["parameters"]) == item["parameters"] == card["training"]["parameters"]
        assert item["bytes"] == path.stat().st_size
        assert row["input"] == item["input"] == card["config"]["input"]
        assert row["path"] == item["path"] == str(path)
        assert item["counting"] == card["counting"]
        assert row["counting"] == str(load(path).card.counting)
        assert row["recalibrated"] == ("yes" if item["recalibrated"] else "no")
        assert item["recalibrated"] is (card.get("recalibration") is not None)
        assert item["weights_sha256"] == card["weights_sha256"]
        training = card["training"]
        named = {key.partition("/")[0] for store in training["stores"] for key in store["experiments"]}
        assert row["trained_on"] == item["trained_on"]
        for word in (*named, *training["regions"], *training["test_chroms"]):
            assert word in row["trained_on"]


@pytest.mark.parametrize("name", NAMES)
def test_info_shows_the_card_of_a_model_by_its_name(candi, name):
    ran = candi("info", name)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == candi("info", shipped_models()[name]).out
    lines = dict(line.split("\t", 1) for line in ran.out.splitlines() if "\t" in line)
    card = card_of(name)
    assert (lines["input"], lines["weights sha256"]) == (card["config"]["input"], card["weights_sha256"])
    assert card["assays"].keys() <= lines.keys()
    assert json.loads(candi("info", name, "--json").out) == {"recalibration": None, **card}


@pytest.mark.parametrize(
    "training",
    [
        {}, {"stores": None}, {"stores": [1, None, []]}, {"stores": [{"experiments": 3}]}, {"regions": 7},
        {"stores": [{"experiments": {"a\n/b": {}}}], "regions": [1, "chr1\t"], "test_chroms": {"x": 1}},
    ],
)  # fmt: skip
def test_what_a_card_says_of_its_training_may_be_anything(training):
    from candi_cli.commands._model_facts import trained_on

    told = trained_on(training)
    assert told.isprintable()
    assert told == "NA" or told == "a : chr1 "


def test_help_names_the_models_that_ship(candi):
    told = candi("denoise", "--help").out
    for name in NAMES:
        assert name in told
