"""Reading tab-separated text of genomic intervals as columns: vectorised over lines, memory bounded by a piece."""

import codecs
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import CandiError
from candi_cli.io.formats import DAMAGE, SKIPPED, is_number, open_decompressed

_SKIPPED = tuple(word.encode() for word in SKIPPED)
_PIECE = 1 << 23  # bytes of text at a time
_TAB, _NEWLINE, _RETURN, _MINUS, _ZERO = 9, 10, 13, 45, 48
_BLANKS = np.array([_TAB, _NEWLINE, _RETURN, ord(" ")], dtype=np.uint8)
_LONGEST = 100_000  # letters of a field that is read as text
_DIGITS = 18  # of the longest number that int64 holds


class LineError(ValueError):
    """A line that does not hold what it should: `line` counts from 0 within its piece."""

    def __init__(self, line: int, fact: str) -> None:
        super().__init__(fact)
        self.line = line


class Lines:
    """Some lines of a file, their fields found but not yet parsed.

    Parameters
    ----------
    text : whole lines, fields separated by tabs
    first : number of the first line in its file, from 1
    """

    def __init__(self, text: bytes, first: int) -> None:
        self.text = np.frombuffer(text, dtype=np.uint8)
        separators = np.flatnonzero((self.text == _TAB) | (self.text == _NEWLINE))
        last = np.flatnonzero(self.text[separators] == _NEWLINE)  # the separator that ends each line
        line_ends = separators[last]
        line_starts = np.concatenate([[0], line_ends[:-1] + 1])
        n_fields = np.diff(last, prepend=-1)
        data = ~self._skipped(line_starts, line_ends)
        self.numbers = first + np.flatnonzero(data)
        self.line_starts, self.n_fields = line_starts[data], n_fields[data]
        self._first_separator = (last - n_fields + 1)[data]
        self._separators = separators
        self.n_lines_read = len(line_ends)

    def __len__(self) -> int:
        return len(self.numbers)

    def _skipped(self, starts: NDArray, ends: NDArray) -> NDArray[np.bool_]:
        """Return which lines are blank, comments or instructions to a browser."""
        skipped = np.isin(self.text[starts], _BLANKS)
        for line in np.flatnonzero(skipped):
            skipped[line] = not self.text[starts[line] : ends[line]].tobytes().strip()
        for word in SKIPPED:
            matches = np.ones(len(starts), dtype=np.bool_)
            for offset, letter in enumerate(word.encode()):
                at = np.minimum(starts + offset, len(self.text) - 1)
                matches &= self.text[at] == letter
            skipped |= matches
        return skipped

    def spans(self, column: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where a field starts and ends in the text, on each line; raise LineError where a line lacks it."""
        short = np.flatnonzero(self.n_fields <= column)
        if len(short):
            raise LineError(int(short[0]), f"{self.n_fields[short[0]]} fields, at least {column + 1} are needed")
        end = self._separators[self._first_separator + column]
        start = self._separators[self._first_separator + column - 1] + 1 if column else self.line_starts
        return start, end - ((end > start) & (self.text[end - 1] == _RETURN))

    def integers(self, column: int) -> NDArray[np.int64]:
        """Return a field as whole numbers; raise LineError where it is none."""
        start, end = self.spans(column)
        negative = self.text[np.minimum(start, len(self.text) - 1)] == _MINUS
        first = start + negative
        width = end - first
        wrong = (width < 1) | (width > _DIGITS)
        values = np.zeros(len(start), dtype=np.int64)
        for offset in range(int(np.minimum(width, _DIGITS).max(initial=0))):
            inside = offset < width
            digit = self.text[np.minimum(first + offset, len(self.text) - 1)].astype(np.int64) - _ZERO
            wrong |= inside & ((digit < 0) | (digit > 9))
            values = np.where(inside, values * 10 + digit, values)
        self._refuse(wrong, start, end, "is not a whole number")
        return np.where(negative, -values, values)

    def reals(self, column: int) -> NDArray[np.float64]:
        """Return a field as floating-point numbers; raise LineError where it is none."""
        texts = self.texts(column)
        try:
            return texts.astype(np.float64)
        except ValueError:
            pass
        wrong = np.array([not is_number(text) for text in texts.tolist()])
        self._refuse(wrong, *self.spans(column), "is not a number")
        raise AssertionError("numpy and Python disagree on what a number is")

    def texts(self, column: int, *, missing: bytes | None = None) -> NDArray[np.bytes_]:
        """Return a field as bytes; `missing` where a line lacks it, or raise LineError without one."""
        if missing is not None and (self.n_fields <= column).any():
            there = self.n_fields > column
            found = self._chosen(there).texts(column)
            values = np.full(len(self), missing, dtype=found.dtype)
            values[there] = found
            return values
        start, end = self.spans(column)
        width = end - start
        longest = max(int(width.max(initial=1)), 1)
        if longest > _LONGEST:
            raise LineError(int(width.argmax()), f"a field of {longest:,} letters")
        letters = np.zeros((len(start), longest), dtype=np.uint8)
        rows = np.flatnonzero(width)
        for offset in range(longest):  # fewer rows each time
            letters[rows, offset] = self.text[start[rows] + offset]
            rows = rows[width[rows] > offset + 1]
        return letters.reshape(-1).view(f"S{longest}")

    def _chosen(self, which: NDArray[np.bool_]) -> "Lines":
        """Return some of the lines."""
        chosen = copy(self)
        chosen.numbers, chosen.line_starts, chosen.n_fields, chosen._first_separator = (
            values[which] for values in (self.numbers, self.line_starts, self.n_fields, self._first_separator)
        )
        return chosen

    def _refuse(self, wrong: NDArray[np.bool_], start: NDArray, end: NDArray, fact: str) -> None:
        if wrong.any():
            line = int(np.flatnonzero(wrong)[0])
            field = self.text[start[line] : end[line]].tobytes().decode(errors="replace")
            raise LineError(line, f"{field[:40]!r} {fact}")


def read_lines(path: Path, error: type[CandiError], *, what: str) -> Iterator[Lines]:
    """Yield the lines of a file, plain or gzip/bgzip, piece by piece.

    Parameters
    ----------
    error : raised for a file that cannot be read
    what : is asked for in its message, such as "a BED file"
    """
    first = 1
    try:
        with open_decompressed(path) as handle:
            rest = b""
            while piece := handle.read(_PIECE):
                if first == 1 and not rest:
                    piece = piece.removeprefix(codecs.BOM_UTF8)
                whole, newline, tail = (rest + piece).rpartition(b"\n")
                rest = tail
                if newline:
                    lines = Lines(_tabs(whole + newline), first)
                    first += lines.n_lines_read
                    yield lines
            if rest:
                yield Lines(_tabs(rest + b"\n"), first)
    except FileNotFoundError as failure:
        raise error(f"{path}: no such file; check the path") from failure
    except (PermissionError, IsADirectoryError) as failure:
        raise error(f"{path}: {failure.strerror}; give {what}") from failure
    except DAMAGE as failure:
        raise error(f"{path}: damaged or truncated ({failure}); fetch it again") from failure


def name_runs(names: NDArray[np.bytes_]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each name of a column and the lines that hold it, in the order of its first line."""
    if not len(names):
        return
    changes = np.flatnonzero(names[1:] != names[:-1]) + 1
    if len(changes) < 1_000:  # grouped by name, as sorted files are
        groups: dict[bytes, list[NDArray[np.int64]]] = {}
        for run in np.split(np.arange(len(names)), changes):
            groups.setdefault(names[run[0]], []).append(run)
        for name, runs in groups.items():
            yield name.decode(errors="replace"), np.concatenate(runs)
        return
    found, first, which = np.unique(names, return_index=True, return_inverse=True)
    lines = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    for number in np.argsort(first):
        yield found[number].decode(errors="replace"), lines[number]


def _tabs(text: bytes) -> bytes:
    """Return lines with tabs between fields, where a file separates them by spaces."""
    head = next((line for line in text.splitlines() if line.strip() and not line.startswith(_SKIPPED)), b"")
    if b"\t" in head or b" " not in head.strip():
        return text
    return b"".join(b"\t".join(line.split()) + b"\n" for line in text.split(b"\n")[:-1])
