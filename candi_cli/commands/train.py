"""`candi train`: stores into a model file."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from candi_cli.commands import _options as options
from candi_cli.commands._train_config import ConfiguredCommand
from candi_cli.commands._train_options import TrainOptions, declared

if TYPE_CHECKING:
    from candi_cli.commands._signals import Stop


@click.command("train", cls=ConfiguredCommand)
@declared
@options.verbosity
def command(**values: Any) -> None:
    """Train a model on stores made by 'candi bin' and write it as one safetensors file.

    The network learns to restore what is hidden from it: whole assays, stretches of the genome, and reads. With -T it
    also learns to read DNA, and to do without. The weights kept are a moving average, the best on --valid-region when
    that is given.

    A training that is stopped by SIGTERM or SIGUSR1 saves a checkpoint first, and goes on from it with --resume auto.
    """
    import sys

    from candi_cli.commands._processes import joining, launch
    from candi_cli.commands._signals import noted

    chosen = TrainOptions(**values)
    if chosen.nproc > 1 and not joining():
        code = launch(sys.argv[1:], chosen.nproc)
        if code:
            raise SystemExit(code)
        return
    with noted(until_exit=joining()) as stop, ExitStack() as stack:
        _train(chosen, stack, stop)


def _train(chosen: TrainOptions, stack: ExitStack, stop: "Stop") -> None:
    from candi_cli.commands._console import QUIET, console
    from candi_cli.commands._output import check_writable, replacing
    from candi_cli.commands._training import Training
    from candi_cli.model import save
    from candi_cli.model.device import choose, prepare
    from candi_cli.model.distributed import joined, local_processes
    from candi_cli.model.training import TrainingStopped

    check_writable(chosen.output, inputs=(*chosen.stores, chosen.blacklist, chosen.reference))
    prepare(threads=max(1, chosen.threads // local_processes()), seed=chosen.seed)
    processes, device = stack.enter_context(joined(choose(chosen.device)))
    if not processes.first:
        console.level = QUIET
    training = Training(chosen, stack, processes, device)
    try:
        training.run(stop)
    except TrainingStopped as stopped:
        console.log(f"stopped after step {stopped.step:,}; {training.checkpoint} holds its state, for --resume auto")
        raise SystemExit(stop.exit_code) from None
    if processes.first:
        with replacing(chosen.output) as temporary:
            save(temporary, training.network, training.card())
        training.checkpoint.unlink(missing_ok=True)
        console.log(f"wrote {chosen.output} ({chosen.output.stat().st_size / 1e6:.1f} MB)")
