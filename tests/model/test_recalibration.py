"""A recalibration in a model card: it comes back as it was, nothing else is let in, and predictions change by it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candi_cli.commands._tracks import lane_covariates, prediction_dataset
from candi_cli.errors import ModelError
from candi_cli.evaluation.recalibration import LEVEL_GRID
from candi_cli.evaluation.tracks import LOG_LIMIT
from candi_cli.genome import Region
from candi_cli.model import load, save
from candi_cli.model.checkpoint import ModelCard
from candi_cli.model.device import choose
from candi_cli.model.parts import Computing, predict_regions
from candi_cli.model.recalibration import Fit, Recalibration
from candi_cli.store import Store
from candi_cli.store.predictions import Described, parameters_of

GRID = LEVEL_GRID.tolist()


def fit(**changes: Any) -> Fit:
    values = {
        "assay": "H3K36me3", "pool": "imputed", "kind": "signal",
        "parameters": {"signal_mean": (1.0, 0.25), "signal_sd": (0.5, 0.0)}, "levels": [GRID] * 7, "n_bins": 1000,
        "note": "by CRPS", "before": {"crps": 0.5}, "after": {"crps": 0.25},
    }  # fmt: skip
    return Fit(**(values | changes))


def whole(*fits: Fit) -> Recalibration:
    return Recalibration(fits or (fit(),), {"regions": ["chr1"], "seed": 0})


def plain(*fits: Fit) -> dict[str, Any]:
    return json.loads(json.dumps(whole(*fits).to_json()))


def test_a_card_holds_what_was_fitted(model_path: Path, tmp_path: Path):
    model = load(model_path)
    counts = {"count_log_mean": (1.0, -0.5), "count_log_dispersion": (1.0, 0.125)}
    fits = whole(
        fit(), fit(pool="denoised"), fit(kind="counts", parameters=counts),
        fit(kind="peaks", parameters={"peak_logit": (2.0, -1.0)}, levels=None),
    )  # fmt: skip
    save(tmp_path / "new.safetensors", model.network, replace(model.card, recalibration=fits))
    card = load(tmp_path / "new.safetensors").card
    assert card.recalibration == fits
    assert card.weights_sha256 == model.card.weights_sha256
    assert replace(card, recalibration=None) == model.card


def test_only_fits_of_the_same_assay_pool_and_parameters_apply():
    counts = fit(kind="counts", parameters={"count_log_mean": (1.0, 0.5), "count_log_dispersion": (1.0, 0.0)})
    found = whole(fit(), counts)
    names = parameters_of(("counts", "signal"))
    both = found.of("H3K36me3", "imputed", names)
    assert both is not None
    assert list(both["parameters"]) == ["signal_mean", "signal_sd", "count_log_mean", "count_log_dispersion"]
    assert set(both["levels"]) == {"signal", "counts"}
    alone = found.of("H3K36me3", "imputed", parameters_of(("counts", "peaks")))
    assert alone == {
        "parameters": {"count_log_mean": [1.0, 0.5], "count_log_dispersion": [1.0, 0.0]},
        "levels": {"counts": [GRID] * 7},
    }
    assert found.of("H3K36me3", "denoised", names) is None
    assert found.of("H3K4me3", "imputed", names) is None
    assert found.of("H3K36me3", "imputed", ["signal_mean"]) is None


HUGE = 10**400  # JSON has it, and no float does
WRONG_FIELDS = [
    ("assay", 3), ("assay", None), ("pool", "given"), ("pool", []), ("kind", "expression"), ("kind", []), ("kind", {}),
    ("kind", None), ("parameters", None), ("parameters", {}), ("parameters", {"signal_mean": [1, 0]}),
    ("parameters", {"signal_mean": [1, 0], "signal_sd": [1, 0], "more": [1, 0]}), ("levels", []), ("levels", "all"),
    ("levels", [GRID] * 6), ("levels", [[HUGE] * len(GRID)] * 7), ("n_bins", -1), ("n_bins", 1.5), ("n_bins", True),
    ("n_bins", None), ("note", None), ("note", ["a"]), ("before", None), ("before", {"crps": "low"}),
    ("after", {"crps": HUGE}), ("after", {"crps": math.nan}), ("after", {"crps": True}), ("after", [0.5]),
]  # fmt: skip
WRONG_FACTORS = [
    None, [], [1.0], [1.0, 0.0, 0.0], ["1", 0.0], [True, 0.0], [0.0, 0.0], [-1.0, 0.0], [math.nan, 0.0],
    [1.0, math.nan], [math.inf, 0.0], [1.0, -math.inf], [1.0, 1e4], [1e4, 0.0],
    [HUGE, 0.0], [1.0, -HUGE], {"scale": 1.0, "shift": 0.0},
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_wrong_field_is_refused(name: str, value: Any):
    content = plain()
    content["fits"][0][name] = value
    with pytest.raises(ValueError, match=r"recalibration|level"):
        Recalibration.from_json(content)


@pytest.mark.parametrize("value", WRONG_FACTORS)
def test_a_wrong_factor_is_refused(value: Any):
    content = plain()
    content["fits"][0]["parameters"]["signal_sd"] = value
    with pytest.raises(ValueError, match="recalibration"):
        Recalibration.from_json(content)


@pytest.mark.parametrize("name", list(plain()["fits"][0]))
def test_a_lacking_field_is_refused(name: str):
    content = plain()
    del content["fits"][0][name]
    with pytest.raises(ValueError, match="lacks a field"):
        Recalibration.from_json(content)


@pytest.mark.parametrize(
    "content",
    [
        [], "fits", 3, {"fits": []}, {"fits": {}, "fitted_on": {}}, {"fits": [], "fitted_on": []},
        {"fits": [None], "fitted_on": {}}, {"fits": [[]], "fitted_on": {}}, plain() | {"more": 1}, plain(fit(), fit()),
        {"fits": [{**plain()["fits"][0], "more": 1}], "fitted_on": {}}, {"fits": [{}] * 10_001, "fitted_on": {}},
    ],
)  # fmt: skip
def test_what_is_no_recalibration_is_refused(content: Any):
    with pytest.raises(ValueError, match="recalibration"):
        Recalibration.from_json(content)


def test_a_model_file_with_a_wrong_recalibration_cannot_be_used(model_path: Path, tmp_path: Path, monkeypatch):
    model = load(model_path)
    bad = plain()
    bad["fits"][0]["kind"] = []
    text = json.dumps(json.loads(model.card.to_json()) | {"recalibration": bad})
    monkeypatch.setattr(
        ModelCard, "to_json", lambda self: json.dumps(json.loads(text) | {"weights_sha256": self.weights_sha256})
    )
    save(tmp_path / "bad.safetensors", model.network, model.card)
    with pytest.raises(ModelError, match="recalibration: a fit is of no known track"):
        load(tmp_path / "bad.safetensors")


def predictions(model_path: Path, store_path: Path, fits: dict[str, Any] | None) -> np.ndarray:
    """Return all parameters of one assay in some windows: shape (L, 5)."""
    model = load(model_path)
    with Store.open(store_path) as store:
        dataset = prediction_dataset(model, store, "sim1", lane_covariates(model, store, "sim1", ()))
        names = parameters_of(("counts", "signal", "peaks"))
        track = {"parameters": names, "recalibration": fits}
        described = Described(25, store.chromsizes, {}, {("sim1", "H3K36me3"): track})
        computing = Computing(choose("cpu"), 4, 1)
        region = [Region("chr2", 0, 40_000)]
        pieces = predict_regions(model, described, "sim1", region, dataset, computing)
        return np.concatenate([values for _, values in pieces])


def test_predictions_are_scaled_shifted_and_kept_within_the_limits_of_logs(model_path: Path, store_path: Path):
    before = predictions(model_path, store_path, None)
    factors = {"count_log_mean": [1.0, 100.0], "count_log_dispersion": [1.0, 0.5], "signal_sd": [3.0, 0.25]}
    after = predictions(model_path, store_path, {"parameters": factors, "levels": {}})
    assert before.shape == after.shape == (1_600, 5)
    np.testing.assert_array_equal(after[:, 0], np.full(1_600, LOG_LIMIT))
    np.testing.assert_allclose(after[:, 1], before[:, 1] + 0.5, rtol=1e-6)
    np.testing.assert_array_equal(after[:, 2], before[:, 2])  # no fit of the mean
    np.testing.assert_allclose(after[:, 3], 3 * before[:, 3] + 0.25, rtol=1e-6)
    np.testing.assert_array_equal(after[:, 4], before[:, 4])
    far = predictions(model_path, store_path, {"parameters": {"peak_logit": [1.0, 500.0]}, "levels": {}})
    np.testing.assert_allclose(far[:, 4], before[:, 4] + 500, rtol=1e-6)  # a logit has no such limit
