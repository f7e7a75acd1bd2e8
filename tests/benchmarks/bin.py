"""Time `candi bin` beside samtools, mosdepth and bamCoverage, and the store beside a memory map, in one run.

Run it as `python tests/benchmarks/bin.py [--reads 10e6] [--genome 300e6] [--paired] [--folder DIR]`. It simulates a BAM
(kept in the folder, and used again), then prints a table: wall time, CPU time, peak memory, and the ratio to
`samtools view -c` of the same reads. Tools that are not installed are shown as missing; in the place of samtools comes
the samtools inside of pysam, which takes a tenth of a second longer to start.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILTERS = ("-F", "0xF04", "-q", "30")
N_TRACKS, WINDOW_BINS, N_WINDOWS = 36, 1_200, 2_000
_CONTIGS = (0.5, 0.3, 0.2)  # of the genome
_INFLATE = (
    "from isal import igzip; import sys\nf = igzip.open(sys.argv[1]); b = bytearray(1 << 22)\nwhile f.readinto(b): pass"
)
_COUNT = """
import sys
from pathlib import Path
from candi_cli.counting import CountingRule
from candi_cli.io import bam
from candi_cli.io.reads import ReadCounter
bam.FAST = sys.argv[2] == "compiled"
for _ in ReadCounter(Path(sys.argv[1]), CountingRule(sys.argv[3])): pass
"""
_PYSAM = "import sys, pysam; getattr(pysam, sys.argv[1])(*sys.argv[2:], catch_stdout=False)"
SAMTOOLS = ["samtools"] if shutil.which("samtools") else [sys.executable, "-c", _PYSAM]


class Cost(NamedTuple):
    """Wall and CPU seconds of a command, and its peak memory in MB."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    """Simulate, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=float, default=10e6, help="alignments (default 10e6)")
    parser.add_argument("--genome", type=float, default=300e6, help="bp (default 300e6)")
    parser.add_argument("--paired", action="store_true", help="2 x 100 instead of 36 bp")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest is shown (default 3)")
    parser.add_argument("--folder", type=Path, help="where the BAM is made and kept (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        bam = folder / f"{'paired' if options.paired else 'single'}.{options.reads:.0f}.{options.genome:.0f}.bam"
        if not bam.exists():
            simulate(bam, int(options.reads), int(options.genome), paired=options.paired)
        print(f"{bam.name}: {bam.stat().st_size / 1e6:,.0f} MB, {options.reads:,.0f} alignments")
        print_commands(bam, Path(scratch), options.repeats)
        print_windows(Path(scratch), int(options.genome))


def simulate(path: Path, n_reads: int, genome_bp: int, *, paired: bool) -> None:
    """Write sorted and indexed reads with names, bases and qualities, of which 15 % do not pass the filters."""
    rng = np.random.default_rng(0)
    sizes = {f"chr{number + 1}": int(part * genome_bp) for number, part in enumerate(_CONTIGS)}
    temporary = path.with_suffix(".tmp")
    with subprocess.Popen([*SAMTOOLS, "view", "-b", "-o", temporary, "-"], stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(b"@HD\tVN:1.6\tSO:coordinate\n")
        writer.stdin.writelines(f"@SQ\tSN:{name}\tLN:{bp}\n".encode() for name, bp in sizes.items())
        for (name, bp), part in zip(sizes.items(), _CONTIGS, strict=True):
            for lines in _sam(rng, name, bp, int(n_reads * part), paired=paired):
                writer.stdin.write(lines)
    temporary.rename(path)
    subprocess.run([*SAMTOOLS, "index", path], check=True)


def _sam(rng: np.random.Generator, name: str, bp: int, n_reads: int, *, paired: bool, at_once: int = 100_000):
    length = 100 if paired else 36
    bases = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, 1 << 20)].tobytes()
    qualities = (33 + rng.choice([2, 25, 37, 40], p=[0.05, 0.15, 0.3, 0.5], size=1 << 20)).astype(np.uint8).tobytes()
    starts = np.sort(rng.integers(1, bp - 600, n_reads))
    for first in range(0, n_reads, at_once):
        chunk = starts[first : first + at_once]
        n = len(chunk)
        flags = rng.choice([0, 16], n) | rng.choice([0, 0x400, 0x100, 0x200], n, p=[0.9, 0.06, 0.02, 0.02])
        mapqs = rng.choice([60, 37, 10, 0], n, p=[0.6, 0.35, 0.03, 0.02])
        templates = rng.integers(150, 500, n) if paired else np.zeros(n, dtype=np.int64)
        if paired:
            flags |= np.where(flags & 16, 0x1 | 0x2 | 0x80, 0x1 | 0x2 | 0x20 | 0x40)
            templates = np.where(flags & 16, -templates, templates)
        offsets = rng.integers(0, (1 << 20) - length, n)
        yield b"".join(
            b"HWI-ST%d:%d:%d\t%d\t%s\t%d\t%d\t%dM\t%s\t%d\t%d\t%s\t%s\n"
            % (number % 8, offset, start, flag, name.encode(), start, mapq, length, b"=" if paired else b"*",
               max(1, start + template - length) if paired else 0, template,
               bases[offset : offset + length], qualities[offset : offset + length])
            for number, (start, flag, mapq, template, offset) in enumerate(
                zip(chunk.tolist(), flags.tolist(), mapqs.tolist(), templates.tolist(), offsets.tolist(), strict=True)
            )
        )  # fmt: skip


def print_commands(bam: Path, scratch: Path, repeats: int) -> None:
    """Print what each way of counting costs."""
    candi = Path(sys.executable).with_name("candi")
    sheet = scratch / "meta.tsv"
    sheet.write_text("biosample\tassay\nb\tx\n")
    binning = [candi, "bin", bam, "--covariates", sheet, "-o", scratch / "s.h5", "--quiet"]
    python = [sys.executable, "-c"]
    rows: dict[str, Sequence[object]] = {
        "samtools view -c -F 0xF04 -q 30": [*SAMTOOLS, "view", "-c", *FILTERS, bam],
        "decompression alone (igzip)": [*python, _INFLATE, bam],
        "candi, counting alone, five-prime": [*python, _COUNT, bam, "compiled", "five-prime"],
        "candi, counting alone, overlap": [*python, _COUNT, bam, "compiled", "overlap"],
        "candi, counting alone, by pysam": [*python, _COUNT, bam, "pysam", "overlap"],
        "candi bin --folds 0": [*binning, "--folds", "0"],
        "candi bin (8 folds)": binning,
        "candi bin -@ 2 (8 folds)": [*binning, "-@", "2"],
        "mosdepth -x -n -b 25": ["mosdepth", "-x", "-n", "-b", "25", "-F", "3844", "-Q", "30", scratch / "m", bam],
        "bamCoverage -bs 25 -p 1": [
            "bamCoverage", "-b", bam, "-o", scratch / "b.bw", "-bs", "25", "-p", "1",
            "--minMappingQuality", "30", "--samFlagExclude", "3844",
        ],
    }  # fmt: skip
    print(f"\n{'':40} {'wall s':>8} {'CPU s':>8} {'MB':>7} {'x samtools':>11}")
    base = None
    for name, command in rows.items():
        if shutil.which(str(command[0])) is None:
            print(f"{name:40} missing")
            continue
        n_times = repeats if "bamCoverage" not in name and "mosdepth" not in name else 1
        cost = min(measure(command) for _ in range(n_times))
        base = base or cost
        print(f"{name:40} {cost.wall:8.2f} {cost.cpu:8.2f} {cost.memory:7,.0f} {cost.wall / base.wall:11.2f}")


def measure(command: Sequence[object]) -> Cost:
    """Run a command and return what it cost."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]}: ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, usage.ru_maxrss / 1e3)


def print_windows(scratch: Path, genome_bp: int) -> None:
    """Print how many random windows of all tracks a second one core reads from a store, and from a memory map."""
    from candi_cli.counting import CountingRule
    from candi_cli.covariates import Covariates
    from candi_cli.store import Store

    rng = np.random.default_rng(0)
    n_bins = -(-genome_bp // 25)
    path = scratch / "tracks.h5"
    rate = np.exp(np.repeat(rng.normal(-0.7, 1, -(-n_bins // 40)), 40))[:n_bins]
    flat = np.memmap(scratch / "tracks.raw", dtype=np.uint8, mode="w+", shape=(N_TRACKS, n_bins))
    with Store.create(path, rule=CountingRule(), chromsizes={"chr1": genome_bp}) as store:
        for track in range(N_TRACKS):
            counts = rng.poisson(rate * rng.uniform(0.3, 3)).astype(np.uint8)
            flat[track] = counts
            store.add_experiment("b", f"a{track:02}")
            store.write("b", f"a{track:02}", "counts", "chr1", counts)
            store.describe("b", f"a{track:02}", Covariates())
    starts = rng.integers(0, n_bins - WINDOW_BINS, N_WINDOWS)
    with Store.open(path) as store:
        names = store.assays("b")

        def from_store(start: int) -> np.ndarray:
            return np.stack([store.read("b", name, "counts", "chr1", start, start + WINDOW_BINS) for name in names])

        def from_map(start: int) -> np.ndarray:
            return np.array(flat[:, start : start + WINDOW_BINS])

        assert all((from_store(int(start)) == from_map(int(start))).all() for start in starts[:50])
        print(f"\nrandom windows of {WINDOW_BINS} bins x {N_TRACKS} tracks, one core; {n_bins:,} bins")
        for name, read, size in (
            ("store", from_store, path.stat().st_size),
            ("memory map of raw bytes", from_map, flat.nbytes),
        ):
            started = time.perf_counter()
            for start in starts:
                read(int(start))
            print(f"{name:40} {N_WINDOWS / (time.perf_counter() - started):10,.0f} windows/s {size / 1e6:8,.0f} MB")


if __name__ == "__main__":
    main()
