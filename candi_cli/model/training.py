"""The training loop: it knows `model(batch)` and `model.loss(output, targets)`, and no family.

What a step draws (dropout) and its batch are functions of the seed and the step, so that a training that was stopped
goes on from a checkpoint to the same numbers. The loss of several processes is that of one: the sums of a term are
divided by the number of entries that all of them have together.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from candi_cli.model.device import move
from candi_cli.model.distributed import ALONE, Processes
from candi_cli.model.meter import Meter, all_entries, describer
from candi_cli.model.optimiser import FlatOptimiser
from candi_cli.model.resume import Checkpoints, State
from candi_cli.model.schedule import MovingAverage, Schedule
from candi_cli.model.terms import LossTerm, means, weighted_loss, weighted_score

__all__ = ["Progress", "Schedule", "TrainingStopped", "fit", "score"]


class Batches(Protocol):
    """Batches that can be had from any step on; they may also have `describe(step) -> str`, for error messages."""

    def batches(self, first_step: int = 0) -> Iterator[Any]:
        """Yield pairs of inputs and targets, from a step (0-based) on."""


@dataclass(frozen=True)
class Progress:
    """Where training stands, at a step that is reported.

    Attributes
    ----------
    loss, terms, grad_norm : means since the last report
    held_out : scores of the held-out batches, when they were just scored
    without : for each term, how many batches so far had no entry for it
    memory_bytes : the most that was used, of the GPU or else of the process
    """

    step: int
    loss: float
    terms: dict[str, float]
    held_out: dict[str, float] | None = None
    learning_rate: float = 0.0
    grad_norm: float = 0.0
    windows_per_second: float = 0.0
    memory_bytes: int = 0
    without: dict[str, int] = field(default_factory=dict)


class TrainingStopped(Exception):  # noqa: N818 - it is no error
    """Training was asked to stop and did, after `step` steps; its checkpoint is complete."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


def fit(
    model: nn.Module,
    batches: Batches | Iterator[Any],
    schedule: Schedule,
    *,
    device: torch.device,
    held_out: Sequence[Any] = (),
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    score_every: int = 250,
    report_every: int = 25,
    patience: int = 0,
    precision: str = "float32",
    compiled: bool = False,
    seed: int | None = None,
    processes: Processes = ALONE,
    checkpoints: Checkpoints | None = None,
    stopped: Callable[[], bool] = lambda: False,
    on_step: Callable[[Progress], None] | None = None,
) -> list[Progress]:
    """Train a model in place and return its history, one entry for each scoring.

    The weights left in the model are the moving average of those that were trained, in evaluation mode; with held-out
    batches, those of the scoring with the lowest held-out loss.

    Parameters
    ----------
    batches : with several processes, this process's part of each batch
    held_out : batches to score on; validate : what scores a model, among the scores a `loss`; default: `score`
    score_every, report_every : steps; `on_step` is called at both and at the last
    patience : scorings without improvement after which training ends; 0 for never
    precision : of the forward pass, `float32` or `bf16`; heads and likelihoods are float32 in both
    seed : of what the model draws; default: torch's own
    stopped : asked at each step; when it is true, the state is saved and the training ends

    Raises
    ------
    ModelError
        The loss or a gradient is no longer finite, or training diverged; the message names the step and its batch.
    TrainingStopped
        `stopped` was true.
    """
    if held_out and validate is None:
        validate = partial(score, batches=held_out, device=device, precision=precision)
    run = _Run(model, schedule, device=device, precision=precision, seed=seed, processes=processes)
    run.meter.describe = describer(batches)
    first = run.start(checkpoints, compiled=compiled)
    source = batches if isinstance(batches, Iterator) else batches.batches(first)
    for done in range(first + 1, schedule.steps + 1):
        if patience and run.stale >= patience:
            break
        run.learn(next(source), done - 1, stop=stopped())
        last = done == schedule.steps
        scored = validate is not None and (last or done % score_every == 0)
        reported = scored or last or done % report_every == 0
        stop = run.asked_to_stop(reported=reported)
        save = checkpoints is not None and (stop or checkpoints.due(done, reported=reported))
        if reported or save or stop or device.type == "cpu":  # a GPU would be kept waiting by a check at each step
            run.meter.fetch(done)
        if reported:
            progress = run.report(done, validate if scored else None)
            if on_step is not None:
                on_step(progress)
        if checkpoints is not None and save and processes.first:
            checkpoints.save(run.state(done))
        if stop and not last:
            raise TrainingStopped(done)
    return run.finish()


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        *,
        device: torch.device,
        precision: str,
        seed: int | None,
        processes: Processes,
    ) -> None:
        self.model, self.schedule, self.device, self.processes = model.to(device).train(), schedule, device, processes
        self.seed = torch.initial_seed() if seed is None else seed
        self.precision = precision
        self.meter = Meter(processes)
        self.history: list[Progress] = []
        self.best: dict[str, Tensor] | None = None
        self.best_loss, self.stale = math.inf, 0
        self._stopping: Tensor | bool = False
        self._windows, self._since = 0, time.monotonic()

    def start(self, checkpoints: Checkpoints | None, *, compiled: bool) -> int:
        """Make what learns, from a checkpoint if there is one; return how many steps are done."""
        state = checkpoints.load() if checkpoints else None
        if state:
            self.model.load_state_dict(state["model"])
        schedule = self.schedule
        self.optimiser = FlatOptimiser(
            self.model, schedule.optimiser, weight_decay=schedule.weight_decay, clip_norm=schedule.clip_norm
        )
        self.forward = self.processes.wrap(self.model, self.device)
        self.average = MovingAverage(self.model, schedule.average) if schedule.average else None
        self.loss: Callable[[Any, Any], dict[str, LossTerm]] = self.model.loss  # type: ignore[assignment]
        if compiled:
            self.forward, self.loss = torch.compile(self.forward), torch.compile(self.loss)  # type: ignore[assignment]
        if not state:
            return 0
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state["optimiser"]["state"]})
        if self.average:
            self.average.module.load_state_dict(state["average"])
        self.meter.restore(state["meter"])
        self.history = [Progress(**progress) for progress in state["history"]]
        self.best, self.best_loss, self.stale = state["best"], state["best_loss"], state["stale"]
        return int(state["step"])

    def state(self, step: int) -> State:
        """Return all that `start` needs to go on after `step` steps."""
        return {
            "step": step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "meter": self.meter.state(),
            "history": [asdict(progress) for progress in self.history],
            "best": self.best, "best_loss": self.best_loss, "stale": self.stale,
        }  # fmt: skip

    def learn(self, batch: Any, step: int, *, stop: bool) -> None:
        """Take one step (0-based); nothing here waits for the device."""
        torch.manual_seed(_mix(self.seed, step, self.processes.rank))
        inputs, targets = (move(part, self.device) for part in batch)
        self._windows += len(inputs[0]) * self.processes.world_size
        with _autocast(self.device, self.precision):
            output = self.forward(inputs)
        terms = self.loss(output, targets)
        if self.processes.world_size == 1:
            self._stopping = stop
        else:
            terms, self._stopping = all_entries(terms, stop, self.processes)
        loss = weighted_loss(terms)
        self.optimiser.zero_grad()
        (loss * self.processes.world_size).backward()  # gradients become means over the processes
        norm = self.optimiser.step(self.schedule.learning_rate * self.schedule.rate(step))
        if self.average:
            self.average.update(self.model, step=step)
        self.meter.add(loss, norm, terms)

    def asked_to_stop(self, *, reported: bool) -> bool:
        """Return whether any process was asked to stop; a GPU shared with others is only asked at reported steps."""
        if isinstance(self._stopping, Tensor) and self._stopping.is_cuda and not reported:
            return False
        return bool(self._stopping)

    def report(self, step: int, validate: Callable[[nn.Module], dict[str, float]] | None) -> Progress:
        """Return the means since the last report, and the scores of the weights that would be kept."""
        averages = self.meter.averages()
        rate = self._windows / max(time.monotonic() - self._since, 1e-9)
        scores = self._score(validate) if validate else None
        progress = Progress(
            step, averages.loss, averages.terms, scores,
            learning_rate=self.schedule.learning_rate * self.schedule.rate(step - 1), grad_norm=averages.grad_norm,
            windows_per_second=rate, memory_bytes=_memory_bytes(self.device), without=dict(self.meter.without),
        )  # fmt: skip
        if scores is not None:
            self.history.append(progress)
        self._windows, self._since = 0, time.monotonic()
        return progress

    def _score(self, validate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        kept = self.average.module if self.average else self.model
        scores: dict[str, float] = self.processes.share(validate(kept) if self.processes.first else None)
        self.stale += 1
        if scores["loss"] < self.best_loss:
            self.best_loss, self.stale = scores["loss"], 0
            self.best = {name: value.detach().clone() for name, value in kept.state_dict().items()}
        return scores

    def finish(self) -> list[Progress]:
        """Leave the weights to keep in the model; return the history."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval()
        return self.history


def _mix(*numbers: int) -> int:
    """Return one seed for several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@torch.inference_mode()
def score(
    model: nn.Module, batches: Sequence[Any], device: torch.device, *, precision: str = "float32"
) -> dict[str, float]:
    """Return the mean loss and loss terms of a model over batches, and the model's own `scores` where it has any."""
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}

    def pairs() -> Iterator[tuple[Any, Any]]:
        for batch in batches:
            inputs, targets = (move(part, device) for part in batch)
            with _autocast(device, precision):
                output = model(inputs)
            terms = model.loss(output, targets)  # type: ignore[operator]
            for name, value in {"loss": weighted_score(terms), **means(terms)}.items():
                sums[name] = sums.get(name, 0.0) + value.item() / len(batches)
            yield output, targets

    outputs = pairs()
    own: Callable[[Iterator[tuple[Any, Any]]], dict[str, float]] | None = getattr(model, "scores", None)
    scores = own(outputs) if own else {}
    for _ in outputs:  # whatever the model did not ask for
        pass
    model.train(was_training)
    return {**scores, **sums}
