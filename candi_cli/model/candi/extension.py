"""New assays for a trained network: it keeps every weight, and gains lanes.

The weights of a lane are entries of larger tensors; `_lane_axes` says where. Lanes only meet in the fusion, in the
network across lanes, and in a head that mixes assays: what these read of a new lane starts at 0, so that the network
predicts what it did.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from candi_cli.model.candi.config import Config
from candi_cli.model.candi.objective import Model

Axes = list[tuple[int, Tensor]]  # an axis, and which of its entries belong to a new lane


def extend(old: Model, config: Config) -> Model:
    """Return a network with more assays that predicts what `old` predicts for its own.

    Parameters
    ----------
    config : that of `old` but for its assays: those of `old` in their order, and others anywhere between
    """
    new = Model(config, old.weights)
    entries = new_entries(new, old.config.assays)
    weights = {name: value.clone() for name, value in new.state_dict().items()}
    for name, value in old.state_dict().items():
        if name in entries:
            weights[name][~entries[name]] = value.flatten()
        else:
            weights[name] = value.clone()
    for name, parameter in new.named_parameters():
        for axis, reads in _reading_axes(new, name, old.config.assays):
            others = [each for each in _lane_axes(new, name, old.config.assays) if each[0] != axis]
            unread = _spread(parameter, [(axis, reads)]) & ~_spread(parameter, others)
            weights[name][unread] = 0
    new.load_state_dict(weights)
    return new.train(old.training)


def new_entries(model: Model, known: Sequence[str]) -> dict[str, Tensor]:
    """Return which entries of parameters belong to lanes of assays that are not known; only of those with any."""
    order = [assay for assay in model.config.assays if assay in known]
    if order != list(known):
        raise ValueError(f"the assays {', '.join(known)} are not all among the network's, in this order")
    found = {}
    for name, parameter in model.named_parameters():
        axes = _lane_axes(model, name, known)
        if axes:
            found[name] = _spread(parameter, axes)
    return found


def freeze(model: Model, known: Sequence[str]) -> None:
    """Let training change nothing but the lanes of assays that are not known.

    Their entries share tensors with others, whose gradient becomes 0: train without weight decay.
    """
    entries = new_entries(model, known)
    for name, parameter in model.named_parameters():
        if name not in entries:
            parameter.requires_grad_(False)
            continue
        mask = entries[name]

        def keep(gradient: Tensor, mask: Tensor = mask) -> Tensor:
            return torch.where(mask.to(gradient.device), gradient, 0)

        parameter.register_hook(keep)


def _lane_axes(model: Model, name: str, known: Sequence[str]) -> Axes:
    """Return the axes of a parameter along which lanes lie; none where it serves all lanes alike."""
    config = model.config
    assays = torch.tensor([assay not in known for assay in config.assays])  # (A,)
    lanes = torch.cat([assays, torch.tensor([False])])  # (T,), the control last
    width = config.signal_widths[-1]
    sequence = torch.zeros(config.sequence_widths[-1] if config.reads_sequence else 0, dtype=torch.bool)
    n_levels = config.smoothing_levels + 1
    tracks = [lanes, assays] if config.reads_reference else [lanes]
    smoothed = [*(each.repeat(n_levels) for each in tracks), *tracks]  # each level, then which bins are known
    parts: list[tuple[str, Axes]] = [
        (r"covariates_in\.lane", [(0, lanes)]),
        (r"covariates_out\.lane", [(0, assays)]),
        (r"signal_tower\.\d+\.conv\.weight", [(1, lanes)]),
        (r"signal_tower\.\d+\.conv\.bias", [(0, lanes)]),
        (r"fusion\.0\.weight", [(1, torch.cat([lanes.repeat_interleave(width), sequence]))]),
        (r"latent_projection\.(weight|bias)", [(0, assays.repeat_interleave(width))]),
        (r"decoders\.ups\.\d+\.weight", [(2, assays)]),
        (r"decoders\.ups\.\d+\.bias", [(1, assays)]),
        (r"decoders\.skips\.\d+\.weight", [(1, assays)]),
        (r"decoders\.skips\.\d+\.bias", [(0, assays)]),
        (r"heads\.\d+\.bias\.\w+", [(1, assays)]),
        (r"cross\.hidden\.weight", [(1, torch.cat(smoothed))]),
        (r"cross\.out\.(weight|bias)", [(0, assays.repeat(_n_rows(model, name) // len(assays)))]),
    ]
    if not config.shared_head and (mixing := re.fullmatch(r"heads\.(\d+)\.out\.(weight|bias)", name)):
        shape = model.get_parameter(name).shape
        rows = assays.repeat(_n_rows(model, name) // len(assays))  # outputs, then assays
        columns: Axes = []
        if mixing[2] == "weight":
            columns = [(1, assays.repeat_interleave(shape[1] // len(assays)))]  # assays, then channels
        parts.append((re.escape(name), [(0, rows), *columns]))
    return next((axes for pattern, axes in parts if re.fullmatch(pattern, name)), [])


def _reading_axes(model: Model, name: str, known: Sequence[str]) -> Axes:
    """Return the axes along which a parameter reads lanes that others' predictions depend on."""
    mixes = not model.config.shared_head and re.fullmatch(r"heads\.\d+\.out\.weight", name)
    if name in ("fusion.0.weight", "cross.hidden.weight") or mixes:
        return [each for each in _lane_axes(model, name, known) if each[0] == 1]
    return []


def _n_rows(model: Model, name: str) -> int:
    return model.get_parameter(name).shape[0] if name.startswith(("cross", "heads")) else 0


def _spread(parameter: Tensor, axes: Axes) -> Tensor:
    """Return which entries of a parameter belong to a new lane along any of the axes."""
    entries = torch.zeros(parameter.shape, dtype=torch.bool)
    for axis, new in axes:
        entries |= new.reshape([-1 if each == axis else 1 for each in range(parameter.ndim)])
    return entries
