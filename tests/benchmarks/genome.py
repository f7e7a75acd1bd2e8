"""Prediction at the scale of a genome: time, memory and bytes of `candi impute`, step by step.

    python tests/benchmarks/genome.py chr21      # all 35 assays of `base` on chr21, from reads that lie everywhere
    python tests/benchmarks/genome.py memory     # all of hg38 from a BAM with few reads: peak memory
    python tests/benchmarks/genome.py writing    # one track of all of hg38 from predictions that are there
    python tests/benchmarks/genome.py gpu -@ 4       # one track of all of hg38 from 30 M reads on a GPU
    python tests/benchmarks/genome.py host -@ 4      # the same without one: all but the GPU's own work

The models are untrained: what is predicted does not matter to the cost. Beside writing stands pyBigWig alone, as one
would call it in a script, in the same run. `gpu` tells for which share of the time the device was busy, by its own
events and by its driver's samples; `host` does with a device that only waits, as long for 64 windows as an H100 was
measured to take (1.8 ms for `counts-core`, 3.4 for `base` of 5 assays, 12.9 of 35, 38.6 for `paper` of 35). `reads`
only makes their BAM.
"""

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pysam
import torch

import candi_cli
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.export.files import BEDGRAPH, BIGWIG, NARROWPEAK, TrackFile
from candi_cli.export.quantities import Quantity
from candi_cli.export.source import Source
from candi_cli.genome import Region, bin_count
from candi_cli.model import AssayCard, ModelCard, forward, parts, save
from candi_cli.model.candi import Model, preset
from candi_cli.model.forward import AT_ONCE, Finish, Recorded
from candi_cli.store.predictions import Described, PredictionWriter, parameters_of

ASSAYS = tuple(f"assay{number:02}" for number in range(35))
RESOLUTION = 25
SHIPPED = ("counts-core",)


def hg38() -> dict[str, int]:
    """Return the chromosomes of hg38."""
    table = Path(candi_cli.__file__).with_name("contig_aliases.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in table if line.startswith("hg38\t")]
    return {row[2]: int(row[1]) for row in rows}


def make_model(path: Path, name: str = "base", n_assays: int = 35) -> None:
    """Write an untrained model."""
    torch.manual_seed(0)
    assays = ASSAYS[:n_assays]
    config = preset(name, assays, resolution=RESOLUTION, reads_sequence=False)
    network = Model(config)
    for biases in network.output_biases().values():
        torch.nn.init.normal_(biases, std=0.3)
    card = AssayCard(
        ("counts", "signal", "peaks"), Covariates(20e6, 50, "single-ended"), depth_range=(1e3, 1e9),
        read_length_range=(20, 150), run_types=("single-ended",), platforms=(),
    )  # fmt: skip
    values = {field: getattr(config, field) for field in config.__dataclass_fields__}
    save(path, network, ModelCard("candi", values, CountingRule(), dict.fromkeys(assays, card)))


def make_bam(path: Path, sizes: dict[str, int], n_reads: int, *, clustered_in: float = 1.0) -> None:
    """Write a sorted BAM of single reads of 50 bp, all of them in one part of each Mb."""
    total = sum(sizes.values())
    work = [
        (path.with_suffix(f".{chrom}.bam"), sizes, chrom, int(n_reads * length / total), clustered_in)
        for chrom, length in sizes.items()
    ]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        chroms = list(pool.map(make_chrom, *zip(*work, strict=True)))
    pysam.cat("-o", str(path), *map(str, chroms))
    for each in chroms:
        each.unlink()


def make_chrom(path: Path, sizes: dict[str, int], chrom: str, n_reads: int, clustered_in: float) -> Path:
    """Write the reads of one chromosome."""
    number, length = list(sizes).index(chrom), sizes[chrom]
    rng = np.random.default_rng(number)
    here = np.sort(rng.integers(0, length - 60, n_reads))
    here = np.sort(here // 1_000_000 * 1_000_000 + (here % 1_000_000 * clustered_in).astype(np.int64))
    bases = ["".join(rng.choice(list("ACGT"), 50)) for _ in range(997)]
    qualities = [array("B", rng.choice([2, 12, 23, 37], 50, p=[0.02, 0.05, 0.13, 0.8]).tolist()) for _ in range(991)]
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": name, "LN": n} for name, n in sizes.items()]}
    with pysam.AlignmentFile(str(path), "wb", header=header) as bam:
        for at, start in enumerate(np.minimum(here, length - 60).tolist()):
            read = pysam.AlignedSegment()
            read.query_name, read.flag, read.reference_id, read.reference_start = f"r{number}:{at}", 0, number, start
            read.mapping_quality, read.cigartuples = 60, ((0, 50),)
            read.query_sequence, read.query_qualities = bases[at % 997], qualities[at % 991]
            bam.write(read)
    return path


def run(arguments: Sequence[object]) -> tuple[float, float]:
    """Run candi; return its seconds and the most memory that any of its processes took, in GB."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "candi_cli", *map(str, arguments)], check=True)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def sheet_of(folder: Path, bam: Path, assay: str = ASSAYS[0]) -> Path:
    """Write the sheet of one BAM."""
    path = folder / "meta.tsv"
    path.write_text(f"biosample\tassay\tfile\none\t{assay}\t{bam}\n")
    return path


def chr21(folder: Path, threads: int) -> None:
    """Impute all assays on one chromosome."""
    sizes = {"chr21": hg38()["chr21"]}
    bam, model = folder / "chr21.bam", folder / "base.safetensors"
    make_bam(bam, sizes, 400_000)
    make_model(model)
    common = ["impute", bam, "--covariates", sheet_of(folder, bam), "-m", model, "--assay", "all", "-@", threads]
    for what, more in (("counts", []), ("counts with their 90 % interval", ["--interval", 0.9])):
        output = folder / f"tracks{len(more)}"
        seconds, memory = run([*common, *more, "-o", output, "--quiet"])
        files = list(output.glob("*.bw"))
        size = sum(path.stat().st_size for path in files)
        made = f"{len(files)} files, {size / 1e6:.0f} MB"
        print(f"chr21, 35 assays, {what}: {seconds:.0f} s, {memory:.2f} GB, {made}", flush=True)


def memory(folder: Path, threads: int, n_reads: int) -> None:
    """Denoise all of hg38 from few reads."""
    sizes = hg38()
    bam, model = folder / "hg38.bam", folder / "base.safetensors"
    make_bam(bam, sizes, n_reads, clustered_in=0.02)
    make_model(model)
    seconds, gigabytes = run(
        ["denoise", bam, "--covariates", sheet_of(folder, bam), "-m", model, "-@", threads, "-o", folder / "out.bw"]
    )
    size = (folder / "out.bw").stat().st_size
    print(f"hg38, {n_reads:,} reads, one track: {seconds:.0f} s, peak {gigabytes:.2f} GB, bigWig {size / 1e6:.0f} MB")


def writing(folder: Path, sizes: dict[str, int]) -> None:
    """Write tracks from predictions that look like those of a real experiment."""
    kinds = ["counts", "signal", "peaks"]
    track = {"observed": True, "covariates": None, "asked": {}, "parameters": parameters_of(kinds)}
    regions = [Region(chrom, 0, length) for chrom, length in sizes.items()]
    described = Described(RESOLUTION, sizes, {}, {("one", "assay"): track}, {"one": regions})
    path, n_bins = folder / "predictions.h5", sum(bin_count(length, RESOLUTION) for length in sizes.values())
    start = time.perf_counter()
    rng, spent = np.random.default_rng(0), 0.0
    with PredictionWriter(path, described) as writer:
        for region in regions:
            n = bin_count(region.end, RESOLUTION)
            smooth = np.repeat(rng.normal(size=-(-n // 40)), 40)[:n] + 0.05 * rng.normal(size=n)
            high = np.abs(smooth)
            values = np.stack([smooth - 1, 0.2 * smooth, high, 0.2 + 0.1 * high, 2 * smooth - 4], axis=1)
            for first in range(0, n, 896):
                last = min(first + 896, n)
                piece = Region(region.chrom, first * RESOLUTION, min(last * RESOLUTION, region.end))
                begin = time.perf_counter()
                writer.add("one", piece, values[first:last].astype(np.float32))
                spent += time.perf_counter() - begin
    print(f"{n_bins / 1e6:.0f} M bins")
    show("predictions, 5 numbers a bin", spent, path, n_bins)
    source = Source(described, {"one": [(region, path) for region in regions]})
    files = [
        ("bigWig of counts", BIGWIG, Quantity("counts")),
        ("  its upper bound (95 %)", BIGWIG, Quantity("counts", "upper", 0.95)),
        ("  its standard deviation", BIGWIG, Quantity("counts", "sd")),
        ("bigWig of signal", BIGWIG, Quantity("signal")),
        ("bedGraph.gz of counts", BEDGRAPH, Quantity("counts")),
        ("narrowPeak", NARROWPEAK, Quantity("peaks")),
    ]
    for name, kind, quantity in files:
        output = folder / f"out.{kind}{'.gz' if kind == BEDGRAPH else ''}"
        start = time.perf_counter()
        TrackFile(output, output, kind, "one", "assay", quantity).write(source)
        show(name, time.perf_counter() - start, output, n_bins)
    naive(folder / "naive.bw", source, n_bins)


def naive(path: Path, source: Source, n_bins: int) -> None:
    """Write the counts by pyBigWig as it is: neither rounded nor checked."""
    start = time.perf_counter()
    with source:
        track = pyBigWig.open(str(path), "w")
        track.addHeader(list(source.described.chromsizes.items()))
        for region, parameters in source.blocks("one", "assay", ["count_log_mean"]):
            values = np.exp(parameters[0].astype(np.float64))
            whole = (region.end - region.start) // RESOLUTION
            track.addEntries(region.chrom, region.start, values=values[:whole], span=RESOLUTION, step=RESOLUTION)
        track.close()
    show("pyBigWig alone", time.perf_counter() - start, path, n_bins)


class Meter:
    """When a device began, how long it was busy, and when it ended."""

    def __init__(self) -> None:
        self.begun, self.busy, self.ended = 0.0, 0.0, 0.0

    def report(self, start: float, end: float) -> str:
        """Return what was measured of a run, as text."""
        span = self.ended - self.begun
        return (
            f"  until the first window {self.begun - start:.0f} s, windows {span:.1f} s "
            f"(device busy {100 * self.busy / span:.0f} %), then {end - self.ended:.0f} s"
        )


class Waiting(Meter):
    """A device that takes its time and no processor, in the place of a network on a GPU.

    Parameters
    ----------
    milliseconds : of 64 windows
    """

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.seconds, self._free = milliseconds / 1e3 / AT_ONCE, 0.0
        rng = np.random.default_rng(0)
        smooth = np.cumsum(rng.normal(0, 0.05, (AT_ONCE, 1200, 2)), axis=1) - 1
        self._windows = list(smooth.astype(np.float32))

    @contextmanager
    def forwarding(self, *_: object, **__: object) -> Iterator["Waiting"]:
        """Provide itself, in the place of `forward.forwarding`."""
        yield self

    def stage(self, batch: Any) -> Any:
        """Return the batch."""
        return batch

    def start(self, _batch: Any, n: int) -> Finish:
        """Begin to wait as long as the device would take, after what it has to do before."""
        now = time.perf_counter()
        self.begun = self.begun or now
        needed = -(-n // AT_ONCE) * AT_ONCE * self.seconds
        self._free = ready = max(self._free, now) + needed
        self.busy += needed

        def finish() -> list[np.ndarray]:
            time.sleep(max(ready - time.perf_counter(), 0))
            self.ended = max(self.ended, ready)
            return [self._windows[number % AT_ONCE] for number in range(n)]

        return finish


class Watching(Meter):
    """A GPU, whose events tell how long it worked, and whose driver tells how often something ran on it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def recorded(self) -> type[Recorded]:
        """Return a forward pass that is watched, in the place of `forward.Recorded`."""
        meter = self

        class Watched(Recorded):
            def __call__(self, batch: Any) -> torch.Tensor:
                meter.begun = meter.begun or time.perf_counter()
                before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                before.record()
                values = super().__call__(batch)
                after.record()
                meter.events.append((before, after))
                return values

        return Watched

    def stop(self) -> None:
        """Add up what was measured."""
        self.busy = sum(before.elapsed_time(after) for before, after in self.events) / 1e3
        self.ended = self.begun + self.events[0][0].elapsed_time(self.events[-1][1]) / 1e3


@contextmanager
def driver_samples(into: list[tuple[float, float]]) -> Iterator[None]:
    """Collect when, and in which percentage of the time since the sample before, the driver saw a GPU busy."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sampler:
        assert sampler.stdout is not None
        lines = sampler.stdout

        def collect() -> None:
            into.extend((time.perf_counter(), float(line)) for line in lines)

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            yield
        finally:
            sampler.terminate()
            thread.join()


def denoise_all(folder: Path, bam: Path, model: str, threads: int, more: Sequence[str] = ()) -> tuple[float, float]:
    """Denoise a BAM of all of hg38 into one track; return when it began and ended."""
    from candi_cli.commands import main

    path, assay = (model, "H3K4me3") if model in SHIPPED else (folder / "model.safetensors", ASSAYS[0])
    if model not in SHIPPED:
        preset_name, n_assays = model.split(":")
        make_model(Path(path), preset_name, int(n_assays))
    start = time.perf_counter()
    arguments = [
        "denoise",
        bam,
        "--covariates",
        sheet_of(folder, bam, assay),
        "-m",
        path,
        "-@",
        threads,
        *more,
        "-o",
        folder / "out.bw",
    ]
    if main([*map(str, arguments)]):
        raise SystemExit(1)
    return start, time.perf_counter()


def host(folder: Path, bam: Path, model: str, threads: int, milliseconds: float) -> None:
    """Denoise all of hg38 with a device that waits."""
    from candi_cli.commands import _prediction

    waiting = Waiting(milliseconds)
    parts.forwarding = waiting.forwarding  # type: ignore[assignment]
    _prediction.choose, _prediction.kind_of = lambda _name: torch.device("cuda"), str
    start, end = denoise_all(folder, bam, model, threads)
    print(f"hg38, {model}, one track, {threads} threads, {milliseconds} ms for 64 windows: {end - start:.0f} s")
    print(waiting.report(start, end), flush=True)


def gpu(folder: Path, bam: Path, model: str, threads: int) -> None:
    """Denoise all of hg38 on a GPU."""
    watching, samples = Watching(), list[tuple[float, float]]()
    forward.Recorded = watching.recorded()  # type: ignore[misc]
    with driver_samples(samples):
        start, end = denoise_all(folder, bam, model, threads, ["--device", "cuda"])
    watching.stop()
    seen = [share for when, share in samples if watching.begun + 0.2 < when < watching.ended]
    name, size = torch.cuda.get_device_name(), (folder / "out.bw").stat().st_size
    print(f"hg38, {model}, one track of {size / 1e6:.0f} MB, {threads} threads, {name}: {end - start:.0f} s")
    print(watching.report(start, end))
    print(f"  the driver saw it busy in {np.mean(seen):.0f} % of that time ({len(seen)} samples)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"  peak memory: {peak:.2f} GB of the host, {torch.cuda.max_memory_reserved() / 1e9:.2f} GB of the GPU",
        flush=True,
    )


def show(name: str, seconds: float, path: Path, n_bins: int) -> None:
    """Print a row of the table."""
    per_bin = f"{1e6 * seconds / n_bins:8.3f} us a bin{path.stat().st_size / n_bins:8.2f} bytes a bin"
    print(f"{name:30}{seconds:7.1f} s{per_bin}", flush=True)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["chr21", "memory", "writing", "reads", "host", "gpu"])
    parser.add_argument("-@", "--threads", type=int, default=2)
    parser.add_argument("--reads", type=int, help="of the BAM over all of hg38; default: 30 M, of `memory` 1 M")
    parser.add_argument("--bam", type=Path, help="of `reads`, `host` and `gpu`; default: one that is made for it")
    parser.add_argument("--chroms", nargs="*", help="of `writing`; default: all of hg38")
    parser.add_argument("--model", default="base:35", help="of `host` and `gpu`: PRESET:ASSAYS, or one that ships")
    parser.add_argument("--milliseconds", type=float, default=12.9, help="of `host`: of 64 windows on the device")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bam = options.bam or folder / "hg38.bam"
        if options.what in ("reads", "host", "gpu") and not bam.exists():
            start = time.perf_counter()
            make_bam(bam, hg38(), options.reads or 30_000_000)
            print(f"made {bam.stat().st_size / 1e9:.2f} GB of reads in {time.perf_counter() - start:.0f} s", flush=True)
        if options.what == "chr21":
            chr21(folder, options.threads)
        elif options.what == "memory":
            memory(folder, options.threads, options.reads or 1_000_000)
        elif options.what == "host":
            host(folder, bam, options.model, options.threads, options.milliseconds)
        elif options.what == "gpu":
            gpu(folder, bam, options.model, options.threads)
        elif options.what == "writing":
            sizes = hg38()
            writing(folder, {chrom: sizes[chrom] for chrom in options.chroms or sizes})


if __name__ == "__main__":
    main()
