"""`candi train`: stores into a model file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from candi_cli.commands import _options as options
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable, replacing

if TYPE_CHECKING:
    from candi_cli.model.training import Progress


def _parse_weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in ("count", "signal", "peak", "observed", "imputed", "beta") or name in weights:
            raise ValueError(f"{part!r} is not NAME=WEIGHT of count, signal, peak, observed, imputed, beta, each once")
        weights[name] = float(value)
        if not 0 <= weights[name] < float("inf"):
            raise ValueError(f"{part!r} is not a weight of at least 0")
    return weights


PROBABILITY = click.FloatRange(0, 1)
SCORED_BATCHES = 8


@click.command("train")
@click.argument("stores", nargs=-1, required=True, type=options.PATH, metavar="STORE...")
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="MODEL.safetensors", help="The model to write."
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "base", "tiny"]),
    default="base",
    show_default=True,
    help="Size of the network.",
)
@options.regions
@click.option(
    "--valid-region",
    "valid_regions",
    multiple=True,
    metavar="REGION",
    help="Region that is scored, not trained on; repeatable.",
)
@click.option(
    "--test-chrom", "test_chroms", multiple=True, metavar="CHROM", help="Chromosome that is not touched; repeatable."
)
@click.option("--blacklist", type=options.PATH, metavar="BED", help="Regions that no training window may touch.")
@options.reference
@click.option("--steps", type=click.IntRange(1), default=20_000, show_default=True, help="Optimiser steps.")
@options.batch_size(16)
@click.option(
    "--optimizer", type=click.Choice(["adamw", "adamax"]), default="adamw", show_default=True, help="Optimiser."
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Highest learning rate, after the warm-up.",
)
@click.option(
    "--mask-assays",
    type=PROBABILITY,
    default=0.5,
    show_default=True,
    help="Probability that whole assays of a window are hidden.",
)
@click.option(
    "--mask-loci",
    type=PROBABILITY,
    default=0.5,
    show_default=True,
    help="Probability that 1 kb stretches of a window are hidden.",
)
@click.option(
    "--thin",
    type=PROBABILITY,
    default=0.9,
    show_default=True,
    help="Probability that the reads of a window are thinned.",
)
@click.option(
    "--drop-sequence",
    type=PROBABILITY,
    default=0.5,
    show_default=True,
    help="Probability that the DNA of a window is hidden.",
)
@click.option(
    "--loss-weights", type=options.Parsed("WEIGHTS", _parse_weights), default="count=0.5", show_default=True,
    help="Weights of the loss: count=0.5,signal=1,peak=0.1,observed=0.25,imputed=1,beta=0, or some of these.",
)  # fmt: skip
@options.seed
@options.threads
@options.device
@options.verbosity
def command(
    stores: tuple[Path, ...],
    output: Path,
    preset: str,
    regions: tuple[str, ...],
    valid_regions: tuple[str, ...],
    test_chroms: tuple[str, ...],
    blacklist: Path | None,
    reference: Path | None,
    steps: int,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    mask_assays: float,
    mask_loci: float,
    thin: float,
    drop_sequence: float,
    loss_weights: dict[str, float],
    seed: int,
    threads: int,
    device: str,
) -> None:
    """Train a model on stores made by 'candi bin' and write it as one safetensors file.

    The network learns to restore what is hidden from it: whole assays, stretches of the genome, and reads. With -T it
    also learns to read DNA, and to do without. The weights kept are a moving average, the best on --valid-region when
    that is given.
    """
    from contextlib import ExitStack
    from functools import partial

    from candi_cli.commands._cohort import open_cohort
    from candi_cli.store import Store

    check_writable(output, inputs=(*stores, blacklist, reference))
    with ExitStack() as stack:
        opened = [stack.enter_context(Store.open(path)) for path in stores]
        cohort = open_cohort(
            opened, stack,
            preset=preset, regions=regions, valid_regions=valid_regions, test_chroms=test_chroms,
            blacklist=blacklist, reference=reference,
        )  # fmt: skip
        from candi_cli.model import save
        from candi_cli.model.candi import Corruption, LossWeights, Model, TrainingDataset
        from candi_cli.model.device import choose, prepare
        from candi_cli.model.training import Schedule, fit

        prepare(threads=threads, seed=seed)
        where = choose(device)
        corruption = Corruption(mask_assays=mask_assays, mask_loci=mask_loci, thin=thin, drop_sequence=drop_sequence)
        weights = LossWeights(**loss_weights)
        dataset = partial(
            TrainingDataset, cohort.config,
            corruption=corruption, batch_size=batch_size, sequences=cohort.sequences,
        )  # fmt: skip
        training = dataset(cohort.training, seed=seed)
        held_out = dataset(cohort.held_out, seed=seed + 1) if cohort.held_out else None
        network = Model(cohort.config, weights)
        n_parameters = sum(parameter.numel() for parameter in network.parameters())
        console.log(f"{preset}: {n_parameters:,} parameters, {len(cohort.config.assays)} assays, on {where}")
        network.start_at_marginals([training.batch(step) for step in range(SCORED_BATCHES)])
        with console.progress("training", steps, "steps") as advance:

            def show(progress: "Progress") -> None:
                scores = progress.held_out
                note = f"held-out {scores['loss']:.4f}" if scores else f"loss {progress.loss:.4f}"
                advance(1, note)

            history = fit(
                network, training.batches(),
                Schedule(steps=steps, learning_rate=learning_rate, optimiser=optimizer),
                device=where,
                held_out=[held_out.batch(step) for step in range(SCORED_BATCHES)] if held_out else (),
                on_step=show,
            )  # fmt: skip
        card = cohort.card(
            corruption=corruption, weights=weights, history=history, n_parameters=n_parameters,
            settings={
                "preset": preset, "steps": steps, "batch_size": batch_size, "optimizer": optimizer,
                "learning_rate": learning_rate, "seed": seed, "command": command_line(),
            },
        )  # fmt: skip
        with replacing(output) as temporary:
            save(temporary, network, card)
    console.log(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
