"""How long and how fast to learn: the schedule, and the moving average of the weights."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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


class MovingAverage:
    """An exponential moving average of a model's weights, in a copy of the model.

    torch's own asks the device in each step whether it is the first one.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move the average towards the model's weights after a step (0-based); at the first it becomes them.

        The decay rises from 0 to its value, so that the average of a short training is not that of its beginning.
        """
        kept: list[Tensor] = list(self.module.parameters())
        new: list[Tensor] = list(model.parameters())
        decay = min(self.decay, step / (10 + step))
        torch._foreach_lerp_(kept, new, 1 - decay)
