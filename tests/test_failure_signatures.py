"""How models of this kind have been seen to fail, each sign of it with the tests that would tell.

The signs are those that developers of such models have met, quoted. `TOLD_BY` names the tests; those without a file
are here. `LATER` names the signs that only commands to come can show, and why.
"""

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from candi_cli.counting import CountingRule
from candi_cli.covariates import MISSING as MISSING_NAME
from candi_cli.covariates import PLATFORMS, UNKNOWN, Covariates, encode
from candi_cli.loci import find_loci
from candi_cli.model.candi import Corruption, Lanes, LossWeights, Model, TrainingDataset, preset
from candi_cli.model.candi.dataset import CandiTargets
from candi_cli.model.candi.likelihood import LOG_DISPERSION_LIMITS, LOG_MEAN_LIMIT
from candi_cli.model.candi.network import MASKED, MISSING, NO_SEQUENCE, OBSERVED, CandiBatch
from candi_cli.model.candi.validation import scores
from candi_cli.model.terms import weighted_loss
from candi_cli.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")
TESTS = Path(__file__).parent
ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3")
N_BINS = 4000
COVARIATES = Covariates(20e6, 50, "paired-ended", PLATFORMS[5], span_bp=3e9)

TOLD_BY = {
    "loss falls smoothly, metrics garbage, all assays 'available'": (
        "test_what_is_not_known_is_never_zero",
        "model/test_dataset.py::test_forgotten_covariates_are_unknown_and_missing_ones_missing",
    ),
    "imputation loss near 0": (
        "test_a_single_assay_makes_no_imputation_loss_and_is_counted_as_none",
        "test_the_imputation_loss_has_an_entry_for_each_masked_target",
        "model/test_masking.py::test_between_one_and_all_but_one_of_the_assays_are_hidden",
    ),
    "denoising metrics near perfect": (
        "model/test_masking.py::test_no_read_is_on_both_sides_whatever_the_factors",
        "model/test_masking.py::test_an_input_that_shows_all_reads_leaves_no_target",
        "model/test_dataset.py::test_input_and_target_are_as_unrelated_as_independent_halves",
        "model/test_dataset.py::test_seen_and_target_together_never_exceed_the_reads",
    ),
    "output identical for two prompts": (
        "model/test_network.py::test_each_requested_covariate_reaches_every_output",
        "model/test_network.py::test_each_input_covariate_reaches_every_output",
    ),
    "depth slope exactly 1.0000": (
        "test_the_depth_slope_is_not_arithmetic_alone_and_nothing_is_clamped",
        "model/test_network.py::test_with_the_offset_twice_the_requested_depth_outside_of_training_is_twice_the_counts",
    ),
    "imputation much worse at test than val": (
        "commands/test_denoise.py::test_a_requested_depth_outside_of_training_is_named_with_its_range",
        "model/test_checkpoint.py::test_the_card_tells_what_the_model_was_trained_on",
    ),
    "good Spearman, poor Pearson and MSE": (
        "test_a_compressed_scale_keeps_its_ranks_but_is_told_by_pit_and_likelihood",
    ),
    "ECE floor near .25 at low counts": (
        "evaluation/test_calibration.py::test_a_perfect_negative_binomial_of_mean_1_fails_interval_coverage_but_not_the_pit",
    ),
    "NaN Spearman": (
        "evaluation/test_metrics.py::test_a_constant_track_has_no_correlation",
        "model/test_validation.py::test_an_assay_without_any_read_has_no_correlation_and_leaves_those_of_the_others",
    ),
    "NaN / inf in NB, or plausible p with mu = inf": (
        "test_the_means_of_a_network_with_wild_weights_are_finite_and_so_is_its_loss",
        "model/test_likelihood.py::test_float32_keeps_loss_and_gradients_to_dispersions_of_1e8_and_counts_of_5e5",
        "model/test_likelihood.py::test_no_branch_that_is_not_taken_makes_a_gradient_nan",
        "model/test_likelihood.py::test_what_is_not_finite_is_not_hidden",
    ),
    "peak loss stuck at 13.80": (
        "model/test_likelihood.py::test_peak_loss_of_a_confident_mistake_has_its_size_and_a_gradient",
    ),
    "peak loss collapses to all-zero output": ("test_rare_peaks_are_learned",),
    "negative counts, or giant counts turned negative": (
        "test_giant_counts_are_the_same_in_every_type_that_holds_them",
        "model/test_dataset.py::test_counts_cross_in_the_smallest_integers_that_hold_them",
        "test_store.py::test_counts_are_kept_exactly_in_the_narrowest_width_that_holds_them",
        "commands/test_bin.py::test_more_than_65535_reads_in_a_bin_are_kept_exactly",
    ),
    "peaks flattened at 655.35": ("test_store.py::test_signal_keeps_its_type_and_every_bit",),
    "per-assay table shows the wrong winner": (
        "model/test_dataset.py::test_the_order_of_assays_in_the_store_changes_nothing",
        "model/test_dataset.py::test_the_order_of_biosamples_and_stores_changes_nothing",
    ),
    "different numbers on re-run with same seed": (
        "test_a_network_that_predicts_drops_nothing_out",
        "model/test_dataset.py::test_a_batch_is_a_function_of_seed_and_step",
        "commands/test_train.py::test_the_same_seed_gives_the_same_file",
        "model/test_validation.py::test_scores_are_the_same_when_repeated",
    ),
    "eval depends on batch size or GPU memory": (
        "model/test_network.py::test_a_prediction_does_not_depend_on_its_neighbours_in_the_batch",
        "model/test_likelihood.py::test_no_normalisation_uses_statistics_of_the_batch",
        "commands/test_denoise.py::test_the_bytes_do_not_depend_on_batch_size_threads_or_the_run",
    ),
    "x/y misaligned by one bin, sharp peaks blurred": (
        "test_input_counts_signal_and_peaks_of_a_window_are_aligned_on_both_strands",
        "test_genome.py::test_bins_reach_the_end_and_none_lies_beyond_it",
    ),
    "predicted mean has right shape but wrong at window edges": (
        "test_genome.py::test_cores_cover_the_bins_once_in_order_inside_of_their_contexts",
        "test_genome.py::test_a_bin_has_the_same_context_in_a_region_as_in_the_whole_chromosome",
        "commands/test_denoise.py::test_a_region_holds_the_same_values_as_the_whole",
    ),
    "control present but constant -1": ("test_an_absent_control_is_missing_and_has_no_value",),
    # whether it does win is measured by benchmarks/real (R1); here, that the comparison is a fair one
    "average baseline wins": (
        "evaluation/test_baselines.py::test_the_mean_of_others_holds_nothing_of_ones_own",
        "evaluation/test_baselines.py::test_no_other_marginal_is_better_on_its_training_counts",
    ),
    "per-assay or 'denoised' table includes tracks that do not exist": (
        "model/test_validation.py::test_what_was_not_measured_is_not_scored",
        "model/test_dataset.py::test_what_does_not_exist_has_no_target",
    ),
    # the rate itself is measured by benchmarks/loader.py
    "loader-bound GPU": (
        "test_a_window_crosses_to_the_device_in_its_narrowest_types",
        "model/test_dataset.py::test_worker_processes_give_the_batches_of_one_in_order",
    ),
    "DDP hangs at epoch end": (
        "test_every_process_has_a_batch_for_every_step",
        "model/test_dataset.py::test_processes_share_out_the_rows_of_one_global_batch",
    ),
    "loss differs after refactor": (
        "test_the_loss_is_that_of_the_weights_and_not_of_how_they_were_drawn",
        "model/test_checkpoint.py::test_a_model_is_the_same_after_a_round_trip",
    ),
}
LATER = {
    # needs real cohorts and a table of covariates by assay: told by `evaluate`, not by any model of simulated reads
    "covariate effect of run type looks random": "evaluate",
}


def defined_tests(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("signature", TOLD_BY)
def test_the_tests_that_would_tell_a_failure_exist(signature):
    for name in TOLD_BY[signature]:
        file, _, function = name.rpartition("::")
        path = TESTS / file if file else Path(__file__)
        assert function.startswith("test_")
        assert function in defined_tests(path), f"{name} is gone; {signature!r} needs another test"


def test_every_signature_is_told_by_a_test_or_has_a_reason_not_to_be():
    assert len(TOLD_BY) + len(LATER) == 26
    assert not set(TOLD_BY) & set(LATER)


def model(*, seed=0, **changes) -> Model:
    torch.manual_seed(seed)
    return Model(replace(preset("tiny", ASSAYS, resolution=25, reads_sequence=False), **changes)).eval()


def batch(config, n=2, *, depth=20e6, dtype=torch.int32) -> CandiBatch:
    generator = torch.Generator().manual_seed(1)
    length, lanes = config.context_bins, len(config.assays) + 1
    values = torch.poisson(3 * torch.rand((n, length, lanes), generator=generator), generator=generator)
    requested = [replace(COVARIATES, depth=depth)] * (lanes - 1)
    return CandiBatch(
        values.to(dtype),
        torch.full((n, length, lanes), OBSERVED, dtype=torch.uint8),
        torch.from_numpy(encode([COVARIATES] * lanes)).expand(n, -1, -1),
        torch.from_numpy(encode(requested)).expand(n, -1, -1),
        None,
    )


def targets_of(inputs, *, counts=None, peaks=None) -> CandiTargets:
    shape = inputs.values[..., :-1].shape
    nothing = torch.zeros(shape)
    return CandiTargets(
        nothing if counts is None else counts, nothing, nothing if peaks is None else peaks,
        torch.zeros(shape, dtype=torch.bool), torch.ones((shape[0], 3, shape[2]), dtype=torch.bool),
    )  # fmt: skip


@pytest.fixture
def store():
    """A store in memory: `all` has three assays with marks at the same bins, `one` has one of them and no control."""
    rng = np.random.default_rng(5)
    marks = np.zeros(N_BINS, dtype=np.uint32)
    marks[np.sort(rng.choice(N_BINS, 400, replace=False))] = 1
    with Store.create(None, rule=CountingRule(), chromsizes={"chr1": N_BINS * 25}) as opened:
        for biosample, assays in (("all", (*ASSAYS, "control")), ("one", ASSAYS[:1])):
            for assay in assays:
                opened.add_experiment(biosample, assay)
                layers = {"counts": marks * 1000, "signal": marks.astype(np.float32) * 7.5, "peaks": marks.astype("u1")}
                for layer, values in layers.items() if assay != "control" else [("counts", marks * 0 + 3)]:
                    opened.write(biosample, assay, layer, "chr1", values)
                if assay != "control":
                    opened.write_spans(biosample, assay, "chr1", np.array([[0, N_BINS * 25]]))
                opened.describe(biosample, assay, COVARIATES)
                opened.write_blocks(biosample, assay, "chr1", np.ones(1, dtype=np.uint32), N_BINS * 25)
        yield opened


def dataset(store, corruption, *, biosamples=("all", "one"), batch_size=8, **options) -> TrainingDataset:
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=False)
    cohort = []
    for biosample in biosamples:
        covered = {"chr1": store.covered_blocks(biosample, "chr1")}
        loci = find_loci(
            store.chromsizes, resolution=25, context=config.context_bins, regions=(), covered=covered, blacklist={},
            test_chroms=(),
        )  # fmt: skip
        cohort.append((Lanes(store, biosample, ASSAYS), loci))
    return TrainingDataset(config, cohort, corruption=corruption, batch_size=batch_size, seed=0, **options)


NOTHING = Corruption(mask_assays=0, mask_loci=0, thin=0, drop_sequence=0, drop_covariate=0, reverse_complement=0)


def test_what_is_not_known_is_never_zero(store):
    """All assays 'available': metadata filled with 0 instead of missing."""
    absent, unknown = encode([None, Covariates()]).T
    assert np.isnan(absent[:2]).all()
    assert np.isnan(unknown[:2]).all()
    assert (absent[2:] == MISSING_NAME).all()
    assert (unknown[2:] == UNKNOWN).all()
    inputs, targets = dataset(store, NOTHING, biosamples=["one"]).batch(0)
    assert (inputs.availability[..., 1:] == MISSING).all()
    assert inputs.covariates_in[:, :2, 1:].isnan().all()
    assert not targets.valid[..., 1:].any()


def test_a_single_assay_makes_no_imputation_loss_and_is_counted_as_none(store):
    """Imputation loss near 0: samples with at most one available assay produce no masked targets."""
    network = model()
    inputs, targets = dataset(store, replace(NOTHING, mask_assays=1, thin=1), biosamples=["one"]).batch(0)
    terms = network.loss(network(inputs), targets)
    for name in ("count_imp", "signal_imp", "peak_imp"):
        assert terms[name].entries == 0
        assert terms[name].total == 0
    assert terms["count_obs"].entries == 8 * 240
    loss = weighted_loss(terms)
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())


def test_the_imputation_loss_has_an_entry_for_each_masked_target(store):
    """Imputation loss near 0: mask map computed after sentinel rewrite."""
    network = model()
    inputs, targets = dataset(store, replace(NOTHING, mask_assays=1, thin=1), biosamples=["all"]).batch(0)
    masked = inputs.availability[..., :-1] == MASKED
    assert (masked.all(dim=1).sum(dim=1) >= 1).all()
    terms = network.loss(network(inputs), targets)
    assert terms["count_imp"].entries == (masked & targets.valid[:, 0, None]).sum()
    assert terms["count_imp"].entries == masked.sum()
    assert terms["count_imp"].total / terms["count_imp"].entries > 0.1


@pytest.mark.parametrize("depth_offset", [True, False])
def test_the_depth_slope_is_not_arithmetic_alone_and_nothing_is_clamped(depth_offset):
    """Depth slope exactly 1.0000: arithmetic offset, not learning; check clamp fraction."""
    network = model(depth_offset=depth_offset)
    with torch.inference_mode():
        one, other = (network(batch(network.config, depth=depth)).count_log_mean for depth in (20e6, 40e6))
    slope = (other - one) / math.log(2)
    assert (slope - 1).abs().max() > 1e-3
    assert slope.std() > 1e-5
    assert max(one.abs().max(), other.abs().max()) < LOG_MEAN_LIMIT


def test_a_compressed_scale_keeps_its_ranks_but_is_told_by_pit_and_likelihood(rng):
    """Good Spearman, poor Pearson and MSE: scale error, compressed dynamic range."""
    network = model()
    inputs = batch(network.config, 8)
    log_mean = torch.from_numpy(rng.normal(1, 1.5, inputs.values[..., :-1].shape))
    counts = torch.from_numpy(rng.poisson(rng.gamma(3, np.exp(log_mean.numpy()) / 3)))
    with torch.inference_mode():
        output = network(inputs)
    right = output._replace(count_log_mean=log_mean, count_log_dispersion=torch.full_like(log_mean, math.log(3)))
    compressed = right._replace(count_log_mean=0.4 * log_mean - 1)
    one, other = (scores([(each, targets_of(inputs, counts=counts))]) for each in (right, compressed))
    assert other["count_obs_spearman"] == pytest.approx(one["count_obs_spearman"], abs=1e-6)
    assert other["count_obs_pearson"] < one["count_obs_pearson"] - 0.05
    assert other["count_obs_nll"] > one["count_obs_nll"] + 0.3
    assert one["count_obs_pit_error"] < 0.01
    assert other["count_obs_pit_error"] > 0.1


@pytest.mark.parametrize("factor", [30.0, -30.0])
def test_the_means_of_a_network_with_wild_weights_are_finite_and_so_is_its_loss(factor):
    """NaN / inf in NB, or plausible p with mu = inf."""
    network = model()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(factor)
    inputs = batch(network.config)
    counts = torch.full_like(inputs.values[..., :-1], 400_000)
    output = network(inputs._replace(values=inputs.values * 100_000))
    assert output.count_log_mean.abs().max() <= LOG_MEAN_LIMIT
    assert output.count_log_mean.exp().isfinite().all()
    low, high = LOG_DISPERSION_LIMITS
    assert ((output.count_log_dispersion >= low) & (output.count_log_dispersion <= high)).all()
    loss = weighted_loss(network.loss(output, targets_of(inputs, counts=counts)))
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())


def test_rare_peaks_are_learned():
    """Peak loss collapses to all-zero output: BCE mean dominated by background."""
    network = model(dropout=0.0)
    network.weights = LossWeights(count=0, signal=0, peak=1, observed=1)
    inputs = batch(network.config, 1)
    peaks = torch.zeros_like(inputs.values[..., :-1])
    peaks[:, 60:63] = 1  # 1 bin in 80
    values = inputs.values.clone()
    values[..., :-1] += 40 * peaks
    inputs, targets = inputs._replace(values=values), targets_of(inputs, counts=values[..., :-1], peaks=peaks)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        weighted_loss(network.loss(network(inputs), targets)).backward()
        optimiser.step()
    with torch.inference_mode():
        probability = network(inputs).peak_logit.sigmoid()
    assert probability[peaks > 0].mean() > 0.5
    assert probability[peaks == 0].mean() < 0.05


def test_giant_counts_are_the_same_in_every_type_that_holds_them():
    """Negative counts, or giant counts turned negative: int16 cast."""
    network = model()
    inputs = batch(network.config)
    outputs = []
    for dtype in (torch.uint16, torch.int32, torch.int64, torch.float32):
        with torch.inference_mode():
            outputs.append(network(inputs._replace(values=(inputs.values * 9000).clamp(max=65_000).to(dtype))))
    for output in outputs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(outputs[0], output, strict=True))
    assert outputs[0].count_log_mean.isfinite().all()


def test_a_network_that_predicts_drops_nothing_out():
    """Different numbers on re-run with same seed: dropout at eval."""
    network = model(dropout=0.5)
    inputs = batch(network.config)
    with torch.inference_mode():
        one, other = network(inputs), network(inputs)
        network.train()
        third = network(inputs)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one.signal_mean, third.signal_mean)


@pytest.mark.parametrize("reverse_complement", [0, 1])
def test_input_counts_signal_and_peaks_of_a_window_are_aligned_on_both_strands(store, reverse_complement):
    """x/y misaligned by one bin, sharp peaks blurred."""
    corruption = replace(NOTHING, thin=1, reverse_complement=reverse_complement)
    inputs, targets = dataset(store, corruption, biosamples=["all"]).batch(0)
    marks = targets.peaks == 1
    assert 50 < marks.sum() < marks.numel() / 4
    assert torch.equal(targets.signal > 0, marks)
    # a thousand reads at each mark: some are always seen and some asked for
    assert torch.equal(inputs.values[..., :-1].int() > 0, marks)
    assert torch.equal(targets.counts.int() > 0, marks)


def test_an_absent_control_is_missing_and_has_no_value(store):
    """Control present but constant -1: absent control fed as a value."""
    inputs, _ = dataset(store, NOTHING, biosamples=["one"]).batch(0)
    assert (inputs.availability[..., -1] == MISSING).all()
    assert not inputs.values[..., -1].any()
    network = model()
    filled = inputs._replace(values=inputs.values.to(torch.int32))
    filled.values[..., -1] = -1
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(network(inputs), network(filled), strict=True))
    present, _ = dataset(store, NOTHING, biosamples=["all"]).batch(0)
    assert (present.availability[..., -1] == OBSERVED).all()
    assert (present.values[..., -1] == 3).all()


def test_a_window_crosses_to_the_device_in_its_narrowest_types(store):
    """Loader-bound GPU: Python one-hot, wide types."""
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=True)
    plain = dataset(store, replace(NOTHING, thin=1), biosamples=["all"])
    windows = TrainingDataset(
        config, [(member.lanes, member.loci) for member in plain.members], corruption=NOTHING, batch_size=2, seed=0
    )
    inputs, targets = windows.batch(0)
    assert inputs.sequence.dtype == torch.uint8
    assert (inputs.sequence == NO_SEQUENCE).all()
    assert inputs.values.dtype in (torch.uint8, torch.uint16)
    assert targets.counts.dtype in (torch.uint8, torch.uint16)
    assert inputs.availability.dtype == targets.peaks.dtype == torch.uint8
    assert targets.masked.dtype == targets.valid.dtype == torch.bool


def test_every_process_has_a_batch_for_every_step(store):
    """DDP hangs at epoch end: unequal shards."""
    shards = [dataset(store, Corruption(), rank=rank, world_size=3, batch_size=9).batches() for rank in range(3)]
    for _ in range(30):  # far more than the windows that there are
        sizes = [len(next(shard).inputs.values) for shard in shards]
        assert sizes == [3, 3, 3]


def test_the_loss_is_that_of_the_weights_and_not_of_how_they_were_drawn():
    """Loss differs after refactor: module inserted mid-constructor changes the RNG stream."""
    one, other = model(seed=0), model(seed=1)
    inputs = batch(one.config)
    targets = targets_of(inputs, counts=inputs.values[..., :-1])
    before = [weighted_loss(network.loss(network(inputs), targets)) for network in (one, other)]
    assert before[0] != before[1]
    other.load_state_dict(dict(reversed(one.state_dict().items())))
    assert weighted_loss(other.loss(other(inputs), targets)) == before[0]
