"""Where training starts: convolutions whose outputs have mean 0 and variance 1, as batch normalisation would see to.

Batch normalisation is an affine map once a network predicts, and while it trains, its statistics make a window depend
on its neighbours. This keeps what it does for the first steps and drops the rest (data-dependent initialisation:
Salimans & Kingma 2016, "Weight Normalization", section 3).
"""

from typing import Any

import torch
from torch import Tensor, nn

from candi_cli.model.candi.lanes import LaneConv, LaneDeconv
from candi_cli.model.candi.network import CandiBatch, Network
from candi_cli.model.candi.products import PositionConv

_POSITION_AXIS = {LaneConv: 2, LaneDeconv: 3, PositionConv: 1}
_SILENT = 0.1  # a channel with a smaller standard deviation is left as it is: its lane holds nothing, but for its ends


@torch.no_grad()
def normalise_convolutions(network: Network, inputs: CandiBatch) -> None:
    """Scale and shift the weights of each convolution so that its channels are normalised over a batch."""
    kinds = tuple(_POSITION_AXIS)
    hooks = [each.register_forward_hook(_normalise) for each in network.modules() if isinstance(each, kinds)]
    was_training = network.training
    try:
        network.eval()(inputs)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()


def _normalise(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    """Normalise a convolution by its output, and return what it gives from now on."""
    axis = _POSITION_AXIS[type(module)]
    sd, mean = torch.std_mean(output, dim=(0, axis))  # (..., O), as the bias
    silent = sd < _SILENT
    sd, mean = torch.where(silent, 1, sd), torch.where(silent, 0, mean)
    assert isinstance(module.weight, Tensor)
    assert isinstance(module.bias, Tensor)
    module.weight.div_(sd[..., None, :])  # (3, ..., I, O)
    module.bias.sub_(mean).div_(sd)
    return (output - mean.unsqueeze(axis - 1)) / sd.unsqueeze(axis - 1)
