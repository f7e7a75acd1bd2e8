"""Validation scores: those of the metrics, on the entries that exist."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import bernoulli, nbinom, norm, pearsonr, spearmanr

from candi_cli.model.candi.dataset import CandiTargets
from candi_cli.model.candi.likelihood import gaussian_nll, negative_binomial_nll, peak_nll
from candi_cli.model.candi.network import CandiOutput
from candi_cli.model.candi.validation import SCORES, scores

SHAPE = (4, 60, 3)


def tensor(values, dtype=torch.float32):
    return torch.as_tensor(np.asarray(values), dtype=dtype)


def pair(rng, shape=SHAPE):
    """Targets drawn from the predicted distributions; half of the bins masked; the last window's first lane missing."""
    log_mean, log_n = rng.normal(0.5, 1.5, shape), rng.normal(1, 0.3, shape)
    mean, sd, logit = rng.gamma(2, 1, shape) + 4, rng.uniform(0.2, 1, shape), rng.normal(-1, 2, shape)
    output = CandiOutput(*map(tensor, (log_mean, log_n, mean, sd, logit)))
    counts = rng.poisson(rng.gamma(np.exp(log_n), np.exp(log_mean - log_n)))
    signal = np.sinh(np.maximum(0, rng.normal(mean, sd)))
    peaks = rng.random(shape) < 1 / (1 + np.exp(-logit))
    valid = torch.ones((shape[0], 3, shape[2]), dtype=torch.bool)
    valid[-1, :, 0] = False
    masked = torch.zeros(shape, dtype=torch.bool)
    masked[:, ::2] = True
    return output, CandiTargets(
        tensor(counts, torch.int32), tensor(signal, torch.float64), tensor(peaks, torch.uint8), masked, valid
    )


def entries(targets, layer, part):
    where = targets.valid[:, layer, None] & (targets.masked if part == "imp" else ~targets.masked)
    return where.numpy()


def test_each_score_is_scipys_over_the_entries_of_its_kind(rng):
    output, targets = pair(rng)
    table = scores([(output, targets)])
    log_mean, log_n, mean, sd, logit = (part.double().numpy() for part in output)
    n = np.exp(log_n)
    p, probability = n / (n + np.exp(log_mean)), 1 / (1 + np.exp(-logit))
    counts, peaks = targets.counts.numpy(), targets.peaks.numpy()
    signal = np.arcsinh(targets.signal.numpy())
    for part in ("obs", "imp"):
        for layer, (name, log_likelihood, observed, expected) in enumerate([
            ("count", nbinom.logpmf(counts, n, p), counts, np.exp(log_mean)),
            ("signal", norm.logpdf(signal, mean, sd), signal, mean),
            ("peak", bernoulli.logpmf(peaks, probability), peaks, probability),
        ]):  # fmt: skip
            where = entries(targets, layer, part)
            ours = {score: table[f"{name}_{part}_{score}"] for score in SCORES}
            assert ours["nll"] == pytest.approx(-log_likelihood[where].mean(), rel=1e-6)
            assert ours["pearson"] == pytest.approx(pearsonr(observed[where], expected[where])[0], abs=1e-6)
            assert ours["spearman"] == pytest.approx(spearmanr(observed[where], expected[where])[0], abs=1e-6)
            single = [
                pearsonr(observed[..., a][where[..., a]], expected[..., a][where[..., a]])[0] for a in range(SHAPE[2])
            ]
            assert table[f"{name}_{part}_pearson_macro"] == pytest.approx(np.mean(single), abs=1e-6)


def test_the_likelihoods_are_those_of_the_loss(rng):
    output, targets = pair(rng)
    table = scores([(output, targets)])
    where = torch.from_numpy(entries(targets, 0, "imp"))
    nll = negative_binomial_nll(targets.counts, output.count_log_mean, output.count_log_dispersion)
    assert table["count_imp_nll"] == pytest.approx(nll[where].mean().item(), rel=1e-5)
    nll = gaussian_nll(torch.arcsinh(targets.signal), output.signal_mean, output.signal_sd)
    assert table["signal_imp_nll"] == pytest.approx(nll[where].mean().item(), rel=1e-5)
    assert table["peak_imp_nll"] == pytest.approx(peak_nll(targets.peaks, output.peak_logit)[where].mean().item())


def test_a_true_model_has_no_pit_error_and_one_with_a_wrong_scale_has(rng):
    output, targets = pair(rng, (8, 1000, 3))
    table = scores([(output, targets)])
    wrong = output._replace(count_log_mean=output.count_log_mean + 0.7, signal_sd=output.signal_sd * 3)
    for name in ("count", "signal"):
        assert table[f"{name}_imp_pit_error"] < 0.01
        assert table[f"{name}_imp_pit_error_macro"] < 0.02
        assert scores([(wrong, targets)])[f"{name}_imp_pit_error"] > 0.05


def test_pairs_count_by_their_entries_not_by_their_number(rng):
    one, other = pair(rng, (1, 60, 3)), pair(rng, (6, 60, 3))
    together = scores([one, other])
    output = CandiOutput(*(torch.cat(parts) for parts in zip(one[0], other[0], strict=True)))
    targets = CandiTargets(*(torch.cat(parts) for parts in zip(one[1], other[1], strict=True)))
    whole = scores([(output, targets)])
    assert together == pytest.approx(whole, rel=1e-9)


def test_the_macro_mean_weighs_a_rare_assay_like_a_frequent_one(rng):
    output, targets = pair(rng, (6, 60, 2))
    targets.valid[1:, :, 0] = False
    table = scores([(output, targets)])
    nll = gaussian_nll(torch.arcsinh(targets.signal), output.signal_mean, output.signal_sd).numpy()
    where = entries(targets, 1, "obs")
    single = [nll[..., a][where[..., a]].mean() for a in range(2)]
    assert table["signal_obs_nll_macro"] == pytest.approx(np.mean(single), rel=1e-5)
    assert table["signal_obs_nll"] == pytest.approx(nll[where].mean(), rel=1e-5)
    assert table["signal_obs_nll"] != pytest.approx(table["signal_obs_nll_macro"], rel=1e-6)


def test_a_model_without_counts_has_no_scores_of_counts(rng):
    output, targets = pair(rng)
    table = scores([(output._replace(count_log_mean=None, count_log_dispersion=None), targets)])
    assert {name.partition("_")[0] for name in table} == {"signal", "peak"}
    whole = scores([(output, targets)])
    assert table == {name: value for name, value in whole.items() if not name.startswith("count")}


def test_what_was_not_measured_is_not_scored(rng):
    output, targets = pair(rng)
    changed = targets._replace(counts=targets.counts.clone())
    changed.counts[-1, :, 0] = 10_000  # not valid
    assert scores([(output, changed)]) == scores([(output, targets)])


def test_without_entries_of_a_kind_its_scores_are_nan_and_the_names_stay(rng):
    output, targets = pair(rng)
    table = scores([(output, targets._replace(masked=torch.zeros_like(targets.masked)))])
    assert set(table) == set(scores([(output, targets)]))
    assert {name for name, value in table.items() if math.isnan(value)} == {name for name in table if "_imp_" in name}


def test_an_assay_without_any_read_has_no_correlation_and_leaves_those_of_the_others(rng):
    output, targets = pair(rng)
    targets.counts[..., 1] = 0
    table = scores([(output, targets)])
    assert math.isfinite(table["count_imp_spearman_macro"])
    assert math.isfinite(table["count_imp_nll_macro"])
    only = scores([(output, targets._replace(counts=torch.zeros_like(targets.counts)))])
    assert math.isnan(only["count_imp_spearman_macro"])
    assert math.isnan(only["count_imp_spearman"])


def test_scores_are_the_same_when_repeated(rng):
    pairs = [pair(rng, (30, 1200, 3))]  # more than is ranked
    assert scores(pairs) == scores(pairs)
