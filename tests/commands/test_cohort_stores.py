"""`--cohort`: the mean signal of biosamples of other stores, for models that read it, never that of the biosample."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pyBigWig
import pytest
import torch

from candi_cli.commands import main
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.model import load
from candi_cli.store import Store
from candi_cli.store.predictions import Predictions

TEST_DATA = Path(__file__).parents[2] / "test_data"
ASSAYS = ("a", "b", "c")
SIZES = {"chr1": 60_000, "chr2": 30_000}
HAS = {"one": "ab", "two": "abc", "three": "bc", "four": "a"}
TRAIN = ("--preset", "tiny", "--steps", "10", "--batch-size", "4", "--input", "signal", "--thin", "0", "--quiet")
OUTPUTS = ("--assay", "c", "--interval", "0.9", "--quiet")


def signal_of(cell: str, assay: str, chrom: str, changed: Iterable[str] = ()) -> np.ndarray:
    seed = [*map(ord, cell + assay + chrom)]
    values = np.random.default_rng(seed).gamma(0.5, 4.0, SIZES[chrom] // 25).round(2)
    return values[::-1] * 3 + 1 if cell in changed else values


def write_bigwigs(folder: Path, changed: Iterable[str] = ()) -> Path:
    """Write a bigWig of each experiment; not all of the genome was measured in each."""
    for cell, assays in HAS.items():
        for assay in assays:
            with pyBigWig.open(str(folder / f"{cell}.{assay}.bw"), "w") as track:
                track.addHeader(list(SIZES.items()))
                for chrom in SIZES:
                    first = 200 if (cell, chrom) == ("two", "chr1") else 0
                    values = signal_of(cell, assay, chrom, changed)
                    track.addEntries(chrom, first * 25, values=values[first:].tolist(), span=25, step=25)
    return folder


def write_sheet(folder: Path, cells: Iterable[str]) -> Path:
    lines = [f"{cell}\t{assay}\t{cell}.{assay}.bw\n" for cell in cells for assay in HAS[cell]]
    path = folder / f"{'.'.join(cells)}.tsv"
    path.write_text("biosample\tassay\tsignal\n" + "".join(lines))
    return path


def bin_store(folder: Path, cells: Iterable[str]) -> Path:
    path = folder / f"{'.'.join(cells)}.h5"
    sheet, sizes = write_sheet(folder, cells), folder / "chrom.sizes"
    sizes.write_text("".join(f"{chrom}\t{length}\n" for chrom, length in SIZES.items()))
    assert main(["bin", "--covariates", str(sheet), "-g", str(sizes), "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bigwigs(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def stores(folder) -> dict[str, Path]:
    """All cells together, one of them alone, the others, and two of these on their own."""
    cells = {"all": tuple(HAS), "own": ("one",), "others": ("two", "three", "four"), "two": ("two",)}
    return {name: bin_store(folder, some) for name, some in {**cells, "rest": ("three", "four")}.items()}


@pytest.fixture(scope="module")
def model(stores, folder) -> Path:
    path = folder / "reads_others.safetensors"
    assert main(["train", str(stores["all"]), "-o", str(path), *TRAIN, "--reference-average"]) == 0
    return path


@pytest.fixture(scope="module")
def plain_model(stores, folder) -> Path:
    path = folder / "plain.safetensors"
    assert main(["train", str(stores["all"]), "-o", str(path), *TRAIN]) == 0
    return path


@pytest.fixture(scope="module")
def together(stores, model, tmp_path_factory) -> dict[str, bytes]:
    """The tracks of the cell, predicted from a store of all cells."""
    output = tmp_path_factory.mktemp("together")
    assert main(["impute", str(stores["all"]), "-m", str(model), *OUTPUTS, "-o", f"{output}/"]) == 0
    found = {path.name: path.read_bytes() for path in output.rglob("one.c*.bw")}
    assert len(found) == 3
    return found


def apart(candi: Callable, store: Path, model: Path, output: Path, *options: object) -> tuple[dict[str, bytes], str]:
    """The tracks of the cell, predicted from its own store with some options, and what was told."""
    ran = candi("impute", store, "-m", model, *OUTPUTS[:-1], "-o", f"{output}/", *options)
    assert ran.code == 0, ran.err
    return {path.name: path.read_bytes() for path in output.rglob("one.c*.bw")}, ran.err


# ---- predictions


def cohorts(stores: dict[str, Path], *names: str) -> list[object]:
    return [word for name in names for word in ("--cohort", stores[name])]


@pytest.mark.parametrize(
    "names",
    [("others",), ("two", "rest"), ("rest", "two"), ("all",), ("others", "own"), ("others", "others"), ("two", "all")],
    ids="+".join,
)
def test_a_cell_and_a_cohort_apart_predict_the_bytes_of_one_store_of_both(
    candi, stores, model, together, tmp_path, names
):
    # whether the cohort holds the cell too, or holds a cell twice, changes nothing
    found, told = apart(candi, stores["own"], model, tmp_path / "out", *cohorts(stores, *names))
    assert found == together
    assert "--cohort" not in told


def test_without_a_cohort_a_cell_alone_is_predicted_otherwise_and_a_warning_names_the_option(
    candi, stores, model, together, tmp_path
):
    for number, more in enumerate(([], cohorts(stores, "own"))):
        found, told = apart(candi, stores["own"], model, tmp_path / f"{number}", *more)
        assert found.keys() == together.keys()
        assert found != together
        assert [line for line in told.splitlines() if "--cohort" in line] == [
            "candi impute: warning: one: reads_others.safetensors reads the mean signal of other biosamples, and none "
            "is given; it predicts from the biosample's own tracks alone; give a store of others with --cohort"
        ]
    assert "--cohort" not in apart(candi, stores["all"], model, tmp_path / "all")[1]


def test_nothing_of_the_cohorts_own_data_of_the_cell_reaches_its_tracks(
    candi, stores, model, together, tmp_path_factory, tmp_path
):
    for changed, alike in (("one", True), ("two", False)):
        place = write_bigwigs(tmp_path_factory.mktemp("changed"), changed=[changed])
        other = bin_store(place, tuple(HAS))
        found, _ = apart(candi, stores["own"], model, tmp_path / changed, "--cohort", other)
        assert (found == together) is alike


def test_a_sheet_of_signals_meets_the_cohort_too(candi, folder, stores, model, together, tmp_path):
    sheet = write_sheet(folder, ("one",))
    options = ("-m", model, *OUTPUTS, "-o", f"{tmp_path}/out/")
    ran = candi("impute", "--covariates", sheet, *options, *cohorts(stores, "others"))
    assert ran.code == 0, ran.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("one.c*.bw")} == together


def test_reads_meet_the_cohort_as_a_store_of_them_does(candi, store_path, tmp_path):
    model, own = tmp_path / "counts.safetensors", tmp_path / "own.h5"
    quick = ("--preset", "tiny", "--steps", "3", "--batch-size", "4", "--reference-average", "--quiet")
    assert candi("train", store_path, "-o", model, *quick).code == 0
    reads = (TEST_DATA / "sim2.H3K4me3.bam", "--covariates", TEST_DATA / "meta.tsv")
    assert candi("bin", *reads, "-o", own, "--quiet").code == 0
    found = []
    for number, given in enumerate((reads, (own,), reads)):
        cohort = ("--cohort", store_path) if number < 2 else ()
        options = ("-r", "chr2", "--track", "signal", "--assay", "H3K27me3", "--quiet", "-o", f"{tmp_path}/{number}/")
        ran = candi("impute", *given, "-m", model, *options, *cohort)
        assert ran.code == 0, ran.err
        found.append((tmp_path / f"{number}" / "sim2.H3K27me3.bw").read_bytes())
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_parts_made_with_another_cohort_are_not_gone_on_from(candi, stores, model, tmp_path, monkeypatch):
    from candi_cli.commands import _prediction

    def fail(*_values, **_more):
        raise OSError("no more")

    output = tmp_path / "out.bw"
    command = ("impute", stores["own"], "-m", model, *OUTPUTS, "-o", output)
    copy = tmp_path / "copy.h5"
    copy.write_bytes(stores["two"].read_bytes())
    os.utime(copy, (1e9, 1e9))
    stores = {**stores, "two": copy}
    for number, (name, told) in enumerate((("rest", 0), ("two", 2), ("two", 0))):
        with monkeypatch.context() as patched:
            patched.setattr(_prediction, "deliver", fail)
            assert candi(*command, *cohorts(stores, "two")).code == 1
        os.utime(copy, (1e9, 1e9 + number // 2))  # the last time it is another file of the same size
        ran = candi(*(word for word in command if word != "--quiet"), *cohorts(stores, name), "--resume")
        assert ran.code == 0, ran.err
        assert f"{told} of 2 parts are there" in ran.err


def test_what_was_read_is_written_down(candi, stores, model, tmp_path):
    path, facts = tmp_path / "out.h5", tmp_path / "facts.json"
    given = cohorts(stores, "two", "rest")
    command = ("impute", stores["own"], "-m", model, "--assay", "c", "--quiet")
    assert candi(*command, "-o", path, "--provenance", facts, *given).code == 0
    manifest = json.loads(facts.read_text())
    assert [each["name"] for each in manifest["inputs"]] == [stores[name].name for name in ("own", "two", "rest")]
    with Predictions(path) as file:
        cohort = file.described.inputs["one"]["cohort"]
    assert cohort == [{"name": stores[name].name, "size": stores[name].stat().st_size} for name in ("two", "rest")]
    # parts of the genome that met different cohorts are not joined
    for chrom, names in (("chr1", ("two",)), ("chr2", ("rest",))):
        assert candi(*command, "-r", chrom, "-o", tmp_path / f"{chrom}.h5", *cohorts(stores, *names)).code == 0
    parts = (tmp_path / "chr1.h5", tmp_path / "chr2.h5")
    ran = candi("impute", "--merge", *parts, "-o", tmp_path / "joined.bw")
    assert ran.code == 1
    assert "merge shards of one prediction only" in ran.err
    ran = candi("impute", "--merge", *parts, "-o", tmp_path / "joined.bw", *given)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "--cohort has no meaning with it" in ran.err


def test_a_dry_run_names_the_cohort_and_writes_nothing(candi, stores, model, tmp_path):
    output = tmp_path / "out.bw"
    ran = candi("impute", stores["own"], "-m", model, *OUTPUTS, "-o", output, "--dry-run", *cohorts(stores, "rest"))
    assert ran.code == 0
    assert f"cohort\t{stores['rest']} (four, three)" in ran.out.splitlines()
    assert not list(tmp_path.iterdir())


def test_a_store_of_the_cohort_is_not_written_onto(candi, stores, model, plain_model):
    before = stores["two"].read_bytes()
    for each in (model, plain_model):
        command = ("impute", stores["own"], "-m", each, "--assay", "c", "-o", stores["two"], "--quiet")
        ran = candi(*command, *cohorts(stores, "two"))
        assert (ran.code, len(ran.errors)) == (1, 1), ran.err
        assert "is an input too" in ran.err
        assert stores["two"].read_bytes() == before


# ---- cohorts that do not fit


def empty_store(path: Path, *, resolution: int = 25, sizes: dict[str, int] | None = None, assay: str = "a") -> Path:
    """A store of one experiment, whose signal is 1."""
    with Store.create(path, rule=CountingRule(resolution=resolution), chromsizes=sizes or SIZES) as store:
        store.add_experiment("five", assay)
        store.describe("five", assay, Covariates())
        for chrom in store.chromsizes:
            store.write("five", assay, "signal", chrom, np.ones(store.n_bins(chrom), dtype=np.float32))
    return path


@pytest.fixture(scope="module")
def unfit(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("unfit")
    text = folder / "text.h5"
    text.write_text("no store\n")
    with h5py.File(folder / "hdf5.h5", "w") as file:
        file["values"] = [1]
    return {
        "text": text,
        "hdf5": folder / "hdf5.h5",
        "absent": folder / "absent.h5",
        "resolution": empty_store(folder / "resolution.h5", resolution=50),
        "length": empty_store(folder / "length.h5", sizes={"chr1": 60_000, "chr2": 29_000}),
        "names": empty_store(folder / "names.h5", sizes={"1": 60_000}),
        "assays": empty_store(folder / "assays.h5", assay="d"),
    }


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("text", "not a store, or damaged"),
        ("hdf5", "not a store"),
        ("absent", "no such file"),
        ("resolution", "bins of 50 bp, but of 25 bp in"),
        ("length", "chr2 is 29,000 bp, but 30,000 bp in"),
        ("names", "shares no chromosome with"),
        ("assays", "holds no signal of an assay that"),
    ],
)
def test_a_cohort_that_does_not_fit_is_refused_in_one_line(candi, stores, model, unfit, tmp_path, name, told, judged):
    command = ("evaluate", stores["own"]) if judged else ("impute", stores["own"], "--assay", "c")
    ran = candi(*command, "-m", model, "-o", tmp_path / ("out.tsv" if judged else "out.bw"), "--cohort", unfit[name])
    assert ran.code == 1
    (line,) = ran.errors
    assert str(unfit[name]) in line
    assert told in line
    assert not list(tmp_path.iterdir())


def test_a_model_that_reads_no_others_says_that_the_cohort_is_not_used(candi, stores, plain_model, tmp_path):
    found = []
    for number, more in enumerate(([], cohorts(stores, "others"))):
        tracks, told = apart(candi, stores["own"], plain_model, tmp_path / f"{number}", *more)
        found.append(tracks)
        assert ("is not used; the model does not read the mean signal of other biosamples" in told) is bool(more)
    assert found[0] == found[1]
    for command in ("calibrate", "cindex"):
        ran = candi(command, stores["own"], "-m", plain_model, *cohorts(stores, "others"))
        assert ran.code == 0, ran.err
        assert "is not used; plain.safetensors does not read the mean signal of other biosamples" in ran.err


# ---- judging


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def expressed(folder) -> list[object]:
    """Options that name genes all over the genome, and their expression in the cell."""
    genes, table, rng = folder / "genes.bed", folder / "tpm.tsv", np.random.default_rng(7)
    places = [(chrom, start) for chrom, length in SIZES.items() for start in range(500, length - 1_000, 1_000)]
    genes.write_text("".join(f"{chrom}\t{at}\t{at + 400}\tg{n}\t0\t+\n" for n, (chrom, at) in enumerate(places)))
    table.write_text("gene_id\tone\n" + "".join(f"g{n}\t{rng.gamma(1, 9):.3f}\n" for n in range(len(places))))
    return ["--genes", genes, "--expression", table]


@pytest.mark.parametrize("command", ["calibrate", "cindex", "evaluate"])
def test_the_cohort_serves_and_is_not_judged(candi, stores, model, expressed, command):
    # scores of the cell are those of a store of all cells, of which the cell's rows are taken
    more = {"cindex": ["--pairs", 1_000], "evaluate": expressed}.get(command, [])

    def judged(store: str, *others: str) -> list[dict[str, str]]:
        ran = candi(command, stores[store], "-m", model, *more, *cohorts(stores, *others))
        assert ran.code == 0, ran.err
        rows = rows_of(ran.out)
        assert {row["biosample"] for row in rows} - {"all"} == set(HAS if store == "all" else ["one"])
        return [row for row in rows if row["biosample"] == "one" or row["track"] == "expression"]

    whole = judged("all")
    assert ("expression" in {row["track"] for row in whole}) is (command == "evaluate")
    assert judged("own", "all") == whole
    alone = judged("own")
    for kind in {row["track"] for row in whole}:
        assert [row for row in alone if row["track"] == kind] != [row for row in whole if row["track"] == kind]


def test_scores_and_a_fit_say_which_cohort_they_are_of(candi, stores, model, tmp_path):
    new, scores = tmp_path / "new.safetensors", tmp_path / "scores.json"
    fit = ("--fit", "-r", "chr1", "--test", "chr2", "-M", new, "-o", scores)
    ran = candi("calibrate", stores["own"], "-m", model, *fit, *cohorts(stores, "two", "rest"))
    assert ran.code == 0, ran.err
    names = [stores["two"].name, stores["rest"].name]
    assert load(new).card.recalibration.fitted_on["cohort"] == names
    assert json.loads(scores.read_text())["facts"]["cohort"] == names


def test_without_others_judging_tells_so(candi, stores, model):
    ran = candi("calibrate", stores["own"], "-m", model, "-r", "chr1")
    assert ran.code == 0
    assert ran.err.count("it predicts from the biosample's own tracks alone") == 1
    ran = candi("calibrate", stores["own"], "-m", model, "-r", "chr1", *cohorts(stores, "rest"))
    assert "own tracks alone" not in ran.err


def test_the_cohort_is_the_rival_of_a_model_that_does_not_read_it_and_of_predictions(
    candi, stores, plain_model, tmp_path
):
    saved = tmp_path / "saved.h5"
    assert candi("impute", stores["two"], "-m", plain_model, "--assay", "c", "-o", saved, "--quiet").code == 0
    judged = ((stores["own"], "-m", plain_model), (stores["two"], "--truth", stores["all"], "--predictions", saved))
    for arguments in judged:
        ran = candi("evaluate", *arguments, "--track", "signal", *cohorts(stores, "rest"))
        assert ran.code == 0, ran.err
        assert ("serves the average of others alone" in ran.err) is ("-m" in arguments)
        assert "average of others" in {row["predictor"] for row in rows_of(ran.out)}
        without = candi("evaluate", *arguments, "--track", "signal")
        assert "average of others" not in {row["predictor"] for row in rows_of(without.out)}


def test_reads_that_were_counted_otherwise_are_no_rival(candi, tmp_path):
    """A cohort of other counts gives no average of others; one that was counted alike does."""
    paths = {}
    for name, cell, count in (("own", "one", "overlap"), ("alike", "two", "overlap"), ("other", "two", "five-prime")):
        paths[name] = tmp_path / f"{name}.h5"
        with Store.create(paths[name], rule=CountingRule(count), chromsizes=SIZES) as store:
            for assay in "ab":
                store.add_experiment(cell, assay)
                store.describe(cell, assay, Covariates(depth=1e6, span_bp=90_000.0), fold_depths=[500_000, 500_000])
                for chrom, length in SIZES.items():
                    counts = np.random.default_rng(len(cell)).poisson(2.0, (length // 25, 2)).astype(np.uint32)
                    store.write(cell, assay, "folds", chrom, counts)
                    store.write(cell, assay, "counts", chrom, counts.sum(axis=1, dtype=np.uint32))
                    blocks = np.ones(-(-length // 10_000), dtype=np.uint32)
                    store.write_blocks(cell, assay, chrom, blocks, 10_000)
    quick = ("--preset", "tiny", "--steps", "2", "--batch-size", "4", "--quiet")
    model = tmp_path / "m.safetensors"
    assert candi("train", paths["own"], "-o", model, *quick).code == 0
    for name, average in (("alike", True), ("other", False)):
        ran = candi("evaluate", paths["own"], "-m", model, "--pool", "imputed", "--cohort", paths[name])
        assert ran.code == 0, ran.err
        assert ("average of others" in {row["predictor"] for row in rows_of(ran.out)}) is average
        assert ("its reads are no part of the average of others" in ran.err) is not average


def test_given_tracks_have_no_cohort(candi, folder, stores):
    tracks = dict.fromkeys(("--mean", "--sd", "--observed"), folder / "one.a.bw")
    words = [word for pair in tracks.items() for word in pair]
    ran = candi("evaluate", *words, *cohorts(stores, "two"))
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "leave out STORE, --predictions, --cohort and --truth" in ran.err


# ---- training


def test_the_reference_is_hidden_as_often_as_asked_and_the_card_says_how_often(candi, stores, model, tmp_path):
    weights = {}
    for name, more in {"plain": (), "never": ("--drop-reference", 0), "half": ("--drop-reference", 0.5)}.items():
        path = tmp_path / f"{name}.safetensors"
        assert candi("train", stores["all"], "-o", path, *TRAIN, "--reference-average", *more).code == 0
        trained = load(path)
        assert trained.card.training["corruption"]["drop_reference"] == (0.5 if name == "half" else 0)
        weights[name] = torch.cat([weight.flatten() for weight in trained.network.state_dict().values()])
    assert torch.equal(weights["plain"], weights["never"])
    assert not torch.equal(weights["plain"], weights["half"])
    tuned = ("--init", model, "--drop-reference", 0.5)
    assert candi("train", stores["all"], "-o", tmp_path / "tuned.safetensors", *TRAIN, *tuned).code == 0


def scaled_bigwigs(folder: Path, into: Path, factors: dict[str, int]) -> Path:
    """Write the bigWigs of a folder with the values of each chromosome times a factor."""
    into.mkdir()
    for path in folder.glob("*.bw"):
        with pyBigWig.open(str(path)) as track, pyBigWig.open(str(into / path.name), "w") as scaled:
            scaled.addHeader(list(SIZES.items()))
            for chrom, factor in factors.items():
                first = track.intervals(chrom)[0][0]
                values = factor * track.values(chrom, first, SIZES[chrom], numpy=True)[::25]
                scaled.addEntries(chrom, first, values=values.tolist(), span=25, step=25)
    return into


def test_a_matched_signal_is_imputed_alike_however_strong_the_tracks_are(candi, folder, stores, tmp_path):
    strong = scaled_bigwigs(folder, tmp_path / "strong", dict.fromkeys(SIZES, 5))
    found = {}
    for name, options in {"matched": ("--match-signal",), "as it is": ()}.items():
        model = tmp_path / "model.safetensors"
        trained = ("--reference-average", "--test-chrom", "chr2", *options)
        assert candi("train", stores["others"], "-o", model, *TRAIN, *trained).code == 0
        for kind, store in {"weak": stores["own"], "strong": bin_store(strong, ("one",))}.items():
            path = tmp_path / f"{kind}.bw"
            asked = ("--assay", "c", "-m", model, *cohorts(stores, "others"), "-o", path, "--quiet", "--digits", 6)
            assert candi("impute", store, *asked).code == 0
            with pyBigWig.open(str(path)) as track:
                found[name, kind] = np.arcsinh(track.values("chr2", 0, SIZES["chr2"], numpy=True))
    spread = {name: np.abs(found[name, "weak"] - found[name, "strong"]).max() for name in ("matched", "as it is")}
    assert spread["matched"] < 0.02 < 0.1 < spread["as it is"]


def test_a_model_that_matches_signal_takes_no_new_assay(candi, stores, tmp_path):
    model = tmp_path / "model.safetensors"
    assert candi("train", stores["own"], "-o", model, *TRAIN, "--match-signal").code == 0
    ran = candi("train", stores["two"], "-o", tmp_path / "new.safetensors", *TRAIN, "--init", model, "--add-assay", "c")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "what is typical of its own assays; train a new model" in ran.err


def test_what_is_typical_is_not_taken_from_test_chromosomes(candi, folder, stores, tmp_path):
    other = scaled_bigwigs(folder, tmp_path / "other", {"chr1": 1, "chr2": 9})
    typical = []
    for store in (stores["own"], bin_store(other, ("one",))):
        model = tmp_path / "model.safetensors"
        assert candi("train", store, "-o", model, *TRAIN, "--match-signal", "--test-chrom", "chr2").code == 0
        typical.append(load(model).config.typical_signal)
    assert typical[0] == typical[1]
    assert max(typical[0]) > 0
