"""The likelihoods against scipy and float64 references, at the places where naive forms break."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaln
from scipy.stats import bernoulli, nbinom, norm, poisson
from torch import nn

from candi_cli.evaluation.distributions import negative_binomial_log_pmf
from candi_cli.model.candi import PRESETS, Model, preset
from candi_cli.model.candi.likelihood import (
    LOG_DISPERSION_LIMITS,
    LOG_MEAN_LIMIT,
    SD_FLOOR,
    gaussian_emphasis,
    gaussian_nll,
    negative_binomial_nll,
    peak_nll,
    soft_clamp,
    sum_where,
)
from candi_cli.model.terms import LossTerm, means, weighted_loss


def nb_reference(y, log_mean, log_n):
    """-log P in float64 from logs, stable for every mean and for a dispersion that is not too large."""
    y, log_mean, log_n = (np.asarray(x, dtype=np.float64) for x in (y, log_mean, log_n))
    n = np.exp(log_n)
    log_total = np.logaddexp(log_n, log_mean)
    return gammaln(y + 1) - (gammaln(n + y) - gammaln(n)) - n * (log_n - log_total) - y * (log_mean - log_total)


def nb_gradients(y, log_mean, log_n):
    """d(-log P) by log mean and by log dispersion, in float64."""
    mean, n = np.exp(log_mean), np.exp(log_n)
    by_mean = (mean - y) * n / (n + mean)
    by_dispersion = -n * (digamma(n + y) - digamma(n) - np.log1p(mean / n) + (mean - y) / (n + mean))
    return by_mean, by_dispersion


def evaluated(y, log_mean, log_n):
    """The loss of one entry and its gradients by log mean and log dispersion."""
    parameters = [torch.tensor(float(x), requires_grad=True) for x in (log_mean, log_n)]
    nll = negative_binomial_nll(torch.tensor(float(y)), *parameters)
    nll.backward()
    return nll.item(), *(parameter.grad.item() for parameter in parameters)


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


@pytest.mark.parametrize("largest", [5, 500, 500_000])
@pytest.mark.parametrize("log_n", [(-7, 2.7), (2.7, 2.8), (2.8, 10), (10, 18.5)], ids=str)
def test_float32_keeps_loss_and_gradients_to_dispersions_of_1e8_and_counts_of_5e5(rng, log_n, largest):
    y = np.floor(np.exp(rng.uniform(0, np.log(largest), 5000)))
    log_mean = np.clip(np.log(y) + rng.normal(0, 2, 5000), -14, 14).astype(np.float32)
    log_n = rng.uniform(*log_n, 5000).astype(np.float32)
    parameters = [torch.tensor(x, requires_grad=True) for x in (log_mean, log_n)]
    nll = negative_binomial_nll(torch.tensor(y, dtype=torch.float32), *parameters)
    nll.sum().backward()
    exact = -negative_binomial_log_pmf(y, log_mean, log_n)
    size = np.maximum(1, np.maximum(np.abs(exact), y))
    assert (np.abs(nll.detach().numpy() - exact) / size).max() < 6e-6
    by_mean, by_dispersion = nb_gradients(y, log_mean.astype(float), log_n.astype(float))
    assert (np.abs(parameters[0].grad.numpy() - by_mean) / np.maximum(size, np.abs(by_mean))).max() < 5e-6
    size = np.maximum(size, np.abs(by_dispersion))
    assert (np.abs(parameters[1].grad.numpy() - by_dispersion) / size).max() < 2e-3


@pytest.mark.parametrize("n", [1e4, 1e6, 1e8])
def test_large_dispersions_do_not_lose_the_digits_that_a_difference_of_lgammas_loses(n):
    y = torch.arange(0.0, 60.0)
    exact = -negative_binomial_log_pmf(y.numpy(), np.log(10), np.log(n))
    size = torch.tensor(n)
    plain = torch.lgamma(y + 1) - (torch.lgamma(y + size) - torch.lgamma(size))
    plain += size * np.log1p(10 / n) - y * np.log(10 / (n + 10))
    ours = negative_binomial_nll(y, torch.full_like(y, np.log(10)), torch.full_like(y, np.log(n)))
    assert np.abs(ours.numpy() - exact).max() < 3e-3 * (n / 1e4) ** 0.1
    assert np.abs(plain.numpy() - exact).max() > 3e-3


def test_negative_binomial_with_large_dispersion_is_poisson():
    y = torch.arange(40.0)
    ours = negative_binomial_nll(y, torch.full_like(y, 2.0), torch.full_like(y, 10.0)).numpy()
    np.testing.assert_allclose(ours, -poisson.logpmf(y.numpy(), np.exp(2.0)), atol=0.04)


@pytest.mark.parametrize("log_n", [-7.0, 0.0, 2.77, 2.78, 10.0])
@pytest.mark.parametrize("log_mean", [-14.0, 0.0, 14.0])
def test_gradients_are_finite_and_point_to_the_truth(log_mean, log_n):
    _, by_mean, by_dispersion = evaluated(5, log_mean, log_n)
    assert np.isfinite(by_mean)
    assert np.isfinite(by_dispersion)
    assert np.sign(by_mean) == np.sign(np.exp(log_mean) - 5)


def test_a_probability_that_float32_would_round_to_1_still_has_its_loss_and_gradient():
    # logit of p = log n - log mean = 20, n = 2: the clamped form gives 77.9 and a gradient of exactly 0
    nll, by_mean, _ = evaluated(5, np.log(2) - 20, np.log(2))
    assert torch.sigmoid(torch.tensor(20.0)) == 1
    assert nll == pytest.approx(98.2, abs=0.05)
    assert by_mean == pytest.approx(-5, rel=1e-5)


def test_a_probability_that_float32_would_round_to_0_still_has_its_loss_and_gradient():
    nll, by_mean, _ = evaluated(0, np.log(2) + 25, np.log(2))
    assert nll == pytest.approx(50, rel=1e-5)
    assert by_mean == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize(("log_mean", "log_n"), list(itertools.product([-80, -14, 0, 14, 80], [-30, -7, 0, 10, 30])))
@pytest.mark.parametrize("y", [0, 1, 500_000])
def test_no_branch_that_is_not_taken_makes_a_gradient_nan(y, log_mean, log_n):
    assert np.isfinite(evaluated(y, log_mean, log_n)).all()


def test_what_is_not_finite_is_not_hidden():
    nan = torch.tensor(float("nan"))
    one = torch.tensor(1.0)
    for nll in (negative_binomial_nll(one, nan, one), gaussian_nll(one, nan, one), peak_nll(one, nan)):
        total = sum_where(nll[None], torch.tensor([True]))
        assert total.isnan()
        assert weighted_loss({"a": LossTerm(total, total, torch.tensor(1), 1.0)}).isnan()


def test_parameters_in_bfloat16_have_a_float32_loss(rng):
    y = torch.tensor(rng.poisson(3.0, 4000))
    log_mean, log_n = (torch.tensor(rng.normal(1, 0.5, 4000)).bfloat16() for _ in range(2))
    sd = (torch.tensor(rng.uniform(0.1, 2, 4000))).bfloat16()
    for ours, exact in (
        (negative_binomial_nll(y, log_mean, log_n), -negative_binomial_log_pmf(y, log_mean.float(), log_n.float())),
        (gaussian_nll(y, log_mean, sd), -norm.logpdf(y, log_mean.float(), sd.float())),
    ):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean", [0.01, 0.05])
def test_a_small_mean_survives_bfloat16_as_a_log_and_not_as_a_probability(mean):
    log_mean = torch.tensor(np.log(mean)).bfloat16().float()
    assert log_mean.exp().item() == pytest.approx(mean, rel=0.02)
    p = torch.tensor(20 / (20 + mean)).bfloat16().float()
    assert (20 * (1 - p) / p).item() != pytest.approx(mean, rel=0.4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64, torch.float32])
def test_counts_may_come_in_any_type(dtype):
    y = torch.tensor([0, 7, 200])
    expected = negative_binomial_nll(y.float(), torch.ones(3), torch.ones(3))
    assert torch.equal(negative_binomial_nll(y.to(dtype), torch.ones(3), torch.ones(3)), expected)


def test_gaussian_and_peak_equal_scipy(rng):
    y, mean, sd = rng.normal(size=100), rng.normal(size=100), rng.uniform(0.05, 3, 100)
    np.testing.assert_allclose(
        gaussian_nll(*map(torch.tensor, (y, mean, sd))), -norm.logpdf(y, mean, sd), rtol=2e-4, atol=1e-4
    )
    peaks, logit = rng.integers(0, 2, 100), rng.normal(0, 3, 100)
    expected = -bernoulli.logpmf(peaks, 1 / (1 + np.exp(-logit)))
    np.testing.assert_allclose(peak_nll(*map(torch.tensor, (peaks, logit))), expected, rtol=1e-5, atol=1e-6)


def test_the_floor_of_the_sd_bounds_what_one_bin_can_weigh():
    mean = torch.tensor(0.0, requires_grad=True)
    nll = gaussian_nll(torch.tensor(1.0), mean, torch.tensor(SD_FLOOR))
    nll.backward()
    assert nll < 201  # 5e5 with the variance floor of 1e-6
    assert abs(mean.grad) <= 401  # 1e6


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_emphasis_makes_the_gradient_of_the_mean_fall_with_sd_to_the_power_stated(beta):
    sd = torch.tensor([0.1, 1.0, 3.0], requires_grad=True)
    mean = torch.zeros(3, requires_grad=True)
    emphasis = gaussian_emphasis(sd, beta)
    assert not emphasis.requires_grad
    (emphasis * gaussian_nll(torch.ones(3), mean, sd)).sum().backward()
    torch.testing.assert_close(mean.grad, -(sd.detach() ** (2 * beta - 2)))


def test_emphasis_leaves_the_place_where_the_sd_stops():
    sd = torch.tensor(2.0, requires_grad=True)
    (gaussian_emphasis(sd, 0.5) * gaussian_nll(torch.tensor(2.0), torch.tensor(0.0), sd)).backward()
    assert sd.grad == pytest.approx(0, abs=1e-6)  # sd = |error| is the maximum of the likelihood


def test_peak_loss_of_a_confident_mistake_has_its_size_and_a_gradient():
    logit = torch.tensor(-200.0, requires_grad=True)
    nll = peak_nll(torch.tensor(1.0), logit)
    nll.backward()
    assert nll == 200  # a loss made from probabilities stops at 100
    assert logit.grad == pytest.approx(-1)


@pytest.mark.parametrize("limits", [(-LOG_MEAN_LIMIT, LOG_MEAN_LIMIT), LOG_DISPERSION_LIMITS], ids=str)
def test_a_soft_clamp_stays_in_its_limits_and_can_be_left(limits):
    low, high = limits
    values = torch.tensor([low - 20, low, (low + high) / 2, high, high + 20], requires_grad=True)
    bent = soft_clamp(values, low, high)
    assert ((bent > low) & (bent < high)).all()
    assert bent[2].item() == pytest.approx((low + high) / 2)
    assert (bent.diff() > 0).all()
    bent.sum().backward()
    assert (values.grad > 1e-4).all()
    assert values.grad[2] == pytest.approx(1)


def test_an_empty_mask_gives_zero_and_invalid_entries_no_gradient():
    values = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    nothing = sum_where(values, torch.tensor([False, False, False]))
    assert nothing == 0
    nothing.backward()
    assert values.grad.tolist() == [0.0, 0.0, 0.0]
    values.grad = None
    total = sum_where(values, torch.tensor([True, False, True]))
    total.backward()
    assert total == 4
    assert values.grad.tolist() == [1.0, 0.0, 1.0]


def test_a_loss_without_any_entry_is_zero_with_a_gradient_of_zero():
    log_mean = torch.zeros(4, requires_grad=True)
    nll = negative_binomial_nll(torch.ones(4), log_mean, torch.zeros(4))
    nothing = torch.zeros(4, dtype=torch.bool)
    terms = {"count": LossTerm(*(sum_where(nll, nothing),) * 2, nothing.sum(), 1.0)}
    loss = weighted_loss(terms)
    loss.backward()
    assert loss == 0
    assert means(terms)["count"] == 0
    assert log_mean.grad.tolist() == [0.0] * 4


def test_sums_and_counts_of_unequal_parts_add_up_to_the_mean_of_the_whole(rng):
    nll, valid = torch.tensor(rng.gamma(1.0, size=1000)), torch.tensor(rng.random(1000) < 0.2)
    term = partial(LossTerm, weight=0.5)
    parts = [(sum_where(nll[part], valid[part]), valid[part].sum()) for part in (slice(0, 10), slice(10, 1000))]
    total, entries = (sum(column[1:], column[0]) for column in zip(*parts, strict=True))
    whole = weighted_loss({"a": term(total, total, entries)})
    assert whole.item() == pytest.approx(0.5 * nll[valid].mean().item())
    mean_of_means = np.mean([0.5 * (part / n).item() for part, n in parts])
    assert mean_of_means != pytest.approx(whole.item(), rel=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_no_normalisation_uses_statistics_of_the_batch(name):
    with torch.device("meta"):
        model = Model(preset(name, ("a", "b"), resolution=25, reads_sequence=True))
    assert not [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert not [each for each, _ in model.named_buffers() if "running" in each]
