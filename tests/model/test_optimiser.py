"""The optimiser over one tensor takes the steps that torch's takes over many."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from candi_cli.model.optimiser import FlatOptimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3))


def losses(model: nn.Module, step, n: int = 6) -> list[float]:
    x, y = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)), torch.ones(20, 3)
    found = []
    for _ in range(n):
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(("name", "torchs"), [("adamw", torch.optim.AdamW), ("adamax", torch.optim.Adamax)])
def test_steps_equal_those_of_torchs_own_with_clipping_and_decay_of_matrices_alone(name, torchs):
    one, other = network(), network()
    flat = FlatOptimiser(one, name, weight_decay=0.1, clip_norm=0.05)
    matrices = [p for p in other.parameters() if p.ndim > 1]
    vectors = [p for p in other.parameters() if p.ndim == 1]
    plain = torchs([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], lr=0.02)
    norms = []

    def flat_step():
        norms.append(float(flat.step(0.02)))
        flat.zero_grad()

    def plain_step():
        norms.append(-float(nn.utils.clip_grad_norm_(other.parameters(), 0.05)))
        plain.step()
        plain.zero_grad()

    assert losses(one, flat_step) == pytest.approx(losses(other, plain_step), rel=1e-5)
    assert norms[:6] == pytest.approx([-norm for norm in norms[6:]], rel=1e-5)
    assert min(norms[:6]) > 0.05  # each step was clipped


def test_frozen_parameters_stay_and_a_parameter_without_a_gradient_only_decays():
    model = network()
    model[0].requires_grad_(False)
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = FlatOptimiser(model, "adamw", weight_decay=0.5, clip_norm=1.0)
    model[3](torch.ones(1, 7)).sum().backward()  # the norm's parameters take no part
    optimiser.step(0.1)
    after = list(model.parameters())
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[2], before[2])
    assert not torch.equal(after[4], before[4])


def test_a_state_goes_on_in_another_optimiser():
    one, other = network(), network()
    first, second = (FlatOptimiser(m, "adamw", weight_decay=0.1, clip_norm=1.0) for m in (one, other))
    losses(one, lambda: (first.step(0.01), first.zero_grad()))
    other.load_state_dict(one.state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    go_on = [losses(m, lambda o=o: (o.step(0.01), o.zero_grad())) for m, o in ((one, first), (other, second))]
    assert go_on[0] == go_on[1]
