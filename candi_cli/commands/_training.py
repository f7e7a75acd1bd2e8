"""One training as `candi train` was asked for: its data, its network, and what is told of it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from candi_cli.commands import command_line
from candi_cli.commands._cohort import Cohort, open_cohort
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable
from candi_cli.commands._signals import Stop
from candi_cli.commands._start import Start
from candi_cli.commands._train_log import Log
from candi_cli.commands._train_options import TrainOptions
from candi_cli.errors import RequestError
from candi_cli.model import ModelCard
from candi_cli.model.board import Board
from candi_cli.model.candi import PAPER, Corruption, LossWeights, Model, TrainingDataset
from candi_cli.model.candi.dataset import TrainingBatch
from candi_cli.model.device import Device
from candi_cli.model.distributed import Processes
from candi_cli.model.resume import Checkpoints
from candi_cli.model.training import Progress, Schedule, fit, score
from candi_cli.store import Store

SCORED_BATCHES = 8


class Training:
    """Stores, network and files of one training.

    Attributes
    ----------
    network : what is trained
    checkpoint : the path of its state
    """

    def __init__(self, chosen: TrainOptions, stack: ExitStack, processes: Processes, device: Device) -> None:
        self.chosen, self.processes, self.device = chosen, processes, device
        self.corruption = replace(
            PAPER if chosen.preset == "paper" and not chosen.init else Corruption(),
            mask_assays=chosen.mask_assays, mask_loci=chosen.mask_loci, thin=chosen.thin,
            drop_sequence=chosen.drop_sequence, drop_reference=chosen.drop_reference,
            mask_most=chosen.mask_most,
        )  # fmt: skip
        self.weights = LossWeights(**chosen.loss_weights)
        if chosen.batch_size < processes.world_size:
            raise RequestError(
                f"--batch-size {chosen.batch_size}: fewer windows than the {processes.world_size} processes; give more"
            )
        if chosen.patience and not chosen.valid_regions:
            raise RequestError("--patience: counts scorings of --valid-region; give one")
        self.precision = chosen.precision
        if self.precision == "auto":
            self.precision = "bf16" if device.type == "cuda" else "float32"
        if self.precision == "bf16" and device.type == "cpu":
            raise RequestError("--precision bf16: needs a GPU; give float32 or auto")
        self.checkpoint = chosen.sibling(".checkpoint")
        self.log_path = chosen.log or chosen.sibling(".log.tsv")
        for path in (self.checkpoint, self.log_path):
            check_writable(path, inputs=(*chosen.stores, chosen.output))
        self.start = Start.of(chosen)
        _check_reference(chosen, self.start)
        self.cohort = _open(chosen, stack, self.start)
        if self.start:
            self.start.check(self.cohort.rule, list(self.cohort.assays))
        self.dataset = partial(
            TrainingDataset, self.cohort.config,
            corruption=self.corruption, batch_size=chosen.batch_size, sequences=self.cohort.sequences,
            reference=self.cohort.average,
        )  # fmt: skip
        self.network, self.whole = self._network()
        self.n_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.history: list[Progress] = []
        self.last: Progress | None = None

    def _network(self) -> tuple[Model, TrainingDataset]:
        """Return the network as it starts, and the batches of all processes together."""
        whole = self.dataset(self.cohort.training, seed=self.chosen.seed)
        batches = [whole.batch(step) for step in range(SCORED_BATCHES)]
        if self.start:
            return self.start.network(self.weights, batches), whole
        network = Model(self.cohort.config, self.weights)
        network.start_at_marginals(batches)
        return network, whole

    def run(self, stop: Stop) -> None:
        """Train the network; raise TrainingStopped when asked to stop."""
        chosen = self.chosen
        name = chosen.init.name if chosen.init else chosen.preset
        n_assays = len(self.cohort.config.assays)
        console.log(f"{name}: {self.n_parameters:,} parameters, {n_assays} assays, on {self._where()}")
        checkpoints = self._checkpoints()
        if checkpoints.resume:
            console.log(f"going on from {checkpoints.resume}")
        with console.progress("training", chosen.steps, "steps") as advance:
            self.history = fit(
                self.network, self._source(), self._schedule(),
                device=self.device, precision=self.precision, compiled=self._compiled(), seed=chosen.seed,
                processes=self.processes, checkpoints=checkpoints, stopped=stop, validate=self._validation(),
                score_every=chosen.score_every, report_every=chosen.log_every, patience=chosen.patience,
                on_step=_Teller(self, checkpoints, advance),
            )  # fmt: skip

    def _source(self) -> "_Source":
        part = self.dataset(
            self.cohort.training, seed=self.chosen.seed, rank=self.processes.rank, world_size=self.processes.world_size
        )
        if self.chosen.unpack:
            with self.processes.one_by_machine():
                size = part.decode(self.chosen.unpack)
            if size == 0:
                console.warn(f"--unpack {self.chosen.unpack}: too little room; windows are read from the stores")
        return _Source(part, self.whole.describe, self.chosen.workers, self.device.type == "cuda")

    def _validation(self) -> Callable[[Any], dict[str, float]] | None:
        """Return what scores a network on the held-out windows; only the first process asks it."""
        if not self.cohort.held_out:
            return None
        batches: list[TrainingBatch] = []
        if self.processes.first:
            held_out = self.dataset(self.cohort.held_out, seed=self.chosen.seed + 1)
            batches = [held_out.batch(step) for step in range(SCORED_BATCHES)]
        return partial(score, batches=batches, device=self.device, precision=self.precision)

    def card(self) -> ModelCard:
        """Return the card of the trained network."""
        settings = {name.replace("-", "_"): value for name, value in self._settings().items()}
        cohort = self.cohort
        if self.start:
            cohort = replace(cohort, assays=self.start.cards(cohort.assays))
            settings["initial"] = {"file": self.start.path.name, "training": self.start.card.training}
        if self.last:
            settings["steps_done"] = self.last.step
            settings["batches_without_entries"] = {name: n for name, n in self.last.without.items() if n}
        return cohort.card(
            corruption=self.corruption, weights=self.weights, history=self.history, n_parameters=self.n_parameters,
            settings={**settings, "command": command_line()},
        )  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        return {**self.chosen.settings(), "precision": self.precision}

    def _fingerprint(self) -> dict[str, Any]:
        """Return what a checkpoint has to agree with: the settings, and what they find in the stores."""
        found = json.dumps([self.cohort.data, asdict(self.cohort.config)], sort_keys=True, default=str)
        return {**self._settings(), "digest of the data": hashlib.sha256(found.encode()).hexdigest()[:16]}

    def _schedule(self) -> Schedule:
        chosen = self.chosen
        return Schedule(
            chosen.steps, learning_rate=chosen.learning_rate, optimiser=chosen.optimizer,
            weight_decay=0.0 if chosen.freeze_trunk else chosen.weight_decay, warmup=chosen.warmup,
            clip_norm=chosen.clip_norm, average=chosen.weight_average,
        )  # fmt: skip

    def _checkpoints(self) -> Checkpoints:
        resume: Path | None = None
        if self.chosen.resume == "auto":
            resume = self.checkpoint if self.checkpoint.exists() else None
        elif self.chosen.resume != "never":
            resume = Path(self.chosen.resume)
        steps, seconds = self.chosen.checkpoint_every
        return Checkpoints(self.checkpoint, self._fingerprint(), steps=steps, seconds=seconds, resume=resume)

    def _compiled(self) -> bool:
        if self.chosen.compiled and self.device.type == "cpu":
            console.warn("--compile: is for GPUs; the network runs as it is on the CPU")
            return False
        return self.chosen.compiled

    def _where(self) -> str:
        n = self.processes.world_size
        return f"{self.device}" if n == 1 else f"{n} processes, {self.device.type}"


@dataclass
class _Source:
    """This process's part of each batch, from any step on, and words on whole batches."""

    dataset: TrainingDataset
    describe: Callable[[int], str]
    workers: int
    pin: bool

    def batches(self, first_step: int = 0) -> Iterator[TrainingBatch]:
        """Yield the batches."""
        return self.dataset.batches(first_step, workers=self.workers, pin=self.pin)


class _Teller:
    """Writes each report to the log, to TensorBoard and to the console."""

    def __init__(self, training: Training, checkpoints: Checkpoints, advance: Any) -> None:
        self.training, self.checkpoints, self.advance = training, checkpoints, advance
        self._shown = 0
        self._writers: list[Log | Board] = []

    def __call__(self, progress: Progress) -> None:
        self.training.last = progress
        if not self.training.processes.first:
            return
        if not self._shown:
            self._open()
        values = row(progress)
        for writer in self._writers:
            writer.write(values)
        self.advance(progress.step - self._shown, note(progress))
        self._shown = progress.step

    def _open(self) -> None:
        """Make the files now that it is known which step is the first."""
        keep_until, chosen = self.checkpoints.resumed_at, self.training.chosen
        self._writers = [Log(self.training.log_path, keep_until=keep_until)]
        if chosen.tensorboard:
            self._writers.append(Board(chosen.tensorboard, keep_until=keep_until))


def row(progress: Progress) -> dict[str, Any]:
    """Return a report as columns of the log."""
    return {
        "step": progress.step,
        "learning_rate": progress.learning_rate,
        "loss": progress.loss,
        **progress.terms,
        "grad_norm": progress.grad_norm,
        "windows_per_second": round(progress.windows_per_second, 2),
        "memory_mb": round(progress.memory_bytes / 1e6, 1),
        **{f"without_{name}": n for name, n in progress.without.items()},
        **{f"held_out_{name}": value for name, value in (progress.held_out or {}).items()},
    }


def note(progress: Progress) -> str:
    """Return a report in a few words."""
    terms = " ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
    held_out = f"held-out {progress.held_out['loss']:.4f}, " if progress.held_out else ""
    return (
        f"{held_out}loss {progress.loss:.4f} ({terms}), {progress.windows_per_second:,.0f} windows/s, "
        f"{progress.memory_bytes / 1e9:.1f} GB"
    )


def _check_reference(chosen: TrainOptions, start: Start | None) -> None:
    """Raise RequestError where a reference is to be hidden that is never read."""
    reads = start.config.reads_reference if start else chosen.reference_average
    if chosen.drop_reference and not reads:
        remedy = "leave it out" if start else "give it, or leave this out"
        raise RequestError(f"--drop-reference: hides what a network of --reference-average reads; {remedy}")
    if chosen.match_signal and not start and chosen.input != "signal":
        raise RequestError("--match-signal: is for a network that reads signal; give --input signal, or leave this out")


def _open(chosen: TrainOptions, stack: ExitStack, start: Start | None) -> Cohort:
    if chosen.resume not in ("auto", "never") and not Path(chosen.resume).is_file():
        raise RequestError(f"--resume {chosen.resume}: no such checkpoint; give auto, never or a file")
    opened = [stack.enter_context(Store.open(path)) for path in chosen.stores]
    config = start.config if start else None
    return open_cohort(
        opened, stack,
        preset=chosen.preset, regions=chosen.regions, region_intervals=chosen.region_intervals,
        valid_regions=chosen.valid_regions, test_chroms=chosen.test_chroms, blacklist=chosen.blacklist,
        reference=chosen.reference, loci=chosen.loci, ccre=chosen.ccre, n_windows=chosen.n_loci, seed=chosen.seed,
        input=config.input if config else chosen.input,
        reads_reference=config.reads_reference if config else chosen.reference_average,
        matches_signal=chosen.match_signal, start=config,
    )  # fmt: skip
