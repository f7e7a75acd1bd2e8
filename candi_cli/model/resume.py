"""Training checkpoints: everything that a training needs to go on as if it had never stopped."""

import os
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from candi_cli.errors import ModelError, OutputError, RequestError

FORMAT = "candi-checkpoint"
FORMAT_VERSION = 1
State = dict[str, Any]


@dataclass
class Checkpoints:
    """Where and how often a training's state is saved, and what it has to agree with.

    Attributes
    ----------
    path : the checkpoint; one file, replaced when the next one is complete
    settings : what the result depends on, by the name that a user knows it by; a checkpoint of others is refused
    steps, seconds : how often to save; 0 for never
    resume : the checkpoint to go on from; None starts anew
    resumed_at : the number of steps that were done when it was loaded
    """

    path: Path
    settings: Mapping[str, Any]
    steps: int = 0
    seconds: float = 0.0
    resume: Path | None = None
    resumed_at: int = 0
    _saved_at: float = field(default_factory=time.monotonic)

    def load(self) -> State | None:
        """Return the state to go on from, None for a new start.

        Raises
        ------
        ModelError
            The file is not a checkpoint, or damaged.
        RequestError
            It was made with other settings; the message names each.
        """
        if self.resume is None:
            return None
        state = read(self.resume)
        different = [
            f"{name} was {state['settings'].get(name, 'not set')}, is {self.settings.get(name, 'not set')}"
            for name in dict.fromkeys([*state["settings"], *self.settings])
            if state["settings"].get(name) != self.settings.get(name)
        ]
        if different:
            raise RequestError(
                f"{self.resume}: made with other settings ({'; '.join(different)}); "
                "give those, or start anew with --resume never"
            )
        self.resumed_at = int(state["step"])
        return state

    def due(self, step: int, *, reported: bool) -> bool:
        """Return whether to save after a step; time counts at reported steps, which all processes share."""
        if self.steps and step % self.steps == 0:
            return True
        return bool(self.seconds) and reported and time.monotonic() - self._saved_at >= self.seconds

    def save(self, state: State) -> None:
        """Write a state beside the checkpoint, read it back, and only then put it in its place."""
        complete = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": dict(self.settings), **state}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(complete, file)
                file.flush()
                os.fsync(file.fileno())
            if not _equal(read(temporary), complete):
                raise OutputError(f"{self.path}: what was written cannot be read back; check the disk")
            temporary.replace(self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); check the disk") from error
        except RuntimeError as error:  # torch reports a full disk so
            raise OutputError(f"{self.path}: cannot be written; check the space on the disk") from error
        finally:
            temporary.unlink(missing_ok=True)
        self._saved_at = time.monotonic()


def read(path: Path) -> State:
    """Read a checkpoint; nothing in it is executed.

    Raises
    ------
    ModelError
        It is missing, damaged, not a checkpoint, or of another version.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; leave out --resume, or give --resume auto")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a checkpoint, or damaged; start anew with --resume never") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelError(f"{path}: not a training checkpoint; give one that 'candi train' wrote")
    if state["format_version"] != FORMAT_VERSION:
        raise ModelError(
            f"{path}: checkpoint version {state['format_version']}, this program reads {FORMAT_VERSION}; "
            "go on with the version that wrote it"
        )
    return state


def _equal(one: Any, other: Any) -> bool:
    """Return whether two states hold the same values to the bit (NaN equals NaN)."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(
            one.cpu().contiguous().flatten().view(torch.uint8),
            other.detach().cpu().contiguous().flatten().view(torch.uint8),
        )
    if isinstance(one, dict):
        return len(one) == len(other) and all(key in other and _equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other or (one != one and other != other)
