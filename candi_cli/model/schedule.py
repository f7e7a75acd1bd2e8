"""How long and how fast to learn: the schedule, the optimiser, and the moving average of the weights."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

OPTIMISERS = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn: linear warm-up, then a cosine down to a tenth of the learning rate.

    Attributes
    ----------
    warmup : share of the steps in which the rate rises
    clip_norm : largest norm of the gradient; a longer one is shortened to it
    average : decay of the moving average of the weights, which is what is kept; 0 keeps the weights themselves
    """

    steps: int
    learning_rate: float = 1e-3
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float = 1.0
    average: float = 0.998

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the highest."""
        warmup = max(1, round(self.steps * self.warmup))
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


def make_optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Return the optimiser of the parameters that are trained; biases and the scales of norms do not decay."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in trained if parameter.ndim > 1 and not name.endswith("bias")]
    plain = [parameter for name, parameter in trained if parameter.ndim <= 1 or name.endswith("bias")]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    kept = [group for group in groups if group["params"]]
    options: dict[str, Any] = {}
    if schedule.optimiser == "adamw" and trained and trained[0][1].is_cuda:
        options["fused"] = True
    return OPTIMISERS[schedule.optimiser](kept, lr=schedule.learning_rate, **options)


class MovingAverage:
    """An exponential moving average of a model's weights, in a copy of the model.

    torch's own asks the device in each step whether it is the first one.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, *, first: bool) -> None:
        """Move the average towards the model's weights; at the first step it becomes them."""
        kept: list[Tensor] = list(self.module.parameters())
        new: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(kept, new, 1.0 if first else 1 - self.decay)
