"""Where scores go: TSV on stdout, one file, or a folder with a page."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Sequence
from io import UnsupportedOperation
from pathlib import Path

import click

from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable, replacing
from candi_cli.errors import OutputError
from candi_cli.report.judgement import JudgementReport, to_json, to_tsv, write_report

STDOUT = Path("-")
_OURS = re.compile(r"scores\.(tsv|json)|index\.html|figures|candi_.*_mqc\.json")  # what a folder of scores holds

_OTHER_FORMATS = frozenset(
    {
        ".bed",
        ".bedgraph",
        ".bw",
        ".bigwig",
        ".csv",
        ".gz",
        ".h5",
        ".hdf5",
        ".html",
        ".md",
        ".pdf",
        ".png",
        ".safetensors",
    }
    | {".svg", ".txt", ".xls", ".xlsx", ".zip"}
)


def check_scores_output(output: Path | None, *, inputs: Sequence[Path | None]) -> None:
    """Raise OutputError unless the scores can be written; call it before the work."""
    if output is None or output == STDOUT:
        if not _takes_output():
            raise OutputError("stdout: is closed; give OUT.tsv, OUT.json or a folder with -o")
        return
    if not str(output) or output == Path():
        raise OutputError("-o: names nothing; give OUT.tsv, OUT.json or a folder")
    if _is_file(output):
        check_writable(output, inputs=inputs)
        return
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file; give a folder, or a name that ends in .tsv or .json, with -o")
    if not output.exists() and output.suffix.lower() in _OTHER_FORMATS:
        raise OutputError(
            f"{output}: scores are not written as {output.suffix}; give OUT.tsv, OUT.json or a folder with -o"
        )
    if output.is_dir():
        other = sorted(path.name for path in output.iterdir() if not _OURS.fullmatch(path.name))
        if other:
            raise OutputError(f"{output}: holds {other[0]}, which would be lost; give a new folder with -o")
    check_writable(output.absolute().parent / f"{output.name}.probe")


def _takes_output() -> bool:
    """Return whether stdout is open for writing; a closed one was opened to nothing, for reading."""
    try:
        os.write(sys.stdout.fileno(), b"")
    except UnsupportedOperation:  # no file of the system's
        return True
    except OSError as error:
        return error.errno != errno.EBADF
    return True


def deliver_scores(report: JudgementReport, output: Path | None) -> None:
    """Write a report where it was asked for."""
    if output is None or output == STDOUT:
        try:
            click.echo(to_tsv(report), nl=False)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"stdout: cannot be written ({error.strerror}); check the disk") from error
    elif _is_file(output):
        with replacing(output) as temporary:
            text = to_json(report) if output.suffix.lower() == ".json" else to_tsv(report)
            temporary.write_text(text, encoding="utf-8")
    else:
        _write_folder(report, output)
        console.log(f"{output / 'index.html'}: {len(report.rows):,} scores")


def _is_file(output: Path) -> bool:
    return output.suffix.lower() in (".tsv", ".json") and not output.is_dir()


def _write_folder(report: JudgementReport, output: Path) -> None:
    """Write the folder beside its name, and put it in the place of an older one when it is complete."""
    output = output.resolve()
    new = output.with_name(f".{output.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        write_report(new, report)
        if output.exists():
            old = output.with_name(f".{output.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            output.rename(old)
            new.rename(output)
            shutil.rmtree(old)
        else:
            new.rename(output)
    finally:
        shutil.rmtree(new, ignore_errors=True)
