"""`--dry-run`: what a prediction would do and need, without reading a read."""

from collections.abc import Callable, Sequence

import click

from candi_cli.commands._amounts import counted, size
from candi_cli.commands._experiments import Inputs
from candi_cli.commands._reference import signals_of
from candi_cli.commands._track_files import FilePlan, Target
from candi_cli.contigs import shorten
from candi_cli.genome import Region, bin_count
from candi_cli.model import Loaded
from candi_cli.model.device import kind_of, memory_taken
from candi_cli.model.parts import Computing, seconds_a_window, windows_of
from candi_cli.store import Store
from candi_cli.store.predictions import Described, bytes_of

_PROCESS_BYTES = 0.6e9  # the interpreter with its libraries
_READS_BYTES = 6  # a bin of an experiment while its reads are counted, and packed afterwards
TRACK_BYTES = 4  # a bin of a bigWig, with its zooms
_WRITING_S = 0.7e-6  # a bin of a bigWig


def tell(
    model: Loaded,
    inputs: Inputs,
    plan: FilePlan,
    regions: Sequence[Region],
    computing: Computing,
    targets: Sequence[Target],
    parameters: Callable[[str], list[str]],
    cohort: Sequence[Store] = (),
) -> None:
    """Print contigs, bins, memory, disk, time and outputs; the time is that of a window, measured now."""
    sizes, resolution = inputs.chromsizes, inputs.rule.resolution
    spans = list(regions) or [Region(chrom, 0, length) for chrom, length in sizes.items()]
    chroms = dict.fromkeys(region.chrom for region in spans)
    n_bins = sum(bin_count(region.end - region.start, resolution) for region in spans)
    biosamples = sorted({biosample for biosample, _ in targets})
    tracks = {target: {"parameters": parameters(target[1])} for target in targets}
    described = Described(resolution, sizes, {}, tracks)
    predictions = bytes_of(described, dict.fromkeys(biosamples, spans))
    n_tracks = sum(file.target is not None for file in plan.files)
    n_windows = len(biosamples) * sum(1 for _ in windows_of(model, described, spans))
    per_window = seconds_a_window(model, computing)
    config = model.config
    batch = computing.batch_size * config.context_bins * (len(config.assays) + 1) * 200
    reads = _READS_BYTES * sum(bin_count(length, resolution) for length in sizes.values()) * bool(inputs.experiments)
    seconds = n_windows * per_window + n_tracks * n_bins * _WRITING_S / min(computing.threads, max(n_tracks, 1))
    rows = {
        "model": f"{model.path} ({', '.join(config.assays)})",
        **_cohort_row(model, cohort),
        "device": _device(computing),
        "contigs": f"{len(chroms):,}: {shorten(list(chroms))}",
        "bins": f"{n_bins:,} of {resolution} bp for each of {counted(len(biosamples), 'biosample')}, at most",
        "windows": f"{n_windows:,}, {per_window * 1e3:,.1f} ms each",
        "memory": f"about {size(_PROCESS_BYTES + batch + reads)}",
        "disk": f"about {size(predictions + n_tracks * n_bins * TRACK_BYTES)}, of them "
        f"{size(predictions)} only while it runs",
        "time": f"about {_duration(seconds)}, without reading the reads",
    }
    for name, value in rows.items():
        click.echo(f"{name}\t{value}")
    for file in plan.files:
        click.echo(f"output\t{file.path}")


def _cohort_row(model: Loaded, cohort: Sequence[Store]) -> dict[str, str]:
    """Return which biosamples stand beside those that are predicted."""
    names = [f"{store.name} ({', '.join(signals_of(store, model.config.assays))})" for store in cohort]
    return {"cohort": ", ".join(names)} if names else {}


def _device(computing: Computing) -> str:
    """Return the device and, of a GPU, the memory that measuring a window took, about what the run takes."""
    taken = memory_taken(computing.device)
    return kind_of(computing.device) + (f", about {size(taken)} of its memory" if taken else "")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:,.0f} s" if minutes < 2 else f"{minutes:,.0f} min" if hours < 2 else f"{hours:,.1f} h"
