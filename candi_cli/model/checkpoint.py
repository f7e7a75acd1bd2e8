"""The model file: one safetensors file whose metadata hold a JSON card. Nothing in it is ever executed."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from candi_cli import __version__
from candi_cli.counting import CountingRule
from candi_cli.covariates import PLATFORMS, RUN_TYPES, Covariates
from candi_cli.errors import ModelError

FORMAT = "candi-model"
FORMAT_VERSION = 1
_CARD_KEY = "candi"


@dataclass(frozen=True)
class AssayCard:
    """What a model learned of one assay.

    Attributes
    ----------
    outputs : those of counts, signal and peaks that training had targets for
    standard : the covariates of its output unless others are asked for (depth in reads per Gb)
    depth_range : reads per Gb of the training data, thinned and whole; None where no depth is known, as of a signal
    read_length_range : bp; run_types, platforms : those in the training data
    """

    outputs: tuple[str, ...]
    standard: Covariates
    depth_range: tuple[float, float] | None
    read_length_range: tuple[float, float] | None
    run_types: tuple[str, ...]
    platforms: tuple[str, ...]


@dataclass(frozen=True)
class ModelCard:
    """What travels with the weights: how to rebuild the network, and what it may be used for."""

    family: str
    config: dict[str, Any]
    counting: CountingRule
    assays: dict[str, AssayCard]
    training: dict[str, Any] = field(default_factory=dict)
    candi_version: str = __version__
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the card as JSON text."""
        vocabularies = {"run_type": RUN_TYPES, "platform": PLATFORMS}
        card = {**asdict(self), "format": FORMAT, "counting": self.counting.to_json(), "vocabularies": vocabularies}
        return json.dumps(card, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Rebuild a card; raise KeyError, TypeError or ValueError when it is not one."""
        card = json.loads(text)
        if card.pop("format") != FORMAT:
            raise ValueError("another format")
        if card["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {card['format_version']}, this program reads {FORMAT_VERSION}")
        vocabularies = card.pop("vocabularies")
        for name, known in (("run_type", RUN_TYPES), ("platform", PLATFORMS)):
            if tuple(vocabularies[name]) != known[: len(vocabularies[name])]:
                raise ValueError(f"another {name} vocabulary")
        assays = {
            assay: AssayCard(
                outputs=tuple(values["outputs"]),
                standard=Covariates(**values["standard"]),
                depth_range=tuple(values["depth_range"]) if values["depth_range"] else None,
                read_length_range=tuple(values["read_length_range"]) if values["read_length_range"] else None,
                run_types=tuple(values["run_types"]),
                platforms=tuple(values["platforms"]),
            )
            for assay, values in card.pop("assays").items()
        }
        return cls(**{**card, "counting": CountingRule.from_json(card["counting"])}, assays=assays)


def write(path: Path, tensors: dict[str, Tensor], card: ModelCard) -> None:
    """Write a model file; the caller renames it when complete."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, str(path), metadata={_CARD_KEY: card.to_json()})


def read(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """Read a model file.

    Raises
    ------
    ModelError
        It is missing, not a model file, or of a version that this program does not read.
    """
    if not path.is_file():
        raise ModelError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a model file with -m")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(_CARD_KEY)
            if text is None:
                raise ModelError(f"{path}: a safetensors file but not a candi model; make one with 'candi train'")
            card = ModelCard.from_json(text)
            return {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a model file, or damaged; give one made by 'candi train'") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its card cannot be used ({error}); train it again with this version") from error
