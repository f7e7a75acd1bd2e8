"""`candi evaluate`: what is judged was not shown, classes are the bins that they say, and all outputs agree."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from scipy import stats

from candi_cli.commands import main
from candi_cli.commands._judge_options import JudgeOptions
from candi_cli.commands._judging import Judged, Judgement
from candi_cli.commands.evaluate import command
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Region, bin_count
from candi_cli.model import load, save
from candi_cli.store import Store
from candi_cli.store.predictions import Described, PredictionWriter, rounded

SOME = ("-r", "chr2:1-40,000", "--quiet")
SIZES = {"chrA": 400_010, "chrB": 250_000}
N_A = bin_count(SIZES["chrA"], 25)
N = N_A + bin_count(SIZES["chrB"], 25)
KEY = ("cell", "H3K4me3")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def values(rows: list[dict[str, str]], **wanted: str) -> dict[str, float]:
    """Return the values of rows of single tracks by score."""
    single = [row for row in rows if row["biosample"] != "all" or row["track"] == "expression"]
    chosen = [row for row in single if all(row[name] == value for name, value in wanted.items())]
    found = {row["score"]: float(row["value"]) if row["value"] != "NA" else math.nan for row in chosen}
    assert len(found) == len(chosen), "a score is there twice"
    return found


def judge(*arguments: object) -> dict[tuple[str, str, str, str], Judged]:
    """Return the tracks that the command would judge, by biosample, assay, pool and kind."""
    with ExitStack() as stack:
        context = command.make_context("evaluate", [str(each) for each in arguments])
        with context:
            judgement = Judgement(JudgeOptions.of(context.params), stack)
        found = list(judgement.tracks())
    return {(each.track.biosample, each.track.assay, each.track.pool, each.track.kind): each for each in found}


# ---- what is judged was not shown


def own_reads_changed(store_path: Path, key: tuple[str, str]) -> Callable[..., np.ndarray]:
    def change(at: tuple[str, str], layer: str, chrom: str, layer_values: np.ndarray) -> np.ndarray:
        if at != key:
            return layer_values
        rolled = np.roll(layer_values, 700, axis=0)
        return np.ascontiguousarray(rolled)

    return change


def test_an_imputed_track_does_not_depend_on_its_own_reads(
    model_path: Path, store_path: Path, rewritten: Callable, tmp_path: Path
):
    key = ("sim1", "H3K36me3")
    changed = rewritten(store_path, tmp_path / "changed.h5", own_reads_changed(store_path, key))
    before, after = (judge(path, "-m", model_path, "--pool", "imputed", *SOME) for path in (store_path, changed))
    assert before.keys() == after.keys()
    assert {kind for *_, kind in before} == {"counts", "signal", "peaks"}
    for name, each in before.items():
        own = name[:2] == key
        if own:
            np.testing.assert_array_equal(after[name].track.parameters, each.track.parameters)
            assert (after[name].track.observed != each.track.observed).any()
        else:
            np.testing.assert_array_equal(after[name].track.observed, each.track.observed)
        if name[0] == "sim1" and not own:  # these do read it
            assert (after[name].track.parameters != each.track.parameters).any()
        if name[0] == "sim2":
            np.testing.assert_array_equal(after[name].track.parameters, each.track.parameters)


def test_denoising_is_judged_by_the_other_half_and_imputation_by_all_reads(model_path: Path, store_path: Path):
    found = judge(store_path, "-m", model_path, "--track", "counts", *SOME)
    with Store.open(store_path) as store:
        for (biosample, assay, pool, _), judged in found.items():
            folds = store.read(biosample, assay, "folds", "chr2", 0, 1_600)
            expected = folds if pool == "imputed" else folds[:, 4:]
            np.testing.assert_array_equal(judged.track.observed, expected.sum(axis=1))
            assert judged.inputs == (None if pool == "imputed" else [0, 1, 2, 3])
    assert {pool for _, _, pool, _ in found} == {"imputed", "denoised"}


@pytest.fixture(scope="module")
def saved(model_path: Path, store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of the assays of one biosample that were read, and of one that was not."""
    path = tmp_path_factory.mktemp("saved") / "saved.h5"
    options = ["-m", str(model_path), "--assay", "all", "-r", "chr2:1-40,000", "-O", "hdf5", "--quiet"]
    assert main(["impute", str(store_path), *options, "-o", str(path)]) == 0
    return path


def test_denoised_tracks_are_not_judged_by_their_own_input_but_by_other_reads(
    candi: Callable, saved: Path, store_path: Path, rewritten: Callable, tmp_path: Path
):
    ran = candi("evaluate", store_path, "--predictions", saved, "--track", "counts")
    assert ran.code == 2
    assert "sim1/H3K4me3 was made from the reads of" in ran.err
    assert "give a --truth of other reads" in ran.err
    other = tmp_path / "other.h5"
    with Store.open(store_path) as store, Store.create(other, rule=store.rule, chromsizes=store.chromsizes) as truth:
        for key in (("sim1", "H3K4me3"), ("sim1", "H3K36me3")):  # not all that was predicted
            truth.add_experiment(*key)
            for chrom in ("chr1", "chr2"):
                counts = store.read(*key, "counts", chrom, 0, store.n_bins(chrom))
                truth.write(*key, "counts", chrom, (counts + np.arange(len(counts)) % 2).astype(np.uint32))
            covariates = store.experiment(*key).covariates
            truth.describe(*key, Covariates(**{**vars(covariates), "depth": covariates.depth * 1.7}))
    ran = candi("evaluate", store_path, "--predictions", saved, "--track", "counts", "--truth", other, "--quiet")
    assert ran.code == 0, ran.err
    rows = rows_of(ran.out)
    judged = {(row["biosample"], row["assay"], row["pool"]) for row in rows if row["biosample"] != "all"}
    assert judged == {("sim1", "H3K4me3", "denoised"), ("sim1", "H3K36me3", "denoised")}
    assert {"input", "input, smoothed"} <= {row["predictor"] for row in rows}


def test_imputed_tracks_are_judged_by_the_store_that_has_them(
    candi: Callable, model_path: Path, store_path: Path, pair_store_path: Path, tmp_path: Path
):
    path = tmp_path / "p.h5"
    made = candi("impute", pair_store_path, "-m", model_path, "--assay", "all", *SOME, "-O", "hdf5", "-o", path)
    assert made.code == 0, made.err
    ran = candi("evaluate", store_path, "--predictions", path, "--pool", "imputed", "--quiet")
    assert ran.code == 0, ran.err
    assert {(row["assay"], row["pool"]) for row in rows_of(ran.out) if row["biosample"] == "sim1"} == {
        ("H3K36me3", "imputed")
    }


def test_a_denoised_signal_without_a_depth_is_judged_by_a_truth_that_is_given_alone(
    candi: Callable, known: "Known", tmp_path: Path
):
    track = {"observed": True, "covariates": {"depth": None}, "asked": {}, "parameters": ["signal_mean", "signal_sd"]}
    region = Region("chrB", 0, SIZES["chrB"])
    columns = np.stack([known.parameters["signal_mean"], known.parameters["signal_sd"]], axis=1).astype(np.float32)
    with PredictionWriter(tmp_path / "p.h5", Described(25, SIZES, {}, {KEY: track}, {KEY[0]: [region]})) as writer:
        writer.add(KEY[0], region, columns[N_A:])
    paths = [tmp_path / "read.h5", tmp_path / "other.h5"]
    for path in paths:
        with Store.create(path, rule=CountingRule(), chromsizes=SIZES) as store:
            store.add_experiment(*KEY)
            store.write(*KEY, "signal", "chrB", np.sinh(known.signal[N_A:]))
            store.describe(*KEY, Covariates())
    refused = candi("evaluate", paths[0], "--predictions", tmp_path / "p.h5")
    assert refused.code == 2
    assert "give a --truth of other reads" in refused.err
    ran = candi("evaluate", paths[0], "--predictions", tmp_path / "p.h5", "--truth", paths[1], "--quiet")
    assert ran.code == 0, ran.err
    assert {row["pool"] for row in rows_of(ran.out)} == {"denoised"}


# ---- order and seeds


def test_the_order_of_regions_and_of_assays_is_nothing_and_the_same_seed_has_the_same_bytes(
    candi: Callable, model_path: Path, store_path: Path
):
    common = ("evaluate", store_path, "-m", model_path, "--track", "counts", "--pool", "imputed", "--quiet")
    regions = ("-r", "chr2:1-20,000", "-r", "chr1:1-10,000")
    names = ("H3K36me3", "H3K4me3", "H3K9me3", "H3K27me3")
    one = candi(*common, *regions, "--assay", ",".join(names))
    other = candi(*common, *regions[2:], *regions[:2], "--assay", ",".join(names[::-1]), "--seed", 0)
    seeded = candi(*common, *regions, "--assay", ",".join(names), "--seed", 1)
    assert one.code == 0, one.err
    assert one.out == other.out
    changed = [
        row["predictor"] for row, after in zip(rows_of(one.out), rows_of(seeded.out), strict=True) if row != after
    ]
    assert changed  # intervals of gains are of resampled tracks
    assert all(predictor.startswith("gain over") for predictor in changed)


def test_the_order_of_stores_is_nothing(candi: Callable, model_path: Path, store_path: Path, tmp_path: Path):
    parts = []
    with Store.open(store_path) as store:
        for name in store.biosamples:
            parts.append(tmp_path / f"{name}.h5")
            with Store.create(parts[-1], rule=store.rule, chromsizes=store.chromsizes) as part:
                for assay in store.assays(name):
                    part.adopt(store, name, assay)
    common = ("-m", model_path, "--track", "counts", "--pool", "imputed", *SOME)
    whole, split, swapped = (candi("evaluate", *stores, *common) for stores in ([store_path], parts, parts[::-1]))
    assert whole.code == 0, whole.err
    assert sorted(whole.out.splitlines()) == sorted(split.out.splitlines()) == sorted(swapped.out.splitlines())
    assert "average of others" in whole.out


# ---- outputs


def test_tsv_json_and_folder_agree_and_a_folder_is_replaced(
    candi: Callable, saved: Path, known: "Known", tmp_path: Path
):
    common = ("evaluate", known.store, "--predictions", known.predictions, "--partitions", "--quiet")
    folder = tmp_path / "report"
    plain = candi(*common)
    assert candi(*common, "-o", tmp_path / "s.tsv").code == candi(*common, "-o", tmp_path / "s.json").code == 0
    assert candi(*common, "-o", folder).code == 0
    assert (tmp_path / "s.tsv").read_text() == plain.out == (folder / "scores.tsv").read_text()
    content = json.loads((tmp_path / "s.json").read_text())
    in_folder = json.loads((folder / "scores.json").read_text())
    assert content["rows"] == in_folder["rows"]
    rows = rows_of(plain.out)
    assert len(rows) == len(content["rows"])
    for cells, row in zip(rows, content["rows"], strict=True):
        for name, cell in cells.items():
            value = row[name]
            expected = "NA" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
            assert cell == expected, name
    assert (folder / "index.html").read_text().startswith("<!DOCTYPE html>")
    assert list(folder.glob("*_mqc.json"))
    pictures = {path.stem for path in (folder / "figures").iterdir()}
    assert pictures
    assert all((folder / "figures" / f"{stem}{end}").exists() for stem in pictures for end in (".svg", ".png"))
    (folder / "figures" / "old.svg").write_text("of an older run")
    before = (folder / "scores.tsv").read_bytes()
    assert candi(*common, "-o", folder).code == 0
    assert not (folder / "figures" / "old.svg").exists()
    assert (folder / "scores.tsv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "s.json", "s.tsv"]


# ---- classes of bins


class Known:
    """A store of one experiment and predictions of it, both known."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(11)
        smooth = np.convolve(rng.normal(size=N), np.ones(30) / np.sqrt(30), mode="same")
        self.parameters = {
            "count_log_mean": -0.3 + smooth, "count_log_dispersion": np.full(N, np.log(2.0)),
            "signal_mean": np.maximum(1 + 0.5 * smooth, 0.05),
            "signal_sd": np.full(N, 0.4), "peak_logit": -2 + 2 * smooth,
        }  # fmt: skip
        p = 2 / (2 + np.exp(self.parameters["count_log_mean"]))
        self.counts = rng.negative_binomial(2, p)
        self.signal = np.maximum(rng.normal(self.parameters["signal_mean"], 0.4), 0).astype(np.float32)
        self.peaks = rng.random(N) < 1 / (1 + np.exp(-self.parameters["peak_logit"]))
        self.store, self.predictions = folder / "store.h5", folder / "predictions.h5"
        with Store.create(self.store, rule=CountingRule(), chromsizes=SIZES) as store:
            store.add_experiment(*KEY)
            for chrom, here in self.parts().items():
                store.write(*KEY, "counts", chrom, self.counts[here].astype(np.uint32))
                store.write(*KEY, "signal", chrom, np.sinh(self.signal[here]))
                store.write_spans(*KEY, chrom, np.array([[0, SIZES[chrom]]], dtype=np.int64))
                store.write(*KEY, "peaks", chrom, self.peaks[here].astype(np.uint8))
            store.describe(*KEY, Covariates(depth=1e6, span_bp=float(sum(SIZES.values()))))
        track = {"observed": False, "covariates": None, "asked": {}, "parameters": list(self.parameters)}
        regions = [Region(chrom, 0, length) for chrom, length in SIZES.items()]
        described = Described(25, SIZES, {}, {KEY: track}, {KEY[0]: regions})
        columns = np.stack(list(self.parameters.values()), axis=1).astype(np.float32)
        with PredictionWriter(self.predictions, described) as writer:
            for region, here in zip(regions, self.parts().values(), strict=True):
                writer.add(KEY[0], region, columns[here])

    def parts(self) -> Mapping[str, slice]:
        return {"chrA": slice(0, N_A), "chrB": slice(N_A, N)}

    def written(self, name: str) -> np.ndarray:
        """Return a parameter as the file of predictions holds it."""
        return rounded(self.parameters[name].astype(np.float32))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return Known(tmp_path_factory.mktemp("known"))


def inside(spans: list[tuple[str, int, int]]) -> np.ndarray:
    """Return which bins share a base pair with a span."""
    found = np.zeros(N, dtype=bool)
    for chrom, start, end in spans:
        at = 0 if chrom == "chrA" else N_A
        found[at + max(start, 0) // 25 : at - (-min(end, SIZES[chrom]) // 25)] = True
    return found


GENES = [("chrA", 10_010, 30_000, "+"), ("chrA", 200, 5_000, "-"), ("chrB", 100_000, 140_000, "-"),
         ("chrB", 239_000, 249_990, "+")]  # fmt: skip


def test_classes_are_the_bins_of_their_files_less_the_blacklist(candi: Callable, known: Known, tmp_path: Path):
    def write(name: str, spans: list[tuple]) -> Path:
        (tmp_path / name).write_text("".join("\t".join(map(str, each)) + "\n" for each in spans))
        return tmp_path / name

    genes = write("genes.bed", [(c, s, e, f"g{n}", 0, strand) for n, (c, s, e, strand) in enumerate(GENES)])
    enhancers, mine = [("chrA", 50_000, 50_001), ("chrB", 0, 20_000)], [("chrB", 1_000, 9_010), ("chrB", 5_000, 30_000)]
    black = [("chrA", 20_000, 20_500), ("chrB", 3_990, 6_010)]
    options = ("--genes", genes, "--enhancers", write("e.bed", enhancers), "--blacklist", write("b.bed", black))
    options += ("--bed", f"mine={write('mine.bed', mine)}", "--partitions")
    ran = candi("evaluate", known.store, "--predictions", known.predictions, *options, "--quiet")
    assert ran.code == 0, ran.err
    rows = rows_of(ran.out)
    starts = [(c, (e - 1 if strand == "-" else s)) for c, s, e, strand in GENES]
    kept = ~inside(black)
    classes = {
        "genome": np.ones(N, dtype=bool), "gene": inside([gene[:3] for gene in GENES]),
        "promoter": inside([(c, at - 1_000, at + 1_000) for c, at in starts]), "enhancer": inside(enhancers),
        "mine": inside([("chrB", s, e) for _, s, e in mine]),
    }  # fmt: skip
    expected = {"counts": np.exp(known.written("count_log_mean").astype(float)), "signal": known.written("signal_mean")}
    truth = {"counts": known.counts.astype(float), "signal": known.signal}
    for kind in ("counts", "signal"):
        for name, mask in classes.items():
            found = values(rows, region=name, track=kind, predictor="model")
            here = mask & kept
            y, x = truth[kind][here].astype(float), expected[kind][here].astype(float)
            assert found["mse"] == pytest.approx(np.mean((y - x) ** 2), rel=1e-5), name
            assert found["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, rel=1e-5), name
            n = {
                int(row["n"])
                for row in rows
                if (row["region"], row["track"], row["score"]) == (name, kind, "mse") and row["biosample"] == "cell"
            }
            assert n == {int(here.sum())}, name
    peaks = values(rows, region="mine", track="peaks", predictor="model")
    assert peaks["base_rate"] == pytest.approx(known.peaks[classes["mine"] & kept].mean(), rel=1e-5)
    black_bins = int((~kept).sum())
    challenge = [row for row in rows if row["score"] == "challenge_mse" and row["biosample"] == "cell"]
    assert all(int(row["n"]) == N - black_bins for row in challenge)
    squares = np.square(
        np.sinh(truth["signal"].astype(float)) - np.maximum(np.sinh(expected["signal"].astype(float)), 0)
    )
    model = values(rows, region="genome", track="signal", predictor="model")
    assert model["challenge_mse"] == pytest.approx((squares * kept).mean(), rel=1e-4)


def test_a_class_without_a_bin_is_noted(candi: Callable, known: Known, tmp_path: Path):
    (tmp_path / "far.bed").write_text("chrB\t0\t1000\n")
    options = ("--bed", f"far={tmp_path / 'far.bed'}", "-r", "chrA", "--track", "signal")
    ran = candi("evaluate", known.store, "--predictions", known.predictions, *options)
    assert ran.code == 0, ran.err
    assert "far: no judged bin is in it; its scores are NA" in ran.err
    assert all(math.isnan(each) for each in values(rows_of(ran.out), region="far", predictor="model").values())


# ---- tracks of any program


def write_bigwig(path: Path, track: np.ndarray) -> Path:
    """Write one value a bin, each of them exact in float32."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(SIZES.items()))
        for chrom, here in {"chrA": slice(0, N_A), "chrB": slice(N_A, N)}.items():
            part = track[here].astype(np.float64)
            starts = np.arange(len(part)) * 25
            ends = np.minimum(starts + 25, SIZES[chrom])
            file.addEntries([chrom] * len(part), starts.tolist(), ends=ends.tolist(), values=part.tolist())
    return path


NAMES = ("mse", "pearson", "spearman", "r2", "nll")


@pytest.fixture(scope="module")
def expected(known: Known) -> Iterator[dict[str, dict[str, dict[str, float]]]]:
    """The scores of the saved predictions, by command and kind."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in ("evaluate", "calibrate", "cindex"):
        path = known.store.with_name(f"{name}.tsv")
        options = [str(known.store), "--predictions", str(known.predictions), "--quiet", "-o", str(path)]
        assert main([name, *options]) == 0
        rows = rows_of(path.read_text())
        found[name] = {
            kind: values(rows, track=kind, region="genome", predictor="model") for kind in ("counts", "signal")
        }
    return found


@pytest.mark.parametrize("spread", ["sd", "interval"])
@pytest.mark.parametrize("scale", ["linear", "arcsinh"])
def test_given_tracks_of_the_same_numbers_have_the_same_scores(
    scale: str, spread: str, candi: Callable, known: Known, expected: dict, tmp_path: Path
):
    mean, sd = known.written("signal_mean").astype(float), known.written("signal_sd").astype(float)
    as_track = np.sinh if scale == "arcsinh" else np.asarray
    options: list[object] = ["--scale", scale]
    for name, track in (("mean", mean), ("observed", known.signal.astype(float))):
        options += [f"--{name}", write_bigwig(tmp_path / f"{name}.bw", as_track(track))]
    if spread == "sd":
        options += ["--sd", write_bigwig(tmp_path / "sd.bw", sd)]  # in arcsinh whatever the scale of the mean
    else:
        z = stats.norm.ppf(0.95)
        options += ["--upper", write_bigwig(tmp_path / "upper.bw", as_track(mean + z * sd)), "--interval", 0.9]
        lower = mean - z * sd if scale == "linear" else np.maximum(mean - z * sd, 0)  # as of -log10 p
        options += ["--lower", write_bigwig(tmp_path / "lower.bw", as_track(lower))]
    for name in ("evaluate", "calibrate", "cindex"):
        ran = candi(name, *options, "--quiet")
        assert ran.code == 0, ran.err
        found = values(rows_of(ran.out), track="signal", region="genome", predictor="model", pool="given")
        reference = expected[name]["signal"]
        assert found.keys() >= {key for key in reference if not key.startswith("challenge")}
        for score in found.keys() & reference.keys():
            assert found[score] == pytest.approx(reference[score], rel=2e-3, abs=2e-4), (name, score)


def test_no_rival_is_fitted_to_the_blacklist(candi: Callable, known: Known, tmp_path: Path):
    black = [("chrA", 20_000, 40_000)]
    (tmp_path / "black.bed").write_text("chrA\t20000\t40000\n")
    observed = np.where(inside(black), 1_000.0, known.counts)  # of artefacts, as blacklists are made of
    options: list[object] = ["--track", "counts", "--blacklist", tmp_path / "black.bed"]
    for name, track in (("mean", np.exp(known.written("count_log_mean"))), ("sd", np.ones(N)), ("observed", observed)):
        options += [f"--{name}", write_bigwig(tmp_path / f"{name}.bw", track)]
    ran = candi("evaluate", *options, "--quiet")
    assert ran.code == 0, ran.err
    marginal = values(rows_of(ran.out), region="genome", track="counts", predictor="best marginal")
    assert marginal["r2"] == pytest.approx(0, abs=1e-6)
    assert marginal["mse"] == pytest.approx(known.counts[~inside(black)].var(), rel=1e-4)


def test_given_counts_have_the_same_scores(candi: Callable, known: Known, expected: dict, tmp_path: Path):
    mean = np.exp(known.written("count_log_mean").astype(float))
    sd = np.sqrt(mean + mean**2 / 2)
    options: list[object] = ["--track", "counts"]
    for name, track in (("mean", mean), ("observed", known.counts), ("sd", sd)):
        options += [f"--{name}", write_bigwig(tmp_path / f"{name}.bw", track)]
    for name in ("evaluate", "calibrate", "cindex"):
        ran = candi(name, *options, "--quiet")
        assert ran.code == 0, ran.err
        found = values(rows_of(ran.out), track="counts", region="genome", predictor="model", pool="given")
        assert found.keys() == expected[name]["counts"].keys()
        for score, value in found.items():
            sampled = score.startswith(("expected", "width", "coverage_gap"))  # of other bins where digits differ
            reference = expected[name]["counts"][score]
            assert value == pytest.approx(reference, rel=1e-2 if sampled else 2e-3, abs=2e-4 if not sampled else 4e-3)


# ---- expression


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """300 genes of two biosamples whose expression is a function of the signal at their start, and a tiny model."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(2)
    sizes = {"chrA": 170_000, "chrB": 170_000, "chrC": 170_000}
    marks = ("H3K27ac", "H3K4me3")
    starts = np.arange(5_000, 165_000, 1_600)
    lines, tpm = [], {}
    activity = {name: rng.gamma(1.0, 1.0, (len(sizes), len(starts))) for name in ("one", "two")}
    store_path = folder / "store.h5"
    with Store.create(store_path, rule=CountingRule(), chromsizes=sizes) as store:
        for name in ("one", "two"):
            for number, mark in enumerate(marks):
                store.add_experiment(name, mark)
                fold_depths = np.zeros(8)
                for row, (chrom, length) in enumerate(sizes.items()):
                    rate = np.full(length // 25, 0.2)
                    for start, level in zip(starts, activity[name][row], strict=True):
                        rate[(start - 100) // 25 : (start + 300) // 25] += (3 + number) * level
                    folds = rng.poisson(rate[:, None] / 8, (len(rate), 8)).astype(np.uint32)
                    fold_depths += folds.sum(axis=0)
                    store.write(name, mark, "counts", chrom, folds.sum(axis=1, dtype=np.uint32))
                    store.write(name, mark, "folds", chrom, folds)
                    store.write(
                        name, mark, "signal", chrom, (rate * rng.gamma(50, 1 / 50, len(rate))).astype(np.float32)
                    )
                    store.write_spans(name, mark, chrom, np.array([[0, length]], dtype=np.int64))
                    store.write_blocks(name, mark, chrom, np.ones(17, dtype=np.uint32), 10_000)
                covariates = Covariates(
                    depth=float(fold_depths.sum()), read_length=50.0, span_bp=float(sum(sizes.values()))
                )
                store.describe(name, mark, covariates, fold_depths=fold_depths.astype(int).tolist())
    for row, chrom in enumerate(sizes):
        for number, start in enumerate(starts):
            gene = f"ENSG{row}{number:04d}"
            lines.append(f"{chrom}\t{start}\t{start + 800}\t{gene}\t0\t+\n")
            tpm[gene] = [np.expm1(activity[name][row, number] + 0.1 * rng.random()) for name in ("one", "two")]
    (folder / "genes.bed").write_text("".join(lines))
    table = "".join(f"{gene}\t{one:.6g}\t{two:.6g}\n" for gene, (one, two) in tpm.items())
    (folder / "tpm.tsv").write_text("gene_id\tone\ttwo\n" + table)
    shuffled = dict(zip(tpm, [list(tpm.values())[at] for at in rng.permutation(len(tpm))], strict=True))
    table = "".join(f"{gene}\t{one:.6g}\n" for gene, (one, _) in shuffled.items())
    (folder / "shuffled.tsv").write_text("gene_id\tone\n" + table)
    options = ["--preset", "tiny", "--steps", "60", "--batch-size", "4", "--loci", "gw", "--quiet", "--seed", "0"]
    assert main(["train", str(store_path), "-o", str(folder / "m.safetensors"), *options]) == 0
    return {name: folder / name for name in ("store.h5", "m.safetensors", "genes.bed", "tpm.tsv", "shuffled.tsv")}


def test_features_of_expression_are_of_what_all_biosamples_have_and_the_model_predicts(
    candi: Callable, planted: dict[str, Path], tmp_path: Path
):
    """A store in which one biosample has no signal, and a model that has learned none."""
    lacking = tmp_path / "lacking.h5"
    with (
        Store.open(planted["store.h5"]) as store,
        Store.create(lacking, rule=store.rule, chromsizes=store.chromsizes) as copy,
    ):
        for mark in store.assays("one"):
            copy.adopt(store, "one", mark)
            copy.add_experiment("two", mark)
            experiment = store.experiment("two", mark)
            for chrom in store.chromsizes:
                for layer in ("counts", "folds"):
                    copy.write("two", mark, layer, chrom, store.read("two", mark, layer, chrom, 0, store.n_bins(chrom)))
            copy.describe("two", mark, experiment.covariates, fold_depths=experiment.fold_depths.tolist())
    model = load(planted["m.safetensors"])
    assays = {name: replace(card, outputs=("counts",)) for name, card in model.card.assays.items()}
    save(tmp_path / "counts.safetensors", model.network, replace(model.card, assays=assays))
    common = ("--genes", planted["genes.bed"], "--expression", planted["tpm.tsv"], "--pool", "imputed")
    common += ("--track", "counts", "--assay", "H3K4me3", "-r", "chrA")
    for store_path, model_path in (
        (lacking, planted["m.safetensors"]), (planted["store.h5"], tmp_path / "counts.safetensors"),
    ):  # fmt: skip
        ran = candi("evaluate", store_path, "-m", model_path, *common)
        assert ran.code == 0, ran.err
        assert "observed counts of H3K27ac, H3K4me3" in ran.err
        observed = values(rows_of(ran.out), track="expression", pool="observed", predictor="ridge")
        assert observed["pearson"] > 0.8


def test_planted_expression_is_found_and_shuffled_expression_is_not(candi: Callable, planted: dict[str, Path]):
    common = ("evaluate", planted["store.h5"], "-m", planted["m.safetensors"], "--genes", planted["genes.bed"])
    common += ("--pool", "imputed", "--track", "counts", "--assay", "H3K4me3", "--quiet")
    found = {}
    for name in ("tpm.tsv", "shuffled.tsv"):
        ran = candi(*common, "--expression", planted[name])
        assert ran.code == 0, ran.err
        rows = [row for row in rows_of(ran.out) if row["track"] == "expression"]
        assert {row["pool"] for row in rows} == {"observed", "denoised", "denoised and imputed", "latent"}
        assert {int(row["n"]) for row in rows} == {600 if name == "tpm.tsv" else 300}
        for source in ("observed", "denoised", "latent"):
            for regression in ("ridge", "lasso"):
                found[name, source, regression] = values(rows, pool=source, predictor=regression)
    for regression in ("ridge", "lasso"):
        assert found["tpm.tsv", "observed", regression]["pearson"] > 0.9
        assert found["tpm.tsv", "observed", regression]["r2"] > 0.8
        for source in ("observed", "denoised", "latent"):
            assert abs(found["shuffled.tsv", source, regression]["pearson"]) < 0.2
        assert found["tpm.tsv", "denoised", regression]["pearson"] > 0.5
