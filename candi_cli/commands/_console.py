"""What people see while a command runs: log lines and progress on stderr; stdout belongs to data."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from candi_cli.processes import heed_signals

QUIET, NORMAL, VERBOSE = 0, 1, 2


class Console:
    """The one place that writes to stderr."""

    def __init__(self) -> None:
        self.command = "candi"
        self.level = NORMAL
        self.debug = False
        self.shown_as: dict[str, str] = {}  # what messages call a temporary file

    def error(self, message: str) -> None:
        """Print an error, one line for each problem."""
        for line in message.splitlines() or [""]:
            self._print(line)

    def warn(self, message: str) -> None:
        """Print a warning unless --quiet."""
        self.log(f"warning: {message}")

    def log(self, message: str, level: int = NORMAL) -> None:
        """Print a line about what was done, if the user asked for that much."""
        if self.level >= level:
            self._print(message)

    def _print(self, line: str) -> None:
        for path, name in self.shown_as.items():
            line = line.replace(path, name)
        if sys.stderr is not None:  # where it is closed, `print` would turn to stdout
            print(f"{self.command}: {line}", file=sys.stderr)

    @contextmanager
    def progress(self, title: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        """Show progress: a bar on a terminal, a line at each tenth elsewhere.

        Yields a function that takes how many units were done and what to show beside them. It also ends the work when
        a signal has asked for that.
        """
        with self._shown(title, total, unit) as show:

            def advance(n: int, note: str) -> None:
                heed_signals()
                show(n, note)

            yield advance

    @contextmanager
    def _shown(self, title: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        if self.level == QUIET:
            yield lambda _n, _note: None
        elif sys.stderr.isatty():
            yield from self._bar(title, total)
        else:
            yield from self._lines(title, total, unit)

    @staticmethod
    def _bar(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=RichConsole(stderr=True)) as bar:
            task = bar.add_task(title, total=total, note="")
            yield lambda n, note: bar.update(task, advance=n, note=note)

    def _lines(self, title: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        started, done, shown = time.monotonic(), 0, 0

        def advance(n: int, note: str) -> None:
            nonlocal done, shown
            done += n
            tenth = 10 * done // max(total, 1)
            if tenth > shown:
                shown = tenth
                rate = done / max(time.monotonic() - started, 1e-9)
                self.log(f"{title}: {done:,} of {total:,} {unit} ({rate:,.1f}/s) {note}".rstrip())

        yield advance


console = Console()
