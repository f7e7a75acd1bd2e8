"""The door to the model families: build, load and save networks. Only below here is torch imported."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

if find_spec("loguru"):  # x-transformers 2 writes to stderr through it while a network is built
    import_module("loguru").logger.disable("x_transformers")

from torch import nn

from candi_cli.errors import ModelError
from candi_cli.model import candi, checkpoint
from candi_cli.model.checkpoint import AssayCard, ModelCard

FAMILIES: dict[str, ModuleType] = {"candi": candi}

__all__ = ["FAMILIES", "AssayCard", "Loaded", "ModelCard", "load", "save"]


class Loaded(NamedTuple):
    """A network ready to predict, its family's configuration, and its card."""

    network: nn.Module
    config: Any
    card: ModelCard
    path: Path


def load(path: Path) -> Loaded:
    """Load a model file, in evaluation mode.

    Raises
    ------
    ModelError
        It is not a model file, its family is unknown, or its weights are not those of its configuration.
    """
    tensors, card = checkpoint.read(path)
    if card.family not in FAMILIES:
        raise ModelError(f"{path}: family {card.family!r} is not one of {', '.join(FAMILIES)}; use a newer candi")
    family = FAMILIES[card.family]
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in card.config.items()}
        config = family.Config(**values)
        network = family.Model(config)
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: its weights do not fit its configuration; train it again") from error
    return Loaded(network.eval(), config, card, path)


def save(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a network and its card to `path`."""
    checkpoint.write(path, network.state_dict(), card)
