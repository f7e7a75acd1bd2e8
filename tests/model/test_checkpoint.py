"""Model files: complete, safe and refused when they do not fit."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from candi_cli.counting import CountingRule
from candi_cli.covariates import UNKNOWN
from candi_cli.errors import ModelError
from candi_cli.model import load, save
from candi_cli.model.checkpoint import ModelCard, weights_sha256


def card_of(path) -> dict:
    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["candi"])


def rewrite(path, target, change):
    card = card_of(path)
    change(card)
    save_file(load_file(path), target, metadata={"candi": json.dumps(card)})
    return target


def test_a_model_is_the_same_after_a_round_trip(model_path, tmp_path):
    loaded = load(model_path)
    save(tmp_path / "again.safetensors", loaded.network, loaded.card)
    again = load(tmp_path / "again.safetensors")
    assert again.card == loaded.card
    assert again.config == loaded.config
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name])
    assert (tmp_path / "again.safetensors").read_bytes() == model_path.read_bytes()


def test_the_card_tells_what_the_model_was_trained_on(model_path):
    card = load(model_path).card
    assert set(card.assays) == {"H3K27me3", "H3K36me3", "H3K4me3", "H3K9me3"}
    assert card.assays["H3K9me3"].outputs == ("counts",)
    assert card.assays["H3K4me3"].outputs == ("counts", "signal", "peaks")
    assert card.assays["H3K4me3"].run_types == ("paired-ended", "single-ended")
    assert card.counting == CountingRule()
    assert card.training["test_chroms"] == ["chr2"]
    files = card.training["stores"][0]["experiments"]["sim1/H3K4me3"]
    assert files == ["sim1.H3K4me3.bam", "sim1.H3K4me3.bw", "sim1.H3K4me3.narrowPeak"]
    assert ModelCard.from_json(card.to_json()) == card


def test_the_card_names_no_folder(model_path):
    card = card_of(model_path)
    del card["training"]["command"]  # the user's own words
    assert "/" not in "".join(str(value) for value in card["training"].values()).replace("sim1/", "").replace(
        "sim2/", ""
    )


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda card: card.update(family="other"), "family 'other'"),
        (lambda card: card.update(format_version=99), "version 99"),
        (lambda card: card["config"].update(d_model=64), "do not fit"),
        (lambda card: card["config"].update(surprise=1), "'surprise', which this program does not know"),
        (lambda card: card["vocabularies"].update(platform=["missing", "MiSeq"]), "platform vocabulary"),
        (lambda card: card.pop("assays"), "card"),
    ],
    ids=["family", "version", "weights", "config", "vocabulary", "assays"],
)
def test_a_file_that_does_not_fit_is_refused(model_path, tmp_path, change, fact):
    path = rewrite(model_path, tmp_path / "changed.safetensors", change)
    with pytest.raises(ModelError, match=fact) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


def test_a_vocabulary_of_an_older_version_still_loads(model_path, tmp_path):
    card, tensors = card_of(model_path), load_file(model_path)
    card["vocabularies"]["platform"].pop()
    names = [name for name in tensors if name.endswith("platform.weight")]
    for name in names:
        tensors[name] = tensors[name][:-1].clone()
    card["weights_sha256"] = weights_sha256(tensors)
    save_file(tensors, tmp_path / "older.safetensors", metadata={"candi": json.dumps(card)})
    loaded = load(tmp_path / "older.safetensors").network.state_dict()
    assert len(names) == 2
    for name in names:
        assert torch.equal(loaded[name][:-1], tensors[name])
        assert torch.equal(loaded[name][-1], tensors[name][UNKNOWN])


def test_a_pickle_is_refused_without_being_executed(tmp_path):
    path = tmp_path / "pickle.safetensors"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="not a model file"):
        load(path)
