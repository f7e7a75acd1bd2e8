"""A model file may come from anywhere: what is wrong with it is one line, and nothing in it is run or allocated."""

import hashlib
import io
import json
import math
import operator
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates, encode
from candi_cli.errors import ModelError
from candi_cli.model import AssayCard, ModelCard, load, save
from candi_cli.model.candi import PRESETS, Model, preset
from candi_cli.model.checkpoint import weights_sha256, write
from candi_cli.models import shipped_models

pytestmark = pytest.mark.usefixtures("one_thread")
ASSAYS = ("ATAC-seq", "H3K4me3")
STANDARD = Covariates(2e7, 50.0, "paired-ended", "Illumina HiSeq 2000", 1e9)
ASSAY = AssayCard(("counts", "signal"), STANDARD, (1e6, 3e7), (36.0, 50.0), ("paired-ended",), ("Illumina HiSeq 2000",))


def model_file(path: Path, *, reads_sequence: bool = False) -> Path:
    config = preset("tiny", ASSAYS, resolution=25, reads_sequence=reads_sequence)
    training = {"seed": 0, "scores": [{"step": 1, "loss": math.nan}]}
    card = ModelCard("candi", asdict(config), CountingRule(), dict.fromkeys(ASSAYS, ASSAY), training)
    torch.manual_seed(3)
    save(path, Model(config), card)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return model_file(tmp_path_factory.mktemp("good") / "good.safetensors")


def opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read a safetensors file by its description: the length of the header, the header, the tensors."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def card_of(path: Path) -> dict[str, Any]:
    return json.loads(opened(path)[0]["__metadata__"]["candi"])


def put(path: Path, header: dict[str, Any], content: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def with_card(good: Path, path: Path, card: Any) -> Path:
    """Write the good model with another card: JSON values, or text."""
    header, content = opened(good)
    header["__metadata__"]["candi"] = card if isinstance(card, str) else json.dumps(card)
    return put(path, header, content)


def refused(path: Path) -> str:
    """Assert that a model is refused with one line of path, fact and remedy; return the line after the path."""
    with pytest.raises(ModelError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "; " in line
    assert len(line.splitlines()) == 1
    assert len(line) < len(str(path)) + 300
    return line.removeprefix(f"{path}: ")


# --- the hash -----------------------------------------------------------------------------------------------------


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's tensors without safetensors or torch."""
    header, content = opened(path)
    digest = hashlib.sha256()
    for name in sorted(header.keys() - {"__metadata__"}):
        start, end = header[name]["data_offsets"]
        digest.update(json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode() + b"\n")
        digest.update(content[start:end])
    return digest.hexdigest()


def test_the_hash_is_that_of_names_types_shapes_and_bytes():
    tensors = {"b": torch.tensor([[1.0, -2.0]]), "a": torch.tensor(7, dtype=torch.int64)}
    expected = b'["a", "I64", []]\n' + struct.pack("<q", 7) + b'["b", "F32", [1, 2]]\n' + struct.pack("<2f", 1, -2)
    assert weights_sha256(tensors) == hashlib.sha256(expected).hexdigest()


def test_the_hash_of_any_tensors_is_that_of_their_bytes_in_the_file(tmp_path):
    values = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "wide": values.double(), "half": values.half(), "brain": values.bfloat16(), "turned": values.T,
        "part": values[1:, ::2], "whole": values.int(), "one": torch.tensor(0.5), "none": torch.zeros(0, 5),
        "yes": values > 3, "ü\n": values.byte(), "learned": torch.nn.Parameter(values),
    }  # fmt: skip
    card = ModelCard("candi", {}, CountingRule(), {})
    write(tmp_path / "m.safetensors", tensors, card)
    assert weights_sha256(tensors) == digest_of(tmp_path / "m.safetensors")
    assert card_of(tmp_path / "m.safetensors")["weights_sha256"] == digest_of(tmp_path / "m.safetensors")


def test_a_loaded_model_is_named_by_the_hash_of_its_weights(good, tmp_path):
    loaded = load(good)
    assert loaded.card.weights_sha256 == digest_of(good) == weights_sha256(loaded.network.state_dict())
    save(tmp_path / "again.safetensors", loaded.network, replace(loaded.card, weights_sha256="0" * 64))
    assert (tmp_path / "again.safetensors").read_bytes() == good.read_bytes()


@pytest.mark.parametrize("name", ["counts-core", "signal-core"])
def test_a_model_that_ships_is_named_by_its_hash_and_so_it_is_in_its_description(name):
    path = shipped_models()[name]
    assert load(path).card.weights_sha256 == digest_of(path)
    assert digest_of(path) in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("at", [0.0, 0.3, 0.99999])
def test_weights_with_one_bit_flipped_are_refused(good, tmp_path, at):
    header, content = opened(good)
    changed = bytearray(content)
    changed[int(at * len(content))] ^= 1
    assert "not those that its card was made for" in refused(put(tmp_path / "m.safetensors", header, bytes(changed)))


def test_two_tensors_that_were_exchanged_are_refused(good, tmp_path):
    header, content = opened(good)
    one, other = "covariates_in.mix.0.weight", "covariates_out.mix.0.weight"
    header[one], header[other] = header[other], header[one]
    assert "not those that its card was made for" in refused(put(tmp_path / "m.safetensors", header, content))


@pytest.mark.parametrize("found", [None, "", "0" * 64, "0" * 63, "G" * 64, 0, ["0" * 64]])
def test_a_card_without_the_hash_or_with_another_is_refused(good, tmp_path, found):
    card = card_of(good)
    card["weights_sha256"] = found
    if found is None:
        del card["weights_sha256"]
    line = refused(with_card(good, tmp_path / "m.safetensors", card))
    assert "sha256" in line or "not those that its card was made for" in line


# --- files that are no models -------------------------------------------------------------------------------------


class Bomb:
    """What creates a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "pickle after a header"])
def test_a_pickle_is_refused_and_not_run(good, tmp_path, kind):
    path, witness = tmp_path / "m.safetensors", tmp_path / "witness"
    bomb = {"model": Bomb(witness), "weight": torch.zeros(3)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif kind == "pickle after a header":
        put(path, opened(good)[0], pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=kind == "torch")
    refused(path)
    assert not witness.exists()
    if kind != "pickle after a header":  # it would have gone off
        content = io.BytesIO(path.read_bytes())
        torch.load(content, weights_only=False) if "torch" in kind else pickle.load(content)
        assert witness.exists()


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000, -1])
def test_a_file_that_is_cut_is_refused(good, tmp_path, n):
    path = tmp_path / "m.safetensors"
    path.write_bytes(good.read_bytes()[:n])
    assert "not a model file, or damaged" in refused(path)


def test_what_is_no_file_is_refused(tmp_path):
    assert "is a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "absent.safetensors")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    assert "not a file" in refused(tmp_path / "pipe")


def test_files_of_other_programs_are_refused(good, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    assert "not a candi model" in refused(path)
    np.savez(path.with_suffix(".npz"), weight=np.zeros(3))
    assert "not a model file" in refused(path.with_suffix(".npz"))
    path.write_text("weights\n")
    assert "not a model file" in refused(path)


@pytest.mark.parametrize("kind", ["F8_E4M3", "C64", "I8", "I16"])
def test_weights_of_a_strange_type_are_refused(good, tmp_path, kind):
    header, content = opened(good)
    size = {"C64": 8, "I16": 2}.get(kind, 1)
    header["strange"] = {"dtype": kind, "shape": [1], "data_offsets": [len(content), len(content) + size]}
    assert f"type {kind}" in refused(put(tmp_path / "m.safetensors", header, content + bytes(size)))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
        lambda header: header.update(more={"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}),
        lambda header: header["fusion.0.bias"].update(shape=[1, 32]),
        lambda header: header["fusion.0.bias"].update(shape=[2**62]),
        lambda header: header["fusion.0.bias"].update(shape=[10**40]),
        lambda header: header["fusion.0.bias"].update(shape=[-1]),
        lambda header: header.update({"fusion.9.bias": header.pop("fusion.0.bias")}),
        lambda header: header.update({f"t{n}": {**header["fusion.0.bias"]} for n in range(10_001)}),
    ],
    ids=["one more", "an empty one", "a shape", "a huge one", "a number", "a sign", "a name", "many"],
)  # fmt: skip
def test_tensors_that_are_not_those_of_the_configuration_are_refused(good, tmp_path, change):
    header, content = opened(good)
    change(header)
    refused(put(tmp_path / "m.safetensors", header, content))


# --- configurations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("reads_sequence", [False, True])
@pytest.mark.parametrize("n_assays", [1, 35, 400])
def test_the_presets_pass_the_check(name, reads_sequence, n_assays):
    assays = tuple(f"assay {n}" for n in range(n_assays))
    preset(name, assays, resolution=25, reads_sequence=reads_sequence).check()


def test_every_field_of_a_configuration_is_checked():
    config = preset("base", ASSAYS, resolution=25, reads_sequence=True)
    for each in fields(config):
        for value in (object(), None, "text", math.nan, [1], {}, (None,), ((),)):
            with pytest.raises(ValueError, match=each.name.removesuffix("s")):
                replace(config, **{each.name: value}).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"flank_bins": 120}, {"flank_bins": -1}, {"context_bins": 241}, {"context_bins": 200_000}, {"n_sab": 0},
        {"d_model": 0}, {"d_model": 32.0}, {"d_model": True}, {"lane_skips": 1}, {"signal_widths": [4, 4, 0]},
        {"signal_widths": []}, {"signal_widths": [4, 4]}, {"decoder_widths": [4, 4, 4, 4]}, {"signal_widths": [4] * 17},
        {"sequence_widths": [8, 8]}, {"sequence_widths": [8] * 5, "resolution": 50}, {"dropout": -0.1},
        {"dropout": 1e999}, {"depth_range": [20.0, 10.0]}, {"depth_range": [20.0]}, {"depth_range": [-math.inf, 30.0]},
        {"input": "reads"}, {"assays": []}, {"assays": ["ATAC-seq", "ATAC-seq"]}, {"assays": "ATAC-seq"},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_no_network_can_have_is_refused(good, tmp_path, changes):
    card = card_of(good)
    card["config"].update(changes)
    assert "configuration cannot be used" in refused(with_card(good, tmp_path / "m.safetensors", card))


ABSURD: dict[str, dict[str, Any]] = {
    "width": {"d_model": 10**9},
    "layers": {"n_sab": 10**9},
    "a network of 290 MB": {"d_model": 3000},
    "window": {"context_bins": 10**9},
    "levels": {"smoothing_levels": 10**9},
    "stages": {"signal_widths": [8] * 100_000, "decoder_widths": [8] * 100_000},
    "assays": {"assays": [f"a{n}" for n in range(200_000)]},
    "all at their limits": {
        "d_model": 100_000, "n_sab": 256, "n_head": 1000, "dim_head": 10_000, "covariate_width": 100_000,
        "cross_width": 100_000, "signal_widths": [100_000] * 3, "decoder_widths": [100_000] * 3, "context_bins": 99_992,
        "shared_head": False, "smoothing_levels": 16,
    },
}  # fmt: skip
MEASURE = """
import json, re, resource, sys, time
from pathlib import Path
from candi_cli.errors import ModelError
from candi_cli.model import load

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

load(Path(sys.argv[1]))
limit = (kilobytes("VmSize") + 400 * 1024) * 1024  # what touches no memory is seen too
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[2:]:
    before, start = kilobytes("VmHWM"), time.monotonic()
    try:
        load(Path(path))
        line = "loaded"
    except ModelError as error:
        line = str(error)
    print(json.dumps([line, (kilobytes("VmHWM") - before) / 1024, time.monotonic() - start]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux does")
def test_an_absurd_model_takes_neither_memory_nor_time(good, tmp_path):
    paths = []
    for name, changes in ABSURD.items():
        card = card_of(good)
        card["config"].update(changes)
        paths.append(with_card(good, tmp_path / f"{name}.safetensors", card))
    for name, text in {"lists": f"[{'[],' * 10**7}1]", "deep": "[" * 10**5, "long": '"' + "a" * 2**26 + '"'}.items():
        paths.append(with_card(good, tmp_path / f"{name}.safetensors", text))
    command = [sys.executable, "-c", MEASURE, str(good), *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(found) == len(paths)
    for path, (line, megabytes, seconds) in zip(paths, found, strict=True):
        assert line.startswith(f"{path}: "), line
        assert "; " in line
        assert megabytes < 150, (line, megabytes)
        assert seconds < 10, line


def test_checking_the_shapes_leaves_chance_and_the_network_as_they_are(tmp_path):
    path = model_file(tmp_path / "dna.safetensors", reads_sequence=True)
    torch.manual_seed(5)
    built = Model(preset("tiny", ASSAYS, resolution=25, reads_sequence=True))
    expected = torch.rand(3)
    torch.manual_seed(5)
    network = load(path).network
    assert torch.equal(torch.rand(3), expected)
    assert network.state_dict().keys() == built.state_dict().keys()
    buffers = dict(network.named_buffers())
    assert buffers.keys() == dict(built.named_buffers()).keys()
    for name, buffer in built.named_buffers():
        assert torch.equal(buffers[name], buffer)


# --- cards --------------------------------------------------------------------------------------------------------

UNSAFE = [
    "", ".", "..", ".hidden", "../H3K4me3", "/etc/passwd", "a/b", "a\\b", "C:\\x", "a\0b", "a\nb", "a\tb", "\x1b[2J",
    "a\x7f", "a\x85", "a\u2028b", "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_an_assay_that_cannot_be_part_of_a_file_name_is_refused(good, tmp_path, name):
    card = card_of(good)
    card["config"]["assays"][0] = name
    card["assays"][name] = card["assays"].pop("ATAC-seq")
    assert "the assay " in refused(with_card(good, tmp_path / "m.safetensors", card))
    with pytest.raises(ValueError, match="the assay "):
        preset("tiny", (name,), resolution=25, reads_sequence=False)


@pytest.mark.parametrize("name", ["H3K4me3 (rep 1)", "eGFP-ZNF7", "DNase-seq.v2", "H2A.Z", "β-catenin", "a~b+c"])
def test_other_names_are_welcome(good, tmp_path, name):
    card = card_of(good)
    card["config"]["assays"][0] = name
    card["assays"][name] = card["assays"].pop("ATAC-seq")
    assert load(with_card(good, tmp_path / "m.safetensors", card)).config.assays == (name, "H3K4me3")


@pytest.mark.parametrize("change", ["fewer", "more", "other"])
def test_a_card_of_other_assays_than_the_network_has_is_refused(good, tmp_path, change):
    card = card_of(good)
    if change != "more":
        del card["assays"]["ATAC-seq"]
    if change != "fewer":
        card["assays"]["other"] = card["assays"]["H3K4me3"]
    assert "not those of the card" in refused(with_card(good, tmp_path / "m.safetensors", card))


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "1", '"candi"', "NaN", "{}", "[" * 2000, '{"a":' * 2000, "9" * 5000]
)
def test_a_card_that_is_none_is_refused(good, tmp_path, text):
    assert "card cannot be used" in refused(with_card(good, tmp_path / "m.safetensors", text))


def test_a_card_that_is_deep_but_can_be_parsed_is_refused(good, tmp_path):
    card, deep = card_of(good), []
    for _ in range(150):
        deep = [deep]
    card["training"] = {"deep": deep}
    assert "too deep" in refused(with_card(good, tmp_path / "m.safetensors", card))


Where = tuple[str | int, ...]


def places(value: Any, where: Where = ()) -> list[Where]:
    """Return where the values of a card are, each list or object before what is in it."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(place for key, each in inside for place in places(each, (*where, key)))]


def changed(card: Any, where: Where, change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of a card after `change(parent, key)` of one of its values."""
    copy = [json.loads(json.dumps(card))]
    parent: Any = copy
    steps = (0, *where)
    for step in steps[:-1]:
        parent = parent[step]
    change(parent, steps[-1])
    return copy[0]


def with_value(card: Any, where: Where, value: Any) -> Any:
    return changed(card, where, lambda parent, key: operator.setitem(parent, key, value))


def loads_or_is_refused(path: Path) -> None:
    """Assert that a file is refused with one line, or loaded and of use."""
    try:
        loaded = load(path)
    except ModelError:
        refused(path)
        return
    card = loaded.card
    assert ModelCard.from_json(card.to_json()).to_json() == card.to_json()
    assert str(card.counting)
    assert "--resolution" in card.counting.options()
    assert encode([each.standard for each in card.assays.values()]).shape == (4, len(ASSAYS))
    assert 0 < loaded.config.core_bins <= loaded.config.context_bins
    for each in card.assays.values():
        for low, high in filter(None, (each.depth_range, each.read_length_range)):
            assert math.isfinite(low + high)


WRONG = [
    None, True, -1, 0, 1, 3, 0.5, 10**9, 10**400, math.nan, math.inf, -math.inf, "", "text", "../x", "\n\x1b[2J",
    "\ud800", [], [1], [None, None], [math.nan, 1], [[]], {}, {"a": 1}, {"\n": []}, ["text", 1, {}],
]  # fmt: skip
WHERE = sorted({tuple(0 if isinstance(step, int) else step for step in where) for where in places({
    **json.loads(ModelCard("candi", asdict(preset("tiny", ASSAYS, resolution=25, reads_sequence=False)), CountingRule(),
                           {ASSAYS[0]: ASSAY}).to_json())
})}, key=str)  # fmt: skip


@pytest.mark.parametrize("where", WHERE, ids=lambda where: ".".join(map(str, where)) or "card")
def test_a_field_of_any_wrong_kind_is_refused_or_harmless(good, tmp_path, where):
    card, path = card_of(good), tmp_path / "m.safetensors"
    for value in WRONG:
        loads_or_is_refused(with_card(good, path, with_value(card, where, value)))
    if where:
        loads_or_is_refused(with_card(good, path, changed(card, where, operator.delitem)))


@pytest.mark.parametrize("where", ["", "config", "counting", "assays.ATAC-seq", "assays.ATAC-seq.standard"])
def test_a_field_that_is_not_known_is_refused_with_its_name(good, tmp_path, where):
    steps = tuple(where.split(".")) if where else ()
    card = changed(card_of(good), steps, lambda parent, key: parent[key].update({"sur\nprise": 1}))
    assert re.search(r"sur\\nprise", refused(with_card(good, tmp_path / "m.safetensors", card)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(WHERE[1:]), JSON), min_size=1, max_size=3))
def test_a_card_of_anything_is_refused_or_harmless(good, tmp_path_factory, changes):
    card = card_of(good)
    for where, value in changes:
        try:
            card = with_value(card, where, value)
        except (KeyError, IndexError, TypeError):  # what was there has been replaced
            continue
    loads_or_is_refused(with_card(good, tmp_path_factory.getbasetemp() / "anything.safetensors", card))
