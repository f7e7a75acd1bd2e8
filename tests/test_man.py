"""The man pages say what the commands and the store say."""

import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import zlib
from pathlib import Path
from types import ModuleType

import click
import h5py
import numpy as np
import pytest

from candi_cli.commands import candi as program
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.io.tally import BLOCK_BP
from candi_cli.store import FORMAT_VERSION, Store

MAN = Path(__file__).parents[1] / "man"
ROOT = click.Context(program, info_name="candi", **program.context_settings)
COMMANDS = {name: program.get_command(ROOT, name) for name in program.list_commands(ROOT)}
PAGES = sorted([*MAN.glob("*.1"), *MAN.glob("*.5")])
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"]


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The module man/make.py."""
    spec = importlib.util.spec_from_file_location("man_make", MAN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(page: Path) -> str:
    """The text of a page without roff's fonts and escapes."""
    text = re.sub(r"\\f[BIR]", "", page.read_text())
    for escape, character in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ti", "~"), (r"\&", ""), (r"\e", "\\")):
        text = text.replace(escape, character)
    return text


def entry(page: Path, option: click.Option) -> str:
    """What a page says of an option: its line of names, and its text in one line."""
    text = plain(page).split(".SH OPTIONS\n")[1].split("\n.SH ")[0]
    for block in text.split(".TP\n"):
        names, _, meaning = block.partition("\n")
        if set(re.findall(r"(?<!\S)-[-\w@]+", names)) == {*option.opts, *option.secondary_opts}:
            return f"{names}\n{' '.join(meaning.split())}"
    raise AssertionError(f"{page.name} does not list {option.opts}")


def page_of(context: click.Context) -> Path:
    return MAN / f"{context.command_path.replace(' ', '-')}.1"


def contexts() -> list[click.Context]:
    return [ROOT, *(click.Context(command, info_name=name, parent=ROOT) for name, command in COMMANDS.items())]


def options() -> list:
    return [
        pytest.param(page_of(context), option, context, id=f"{context.info_name} {option.name}")
        for context in contexts()
        for option in context.command.get_params(context)
        if isinstance(option, click.Option) and not option.hidden
    ]


def test_pages_are_those_that_make_writes_now(make, tmp_path):
    written = make.write_pages(tmp_path)
    assert {path.name for path in written} == {path.name for path in MAN.glob("*.1")}
    for path in written:
        assert path.read_bytes() == (MAN / path.name).read_bytes(), f"{path.name} is old; run 'make man'"


def test_pages_do_not_depend_on_the_environment(make, tmp_path, monkeypatch):
    for name, value in (("COLUMNS", "40"), ("LC_ALL", "C"), ("CANDI_MODEL", "other.safetensors"), ("HOME", "/nowhere")):
        monkeypatch.setenv(name, value)
    for path in make.write_pages(tmp_path):
        assert path.read_bytes() == (MAN / path.name).read_bytes()


def test_every_command_has_a_page():
    assert {path.stem for path in MAN.glob("*.1")} == {"candi", *(f"candi-{name}" for name in COMMANDS)}


@pytest.mark.parametrize(("page", "option", "context"), options())
def test_an_option_is_told_with_its_value_default_choices_and_variable(page, option, context):
    names, meaning = entry(page, option).split("\n", 1)
    assert meaning.startswith(" ".join(re.sub(r"'(candi[^']*)'", r"\1", option.help).split()))
    if option.metavar:
        assert option.metavar in names
    if isinstance(option.type, click.Choice):
        assert all(str(choice) in names for choice in option.type.choices)
    if "default" in option.get_help_extra(context):
        assert f"default: {option.get_help_extra(context)['default']}" in meaning
    if option.envvar:
        assert f"environment: {option.envvar}" in meaning
        assert option.envvar in plain(MAN / "candi.1").split(".SH ENVIRONMENT")[1].split(".SH")[0]
    assert ("[required" in meaning) == option.required


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_well_formed(page):
    lines = page.read_text(encoding="ascii").splitlines()
    first = next(line for line in lines if not line.startswith('.\\"'))
    name, section = page.stem, page.suffix[1:]
    assert first.startswith(f".TH {name.upper()} {section} ".replace("-", r"\-"))
    name_line = lines[lines.index(".SH NAME") + 1]
    assert name_line.replace(r"\-", "-").startswith(f"{name} - ")
    assert lines.count(".nf") == lines.count(".fi")
    assert lines.count(".RS") + lines.count(".RS 4") == lines.count(".RE")
    filled = re.sub(r"^\.nf\n.*?^\.fi$", ".nf", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in filled.splitlines() if not line.strip() or line[0] in " '"] == []
    if section == "1":
        found = [line.removeprefix(".SH ") for line in lines if line.startswith(".SH ")]
        assert [title for title in found if title in SECTIONS] == SECTIONS


def test_what_one_option_says_in_full():
    option = next(param for param in COMMANDS["train"].params if param.name == "seed")
    meaning = "Seed of everything random. [default: 0; range: x>=0]"
    assert entry(MAN / "candi-train.1", option) == f"--seed INTEGER\n{meaning}"


def test_the_page_of_the_program_lists_commands_and_environment():
    text = plain(MAN / "candi.1")
    listed = text.split(".SH COMMANDS\n")[1].split(".SH ")[0]
    assert re.findall(r"^\.TP\ncandi (\S+)$", listed, re.MULTILINE) == list(COMMANDS)
    assert ".SH ENVIRONMENT\n" in text


def test_a_page_refers_only_to_pages_that_exist():
    for page in PAGES:
        for name, section in re.findall(r"^\.BR (candi\S*) \((\d)\)", page.read_text(), re.MULTILINE):
            assert (MAN / f"{name.replace(chr(92), '')}.{section}").exists(), f"{page.name}: {name}({section})"


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not here")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing_but_the_absent_date(page):
    found = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False)
    assert [line for line in found.stdout.splitlines() if "missing date" not in line] == []


def test_every_command_has_an_example(make):
    assert set(make.EXAMPLES) == {"candi", *COMMANDS}
    for name, examples in make.EXAMPLES.items():
        assert any(f"candi {name} " in lines or name == "candi" for lines in examples.values())


def test_every_example_is_a_command_line_that_parses(make):
    for examples in make.EXAMPLES.values():
        for text in examples.values():
            assert max(map(len, text.splitlines())) <= 76
            for line in text.replace("\\\n", "").splitlines():
                first, *arguments = shlex.split(line)
                if first == "candi":
                    COMMANDS[arguments[0]].make_context(arguments[0], arguments[1:], parent=ROOT)


@pytest.fixture
def store(tmp_path, rng) -> Path:
    """A store with all layers, of which chr2 has no read."""
    path = tmp_path / "store.h5"
    with Store.create(
        path, rule=CountingRule(), chromsizes={"chr1": 300_010, "chr2": 1000}, command="candi bin"
    ) as new:
        new.add_experiment("K562", "H3K4me3")
        n_bins = new.n_bins("chr1")
        folds = rng.poisson(1, (n_bins, 2)).astype(np.uint32)
        layers = {
            "counts": folds.sum(axis=1, dtype=np.uint32), "folds": folds,
            "signal": np.ones(n_bins, np.float32), "peaks": np.ones(n_bins, np.uint8),
        }  # fmt: skip
        for layer, values in layers.items():
            new.write("K562", "H3K4me3", layer, "chr1", values)
        new.write_blocks("K562", "H3K4me3", "chr1", np.ones(4, np.uint32), BLOCK_BP)
        new.describe("K562", "H3K4me3", Covariates(depth=1000.0, span_bp=300_010.0), fold_depths=(500, 500))
    return path


def names_in(path: Path) -> set[str]:
    """Every name of a group, dataset, attribute and JSON key of a store, without those that its user chose."""
    names: set[str] = set()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        parts = [part for part in name.split("/") if part]
        names.update(parts[:1] if parts[:1] == ["biosamples"] else parts)
        names.update(parts[3:4])
        for key, value in item.attrs.items():
            names.add(key)
            if isinstance(value, str) and value[:1] in "{[":
                read = json.loads(value)
                for part in read if isinstance(read, list) else [read]:
                    names.update(part)

    with h5py.File(path) as file:
        add("", file)
        file.visititems(add)
    return names


def test_the_page_of_the_store_names_all_that_is_in_one(store):
    assert {"counts", "folds", "signal", "peaks", "blocks", "block_bp", "resolution", "span_bp"} <= names_in(store)
    words = set(re.findall(r"\w+", plain(MAN / "candi-store.5")))
    assert names_in(store) - words == set()


def test_the_page_of_the_store_names_all_that_candi_bin_writes(store_path):
    assert {"sources", "mtime", "fold_depths"} <= names_in(store_path)
    words = set(re.findall(r"\w+", plain(MAN / "candi-store.5")))
    assert names_in(store_path) - words == set()


def test_the_page_of_the_store_tells_types_and_storage_truly(store):
    text = plain(MAN / "candi-store.5")
    assert f"format version {FORMAT_VERSION}" in text
    assert f"({BLOCK_BP})" in text
    with h5py.File(store) as file:
        assert f"The integer {file.attrs['format_version']} ({file.attrs['format_version'].dtype})" in text
        experiment = file["biosamples/K562/H3K4me3"]
        assert f"An {experiment.attrs['fold_depths'].dtype} array" in text
        for layer in experiment:
            dtype = experiment[layer]["chr1"].dtype
            said = re.search(rf"^ +{layer}/CHROM +(\w+) ", text, re.MULTILINE)[1]
            assert str(dtype) == said or (said == "uint" and dtype.kind == "u"), layer
            assert "chr2" not in experiment[layer]
        for layer in ("counts", "folds", "signal", "peaks"):
            dataset = experiment[layer]["chr1"]
            assert f"chunks of {dataset.chunks[-1]} bins" in text.replace("\n", " ")
            assert (dataset.compression, dataset.fletcher32) == ("gzip", False)
            assert dataset.shuffle == (dataset.dtype.itemsize > 1)
            assert dataset.attrs["crc32"] == zlib.crc32(dataset[:].tobytes())
        assert file["biosamples/K562/H3K4me3/folds/chr1"].shape[0] == 2
        assert experiment["counts/chr1"].dtype == np.uint8
        assert experiment["blocks/chr1"].chunks is None


@pytest.mark.parametrize("chrom", ["chr1", "chr2"])
def test_the_example_of_the_store_reads_a_store(store, chrom):
    example = re.search(r"\.nf\n(import json\n.*?)\.fi", plain(MAN / "candi-store.5"), re.DOTALL)[1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example.replace("store.h5", str(store)).replace('"chr1"', f'"{chrom}"'), {})
    with Store.open(store) as opened:
        mean = opened.read("K562", "H3K4me3", "counts", chrom, 4000, 4040).mean()
    assert f"{mean:.2f} reads a bin" in printed.getvalue()
    assert "1000.0 reads over 300010.0 bp" in printed.getvalue()
