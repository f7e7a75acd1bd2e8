"""The options of `candi train`, and their values as one object."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from candi_cli.commands import _options as options

PROBABILITY = click.FloatRange(0, 1)
WEIGHTS = ("count", "signal", "peak", "observed", "imputed", "beta", "signal_beta")


@dataclass(frozen=True)
class TrainOptions:
    """The values of all options that the command hands on."""

    stores: tuple[Path, ...]
    output: Path
    preset: str
    init: Path | None
    add_assays: tuple[str, ...]
    freeze_trunk: bool
    input: str
    reference_average: bool
    match_signal: bool
    loci: str
    ccre: Path | None
    n_loci: int
    regions: tuple[str, ...]
    region_intervals: Path | None
    valid_regions: tuple[str, ...]
    test_chroms: tuple[str, ...]
    blacklist: Path | None
    reference: Path | None
    steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    warmup: float
    weight_decay: float
    clip_norm: float
    weight_average: float
    mask_assays: float
    mask_loci: float
    thin: float
    drop_sequence: float
    drop_reference: float
    mask_most: int | None
    loss_weights: dict[str, float]
    precision: str
    compiled: bool
    score_every: int
    patience: int
    log: Path | None
    log_every: int
    tensorboard: Path | None
    resume: str
    checkpoint_every: tuple[int, float]
    nproc: int
    workers: int
    unpack: Path | None
    seed: int
    threads: int
    device: str

    def sibling(self, ending: str) -> Path:
        """Return the path beside the output of a file that belongs to it."""
        return self.output.with_name(self.output.name.removesuffix(".safetensors") + ending)

    def settings(self) -> dict[str, Any]:
        """Return what the numbers depend on, by the option's name; paths by the file's name."""
        kept: dict[str, Any] = {}
        for field in fields(self):
            if field.name not in _WITHOUT_EFFECT:
                kept[_SPELT.get(field.name, field.name.replace("_", "-"))] = _plain(getattr(self, field.name))
        return kept


# options that change where and how fast, not what is computed (but for the last digits of sums)
_WITHOUT_EFFECT = {
    "output", "log", "log_every", "tensorboard", "resume", "checkpoint_every", "nproc", "workers", "unpack",
    "threads", "device", "compiled",
}  # fmt: skip


_SPELT = {
    "regions": "region", "region_intervals": "region-bed", "valid_regions": "valid-region", "test_chroms": "test-chrom",
    "add_assays": "add-assay",
}  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _parse_weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in WEIGHTS or name in weights:
            raise ValueError(f"{part!r} is not NAME=WEIGHT of {', '.join(WEIGHTS)}, each once")
        weights[name] = float(value)
        if not 0 <= weights[name] < float("inf"):
            raise ValueError(f"{part!r} is not a weight of at least 0")
    return weights


def _parse_interval(text: str) -> tuple[int, float]:
    """Return steps and seconds, one of which is 0."""
    number = text.removesuffix("min")
    if not number.isdigit():
        raise ValueError(f"{text!r} is neither a number of steps (500) nor of minutes (10min)")
    return (0, 60.0 * int(number)) if text.endswith("min") else (int(number), 0.0)


_OPTIONS: list[Callable[[options.F], options.F]] = [
    click.argument("stores", nargs=-1, required=True, type=options.PATH, metavar="STORE..."),
    click.option(
        "-o", "--output", type=options.PATH, required=True, metavar="MODEL.safetensors", help="The model to write."
    ),
    click.option(
        "--config", type=options.PATH, metavar="TOML",
        help="File of options, by their long names; those given here win over it.",
    ),
    click.option(
        "--print-config", is_flag=True, help="Print all options as such a file, and do nothing else."
    ),
    click.option(
        "--preset", type=click.Choice(["paper", "base", "small", "tiny"]), default="base", show_default=True,
        help="Size of the network; 'paper' also changes defaults of the training to the paper's.",
    ),
    click.option(
        "--init", type=options.MODEL, metavar="MODEL",
        help="Trained model to start from, also one that ships; its network replaces that of --preset.",
    ),
    click.option(
        "--add-assay", "add_assays", multiple=True, metavar="NAME",
        help="Assay of the stores that --init does not know and shall learn; repeatable.",
    ),
    click.option("--freeze-trunk", is_flag=True, help="Train nothing but what belongs to the assays of --add-assay."),
    click.option(
        "--input", type=click.Choice(["counts", "signal"]), default="counts", show_default=True,
        help="What the network reads: reads per bin, or -log10 p where there are only bigWigs.",
    ),
    click.option(
        "--reference-average", is_flag=True,
        help="The network also reads the mean signal of the other biosamples at the same place.",
    ),
    click.option(
        "--match-signal", is_flag=True,
        help="Each track of signal is first given the distribution of values that is typical of its assay.",
    ),
    click.option(
        "--loci", type=click.Choice(["any", "ccre", "random", "full-chr", "gw"]), default="any", show_default=True,
        help="Training windows: anywhere, around the elements of --ccre, a number of random ones apart (--n-loci), or "
        "side by side over the chromosomes of -r (full-chr) or over all (gw).",
    ),
    click.option("--ccre", type=options.PATH, metavar="BED", help="Elements, such as ENCODE's cCREs, for --loci ccre."),
    click.option(
        "--n-loci", type=click.IntRange(1), default=5_000, show_default=True, help="Windows of --loci random."
    ),
    options.regions,
    click.option(
        "--region-bed", "region_intervals", type=options.PATH, metavar="BED",
        help="Regions in a file, beside those of -r.",
    ),
    click.option(
        "--valid-region", "valid_regions", multiple=True, metavar="REGION",
        help="Region that is scored, not trained on; repeatable.",
    ),
    click.option(
        "--test-chrom", "test_chroms", multiple=True, metavar="CHROM",
        help="Chromosome that is not touched; repeatable.",
    ),
    click.option("--blacklist", type=options.PATH, metavar="BED", help="Regions that no training window may touch."),
    options.reference,
    click.option("--steps", type=click.IntRange(1), default=20_000, show_default=True, help="Optimiser steps."),
    options.batch_size(16),
    click.option(
        "--optimizer", type=click.Choice(["adamw", "adamax"]), default="adamw", show_default=True, help="Optimiser."
    ),
    click.option(
        "--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True,
        help="Highest learning rate, after the warm-up.",
    ),
    click.option(
        "--warmup", type=PROBABILITY, default=0.1, show_default=True,
        help="Share of the steps in which the learning rate rises.",
    ),
    click.option(
        "--weight-decay", type=click.FloatRange(0), default=0.01, show_default=True, help="Decay of the weights."
    ),
    click.option(
        "--clip-norm", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
        help="Largest norm of a gradient; longer ones are shortened to it.",
    ),
    click.option(
        "--weight-average", type=click.FloatRange(0, 1, max_open=True), default=0.998, show_default=True,
        help="Decay of the moving average of the weights, which is what is kept; 0 keeps the last weights.",
    ),
    click.option(
        "--mask-assays", type=PROBABILITY, default=0.5, show_default=True,
        help="Probability that whole assays of a window are hidden.",
    ),
    click.option(
        "--mask-most", type=click.IntRange(1),
        help="Assays that are hidden at a time, at most.  [default: all but one]",
    ),
    click.option(
        "--mask-loci", type=PROBABILITY, default=0.5, show_default=True,
        help="Probability that 1 kb stretches of a window are hidden.",
    ),
    click.option(
        "--thin", type=PROBABILITY, default=0.9, show_default=True,
        help="Probability that the reads of a window are thinned.",
    ),
    click.option(
        "--drop-sequence", type=PROBABILITY, default=0.5, show_default=True,
        help="Probability that the DNA of a window is hidden.",
    ),
    click.option(
        "--drop-reference", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True,
        help="Probability that what --reference-average reads of a window is hidden.",
    ),
    click.option(
        "--loss-weights", type=options.Parsed("WEIGHTS", _parse_weights), default="count=0.5", show_default=True,
        help="Weights of the loss: count=0.5,signal=1,peak=0.1,observed=0.25,imputed=1,beta=0,signal_beta=0, or some "
        "of these.",
    ),
    click.option(
        "--precision", type=click.Choice(["auto", "bf16", "float32"]), default="auto", show_default=True,
        help="Of the forward pass; auto is bf16 on a GPU. Likelihoods are always float32.",
    ),
    click.option("--compile/--no-compile", "compiled", default=False, help="Compile the network; for GPUs."),
    click.option(
        "--score-every", type=click.IntRange(1), default=250, show_default=True,
        help="Steps between scorings of --valid-region.",
    ),
    click.option(
        "--patience", type=click.IntRange(0), default=0, show_default=True,
        help="Scorings without improvement after which training ends; 0 trains all steps.",
    ),
    click.option(
        "--log", type=options.PATH, metavar="TSV", help="Table of the training; default: MODEL.log.tsv."
    ),
    click.option(
        "--log-every", type=click.IntRange(1), default=25, show_default=True, help="Steps between rows of the log."
    ),
    click.option("--tensorboard", type=options.PATH, metavar="DIR", help="Folder for TensorBoard's curves."),
    click.option(
        "--resume", default="never", show_default=True, metavar="auto|never|PATH",
        help="Go on from a checkpoint: MODEL.checkpoint where there is one (auto), or PATH.",
    ),
    click.option(
        "--checkpoint-every", type=options.Parsed("INTERVAL", _parse_interval), default="10min", show_default=True,
        help="Save a checkpoint each so many steps (500) or minutes (10min); 0 for none but when asked to stop.",
    ),
    click.option(
        "--nproc", type=click.IntRange(1), default=1, show_default=True,
        help="Processes on this machine that train together, one for each GPU.",
    ),
    click.option(
        "--workers", type=click.IntRange(0), default=0, show_default=True,
        help="Processes that read ahead for each training process; give some where a GPU computes.",
    ),
    click.option(
        "--unpack", type=options.PATH, metavar="DIR",
        help="Folder in which the stores' training windows are unpacked once, so that they are read faster.",
    ),
    options.seed, options.threads, options.device,
]  # fmt: skip


def declared(command: options.F) -> options.F:
    """Add all options of `candi train` to a command."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command
