"""The training loop: it knows `model(batch)` and `model.loss(output, targets)`, and no family."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from candi_cli.errors import ModelError
from candi_cli.model.device import move
from candi_cli.model.terms import means, weighted_loss

OPTIMISERS = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn: linear warm-up, then a cosine down to a tenth of the learning rate."""

    steps: int
    learning_rate: float = 1e-3
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float = 1.0
    average: float = 0.998  # decay of the moving average of the weights, which is what is kept

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the highest."""
        warmup = max(1, round(self.steps * self.warmup))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Progress:
    """Where training stands: the loss of the last step, and of the held-out batches when they were just scored."""

    step: int
    loss: float
    terms: dict[str, float]
    held_out: dict[str, float] | None = None


def fit(
    model: nn.Module,
    batches: Iterator[Any],
    schedule: Schedule,
    *,
    device: torch.device,
    held_out: Sequence[Any] = (),
    score_every: int = 250,
    on_step: Callable[[Progress], None] | None = None,
) -> list[Progress]:
    """Train a model in place and return its history, one entry for each scoring of the held-out batches.

    The weights left in the model are the moving average of those that were trained, in evaluation mode; with held-out
    batches, those of the scoring with the lowest held-out loss.

    Raises
    ------
    ModelError
        The loss is no longer finite; the message names the step.
    """
    model.to(device).train()
    optimiser = _optimiser(model, schedule)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(schedule.average))
    history: list[Progress] = []
    best, best_loss = None, math.inf
    for step in range(schedule.steps):
        inputs, targets = (move(part, device) for part in next(batches))
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * schedule.rate(step)
        terms = model.loss(model(inputs), targets)  # type: ignore[operator]
        loss = weighted_loss(terms)
        if not loss.isfinite():
            raise ModelError(f"step {step + 1}: the loss is not finite; lower --learning-rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
        optimiser.step()
        averaged.update_parameters(model)
        progress = Progress(step + 1, loss.item(), {name: mean.item() for name, mean in means(terms).items()})
        if held_out and ((step + 1) % score_every == 0 or step + 1 == schedule.steps):
            scores = score(averaged.module, held_out, device)
            progress = Progress(progress.step, progress.loss, progress.terms, scores)
            if scores["loss"] < best_loss:
                best_loss = scores["loss"]
                best = {name: value.clone() for name, value in averaged.module.state_dict().items()}
            history.append(progress)
        if on_step is not None:
            on_step(progress)
    model.load_state_dict(best if best is not None else averaged.module.state_dict())
    model.eval()
    return history


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Return the optimiser, with weight decay for all but vectors (biases and the scales of norms)."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return OPTIMISERS[schedule.optimiser](groups, lr=schedule.learning_rate)


@torch.inference_mode()
def score(model: nn.Module, batches: Sequence[Any], device: torch.device) -> dict[str, float]:
    """Return the mean loss and loss terms of a model over batches."""
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}
    for batch in batches:
        inputs, targets = (move(part, device) for part in batch)
        terms = model.loss(model(inputs), targets)  # type: ignore[operator]
        for name, value in {"loss": weighted_loss(terms), **means(terms)}.items():
            sums[name] = sums.get(name, 0.0) + value.item() / len(batches)
    model.train(was_training)
    return sums
