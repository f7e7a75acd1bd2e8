"""The simulator of the benchmarks: its counts have the moments that it states, and the store holds them."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PATH = Path(__file__).parent / "benchmarks" / "simulator.py"
DESIGN = {"n_biosamples": 3, "n_bins": 40_000, "seed": 5}


@pytest.fixture(scope="module")
def simulator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulator", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulator"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cohort(simulator):
    return simulator.simulate(simulator.Design(**DESIGN))


def test_counts_have_the_mean_and_variance_of_a_negative_binomial_around_the_true_rate(simulator, cohort):
    for (biosample, assay), experiment in cohort.experiments.items():
        rate = cohort.rate(biosample, assay)
        variance = rate + rate**2 / simulator.DISPERSION[assay]
        error = (experiment.counts - rate) / np.sqrt(variance)
        assert error.mean() == pytest.approx(0, abs=5 / np.sqrt(len(rate)))
        assert (error**2).mean() == pytest.approx(1, abs=0.06)


def test_folds_share_their_reads_evenly_and_covary_by_the_dispersion(simulator, cohort):
    products = {}
    for (biosample, assay), experiment in cohort.experiments.items():
        rate, half = cohort.rate(biosample, assay), experiment.folds[:, : simulator.N_FOLDS // 2].sum(axis=1)
        other = experiment.counts - half
        assert half.sum() == pytest.approx(experiment.counts.sum() / 2, rel=0.03)
        some = rate > 1
        product = (half - rate / 2) * (other - rate / 2) / (rate / 2) ** 2  # of two Poissons that share one gamma
        products.setdefault(assay, []).append(product[some])
    for assay, parts in products.items():
        product = np.concatenate(parts)
        error = product.std() / np.sqrt(len(product))
        assert product.mean() == pytest.approx(1 / simulator.DISPERSION[assay], abs=4 * error)
        assert product.mean() > 4 * error  # and not none at all


def test_rates_scale_with_depth_read_length_and_run_type_as_stated(simulator, cohort):
    own = cohort.experiments["bio1", "H3K27ac"].covariates
    rate = cohort.rate("bio1", "H3K27ac")
    twice = cohort.rate("bio1", "H3K27ac", replace(own, depth=2 * own.depth))
    short, long = (cohort.rate("bio1", "H3K27ac", replace(own, read_length=length)) for length in (25.0, 100.0))
    single, paired = (cohort.rate("bio1", "H3K27ac", replace(own, run_type=kind)) for kind in simulator.YIELD)
    assert twice == pytest.approx(2 * rate)
    assert long == pytest.approx(short * 5 / 2)
    assert paired == pytest.approx(0.8 * single)


def test_other_assays_of_a_biosample_tell_more_of_its_states_than_the_same_assay_elsewhere(simulator):
    cohort = simulator.simulate(simulator.Design(n_biosamples=4, n_bins=40_000, seed=1))

    def correlation(one, other):
        return np.corrcoef(cohort.experiments[one].density, cohort.experiments[other].density)[0, 1]

    names = cohort.design.biosamples
    own = np.mean([correlation((name, "H3K4me3"), (name, "H3K27ac")) for name in names])
    elsewhere = np.mean([correlation((a, "H3K4me3"), (b, "H3K4me3")) for a in names for b in names if a < b])
    assert own > elsewhere + 0.1 > 0.3  # and other biosamples tell something


def test_one_seed_gives_one_cohort(simulator, cohort):
    again = simulator.simulate(simulator.Design(**DESIGN))
    other = simulator.simulate(simulator.Design(**{**DESIGN, "seed": 6}))
    key = ("bio2", "H3K4me3")
    assert np.array_equal(again.experiments[key].folds, cohort.experiments[key].folds)
    assert not np.array_equal(other.experiments[key].folds, cohort.experiments[key].folds)


def test_the_store_holds_the_counts_the_folds_and_the_covariates(simulator, cohort, tmp_path):
    simulator.write_store(cohort, tmp_path / "sim.h5").close()
    with simulator.Store.open(tmp_path / "sim.h5") as store:
        for (biosample, assay), experiment in cohort.experiments.items():
            stored = store.experiment(biosample, assay)
            assert stored.covariates == experiment.covariates
            assert stored.fold_depths.sum() == experiment.covariates.depth
            span = (simulator.CHROM, 0, DESIGN["n_bins"])
            assert np.array_equal(store.read(biosample, assay, "counts", *span), experiment.counts)
            assert np.array_equal(store.read(biosample, assay, "folds", *span), experiment.folds)
        assert store.covered_blocks("bio1", simulator.CHROM)[0].all()
