"""Time and memory of `candi calibrate`, `cindex` and `evaluate` on a chromosome of the length of chr21 with 35 assays.

    python tests/benchmarks/judge.py [--assays 35] [--bins 1868399] [--model MODEL] [--keep FOLDER]

A store of counts, signal and peaks is drawn from known distributions, and a file of predictions holds these very
distributions, so that the scores are known too: PIT errors near 0, and coverage at its level. Each command runs in a
process of its own on the saved predictions; with --model also on the fly, which predicts each assay from the others
and from half of its reads.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Region
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Described, PredictionWriter, parameters_of

RESOLUTION = 25
BIOSAMPLE, CHROM = "cell", "chr21"
PIECE = 1 << 17


def make(folder: Path, n_assays: int, n_bins: int, seed: int = 0) -> None:
    """Write `store.h5` and `predictions.h5`."""
    rng = np.random.default_rng(seed)
    sizes = {CHROM: n_bins * RESOLUTION}
    whole = Region(CHROM, 0, sizes[CHROM])
    assays = [f"assay{number:02d}" for number in range(n_assays)]
    shared = np.convolve(rng.normal(size=n_bins), np.ones(60) / np.sqrt(60), mode="same")
    columns: list[np.ndarray] = []
    with Store.create(folder / "store.h5", rule=CountingRule(), chromsizes=sizes) as store:
        for assay in assays:
            own = np.convolve(rng.normal(size=n_bins), np.ones(20) / np.sqrt(20), mode="same")
            smooth = 0.7 * shared + 0.7 * own
            log_mean, log_n = -0.7 + smooth, np.full(n_bins, np.log(2.0))
            mean, sd, logit = 0.8 + 0.5 * smooth, np.full(n_bins, 0.4), -3 + 2 * smooth
            p = np.exp(log_n) / (np.exp(log_n) + np.exp(log_mean))
            folds = rng.negative_binomial(2.0, p).astype(np.uint32)
            half = rng.binomial(folds, 0.5).astype(np.uint32)
            store.add_experiment(BIOSAMPLE, assay)
            store.write(BIOSAMPLE, assay, "counts", CHROM, folds)
            store.write(BIOSAMPLE, assay, "folds", CHROM, np.stack([half, folds - half], axis=1))
            store.write(BIOSAMPLE, assay, "signal", CHROM, np.sinh(np.maximum(rng.normal(mean, sd), 0)).astype("f4"))
            store.write_spans(BIOSAMPLE, assay, CHROM, np.array([[0, sizes[CHROM]]], dtype=np.int64))
            store.write(BIOSAMPLE, assay, "peaks", CHROM, (rng.random(n_bins) < 1 / (1 + np.exp(-logit))).astype("u1"))
            depths = [int(half.sum()), int((folds - half).sum())]
            covariates = Covariates(depth=float(sum(depths)), span_bp=float(sizes[CHROM]), read_length=50)
            store.describe(BIOSAMPLE, assay, covariates, fold_depths=depths)
            columns += [log_mean, log_n, mean, sd, logit]
    described = Described(
        RESOLUTION, sizes, {"family": "candi", "sha256": "0" * 64, "assays": assays},
        {
            (BIOSAMPLE, assay): {
                "observed": False, "covariates": None, "asked": {}, "parameters": parameters_of(list(PARAMETERS))
            }
            for assay in assays
        },
        {BIOSAMPLE: [whole]},
    )  # fmt: skip
    with PredictionWriter(folder / "predictions.h5", described) as writer:
        for start in range(0, n_bins, PIECE):
            end = min(start + PIECE, n_bins)
            values = np.stack([column[start:end] for column in columns], axis=1).astype(np.float32)
            writer.add(BIOSAMPLE, Region(CHROM, start * RESOLUTION, end * RESOLUTION), values)


def timed(*arguments: str) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in GB."""
    code = "import resource, sys; from candi_cli.commands import main; code = main(sys.argv[1:]);"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    start = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return time.perf_counter() - start, int(ran.stderr.split()[-1]) / 1e6


def main() -> None:
    """Measure, and print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assays", type=int, default=35)
    parser.add_argument("--bins", type=int, default=1_868_399)
    parser.add_argument("--model", help="a model of these assays, to predict on the fly too")
    parser.add_argument("--keep", type=Path, help="use, and leave, the files in this folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "predictions.h5").exists():
            start = time.perf_counter()
            # in a process of its own: a child's peak memory begins with that of its parent
            maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, chosen.assays, chosen.bins))
            maker.start()
            maker.join()
            print(f"made {chosen.assays} assays of {chosen.bins:,} bins in {time.perf_counter() - start:.0f} s")
        store, predictions = str(folder / "store.h5"), str(folder / "predictions.h5")
        for command in ("calibrate", "cindex", "evaluate"):
            output = folder / f"{command}"
            seconds, peak = timed(command, store, "--predictions", predictions, "-o", str(output), "--quiet")
            rows = json.loads((output / "scores.json").read_text())["rows"]
            print(f"{command}: {seconds:.0f} s, {peak:.2f} GB, {len(rows):,} scores")
            if command == "calibrate":
                errors = [
                    row["value"] for row in rows
                    if row["score"] == "pit_error" and row["region"] == "genome" and row["track"] == "counts"
                ]  # fmt: skip
                print(f"  largest PIT error of counts: {max(errors):.5f}")
        if chosen.model:
            for command in ("calibrate", "cindex", "evaluate"):
                output = str(folder / f"{command}.tsv")
                seconds, peak = timed(command, store, "-m", chosen.model, "-o", output, "--quiet")
                print(f"{command} on the fly: {seconds:.0f} s, {peak:.2f} GB")


if __name__ == "__main__":
    main()
