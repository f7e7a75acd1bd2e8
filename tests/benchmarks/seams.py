"""How wide must the flank be? The jump of a track where two windows meet, beside that inside of one window.

    python tests/benchmarks/seams.py k562.h5 [--biosample K562] [--model MODEL] [-r chr1:22500001-24500000]

For places drawn at random and each width of the flank, the track takes its last bin before the place from a window
whose core ends there, and the next bin from one whose core begins there, as prediction does. Printed is the mean
absolute jump between the two, over that between the same two bins in a window that has them in its middle: 1 is no
seam at all. The places are the same for every flank, so that their own steepness cancels; the error is that of a
bootstrap over places. The flank to take is the least, in multiples of 8 bins, from which on the ratio stays within 1 %.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from candi_cli.commands._tracks import lane_covariates, prediction_dataset
from candi_cli.genome import Window, parse_region
from candi_cli.model import Loaded, load
from candi_cli.model.candi import PredictionDataset
from candi_cli.models import default_model
from candi_cli.store import Store

TRACKS = ("counts", "signal", "peaks")


def pairs_of_bins(
    model: Loaded, dataset: PredictionDataset, chrom: str, starts: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return each place's bin and the one after it, in windows that start where told: (places, 2, tracks, assays)."""
    context, found = model.config.context_bins, []
    for start, place in zip(starts.tolist(), places.tolist(), strict=True):
        batch = dataset.batch([Window(chrom, start, start + context, start, start + context)])
        with torch.inference_mode():
            output = model.network(batch)
        tracks = [output.track(name)[0, place - start : place - start + 2] for name in TRACKS]
        found.append(torch.stack(tracks, dim=1).double().numpy())
    return np.stack(found)


def ratio_of_jumps(seam: NDArray[np.float64], inside: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return the ratio of mean jumps for each track, over assays and places, and its standard error."""
    jumps = np.stack([np.abs(seam), np.abs(inside)])  # (2, places, tracks, assays)
    scale = jumps[1].mean(axis=0)  # assays count alike
    relative = (jumps / scale).mean(axis=3)
    draws = np.random.default_rng(0).integers(0, relative.shape[1], (200, relative.shape[1]))
    several = relative[0][draws].mean(axis=1) / relative[1][draws].mean(axis=1)
    return relative[0].mean(axis=0) / relative[1].mean(axis=0), several.std(axis=0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--biosample")
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("-r", "--region", default="chr1:22500001-24500000")
    parser.add_argument("--places", type=int, default=150)
    parser.add_argument("--flanks", type=int, nargs="*", default=[0, 8, 16, 32, 64, 96, 128, 152, 200, 256, 304])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(options.model)
    context = model.config.context_bins
    with Store.open(options.store) as store:
        biosample = options.biosample or store.biosamples[0]
        dataset = prediction_dataset(model, store, biosample, lane_covariates(model, store, biosample, []))
        region = parse_region(options.region, store.chromsizes)
        first, last = region.start // store.rule.resolution + context, region.end // store.rule.resolution - context
        places = np.sort(np.random.default_rng(options.seed).integers(first, last, options.places))
        whole = pairs_of_bins(
            model, dataset, region.chrom, places + 1 - context // 2, places
        )  # in phase with the others
        inside = np.diff(whole, axis=1)[:, 0]
        print(f"{biosample}, {len(places)} places of {options.region}, {', '.join(model.config.assays)}")
        print(f"{'flank':>6}" + "".join(f"{name:>18}" for name in TRACKS))
        for flank in options.flanks:
            before = pairs_of_bins(model, dataset, region.chrom, places + 1 + flank - context, places)[:, 0]
            after = pairs_of_bins(model, dataset, region.chrom, places + 1 - flank, places + 1)[:, 0]
            ratio, error = ratio_of_jumps(after - before, inside)
            cells = (f"{r:10.4f} ± {e:.4f}" for r, e in zip(ratio, error, strict=True))
            print(f"{flank:6}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
