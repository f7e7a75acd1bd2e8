"""Each fast form equals the plain one: in float64, values and gradients."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from candi_cli.covariates import PLATFORMS, Covariates, encode
from candi_cli.model.candi import preset
from candi_cli.model.candi.blocks import SequenceTower, words_at
from candi_cli.model.candi.lanes import LaneConv, LaneDeconv, attend, block_diagonal, lane_products
from candi_cli.model.candi.network import MASKED, MISSING, NO_SEQUENCE, OBSERVED, CandiBatch, Network
from candi_cli.model.candi.products import PositionConv, aligned_linear, maximum, neighbours, neighbours_product

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from plain import PlainNetwork, load_plain

ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3")


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(config) -> CandiBatch:
    length, lanes = config.context_bins, len(config.assays) + 1
    availability = torch.full((2, length, lanes), OBSERVED, dtype=torch.uint8)
    availability[0, 100:140, :-1] = MASKED
    availability[1, :, 1] = MASKED
    availability[1, :, 2] = MISSING
    values = torch.randint(0, 9, (2, length, lanes)) * (availability == OBSERVED)
    sequence = torch.randint(0, 5, (2, length * config.resolution), dtype=torch.uint8)
    sequence[1] = NO_SEQUENCE
    asked = [Covariates(40e6, 100, "paired-ended", PLATFORMS[5], 3e9), Covariates(), Covariates(1e6, 36, span_bp=3e9)]
    covariates = torch.from_numpy(encode([*asked, None])).double().expand(2, -1, -1)
    return CandiBatch(values, availability, covariates, covariates[..., :-1], sequence)


def close(one, other, tolerance=1e-8):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_the_paper_network_equals_its_plain_form_in_values_and_gradients():
    # the rotary angles are float32 constants of the library: that is all of the difference
    config = preset("paper", ASSAYS, resolution=25, reads_sequence=True)
    plain, network = PlainNetwork(config).eval(), Network(config).eval()
    load_plain(network, plain)
    inputs = batch(config)
    one, other = plain(inputs), network(inputs)
    for a, b in zip(one, other, strict=True):
        close(a, b)
    for output in (one, other):
        sum((parameter**2).sum() for parameter in output).backward()
    close(plain.latent_projection.weight.grad, network.latent_projection.weight.grad, 1e-6)
    first = plain.sequence_convs[0].weight.grad.permute(2, 1, 0)
    close(first, network.sequence_tower.first.weight.grad, 1e-6)  # through the table of 4-mers
    lanes = plain.signal_convs[1].weight.grad.unflatten(0, (4, -1)).permute(3, 0, 2, 1)
    close(lanes, network.signal_tower[1].conv.weight.grad, 1e-6)
    ups = torch.stack([each.ups[2].weight.grad.unflatten(0, (3, -1)) for each in plain.decoders])
    close(ups.permute(4, 0, 1, 2, 3)[[1, 2, 0]], network.decoders.ups[2].weight.grad, 1e-6)


def test_dna_that_was_read_before_serves_another_sample():
    config = preset("base", ASSAYS, resolution=25, reads_sequence=True)
    network, inputs = Network(config).eval(), batch(config)
    features = network.read_sequence(inputs.sequence, 2, config.context_bins // 8)
    for a, b in zip(network(inputs), network(inputs._replace(sequence=None), features), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("width_in", "width_out"), [(3, 3), (3, 9), (5, 8), (8, 1)])
def test_lanes_one_by_one_equal_one_block_diagonal_kernel_and_a_grouped_convolution(width_in, width_out):
    conv, features = LaneConv(4, width_in, width_out), torch.randn(2, 4, 24, width_in)
    torch.nn.init.normal_(conv.bias)
    kernel = conv.weight.permute(1, 3, 2, 0).flatten(0, 1)  # (T*O, I, 3)
    grouped = F.conv1d(features.mT.flatten(1, 2), kernel, conv.bias.flatten(), padding=1, groups=4)
    expected = grouped.unflatten(1, (4, width_out)).mT
    close(conv.lane_by_lane(features), expected)
    close(conv.all_lanes(features), expected)


@pytest.mark.parametrize("shared", [True, False])
def test_raising_lanes_equals_a_grouped_transposed_convolution(shared):
    deconv = LaneDeconv(3, 2, 5, 4, shared_input=shared)
    torch.nn.init.normal_(deconv.bias)
    features = torch.randn(2, 1 if shared else 3, 2, 6, 5)
    kernel = deconv.weight[[2, 0, 1]].permute(1, 2, 3, 4, 0).flatten(0, 2).flatten(0, 0)  # (D*T*I, O, 3)
    rows = features.expand(-1, 3, -1, -1, -1).mT.flatten(1, 3)  # (N, D*T*I, L)
    expected = F.conv_transpose1d(rows, kernel, deconv.bias.flatten(), stride=2, padding=1, output_padding=1, groups=6)
    close(deconv(features), expected.unflatten(1, (3, 2, 4)).mT)


def test_products_of_lanes_equal_one_matrix_with_blocks_on_its_diagonal():
    lanes, weights = torch.randn(2, 3, 6, 5), [torch.randn(3, 5, 4) for _ in range(2)]
    bias = torch.randn(3, 4)
    after = F.pad(lanes[:, :, 1:], (0, 0, 0, 1))
    close(LaneDeconv.all_lanes(lanes, weights, bias), lane_products([lanes, after], weights, bias))
    matrix = block_diagonal(weights[0])
    close(matrix, torch.block_diag(*weights[0]))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (0, 1), (2, 0)])
def test_neighbours_and_their_gradient_are_those_of_shifted_copies(before, after):
    features = torch.randn(2, 7, 3, requires_grad=True)
    padded = F.pad(features, (0, 0, before, after))
    expected = torch.cat([padded[:, shift : shift + 7] for shift in range(before + 1 + after)], dim=-1)
    assert torch.equal(neighbours(features, before, after), expected)
    assert torch.autograd.gradcheck(lambda each: neighbours(each, before, after), features)


def test_a_convolution_over_positions_equals_torchs():
    conv, features = PositionConv(12, 10), torch.randn(2, 30, 12)
    torch.nn.init.normal_(conv.bias)
    expected = F.conv1d(features.mT, conv.weight.permute(2, 1, 0), conv.bias, padding=1).mT
    close(conv(features), expected)
    close(neighbours_product(features, conv.weight, conv.bias), expected)


def test_the_maximum_and_its_gradient_are_those_of_a_pool():
    values = torch.randint(0, 4, (2, 6, 5, 3)).double().requires_grad_()  # with ties
    theirs = values.detach().clone().requires_grad_()
    pooled = F.max_pool1d(theirs.flatten(1, 2).mT, 5).mT
    weight = torch.randn_like(pooled)
    (maximum(values) * weight).sum().backward()
    (pooled * weight).sum().backward()
    assert torch.equal(maximum(values), pooled)
    assert torch.equal(values.grad, theirs.grad)
    assert torch.equal(maximum(values.detach()), pooled)


def test_a_maximum_of_values_that_are_not_finite_is_not_finite():
    for position in range(3):
        values = torch.zeros(1, 3, 1, requires_grad=True)
        with torch.no_grad():
            values[0, position] = torch.nan
        assert maximum(values).isnan().all()


def test_attending_as_a_compiler_sees_it_equals_products(monkeypatch):
    query, features = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 20, 5)
    weights = torch.einsum("ndtw,ndtlw->ndtl", query, features).softmax(dim=-1)
    expected = torch.einsum("ndtl,ndtlw->ndtw", weights, features)
    for compiling in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        close(attend(query, features), expected)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_linear_layer_in_aligned_widths_is_the_same(monkeypatch, with_bias):
    features, weight, bias = torch.randn(2, 7, 27), torch.randn(45, 27), torch.randn(45) if with_bias else None
    for compiling in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        close(aligned_linear(features, weight, bias), F.linear(features, weight, bias))


def test_the_table_of_words_equals_a_convolution_with_its_pool():
    tower = SequenceTower((6, 6, 6, 6, 6))
    torch.nn.init.normal_(tower.first.bias)
    codes = torch.randint(0, 5, (3, 400), dtype=torch.uint8)
    bases = F.one_hot(codes.long(), 5)[..., :4].double().mT
    expected = F.gelu(
        F.max_pool1d(F.conv1d(bases, tower.first.weight.permute(2, 1, 0), tower.first.bias, padding=1), 2)
    )
    close(F.embedding(words_at(codes), tower.table()), expected.mT)
