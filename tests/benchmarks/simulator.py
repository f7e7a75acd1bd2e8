"""A cohort whose truth is known: biosamples x assays of counts around rates that follow from latent states.

It is imported by the other benchmarks and by tests. Run as `python tests/benchmarks/simulator.py -o STORE.h5` it writes
a store and prints what is in it.

One landscape (genes, enhancers, polycomb domains, background) is shared by all biosamples; whether a gene, an enhancer
or a domain is active is drawn once for all biosamples with the chance `shared`, else in each biosample anew. All assays
of a biosample follow from its states, and each state shows in two assays at least, in different shapes: H3K4me3 and
H3K27ac at promoters and enhancers, H3K36me3 and H3K79me2 in gene bodies, H3K27me3 and H2AK119ub1 in polycomb domains.
So a biosample's other assays tell more of a hidden one than other biosamples do.

The expected counts of an experiment are, in bin i,
    depth / n_bins * (1 + read_length / resolution) * YIELD[run_type] * density[biosample, assay, i]
and the counts are negative binomial around them, Var = mean + mean^2 / DISPERSION[assay], independent between bins.
Reads are dealt to folds uniformly, so that a fold, or a binomially thinned track, has the same density and dispersion.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, Covariates
from candi_cli.store import Store

Array = NDArray[Any]

CHROM, RESOLUTION, N_FOLDS, BLOCK_BP = "chr1", 25, 8, 10_000
ENRICHED = {
    "H3K4me3": 0.65, "H3K27ac": 0.6, "H3K36me3": 0.6, "H3K79me2": 0.55, "H3K27me3": 0.55, "H2AK119ub1": 0.5,
    CONTROL: 0.0,
}  # fmt: skip
DISPERSION = {
    "H3K4me3": 8.0, "H3K27ac": 8.0, "H3K36me3": 6.0, "H3K79me2": 6.0, "H3K27me3": 5.0, "H2AK119ub1": 5.0,
    CONTROL: 12.0,
}  # fmt: skip
ASSAYS = tuple(assay for assay in ENRICHED if assay != CONTROL)
YIELD = {"single-ended": 1.0, "paired-ended": 0.8}
READ_LENGTHS = (36.0, 50.0, 76.0, 100.0)
PLATFORMS = ("Illumina HiSeq 2000", "Illumina HiSeq 4000", "Illumina NextSeq 500")


@dataclass(frozen=True)
class Design:
    """What to simulate.

    Attributes
    ----------
    shared : chance that a gene, enhancer or domain has one state in all biosamples
    reads_per_bin : lowest and highest depth, in reads per bin; depths are log-uniform between them
    """

    n_biosamples: int = 8
    n_bins: int = 160_000
    shared: float = 0.3
    reads_per_bin: tuple[float, float] = (0.1, 0.8)
    seed: int = 0

    @property
    def biosamples(self) -> tuple[str, ...]:
        """Names of the biosamples."""
        return tuple(f"bio{number}" for number in range(1, self.n_biosamples + 1))


class Elements(NamedTuple):
    """Elements of one kind: where they lie (bins) and how strongly they are marked when active; shape (E,) each."""

    start: Array
    end: Array
    reverse: Array
    strength: Array


class Experiment(NamedTuple):
    """One experiment: its covariates, density (mean about 1 over the cohort) and folds of counts, (L, K)."""

    covariates: Covariates
    density: Array
    folds: Array

    @property
    def counts(self) -> Array:
        """Reads per bin, shape (L,)."""
        return self.folds.sum(axis=1)


class Cohort(NamedTuple):
    """A simulated cohort; keys of `experiments` are (biosample, assay), the control among the assays."""

    design: Design
    experiments: dict[tuple[str, str], Experiment]

    def rate(self, biosample: str, assay: str, covariates: Covariates | None = None) -> Array:
        """Return the true expected counts per bin, at the experiment's own covariates or at others: shape (L,)."""
        experiment = self.experiments[biosample, assay]
        return experiment.density * scale(covariates or experiment.covariates, self.design.n_bins)


def scale(covariates: Covariates, n_bins: int) -> float:
    """Return the expected counts in a bin of density 1; `covariates.depth` is of reads over `n_bins` bins."""
    depth, read_length, run_type = covariates.depth, covariates.read_length, covariates.run_type
    if depth is None or read_length is None or run_type is None:
        raise ValueError(f"{covariates}: the rate needs depth, read length and run type")
    return depth / n_bins * (1 + read_length / RESOLUTION) * YIELD[run_type]


def simulate(design: Design) -> Cohort:
    """Draw a cohort; the same design gives the same cohort."""
    streams = np.random.SeedSequence(design.seed).spawn(2 + design.n_biosamples)
    common, sequencing, *own = [np.random.default_rng(stream) for stream in streams]
    landscape = draw_landscape(common, design.n_bins)
    background = np.exp(0.25 * wiggle(common, design.n_bins, 200) + 0.1 * wiggle(common, design.n_bins, 12))
    background /= background.mean()
    fixed = {kind: (common.random(n) < design.shared, common.random(n)) for kind, n in sizes(landscape).items()}
    tracks = {}
    for biosample, rng in zip(design.biosamples, own, strict=True):
        states = {kind: np.where(keep, value, rng.random(len(keep))) for kind, (keep, value) in fixed.items()}
        tracks.update({(biosample, assay): track for assay, track in enrichment(landscape, states, design).items()})
    experiments = {}
    for assay in (*ASSAYS, CONTROL):
        mean = np.mean([tracks[biosample, assay].mean() for biosample in design.biosamples]) if assay in ASSAYS else 1.0
        for biosample in design.biosamples:
            enriched = tracks[biosample, assay] / mean if assay in ASSAYS else 0.0
            density = background * ((1 - ENRICHED[assay]) + ENRICHED[assay] * enriched)
            experiments[biosample, assay] = sequence(sequencing, density, assay, design)
    return Cohort(design, experiments)


def sizes(landscape: dict[str, Elements]) -> dict[str, int]:
    """Return the number of elements of each kind."""
    return {kind: len(elements.start) for kind, elements in landscape.items()}


def draw_landscape(rng: np.random.Generator, n_bins: int) -> dict[str, Elements]:
    """Return genes (3 to 15 kb), enhancers (0.5 to 1.5 kb) and polycomb domains (5 to 25 kb) in random places."""
    landscape = {}
    for kind, gap, (shortest, longest) in (
        ("gene", (60, 500), (120, 600)),
        ("enhancer", (40, 400), (20, 60)),
        ("domain", (300, 2000), (200, 1000)),
    ):
        starts, ends, position = [], [], 0
        while True:
            position += int(rng.integers(*gap))
            end = position + int(rng.integers(shortest, longest))
            if end > n_bins:
                break
            starts.append(position)
            ends.append(end)
            position = end
        n = len(starts)
        strength = np.exp(0.5 * rng.standard_normal(n))
        landscape[kind] = Elements(np.array(starts), np.array(ends), rng.random(n) < 0.5, strength)
    return landscape


def enrichment(landscape: dict[str, Elements], states: dict[str, Array], design: Design) -> dict[str, Array]:
    """Return each assay's enrichment over the background in one biosample, shape (L,).

    states : for each kind of element a uniform draw: below its threshold it is active, and the lower, the stronger
    """
    n_bins = design.n_bins
    genes, enhancers, domains = (landscape[kind] for kind in ("gene", "enhancer", "domain"))
    repressed = boxes(n_bins, domains.start, domains.end, (states["domain"] < 0.5) * domains.strength)
    activity = np.where(states["gene"] < 0.55, (1.5 - 2 * states["gene"]) * genes.strength, 0)
    tss = np.where(genes.reverse, genes.end, genes.start)
    activity = np.where(repressed[np.minimum(tss, n_bins - 1)] > 0, 0, activity)
    promoters = boxes(n_bins, tss - 24, tss + 24, activity)
    bodies = boxes(n_bins, genes.start, genes.end, activity)
    middle = (genes.start + genes.end) // 2
    first_halves = boxes(
        n_bins, np.where(genes.reverse, middle, genes.start), np.where(genes.reverse, genes.end, middle), activity
    )
    open_ = np.where(states["enhancer"] < 0.4, (1.2 - 2 * states["enhancer"]) * enhancers.strength, 0)
    centres = boxes(n_bins, enhancers.start, enhancers.end, open_)
    return {
        "H3K4me3": smooth(promoters + 0.25 * centres, 5),
        "H3K27ac": smooth(0.8 * promoters + centres, 8),
        "H3K36me3": smooth(np.maximum(bodies - bodies * (promoters > 0), 0), 20),
        "H3K79me2": smooth(0.4 * bodies + 0.8 * first_halves, 12),
        "H3K27me3": smooth(repressed, 40) * np.exp(-2 * np.minimum(smooth(bodies + centres, 10), 2)),
        "H2AK119ub1": smooth(repressed, 20),
    }


def boxes(n_bins: int, start: Array, end: Array, height: Array) -> Array:
    """Return the sum of boxes of given heights over [start, end): shape (L,)."""
    steps = np.zeros(n_bins + 1)
    np.add.at(steps, np.clip(start, 0, n_bins), height)
    np.add.at(steps, np.clip(end, 0, n_bins), -height)
    return np.maximum(np.cumsum(steps)[:-1], 0).round(9)


def smooth(values: Array, sd: float) -> Array:
    """Return the values under a Gaussian kernel of `sd` bins, normalised at the edges."""
    offsets = np.arange(-int(3 * sd), int(3 * sd) + 1)
    kernel = np.exp(-0.5 * (offsets / sd) ** 2)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def wiggle(rng: np.random.Generator, n_bins: int, sd: float) -> Array:
    """Return a smooth random curve with mean 0 and standard deviation 1."""
    curve = smooth(rng.standard_normal(n_bins), sd)
    return (curve - curve.mean()) / curve.std()


def sequence(rng: np.random.Generator, density: Array, assay: str, design: Design) -> Experiment:
    """Draw an experiment's covariates and counts."""
    low, high = design.reads_per_bin
    covariates = Covariates(
        depth=float(round(design.n_bins * np.exp(rng.uniform(np.log(low), np.log(high))))),
        read_length=float(rng.choice(READ_LENGTHS)),
        run_type=str(rng.choice(list(YIELD))),
        platform=str(rng.choice(PLATFORMS)),
        span_bp=float(design.n_bins * RESOLUTION),
    )
    n = DISPERSION[assay]
    rate = density * scale(covariates, design.n_bins) * rng.gamma(n, 1 / n, size=len(density))
    folds = rng.poisson(rate[:, None] / N_FOLDS, size=(len(density), N_FOLDS))
    return Experiment(covariates, density, folds.astype(np.uint16))


def write_store(cohort: Cohort, path: Path | None = None) -> Store:
    """Write the counts, folds and covariates of a cohort as a store (in memory without a path) and return it open."""
    design = cohort.design
    rule = CountingRule(resolution=RESOLUTION)
    store = Store.create(path, rule=rule, chromsizes={CHROM: design.n_bins * RESOLUTION})
    per_block = BLOCK_BP // RESOLUTION
    for (biosample, assay), experiment in cohort.experiments.items():
        store.add_experiment(biosample, assay)
        counts = experiment.counts.astype(np.uint32)
        store.write(biosample, assay, "counts", CHROM, counts)
        store.write(biosample, assay, "folds", CHROM, experiment.folds)
        blocks = np.add.reduceat(counts, np.arange(0, len(counts), per_block), dtype=np.uint32)
        store.write_blocks(biosample, assay, CHROM, blocks, BLOCK_BP)
        depth = int(experiment.covariates.depth or 0)
        fold_depths = [depth // N_FOLDS + (fold < depth % N_FOLDS) for fold in range(N_FOLDS)]
        store.describe(biosample, assay, experiment.covariates, fold_depths=fold_depths)
    return store


def main() -> None:
    """Write a store and print its experiments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the store to write")
    parser.add_argument("--biosamples", type=int, default=Design.n_biosamples)
    parser.add_argument("--bins", type=int, default=Design.n_bins, help="of 25 bp")
    parser.add_argument("--shared", type=float, default=Design.shared)
    parser.add_argument("--seed", type=int, default=Design.seed)
    options = parser.parse_args()
    design = Design(options.biosamples, options.bins, options.shared, seed=options.seed)
    cohort = simulate(design)
    write_store(cohort, options.output).close()
    print(f"{'experiment':18}{'reads':>9}{'length':>8}{'run type':>14}{'mean count':>12}{'true mean':>11}")
    for (biosample, assay), experiment in cohort.experiments.items():
        known = experiment.covariates
        print(
            f"{biosample + '/' + assay:18}{known.depth:9,.0f}{known.read_length:8.0f}{known.run_type:>14}"
            f"{experiment.counts.mean():12.3f}{cohort.rate(biosample, assay).mean():11.3f}"
        )


if __name__ == "__main__":
    main()
