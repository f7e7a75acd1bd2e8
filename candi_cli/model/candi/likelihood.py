"""The three likelihoods of the paper (Methods, "Loss Function"), in float32 and in forms that cannot overflow.

The negative binomial is parametrised by the logs of its mean and dispersion n: variance = mean + mean^2 / n.
The paper's parameters follow: count_n = n, count_p = n / (n + mean), scipy's convention for p.
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
    of two lgammas loses all its digits there. As n grows, this is the Poisson likelihood.
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
    stirling = (
        (total - 0.5) * torch.log1p(counts / large)
        - counts
        + (1 / total - 1 / large) / 12
        - (1 / total**3 - 1 / large**3) / 360
    )
    return torch.where(n < _STIRLING_FROM, exact, stirling)


def gaussian_nll(values: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Return -log density elementwise, in nats, with its constant."""
    values, mean, sd = values.float(), mean.float(), sd.float()
    return 0.5 * ((values - mean) / sd) ** 2 + sd.log() + 0.5 * math.log(2 * math.pi)


def peak_nll(peaks: Tensor, logit: Tensor) -> Tensor:
    """Return the binary cross-entropy of peak calls elementwise, from logits, in nats."""
    return F.binary_cross_entropy_with_logits(logit.float(), peaks.float(), reduction="none")


def sum_where(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum of the valid entries, 0 when there is none; what is not valid has no gradient, even if NaN."""
    return torch.where(valid, values, 0).sum()
