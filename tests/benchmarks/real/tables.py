"""One table a task: each method's scores in the mean over seeds and tracks, with errors, printed and written."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from units import Row, making, write_rows

from candi_cli.evaluation.comparison import gain

ALL = "all"
LOWER_IS_BETTER = ("mse", "crps", "crps_gaussian", "pit_error", "poisson", "nb", "nll")


class Cell(NamedTuple):
    """A method's score over some tracks.

    Attributes
    ----------
    value : the mean over tracks of each track's mean over seeds
    error : clustered by track, or of a single track over blocks; NaN where there is neither
    over_seeds : sd, over seeds, of the mean over tracks; NaN of a single seed
    n_tracks, n_seeds : that it is of
    """

    value: float
    error: float
    over_seeds: float
    n_tracks: int
    n_seeds: int


def summarise(rows: Sequence[Row]) -> dict[tuple[str, str, str], Cell]:
    """Return a cell for each (group, method, score), and for all groups together."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        for group in dict.fromkeys((row.group, ALL)):
            found.setdefault((group, row.method, row.score), []).append(row)
    return {key: _cell(members) for key, members in found.items()}


def by_track(rows: Iterable[Row]) -> dict[str, float]:
    """Return the mean over seeds of each track."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.track, []).append(row.value)
    return {track: float(np.mean(each)) for track, each in values.items()}


def _cell(rows: Sequence[Row]) -> Cell:
    tracks = np.array(list(by_track(rows).values()))
    seeds: dict[str, list[float]] = {}
    for row in rows:
        seeds.setdefault(row.seed, []).append(row.value)
    per_seed = np.array([np.mean(each) for each in seeds.values()])
    if len(tracks) > 1:
        error = float(tracks.std(ddof=1) / math.sqrt(len(tracks)))
    else:
        error = float(np.mean([row.error for row in rows]))
    complete = len(rows) == len(per_seed) * len(tracks)  # else seeds differ in what they are of
    over_seeds = float(per_seed.std(ddof=1)) if len(per_seed) > 1 and complete else math.nan
    return Cell(float(tracks.mean()), error, over_seeds, len(tracks), len(per_seed))


def report(name: str, title: str, rows: Sequence[Row], folder: Path, *, shown: Sequence[str], model: str = "") -> None:
    """Print a task's table, and write it beside all of its scores.

    Parameters
    ----------
    shown : the scores that are printed; the files hold all
    model : the method whose gains over the others are told, where there is one
    """
    cells = summarise(rows)
    methods = list(dict.fromkeys(row.method for row in rows))
    groups = list(dict.fromkeys(row.group for row in rows))
    scores = [score for score in shown if any(key[2] == score for key in cells)]
    with making(folder / f"{name}.scores.tsv") as beside:
        write_rows(beside, rows)
    with making(folder / f"{name}.tsv") as beside:
        lines = ["\t".join(("group", "method", "score", *Cell._fields))]
        lines += ["\t".join((*key, *_numbers(cell))) for key, cell in sorted(cells.items())]
        beside.write_text("\n".join(lines) + "\n")
    print(f"\n{name}: {title}")
    width = max(map(len, methods)) + 2
    for group in (*groups, *([ALL] if len(groups) > 1 else [])):
        print(f"{group:{width}}" + "".join(f"{score:>26}" for score in scores))
        for method in methods:
            texts = [_text(cells.get((group, method, score))) for score in scores]
            if any(texts):
                print(f"  {method:{width - 2}}" + "".join(f"{text:>26}" for text in texts))
    if model in methods:
        _print_gains(name, rows, methods, scores, folder, model)


def _numbers(cell: Cell) -> list[str]:
    return [f"{value:.6g}" for value in cell]


def _text(cell: Cell | None) -> str:
    """Return value ± error (sd over seeds)."""
    if cell is None:
        return ""
    error = f" ±{cell.error:.3f}" if math.isfinite(cell.error) else ""
    seeds = f" ({cell.over_seeds:.4f})" if math.isfinite(cell.over_seeds) else ""
    return f"{cell.value:.4f}{error}{seeds}"


def _print_gains(
    name: str, rows: Sequence[Row], methods: Sequence[str], scores: Sequence[str], folder: Path, model: str
) -> None:
    """Print and write how much better the model is than each rival, over tracks."""
    lines = ["\t".join(("rival", "score", "gain", "se", "low", "high", "better", "tracks", "sign_p"))]
    print(f"  gains of {model}, positive where it is better: mean [95 % interval over tracks], tracks it is better on")
    for rival in (method for method in methods if method != model):
        texts = []
        for score in scores:
            ours, theirs = (
                by_track(row for row in rows if row.method == method and row.score == score)
                for method in (model, rival)
            )
            shared = [track for track in ours if track in theirs]
            if not shared or score.startswith(("coverage", "expected", "effective")):
                continue
            found = gain(
                [ours[track] for track in shared], [theirs[track] for track in shared],
                seed=0, lower_is_better=score in LOWER_IS_BETTER,
            )  # fmt: skip
            numbers = (found.mean, found.se, found.low, found.high)
            lines.append(
                "\t".join(
                    (rival, score, *(f"{value:.4g}" for value in numbers), str(found.n_better), str(found.n),
                     f"{found.sign_p:.3g}")
                )
            )  # fmt: skip
            texts.append(f"{score} {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] {found.n_better}/{found.n}")
        print(f"  over {rival}: " + "; ".join(texts))
    with making(folder / f"{name}.gains.tsv") as beside:
        beside.write_text("\n".join(lines) + "\n")
