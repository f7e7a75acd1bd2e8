"""The optimiser over all parameters as one tensor: one pass over memory a step, not ten for each of 200 tensors."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

OPTIMISERS = {"adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}
_ALIGNMENT = 16  # elements: every parameter starts at a multiple of 64 bytes


class FlatOptimiser:
    """torch's AdamW or Adamax with gradient clipping.

    Parameters become views of one tensor (one for those with weight decay, one for those without), which is what
    torch's optimiser sees: elementwise updates do not care where one parameter ends and the next begins. On CUDA,
    clipping and update are compiled into one kernel or two.

    Parameters
    ----------
    model : on its device
    name : of `OPTIMISERS`
    clip_norm : the largest norm of the whole gradient
    """

    def __init__(self, model: nn.Module, name: str, *, weight_decay: float, clip_norm: float) -> None:
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        split = [[p for name, p in trained if decays(name, p) == decayed] for decayed in (True, False)]
        groups = [(_Flat(each), decay) for each, decay in zip(split, (weight_decay, 0.0), strict=True) if each]
        self._flats = [flat for flat, _ in groups]
        device = self._flats[0].flat.device
        self._on_cuda = device.type == "cuda"
        options: dict[str, Any] = {"capturable": True, "lr": torch.zeros((), device=device)} if self._on_cuda else {}
        self._inner = OPTIMISERS[name](
            [{"params": [flat.flat], "weight_decay": decay} for flat, decay in groups], **options
        )
        self.clip_norm = clip_norm
        self._update = torch.compile(self._clip_and_update) if self._on_cuda else self._clip_and_update

    def step(self, learning_rate: float) -> Tensor:
        """Clip the gradients, update the parameters and return the gradient's norm before clipping."""
        for flat in self._flats:
            flat.gather_gradients()
        for group in self._inner.param_groups:
            if self._on_cuda:
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate
        return self._update()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for flat in self._flats:
            for parameter in flat.parameters:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of torch's optimiser."""
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of another run."""
        self._inner.load_state_dict(state)

    @torch.no_grad()
    def _clip_and_update(self) -> Tensor:
        gradients = [flat.gradient for flat in self._flats]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for flat in self._flats:
            flat.flat.grad = flat.gradient * factor
        self._inner.step()
        return norm


class _Flat:
    """Parameters as views of one tensor, and the same for their gradients."""

    @torch.no_grad()
    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        total = sum(_room(parameter) for parameter in parameters)
        self.flat = nn.Parameter(parameters[0].new_zeros(total))
        self.gradient = torch.zeros_like(self.flat)
        for parameter, view in zip(parameters, self._views(self.flat.data), strict=True):
            view.copy_(parameter)
            parameter.data = view
        self._gradients = list(self._views(self.gradient))

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        start = 0
        for parameter in self.parameters:
            yield flat[start : start + parameter.numel()].view(parameter.shape)
            start += _room(parameter)

    @torch.no_grad()
    def gather_gradients(self) -> None:
        """Copy the gradients of all parameters side by side; one without a gradient has 0."""
        found = [(view, p.grad) for view, p in zip(self._gradients, self.parameters, strict=True) if p.grad is not None]
        if len(found) < len(self.parameters):
            self.gradient.zero_()
        torch._foreach_copy_([view for view, _ in found], [gradient for _, gradient in found])


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies to a parameter: to all but biases, tokens and the scales of norms."""
    return parameter.ndim > 1 and "bias" not in name


def _room(parameter: Tensor) -> int:
    return -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
