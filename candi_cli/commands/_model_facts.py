"""What `candi info` tells of models: the card of one, or a list of several."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from candi_cli.model import Loaded, load
from candi_cli.model.recalibration import Recalibration

_COLUMNS = ("name", "input", "assays", "parameters", "counting", "recalibrated", "trained_on", "path")


def models_table(models: Mapping[str, Path]) -> str:
    """Return a table of models, one a line below the names of its columns.

    An assay stands with its outputs, as in `H3K4me3:counts,signal;H3K9me3:counts`.
    """
    lines = ["\t".join(_COLUMNS)]
    for name, path in models.items():
        model = load(path)
        assays = ";".join(f"{assay}:{','.join(item.outputs)}" for assay, item in model.card.assays.items())
        recalibrated = "yes" if model.card.recalibration else "no"
        cells = (
            name, model.config.input, assays, str(_parameters(model)), str(model.card.counting), recalibrated,
            trained_on(model.card.training), str(path),
        )  # fmt: skip
        lines.append("\t".join(cells))
    return "\n".join(lines)


def models_json(models: Mapping[str, Path]) -> str:
    """Return the same as JSON."""
    found = []
    for name, path in models.items():
        model = load(path)
        card = model.card
        found.append({
            "name": name,
            "input": model.config.input,
            "assays": {assay: list(item.outputs) for assay, item in card.assays.items()},
            "parameters": _parameters(model),
            "bytes": path.stat().st_size,
            "counting": card.counting.to_json(),
            "recalibrated": card.recalibration is not None,
            "trained_on": trained_on(card.training),
            "weights_sha256": card.weights_sha256,
            "path": str(path),
        })  # fmt: skip
    return json.dumps(found, indent=1)


def _parameters(model: Loaded) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def trained_on(training: Mapping[str, Any]) -> str:
    """Return the biosamples and the regions that the card of a model says it was trained on, NA where it says nothing.

    What a card says of its training may be of any kind.
    """
    stores = [store for store in _list(training.get("stores")) if isinstance(store, dict)]
    experiments = [name for store in stores for name in _list(list(_dict(store.get("experiments"))))]
    biosamples = dict.fromkeys(name.partition("/")[0] for name in experiments)
    regions, held_out = (_list(training.get(name)) for name in ("regions", "test_chroms"))
    where = ", ".join(regions) or "all regions"
    if held_out:
        where += f" but {', '.join(held_out)}"
    return _plain(f"{', '.join(biosamples)}: {where}") if biosamples else "NA"


def _list(value: Any) -> list[Any]:
    return [each for each in value if isinstance(each, str | dict)] if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def model_text(model: Loaded) -> str:
    """Return the card of a model, and how it was recalibrated, as lines of names and values and as tables."""
    card = model.card
    lines = [
        f"model\t{model.path}",
        f"family\t{card.family}",
        f"candi version\t{card.candi_version}",
        f"input\t{model.config.input}",
        f"parameters\t{_parameters(model):,}",
        f"counting\t{card.counting}",
        f"trained on\t{trained_on(card.training)}",
        f"weights sha256\t{card.weights_sha256}",
        "",
        "assay\toutputs\tdepth\tread_length\trun_types\tplatforms",
    ]
    for assay, item in card.assays.items():
        depths = "-".join(f"{value:.3g}" for value in item.depth_range) + " reads/Gb" if item.depth_range else "NA"
        lengths = "-".join(f"{value:.0f}" for value in item.read_length_range) if item.read_length_range else "NA"
        choices = [",".join(names) or "NA" for names in (item.outputs, item.run_types, item.platforms)]
        lines.append("\t".join([assay, choices[0], depths, lengths, *choices[1:]]))
    return "\n".join([*lines, *_recalibration_lines(card.recalibration)])


def _recalibration_lines(recalibration: Recalibration | None) -> list[str]:
    """Return what 'candi calibrate --fit' changed, and what it was fitted on; nothing of a model that it did not."""
    if recalibration is None:
        return []
    lines = [""]
    for name, fact in recalibration.fitted_on.items():
        shown = ", ".join(map(str, fact)) if isinstance(fact, list) else str(fact)
        lines.append(f"recalibrated: {_plain(name.replace('_', ' '))}\t{_plain(shown)}")
    lines += ["", "assay\tmade\ttrack\tbins\tscale and shift\tscores before -> after"]
    for fit in recalibration.fits:
        factors = ", ".join(f"{name} {scale:.3g} {shift:+.3g}" for name, (scale, shift) in fit.parameters.items())
        scores = ", ".join(
            f"{_plain(name)} {score:.3g} -> {fit.after.get(name, math.nan):.3g}" for name, score in fit.before.items()
        )
        lines.append("\t".join([_plain(fit.assay), fit.pool, fit.kind, str(fit.n_bins), factors, scores or "NA"]))
    return lines


def _plain(text: str) -> str:
    """Return text of a card, which may come from anywhere, without line breaks and control characters."""
    return "".join(each if each.isprintable() else " " for each in text)
