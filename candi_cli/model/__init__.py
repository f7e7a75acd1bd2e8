"""The door to the model families: build, load and save networks. Only below here is torch imported."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

if find_spec("loguru"):  # x-transformers 2 writes to stderr through it while a network is built
    import_module("loguru").logger.disable("x_transformers")

import torch
from torch import nn

from candi_cli.errors import ModelError
from candi_cli.model import candi, checkpoint
from candi_cli.model.checkpoint import AssayCard, ModelCard

FAMILIES: dict[str, ModuleType] = {"candi": candi}
_MISFITS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)  # of shapes, in torch

__all__ = ["FAMILIES", "AssayCard", "Loaded", "ModelCard", "load", "save"]


class Loaded(NamedTuple):
    """A network ready to predict, its family's configuration, and its card."""

    network: nn.Module
    config: Any
    card: ModelCard
    path: Path


def load(path: Path) -> Loaded:
    """Load a model file, in evaluation mode; nothing of its size is allocated before its header has been checked.

    Raises
    ------
    ModelError
        It is not a model file, its family is unknown, or its weights are not those of its card and configuration.
    """
    card, shapes = checkpoint.read_header(path)
    if card.family not in FAMILIES:
        raise ModelError(f"{path}: family {card.family!r} is not one of {', '.join(FAMILIES)}; use a newer candi")
    family = FAMILIES[card.family]
    try:
        config = _configuration(card, family)
    except ValueError as error:
        raise ModelError(f"{path}: its configuration cannot be used ({error}); train it again") from error
    try:
        _check_shapes(shapes, family, config)
    except _MISFITS as error:
        raise ModelError(f"{path}: its weights do not fit its configuration; train it again") from error
    tensors = checkpoint.read(path, card)
    network = family.Model(config)
    network.load_state_dict(tensors)
    return Loaded(network.eval(), config, card, path)


def _configuration(card: ModelCard, family: ModuleType) -> Any:
    """Return the configuration of a card; raise ValueError for one that no network can have."""
    values = checkpoint.checked_fields(card.config, family.Config, what="it")
    config = family.Config(**{name: tuple(each) if isinstance(each, list) else each for name, each in values.items()})
    config.check()
    if set(config.assays) != set(card.assays):
        raise ValueError("its assays are not those of the card")
    return config


def _check_shapes(shapes: dict[str, tuple[int, ...]], family: ModuleType, config: Any) -> None:
    """Raise unless a network of the configuration loads tensors of these names and shapes; none has any memory."""
    with torch.device("meta"):
        family.Model(config).load_state_dict({name: torch.empty(shape) for name, shape in shapes.items()})


def save(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a network and its card to `path`; the card in the file also names the weights by their SHA-256."""
    checkpoint.write(path, network.state_dict(), card)
