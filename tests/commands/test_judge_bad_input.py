"""What cannot be judged is refused in one line, before the work, and nothing is left half-written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyBigWig
import pytest

from candi_cli.commands._held_out import _same_reads
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Region
from candi_cli.model import load
from candi_cli.model.recalibration import Recalibration
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Described, PredictionWriter

ROOT = Path(__file__).parents[2]
SIZES = {"chr1": 400_000, "chr2": 200_000}
COMMANDS = ("calibrate", "cindex", "evaluate")
KEY = ("cell", "H3K4me3")


def write_track(path: Path, values: Callable[[int], np.ndarray] | float | None, *, sizes: dict[str, int] | None = None):
    """Write a bigWig of bins of 25 bp; without values it has a header alone."""
    track = pyBigWig.open(str(path), "w")
    track.addHeader(list((sizes or SIZES).items()))
    for chrom, length in (sizes or SIZES).items() if values is not None else ():
        n_bins = length // 25
        here = values(n_bins) if callable(values) else np.full(n_bins, values)
        track.addEntries(chrom, 0, values=here.astype(float).tolist(), span=25, step=25)
    track.close()
    return path


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """BigWigs by what they hold."""
    folder, rng = tmp_path_factory.mktemp("tracks"), np.random.default_rng(0)
    contents = {
        "mean": lambda n: rng.gamma(1, 2, n),
        "sd": lambda n: rng.gamma(4, 0.2, n) + 0.1,
        "observed": lambda n: np.maximum(rng.normal(2, 2, n), 0),
        "counts": lambda n: rng.poisson(2, n),
        "signed": lambda n: rng.normal(0, 1, n),
        "one": 1.0, "three": 3.0, "zero": 0.0, "minus": -1.0, "empty": None, "nan": np.nan, "huge": 1e38,
    }  # fmt: skip
    found = {name: write_track(folder / f"{name}.bw", values) for name, values in contents.items()}
    found["longer"] = write_track(folder / "longer.bw", 1.0, sizes={"chr1": 500_000})
    found["named"] = write_track(folder / "named.bw", 1.0, sizes={"1": 400_000, "2": 200_000})
    return found


def given(tracks: dict[str, Path], **other: str | None) -> list[object]:
    """Return the options of given tracks, some of them replaced or left out."""
    chosen = {"mean": "mean", "sd": "sd", "observed": "observed", **other}
    return [word for option, name in chosen.items() if name is not None for word in (f"--{option}", tracks[name])]


def refused(ran, *parts: object, code: int = 1) -> None:
    """Assert that a command ended in one line that holds `parts`, and wrote nothing."""
    assert ran.code == code, ran.err
    assert len(ran.errors) == 1, ran.err
    assert ran.out == ""
    assert "internal error" not in ran.err
    for part in parts:
        assert str(part) in ran.errors[0]


# ---- given tracks


@pytest.mark.parametrize(
    ("replaced", "more", "parts"),
    [
        ({"mean": "empty"}, (), ["no bin is covered", "empty.bw"]),
        ({"observed": "nan"}, (), ["no bin is covered", "nan.bw"]),
        ({"sd": "minus"}, (), ["minus.bw", "chr1:1 is negative"]),
        ({"sd": "zero"}, (), ["zero.bw", "chr1:1 is 0"]),
        ({"mean": "longer"}, (), ["chr1 is 400,000 bp", "500,000", "genome build"]),
        ({"mean": "named"}, (), ["shares no chromosome", "check their names"]),
        ({}, ("--track", "counts"), ["observed.bw", "no whole number", "--track signal"]),
        ({"mean": "minus", "observed": "counts"}, ("--track", "counts"), ["minus.bw", "negative", "--track signal"]),
        ({"mean": "huge", "observed": "counts"}, ("--track", "counts"), ["huge.bw", "more than any count"]),
        ({"sd": None, "lower": "three", "upper": "one"}, ("--interval", "0.9"), ["three.bw", "above the upper bound"]),
        ({}, ("-r", "chr7"), ["chr7", "known are chr1, chr2"]),
        ({}, ("-r", "chr1:500-100"), ["chr1:500-100"]),
    ],
)
def test_given_tracks_that_cannot_be_judged(candi: Callable, tracks, replaced, more, parts):
    for command in COMMANDS:
        refused(candi(command, *given(tracks, **replaced), *more), *parts)


@pytest.mark.parametrize(
    ("replaced", "more", "parts"),
    [
        ({"observed": "mean"}, (), ["mean.bw", "two different tracks"]),
        ({"sd": None}, (), ["--mean", "--sd"]),
        ({"sd": None}, ("--interval", "0.9"), ["--lower, --upper, --interval"]),
        ({"lower": "one", "upper": "three"}, ("--interval", "0.9"), ["given twice"]),
        ({"observed": None}, (), ["--observed"]),
        ({"observed": "counts"}, ("--track", "counts", "--scale", "arcsinh"), ["--scale arcsinh", "leave it out"]),
        ({}, ("-m", "model.safetensors"), ["--mean, -m"]),
        ({}, ("-T", "genome.fa"), ["--mean, -T"]),
        ({}, ("--resolution", "10000000"), ["--resolution"]),
        ({}, ("--bed", "a\tb=x.bed"), ["--bed", "plain text"]),
        ({}, ("--bed", "predicted top 1 %=x.bed"), ["taken"]),
        ({}, ("--blacklist", ""), ["--blacklist", "empty"]),
    ],
)
def test_options_of_given_tracks_that_contradict_each_other(candi: Callable, tracks, replaced, more, parts):
    for command in COMMANDS:
        refused(candi(command, *given(tracks, **replaced), *more), *parts, code=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_odd_tracks_are_judged_without_a_word_of_the_libraries(candi: Callable, tracks, command, recwarn):
    """A negative truth, a constant forecast, few bins, tracks of a part of the genome."""
    part = write_track(tracks["mean"].with_name("part.bw"), lambda n: np.where(np.arange(n) < n // 2, 2.0, np.nan))
    for options in (
        given(tracks, observed="signed"), given(tracks, mean="one", sd="three"), given(tracks, observed="zero"),
        given(tracks, observed="minus", sd="one"), [*given(tracks), "-r", "chr1:1-25"],
        [*given(tracks | {"part": part}, mean="part", observed="counts"), "--track", "counts"],
    ):  # fmt: skip
        ran = candi(command, *options, "--quiet")
        assert (ran.code, ran.err) == (0, ""), options
        assert ran.out.startswith("biosample\tassay\t")
    assert [str(each.message) for each in recwarn if issubclass(each.category, RuntimeWarning)] == []


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("", "holds no interval"),
        ("chr7\t0\t100\n", "shares no chromosome"),
        ("chr1\t100\t400001\n", "beyond 400,000 bp"),
    ],
)
def test_intervals_of_no_use(candi: Callable, tracks, tmp_path, content, fact):
    path = tmp_path / "regions.bed"
    path.write_text(content)
    parts = ["400,001", "400,000 bp", "genome build"] if fact.startswith("beyond") else [fact]
    for option in (("--blacklist", path), ("--enhancers", path), ("--bed", f"mine={path}")):
        refused(candi("calibrate", *given(tracks), *option), path, *parts)


def test_a_blacklist_that_leaves_nothing(candi: Callable, tracks, tmp_path):
    path = tmp_path / "all.bed"
    path.write_text("".join(f"{chrom}\t0\t{length}\n" for chrom, length in SIZES.items()))
    for command in COMMANDS:
        ran = candi(command, *given(tracks), "--blacklist", path, "--quiet")
        refused(ran, "no bin is left to judge", "--blacklist", code=2)


# ---- outputs


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("missing/scores.tsv", "does not exist"),
        ("file", "is a file"),
        ("foreign", "notes.txt"),
        ("scores.tsv.gz", ".gz"),
        ("scores.csv", ".csv"),
        ("scores.h5", ".h5"),
    ],
)
def test_outputs_are_checked_before_anything_is_read(candi: Callable, tmp_path, name, fact):
    (tmp_path / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").touch()
    (tmp_path / "foreign" / "scores.json").touch()  # it is a folder of scores, but holds something else as well
    before = sorted(tmp_path.rglob("*"))
    for command in COMMANDS:
        refused(candi(command, tmp_path / "no.h5", "-o", tmp_path / name), fact)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_scores_is_replaced_and_the_case_of_a_suffix_is_nothing(candi: Callable, tracks, tmp_path):
    for _ in range(2):
        assert candi("cindex", *given(tracks), "--pairs", "1000", "-o", tmp_path / "page").code == 0
    assert (tmp_path / "page" / "index.html").exists()
    assert candi("cindex", *given(tracks), "--pairs", "1000", "-o", tmp_path / "S.TSV").code == 0
    assert (tmp_path / "S.TSV").read_text().startswith("biosample\t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S.TSV", "page"]


@pytest.mark.parametrize(("redirection", "fact"), [("closed", "stdout: is closed"), ("full", "No space left")])
def test_a_stdout_that_takes_nothing(tracks, redirection, fact):
    """Run as a command of its own, whose stdout is closed or a full disk."""
    words = [sys.executable, "-m", "candi_cli", "cindex", *map(str, given(tracks)), "--pairs", "1000", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shell = ["sh", "-c", '"$@" >&-' if redirection == "closed" else '"$@" > /dev/full', "sh", *words]
    ran = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert fact in ran.stderr


def test_a_closed_stderr_neither_hinders_nor_dirties_the_scores(tracks):
    words = [sys.executable, "-m", "candi_cli", "cindex", *map(str, given(tracks)), "--pairs", "1000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shell = ["sh", "-c", '"$@" 2>&-', "sh", *words]
    ran = subprocess.run(shell, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout.startswith("biosample\t")


# ---- stores, models and predictions


def test_files_of_the_wrong_kind(candi: Callable, store_path, model_path, tmp_path):
    text = tmp_path / "text.tsv"
    text.write_text("these\tare\nno\treads\n")
    for command in COMMANDS:
        for wrong in (text, model_path, tmp_path, tmp_path / "absent"):
            refused(candi(command, wrong, "-m", model_path), wrong)
        for wrong in (text, store_path, tmp_path, tmp_path / "absent"):
            refused(candi(command, store_path, "-m", wrong), wrong)
        for wrong in (text, store_path, model_path, tmp_path, tmp_path / "absent"):
            refused(candi(command, store_path, "--predictions", wrong), wrong)


@pytest.mark.parametrize(
    ("more", "parts", "code"),
    [
        (["{store}"], ["STORE", "given twice"], 2),
        (["--truth", "{store}"], ["--truth", "STORE itself"], 2),
        (["{copy}"], ["sim1/H3K27me3", "is in", "once"], 1),
        (["--assay", "h3k4me3"], ["h3k4me3", "H3K4me3"], 2),
        (["--interval", "0.9"], ["--interval", "--mean"], 2),
        (["--resolution", "50"], ["--resolution", "--mean"], 2),
        (["--sd", "{store}"], ["--sd", "--mean"], 2),
        (["-r", "chr9"], ["chr9"], 1),
    ],
)
def test_stores_that_cannot_be_judged(candi: Callable, store_path, model_path, tmp_path, more, parts, code):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(store_path.read_bytes())
    words = [each.format(store=store_path, copy=copy) for each in more]
    for command in COMMANDS:
        refused(candi(command, store_path, "-m", model_path, *words), *parts, code=code)


def write_signal_store(path: Path) -> Path:
    with Store.create(path, rule=CountingRule(), chromsizes=SIZES) as store:
        store.add_experiment(*KEY)
        for chrom, length in SIZES.items():
            store.write(*KEY, "signal", chrom, np.ones(length // 25, dtype=np.float32))
            store.write_spans(*KEY, chrom, np.array([[0, length]], dtype=np.int64))
        store.describe(*KEY, Covariates())
    return path


def test_a_model_of_counts_and_a_store_of_signal(candi: Callable, model_path, tmp_path):
    path = write_signal_store(tmp_path / "signal.h5")
    for command in COMMANDS:
        refused(candi(command, path, "-m", model_path), path, "holds no counts", model_path)


def test_nothing_is_imputed_from_nothing(candi: Callable, model_path, tmp_path):
    """A model that reads DNA can impute a lone assay with -T alone."""
    path, bam = tmp_path / "lone.h5", ROOT / "test_data" / "sim1.H3K4me3.bam"
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"biosample\tassay\tfile\nsim1\tH3K4me3\t{bam}\n")
    assert candi("bin", "--covariates", sheet, "-o", path, "--quiet").code == 0
    options = (path, "-m", model_path, "--pool", "imputed", "--quiet", "-r", "chr2:1-60000")
    refused(candi("calibrate", *options), "nothing can be judged", "others beside", code=2)
    ran = candi("calibrate", *options, "-T", ROOT / "test_data" / "genome.fa.gz")
    assert ran.code == 0, ran.err
    assert "\timputed\t" in ran.out


def write_counts(path: Path, depth: float, assay: str = KEY[1]) -> Path:
    with Store.create(path, rule=CountingRule(), chromsizes=SIZES) as store:
        store.add_experiment(KEY[0], assay)
        for chrom, length in SIZES.items():
            store.write(KEY[0], assay, "counts", chrom, np.arange(length // 25, dtype=np.uint32) % 5)
        store.describe(KEY[0], assay, Covariates(depth=depth, span_bp=float(sum(SIZES.values()))))
    return path


def test_predictions_of_a_track_that_was_observed_are_not_judged_by_the_reads_they_were_made_from(
    candi: Callable, tmp_path
):
    store, other = write_counts(tmp_path / "store.h5", 1e5), write_counts(tmp_path / "other.h5", 2e5)
    lacking = write_counts(tmp_path / "lacking.h5", 2e5, "H3K27me3")
    path, names = tmp_path / "predictions.h5", PARAMETERS["counts"]
    track = {"observed": True, "covariates": {"depth": 1e5}, "asked": {}, "parameters": list(names)}
    regions = [Region(chrom, 0, length) for chrom, length in SIZES.items()]
    described = Described(25, SIZES, {"family": "candi", "sha256": "0" * 64}, {KEY: track}, {KEY[0]: regions})
    with PredictionWriter(path, described) as writer:
        for region in regions:
            writer.add(KEY[0], region, np.zeros((region.end // 25, 2), dtype=np.float32))
    refused(candi("calibrate", store, "--predictions", path, "--quiet"), "very reads", "--truth", code=2)
    refused(candi("calibrate", store, "--predictions", path, "--truth", lacking), lacking, "has a truth of", code=2)
    assert candi("calibrate", store, "--predictions", path, "--truth", other, "--quiet").code == 0


def test_denoising_is_not_judged_by_a_truth_of_the_same_reads(candi: Callable, store_path, model_path, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(store_path.read_bytes())
    ran = candi(
        "cindex", store_path, "-m", model_path, "--truth", copy, "--pool", "denoised", "-r", "chr2:1-60000", "--quiet"
    )
    refused(ran, "nothing can be judged", code=2)


@pytest.mark.parametrize(("counts", "same"), [([0, 2, 1, 0], True), ([0, 1, 2, 0], False)])
def test_two_halves_of_one_depth_are_the_same_reads_only_where_every_bin_agrees(tmp_path, counts, same):
    stores = []
    for name, values in (("one", [0, 2, 1, 0]), ("other", counts)):
        stores.append(Store.create(tmp_path / f"{name}.h5", rule=CountingRule(), chromsizes={"chr1": 100, "chr2": 50}))
        stores[-1].add_experiment("K562", "H3K4me3")
        stores[-1].write("K562", "H3K4me3", "counts", "chr1", np.array(values, dtype=np.uint32))
        stores[-1].describe("K562", "H3K4me3", Covariates(depth=3.0))
    assert _same_reads(*stores, "K562", "H3K4me3") is same


# ---- recalibration


@pytest.mark.parametrize(
    ("words", "parts", "code"),
    [
        (["--fit"], ["--fit", "-r", "--test", "-M"], 2),
        (["-M", "{new}"], ["--fit"], 2),
        (["--test", "chr2"], ["--fit"], 2),
        (["--fit", "-r", "chr1:1-9000", "--test", "chr1:20000-30000", "-M", "{new}"], ["chr1 is both"], 2),
        (["--fit", "-r", "chr1", "--test", "chr9", "-M", "{new}"], ["chr9"], 1),
        (["--fit", "-r", "chr1", "--test", "chr2", "-M", "{model}"], ["is an input", "another -M"], 1),
        (["--fit", "-r", "chr1", "--test", "chr2", "-M", "{folder}/no/new.safetensors"], ["does not exist"], 1),
        (["--fit", "-r", "chr1", "--test", "chr2", "-M", "{folder}/new.bin"], [".safetensors"], 2),
        (["--fit", "-r", "chr1", "--test", "chr2", "-M", "{folder}/page/m.safetensors", "-o", "{folder}/page"],
         ["-M", "-o"], 2),
        (["--fit", "-r", "chr1:1-1000", "--test", "chr2:1-1000", "-M", "{new}"], ["80 bins", "100 are needed"], 2),
    ],
)  # fmt: skip
def test_fits_that_cannot_be(candi: Callable, store_path, model_path, tmp_path, words, parts, code):
    (tmp_path / "page").mkdir()
    names = {"new": tmp_path / "new.safetensors", "model": model_path, "folder": tmp_path}
    ran = candi("calibrate", store_path, "-m", model_path, "--quiet", *[each.format(**names) for each in words])
    refused(ran, *parts, code=code)
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_fit_of_a_recalibrated_model_starts_from_the_raw_one_and_info_tells_of_it(
    candi: Callable, store_path, model_path, tmp_path
):
    models = [model_path, tmp_path / "once.safetensors", tmp_path / "twice.safetensors"]
    for old, new in pairwise(models):
        ran = candi(
            "calibrate", store_path, "-m", old, "--pool", "denoised", "--assay", "H3K4me3", "--quiet",
            "--fit", "-r", "chr1:1-100000", "--test", "chr2:1-50000", "-M", new, "-o", tmp_path / "s.tsv",
        )  # fmt: skip
        assert ran.code == 0, ran.err
    once, twice = (load(path).card.recalibration for path in models[1:])
    assert once is not None
    assert twice is not None
    assert once.fits == twice.fits
    assert any(factors != (1.0, 0.0) for fit in once.fits for factors in fit.parameters.values())
    told = candi("info", models[1]).out
    assert "recalibrated: regions\tchr1:1-100000" in told
    assert "H3K4me3\tdenoised\tcounts\t" in told
    assert "recalibrated" not in candi("info", model_path).out
    assert json.loads(candi("info", models[1], "--json").out)["recalibration"]["fitted_on"]["regions"] == [
        "chr1:1-100000"
    ]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("kind",), ["counts"]),
        (("kind",), {}),
        (("pool",), ["imputed"]),
        (("parameters", "count_log_mean"), [10**400, 0]),
        (("parameters", "count_log_mean"), [1, "NaN"]),
        (("before", "crps"), 10**400),
        (("levels",), [[0.5]]),
    ],
)
def test_a_recalibration_that_no_fit_made(place, value):
    fit: dict = {
        "assay": "H3K4me3", "pool": "imputed", "kind": "counts", "levels": None, "n_bins": 500, "note": "",
        "parameters": {"count_log_mean": [1.0, 0.1], "count_log_dispersion": [1.0, -0.2]},
        "before": {"crps": 2.0}, "after": {"crps": 1.0},
    }  # fmt: skip
    assert Recalibration.from_json({"fits": [fit], "fitted_on": {}}).fits[0].n_bins == 500
    *path, name = place
    target = fit
    for each in path:
        target = target[each]
    target[name] = value
    with pytest.raises(ValueError, match=r"recalibration|levels"):
        Recalibration.from_json({"fits": [fit], "fitted_on": {}})


# ---- expression


def test_expression_is_read_before_anything_is_predicted(candi: Callable, store_path, model_path, tmp_path):
    genes, table = tmp_path / "genes.bed", tmp_path / "tpm.tsv"
    genes.write_text("chr1\t10000\t30000\tA\t0\t+\nchr1\t50000\t80000\tB\t0\t-\n")
    options = ("evaluate", store_path, "-m", model_path, "--expression", table)
    refused(candi(*options), "--genes", code=2)
    refused(candi(*options, "--genes", genes), table, "no such file")
    table.write_text("gene_id\tliver\nA\t1\nB\t2\n")
    refused(candi(*options, "--genes", genes), table, "liver", "sim1", code=2)
    table.write_text("gene_id\tsim1\nA\t1\nB\t2\n")
    refused(candi(*options, "--genes", genes), table, "2 of its genes", "50 are needed", code=2)
