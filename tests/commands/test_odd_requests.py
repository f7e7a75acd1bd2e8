"""Requests that are odd: streams that are closed or full, names, numbers and folders that cannot be meant."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from outcomes import one_line

from candi_cli.commands._amounts import counted, size

TEST_DATA = Path(__file__).parents[2] / "test_data"
SHEET = TEST_DATA / "meta.tsv"
CANDI = [sys.executable, "-m", "candi_cli"]


@pytest.fixture
def few(candi, model_path, pair_store_path):
    """Write tracks of a few bins of H3K4me3 and return how it ended."""

    def run(output, *options, assay="H3K4me3", quiet=True):
        more = ("--quiet",) if quiet else ()
        given = ("-m", model_path, "--assay", assay, "-o", output, "-r", "chr2:1-1,000")
        return candi("impute", pair_store_path, *given, *options, *more)

    return run


def warnings(ran) -> list[str]:
    assert ran.code == 0, ran.err
    return [line for line in ran.errors if "warning: " in line and "platform" not in line and "range" not in line]


# ---- streams


@pytest.fixture(scope="module")
def to_stdout(model_path, pair_store_path) -> list[str]:
    """A command whose output is larger than what a stream keeps back."""
    options = ["-m", str(model_path), "--assay", "H3K4me3", "-o", "-", "-r", "chr2", "--quiet"]
    return [*CANDI, "impute", str(pair_store_path), *options]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_takes_only_the_beginning_is_an_error(to_stdout, tmp_path, unbuffered):
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # a write beyond it is cut, the next one fails

    ran = {}
    for name, prepare in (("whole", None), ("cut", limited)):
        with (tmp_path / name).open("wb") as stdout:
            environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "OMP_NUM_THREADS": "1"}
            ran[name] = subprocess.run(
                to_stdout, stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=prepare, env=environment
            )
    assert ran["whole"].returncode == 0
    assert (tmp_path / "whole").read_bytes().count(b"\n") > 3_000
    assert ran["cut"].returncode == 1
    assert ran["cut"].stderr.startswith("candi impute: -: cannot be written (File too large); ")
    assert len(ran["cut"].stderr.splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("target", "code"), [("/dev/full", 1), ("| head -1", 141)])
def test_a_full_device_ends_with_1_and_a_reader_that_leaves_with_141(to_stdout, unbuffered, target, code):
    words = " ".join(f"'{word}'" for word in to_stdout)
    script = f"{words} {target}; exit ${{PIPESTATUS[0]}}" if target[0] == "|" else f"{words} > {target}"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert ran.returncode == code
    assert len(ran.stderr.splitlines()) == (code == 1)


@pytest.mark.parametrize(
    ("streams", "output", "code"), [(">&-", "-", 1), (">&- 2>&- <&-", "out.bw", 0), ("2>&-", "absent/out.bw", 1)]
)
def test_closed_streams_end_with_a_documented_code(to_stdout, tmp_path, streams, output, code):
    words = " ".join(f"'{word}'" for word in to_stdout if word != "--quiet").replace("'-'", f"'{output}'")
    script = f"{words} {streams}"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == code
    assert "internal error" not in ran.stderr
    assert ("stdout is closed; " in ran.stderr) == (output == "-")
    assert (tmp_path / "out.bw").exists() == (code == 0)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_ends_with_129_and_leaves_no_file_unless_it_is_ignored(model_path, tmp_path, ignored):
    given = [*CANDI, "denoise", str(TEST_DATA / "sim1.H3K4me3.bam"), "--covariates", str(SHEET), "-m", str(model_path)]

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    command = [*given, "-o", str(tmp_path / "out.bw")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ignore) as process:
        assert "records counted" in process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == (0 if ignored else 129)
    assert (tmp_path / "out.bw").exists() == ignored
    assert [path for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


# ---- names and numbers


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--interval", "nan"), "--interval"), (("--interval", "inf"), "--interval"),
        (("--interval", "0.9999999999999999"), "--interval"),  # its upper bound would be the quantile 1
        (("--threshold", "nan", "-O", "narrowpeak"), "--threshold"),
        (("--threshold", "0", "-O", "narrowpeak"), "--threshold"),
        (("--threshold", "0.3"), "add -O narrowpeak"),
        (("--batch-size", 10**12), "--batch-size"), (("--batch-size", 10**25), "--batch-size"),
        (("--interval", "0.5", "--interval", "0.9"), "--interval: is given twice"),
        (("-o", "other.bw"), "-o / --output: is given twice"),
        (("--provenance", ""), "--provenance"), (("-T", os.fsdecode(b"\xff.fa")), "not UTF-8"),
        (("-r", "chr7"), "-r: region chr7"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_wrong_usage_and_writes_nothing(few, tmp_path, options, part):
    one_line(few(tmp_path / "out.bw", *options), part, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "part"), [("", "empty"), (os.fsdecode(b"\xff.bw"), "'\\udcff.bw'")])
def test_an_output_needs_a_name_that_is_text(few, tmp_path, monkeypatch, name, part):
    monkeypatch.chdir(tmp_path)
    one_line(few(name), part, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_is_no_output(few, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for output, options in ((loop, ()), (loop / "out.bw", ()), (tmp_path / "out.bw", ("--provenance", loop))):
        one_line(few(output, *options), loop, "leads to itself", code=1)
    assert list(tmp_path.iterdir()) == [loop]


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (("-O", "bedgraph"), "out.bw: is written as bedgraph"),
        (("--as", "H3K9me3:depth=9000"), "--as H3K9me3: no track of it is written, only of H3K4me3"),
        (("--covariates", SHEET), f"--covariates {SHEET}: is not used"),
        (("-g", TEST_DATA / "chrom.sizes"), f"-g {TEST_DATA / 'chrom.sizes'}: is not used"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_has_no_effect_is_told(few, tmp_path, options, warning):
    assert warnings(few(tmp_path / "plain.bw", quiet=False)) == []
    (told,) = warnings(few(tmp_path / "out.bw", *options, quiet=False))
    assert warning in told


# ---- folders


def test_a_slash_at_the_end_asks_for_a_folder(few, tmp_path):
    assert few(f"{tmp_path}/tracks.bw/").code == 0
    assert (tmp_path / "tracks.bw" / "sim1.H3K4me3.bw").is_file()
    assert (tmp_path / "tracks.bw" / "manifest.json").is_file()


@pytest.mark.parametrize("name", ["index.html", "manifest.json", "igv_session.xml", "hub"])
def test_what_others_wrote_into_the_folder_is_not_replaced(few, tmp_path, name):
    (tmp_path / name).write_text('{"files": []}')
    one_line(few(tmp_path), tmp_path / name, "another folder", code=1)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"files": []}')]


def test_tracks_of_an_earlier_run_that_are_no_part_of_the_delivery_are_told(few, tmp_path):
    assert warnings(few(f"{tmp_path}/tracks/", "--interval", 0.9, quiet=False)) == []
    (told,) = warnings(few(tmp_path / "tracks", quiet=False))
    assert "sim1.H3K4me3.lower.bw, sim1.H3K4me3.upper.bw are left of an earlier run" in told
    manifest = json.loads((tmp_path / "tracks" / "manifest.json").read_text())
    assert [entry["path"] for entry in manifest["files"]] == ["sim1.H3K4me3.bw"]


def test_a_new_folder_goes_again_when_nothing_comes_to_lie_in_it(candi, model_path, tmp_path):
    cut, folder = tmp_path / "sim1.H3K4me3.bam", tmp_path / "tracks"
    whole = TEST_DATA / "sim1.H3K4me3.bam"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    given = (cut, "--covariates", SHEET, "-m", model_path, "-o", f"{folder}/", "--quiet")
    one_line(candi("denoise", *given), cut, code=1)
    assert not folder.exists()
    folder.mkdir()
    one_line(candi("denoise", *given), cut, code=1)
    assert folder.exists()


def test_names_that_differ_in_case_alone_are_refused(tmp_path):
    from candi_cli.commands._track_files import FilePlan, Planned, place_for
    from candi_cli.errors import OutputError

    names = ["a.ATAC.bw", "a.atac.bw"]
    plan = FilePlan(tmp_path / "t", True, ("counts",), [Planned(tmp_path / "t" / name, "bigwig") for name in names])
    with pytest.raises(OutputError, match=r"a\.atac\.bw: differs from a\.ATAC\.bw"), place_for(plan, (), inputs=()):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- tracks that were never learned: the model has no signal of H3K9me3


@pytest.mark.parametrize("assay", ["all", "H3K4me3,H3K9me3"])
def test_of_several_tracks_the_one_that_was_never_learned_is_left_out_alone(few, tmp_path, assay):
    ran = few(tmp_path / "tracks", "--track", "counts", "--track", "signal", assay=assay, quiet=False)
    (told,) = warnings(ran)
    assert "never learned signal of H3K9me3: left out" in told
    kinds = {path.name.split(".")[2] for path in (tmp_path / "tracks").glob("sim1.H3K9me3.*")}
    others = {path.name.split(".")[2] for path in (tmp_path / "tracks").glob("sim1.H3K4me3.*")}
    assert (kinds, others) == ({"counts"}, {"counts", "signal"})


def test_denoise_leaves_out_what_was_never_learned_while_something_is_left(candi, model_path, store_path, tmp_path):
    common = ("-m", model_path, "--track", "signal", "-r", "chr2:1-1,000")
    ran = candi("denoise", store_path, *common, "-o", tmp_path / "tracks")
    assert "never learned signal of H3K9me3: left out" in warnings(ran)[0]
    assert {path.name.split(".")[1] for path in (tmp_path / "tracks").glob("*.bw")} == {
        "H3K4me3", "H3K27me3", "H3K36me3"
    }  # fmt: skip


def test_a_track_that_is_asked_for_by_its_own_name_alone_and_its_assays_is_refused(few, tmp_path):
    ran = few(tmp_path / "tracks", "--track", "signal", assay="H3K4me3,H3K9me3")
    one_line(ran, "never learned signal of H3K9me3", code=1)
    assert list(tmp_path.iterdir()) == []


# ---- dry runs


def test_a_dry_run_of_many_contigs_counts_a_window_for_each_and_names_a_few(candi, model_path, tmp_path):
    sizes, reads, sheet = tmp_path / "chrom.sizes", tmp_path / "reads.bed", tmp_path / "sheet.tsv"
    sizes.write_text("".join(f"scaffold_{number}\t1000\n" for number in range(10_000)))
    reads.write_text("scaffold_1\t10\t60\tr\t60\t+\n")
    sheet.write_text("biosample\tassay\nsim1\tH3K4me3\n")
    given = ("-g", sizes, "--covariates", sheet, "-m", model_path, "-o", tmp_path / "out.bw", "--dry-run")
    ran = candi("denoise", reads, *given)
    assert ran.code == 0, ran.err
    told = dict(line.split("\t") for line in ran.out.splitlines())
    assert told["windows"].startswith("10,000, ")
    assert told["contigs"] == "10,000: scaffold_0, scaffold_1, scaffold_2, scaffold_3 and 9996 more"


def test_amounts_are_read_in_the_unit_that_fits():
    sizes = {0: "0 B", 999: "999 B", 1_500: "1.5 kB", 40e6: "40.0 MB", 1.25e9: "1.2 GB", 5e15: "5,000.0 TB"}
    assert {n_bytes: size(n_bytes) for n_bytes in sizes} == sizes
    assert [counted(n, "part") for n in (0, 1, 10_000)] == ["0 parts", "1 part", "10,000 parts"]
