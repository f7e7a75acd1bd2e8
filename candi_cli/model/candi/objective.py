"""The network with its training loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from candi_cli.model.candi.dataset import CandiTargets, TrainingBatch
from candi_cli.model.candi.likelihood import gaussian_nll, mean_where, negative_binomial_nll, peak_nll
from candi_cli.model.candi.network import DEPTH_CENTRE, CandiOutput, Config, Network


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; the defaults are the paper's ("Loss Function").

    `beta` gives bins the weight (1 + mean / dispersion) ** beta in the count term. The plain likelihood (0) takes that
    factor off the gradient of the mean, so that a network that is unsure of its peaks hardly corrects them; with 1 the
    mean learns as under a Poisson likelihood (beta-NLL, Seitzer et al. 2022, for the negative binomial).
    """

    count: float = 0.5
    signal: float = 1.0
    peak: float = 0.1
    observed: float = 0.25
    imputed: float = 1.0
    beta: float = 0.0


_MOST_WEIGHT = 100.0


class Model(Network):
    """A CANDI network and what it minimises."""

    def __init__(self, config: Config, weights: LossWeights | None = None) -> None:
        super().__init__(config)
        self.weights = weights or LossWeights()

    def loss(self, output: CandiOutput, targets: CandiTargets) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted loss and its terms, each the mean over the valid entries of the batch.

        The signal's target is -log10 p; see `_transformed`.
        """
        weights = self.weights
        counts, signal, peaks = targets.counts, targets.signal, targets.peaks
        likelihoods = {
            "count": (
                weights.count,
                counts.isfinite(),
                negative_binomial_nll(counts.nan_to_num(0.0), output.count_log_mean, output.count_log_dispersion),
            ),
            "signal": (
                weights.signal,
                signal.isfinite(),
                gaussian_nll(_transformed(signal.nan_to_num(0.0)), output.signal_mean, output.signal_sd),
            ),
            "peak": (weights.peak, peaks.isfinite(), peak_nll(peaks.nan_to_num(0.0), output.peak_logit)),
        }
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=counts.device)
        for name, (weight, valid, nll) in likelihoods.items():
            for part, factor, where in (
                ("obs", weights.observed, valid & ~targets.masked),
                ("imp", weights.imputed, valid & targets.masked),
            ):
                terms[f"{name}_{part}"] = mean_where(nll, where)
                learned = terms[f"{name}_{part}"]
                if name == "count" and weights.beta:
                    learned = mean_where(nll * self._emphasis(output), where)
                total = total + factor * weight * learned
        return total, terms

    @torch.no_grad()
    def _emphasis(self, output: CandiOutput) -> Tensor:
        """Return the weight of each entry in the count term: (N, L, A)."""
        excess = torch.exp(output.count_log_mean - output.count_log_dispersion)
        return (1 + excess).clamp(max=_MOST_WEIGHT) ** self.weights.beta

    @torch.no_grad()
    def start_at_marginals(self, batches: Sequence[TrainingBatch]) -> None:
        """Set the heads' biases so that an untrained network predicts each assay's mean: count, signal, peak rate."""
        for assay in range(len(self.config.assays)):
            counts, signal, peaks = (
                torch.cat([getattr(batch.targets, name)[..., assay].flatten() for batch in batches])
                for name in ("counts", "signal", "peaks")
            )
            depth = torch.cat([batch.inputs.covariates_out[:, 0, assay] for batch in batches])
            if counts.isfinite().any():
                offset = (
                    _finite_mean(depth) - DEPTH_CENTRE if self.config.depth_offset and depth.isfinite().any() else 0.0
                )
                self.count_decoder.head.bias[0, assay] = math.log(_finite_mean(counts) + 1e-3) - math.log(2) * offset
            if signal.isfinite().any():
                mean = max(_finite_mean(_transformed(signal)), 1e-2)
                self.signal_decoder.head.bias[0, assay] = math.log(math.expm1(mean))
            if peaks.isfinite().any():
                rate = min(max(_finite_mean(peaks), 1e-3), 1 - 1e-3)
                self.peak_decoder.head.bias[0, assay] = math.log(rate / (1 - rate))


def _transformed(signal: Tensor) -> Tensor:
    """Return arcsinh(-log10 p): the one place where a signal becomes what the network models."""
    return torch.arcsinh(signal)


def _finite_mean(values: Tensor) -> float:
    return float(values[values.isfinite()].mean())
