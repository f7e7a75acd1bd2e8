"""Checkpoints: complete or absent, never executed, and only for the training that they are of."""

import pickle

import pytest
import torch

from candi_cli.errors import ModelError, OutputError, RequestError
from candi_cli.model import resume
from candi_cli.model.resume import Checkpoints

STATE = {
    "step": 3,
    "model": {"w": torch.tensor([1.0, torch.nan, -0.0]), "b": torch.tensor(2, dtype=torch.int64)},
    "history": [{"step": 2, "held_out": None}],
    "best_loss": float("inf"),
}


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "m.checkpoint"
    Checkpoints(path, {"seed": 1}).save(STATE)
    checkpoints = Checkpoints(path, {"seed": 1}, resume=path)
    state = checkpoints.load()
    assert state is not None
    assert torch.equal(state["model"]["w"].view(torch.int32), STATE["model"]["w"].view(torch.int32))
    assert {name: state[name] for name in ("step", "history", "best_loss")} == {
        name: STATE[name] for name in ("step", "history", "best_loss")
    }
    assert checkpoints.resumed_at == 3
    assert [file.name for file in tmp_path.iterdir()] == ["m.checkpoint"]


def test_a_checkpoint_of_other_settings_is_refused_and_each_difference_named(tmp_path):
    path = tmp_path / "m.checkpoint"
    Checkpoints(path, {"learning-rate": 0.001, "seed": 1, "thin": 0.9}).save(STATE)
    with pytest.raises(RequestError) as refused:
        Checkpoints(path, {"learning-rate": 0.002, "seed": 1, "patience": 3}, resume=path).load()
    assert "learning-rate was 0.001, is 0.002; thin was 0.9, is not set; patience was not set, is 3" in str(
        refused.value
    )
    assert "seed" not in str(refused.value)


@pytest.mark.parametrize("damage", ["cut", "text", "another torch file", "a pickle that runs", "absent", "version"])
def test_what_is_not_a_checkpoint_is_refused_in_one_line_and_never_executed(tmp_path, damage):
    path, witness = tmp_path / "m.checkpoint", tmp_path / "witness"
    Checkpoints(path, {}).save(STATE)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "another torch file":
        torch.save({"model": {}}, path)
    elif damage == "a pickle that runs":

        class Trap:
            def __reduce__(self):
                return (witness.touch, ())

        path.write_bytes(pickle.dumps(Trap()))
    elif damage == "version":
        torch.save({**STATE, "format": resume.FORMAT, "format_version": 99, "settings": {}}, path)
    else:
        path.unlink()
    with pytest.raises(ModelError) as refused:
        Checkpoints(path, {}, resume=path).load()
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
    assert not witness.exists()


@pytest.mark.parametrize("fault", ["disk full", "not what was written"])
def test_the_previous_checkpoint_stays_until_the_next_is_complete_and_read_back(tmp_path, monkeypatch, fault):
    path = tmp_path / "m.checkpoint"
    checkpoints = Checkpoints(path, {})
    checkpoints.save(STATE)
    before = path.read_bytes()
    save = torch.save

    def faulty(state, file):
        if fault == "disk full":
            file.write(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")
        save({**state, "model": {**state["model"], "w": torch.zeros(3)}}, file)

    monkeypatch.setattr(torch, "save", faulty)
    with pytest.raises(OutputError):
        checkpoints.save({**STATE, "step": 4})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.checkpoint"]


def test_a_checkpoint_is_due_every_so_many_steps_or_seconds():
    by_steps = Checkpoints(None, {}, steps=3)
    assert [step for step in range(1, 10) if by_steps.due(step, reported=False)] == [3, 6, 9]
    by_time = Checkpoints(None, {}, seconds=1e-9)
    assert by_time.due(1, reported=True)
    assert not by_time.due(1, reported=False)  # processes only share their reported steps
    assert not Checkpoints(None, {}, seconds=1e9).due(1, reported=True)
    assert not Checkpoints(None, {}).due(1, reported=True)
