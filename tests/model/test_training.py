"""The training loop: it learns, it is reproducible, and it stops when it should."""

import math
from dataclasses import replace
from itertools import chain, count, repeat
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from candi_cli.errors import ModelError
from candi_cli.model.candi import Corruption, Lanes, Model, TrainingDataset, preset
from candi_cli.model.resume import Checkpoints
from candi_cli.model.terms import LossTerm, means, weighted_loss
from candi_cli.model.training import Progress, Schedule, TrainingStopped, _mix, fit, score
from candi_cli.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")
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


@pytest.mark.parametrize(
    ("name", "optimiser", "steps", "rate"),
    [
        ("tiny", "adamw", 150, 5e-3),
        ("tiny", "adamax", 150, 5e-3),
        ("paper", "adamw", 60, 2e-3),
        ("base", "adamw", 60, 2e-3),
    ],
)
def test_the_network_overfits_one_batch(store_path, name, optimiser, steps, rate):
    from candi_cli.loci import find_loci

    torch.manual_seed(0)
    assays = ("H3K27me3", "H3K36me3", "H3K4me3")
    config = replace(preset(name, assays, resolution=25, reads_sequence=False), context_bins=240, flank_bins=40)
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
    fit(model, repeat(batch), Schedule(steps, learning_rate=rate, optimiser=optimiser, average=0.9), device=CPU)
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


class Noisy(nn.Module):
    """A line with dropout and a term that some batches have no entry for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.autocast: set[bool] = set()

    def forward(self, batch):
        self.autocast.add(torch.is_autocast_enabled("cpu"))
        return self.layer(nn.functional.dropout(batch.x[:, None], 0.5, self.training)).float()[:, 0]

    def loss(self, output, targets):
        assert not torch.is_autocast_enabled("cpu")
        square = (output - targets.x) ** 2
        large = targets.x.abs() > 1
        return {
            "all": LossTerm(square.sum(), square.sum(), torch.ones_like(large).sum(), 1.0),
            "large": LossTerm((square * large).sum(), (square * large).sum(), large.sum(), 0.5),
        }


class Numbers:
    """A batch for each step, named by it."""

    def batch(self, step):
        x = torch.from_numpy(np.random.default_rng(step).normal(size=4)).float()
        return Pair(x), Pair(2 * x - 0.5)

    def batches(self, first_step=0):
        return (self.batch(step) for step in count(first_step))

    def describe(self, step):
        return f"number {step}"


def make_noisy() -> Noisy:
    torch.manual_seed(5)
    return Noisy()


def losses_of(schedule, **options) -> tuple[list[Progress], dict[str, Tensor]]:
    reports: list[Progress] = []
    model = make_noisy()
    fit(model, Numbers(), schedule, device=CPU, report_every=1, on_step=reports.append, **options)
    return reports, model.state_dict()


def test_what_is_kept_is_the_average_of_the_weights_as_torch_computes_it_with_a_decay_that_rises():
    average = AveragedModel(Line(), multi_avg_fn=get_ema_multi_avg_fn(0.7))
    seen = []

    class Watched(Line):
        def forward(self, batch):
            seen.append(float(self.a.detach()))
            return super().forward(batch)

    model = Watched()
    fit(model, repeat(BATCH), Schedule(20, learning_rate=0.1, average=0.7), device=CPU)
    last = Watched()
    fit(last, repeat(BATCH), Schedule(20, learning_rate=0.1, average=0), device=CPU)
    for step, value in enumerate([*seen[1:20], float(last.a.detach())]):
        line = Line()
        line.a.data.fill_(value)
        average.multi_avg_fn = get_ema_multi_avg_fn(min(0.7, step / (10 + step)))  # the decay rises from 0
        average.update_parameters(line)
    assert model.a.item() == pytest.approx(average.module.a.item(), rel=1e-6)
    assert model.a.item() != pytest.approx(last.a.item(), rel=1e-3)


def test_training_ends_after_scorings_without_improvement():
    opposite = (BATCH[0], Pair(-BATCH[1].x))
    history = fit(
        Line(), repeat(BATCH), Schedule(60, learning_rate=0.1, average=0), device=CPU, held_out=[opposite],
        score_every=2, patience=3,
    )  # fmt: skip
    assert [progress.step for progress in history] == [2, 4, 6, 8]  # the first is the best


def test_a_gradient_that_is_not_finite_names_the_step_and_the_batch():
    class Steep(Line):
        def loss(self, output, targets):
            root = (output - output.detach()).abs().sqrt().sum() + targets.x.sum()  # 0 with an infinite slope
            return {"root": LossTerm(root, root, torch.tensor(1), 1.0)}

    with pytest.raises(ModelError, match=r"step 1 \(batch of number 0\): the gradient is not finite"):
        fit(Steep(), Numbers(), Schedule(5), device=CPU)


def test_losses_far_above_their_median_for_long_end_the_training_and_name_the_first():
    far = (Pair(torch.tensor([1.0])), Pair(torch.tensor([1e4])))
    batches = chain([BATCH] * 80, [far] * 20, [BATCH] * 30, repeat(far))
    with pytest.raises(ModelError, match="step 131: since then the loss is far above its median"):
        fit(Line(), batches, Schedule(1000, learning_rate=1e-6), device=CPU)


def test_batches_without_an_entry_of_a_term_are_counted_and_means_are_of_entries():
    reports: list[Progress] = []
    fit(make_noisy(), Numbers(), Schedule(30), device=CPU, report_every=30, on_step=reports.append)
    large = [(Numbers().batch(step)[1].x.abs() > 1).sum().item() for step in range(30)]
    assert reports[-1].without == {"all": 0, "large": large.count(0)}
    assert large.count(0) > 0
    each, _ = losses_of(Schedule(30))
    weighted = sum(report.terms["large"] * n for report, n in zip(each, large, strict=True)) / sum(large)
    assert reports[-1].terms["large"] == pytest.approx(weighted, rel=1e-6)
    assert reports[-1].loss == pytest.approx(sum(report.loss for report in each) / 30)


def test_bf16_is_for_the_forward_pass_alone_and_comes_close():
    exact, _ = losses_of(Schedule(20))
    rounded, _ = losses_of(Schedule(20), precision="bf16")
    model = make_noisy()
    fit(model, Numbers(), Schedule(2), device=CPU, precision="bf16", held_out=[Numbers().batch(9)])
    assert model.autocast == {True}
    assert [r.loss for r in rounded] != [r.loss for r in exact]
    assert [r.loss for r in rounded] == pytest.approx([r.loss for r in exact], rel=0.05)


def test_scores_that_a_model_has_of_its_own_are_reported_too():
    class Scored(Line):
        def scores(self, pairs):
            return {"largest": max(float((output - targets.x).abs().max()) for output, targets in pairs)}

    scores = score(Scored(), [BATCH, BATCH], CPU)
    assert scores == {"largest": 6.0, "loss": 22.5, "square": 22.5}


@pytest.mark.parametrize("name", ["adamw", "adamax"])
def test_the_steps_are_those_of_torch_with_clipping_and_decay_of_matrices_alone(name):
    schedule = Schedule(12, learning_rate=0.1, optimiser=name, weight_decay=0.3, clip_norm=0.5, average=0)
    reports, weights = losses_of(schedule)
    model = make_noisy()
    groups = [
        {"params": [model.layer.weight], "weight_decay": 0.3},
        {"params": [model.layer.bias], "weight_decay": 0.0},
    ]
    optimiser = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}[name](groups)
    for step in range(12):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * schedule.rate(step)
        torch.manual_seed(_mix(5, step, 0))
        inputs, targets = Numbers().batch(step)
        loss = weighted_loss(model.loss(model(inputs), targets))
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        assert reports[step].loss == pytest.approx(loss.item(), rel=1e-5)
        assert reports[step].grad_norm == pytest.approx(norm.item(), rel=1e-5)
        assert reports[step].learning_rate == pytest.approx(0.1 * schedule.rate(step))
    for parameter, value in model.state_dict().items():
        torch.testing.assert_close(weights[parameter], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["adamw", "adamax"])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(tmp_path, optimiser, average):
    schedule = Schedule(23, learning_rate=0.05, optimiser=optimiser, average=average)
    held_out = [Numbers().batch(1000)]
    unbroken, weights = losses_of(schedule, held_out=held_out, score_every=4)
    path = tmp_path / "c.checkpoint"
    asked = iter([False] * 9 + [True])
    with pytest.raises(TrainingStopped) as stopped:
        losses_of(
            schedule, held_out=held_out, score_every=4, checkpoints=Checkpoints(path, {}), stopped=lambda: next(asked)
        )
    assert stopped.value.step == 10
    torch.manual_seed(99)  # what was drawn elsewhere does not matter
    reports, resumed = losses_of(
        schedule, held_out=held_out, score_every=4, checkpoints=Checkpoints(path, {}, resume=path), seed=5
    )
    drop = {"windows_per_second": 0.0, "memory_bytes": 0}
    assert [replace(report, **drop) for report in reports] == [replace(report, **drop) for report in unbroken[10:]]
    assert all(torch.equal(value, weights[name]) for name, value in resumed.items())


@pytest.mark.gpu
def test_on_a_gpu_steps_do_not_wait_for_it_and_a_stopped_training_goes_on(tmp_path):
    class Watched(Numbers):
        """Batches in pinned memory, during some of which torch may not wait for the GPU."""

        def batches(self, first_step=0):
            for step in count(first_step):
                inside = first_step + 5 <= step < first_step + 15
                torch.cuda.set_sync_debug_mode("error" if inside else "default")
                yield tuple(Pair(part.x.pin_memory()) for part in self.batch(step))

    path, reports = tmp_path / "c.checkpoint", {}
    schedule = Schedule(40, learning_rate=0.05, average=0.9)
    options = {"device": torch.device("cuda"), "precision": "bf16", "report_every": 20, "seed": 5}
    for name, asked, resume in (("whole", 99, None), ("first", 20, None), ("second", 99, path)):
        told, steps = reports.setdefault(name, []), count(1)
        checkpoints = Checkpoints(path, {}, resume=resume)
        stop = {"stopped": lambda steps=steps, asked=asked: next(steps) == asked}
        try:
            fit(make_noisy(), Watched(), schedule, checkpoints=checkpoints, on_step=told.append, **stop, **options)
        except TrainingStopped:
            told.clear()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [len(reports[name]) for name in ("whole", "first", "second")] == [2, 0, 1]
    whole, second = reports["whole"][-1], reports["second"][-1]
    assert second.loss == pytest.approx(whole.loss, rel=1e-3)
    assert whole.memory_bytes > 0


def test_held_out_batches_are_scored_by_the_likelihood_not_by_what_is_minimised():
    class Emphatic(Line):
        def loss(self, output, targets):
            term = super().loss(output, targets)["square"]
            return {"square": term._replace(learned=100 * term.total, weight=0.5)}

    model = Emphatic()
    assert score(model, [BATCH], CPU) == {"loss": 0.5 * 22.5, "square": 22.5}  # (9 + 36) / 2
