"""Prediction of whole genomes in parts, a file for each biosample and chromosome: kept when the run is interrupted."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch

from candi_cli.genome import Region, Window, tile
from candi_cli.model import FAMILIES, Loaded
from candi_cli.model.device import Device
from candi_cli.model.forward import AT_ONCE, Forward, Select, Values, Warn, forwarding
from candi_cli.model.prediction import Windows, predict
from candi_cli.model.recalibration import correct
from candi_cli.parts import PartsFolder, making
from candi_cli.store.predictions import Described, PredictionWriter

_BATCH_CPU, _BATCH_GPU = 32, 2 * AT_ONCE
Advance = Callable[[int, str], None]


class Part(NamedTuple):
    """What one file holds: regions of one chromosome, in order."""

    biosample: str
    regions: tuple[Region, ...]
    path: Path


@dataclass(frozen=True)
class Computing:
    """How predictions are computed; none of it changes them, but for the kind of device, or a GPU that is too small.

    Attributes
    ----------
    batch_size : windows that are read at a time
    threads : of the CPU, in total
    warn : is told when a GPU has little memory
    """

    device: Device
    batch_size: int
    threads: int
    warn: Warn = lambda _: None

    @classmethod
    def on(cls, device: Device, *, batch_size: int | None, threads: int, warn: Warn = lambda _: None) -> "Computing":
        """Return how to compute on a device, as many windows at a time as suit it unless a number is given.

        On a GPU they are a multiple of those that it computes at once.
        """
        if device.type == "cpu":
            return cls(device, batch_size or _BATCH_CPU, threads, warn)
        return cls(device, -(-(batch_size or _BATCH_GPU) // AT_ONCE) * AT_ONCE, threads, warn)

    def forwarding(self, network: torch.nn.Module, select: Select) -> AbstractContextManager[Forward]:
        """Provide the forward pass of a network on the device."""
        return forwarding(network, select, device=self.device, threads=self.threads, warn=self.warn)


def parts_of(
    folder: PartsFolder, described: Described, regions: Mapping[str, Sequence[Region]], *, made_of: Any
) -> list[Part]:
    """Return the parts of a prediction, in genome order.

    Parameters
    ----------
    regions : of each biosample, in genome order
    made_of : what else the values depend on, as plain JSON values: the files that are read, the kind of device
    """
    parts = []
    digest = hashlib.sha256(described.to_json().encode()).hexdigest()
    for biosample, found in regions.items():
        for _, group in groupby(found, key=lambda region: region.chrom):
            here = tuple(group)
            parts.append(Part(biosample, here, folder.path([digest, biosample, here, made_of])))
    return parts


def windows_of(model: Loaded, described: Described, regions: Sequence[Region]) -> Iterator[Window]:
    """Yield the windows whose cores make up some regions."""
    config, resolution = model.config, described.resolution
    for chrom, start, end in regions:
        yield from tile(
            chrom, start // resolution, -(-end // resolution), n_bins=described.n_bins(chrom),
            context=config.context_bins, flank=config.flank_bins, align=config.latent_bins,
        )  # fmt: skip


def compute_parts(
    model: Loaded,
    described: Described,
    parts: Sequence[Part],
    folder: PartsFolder,
    dataset_of: Callable[[str], Windows],
    computing: Computing,
    *,
    advance: Advance,
) -> None:
    """Predict the parts that are not there yet.

    Parameters
    ----------
    dataset_of : returns the windows of a biosample
    advance : is told how many windows are done

    Raises
    ------
    OutputError
        The disk is full; parts that are complete are kept.
    """
    for biosample, its_parts in groupby(parts, key=lambda part: part.biosample):
        absent = []
        for part in its_parts:
            if part.path.exists():
                advance(sum(1 for _ in windows_of(model, described, part.regions)), "kept from before")
            else:
                absent.append(part)
        if not absent:
            continue
        dataset, correct = dataset_of(biosample), _correction(described, biosample)
        with computing.forwarding(model.network, _select(model, described, biosample)) as forward:
            for _, regions, path in absent:
                here = described.on(regions[0].chrom)
                with (
                    making(path) as temporary,
                    PredictionWriter(temporary, here, shown_as=folder.output, threads=computing.threads) as writer,
                ):
                    for region, values in _pieces(model, described, regions, dataset, computing, forward):
                        writer.add(biosample, region, correct(values))
                        advance(1, "")


def predict_regions(
    model: Loaded,
    described: Described,
    biosample: str,
    regions: Sequence[Region],
    dataset: Windows,
    computing: Computing,
) -> Iterator[tuple[Region, Values]]:
    """Yield the parameters of a biosample's described tracks, recalibrated if they say so: values (n_bins, datasets).

    Regions come window by window, in genome order.
    """
    correct = _correction(described, biosample)
    with computing.forwarding(model.network, _select(model, described, biosample)) as forward:
        for region, values in _pieces(model, described, regions, dataset, computing, forward):
            yield region, correct(values)


def _pieces(
    model: Loaded,
    described: Described,
    regions: Sequence[Region],
    dataset: Windows,
    computing: Computing,
    forward: Forward,
    *,
    position_bins: int = 1,
) -> Iterator[tuple[Region, Values]]:
    """Yield what a forward pass makes of the windows of some regions."""
    return predict(
        forward, dataset, windows_of(model, described, regions), chromsizes=described.chromsizes,
        resolution=described.resolution, batch_size=computing.batch_size, position_bins=position_bins,
    )  # fmt: skip


def _correction(described: Described, biosample: str) -> Callable[[Values], Values]:
    """Return what recalibrates values (n_bins, datasets): a scale and shift of each dataset, or nothing."""
    fits = [described.tracks[biosample, assay].get("recalibration") for assay in described.assays(biosample)]
    if not any(fits):
        return lambda values: values
    names, factors = [], []
    for assay, name in described.parameters(biosample):
        fit = described.tracks[biosample, assay].get("recalibration") or {}
        names.append(name)
        factors.append(fit.get("parameters", {}).get(name, (1.0, 0.0)))
    return lambda values: correct(values, names, factors)


def _select(model: Loaded, described: Described, biosample: str) -> Select:
    """Return what takes a biosample's datasets, in their order, from the family's output."""
    assays = list(model.config.assays)
    columns = [(name, assays.index(assay)) for assay, name in described.parameters(biosample)]

    def select(output: Any) -> torch.Tensor:
        return torch.stack([getattr(output, name)[..., column] for name, column in columns], dim=-1)

    return select


class _Encoder(torch.nn.Module):
    """The encoder alone."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any) -> torch.Tensor:
        """Return Z of a batch: (N, L', D)."""
        latent: torch.Tensor = self.network.encode(batch).latent  # type: ignore[operator]
        return latent


def latents(
    model: Loaded, described: Described, regions: Sequence[Region], dataset: Windows, computing: Computing
) -> Iterator[tuple[Region, Any]]:
    """Yield the latent of each window's core, positions of `latent_bins` bins: values (positions, D).

    Regions are widened to whole positions.
    """
    position_bp = described.resolution * model.config.latent_bins
    widened: list[Region] = []
    for chrom, start, end in regions:
        first = start // position_bp * position_bp
        last = min(-(-end // position_bp) * position_bp, described.chromsizes[chrom])
        if widened and widened[-1].chrom == chrom and first < widened[-1].end:  # they share a position
            widened[-1] = widened[-1]._replace(end=last)
        else:
            widened.append(Region(chrom, first, last))
    with computing.forwarding(_Encoder(model.network), lambda latent: latent) as forward:
        yield from _pieces(
            model, described, widened, dataset, computing, forward, position_bins=model.config.latent_bins
        )


class _Empty:
    """Windows of which nothing is known, to measure the device with."""

    def __init__(self, model: Loaded) -> None:
        self._model = model

    def batch(self, windows: Sequence[Window]) -> Any:
        return FAMILIES[self._model.card.family].empty_batch(self._model.config, len(windows))

    def signatures(self, windows: Sequence[Window]) -> list[object | None]:
        return [None] * len(windows)


def seconds_a_window(model: Loaded, computing: Computing) -> float:
    """Return how long a window takes on the device, measured on empty ones."""
    config = model.config
    on_cpu = computing.device.type == "cpu"
    at_once = min(computing.batch_size, 2 * computing.threads) if on_cpu else computing.batch_size
    n = at_once if on_cpu else 4 * at_once  # so that a GPU computes while others are read and handed on
    described = Described(config.resolution, {"one": n * config.core_bins * config.resolution}, {}, {})
    regions = [Region("one", 0, described.chromsizes["one"])]
    measuring = replace(computing, batch_size=at_once)
    with computing.forwarding(model.network, lambda output: output.peak_logit) as forward:

        def seconds() -> float:
            start = time.perf_counter()
            for _ in _pieces(model, described, regions, _Empty(model), measuring, forward):
                pass
            return time.perf_counter() - start

        seconds()  # the first takes longer
        return seconds() / sum(1 for _ in windows_of(model, described, regions))
