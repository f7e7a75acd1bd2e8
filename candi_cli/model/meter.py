"""What training steps measured: kept on the device, fetched in one go, and checked step by step."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from candi_cli.errors import ModelError
from candi_cli.model.distributed import ALONE, Processes
from candi_cli.model.terms import LossTerm

DIVERGED_TIMES = 10  # a loss is too high when it is above the median by this many times the median's size (at least 1)
DIVERGED_STEPS = 100  # training ends when it was too high for so many steps in a row
_MEDIAN_OF, _MEDIAN_FROM = 200, 50  # steps


@dataclass
class Averages:
    """Means over the steps since they were last asked for."""

    loss: float
    grad_norm: float
    terms: dict[str, float]


@dataclass
class Meter:
    """The losses, terms and gradient norms of steps.

    Attributes
    ----------
    describe : from a step (0-based) to words on its batch, for errors
    without : for each term, how many batches had no entry for it
    """

    processes: Processes = ALONE
    describe: Callable[[int], str] = lambda _step: ""
    without: dict[str, int] = field(default_factory=dict)
    _rows: list[Tensor] = field(default_factory=list)  # on the device: loss, norm, totals, entries
    _since: list[list[float]] = field(default_factory=list)  # the same, fetched
    _usual: deque[float] = field(default_factory=lambda: deque(maxlen=_MEDIAN_OF))
    _too_high: int = 0

    def add(self, loss: Tensor, norm: Tensor, terms: dict[str, LossTerm]) -> None:
        """Note one step, without waiting for the device. The entries of terms are those of all processes."""
        self.without = self.without or dict.fromkeys(terms, 0)
        values = torch.stack(
            [value.detach().float() for value in (loss, norm, *(term.total for term in terms.values()))]
        )
        entries = torch.stack([term.entries for term in terms.values()]).float()
        self._rows.append(torch.cat([values, entries.to(values.device)]))

    def fetch(self, step: int) -> None:
        """Wait for the steps noted so far and check each; `step` is the number of steps done.

        Raises
        ------
        ModelError
            A loss or gradient is not finite, or losses have long been far above their median; it names the step.
        """
        if not self._rows:
            return
        rows = torch.stack(self._rows)  # (steps, 2 + 2 * terms)
        local = [0, *range(2, 2 + len(self.without))]  # loss and totals are of this process, the others of all
        rows[:, local] = self.processes.sum(rows[:, local])
        first = step - len(rows)
        self._rows.clear()
        for number, row in enumerate(rows.tolist(), first):
            self._check(number, row[0], row[1])
            for name, entries in zip(self.without, row[2 + len(self.without) :], strict=True):
                self.without[name] += entries == 0
            self._since.append(row)

    def _check(self, number: int, loss: float, norm: float) -> None:
        for name, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise ModelError(f"{self._name(number)}: the {name} is not finite; lower --learning-rate")
        usual = median(self._usual) if len(self._usual) >= _MEDIAN_FROM else math.inf
        if loss <= usual + DIVERGED_TIMES * max(abs(usual), 1.0):
            self._usual.append(loss)
            self._too_high = 0
            return
        self._too_high += 1
        if self._too_high == DIVERGED_STEPS:
            raise ModelError(
                f"{self._name(number - DIVERGED_STEPS + 1)}: since then the loss is far above its median "
                f"({usual:.3g}; now {loss:.3g}): training diverged; lower --learning-rate"
            )

    def _name(self, number: int) -> str:
        batch = self.describe(number)
        return f"step {number + 1}" + (f" (batch of {batch})" if batch else "")

    def averages(self) -> Averages:
        """Return the means over the steps fetched since the last call, and forget these steps."""
        names = list(self.without)
        columns = [math.fsum(column) for column in zip(*self._since, strict=True)]
        totals, entries = columns[2 : 2 + len(names)], columns[2 + len(names) :]
        terms = {name: total / max(n, 1.0) for name, total, n in zip(names, totals, entries, strict=True)}
        loss, norm = (fmean(row[column] for row in self._since) for column in (0, 1))
        self._since.clear()
        return Averages(loss, norm, terms)

    def state(self) -> dict[str, Any]:
        """Return all that was fetched, for a checkpoint."""
        return {
            "without": dict(self.without), "since": [list(row) for row in self._since],
            "usual": list(self._usual), "too_high": self._too_high,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.without, self._since = dict(state["without"]), [list(row) for row in state["since"]]
        self._usual, self._too_high = deque(state["usual"], maxlen=_MEDIAN_OF), state["too_high"]


def describer(batches: object) -> Callable[[int], str]:
    """Return a function from a step to words on its batch: the batches' own `describe`, where they have it."""
    describe: Callable[[int], str] = getattr(batches, "describe", lambda _step: "")
    return describe


def all_entries(terms: dict[str, LossTerm], stop: bool, processes: Processes) -> tuple[dict[str, LossTerm], Tensor]:
    """Return terms whose entries are those of all processes, and how many processes want to stop."""
    counts: Sequence[Tensor] = [term.entries for term in terms.values()]
    stopping = torch.full_like(counts[0], int(stop))
    *entries, stopping = processes.sum(torch.stack([*counts, stopping])).unbind()
    pairs = zip(terms.items(), entries, strict=True)
    return {name: term._replace(entries=of_all) for (name, term), of_all in pairs}, stopping
