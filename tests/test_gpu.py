"""On a CUDA device: the same numbers as on the CPU, and training that learns."""

from itertools import repeat

import pytest
import torch
from torch import nn

from candi_cli.loci import find_loci
from candi_cli.model.candi import Corruption, Lanes, Model, TrainingDataset, preset
from candi_cli.model.device import move
from candi_cli.model.optimiser import FlatOptimiser
from candi_cli.model.training import Schedule, fit, score
from candi_cli.store import Store

pytestmark = pytest.mark.gpu
ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3")


@pytest.fixture
def batch(store_path):
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=False)
    with Store.open(store_path) as store:
        covered = {"chr1": store.covered_blocks("sim1", "chr1")}
        loci = find_loci(store.chromsizes, resolution=25, context=240, regions=[], covered=covered, blacklist={})
        members = [(Lanes(store, "sim1", ASSAYS), loci)]
        return TrainingDataset(
            config, members, corruption=Corruption(mask_assays=1, mask_loci=1, thin=1), batch_size=4, seed=0
        ).batch(0)


@pytest.mark.parametrize("name", ["tiny", "paper", "base"])
def test_a_gpu_predicts_what_the_cpu_does(batch, name):
    torch.manual_seed(0)
    config = preset(name, ASSAYS, resolution=25, reads_sequence=True)
    length = config.context_bins
    inputs = batch.inputs._replace(
        values=batch.inputs.values.repeat(1, length // 240, 1),
        availability=batch.inputs.availability.repeat(1, length // 240, 1),
        sequence=torch.randint(0, 5, (4, length * 25), dtype=torch.uint8),
    )
    model = Model(config).eval()
    with torch.inference_mode():
        on_cpu = model(inputs)
        model.cuda()
        on_gpu = model(move(inputs, torch.device("cuda")))
        with torch.autocast("cuda", torch.bfloat16):
            in_bf16 = model(move(inputs, torch.device("cuda")))
    for a, b, c in zip(on_cpu, on_gpu, in_bf16, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-3)
        assert c.dtype == torch.float32
        assert (c.cpu() - a).norm() < 0.03 * a.norm() + 0.03


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_gpu_overfits_one_batch(batch, precision):
    torch.manual_seed(0)
    model, cuda = Model(preset("tiny", ASSAYS, resolution=25, reads_sequence=False)), torch.device("cuda")
    model.start_at_marginals([batch])
    before = score(model.cuda(), [batch], cuda)
    fit(model, repeat(batch), Schedule(150, learning_rate=5e-3, average=0.9), device=cuda, precision=precision)
    assert score(model, [batch], cuda)["loss"] < before["loss"] - 0.3


@pytest.mark.parametrize("name", ["adamw", "adamax"])
def test_the_compiled_optimiser_takes_the_steps_of_the_cpus(name):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)).to(device)
        optimiser = FlatOptimiser(model, name, weight_decay=0.1, clip_norm=0.05)
        for step in range(4):
            model(torch.ones(2, 5, device=device)).square().sum().backward()
            optimiser.step(0.01 * (step + 1))
            optimiser.zero_grad()
        found.append([parameter.detach().cpu() for parameter in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
