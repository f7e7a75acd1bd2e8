"""What several tests share: the small test data, a store, a small trained model, and a way to run the command."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
import pytest

from candi_cli.commands import main

hypothesis.settings.register_profile("candi", deadline=None, derandomize=True)
hypothesis.settings.load_profile("candi")

ROOT = Path(__file__).parents[1]
TEST_DATA = ROOT / "test_data"
REAL_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs real data or a GPU only where there is none."""
    for item in items:
        if item.get_closest_marker("real_data") and not REAL_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="the real data are not here"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that are not progress or warnings."""
        return self.err.splitlines()


@pytest.fixture
def candi(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_250_101)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread: networks this small wait for each other's threads longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of all of the test data."""
    path = tmp_path_factory.mktemp("store") / "sim.h5"
    assert main(["bin", "--covariates", str(TEST_DATA / "meta.tsv"), "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="session")
def model_path(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, trained for a few steps, that reads DNA."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    options = ["--preset", "tiny", "--steps", "30", "--batch-size", "4", "--test-chrom", "chr2", "--quiet"]
    fasta = str(TEST_DATA / "genome.fa.gz")
    assert main(["train", str(store_path), "-o", str(path), "-T", fasta, *options]) == 0
    return path


@pytest.fixture(scope="session")
def pair_store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two marks and the control of one biosample; other marks of it are there to be imputed."""
    path = tmp_path_factory.mktemp("pair") / "pair.h5"
    reads = [str(TEST_DATA / f"sim1.{assay}.bam") for assay in ("H3K4me3", "H3K27me3")]
    assert main(["bin", *reads, "--covariates", str(TEST_DATA / "meta.tsv"), "-o", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="session")
def vivid_model_path(model_path: Path, pair_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other biases: half of the bins are peaks, and -log10 p is around 2."""
    import torch

    from candi_cli.commands._tracks import lane_covariates, prediction_dataset
    from candi_cli.genome import Window
    from candi_cli.model import load, save
    from candi_cli.store import Store

    path = tmp_path_factory.mktemp("vivid") / "vivid.safetensors"
    model = load(model_path)
    length = model.config.context_bins
    with Store.open(pair_store_path) as store, torch.inference_mode():
        dataset = prediction_dataset(model, store, "sim1", lane_covariates(model, store, "sim1", []))
        starts = range(0, 8 * length, length)
        output = model.network(dataset.batch([Window("chr1", at, at + length, at, at + length) for at in starts]))
    medians = {  # of each assay's logit, and of what softplus makes its signal of
        name: values.flatten(0, 1).median(dim=0).values
        for name, values in (("peaks", output.peak_logit), ("signal", output.signal_mean.expm1().log()))
    }
    with torch.no_grad():
        biases = model.network.output_biases()
        biases["peaks"][0] -= medians["peaks"]
        biases["signal"][0] += 1 - medians["signal"]
    save(path, model.network, model.card)
    return path


Change = Callable[[tuple[str, str], str, str, np.ndarray], np.ndarray]


@pytest.fixture(scope="session")
def rewritten() -> Callable[[Path, Path, Change], Path]:
    """Return what copies a store, each layer of a chromosome changed by a function of (key, layer, chrom, values).

    What the store says of depths and covariates stays as it is.
    """
    from candi_cli.store import Store

    def rewrite(source: Path, path: Path, change: Change) -> Path:
        with Store.open(source) as store, Store.create(path, rule=store.rule, chromsizes=store.chromsizes) as copy:
            for key in [(biosample, assay) for biosample in store.biosamples for assay in store.assays(biosample)]:
                experiment = store.experiment(*key)
                copy.add_experiment(*key)
                for chrom in store.chromsizes:
                    for layer in sorted(experiment.layers):
                        if store.has(*key, layer, chrom):
                            values = store.read(*key, layer, chrom, 0, store.n_bins(chrom))
                            copy.write(*key, layer, chrom, change(key, layer, chrom, values))
                    if "signal" in experiment.layers:
                        copy.write_spans(*key, chrom, store.signal_spans(*key, chrom))
                copy.describe(*key, experiment.covariates, fold_depths=experiment.fold_depths.tolist())
        return path

    return rewrite
