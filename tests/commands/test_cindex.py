"""`candi cindex`: against all pairs, against classes and seeds, and the same by any way in."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import norm

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Region
from candi_cli.store import Store
from candi_cli.store.predictions import Described, PredictionWriter, rounded

SIZES = {"chrA": 30_000, "chrB": 20_000}
N_A, N = 1_200, 2_000
KEY = ("cell", "H3K4me3")
SOME = ("-r", "chr2:1-20,000", "--quiet")


class Known(NamedTuple):
    """A store and predictions of it; counts, mean and sd as they are in the files."""

    store: Path
    predictions: Path
    counts: np.ndarray
    signal: np.ndarray
    parameters: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder, rng = tmp_path_factory.mktemp("known"), np.random.default_rng(4)
    mean = np.maximum(np.convolve(rng.normal(size=N), np.ones(9) / 3, mode="same") + 1, 0.01)
    sd = np.exp(0.4 * rng.normal(size=N) - 1)
    signal = np.maximum(rng.normal(mean, sd), 0).astype(np.float32)
    log_mean = mean - 0.5
    counts = rng.negative_binomial(2, 2 / (2 + np.exp(log_mean)))
    with Store.create(folder / "s.h5", rule=CountingRule(), chromsizes=SIZES) as store:
        store.add_experiment(*KEY)
        for chrom, here in (("chrA", slice(0, N_A)), ("chrB", slice(N_A, N))):
            store.write(*KEY, "counts", chrom, counts[here].astype(np.uint32))
            store.write(*KEY, "signal", chrom, np.sinh(signal[here]))
            store.write_spans(*KEY, chrom, np.array([[0, SIZES[chrom]]], dtype=np.int64))
            store.write(*KEY, "peaks", chrom, (signal[here] > 2).astype(np.uint8))
        store.describe(*KEY, Covariates(depth=1e6))
    parameters = {
        "count_log_mean": log_mean, "count_log_dispersion": np.full(N, np.log(2)), "signal_mean": mean,
        "signal_sd": sd, "peak_logit": mean,
    }  # fmt: skip
    regions = [Region(chrom, 0, length) for chrom, length in SIZES.items()]
    track = {"observed": False, "covariates": None, "asked": {}, "parameters": list(parameters)}
    columns = np.stack(list(parameters.values()), axis=1).astype(np.float32)
    with PredictionWriter(folder / "p.h5", Described(25, SIZES, {}, {KEY: track}, {"cell": regions})) as writer:
        writer.add("cell", regions[0], columns[:N_A])
        writer.add("cell", regions[1], columns[N_A:])
    written = {name: rounded(each.astype(np.float32)).astype(float) for name, each in parameters.items()}
    return Known(folder / "s.h5", folder / "p.h5", counts, signal, written)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def scores(text: str, **wanted: str) -> dict[str, tuple[float, float]]:
    """Return value and standard error of rows by score."""
    chosen = [row for row in rows_of(text) if all(row[name] == value for name, value in wanted.items())]

    def number(cell: str) -> float:
        return math.nan if cell == "NA" else float(cell)

    assert len({row["score"] for row in chosen}) == len(chosen)
    return {row["score"]: (number(row["value"]), number(row["standard_error"])) for row in chosen}


def all_pairs(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> dict[str, float]:
    """Return the scores of a Gaussian track over all pairs of bins."""
    i, j = np.triu_indices(len(y), k=1)
    unequal = y[i] != y[j]
    i, j = i[unequal], j[unequal]
    above = y[i] > y[j]
    z = (mean[i] - mean[j]) / np.hypot(sd[i], sd[j])
    # a pair the other way round has the opposite z and the opposite order: the AUC is over both
    order = np.argsort(np.concatenate([z, -z]), kind="stable")
    positive = np.concatenate([above, ~above])[order]
    ranks = np.arange(1, len(order) + 1)
    n = positive.sum()
    auc = (ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(order) - n))
    right = np.where(above, norm.cdf(z), norm.cdf(-z))
    concordant = np.where(mean[i] == mean[j], 0.5, (mean[i] > mean[j]) == above)
    return {
        "cindex": float(auc), "oriented_probability": float(right.mean()), "harrell_c": float(concordant.mean()),
        "comparable_pairs": float(unequal.mean()),
    }  # fmt: skip


def test_scores_of_signal_are_those_of_all_pairs(candi: Callable, known: Known, tmp_path: Path):
    (tmp_path / "mine.bed").write_text("chrA\t5000\t20000\nchrB\t0\t10010\n")
    (tmp_path / "black.bed").write_text("chrA\t6010\t9000\n")
    options = ("--bed", f"mine={tmp_path / 'mine.bed'}", "--blacklist", tmp_path / "black.bed", "--track", "signal")
    ran = candi("cindex", known.store, "--predictions", known.predictions, *options, "--pairs", 1_000_000, "--quiet")
    assert ran.code == 0, ran.err
    kept = np.ones(N, dtype=bool)
    kept[240:360] = False
    mine = np.zeros(N, dtype=bool)
    mine[200:800] = mine[N_A : N_A + 401] = True
    for region, mask in (("genome", kept), ("mine", kept & mine)):
        found = scores(ran.out, region=region)
        exact = all_pairs(
            known.signal[mask].astype(float), known.parameters["signal_mean"][mask], known.parameters["signal_sd"][mask]
        )
        monte_carlo = found["cindex_monte_carlo_error"][0]
        assert monte_carlo < 1e-3
        assert abs(found["cindex"][0] - exact["cindex"]) < 5 * monte_carlo + 1e-4, region
        assert found["harrell_c"][0] == pytest.approx(exact["harrell_c"], abs=1e-6), region
        assert found["harrell_c_pairs"][0] == pytest.approx(exact["harrell_c"], abs=3e-3), region
        assert found["oriented_probability"][0] == pytest.approx(exact["oriented_probability"], abs=3e-3), region
        assert found["comparable_pairs"][0] == pytest.approx(exact["comparable_pairs"], abs=3e-3), region
        assert found["cindex"][1] > monte_carlo  # blocks vary more than pairs


def test_counts_have_the_order_of_their_means_where_the_dispersion_is_one(candi: Callable, known: Known):
    ran = candi("cindex", known.store, "--predictions", known.predictions, "--track", "counts", "--quiet")
    found = scores(ran.out, region="genome")
    y, mean = known.counts.astype(float), known.parameters["count_log_mean"]
    exact = all_pairs(y, mean, np.ones(N))
    assert found["harrell_c"][0] == pytest.approx(exact["harrell_c"], abs=1e-6)
    assert found["comparable_pairs"][0] == pytest.approx(exact["comparable_pairs"], abs=3e-3)
    assert found["cindex"][0] > exact["harrell_c"]


def test_the_seed_draws_other_pairs_and_the_same_seed_the_same_bytes(candi: Callable, known: Known):
    common = ("cindex", known.store, "--predictions", known.predictions, "--pairs", 20_000, "--quiet")
    one, again, other = (candi(*common, *seed).out for seed in ((), ("--seed", 0), ("--seed", 1)))
    assert one == again
    first, second = (scores(text, region="genome", track="signal") for text in (one, other))
    assert first["cindex"] != second["cindex"]
    assert abs(first["cindex"][0] - second["cindex"][0]) < 6 * first["cindex_monte_carlo_error"][0]
    assert first["harrell_c"] == second["harrell_c"]  # over all pairs


def test_order_of_regions_is_nothing_and_peaks_are_left_out(candi: Callable, known: Known):
    common = ("cindex", known.store, "--predictions", known.predictions, "--pairs", 20_000, "--quiet")
    one, other = (
        candi(*common, "-r", first, "-r", second).out for first, second in (("chrA", "chrB"), ("chrB", "chrA"))
    )
    assert one == other == candi(*common).out
    assert {row["track"] for row in rows_of(one)} == {"counts", "signal"}
    assert candi(*common, "--track", "peaks").code == 2


def test_no_increasing_change_of_the_spread_of_all_bins_changes_the_index(
    candi: Callable, known: Known, tmp_path: Path
):
    regions = [Region(chrom, 0, length) for chrom, length in SIZES.items()]
    track = {"observed": False, "covariates": None, "asked": {}, "parameters": ["signal_mean", "signal_sd"]}
    columns = np.stack([known.parameters["signal_mean"], 4 * known.parameters["signal_sd"]], axis=1).astype(np.float32)
    described = Described(25, SIZES, {}, {KEY: track}, {"cell": regions})
    with PredictionWriter(tmp_path / "wide.h5", described) as writer:
        writer.add("cell", regions[0], columns[:N_A])
        writer.add("cell", regions[1], columns[N_A:])
    right, wide = (
        scores(candi("cindex", known.store, "--predictions", path, "--track", "signal", "--quiet").out, region="genome")
        for path in (known.predictions, tmp_path / "wide.h5")
    )
    assert wide["cindex"][0] == pytest.approx(right["cindex"][0], abs=1e-5)
    assert wide["harrell_c"] == right["harrell_c"]
    assert wide["oriented_probability"][0] < right["oriented_probability"][0] - 0.1


def test_a_model_is_judged_on_what_it_was_not_shown(
    candi: Callable, model_path: Path, store_path: Path, rewritten: Callable, tmp_path: Path
):
    key = ("sim1", "H3K36me3")

    def constant(at: tuple, layer: str, chrom: str, values: np.ndarray) -> np.ndarray:
        return np.ones_like(values) if at == key else values

    changed = rewritten(store_path, tmp_path / "c.h5", constant)
    common = ("-m", model_path, "--pool", "imputed", "--assay", key[1], "--pairs", 20_000, *SOME)
    before, after = (candi("cindex", path, *common) for path in (store_path, changed))
    assert (before.code, after.code) == (0, 0), before.err + after.err
    other = {"biosample": "sim2", "assay": key[1]}
    assert scores(before.out, **other) == scores(after.out, **other)
    flat = [row for row in rows_of(after.out) if row["biosample"] == "sim1" and row["score"] == "cindex"]
    assert flat
    assert all(row["value"] == "NA" and row["note"] for row in flat)  # no pair of bins differs
    assert all(cell[0] > 0 for cell in scores(before.out, biosample="sim1", track="counts").values())


def test_a_folder_holds_the_same_numbers(candi: Callable, known: Known, tmp_path: Path):
    common = ("cindex", known.store, "--predictions", known.predictions, "--pairs", 20_000, "--quiet")
    plain = candi(*common).out
    assert candi(*common, "-o", tmp_path / "r").code == 0
    assert (tmp_path / "r" / "scores.tsv").read_text() == plain
    rows = json.loads((tmp_path / "r" / "scores.json").read_text())["rows"]
    for cells, row in zip(rows_of(plain), rows, strict=True):
        assert cells["score"] == row["score"]
        assert cells["value"] == ("NA" if row["value"] is None else f"{row['value']:.6g}")
    assert (tmp_path / "r" / "index.html").is_file()
    assert list((tmp_path / "r" / "figures").glob("*.svg"))
    assert list((tmp_path / "r").glob("*_mqc.json"))
