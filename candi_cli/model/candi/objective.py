"""The network with its training loss."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from candi_cli.model.candi.config import Config
from candi_cli.model.candi.dataset import CandiTargets, TrainingBatch
from candi_cli.model.candi.likelihood import gaussian_emphasis, gaussian_nll, negative_binomial_nll, peak_nll, sum_where
from candi_cli.model.candi.network import DEPTH_CENTRE, CandiOutput, Network
from candi_cli.model.candi.starting import normalise_convolutions
from candi_cli.model.candi.transform import signal_transform
from candi_cli.model.candi.validation import scores
from candi_cli.model.terms import LossTerm


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; the defaults are the paper's ("Loss Function").

    `beta` gives bins the weight (1 + mean / dispersion) ** beta in the count term. The plain likelihood (0) takes that
    factor off the gradient of the mean, so that a network that is unsure of its peaks hardly corrects them; with 1 the
    mean learns as under a Poisson likelihood (beta-NLL, Seitzer et al. 2022, for the negative binomial). `signal_beta`
    weighs the signal term by sd ** (2 beta) likewise: 0.5 keeps a Gaussian's mean learning where its sd is large.
    """

    count: float = 0.5
    signal: float = 1.0
    peak: float = 0.1
    observed: float = 0.25
    imputed: float = 1.0
    beta: float = 0.0
    signal_beta: float = 0.0


_MOST_WEIGHT = 100.0
_START_WINDOWS = 16


class Model(Network):
    """A CANDI network and what it minimises."""

    def __init__(self, config: Config, weights: LossWeights | None = None) -> None:
        super().__init__(config)
        self.weights = weights or LossWeights()

    def loss(self, output: CandiOutput, targets: CandiTargets) -> dict[str, LossTerm]:
        """Return the terms of the loss, each a sum over the valid entries of the batch.

        The signal's target is -log10 p; see `transform`. A network that reads signal is not asked for signal that it
        was shown: there is no second, independent measurement of it, and a copy would be the best answer.
        """
        terms: dict[str, LossTerm] = {}
        for name, (weight, valid, nll, emphasis) in self._likelihoods(output, targets).items():
            for part, factor, where in (
                ("obs", self.weights.observed, valid & ~targets.masked),
                ("imp", self.weights.imputed, valid & targets.masked),
            ):
                if name == "signal" and part == "obs" and self.config.input == "signal":
                    continue
                total = sum_where(nll, where)
                learned = total if emphasis is None else sum_where(nll * emphasis, where)
                terms[f"{name}_{part}"] = LossTerm(total, learned, where.sum(), factor * weight)
        return terms

    @staticmethod
    def scores(pairs: Iterable[tuple[CandiOutput, CandiTargets]]) -> dict[str, float]:
        """Return the scores of held-out outputs; see `validation`."""
        return scores(pairs)

    def _likelihoods(
        self, output: CandiOutput, targets: CandiTargets
    ) -> dict[str, tuple[float, Tensor, Tensor, Tensor | None]]:
        """Return weight, validity (N, 1, A), negative log-likelihood and emphasis (N, L, A) of each output."""
        weights = self.weights
        counted, scored, called = (valid[:, None] for valid in targets.valid.unbind(dim=1))
        log_mean, log_dispersion, mean, sd = output[:4]
        terms: dict[str, tuple[float, Tensor, Tensor, Tensor | None]] = {}
        if log_mean is not None and log_dispersion is not None:
            nll = negative_binomial_nll(targets.counts, log_mean, log_dispersion)
            terms["count"] = (weights.count, counted, nll, _count_emphasis(log_mean, log_dispersion, weights.beta))
        nll = gaussian_nll(signal_transform(targets.signal.float()), mean, sd)
        emphasis = gaussian_emphasis(sd, weights.signal_beta) if weights.signal_beta else None
        terms["signal"] = (weights.signal, scored, nll, emphasis)
        terms["peak"] = (weights.peak, called, peak_nll(targets.peaks, output.peak_logit), None)
        return terms

    @torch.no_grad()
    def start_at_marginals(self, batches: Sequence[TrainingBatch]) -> None:
        """Set the heads' biases so that an untrained network predicts each assay's mean: count, signal, peak rate.

        Before that, convolutions are normalised where the configuration says so; see `starting`.
        """
        if self.config.normalised_start:
            inputs = batches[0].inputs
            parts = {name: each[:_START_WINDOWS] for name, each in inputs._asdict().items() if each is not None}
            normalise_convolutions(self, inputs._replace(**parts))
        biases = self.output_biases()
        targets = [batch.targets for batch in batches]
        valid = torch.cat([each.valid for each in targets])  # (N, 3, A)
        depth = torch.cat([batch.inputs.covariates_out[:, 0] for batch in batches])  # (N, A)
        for assay in range(len(self.config.assays)):
            counts, signal, peaks = (
                torch.cat([getattr(each, name)[..., assay].float() for each in targets])[valid[:, layer, assay]]
                for layer, name in enumerate(("counts", "signal", "peaks"))
            )
            if len(counts):
                known = depth[:, assay][depth[:, assay].isfinite()]
                offset = float(known.mean()) - DEPTH_CENTRE if self.config.depth_offset and len(known) else 0.0
                biases["counts"][0, assay] = math.log(float(counts.mean()) + 1e-3) - math.log(2) * offset
            if len(signal):
                mean = max(float(signal_transform(signal).mean()), 1e-2)
                biases["signal"][0, assay] = math.log(math.expm1(mean))
            if len(peaks):
                rate = min(max(float(peaks.mean()), 1e-3), 1 - 1e-3)
                biases["peaks"][0, assay] = math.log(rate / (1 - rate))


@torch.no_grad()
def _count_emphasis(log_mean: Tensor, log_dispersion: Tensor, beta: float) -> Tensor | None:
    """Return the weight of each entry in the count term, (N, L, A); None when all weigh the same."""
    if not beta:
        return None
    return (1 + torch.exp(log_mean - log_dispersion)).clamp(max=_MOST_WEIGHT) ** beta
