"""The training loop: it learns, it is reproducible, and it stops when it should."""

import math
from itertools import repeat
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from candi_cli.errors import ModelError
from candi_cli.model.candi import Corruption, Lanes, Model, TrainingDataset, preset
from candi_cli.model.terms import LossTerm, means, weighted_loss
from candi_cli.model.training import Schedule, fit, score
from candi_cli.store import Store

CPU = torch.device("cpu")


class Pair(NamedTuple):
    x: Tensor


class Line(nn.Module):
    """y = a x, to learn a = 3."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        return self.a * batch.x

    def loss(self, output, targets):
        square = ((output - targets.x) ** 2).sum()
        return {"square": LossTerm(square, square, torch.tensor(output.numel()), 1.0)}


BATCH = (Pair(torch.tensor([1.0, 2.0])), Pair(torch.tensor([3.0, 6.0])))


def test_the_loop_knows_no_family_and_finds_the_least_squares():
    model = Line()
    history = fit(model, repeat(BATCH), Schedule(400, learning_rate=0.1, average=0.9), device=CPU, held_out=[BATCH])
    assert model.a.item() == pytest.approx(3, abs=1e-3)
    assert [progress.step for progress in history] == [250, 400]
    assert history[-1].held_out["loss"] < 1e-4
    assert not model.training


def test_the_weights_kept_are_those_with_the_lowest_held_out_loss():
    opposite = (BATCH[0], Pair(-BATCH[1].x))
    model = Line()
    fit(
        model,
        repeat(BATCH),
        Schedule(60, learning_rate=0.1, average=0.5),
        device=CPU,
        held_out=[opposite],
        score_every=1,
    )
    assert model.a.item() < 0.5  # every step makes the held-out batch worse, so the first is the best


def test_the_rate_warms_up_and_falls_to_a_tenth():
    schedule = Schedule(100, warmup=0.1)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[55] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 0.5)))
    assert rates[99] == pytest.approx(0.1, abs=0.01)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_step():
    bad = (Pair(torch.tensor([torch.nan])), Pair(torch.tensor([1.0])))
    batches = iter([BATCH, BATCH, bad])
    with pytest.raises(ModelError, match="step 3: the loss is not finite"):
        fit(Line(), batches, Schedule(5), device=CPU)


@pytest.mark.parametrize("optimiser", ["adamw", "adamax"])
def test_the_network_overfits_one_batch(store_path, optimiser):
    from candi_cli.loci import find_loci

    torch.manual_seed(0)
    assays = ("H3K27me3", "H3K36me3", "H3K4me3")
    config = preset("tiny", assays, resolution=25, reads_sequence=False)
    with Store.open(store_path) as store:
        covered = {chrom: store.covered_blocks("sim1", chrom) for chrom in ("chr1", "chr2")}
        loci = find_loci(
            store.chromsizes, resolution=25, context=240, regions=[], covered=covered, blacklist={}
        )  # fmt: skip
        lanes = Lanes(store, "sim1", assays)
        dataset = TrainingDataset(
            config, [(lanes, loci)], corruption=Corruption(1, 1, 1, 0, 0, 0), batch_size=2, seed=0
        )
        batch = dataset.batch(0)
    model = Model(config)
    model.start_at_marginals([batch])
    before = score(model, [batch], CPU)
    fit(model, repeat(batch), Schedule(150, learning_rate=5e-3, optimiser=optimiser, average=0.9), device=CPU)
    after = score(model, [batch], CPU)
    assert after["loss"] < before["loss"] - 0.3
    for term in ("count_imp", "signal_imp", "count_obs", "signal_obs"):
        assert after[term] < before[term], term


def test_a_batch_without_masked_entries_has_no_imputation_loss(store_path):
    from candi_cli.loci import find_loci

    assays = ("H3K4me3",)
    config = preset("tiny", assays, resolution=25, reads_sequence=False)
    with Store.open(store_path) as store:
        covered = {"chr1": store.covered_blocks("sim1", "chr1")}
        loci = find_loci(store.chromsizes, resolution=25, context=240, regions=[], covered=covered, blacklist={})
        members = [(Lanes(store, "sim1", assays), loci)]
        inputs, targets = TrainingDataset(
            config, members, corruption=Corruption(1, 0, 1, 0, 0, 0), batch_size=2, seed=0
        ).batch(0)
    model = Model(config).eval()
    loss = model.loss(model(inputs), targets)
    terms = means(loss)
    assert {name: float(term.detach()) for name, term in terms.items() if name.endswith("imp")} == {
        "count_imp": 0.0, "signal_imp": 0.0, "peak_imp": 0.0,
    }  # fmt: skip
    assert weighted_loss(loss).isfinite()
    assert all(term.entries == 0 for name, term in loss.items() if name.endswith("imp"))
    assert terms["count_obs"] > 0
