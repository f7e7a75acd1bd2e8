"""Predictions to make files of: numbers that are known, in one file or spread over several."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from candi_cli.export.source import Source
from candi_cli.genome import Region
from candi_cli.store.predictions import PARAMETERS, Described, PredictionWriter, rounded

STEP = 25
SIZES = {"chr2": 20_010, "chr10": 5_000, "chr1": 260}  # in no sorted order; the last bins of two are short
ALL = [name for names in PARAMETERS.values() for name in names]
TRACKS = {
    ("a", "H3K4me3"): ALL,
    ("a", "CTCF"): [*PARAMETERS["counts"], *PARAMETERS["peaks"]],
    ("b", "H3K4me3"): ALL,
}
WANTED = {
    "a": [Region("chr2", 0, 20_010), Region("chr10", 0, 5_000), Region("chr1", 0, 260)],
    "b": [Region("chr2", 5_000, 20_010), Region("chr1", 100, 260)],
}


class Known(NamedTuple):
    """Predictions of which every number is known.

    truth : (biosample, assay, parameter, chrom) -> all bins of the chromosome
    write : writes regions of each biosample into a file
    """

    described: Described
    truth: dict[tuple[str, str, str, str], np.ndarray]
    write: Callable[[Path, Mapping[str, Sequence[Region]]], Path]

    def source(self, path: Path) -> Source:
        """Write everything that is wanted into one file, and return it as a source."""
        self.write(path, self.described.wanted)
        wanted = self.described.wanted
        return Source(self.described, {name: [(region, path) for region in wanted[name]] for name in wanted})

    def of(self, biosample: str, assay: str, parameters: Sequence[str], region: Region) -> np.ndarray:
        """Return the known values of a region: (P, n_bins)."""
        bins = slice(region.start // STEP, -(-region.end // STEP))
        return np.stack([self.truth[biosample, assay, name, region.chrom][bins] for name in parameters])


def walk(rng: np.random.Generator, n_bins: int, parameter: str) -> np.ndarray:
    """Return plausible numbers of one parameter, whose neighbours are alike."""
    steps = 2 * np.sin(np.cumsum(rng.normal(0, 0.3, n_bins)))
    if parameter == "signal_sd":
        return 0.05 + np.abs(steps) / 5
    return (
        steps + {"count_log_mean": 0.5, "count_log_dispersion": 1.0, "signal_mean": 0.3, "peak_logit": -1.0}[parameter]
    )


@pytest.fixture(scope="session")
def known() -> Known:
    tracks = {
        key: {"observed": key[0] == "a", "covariates": None, "asked": {"depth": 5e7}, "parameters": names}
        for key, names in TRACKS.items()
    }
    described = Described(STEP, SIZES, {"family": "candi", "sha256": "ab" * 32}, tracks, WANTED)
    rng = np.random.default_rng(7)
    truth = {
        (*key, name, chrom): rounded(walk(rng, described.n_bins(chrom), name).astype(np.float32))
        for key, names in TRACKS.items()
        for name in names
        for chrom in SIZES
    }

    def write(path: Path, regions: Mapping[str, Sequence[Region]], by: Described = described) -> Path:
        with PredictionWriter(path, by, command="candi impute") as writer:
            for biosample, found in regions.items():
                for region in found:
                    bins = slice(region.start // STEP, -(-region.end // STEP))
                    rows = [
                        truth[biosample, assay, name, region.chrom][bins] for assay, name in by.parameters(biosample)
                    ]
                    writer.add(biosample, region, np.stack(rows, axis=1))
        return path

    return Known(described, truth, write)
