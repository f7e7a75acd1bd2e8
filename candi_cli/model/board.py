"""TensorBoard's event files; TensorBoard is only imported where it is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from candi_cli.errors import RequestError


class Board:
    """Reports as curves in a folder of event files.

    Parameters
    ----------
    keep_until : what was written after this step is hidden, as the training does these steps again
    """

    def __init__(self, folder: Path, *, keep_until: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RequestError(
                "--tensorboard: TensorBoard is not installed; install it with pip install 'candi[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=keep_until + 1 if keep_until else None)

    def write(self, values: Mapping[str, Any]) -> None:
        """Write one report."""
        for name, value in values.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, values["step"])
        self._writer.flush()
