"""The command line as a whole: help, versions, exit codes, signals, and what it costs to start."""

import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from candi_cli import __version__, processes
from candi_cli.commands import COMMANDS, _experiments

TEST_DATA = Path(__file__).parents[2] / "test_data"
CANDI = [sys.executable, "-m", "candi_cli"]


def test_version_is_one_line_on_stdout(candi):
    ran = candi("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"candi {__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_each_of_its_options(candi, name):
    ran = candi(name, "--help")
    assert ran.code == 0
    options = re.findall(r"^  (-.*)$", ran.out, flags=re.MULTILINE)
    assert len(options) > 5
    assert ran.err == ""


def test_no_command_prints_the_usage_on_stderr_and_exits_2(candi):
    ran = candi()
    assert ran.code == 2
    assert ran.out == ""
    assert "Usage: candi" in ran.err


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("bin", "--nonsense"), ("bin",), ("denoise", "--batch-size", "0"), ("train",)], ids=str
)
def test_wrong_usage_is_one_line_and_exits_2(candi, arguments):
    ran = candi(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert len(ran.errors) == 1
    assert "--help" in ran.errors[0]


def test_help_neither_imports_heavy_libraries_nor_takes_long():
    command = [sys.executable, "-X", "importtime", "-m", "candi_cli", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in ran.stderr.splitlines() if "|" in line}
    roots = {name.split(".")[0] for name in imported}
    assert not roots & {"torch", "scipy", "matplotlib", "h5py", "pysam", "pyBigWig", "x_transformers", "rich"}
    best = min(_cpu_seconds([*CANDI, "--help"]) for _ in range(5))
    assert best < 0.3


def _cpu_seconds(command: list[str]) -> float:
    """What a command computes: the time it takes on a machine that does nothing else."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_closed_pipe_ends_help_with_141():
    with subprocess.Popen([*CANDI, "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("sent", "code", "left"),
    [
        (signal.SIGINT, 130, []),
        (signal.SIGTERM, 143, ["model.checkpoint"]),
        (signal.SIGUSR1, 138, ["model.checkpoint"]),
    ],
)
def test_an_interrupted_training_leaves_no_model_and_a_stopped_one_its_checkpoint(
    store_path, tmp_path, sent, code, left
):
    output = tmp_path / "model.safetensors"
    options = ["--preset", "tiny", "--steps", "100000", "--log-every", "100000", "-o", str(output)]
    with subprocess.Popen([*CANDI, "train", str(store_path), *options], stderr=subprocess.PIPE, text=True) as process:
        assert "parameters" in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(sent)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert [path.name for path in tmp_path.iterdir()] == left
    assert ("--resume auto" in told) == bool(left)


def test_an_interrupted_binning_leaves_nothing_but_the_experiments_that_are_finished(tmp_path):
    command = [
        *CANDI,
        "bin",
        "--covariates",
        str(TEST_DATA / "meta.tsv"),
        "-o",
        str(tmp_path / "s.h5"),
        "--folds",
        "64",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "records counted" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == [".s.h5.parts"]
    kept = [path for path in (tmp_path / ".s.h5.parts").iterdir() if path.name != "lock"]
    assert {path.suffix for path in kept} == {".h5"}
    assert f"{len(kept)} of 7 experiments are kept in {tmp_path / '.s.h5.parts'} for the next run" in told


def test_an_interrupt_that_python_dropped_ends_a_binning_before_the_next_experiment(candi, tmp_path, monkeypatch):
    def report_and_drop(outcome):
        processes._received.append(signal.SIGINT)  # as when it comes in the callback of a weak reference

    monkeypatch.setattr(_experiments, "report", report_and_drop)
    ran = candi("bin", "--covariates", TEST_DATA / "meta.tsv", "-o", tmp_path / "s.h5")
    assert ran.code == 130
    assert f"1 of 7 experiments are kept in {tmp_path / '.s.h5.parts'} for the next run" in ran.err
    assert len(list((tmp_path / ".s.h5.parts").glob("*.h5"))) == 1


def test_an_unknown_device_is_an_error_never_a_fallback(candi, store_path, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    ran = candi("train", store_path, "-o", tmp_path / "m.safetensors", "--device", "cuda", "--quiet")
    assert ran.code == 2
    assert ran.errors == ["candi train: --device cuda: no CUDA device here; use --device cpu or auto"]


def test_quiet_tells_nothing_and_verbose_tells_more(candi, tmp_path):
    sheet = TEST_DATA / "meta_one.tsv"
    told = {
        option: len(candi("bin", "--covariates", sheet, "-o", tmp_path / "s.h5", option).errors)
        for option in ("--quiet", "--verbose", "--debug")
    }
    assert told["--quiet"] == 0
    assert told["--verbose"] > told["--debug"] > 0


def test_debug_shows_the_traceback_and_still_the_line(candi, tmp_path):
    ran = candi("bin", "--covariates", "absent.tsv", "-o", tmp_path / "s.h5", "--debug")
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert ran.errors[-1].startswith("candi bin: absent.tsv: ")
