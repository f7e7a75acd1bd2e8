"""The `candi` command: its subcommands, and the one place where errors become lines and exit codes."""

import atexit
import io
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from candi_cli import __version__
from candi_cli.commands._console import NORMAL, console
from candi_cli.errors import CandiError
from candi_cli.processes import ending_on_signals

COMMANDS = ("sheet", "bin", "info", "downsample", "train", "denoise", "impute", "calibrate", "cindex", "evaluate")
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
HUNG_UP, INTERRUPTED, STOPPED, BROKEN_PIPE, TERMINATED = 129, 130, 138, 141, 143
_STREAMS = (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))


class _Commands(click.Group):
    """Subcommands in the order of the work, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"candi_cli.commands.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a command line, and refuse an option of one value that is given twice."""
        name, command, rest = super().resolve_command(ctx, args)
        console.command = f"candi {name}"
        if command is not None and not ctx.resilient_parsing:
            _check_given_once(click.Context(command, info_name=name, parent=ctx), rest)
        return name, command, rest


def _check_given_once(context: click.Context, arguments: list[str]) -> None:
    """Raise UsageError where click would silently take the last of several values."""
    _, _, given = context.command.make_parser(context).parse_args(list(arguments))
    single = [each for each in given if isinstance(each, click.Option) and not (each.multiple or each.is_flag)]
    for option in single:
        if single.count(option) > 1:
            raise click.UsageError(f"{' / '.join(option.opts)}: is given twice, and takes one value; give it once.")


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="candi", message="%(prog)s %(version)s")
def candi() -> None:
    """Turn sequencing reads into denoised epigenomic tracks with calibrated uncertainty.

    Exit codes: 0 done, 1 data or I/O, 2 usage, 129 stopped by SIGHUP, 130 interrupted, 138 stopped by SIGUSR1, 141
    broken pipe, 143 stopped by SIGTERM.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    One of several processes ends here and at once: at its exit, the library through which they talked may wait for
    ever for one that has ended before.
    """
    code: Any
    if arguments is not None or "RANK" not in os.environ:
        code = _main(arguments)
        if arguments is None and code == INTERRUPTED:
            # Python ends by the signal itself, not with this code, once an interrupt has passed through a library's own
            # way of running code
            atexit._run_exitfuncs()
            _leave(code)
        return int(code)
    try:
        code = _main(arguments)
    except SystemExit as end:
        code = end.code
    return _leave(code)


def _leave(code: Any) -> NoReturn:
    """End the process at once."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def _main(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code; every error becomes one line on stderr here."""
    console.command, console.level, console.debug, console.shown_as = "candi", NORMAL, False, {}
    _open_streams()
    try:
        _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except click.exceptions.Exit as error:  # --help and --version end with it
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        fact = error.format_message().removesuffix(".")
        return _fail(error, f"{fact}; see '{console.command} --help'", error.exit_code)
    except CandiError as error:
        return _fail(error, str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        console.error("interrupted; nothing was left half-written")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(error, f"{where}{error.strerror or error}; check the path and the disk", 1)
    except Exception as error:
        return _fail(
            error, f"internal error ({type(error).__name__}: {error}); run again with --debug and report it", 1
        )
    return 0


def _open_streams() -> None:
    """Give every standard stream that is closed a place: what is written to a closed stdout is an error.

    Otherwise the next file that is opened would become it. A stdout that is not buffered (PYTHONUNBUFFERED) becomes so:
    without a buffer, Python does not write the rest of what a disk or a pipe takes only the beginning of.
    """
    for number, (name, mode, flags) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        sys.stdout = open(sys.stdout.fileno(), "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115


def _run(arguments: list[str]) -> None:
    """Parse and invoke; click's own `main` would turn broken pipes and interrupts into exits with 1."""
    if "_CANDI_COMPLETE" in os.environ:  # shell completion
        candi.main(args=arguments, prog_name="candi")
    with ending_on_signals(), candi.make_context("candi", arguments) as context:
        candi.invoke(context)


def command_line(*, threads: bool = True) -> str:
    """Return the command as it was typed, for the provenance of what it writes.

    Parameters
    ----------
    threads : keep their number; leave it out where what is written does not depend on it
    """
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if not threads and word in ("-@", "--threads"):
            next(words, None)
        elif threads or not word.startswith(("-@", "--threads=")):
            kept.append(word)
    return shlex.join(["candi", *kept])


def _drop_output() -> None:
    """Let what stdout still holds vanish where it cannot be written: Python would try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(error: Exception, message: str, code: int) -> int:
    _drop_output()
    if console.debug:
        import traceback

        traceback.print_exception(error)
    console.error(message)
    return code
