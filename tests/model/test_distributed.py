"""Several processes compute what one computes: real processes that speak through gloo."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from candi_cli.model.candi import Corruption, Lanes, Model, TrainingDataset, preset
from candi_cli.model.distributed import RENDEZVOUS, joined
from candi_cli.model.resume import Checkpoints
from candi_cli.model.training import Progress, Schedule, TrainingStopped, fit
from candi_cli.store import Store

ASSAYS = ("H3K27me3", "H3K36me3", "H3K4me3")
BATCH = 3  # windows: of two processes, one has two and the other has one
CASES = {
    "unequal shares": lambda row: True,
    "one process without any entry": lambda row: row % 2 == 0,
    "a batch without any entry": lambda row: False,
}


class Starved:
    """A dataset of which only some rows of the global batch have targets."""

    def __init__(self, dataset: TrainingDataset, keeps) -> None:
        self.dataset, self.keeps = dataset, keeps

    def batches(self, first_step=0):
        for step, batch in enumerate(self.dataset.batches(first_step), first_step):
            has = torch.tensor([self.keeps(row) or step != 1 for row in self.dataset.rows])
            yield batch.inputs, batch.targets._replace(valid=batch.targets.valid & has[:, None, None])


def train(store_path: Path, case: str, folder: Path) -> dict:
    """Train a few steps in as many processes as the environment says; return the losses and the weights."""
    from candi_cli.loci import find_loci

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = replace(preset("tiny", ASSAYS, resolution=25, reads_sequence=False), dropout=0.0)
    with Store.open(store_path) as store, joined(torch.device("cpu")) as (processes, device):
        covered = {"chr1": store.covered_blocks("sim1", "chr1")}
        loci = find_loci(store.chromsizes, resolution=25, context=240, regions=[], covered=covered, blacklist={})
        dataset = TrainingDataset(
            config, [(Lanes(store, "sim1", ASSAYS), loci)], corruption=Corruption(), batch_size=BATCH, seed=1,
            rank=processes.rank, world_size=processes.world_size,
        )  # fmt: skip
        reports: list[Progress] = []
        model = Model(config)
        options = {"device": device, "processes": processes, "report_every": 1, "on_step": reports.append}
        batches = Starved(dataset, CASES[case])
        if processes.rank:  # weights of its own: it must take those of the first process
            torch.nn.init.normal_(model.covariates_in.lane)
        checkpoints = Checkpoints(folder / f"{case}.checkpoint", {}, resume=None)
        asked = iter([False, False, processes.rank == processes.world_size - 1])  # only the last process is asked
        with pytest.raises(TrainingStopped):
            fit(model, batches, Schedule(5), checkpoints=checkpoints, stopped=lambda: next(asked), **options)
        checkpoints.resume = checkpoints.path
        if processes.world_size > 1:
            torch.distributed.barrier()
        fit(model, batches, Schedule(5), checkpoints=checkpoints, **options)
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        return {
            "losses": [report.loss for report in reports],
            "terms": [report.terms for report in reports],
            "norms": [report.grad_norm for report in reports],
            "without": reports[-1].without,
            "weights": weights.tolist(),
        }


def in_processes(n: int, store_path: Path, folder: Path) -> list[subprocess.CompletedProcess]:
    shared = {**os.environ, "WORLD_SIZE": str(n), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(store_path), str(folder)],
            env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(n)
    ]  # fmt: skip
    ended = [(process, *process.communicate(timeout=120)) for process in started]
    return [subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in ended]


@pytest.fixture(scope="module")
def of_two(store_path, tmp_path_factory) -> list[dict]:
    """For each of two processes, the results of all cases."""
    ran = in_processes(2, store_path, tmp_path_factory.mktemp("two"))
    assert [process.returncode for process in ran] == [0, 0], ran[0].stderr + ran[1].stderr
    return [json.loads(process.stdout) for process in ran]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_losses_gradients_and_weights_of_one(case, of_two, store_path, tmp_path):
    one = train(store_path, case, tmp_path)
    for results in of_two:
        two = results[case]
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
        assert two["without"] == one["without"]
        for terms_of_two, terms_of_one in zip(two["terms"], one["terms"], strict=True):
            assert terms_of_two == pytest.approx(terms_of_one, rel=1e-5, abs=1e-6)
        assert two["weights"] == pytest.approx(one["weights"], abs=2e-4)
    assert of_two[0][case]["weights"] == of_two[1][case]["weights"]
    assert len(one["losses"]) == 5  # three, then two from the checkpoint
    if case == "a batch without any entry":
        assert one["losses"][1] == 0
        assert all(n >= 1 for n in one["without"].values())


if __name__ == "__main__":
    store, place = Path(sys.argv[1]), Path(sys.argv[2])
    results = {}
    for each in CASES:
        os.environ[RENDEZVOUS] = str(place / f"{each}.rendezvous")  # a file serves one meeting
        results[each] = train(store, each, place)
    print(json.dumps(results))
