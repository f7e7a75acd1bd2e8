"""Writing the files of tracks, in as many processes as there are threads for."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import replacing
from candi_cli.commands._track_files import STDOUT, FilePlan
from candi_cli.commands._track_options import TrackOptions
from candi_cli.export.files import PEAK_THRESHOLD, TrackFile
from candi_cli.export.pool import writing
from candi_cli.export.source import Source


def write_plan(
    plan: FilePlan,
    options: TrackOptions,
    source: Source,
    *,
    compute: Callable[[], None] = lambda: None,
    meanwhile: bool = False,
) -> None:
    """Write every file of a plan, and tell so; either all of them appear under their names or none.

    Parameters
    ----------
    compute : makes what the source holds
    meanwhile : files are written while it does
    """
    with ExitStack() as stack:
        files = _track_files(plan, options, stack)
        _write_files(files, source, compute, threads=options.threads, meanwhile=meanwhile)
    for file in plan.files:
        if file.path != STDOUT:
            console.log(f"wrote {file.path}")


def _track_files(plan: FilePlan, options: TrackOptions, stack: ExitStack) -> list[TrackFile]:
    """Return the files of a plan under temporary names, which become theirs when the stack is left without error."""
    files = []
    for file in plan.files:
        path = file.path if file.path == STDOUT else stack.enter_context(replacing(file.path))
        biosample, assay = file.target or ("", "")
        files.append(
            TrackFile(
                path, file.path, file.format, biosample, assay, file.quantity,
                options.digits, options.threshold or PEAK_THRESHOLD, command_line(threads=False),
            )
        )  # fmt: skip
    return files


def _write_files(
    files: Sequence[TrackFile], source: Source, compute: Callable[[], None], *, threads: int, meanwhile: bool
) -> None:
    """Compute what files show and write them, in as many processes as there are threads for."""
    one = len(files) == 1 or any(file.path == STDOUT for file in files)
    if meanwhile and threads > 1 and files[0].path != STDOUT:
        with writing(files, source, processes=threads - 1) as finish:
            compute()
            _follow(finish, len(files))
        return
    compute()
    with writing(files, source, processes=0 if one or threads == 1 else threads) as finish:
        _follow(finish, len(files))


def _follow(finish: Callable[[], Any], n_files: int) -> None:
    with console.progress("writing", n_files, "files") as advance:
        for file in finish():
            advance(1, file.shown_as.name)
