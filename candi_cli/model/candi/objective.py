"""The network with its training loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from candi_cli.model.candi.dataset import CandiTargets, TrainingBatch
from candi_cli.model.candi.likelihood import gaussian_nll, negative_binomial_nll, peak_nll, sum_where
from candi_cli.model.candi.network import DEPTH_CENTRE, CandiOutput, Config, Network
from candi_cli.model.terms import LossTerm


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

    def loss(self, output: CandiOutput, targets: CandiTargets) -> dict[str, LossTerm]:
        """Return the terms of the loss, each a sum over the valid entries of the batch.

        The signal's target is -log10 p; see `_transformed`.
        """
        weights = self.weights
        counted, scored, called = (valid[:, None] for valid in targets.valid.unbind(dim=1))  # (N, 1, A) each
        likelihoods = {
            "count": (
                weights.count, counted,
                negative_binomial_nll(targets.counts, output.count_log_mean, output.count_log_dispersion),
            ),
            "signal": (
                weights.signal, scored,
                gaussian_nll(_transformed(targets.signal), output.signal_mean, output.signal_sd),
            ),
            "peak": (weights.peak, called, peak_nll(targets.peaks, output.peak_logit)),
        }  # fmt: skip
        terms: dict[str, LossTerm] = {}
        for name, (weight, valid, nll) in likelihoods.items():
            emphasis = self._emphasis(output) if name == "count" and weights.beta else None
            for part, factor, where in (
                ("obs", weights.observed, valid & ~targets.masked),
                ("imp", weights.imputed, valid & targets.masked),
            ):
                total = sum_where(nll, where)
                learned = total if emphasis is None else sum_where(nll * emphasis, where)
                terms[f"{name}_{part}"] = LossTerm(total, learned, where.sum(), factor * weight)
        return terms

    @torch.no_grad()
    def _emphasis(self, output: CandiOutput) -> Tensor:
        """Return the weight of each entry in the count term: (N, L, A)."""
        excess = torch.exp(output.count_log_mean - output.count_log_dispersion)
        return (1 + excess).clamp(max=_MOST_WEIGHT) ** self.weights.beta

    @torch.no_grad()
    def start_at_marginals(self, batches: Sequence[TrainingBatch]) -> None:
        """Set the heads' biases so that an untrained network predicts each assay's mean: count, signal, peak rate."""
        targets = [batch.targets for batch in batches]
        valid = torch.cat([each.valid for each in targets])  # (N, 3, A)
        depth = torch.cat([batch.inputs.covariates_out[:, 0] for batch in batches])  # (N, A)
        for assay in range(len(self.config.assays)):
            counts, signal, peaks = (
                torch.cat([getattr(each, name)[..., assay] for each in targets])[valid[:, layer, assay]].float()
                for layer, name in enumerate(("counts", "signal", "peaks"))
            )
            if len(counts):
                known = depth[:, assay][depth[:, assay].isfinite()]
                offset = float(known.mean()) - DEPTH_CENTRE if self.config.depth_offset and len(known) else 0.0
                self.count_decoder.head.bias[0, assay] = math.log(float(counts.mean()) + 1e-3) - math.log(2) * offset
            if len(signal):
                mean = max(float(_transformed(signal).mean()), 1e-2)
                self.signal_decoder.head.bias[0, assay] = math.log(math.expm1(mean))
            if len(peaks):
                rate = min(max(float(peaks.mean()), 1e-3), 1 - 1e-3)
                self.peak_decoder.head.bias[0, assay] = math.log(rate / (1 - rate))


def _transformed(signal: Tensor) -> Tensor:
    """Return arcsinh(-log10 p): the one place where a signal becomes what the network models."""
    return torch.arcsinh(signal)
