"""What the network costs: windows a second forward and in training, by preset and by block.

    python tests/benchmarks/train.py [--device auto] [--batch-size N] [--threads 2] [--compile]

`plain` is the paper's network in plain modules (`plain.py`), the same mathematics and weights as `paper`. On a GPU:
batch 90 in bf16, event times, medians; a step is forward, backward, clipping and the update by Adamax. On a CPU:
batch 4 in float32, evaluation mode, wall times, medians of alternating repeats.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from plain import PlainNetwork, load_plain
from torch import Tensor, nn

from candi_cli.covariates import PLATFORMS, Covariates, encode
from candi_cli.model.candi import Config, Model, preset
from candi_cli.model.candi.dataset import CandiTargets
from candi_cli.model.candi.network import MASKED, MISSING, OBSERVED, CandiBatch
from candi_cli.model.device import choose, move
from candi_cli.model.optimiser import FlatOptimiser
from candi_cli.model.terms import weighted_loss

ASSAYS = tuple(f"assay{number}" for number in range(35))
ASKED = Covariates(20e6, 50, "paired-ended", PLATFORMS[5], 3e9)


def simulated(config: Config, n: int) -> tuple[CandiBatch, CandiTargets]:
    """Return a batch as the loader gives it: 20 of 35 assays measured, some of them masked."""
    length, lanes = config.context_bins, len(config.assays) + 1
    draw = torch.Generator().manual_seed(1)
    values = torch.poisson(torch.rand((n, length, lanes), generator=draw) * 3, generator=draw).to(torch.uint8)
    availability = torch.full((n, length, lanes), OBSERVED, dtype=torch.uint8)
    availability[..., 20:35] = MISSING
    availability[..., 3] = MASKED
    availability[:, 100:340, :20] = MASKED
    values[availability != OBSERVED] = 0
    covariates = torch.from_numpy(encode([ASKED] * lanes)).repeat(n, 1, 1)
    sequence = torch.randint(0, 4, (n, length * config.resolution), generator=draw).byte()
    batch = CandiBatch(values, availability, covariates, covariates[..., :-1].contiguous(), sequence)
    peaks = (torch.rand((n, length, lanes - 1), generator=draw) < 0.1).byte()
    signal = torch.rand((n, length, lanes - 1), generator=draw) * 4
    valid = (availability[:, 0, :-1] != MISSING)[:, None].repeat(1, 3, 1)
    return batch, CandiTargets(values[..., :-1].clone(), signal, peaks, availability[..., :-1] == MASKED, valid)


class Clock:
    """Median times of functions on a device, in ms."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def times(self, functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Return the median time of each function, their repeats alternating so that a busy moment hits all."""
        for function in functions.values():
            function()
        runs = [{name: self._once(function) for name, function in functions.items()} for _ in range(self.repeats)]
        return {name: statistics.median(run[name] for run in runs) for name in functions}

    def _once(self, function: Callable[[], Any]) -> float:
        if self.device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end)
        begin = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - begin)


def forward(model: nn.Module, *inputs: Any, bf16: bool) -> Callable[[], Any]:
    """Return a function that predicts."""

    @torch.inference_mode()
    def run() -> Any:
        with torch.autocast(inputs[0].values.device.type, torch.bfloat16, enabled=bf16):
            return model(*inputs)

    return run


def step(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batch: Any, targets: Any, *, bf16: bool
) -> Callable[[], Any]:
    """Return a function that takes one training step of a model, as the training loop does."""
    optimiser = FlatOptimiser(model, "adamax", weight_decay=0.0, clip_norm=1.0)

    def run() -> None:
        with torch.autocast(targets.signal.device.type, torch.bfloat16, enabled=bf16):
            value = loss(batch, targets)
        value.backward()
        optimiser.step(5e-4)
        optimiser.zero_grad()

    return run


def blocks(model: Model, batch: CandiBatch) -> dict[str, float]:
    """Return the share of each block in one forward pass, by hooks: ms."""
    spent: dict[str, float] = {}
    begun: dict[str, float] = {}

    def now() -> float:
        if batch.values.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    hooks = []
    for name, child in model.named_children():
        for module in child if isinstance(child, nn.ModuleList) else [child]:
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: begun.__setitem__(name, now())))
            hooks.append(
                module.register_forward_hook(
                    lambda *_, name=name: spent.__setitem__(name, spent.get(name, 0.0) + 1e3 * (now() - begun[name]))
                )
            )
    run = forward(model, batch, bf16=batch.values.is_cuda)
    run()
    spent.clear()
    start = now()
    run()
    total = 1e3 * (now() - start)
    for hook in hooks:
        hook.remove()
    return {**spent, "the rest (smoothing, mixing, input)": total - sum(spent.values())}


def show(title: str, times: dict[str, float], n: int, against: str) -> None:
    """Print a table of times."""
    print(f"\n{title}\n{'':44}{'ms':>9}{'windows/s':>11}{'speed':>8}")
    for name, ms in times.items():
        print(f"  {name:42}{ms:9.2f}{1e3 * n / ms:11.1f}{times[against] / ms:7.2f}x", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="time compiled forms too (minutes)")
    options = parser.parse_args()
    device = choose(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cuda = device.type == "cuda"
    n = options.batch_size or (90 if cuda else 4)
    what = torch.cuda.get_device_name() if cuda else f"CPU, {options.threads} threads"
    print(f"torch {torch.__version__}, {what}, batch {n}, {'bf16' if cuda else 'float32'}")
    clock = Clock(device, options.repeats)
    configs = {name: preset(name, ASSAYS, resolution=25, reads_sequence=True) for name in ("paper", "base")}
    batch, targets = (move(part, device) for part in simulated(configs["paper"], n))
    plain = PlainNetwork(configs["paper"]).to(device)
    models = {name: Model(config).to(device) for name, config in configs.items()}
    load_plain(models["paper"], plain)
    for name, model in models.items():
        print(f"{name}: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
        for child, module in model.named_children():
            print(f"  {child:42}{sum(parameter.numel() for parameter in module.parameters()):12,}")

    for model in (plain, *models.values()):
        model.eval()
    features = models["paper"].read_sequence(batch.sequence, n, configs["paper"].context_bins // 8).detach()
    forwards = {
        "plain": forward(plain, batch, bf16=cuda),
        "paper": forward(models["paper"], batch, bf16=cuda),
        "paper, DNA read before": forward(models["paper"], batch._replace(sequence=None), features, bf16=cuda),
        "base": forward(models["base"], batch, bf16=cuda),
    }
    if options.compile:
        for name, model in models.items():
            forwards[f"{name}, compiled"] = forward(torch.compile(model, mode="reduce-overhead"), batch, bf16=cuda)
    show("forward", clock.times(forwards), n, "plain")
    for name, model in models.items():
        times = blocks(model, batch)
        print(f"\nforward of {name} by block, ms (not compiled)")
        for block, ms in times.items():
            print(f"  {block:42}{ms:9.2f}")

    for model in (plain, *models.values()):
        model.train()
    paper, base = models["paper"], models["base"]
    losses: dict[str, tuple[nn.Module, Callable[[Any, Any], Tensor]]] = {
        "plain": (plain, lambda i, t: weighted_loss(paper.loss(plain(i), t))),
        "paper": (paper, lambda i, t: weighted_loss(paper.loss(paper(i), t))),
        "base": (base, lambda i, t: weighted_loss(base.loss(base(i), t))),
    }
    if options.compile:
        for name in ("paper", "base"):
            model, loss = losses[name]
            losses[f"{name}, compiled"] = (model, torch.compile(loss, mode="reduce-overhead"))
    steps = {name: step(model, loss, batch, targets, bf16=cuda) for name, (model, loss) in losses.items()}
    show("training step", clock.times(steps), n, "plain")
    if not cuda:
        print("\nGPU figures: missing, no CUDA device here")


if __name__ == "__main__":
    main()
