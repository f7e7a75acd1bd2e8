"""Imports point down, siblings never import each other, and each heavy library has one home."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "candi_cli"
FLOORS = [
    {"commands"},
    {"model", "report"},
    {"binning", "export", "judging"},
    {"encode"},
    {"io", "store", "evaluation", "loci", "biosamples", "splits"},
    {"genome", "covariates", "counting"},
    {"contigs", "models"},
    {"parts"},
    {"processes"},
    {"errors"},
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
HOMES = {
    "click": "commands",
    "rich": "commands",
    "torch": "model",
    "x_transformers": "model",
    "safetensors": "model",
    "pysam": "io",
    "pyBigWig": "io",
    "h5py": "store",
    "numba": "io",
    "matplotlib": "report",
    "jinja2": "report",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_of(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names if name.startswith("candi_cli.")]
    return {part[1] for part in parts if part[1] in FLOOR_OF}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = room(path)
    if own in ("__init__", "__main__"):
        return
    assert own in FLOOR_OF, f"{own} has no floor in FLOORS"
    for other in rooms_of(imported(path)) - {own}:
        assert FLOOR_OF[other] > FLOOR_OF[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_heavy_library_has_one_home(path):
    for name in imported(path):
        library = name.split(".")[0]
        if library in HOMES:
            assert room(path) == HOMES[library], f"{library} outside of {HOMES[library]}"


def test_families_do_not_import_each_other():
    families = [path for path in (PACKAGE / "model").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for family in families:
        for path in family.rglob("*.py"):
            for other in families:
                if other != family:
                    assert not any(f"candi_cli.model.{other.name}" in name for name in imported(path))


def test_every_module_of_the_package_is_on_a_floor():
    rooms = {room(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= set(FLOOR_OF)
