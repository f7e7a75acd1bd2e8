"""The model file: one safetensors file whose metadata hold a JSON card. Nothing in it is ever executed.

A file may come from anywhere, so each field of its card is checked before it is used, and its weights by the SHA-256 in
the card. What a configuration may be is checked by its family.
"""

import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from candi_cli import __version__
from candi_cli.counting import RULES, CountingRule
from candi_cli.covariates import PLATFORMS, RUN_TYPES, Covariates
from candi_cli.errors import ModelError
from candi_cli.model.recalibration import Recalibration
from candi_cli.model.values import is_number, is_whole, shorten
from candi_cli.models import shipped_models

FORMAT = "candi-model"
FORMAT_VERSION = 1
_CARD_KEY = "candi"
_OUTPUTS = ("counts", "signal", "peaks")
_LONGEST_CARD, _MOST_LISTS = 2**25, 500_000  # characters, lists and objects; 30,000 experiments take 2^23 and 2^15
_DEEPEST_CARD = 100  # lists and objects in each other; a card has 5, and 2 more for each model that it went on from
_WORDS = {"family": r"\w{1,40}", "candi_version": r"[\w.+-]{1,80}", "weights_sha256": r"([0-9a-f]{64})?"}
_MOST_TENSORS = 10_000
_RULE_LIMITS = {"resolution": (1, 10**9), "min_mapq": (0, 255), "excl_flags": (0, 0xFFFF)}
_LARGEST_SHIFT = 10**6  # bp
_KINDS = {  # of numbers, as safetensors names them
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class AssayCard:
    """What a model learned of one assay.

    Attributes
    ----------
    outputs : those of counts, signal and peaks that training had targets for
    standard : the covariates of its output unless others are asked for (depth in reads per Gb)
    depth_range : reads per Gb of the training data, thinned and whole; None where no depth is known, as of a signal
    read_length_range : bp; run_types, platforms : those in the training data
    """

    outputs: tuple[str, ...]
    standard: Covariates
    depth_range: tuple[float, float] | None
    read_length_range: tuple[float, float] | None
    run_types: tuple[str, ...]
    platforms: tuple[str, ...]

    @classmethod
    def from_json(cls, values: Any, *, what: str) -> "AssayCard":
        """Rebuild an assay's card; raise ValueError when it is not one."""
        found = checked_fields(values, cls, what=what)
        for name, known in (("outputs", _OUTPUTS), ("run_types", RUN_TYPES), ("platforms", PLATFORMS)):
            if not isinstance(found[name], list) or not all(each in known for each in found[name]):
                raise ValueError(f"{what}: {name} are {shorten(found[name])}, not known ones")
            found[name] = tuple(found[name])
        for name in ("depth_range", "read_length_range"):
            if found[name] is not None:
                found[name] = _ends(found[name], what=f"{what}: {name}")
        return cls(**{**found, "standard": _covariates(found["standard"], what=f"{what}: standard")})


@dataclass(frozen=True)
class ModelCard:
    """What travels with the weights: how to rebuild the network, and what it may be used for.

    `weights_sha256` is the name of the weights, as the function below makes it; it is filled in when a file is written.
    """

    family: str
    config: dict[str, Any]
    counting: CountingRule
    assays: dict[str, AssayCard]
    training: dict[str, Any] = field(default_factory=dict)
    candi_version: str = __version__
    format_version: int = FORMAT_VERSION
    weights_sha256: str = ""
    recalibration: Recalibration | None = None

    def to_json(self) -> str:
        """Return the card as JSON text."""
        vocabularies = {"run_type": RUN_TYPES, "platform": PLATFORMS}
        card = {**asdict(self), "format": FORMAT, "counting": self.counting.to_json(), "vocabularies": vocabularies}
        return json.dumps(card, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Rebuild a card; raise ValueError when it is not one."""
        card = _parsed(text)
        if not isinstance(card, dict) or card.pop("format", None) != FORMAT:
            raise ValueError("another format")
        if not is_whole(card.get("format_version"), FORMAT_VERSION, FORMAT_VERSION):
            found = shorten(card.get("format_version"))
            raise ValueError(f"format version {found}, this program reads {FORMAT_VERSION}")
        _check_vocabularies(card.pop("vocabularies", None))
        card = checked_fields(card, cls, what="it")
        for name in ("config", "assays", "training"):
            if not isinstance(card.get(name, {}), dict):
                raise ValueError(f"{name} is no JSON object")
        for name, pattern in _WORDS.items():
            if name in card and not (isinstance(card[name], str) and re.fullmatch(pattern, card[name])):
                raise ValueError(f"{name} is {shorten(card[name])}")
        for assay in card["assays"]:
            check_file_name(assay)
        assays = {
            assay: AssayCard.from_json(values, what=f"assay {shorten(assay)}")
            for assay, values in card["assays"].items()
        }
        fits = card.get("recalibration")
        recalibration = Recalibration.from_json(fits) if fits is not None else None
        rebuilt = {"counting": _counting_rule(card["counting"]), "assays": assays, "recalibration": recalibration}
        return cls(**{**card, **rebuilt})


def check_file_name(assay: object) -> None:
    """Raise ValueError for an assay whose name would hide a file that is named after it, or lead out of its folder."""
    unsafe = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters, ends of lines and paragraphs
    if not isinstance(assay, str) or not assay or assay.startswith("."):
        raise ValueError(f"the assay {shorten(assay)} has an empty name or one that starts with a dot")
    if any(letter in "/\\" or unicodedata.category(letter) in unsafe for letter in assay):
        raise ValueError(f"the assay {shorten(assay)} has a slash, a backslash or a control character in its name")


def checked_fields(values: Any, kind: Any, *, what: str) -> dict[str, Any]:
    """Return the fields of a dataclass `kind` from JSON; raise ValueError where one is unknown or missing."""
    if not isinstance(values, dict):
        raise ValueError(f"{what} is no JSON object")
    known = {each.name: each.default is MISSING and each.default_factory is MISSING for each in fields(kind)}
    for name in values:
        if name not in known:
            raise ValueError(f"{what} has {shorten(name)}, which this program does not know")
    for name, needed in known.items():
        if needed and name not in values:
            raise ValueError(f"{what} has no {name}")
    return dict(values)


def _parsed(text: str) -> Any:
    """Return what JSON text holds; raise ValueError when it is none, or larger or deeper than any card."""
    if len(text) > _LONGEST_CARD or text.count("[") + text.count("{") > _MOST_LISTS:
        raise ValueError("it is larger than any card")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON, or nested too deep") from error
    level, depth = [card], 0
    while level:
        if depth > _DEEPEST_CARD:
            raise ValueError("it is nested too deep")
        parts = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level, depth = [value for part in parts for value in part], depth + 1
    return card


def _check_vocabularies(found: Any) -> None:
    for name, known in (("run_type", RUN_TYPES), ("platform", PLATFORMS)):
        names = found.get(name) if isinstance(found, dict) else None
        if not isinstance(names, list) or tuple(names) != known[: len(names)]:
            raise ValueError(f"another {name} vocabulary")


def _ends(values: Any, *, what: str) -> tuple[float, float]:
    if not isinstance(values, list) or len(values) != 2 or not all(is_number(each, 0) for each in values):
        raise ValueError(f"{what} is {shorten(values)}, not two numbers")
    return values[0], values[1]


def _covariates(values: Any, *, what: str) -> Covariates:
    found = Covariates(**checked_fields(values, Covariates, what=what))
    for name in ("depth", "read_length", "span_bp"):
        if getattr(found, name) is not None and not is_number(getattr(found, name), 0):
            raise ValueError(f"{what}: {name} is {shorten(getattr(found, name))}, not a number from 0")
    if found.run_type not in (None, *RUN_TYPES) or found.platform not in (None, *PLATFORMS):
        raise ValueError(f"{what}: {shorten(found.run_type)}, {shorten(found.platform)} are not known")
    return found


def _counting_rule(values: Any) -> CountingRule:
    found = {"shift": [0, 0], **checked_fields(values, CountingRule, what="counting")}
    shift = found["shift"]
    if not isinstance(shift, list) or len(shift) != 2:
        raise ValueError(f"counting: shift is {shorten(shift)}, not two numbers")
    rule = CountingRule.from_json(found)
    if (
        rule.rule not in RULES
        or not isinstance(rule.keep_duplicates, bool)
        or not all(is_whole(getattr(rule, name), *limits) for name, limits in _RULE_LIMITS.items())
        or not all(is_whole(value, -_LARGEST_SHIFT, _LARGEST_SHIFT) for value in shift)
    ):
        raise ValueError(f"counting: {shorten(found)} is no rule")
    return rule


def weights_sha256(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors sorted by name: of each, a line of JSON with name, type and shape, then its bytes.

    The type is named as in the file (`F32`), the bytes are those of the file: row by row, little-endian.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, _KINDS[tensor.dtype], list(tensor.shape)]).encode() + b"\n")
        content = tensor.reshape(-1).view(torch.uint8)
        if sys.byteorder == "big":
            content = content.unflatten(0, (-1, tensor.element_size())).flip(1).contiguous()
        digest.update(content.numpy().data)
    return digest.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], card: ModelCard) -> None:
    """Write a model file; the caller renames it when complete."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    named = replace(card, weights_sha256=weights_sha256(contiguous))
    save_file(contiguous, str(path), metadata={_CARD_KEY: named.to_json()})


class Header(NamedTuple):
    """What a model file says before any of its tensors is read: its card, and their shapes by name."""

    card: ModelCard
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    """Read the card and the tensors' shapes.

    Raises
    ------
    ModelError
        It is missing, not a model file, or of a version that this program does not read.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_CARD_KEY)
        if text is None:
            raise ModelError(f"{path}: a safetensors file but not a candi model; make one with 'candi train'")
        names = list(file.keys())
        if len(names) > _MOST_TENSORS:
            raise ModelError(f"{path}: has {len(names):,} tensors, more than any model; give one made by 'candi train'")
        parts = {name: file.get_slice(name) for name in names}
        shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
        strange = sorted({part.get_dtype() for part in parts.values()}.difference(_KINDS.values()))
    if strange:
        raise ModelError(f"{path}: has weights of the type {strange[0]}; give a model made by 'candi train'")
    try:
        card = ModelCard.from_json(text)
    except ValueError as error:
        raise ModelError(f"{path}: its card cannot be used ({error}); train it again with this version") from error
    if not card.weights_sha256:
        raise ModelError(f"{path}: its card has no weights_sha256 to check its weights by; fetch or train it again")
    return Header(card, shapes)


def read(path: Path, card: ModelCard) -> dict[str, Tensor]:
    """Read the tensors of a model file.

    Raises
    ------
    ModelError
        They are not those that the card was made for.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if weights_sha256(tensors) != card.weights_sha256:
        raise ModelError(f"{path}: its weights are not those that its card was made for; fetch it again")
    return tensors


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; what is wrong with it is a ModelError."""
    try:
        if not path.is_file():
            fact = "is a folder" if path.is_dir() else "not a file" if path.exists() else "no such file"
            raise ModelError(f"{path}: {fact}; give a model file, or one that ships: {', '.join(shipped_models())}")
        path.open("rb").close()  # safetensors says of a file that may not be read that it is not there
        with safe_open(str(path), framework="pt") as file:
            yield file
    except PermissionError as error:
        raise ModelError(f"{path}: may not be read ({error.strerror}); check its permissions") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a model file, or damaged; give one made by 'candi train'") from error
