"""The models that are judged: trained here with the recipes of `packaging/models`, or given as files."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from units import making

import candi_cli
from candi_cli.model import Loaded, load

REPOSITORY = Path(__file__).parents[3]
RECIPES = REPOSITORY / "packaging" / "models"
COUNTS, SIGNAL = "counts-core", "signal-core"


class Named(NamedTuple):
    """A model, and what its results are called: the same only for the same weights.

    Attributes
    ----------
    seed : that it was trained with; `-` of a model that was given
    """

    path: Path
    seed: str

    def load(self) -> Loaded:
        """Return the model."""
        return load(self.path)

    def tag(self) -> str:
        """Return some letters of the digest of the weights."""
        return self.load().card.weights_sha256[:12]


class Models(NamedTuple):
    """Where models come from.

    Attributes
    ----------
    folder : in which trained models are kept
    seeds : of trainings
    steps : instead of the recipe's; None leaves them
    given : model files by recipe, which are not trained
    threads : of the CPU
    device : of trainings
    """

    folder: Path
    seeds: Sequence[int]
    steps: int | None
    given: dict[str, Path]
    threads: int
    device: str

    def of(
        self, recipe: str, subset: str, stores: Callable[[], Sequence[Path]], *options: str, config: Path | None = None
    ) -> list[Named]:
        """Return the models of a recipe, one for each seed, trained on some stores.

        Parameters
        ----------
        subset : a name for what they are trained on
        stores : makes what they are trained on, where that is needed
        options : of `candi train`, beside the recipe's
        config : the recipe's file, where it is not one of those that ship
        """
        if recipe in self.given:
            return [Named(self.given[recipe], "-")]
        config = config or RECIPES / f"{recipe}.toml"
        extra = [*options, *(["--steps", str(self.steps)] if self.steps else [])]
        digest = hashlib.sha256("\n".join([config.read_text(), *extra]).encode()).hexdigest()[:8]
        found = []
        for seed in self.seeds:
            path = self.folder / f"{recipe}.{subset}.{digest}.seed{seed}.safetensors"
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                chosen = ["--config", config, *extra, "--seed", seed, "--device", self.device, "-@", self.threads]
                candi("train", *stores(), *chosen, "--resume", "auto", "-o", path)
            found.append(Named(path, str(seed)))
        return found


def shipped(recipe: str) -> Path:
    """Return the file of a model that ships inside the package."""
    folder = Path(candi_cli.__file__).parent / "models"
    named = folder / f"{recipe}.safetensors"
    return named if named.exists() else folder / "default.safetensors"


def candi(*arguments: object, cwd: Path | None = None) -> None:
    """Run a command of candi; what it tells goes to stderr."""
    command = [sys.executable, "-m", "candi_cli", *map(str, arguments)]
    print("candi", *map(str, arguments), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=cwd, stdout=sys.stderr)


def kept_store(path: Path, sheet: str, *options: object) -> Path:
    """Return a store, made by `candi bin` from a sample sheet where it is not there.

    Parameters
    ----------
    sheet : its text
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".sheet.tsv")
        written.write_text(sheet)
        with making(path) as beside:
            candi("bin", "--covariates", written, *options, "-o", beside)
    return path
