"""On a CUDA device: the same numbers as on the CPU, the same bytes however they are come by, training that learns."""

from itertools import repeat

import numpy as np
import pyBigWig
import pytest
import torch
from conftest import TEST_DATA
from torch import nn

from candi_cli.loci import find_loci
from candi_cli.model.candi import Corruption, Lanes, Model, TrainingDataset, preset
from candi_cli.model.device import move
from candi_cli.model.forward import AT_ONCE, forwarding
from candi_cli.model.optimiser import FlatOptimiser
from candi_cli.model.training import Schedule, fit, score
from candi_cli.store import Store
from candi_cli.store.predictions import PredictionWriter

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


@pytest.fixture
def impute(candi, model_path, pair_store_path, tmp_path):
    """Impute one track on a device."""

    def run(*arguments, name="out.bw", code=0, device="cuda"):
        output = tmp_path / name
        common = ("--assay", "H3K36me3", "-m", model_path, "-T", TEST_DATA / "genome.fa.gz", "--device", device)
        ran = candi("impute", pair_store_path, *common, "-o", output, *arguments)
        assert ran.code == code, ran.err
        return output

    return run


def test_the_bytes_on_a_gpu_depend_on_neither_batch_size_nor_threads(impute):
    ways = [(1, 1), (64, 4), (100, 1), (500, 4), (1, 1)]
    assert len({impute("--batch-size", size, "-@", n, name=f"{size}.{n}.bw").read_bytes() for size, n in ways}) == 1


def test_shards_from_a_gpu_are_joined_to_the_bytes_of_one_run(candi, impute, tmp_path):
    whole = impute().read_bytes()
    regions = ["chr1:1-100000", "chr1:100001-300010", "chr2"]
    shards = [impute("-r", region, name=f"{number}.h5") for number, region in enumerate(regions)]
    ran = candi("impute", "--merge", *shards, "-o", tmp_path / "merged.bw")
    assert (ran.code, (tmp_path / "merged.bw").read_bytes()) == (0, whole), ran.err


def test_a_run_on_a_gpu_that_was_broken_off_goes_on_to_the_same_bytes(impute, monkeypatch):
    whole, add = impute().read_bytes(), PredictionWriter.add

    def broken(self, biosample, region, values):
        if region.chrom == "chr2":
            raise KeyboardInterrupt
        add(self, biosample, region, values)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionWriter, "add", broken)
        impute("-@", 1, name="resumed.bw", code=130)
    assert impute("--resume", name="resumed.bw").read_bytes() == whole


def test_a_track_from_a_gpu_is_that_of_the_cpu(impute):
    with pyBigWig.open(str(impute())) as on_gpu, pyBigWig.open(str(impute(device="cpu", name="cpu.bw"))) as on_cpu:
        assert on_gpu.chroms() == on_cpu.chroms()
        for chrom, length in on_cpu.chroms().items():
            one, other = (np.array(track.values(chrom, 0, length)) for track in (on_gpu, on_cpu))
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6)  # the tracks have 3 digits


def test_a_dry_run_tells_the_gpu_and_how_much_of_its_memory_is_taken(candi, model_path, pair_store_path, tmp_path):
    common = ("-m", model_path, "--device", "cuda", "--dry-run", "-o", tmp_path / "out")
    ran = candi("impute", pair_store_path, "--assay", "all", *common)
    rows = dict(line.split("\t", 1) for line in ran.out.splitlines())
    assert rows["device"].startswith(torch.cuda.get_device_name())
    assert rows["device"].endswith("B of its memory")


def test_a_gpu_whose_memory_is_short_computes_fewer_windows_at_once(batch):
    torch.manual_seed(0)
    inputs = batch.inputs._replace(
        values=batch.inputs.values.repeat(25, 5, 1),
        availability=batch.inputs.availability.repeat(25, 5, 1),
        covariates_in=batch.inputs.covariates_in.repeat(25, 1, 1),
        covariates_out=batch.inputs.covariates_out.repeat(25, 1, 1),
    )
    model, warned = Model(preset("base", ASSAYS, resolution=25, reads_sequence=False)), []
    with forwarding(model, lambda out: out.count_log_mean, device=torch.device("cpu"), threads=2) as forward:
        expected = np.stack(forward.start(inputs, 100)())
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 120e6  # half of what the usual number needs
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with forwarding(
            model, lambda out: out.count_log_mean, device=torch.device("cuda"), threads=2, warn=warned.append
        ) as forward:
            found = np.stack(forward.start(forward.stage(inputs), 100)())
            assert 1 <= forward.at_once < AT_ONCE
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert f"holds {forward.at_once} windows at once" in warned[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
