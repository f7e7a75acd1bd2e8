"""Smoothed tracks as candidates for a predicted mean: what a kernel smoother would say, for the network to weigh."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL_SD = (1.0, 2.24, 4.58, 9.22, 18.5, 36.9)  # bins; of the levels above 0


@torch.no_grad()
def smooth(values: Tensor, known: Tensor, n_levels: int) -> tuple[Tensor, Tensor]:
    """Return tracks as they are and under B-spline kernels that double in width from level to level.

    Level j + 1 is level j convolved with (1, 4, 6, 4, 1) / 16, its taps 2^j bins apart ("a trous": Holschneider et al.
    1989; Starck & Murtagh 2002): near Gaussians, at five taps a level whatever the width. Bins that are not known carry
    no weight, so kernels reach over them from both sides.

    Parameters
    ----------
    values, known : (N, A, L)

    Returns
    -------
    smoothed values, and which of them have any data under their kernel; (n_levels + 1, N, A, L) each
    """
    level = torch.stack([torch.where(known, values, 0), known.to(values.dtype)])  # (2, N, A, L)
    levels = [level]
    for j in range(n_levels):
        level = _widened(level, 2**j)
        levels.append(level)
    weighed, weight = torch.stack(levels, dim=1)
    known_under_kernel = weight > 1e-3
    return weighed.div_(weight.clamp_(min=1e-6)), known_under_kernel


def _widened(level: Tensor, step: int) -> Tensor:
    length = level.shape[-1]
    padded = F.pad(level, (2 * step, 2 * step))
    far, near, here, near_after, far_after = (padded[..., k * step : k * step + length] for k in range(5))
    widened = here * 0.375
    for tap, weight in ((near, 0.25), (near_after, 0.25), (far, 0.0625), (far_after, 0.0625)):
        widened.add_(tap, alpha=weight)
    return widened


def mix(inferred: Tensor, smoothed: Tensor, scores: Tensor, known: Tensor) -> Tensor:
    """Return the mean of an inferred value and the smoothed ones that are known, weighted by the softmax of scores.

    Parameters
    ----------
    inferred : (N, A, L); smoothed, known : (K, N, A, L); scores : (K + 1, N, A, L)
    """
    usable = F.pad(known, (0, 0, 0, 0, 0, 0, 1, 0), value=True)  # the inferred value always is
    weights = scores.masked_fill(~usable, -torch.inf).softmax(dim=0)
    return weights[0] * inferred + (weights[1:] * smoothed).sum(dim=0)
