"""`candi calibrate`: a right forecast passes, a wrong one is caught, and what --fit learns mends it elsewhere."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from candi_cli.commands._judge_options import JudgeOptions
from candi_cli.commands._judging import Judgement
from candi_cli.commands._recalibration import recalibrated
from candi_cli.commands.calibrate import command
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.evaluation.recalibration import CountFactors
from candi_cli.evaluation.tracks import LOG_LIMIT
from candi_cli.genome import Region
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import JudgedTrack
from candi_cli.model import load
from candi_cli.model.recalibration import Fit
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Described, Predictions, PredictionWriter

SIZES = {"chrA": 12_000_000, "chrB": 8_000_000}
KEY = ("cell", "H3K4me3")
RESOLUTION = 25


class Known(NamedTuple):
    """A store whose experiment was drawn from known distributions, and files of predictions."""

    store: Path
    right: Path
    wide: Path  # every sd 3 times as large as it should be


def write_predictions(path: Path, parameters: dict[str, np.ndarray], *, observed: bool = False) -> None:
    described = Described(
        RESOLUTION, SIZES, {"family": "candi", "sha256": "0" * 64},
        {KEY: {"observed": observed, "covariates": None, "asked": {}, "parameters": list(parameters)}},
        {KEY[0]: [Region(chrom, 0, length) for chrom, length in SIZES.items()]},
    )  # fmt: skip
    with PredictionWriter(path, described) as writer:
        start = 0
        for chrom, length in SIZES.items():
            values = np.stack(list(parameters.values()), axis=1)[start : start + length // RESOLUTION]
            writer.add(KEY[0], Region(chrom, 0, length), values.astype(np.float32))
            start += length // RESOLUTION


def write_store(path: Path, counts: np.ndarray, signal: np.ndarray, peaks: np.ndarray) -> None:
    rule = CountingRule()
    with Store.create(path, rule=rule, chromsizes=SIZES) as store:
        store.add_experiment(*KEY)
        start = 0
        for chrom, length in SIZES.items():
            here = slice(start, start + length // RESOLUTION)
            store.write(*KEY, "counts", chrom, counts[here].astype(np.uint32))
            store.write(*KEY, "signal", chrom, signal[here].astype(np.float32))
            store.write_spans(*KEY, chrom, np.array([[0, length]], dtype=np.int64))
            store.write(*KEY, "peaks", chrom, peaks[here].astype(np.uint8))
            start += length // RESOLUTION
        store.describe(*KEY, Covariates(depth=1e6, span_bp=float(sum(SIZES.values()))))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    rng = np.random.default_rng(7)
    n = sum(SIZES.values()) // RESOLUTION
    smooth = np.convolve(rng.normal(size=n), np.ones(40) / np.sqrt(40), mode="same")  # bins resemble their neighbours
    log_mean, log_n = -0.5 + smooth, np.full(n, np.log(2.0))
    p = np.exp(log_n) / (np.exp(log_n) + np.exp(log_mean))
    counts = rng.negative_binomial(np.exp(log_n), p)
    mean, sd = 1 + 0.5 * smooth, np.full(n, 0.4)
    latent = rng.normal(mean, sd)
    logit = -2 + 2 * smooth
    peaks = rng.random(n) < 1 / (1 + np.exp(-logit))
    write_store(folder / "store.h5", counts, np.sinh(np.maximum(latent, 0)), peaks)
    names = [name for kind in ("counts", "signal", "peaks") for name in PARAMETERS[kind]]
    right = dict(zip(names, (log_mean, log_n, mean, sd, logit), strict=True))
    write_predictions(folder / "right.h5", right)
    write_predictions(folder / "wide.h5", right | {"signal_sd": 3 * sd, "count_log_dispersion": log_n - np.log(9)})
    return Known(folder / "store.h5", folder / "right.h5", folder / "wide.h5")


def scores(text: str, **wanted: str) -> dict[str, dict[str, str]]:
    """Return the rows of a TSV whose columns have certain values, by score."""
    header, *lines = [line.split("\t") for line in text.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    return {row["score"]: row for row in rows if all(row[name] == value for name, value in wanted.items())}


def value(found: dict[str, dict[str, str]], score: str) -> float:
    return float(found[score]["value"])


def test_the_true_model_is_calibrated(candi: Callable, known: Known):
    ran = candi("calibrate", known.store, "--predictions", known.right, "--quiet")
    assert ran.code == 0, ran.err
    for track, predictor in (("counts", "model"), ("signal", "model, censored at 0")):
        found = scores(ran.out, track=track, region="genome", predictor=predictor)
        assert value(found, "pit_error") <= 0.005
        for level in (50, 80, 90, 95):
            expected = value(found, f"expected_coverage_{level}")
            assert value(found, f"coverage_{level}") == pytest.approx(expected, abs=0.01)
        assert value(found, "scale_error") < 0.01 * value(found, "crps")
    peaks = scores(ran.out, track="peaks", region="genome", predictor="model")
    assert value(peaks, "ece") < 0.01


def test_counts_are_not_to_be_judged_by_the_coverage_of_intervals(candi: Callable, known: Known):
    ran = candi("calibrate", known.store, "--predictions", known.right, "--track", "counts", "--quiet")
    found = scores(ran.out, track="counts", region="genome", predictor="model")
    assert value(found, "interval_error") > 0.1  # of a perfect forecast
    assert "discrete" in found["interval_error"]["note"]
    assert value(found, "pit_error") <= 0.005


def test_too_wide_a_forecast_is_caught_by_calibration_but_not_by_the_concordance_index(candi: Callable, known: Known):
    found = {}
    for name, path in (("right", known.right), ("wide", known.wide)):
        ran = candi("calibrate", known.store, "--predictions", path, "--track", "signal", "--quiet")
        ordered = candi("cindex", known.store, "--predictions", path, "--track", "signal", "--quiet")
        assert (ran.code, ordered.code) == (0, 0), ran.err + ordered.err
        calibrated = scores(ran.out, track="signal", region="genome", predictor="model, censored at 0")
        found[name] = calibrated | scores(ordered.out, track="signal", region="genome")
    assert value(found["wide"], "pit_error") > 0.1
    assert value(found["wide"], "crps") > 1.2 * value(found["right"], "crps")
    assert value(found["wide"], "cindex") == pytest.approx(value(found["right"], "cindex"), abs=1e-4)
    assert value(found["wide"], "oriented_probability") < value(found["right"], "oriented_probability") - 0.02


def test_the_concordance_index_of_a_constant_spread_has_its_closed_form(candi: Callable, tmp_path: Path, rng):
    n = sum(SIZES.values()) // RESOLUTION
    rho = 0.6
    mean = rng.normal(size=n)
    observed = 10 + rho * mean + np.sqrt(1 - rho**2) * rng.normal(size=n)  # never 0
    write_store(tmp_path / "store.h5", np.ones(n), np.sinh(observed), np.zeros(n))
    write_predictions(tmp_path / "p.h5", {"signal_mean": mean, "signal_sd": np.full(n, 0.7)})
    ran = candi("cindex", tmp_path / "store.h5", "--predictions", tmp_path / "p.h5", "--track", "signal", "--quiet")
    found = scores(ran.out, region="genome")
    exact = 0.5 + 2 / np.pi * np.arcsin(rho / np.sqrt(2))
    assert abs(value(found, "cindex") - exact) < 3 * float(found["cindex"]["standard_error"])
    assert value(found, "harrell_c") == pytest.approx(0.5 + np.arcsin(rho) / np.pi, abs=0.003)


# ---- recalibration


@pytest.fixture(scope="module")
def narrow(model_path: Path, store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of what the tiny model's distributions would be if every sd were a third, and counts half as many."""
    path = tmp_path_factory.mktemp("narrow") / "truth.h5"
    rng = np.random.default_rng(3)
    with ExitStack() as stack:
        arguments = [str(store_path), "-m", str(model_path), "--pool", "imputed"]
        arguments += ["--track", "counts", "--track", "signal", "--quiet"]
        options = JudgeOptions.of(command.make_context("calibrate", arguments).params)
        judgement = Judgement(options, stack)
        source = stack.enter_context(Store.open(store_path))
        truth = stack.enter_context(Store.create(path, rule=source.rule, chromsizes=source.chromsizes))
        drawn: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        for judged in judgement.tracks():
            track = judged.track
            one, other = track.parameters.astype(np.float64)
            if track.kind == "signal":
                values = np.sinh(np.maximum(rng.normal(one, other / 3), 0))
            else:
                mean, n = 0.5 * np.exp(one), 4 * np.exp(other)
                values = rng.negative_binomial(n, n / (n + mean))
            drawn.setdefault((track.biosample, track.assay), {})[track.kind] = values
            grid = track.grid
        for key, layers in drawn.items():
            truth.add_experiment(*key)
            for kind, values in layers.items():
                for stretch in grid.stretches:
                    kept = values[stretch.place]
                    typed = kept.astype(np.uint32) if kind == "counts" else kept.astype(np.float32)
                    truth.write(*key, kind, stretch.region.chrom, typed)
            truth.describe(*key, source.experiment(*key).covariates)
    return path


def test_fit_mends_a_wrong_spread_and_scale_on_chromosomes_that_it_has_not_seen(
    candi: Callable, model_path: Path, store_path: Path, narrow: Path, tmp_path: Path
):
    new = tmp_path / "new.safetensors"
    ran = candi(
        "calibrate", store_path, "-m", model_path, "--truth", narrow, "--pool", "imputed", "--quiet",
        "--fit", "-r", "chr1", "--test", "chr2", "-M", new, "-o", tmp_path / "scores.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]

    def of(kind: str, predictor: str, score: str) -> dict[tuple[str, str], float]:
        return {
            (row["biosample"], row["assay"]): row["value"]
            for row in rows
            if (row["track"], row["predictor"], row["score"], row["region"]) == (kind, predictor, score, "genome")
        }

    for kind, end in (("counts", ""), ("signal", ", censored at 0")):
        before, after = (of(kind, f"model{part}{end}", "pit_error") for part in ("", ", recalibrated"))
        assert before.keys() == after.keys()
        assert before
        assert min(before.values()) > 0.04, kind
        assert max(after.values()) <= 0.02, kind
        for level in (90, 95):
            delivered = of(kind, "model, recalibrated", f"delivered_coverage_{level}")
            assert delivered == pytest.approx(dict.fromkeys(delivered, level / 100), abs=0.02), kind
    card, old = load(new).card, load(model_path).card
    assert card.weights_sha256 == old.weights_sha256
    assert card.recalibration is not None
    assert card.recalibration.fitted_on["regions"] == ["chr1"]
    temperatures = [fit.parameters["signal_sd"][0] for fit in card.recalibration.fits if fit.kind == "signal"]
    assert temperatures == pytest.approx([1 / 3] * len(temperatures), rel=0.05)


def test_what_is_judged_after_a_fit_is_within_the_limits_of_what_is_written():
    grid = Grid([Region("chrA", 0, 100)], RESOLUTION)
    parameters = np.array([[-15.0, 0.0, 1.0, 15.0], [15.0, 1.0, 0.0, -15.0]], dtype=np.float32)
    track = JudgedTrack(*KEY, "imputed", "counts", grid, np.zeros(4, dtype=np.float32), parameters)
    factors = {"count_log_mean": (1.0, 2.0), "count_log_dispersion": (1.0, 3.0)}
    after = recalibrated(track, Fit(KEY[1], "imputed", "counts", factors, None, 1000))
    expected = CountFactors(2.0, 3.0).apply(parameters)  # what intervals are fitted to
    np.testing.assert_array_equal(after.parameters, expected)
    assert after.parameters.max() == LOG_LIMIT


def test_a_recalibrated_model_predicts_recalibrated_tracks(
    candi: Callable, model_path: Path, store_path: Path, narrow: Path, tmp_path: Path
):
    new = tmp_path / "new.safetensors"
    fitted = candi(
        "calibrate", store_path, "-m", model_path, "--truth", narrow, "--pool", "imputed", "--quiet", "--track",
        "signal", "--fit", "-r", "chr1", "--test", "chr2", "-M", new, "-o", tmp_path / "s.json",
    )  # fmt: skip
    assert fitted.code == 0, fitted.err
    fits = {fit.assay: fit.parameters for fit in load(new).card.recalibration.fits}
    predicted = {}
    for name, model in (("old", model_path), ("new", new)):
        out = tmp_path / f"{name}.h5"
        options = ("--assay", "H3K36me3", "--track", "signal", "-r", "chr2", "-o", out, "--quiet")
        reads = [Path(__file__).parents[2] / "test_data" / f"sim1.{mark}.bam" for mark in ("H3K4me3", "H3K27me3")]
        sheet = Path(__file__).parents[2] / "test_data" / "meta.tsv"
        ran = candi("impute", *reads, "--covariates", sheet, "-m", model, *options)
        assert ran.code == 0, ran.err
        with Predictions(out) as file:
            predicted[name] = file.read("sim1", "H3K36me3", ["signal_mean", "signal_sd"], "chr2", 0, 4_800)
    scale, shift = np.array([fits["H3K36me3"][name] for name in ("signal_mean", "signal_sd")]).T[..., None]
    np.testing.assert_allclose(predicted["new"], predicted["old"] * scale + shift, rtol=1e-4)
    assert scale[1, 0] == pytest.approx(1 / 3, rel=0.1)
