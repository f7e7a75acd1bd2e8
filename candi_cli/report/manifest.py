"""`manifest.json`: every delivered file with its checksum, and how it was made."""

import json
from pathlib import Path
from typing import Any

from candi_cli.report.delivery import Delivery
from candi_cli.report.files import DeliveredFile, delivered_files


def write_manifest(delivery: Delivery, *, path: Path | None = None) -> Path:
    """Write `manifest.json`, or another file, and return its path; the same delivery gives the same bytes."""
    facts = {
        "chromsizes": delivery.chromsizes,
        "command": delivery.command,
        "experiments": delivery.experiments,
        "files": [_entry(file) for file in delivered_files(delivery)],
        "genome": delivery.genome,
        "inputs": delivery.inputs,
        "interval": delivery.interval,
        "model": delivery.model,
        "notes": delivery.notes,
        "regions": {biosample: [list(region) for region in found] for biosample, found in delivery.regions.items()},
        "resolution": delivery.resolution,
        "versions": delivery.versions,
    }
    path = path or delivery.folder / "manifest.json"
    text = json.dumps(facts, sort_keys=True, indent=2, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8", newline="\n")
    return path


def _entry(file: DeliveredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": file.path.as_posix(), "size": file.n_bytes, "sha256": file.sha256}
    if file.track is not None:
        entry |= {name: getattr(file.track, name) for name in ("biosample", "assay", "kind", "quantity", "observed")}
    return entry
