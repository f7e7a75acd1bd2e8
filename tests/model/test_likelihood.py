"""The likelihoods against scipy and float64 references, at the places where naive forms break."""

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from scipy.stats import bernoulli, nbinom, norm, poisson

from candi_cli.model.candi.likelihood import gaussian_nll, negative_binomial_nll, peak_nll, sum_where


def nb_reference(y, log_mean, log_n):
    """-log P in float64 from logs, stable for every mean and dispersion."""
    y, log_mean, log_n = (np.asarray(x, dtype=np.float64) for x in (y, log_mean, log_n))
    n = np.exp(log_n)
    log_total = np.logaddexp(log_n, log_mean)
    return gammaln(y + 1) - (gammaln(n + y) - gammaln(n)) - n * (log_n - log_total) - y * (log_mean - log_total)


def test_negative_binomial_equals_scipy(rng):
    mean, n = np.exp(rng.uniform(-4, 5, 5000)), np.exp(rng.uniform(-2, 4, 5000))
    y = rng.negative_binomial(n, n / (n + mean)).astype(float)
    ours = negative_binomial_nll(*(torch.tensor(x) for x in (y, np.log(mean), np.log(n)))).numpy()
    scipy = -nbinom.logpmf(y, n, n / (n + mean))
    # terms of the size of y cancel, in float32: the error is bounded relative to it
    assert (np.abs(ours - scipy) / np.maximum(1, y)).max() < 1e-5


def test_negative_binomial_holds_over_the_whole_range_of_its_heads(rng):
    log_mean, log_n = rng.uniform(-14, 14, 20_000), rng.uniform(-7, 10, 20_000)
    n, mean = np.exp(log_n), np.exp(log_mean)
    y = np.minimum(rng.poisson(np.minimum(rng.gamma(n, mean / n), 1e6)), 1_000_000).astype(float)
    ours = negative_binomial_nll(*(torch.tensor(x) for x in (y, log_mean, log_n))).double().numpy()
    # gammaln(n + y) - gammaln(n) itself is exact to 1e-9 here, in float64
    error = np.abs(ours - nb_reference(y, log_mean, log_n)) / np.maximum(1, np.maximum(y, ours))
    assert error.max() < 5e-5


def test_negative_binomial_with_large_dispersion_is_poisson():
    y = torch.arange(40.0)
    ours = negative_binomial_nll(y, torch.full_like(y, 2.0), torch.full_like(y, 10.0)).numpy()
    np.testing.assert_allclose(ours, -poisson.logpmf(y.numpy(), np.exp(2.0)), atol=0.04)


@pytest.mark.parametrize("log_n", [-7.0, 0.0, 2.77, 2.78, 10.0])
@pytest.mark.parametrize("log_mean", [-14.0, 0.0, 14.0])
def test_gradients_are_finite_and_point_to_the_truth(log_mean, log_n):
    mean = torch.tensor(log_mean, requires_grad=True)
    dispersion = torch.tensor(log_n, requires_grad=True)
    negative_binomial_nll(torch.tensor(5.0), mean, dispersion).backward()
    assert mean.grad.isfinite()
    assert dispersion.grad.isfinite()
    assert torch.sign(mean.grad) == np.sign(np.exp(log_mean) - 5)


def test_gaussian_and_peak_equal_scipy(rng):
    y, mean, sd = rng.normal(size=100), rng.normal(size=100), rng.uniform(0.05, 3, 100)
    np.testing.assert_allclose(
        gaussian_nll(*map(torch.tensor, (y, mean, sd))), -norm.logpdf(y, mean, sd), rtol=2e-4, atol=1e-4
    )
    peaks, logit = rng.integers(0, 2, 100), rng.normal(0, 3, 100)
    expected = -bernoulli.logpmf(peaks, 1 / (1 + np.exp(-logit)))
    np.testing.assert_allclose(peak_nll(*map(torch.tensor, (peaks, logit))), expected, rtol=1e-5, atol=1e-6)


def test_peak_loss_of_a_confident_mistake_has_a_gradient():
    logit = torch.tensor(-40.0, requires_grad=True)
    peak_nll(torch.tensor(1.0), logit).backward()
    assert logit.grad == pytest.approx(-1)


def test_an_empty_mask_gives_zero_and_invalid_entries_no_gradient():
    values = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    assert sum_where(values, torch.tensor([False, False, False])) == 0
    total = sum_where(values, torch.tensor([True, False, True]))
    total.backward()
    assert total == 4
    assert values.grad.tolist() == [1.0, 0.0, 1.0]
