"""`candi train` as people and batch systems run it: configuration files, kills, several processes."""

import csv
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from candi_cli.commands._train_log import Log
from candi_cli.model import load
from candi_cli.model.resume import read

CANDI = [sys.executable, "-m", "candi_cli"]
QUICK = ("--preset", "tiny", "--steps", "3", "--batch-size", "2", "--quiet")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def numbers(path: Path) -> list[dict[str, str]]:
    """What a log says of what was computed, not of how fast."""
    return [
        {name: value for name, value in row.items() if name not in ("windows_per_second", "memory_mb")}
        for row in rows(path)
    ]


def test_the_printed_configuration_reproduces_the_run_to_the_byte(candi, store_path, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    config = tmp_path / "train.toml"
    options = ("-r", "chr1:1-200,000", "--loss-weights", "count=1,beta=1", "--seed", 4, "--mask-loci", 0.25)
    options += ("--mask-most", 1)
    printed = candi("train", store_path, "-o", first, *QUICK, *options, "--print-config")
    assert printed.code == 0
    assert not first.exists()
    config.write_text(printed.out)
    values = tomllib.loads(printed.out)
    assert values["region"] == ["chr1:1-200,000"]
    assert (values["loss-weights"], values["mask-loci"]) == ("count=1,beta=1", 0.25)
    assert (values["drop-reference"], values["mask-most"]) == (0, 1)
    assert candi("train", "--config", config, "--print-config").out == printed.out
    assert candi("train", store_path, "-o", first, *QUICK, *options).code == 0
    assert candi("train", "--config", config, "-o", second, "--quiet").code == 0
    assert numbers(tmp_path / "first.log.tsv") == numbers(tmp_path / "second.log.tsv")
    assert load(second).card.training["corruption"]["mask_most"] == 1
    weights = [load(path).network.state_dict() for path in (first, second)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(candi, store_path, tmp_path):
    config = tmp_path / "train.toml"
    config.write_text(f'stores = ["{store_path}"]\npreset = "paper"\nlearning-rate = 0.01\nseed = 3\ncompile = true\n')
    printed = candi("train", "--config", config, "-o", tmp_path / "m.safetensors", "--seed", 9, "--print-config")
    values = tomllib.loads(printed.out)
    assert (values["seed"], values["learning-rate"], values["compile"]) == (9, 0.01, True)
    assert (values["optimizer"], values["batch-size"], values["clip-norm"]) == ("adamax", 90, 2.0)
    assert values["stores"] == [str(store_path)]
    own = candi("train", "--config", config, "-o", "m", "--preset", "base", "--print-config")
    assert tomllib.loads(own.out)["optimizer"] == "adamw"


def test_the_paper_trains_as_its_text_says(candi, store_path):
    printed = candi("train", store_path, "-o", "m", "--preset", "paper", "--print-config")
    values = tomllib.loads(printed.out)
    assert (values["optimizer"], values["learning-rate"], values["batch-size"]) == ("adamax", 5e-4, 90)
    assert values["loss-weights"] == "count=0.5,signal=1,peak=0.1,observed=0.25,imputed=1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learning_rate = 1", "unknown key 'learning_rate'; the nearest that there is: 'learning-rate'"),
        ("stepss = 1", "unknown key 'stepss'; the nearest that there is: 'steps'"),
        ("config = 'a'", "unknown key 'config'"),
        ("batch-size = 0", "batch-size: 0 is not in the range x>=1"),
        ("batch-size = 1.5", "batch-size: '1.5' is not a valid integer"),
        ("batch-size = true", "batch-size is true; give one number or text"),
        ("batch-size = [1]", "batch-size is [1]; give one number or text"),
        ("compile = 1", "compile is 1; give true or false"),
        ("preset = 'huge'", "preset: 'huge' is not one of"),
        ("steps =", "not TOML"),
        ("[train]\nsteps = 1", "unknown key 'train'"),
    ],
)
def test_what_a_configuration_file_must_not_hold(candi, store_path, tmp_path, text, told):
    config = tmp_path / "train.toml"
    config.write_text(text)
    ran = candi("train", store_path, "-o", tmp_path / "m.safetensors", "--config", config)
    assert ran.code == 2
    assert len(ran.errors) == 1
    assert ran.errors[0].startswith(f"candi train: {config}: ")
    assert told in ran.errors[0]


def test_a_configuration_file_that_is_not_there_is_one_line(candi, store_path):
    ran = candi("train", store_path, "-o", "m.safetensors", "--config", "absent.toml")
    assert ran.code == 2
    assert ran.errors == ["candi train: absent.toml: No such file or directory; give a TOML file with --config"]


def test_the_log_has_a_row_for_each_report_and_the_held_out_scores(candi, store_path, tmp_path):
    path = tmp_path / "m.safetensors"
    options = ("--valid-region", "chr1:250,001-290,000", "--score-every", 2, "--log-every", 1)
    assert candi("train", store_path, "-o", path, *QUICK, *options).code == 0
    log = rows(tmp_path / "m.log.tsv")
    assert [row["step"] for row in log] == ["1", "2", "3"]
    assert [row["held_out_loss"] == "NA" for row in log] == [True, False, False]
    assert all(float(row[name]) > 0 for row in log for name in ("loss", "count_obs", "grad_norm", "memory_mb"))
    assert all(float(row["windows_per_second"]) > 0 for row in log)
    assert float(log[0]["learning_rate"]) == pytest.approx(1e-3)
    card = load(path).card.training
    assert [scores["step"] for scores in card["held_out_scores"]] == [2, 3]
    assert card["held_out_scores"][0]["loss"] == pytest.approx(float(log[1]["held_out_loss"]))
    assert card["batches_without_entries"] == {
        name.removeprefix("without_"): int(n) for name, n in log[-1].items() if name.startswith("without_") and n != "0"
    }


def test_rows_after_the_checkpoint_are_dropped_from_a_log_and_new_columns_are_added(tmp_path):
    path = tmp_path / "m.log.tsv"
    log = Log(path, keep_until=0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5 * step})
    log = Log(path, keep_until=2)
    log.write({"step": 3, "loss": 9.0, "held_out_loss": None})
    log.write({"step": 4, "loss": 8.0, "held_out_loss": 7.0})
    assert path.read_text() == "step\tloss\theld_out_loss\n1\t0.5\tNA\n2\t1\tNA\n3\t9\tNA\n4\t8\t7\n"


def test_a_training_that_was_killed_goes_on_to_the_losses_and_the_model_of_an_unbroken_one(candi, store_path, tmp_path):
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    log = tmp_path / "broken.log.tsv"
    run = [
        "train", str(store_path), "--preset", "tiny", "--steps", "60", "--batch-size", "2", "--log-every", "1",
        "--checkpoint-every", "7", "--valid-region", "chr1:250,001-290,000", "--score-every", "10", "--quiet",
    ]  # fmt: skip
    with subprocess.Popen([*CANDI, *run, "-o", str(broken)], env=ENVIRONMENT) as process:
        while not log.exists() or log.read_text().count("\n") < 18:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    done = len(rows(log))
    saved = read(tmp_path / "broken.checkpoint")["step"]
    assert 7 <= saved <= done < 60
    refused = candi(*run, "-o", broken, "--resume", "auto", "--learning-rate", 0.5)
    assert refused.code == 2
    assert "made with other settings (learning-rate was 0.001, is 0.5); give those" in refused.err
    assert candi(*run, "-o", broken, "--resume", "auto").code == 0
    assert candi(*run, "-o", whole).code == 0
    assert numbers(log) == numbers(tmp_path / "whole.log.tsv")
    weights = [load(path).network.state_dict() for path in (whole, broken)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    scores = [load(path).card.training["held_out_scores"] for path in (whole, broken)]
    assert scores[0] == scores[1]
    assert not (tmp_path / "broken.checkpoint").exists()  # the model is complete


def test_a_checkpoint_that_is_not_there_is_refused_and_auto_starts_anew(candi, store_path, tmp_path):
    path = tmp_path / "m.safetensors"
    ran = candi("train", store_path, "-o", path, *QUICK, "--resume", tmp_path / "absent")
    assert ran.code == 2
    assert "no such checkpoint" in ran.err
    assert candi("train", store_path, "-o", path, *QUICK, "--resume", "auto").code == 0


def test_without_tensorboard_the_option_says_how_to_install_it(candi, store_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    ran = candi("train", store_path, "-o", tmp_path / "m.safetensors", *QUICK, "--tensorboard", tmp_path / "board")
    assert ran.code == 2
    assert ran.errors == [
        "candi train: --tensorboard: TensorBoard is not installed; install it with pip install 'candi[tensorboard]'"
    ]


GROUP = """
import os, sys, threading, time
from pathlib import Path
from candi_cli.commands import _processes
group, done = None, threading.Event()
start = _processes._Group.__init__
def watched(self, *rest):
    global group
    start(self, *rest)
    group = self
_processes._Group.__init__ = watched
def act():
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
    if sys.argv[2] == "kill one":
        group.processes[1].kill()
    else:
        os.kill(os.getpid(), 15)
threading.Thread(target=act, daemon=True).start()
code = _processes.launch(sys.argv[3:], 2)
print([process.poll() for process in group.processes])
sys.exit(code)
"""


@pytest.mark.parametrize(("sent", "code"), [("kill one", 137), ("stop all", 143)])
def test_when_one_of_two_processes_is_killed_or_the_command_is_stopped_both_end(store_path, tmp_path, sent, code):
    script, log = tmp_path / "group.py", tmp_path / "m.log.tsv"
    script.write_text(GROUP)
    options = ["--preset", "tiny", "--steps", "100000", "--log-every", "2", "-o", str(tmp_path / "m.safetensors")]
    command = [sys.executable, str(script), str(log), sent, "train", str(store_path), *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, env=ENVIRONMENT)
    assert ran.returncode == code, ran.stderr
    assert "None" not in ran.stdout
    checkpoint = tmp_path / "m.checkpoint"
    assert checkpoint.exists() == (sent == "stop all")
    assert "internal error" not in ran.stderr
    if sent == "kill one":
        assert "process 2 of 2 was ended by SIGKILL" in ran.stderr
        assert len(ran.stderr.splitlines()) <= 3


def test_what_one_process_cannot_use_is_told_and_ends_the_command(store_path, tmp_path):
    command = [*CANDI, "train", str(tmp_path / "absent.h5"), "-o", str(tmp_path / "m.safetensors"), "--nproc", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, env=ENVIRONMENT)
    assert ran.returncode == 1
    assert set(ran.stderr.splitlines()) == {
        line for line in ran.stderr.splitlines() if "absent.h5" in line or "another one ended" in line
    }
    assert "absent.h5" in ran.stderr
