"""The network's shapes, and the invariances that predictions rest on."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from candi_cli.covariates import PLATFORMS, Covariates, encode
from candi_cli.model.candi.config import Config, preset
from candi_cli.model.candi.network import (
    _FACTOR_REACH,
    MASKED,
    MISSING,
    NO_SEQUENCE,
    OBSERVED,
    CandiBatch,
    Network,
    _locally,
)
from candi_cli.model.candi.smoothing import LEVEL_SD, smooth
from candi_cli.model.candi.starting import normalise_convolutions

ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3")
COVARIATES = Covariates(depth=20e6, read_length=50, run_type="paired-ended", platform=PLATFORMS[5], span_bp=3e9)


def network(name="tiny", *, reads_sequence=False, seed=0, **changes):
    torch.manual_seed(seed)
    config = preset(name, ASSAYS, resolution=25, reads_sequence=reads_sequence)
    return Network(replace(config, **changes)).eval()


def batch(config: Config, n=2, *, requested=COVARIATES, own=COVARIATES, seed=1) -> CandiBatch:
    generator = torch.Generator().manual_seed(seed)
    length, lanes = config.context_bins, len(config.assays) + 1
    rates = torch.rand((n, length, lanes), generator=generator) * 3
    sequence = torch.randint(0, 5, (n, length * config.resolution), generator=generator).byte()
    return CandiBatch(
        torch.poisson(rates, generator=generator),
        torch.full((n, length, lanes), OBSERVED, dtype=torch.uint8),
        torch.from_numpy(encode([own] * lanes)).expand(n, -1, -1),
        torch.from_numpy(encode([requested] * (lanes - 1))).expand(n, -1, -1),
        sequence if config.reads_sequence else None,
    )


def hide(inputs: CandiBatch, lane: int, state: int) -> CandiBatch:
    counts, availability = inputs.values.clone(), inputs.availability.clone()
    counts[..., lane] = 0
    availability[..., lane] = state
    return inputs._replace(values=counts, availability=availability)


@torch.inference_mode()
def predict(model, inputs):
    return model(inputs)


def differ(one, other) -> bool:
    return all((a - b).abs().max() > 1e-5 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["paper", "base", "small", "tiny"])
@pytest.mark.parametrize("reads_sequence", [True, False])
def test_every_preset_gives_five_finite_parameters_for_each_bin_and_assay(name, reads_sequence):
    model = network(name, reads_sequence=reads_sequence)
    output = predict(model, batch(model.config, 1))
    for parameter in output:
        assert parameter.shape == (1, model.config.context_bins, len(ASSAYS))
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
    assert (output.signal_mean >= 0).all()
    assert (output.signal_sd > 0).all()


def test_the_latent_has_one_vector_for_each_200_bp():
    model = network("base", reads_sequence=True)
    with torch.inference_mode():
        latent = model.encode(batch(model.config, 1)).latent
    assert latent.shape == (1, 150, model.config.d_model)


def test_masked_missing_and_zero_give_different_latents():
    model = network()
    observed = batch(model.config)
    zero = observed._replace(values=observed.values.clone())
    zero.values[..., 0] = 0
    with torch.inference_mode():
        latents = [model.encode(x).latent for x in (zero, hide(observed, 0, MISSING), hide(observed, 0, MASKED))]
    for i, one in enumerate(latents):
        for other in latents[:i]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize(
    "changed",
    [
        {"depth": 80e6}, {"read_length": 100}, {"run_type": "single-ended"}, {"platform": PLATFORMS[9]},
        {"depth": None}, {"read_length": None}, {"run_type": None}, {"platform": None},
    ],
    ids=str,
)  # fmt: skip
def test_each_requested_covariate_reaches_every_output(changed, levels):
    model = network(smoothing_levels=levels, depth_range=(20.0, 30.0))
    one = predict(model, batch(model.config))
    other = predict(model, batch(model.config, requested=replace(COVARIATES, **changed)))
    assert differ(one, other)


def test_each_input_covariate_reaches_every_output():
    model = network()
    for changed in ({"depth": 5e6}, {"read_length": 36}, {"run_type": "single-ended"}, {"platform": PLATFORMS[9]}):
        one, other = (
            predict(model, batch(model.config, own=own)) for own in (COVARIATES, replace(COVARIATES, **changed))
        )
        assert differ(one, other), changed


def test_with_the_offset_twice_the_requested_depth_outside_of_training_is_twice_the_counts():
    # beyond depth_range the embedding stands still, so only the offset is left
    model = network(depth_range=(20.0, 21.0))
    one, other = (
        predict(model, batch(model.config, requested=replace(COVARIATES, depth=depth))) for depth in (50e6, 100e6)
    )
    ratio = (other.count_log_mean - one.count_log_mean).exp()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0), rtol=1e-4, atol=1e-4)


def test_a_prediction_does_not_depend_on_its_neighbours_in_the_batch():
    model = network("tiny", reads_sequence=True)
    inputs = batch(model.config, 3)
    together = predict(model, inputs)
    alone = predict(model, CandiBatch(*(None if part is None else part[1:2] for part in inputs)))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4)


def test_a_window_without_sequence_is_the_same_beside_one_with_sequence():
    model = network(reads_sequence=True)
    inputs = batch(model.config)
    mixed = inputs.sequence.clone()
    mixed[0] = NO_SEQUENCE
    beside = predict(model, inputs._replace(sequence=mixed))
    without = predict(model, inputs._replace(sequence=None))
    for a, b in zip(beside, without, strict=True):
        torch.testing.assert_close(a[0], b[0], rtol=1e-4, atol=1e-4)
    assert differ([a[1] for a in beside], [b[1] for b in without])


def test_hidden_counts_cannot_be_seen():
    model = network()
    inputs = hide(batch(model.config), 1, MASKED)
    leaky = inputs._replace(values=inputs.values.clone())
    leaky.values[..., 1] = 100
    for a, b in zip(predict(model, inputs), predict(model, leaky), strict=True):
        assert torch.equal(a, b)


def test_counts_in_the_millions_stay_finite():
    model = network()
    inputs = batch(model.config)
    output = predict(model, inputs._replace(values=inputs.values * 4e6))
    assert all(parameter.isfinite().all() for parameter in output)


def test_a_constant_track_is_its_own_smoothing_across_hidden_bins():
    counts = torch.full((1, 3, 240), 7.0)
    observed = torch.ones((1, 3, 240), dtype=torch.bool)
    observed[..., 100:110] = False
    smoothed, known = smooth(counts, observed, 6)
    torch.testing.assert_close(smoothed[known], torch.full_like(smoothed[known], 7.0))
    assert not known[0, ..., 100:110].any()
    assert known[5].all()


def test_smoothing_levels_are_the_bandwidths_that_are_stated():
    spike = torch.zeros((1, 1, 1001))
    spike[..., 500] = 1
    smoothed, _ = smooth(spike, torch.ones_like(spike, dtype=torch.bool), len(LEVEL_SD))
    distance = torch.arange(1001) - 500.0
    sd = (smoothed[1:, 0, 0] * distance**2).sum(dim=1).sqrt()
    torch.testing.assert_close(sd, torch.tensor(LEVEL_SD), rtol=5e-3, atol=0)
    assert (smoothed[0] == spike).all()


PAPER_ASSAYS = tuple(f"assay{number}" for number in range(35))


def shapes_of(model, inputs) -> dict[str, tuple[int, ...]]:
    """Run a network and return the shape of what each of its modules gives, by name."""
    found = {}

    def note(name):
        def hook(module, given, output):
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                found[name] = tuple(first.shape)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    predict(model, inputs)
    for hook in hooks:
        hook.remove()
    return found


def test_the_stages_of_the_paper_preset_have_the_shapes_of_the_papers_text():
    model = Network(preset("paper", PAPER_ASSAYS, resolution=25, reads_sequence=True)).eval()
    inputs = batch(model.config, 1)
    assert inputs.values.shape == (1, 1200, 36)  # M: N x L x (A + 1)
    assert inputs.sequence.shape == (1, 30_000)  # S, as codes
    assert inputs.covariates_in.shape == (1, 4, 36)
    assert inputs.covariates_out.shape == (1, 4, 35)
    shapes = shapes_of(model, inputs)
    # three stages, pool 2, expansion 3: lanes of 3, 9, 27 channels at 600, 300, 150 positions
    assert [shapes[f"signal_tower.{stage}"] for stage in range(3)] == [
        (1, 36, 600, 3), (1, 36, 300, 9), (1, 36, 150, 27),
    ]  # fmt: skip
    assert all(isinstance(stage.condition.query, torch.nn.Module) for stage in model.signal_tower)
    # five DNA stages, pools 2, 2, 2, 5, 5; the first is a table of 4-mers
    widths = (12, 36, 108, 324, 972)
    assert tuple(model.sequence_tower.table().shape) == (625, widths[0])
    lengths = (15_000, 7_500, 3_750, 750)  # of the inputs of the other four
    assert [shapes[f"sequence_tower.convs.{stage}"] for stage in range(4)] == [
        (1, length, width) for length, width in zip(lengths, widths[1:], strict=True)
    ]
    assert shapes["sequence_tower"] == (1, 150, 972)
    assert model.fusion[0].in_features == 2 * 972
    assert shapes["fusion"] == (1, 150, 972)
    assert shapes["transformer"] == (1, 150, 972)  # Z: N x L' x d_model
    attention = [module for module in model.transformer.modules() if type(module).__name__ == "Attention"]
    assert [(each.heads, each.to_q.out_features) for each in attention] == [(9, 9 * 64)] * 4
    assert model.transformer.rotary_pos_emb is not None
    # three decoders of three transposed convolutions, each with metadata: 9, 3, 1 channels of a lane
    assert [shapes[f"decoders.ups.{stage}"] for stage in range(3)] == [
        (1, 3, 35, 300, 9), (1, 3, 35, 600, 3), (1, 3, 35, 1200, 1),
    ]  # fmt: skip
    assert [sorted(head.n_outputs.items()) for head in model.heads] == [
        [("counts", 2)],
        [("signal", 2)],
        [("peaks", 1)],
    ]
    dropouts = {module.p for module in model.transformer.modules() if isinstance(module, torch.nn.Dropout)}
    assert dropouts == {0.1}


def test_the_paper_preset_has_the_papers_number_of_weights_nine_tenths_of_them_in_the_transformer():
    model = Network(preset("paper", PAPER_ASSAYS, resolution=25, reads_sequence=True))
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    total = sum(p.numel() for p in model.parameters())
    assert 42e6 < total < 44e6
    assert count["transformer"] == 39_219_228  # four layers of 9 heads of 64 and a 4-fold feed-forward, one last norm
    assert count["transformer"] / total == pytest.approx(0.906, abs=0.001)
    assert count["fusion"] == (2 * 972 + 1) * 972 + 2 * 972
    convolutions = sum((3 * i + 1) * o for i, o in ((4, 12), (12, 36), (36, 108), (108, 324), (324, 972)))
    assert count["sequence_tower"] == convolutions + 972  # and the token of a window without sequence
    assert (
        sum(p.numel() for p in Network(preset("base", PAPER_ASSAYS, resolution=25, reads_sequence=True)).parameters())
        < 3e6
    )


@pytest.mark.parametrize("name", ["paper", "base", "small"])
def test_metadata_reach_every_output_and_masked_is_not_missing_in_the_presets_themselves(name):
    model = network(name)
    inputs = batch(model.config, 1)
    with torch.inference_mode():
        masked, missing = (model.encode(hide(inputs, 0, state)).latent for state in (MASKED, MISSING))
    assert (masked - missing).abs().max() > 1e-4
    deeper = replace(COVARIATES, depth=160e6)
    assert differ(predict(model, inputs), predict(model, batch(model.config, 1, requested=deeper)))
    assert differ(predict(model, inputs), predict(model, batch(model.config, 1, own=deeper)))


def test_the_last_layer_of_metadata_depends_on_them_though_its_lanes_are_one_channel_wide():
    # the research code normalises over that channel, so that its last layer is a constant
    model = network("paper")
    last = model.decoders.conditions[-1]
    features, covariates = torch.randn(1, 3, 3, 1200, 1), torch.randn(2, 1, 3, 32)
    scales = [last(features, each)[0] for each in covariates]
    assert (scales[0] - scales[1]).abs().min() > 1e-4


def test_metadata_act_on_a_spatially_constant_lane_too():
    model = network("paper")
    constant, covariates = torch.ones(1, 1, 4, 600, 3), torch.randn(2, 1, 4, 32)
    one, other = (torch.cat(model.signal_tower[0].condition(constant, each)) for each in covariates)
    assert (one - other).abs().max() > 1e-2


def test_a_network_that_reads_signal_has_no_counts_and_uses_the_reference():
    torch.manual_seed(0)
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=False, input="signal", reads_reference=True)
    model = Network(config).eval()
    inputs = batch(config)
    assert config.outputs == ("signal", "peaks")
    without = predict(model, inputs)
    assert without.count_log_mean is None
    reference = torch.rand(2, 240, 3) * 3
    reference[:, :, 2] = torch.nan
    with_reference = predict(model, inputs._replace(reference=reference))
    assert with_reference.signal_mean.isfinite().all()
    assert (with_reference.signal_mean - without.signal_mean).abs().max() > 1e-3
    nothing = torch.full_like(reference, torch.nan)
    for a, b in zip(predict(model, inputs._replace(reference=nothing))[2:], without[2:], strict=True):
        torch.testing.assert_close(a, b)


def test_a_normalised_start_gives_each_channel_mean_0_and_variance_1_and_leaves_silent_lanes_alone():
    model = network("paper", reads_sequence=True)
    inputs = hide(batch(model.config, 4), 1, MISSING)
    before = model.signal_tower[0].conv.weight.detach().clone()
    normalise_convolutions(model, inputs)
    seen = {}
    hooked = {"first": model.signal_tower[0].conv, "last": model.decoders.ups[-1], "dna": model.sequence_tower.convs[1]}
    for name, module in hooked.items():
        module.register_forward_hook(lambda module, given, output, name=name: seen.__setitem__(name, output))
    predict(model, inputs)
    live = seen["first"][:, [0, 2, 3]]
    for values, axes in ((live, (0, 2)), (seen["last"], (0, 3)), (seen["dna"], (0, 1))):
        sd, mean = torch.std_mean(values, dim=axes)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-3, rtol=0)
        torch.testing.assert_close(sd, torch.ones_like(sd), atol=1e-2, rtol=0)
    after = model.signal_tower[0].conv.weight
    assert torch.equal(after[:, 1], before[:, 1])
    assert not torch.equal(after[:, 0], before[:, 0])


@pytest.mark.parametrize("length", [1200, 240, 100])
def test_the_factor_of_an_assay_is_a_mean_over_the_bins_around(length):
    values = torch.randn(2, 3, length, dtype=torch.float64)
    reach = _FACTOR_REACH
    expected = F.avg_pool1d(values, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)
    torch.testing.assert_close(_locally(values), expected, rtol=0, atol=1e-12)
