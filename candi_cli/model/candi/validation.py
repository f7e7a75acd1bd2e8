"""Scores of predictions for held-out windows, by the functions that the commands report with."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candi_cli.evaluation.calibration import PIT_LEVELS, curve_error, pit_curve
from candi_cli.evaluation.distributions import (
    Cumulative,
    bernoulli_cdf,
    bernoulli_log_pmf,
    gaussian_cdf,
    gaussian_log_pdf,
    negative_binomial_cdf,
    negative_binomial_log_pmf,
)
from candi_cli.evaluation.metrics import pearson, spearman
from candi_cli.model.candi.dataset import CandiTargets
from candi_cli.model.candi.network import CandiOutput
from candi_cli.model.candi.transform import signal_transform
from candi_cli.model.device import move

Array = NDArray[np.float64]
SCORES = ("nll", "pearson", "spearman", "pit_error")
RANKED = 50_000  # entries that a rank correlation is taken of; more are drawn from, by a fixed seed


class _Head(NamedTuple):
    """One output as it is judged.

    target, expected : (N, L, A), what the correlations are taken of
    parameters : (N, L, A) each
    log_likelihood, cumulative : of the target and the parameters
    """

    target: Tensor
    expected: Tensor
    parameters: tuple[Tensor, ...]
    log_likelihood: Callable[..., Array]
    cumulative: Callable[..., Cumulative]


class _Entries(NamedTuple):
    """What is kept of one kind of entries: lists with an item for each pair.

    observed, expected : the entries, (K,) each; nll : their sums; curves : the sums of their PIT curves, (C,) each
    """

    observed: list[Array]
    expected: list[Array]
    nll: list[float]
    curves: list[Array]


def scores(pairs: Iterable[tuple[CandiOutput, CandiTargets]]) -> dict[str, float]:
    """Return how well outputs agree with targets, over all pairs together.

    Names are `{count,signal,peak}_{obs,imp}_{nll,pearson,spearman,pit_error}`, of all entries of that kind together,
    and the same with `_macro`: the mean over assays of each assay's own score, of the assays that have one (a constant
    target has no correlation). A score without any entry is NaN. Counts are compared in reads per bin, signal as
    arcsinh(-log10 p), peaks as probabilities; nll is in nats per entry, unweighted. Rank correlations are taken of at
    most 50,000 entries, drawn by a fixed seed.

    Parameters
    ----------
    pairs : outputs and their targets, on any device; an output without counts has no scores of counts
    """
    kept: dict[tuple[str, str], list[_Entries]] = {}
    for output, targets in pairs:
        output, targets = (move(part, torch.device("cpu")) for part in (output, targets))
        masked = targets.masked.numpy()
        for name, (layer, head) in _heads(output, targets).items():
            valid = targets.valid[:, layer, None].numpy()  # (N, 1, A)
            for part, where in (("obs", valid & ~masked), ("imp", valid & masked)):
                assays = kept.setdefault((name, part), [_Entries([], [], [], []) for _ in range(valid.shape[2])])
                for assay, entries in enumerate(assays):
                    _add(entries, head, assay, where[..., assay])
    table: dict[str, float] = {}
    for (name, part), assays in kept.items():
        single = [_scores(entries) for entries in assays]
        together = _scores(_Entries(*(list(chain(*column)) for column in zip(*assays, strict=True))))
        for score in SCORES:
            known = [row[score] for row in single if np.isfinite(row[score])]
            table[f"{name}_{part}_{score}"] = together[score]
            table[f"{name}_{part}_{score}_macro"] = float(np.mean(known)) if known else float("nan")
    return table


def _heads(output: CandiOutput, targets: CandiTargets) -> dict[str, tuple[int, _Head]]:
    """Return each output that the network has, with the number of its layer in `targets.valid`."""
    signal = signal_transform(targets.signal.double())
    mean, sd, logit = output.signal_mean, output.signal_sd, output.peak_logit
    heads = {
        "signal": (1, _Head(signal, mean, (mean, sd), gaussian_log_pdf, gaussian_cdf)),
        "peak": (2, _Head(targets.peaks, logit.sigmoid(), (logit,), bernoulli_log_pmf, bernoulli_cdf)),
    }
    if output.count_log_mean is not None and output.count_log_dispersion is not None:
        log_mean, parameters = output.count_log_mean, (output.count_log_mean, output.count_log_dispersion)
        judged = _Head(targets.counts, log_mean.exp(), parameters, negative_binomial_log_pmf, negative_binomial_cdf)
        heads["count"] = (0, judged)
    return heads


def _add(entries: _Entries, head: _Head, assay: int, inside: NDArray[np.bool_]) -> None:
    """Keep what the scores need of the entries of one assay that are `inside`, (N, L)."""
    if not inside.any():
        return
    target, expected, *parameters = (
        part[..., assay].detach().numpy()[inside].astype(np.float64)
        for part in (head.target, head.expected, *head.parameters)
    )
    entries.observed.append(target)
    entries.expected.append(expected)
    entries.nll.append(-float(head.log_likelihood(target, *parameters).sum()))
    entries.curves.append(len(target) * pit_curve(head.cumulative(target, *parameters)))


def _scores(entries: _Entries) -> dict[str, float]:
    if not entries.observed:
        return dict.fromkeys(SCORES, float("nan"))
    observed, expected = np.concatenate(entries.observed), np.concatenate(entries.expected)
    n = len(observed)
    few = np.random.default_rng(0).choice(n, RANKED, replace=False) if n > RANKED else slice(None)
    return {
        "nll": sum(entries.nll) / n,
        "pearson": pearson(observed, expected),
        "spearman": spearman(observed[few], expected[few]),
        "pit_error": curve_error(np.sum(entries.curves, axis=0) / n, PIT_LEVELS),
    }
