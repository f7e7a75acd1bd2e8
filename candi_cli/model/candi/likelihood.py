"""The three likelihoods of the paper (Methods, "Loss Function"), in float32 and in forms that cannot overflow.

The negative binomial is parametrised by the logs of its mean and dispersion n: variance = mean + mean^2 / n.
The paper's parameters follow: count_n = n, count_p = n / (n + mean), scipy's convention for p. No probability is ever
formed: in float32 and below, one that is near 1 is 1, which has no gradient.

Nothing here hides a value that is not finite: a loss of NaN must stop the training, not become a loss of 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_MEAN_LIMIT = 14.0
LOG_DISPERSION_LIMITS = (-7.0, 10.0)
SD_FLOOR = 0.05  # arcsinh units: below it one bin could outweigh a batch
_STIRLING_FROM = 16.0


def negative_binomial_nll(counts: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """Return -log P(counts) elementwise, in nats.

    lgamma(n + y) - lgamma(n) - y log n is computed by its Stirling difference where n is large: the plain difference
    of two lgammas loses all its digits there. As n grows, this is the Poisson likelihood. In float32 the error stays
    below 5e-6 of max(1, counts, result) for counts to 5e5 and n to 1e8, and the gradients' below that of what cancels.

    Parameters
    ----------
    counts : reads per bin, any type; log_mean, log_dispersion : natural logs, any floating type
    """
    counts, log_mean, log_dispersion = counts.float(), log_mean.float(), log_dispersion.float()
    ratio = log_mean - log_dispersion
    return (
        torch.lgamma(counts + 1)
        - _rising_factorial_excess(counts, log_dispersion)
        - counts * log_mean
        + counts * F.softplus(ratio)
        + torch.exp(log_dispersion) * F.softplus(ratio)
    )


def _rising_factorial_excess(counts: Tensor, log_dispersion: Tensor) -> Tensor:
    """Return lgamma(n + y) - lgamma(n) - y log n for n = exp(log_dispersion)."""
    n = torch.exp(log_dispersion)
    small = n.clamp(max=_STIRLING_FROM)
    exact = torch.lgamma(small + counts) - torch.lgamma(small) - counts * small.log()
    large = n.clamp(min=_STIRLING_FROM)
    total = large + counts
    by_total, by_large = 1 / total, 1 / large  # powers of these cannot overflow
    stirling = (
        (total - 0.5) * torch.log1p(counts * by_large)
        - counts
        + (by_total - by_large) / 12
        - (by_total**3 - by_large**3) / 360
    )
    return torch.where(n < _STIRLING_FROM, exact, stirling)


def gaussian_nll(values: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Return -log density elementwise, in nats, with its constant."""
    values, mean, sd = values.float(), mean.float(), sd.float()
    return 0.5 * ((values - mean) / sd) ** 2 + sd.log() + 0.5 * math.log(2 * math.pi)


def gaussian_emphasis(sd: Tensor, beta: float) -> Tensor:
    """Return the weight sd^(2 beta) of each entry in a Gaussian loss, without a gradient (Seitzer et al. 2022).

    The likelihood (beta 0) divides the gradient of the mean by the variance, so that entries which are thought
    uncertain hardly correct their mean. With beta 1 the mean learns as under the squared error, with 0.5 in between.
    """
    return sd.detach().float() ** (2 * beta)


def peak_nll(peaks: Tensor, logit: Tensor) -> Tensor:
    """Return the binary cross-entropy of peak calls elementwise, from logits, in nats."""
    return F.binary_cross_entropy_with_logits(logit.float(), peaks.float(), reduction="none")


def soft_clamp(values: Tensor, low: float, high: float) -> Tensor:
    """Return values bent smoothly into (low, high) by a tanh around the middle, where its slope is 1.

    Unlike a clamp it has a gradient outside of the limits too, so that what was led out of them can come back.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * torch.tanh((values - middle) / half)


def sum_where(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum of the valid entries, 0 when there is none; others get no gradient here, even if they are NaN.

    But 0 times the infinite slope of what made such an entry is NaN: targets that are not valid must be finite.
    """
    return torch.where(valid, values, 0).sum()
