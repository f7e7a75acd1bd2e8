"""The models that ship inside the package: what they are called, where they lie, and which one is for what."""

from pathlib import Path

_FOLDER = Path(__file__).parent
_DEFAULTS = {"counts": "counts-core", "signal": "signal-core"}  # by what they read


def shipped_models() -> dict[str, Path]:
    """Return the file of each model that ships, by its name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def default_model(layer: str = "counts") -> Path:
    """Return the model for those who name none and have `layer`: counts, or signal alone."""
    return shipped_models()[_DEFAULTS[layer]]


def find_model(path: Path) -> Path:
    """Return a path that exists as it is, else the shipped model of that name, else the path."""
    return path if path.exists() else shipped_models().get(str(path), path)
