"""How long does a C-index take, and what would lifelines take? CPU seconds on one core, the best of three.

    OMP_NUM_THREADS=1 python tests/benchmarks/cindex.py [--bins 1870000]

A synthetic track of the size of chr21, half of it zeros, in 1 Mb blocks. The last lines compare `harrell_exact` with
the concordance_index of lifelines, the same number, on 100,000 bins; they need `pip install lifelines`.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from candi_cli.evaluation.concordance import (
    gaussian_concordance,
    harrell_exact,
    negative_binomial_concordance,
)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the least CPU time of some repeats."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bins", type=int, default=1_870_000)
    n_bins = parser.parse_args().bins
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 1, n_bins)
    signal = np.maximum(0, mean + rng.normal(0, 1, n_bins))
    sd = rng.uniform(0.3, 2, n_bins)
    log_mean, log_dispersion = rng.normal(0, 1.5, n_bins), rng.normal(0.5, 1, n_bins)
    counts = rng.poisson(rng.gamma(np.exp(log_dispersion), np.exp(log_mean - log_dispersion)))
    blocks = np.arange(n_bins) // 40_000

    def gaussian(**options: object) -> object:
        return gaussian_concordance(signal, mean, sd, **options)

    def negative_binomial(**options: object) -> object:
        return negative_binomial_concordance(counts, log_mean, log_dispersion, **options)

    print(f"{n_bins:,} bins, seconds")
    print(f"Gaussian, 2 M pairs                    {seconds(lambda: gaussian(exact=False)):8.2f}")
    print(f"Gaussian, 2 M pairs, block error       {seconds(lambda: gaussian(exact=False, blocks=blocks)):8.2f}")
    print(f"negative binomial, 1 M pairs           {seconds(lambda: negative_binomial(exact=False)):8.2f}")
    print(
        f"negative binomial, 1 M, block error    {seconds(lambda: negative_binomial(exact=False, blocks=blocks)):8.2f}"
    )
    print(f"Harrell's C, all pairs                 {seconds(lambda: harrell_exact(signal, mean)):8.2f}")
    try:
        from lifelines.utils import concordance_index
    except ImportError:
        print("lifelines is not installed: no comparison (pip install lifelines)")
        return
    few = slice(0, 100_000)
    ours = seconds(lambda: harrell_exact(signal[few], mean[few]))
    drawn = seconds(lambda: gaussian_concordance(signal[few], mean[few], sd[few], exact=False))
    theirs = seconds(lambda: concordance_index(signal[few], mean[few]))
    gap = abs(harrell_exact(signal[few], mean[few]) - concordance_index(signal[few], mean[few]))
    print(f"100,000 bins: lifelines                {theirs:8.3f}")
    print(f"  Harrell's C, all pairs               {ours:8.3f}, {theirs / ours:.0f} times as fast, {gap:.0e} apart")
    print(f"  A, M and H of 2 M pairs              {drawn:8.3f}, {theirs / drawn:.0f} times as fast")


if __name__ == "__main__":
    main()
