"""Signals whose exception Python drops, as it does of all that is raised in the callback of a weak reference."""

import signal
import weakref
from pathlib import Path

import pytest

from candi_cli.commands._output import replacing
from candi_cli.errors import OutputError
from candi_cli.export.files import TrackFile
from candi_cli.processes import ending_on_signals, heed_signals
from candi_cli.store.latents import LatentWriter
from candi_cli.store.predictions import PredictionWriter

TEST_DATA = Path(__file__).parents[2] / "test_data"
BAM, SHEET = TEST_DATA / "sim1.H3K4me3.bam", TEST_DATA / "meta.tsv"
ENDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Referred:
    """Something that a weak reference can be made to."""


def send_where_it_is_dropped(number: int) -> None:
    referred = Referred()
    reference = weakref.ref(referred, lambda _: signal.raise_signal(number))
    del referred
    assert reference() is None


@pytest.fixture
def arguments(model_path, tmp_path) -> list[str]:
    output = ["-o", str(tmp_path / "out.bw"), "--latent", str(tmp_path / "Z.h5")]
    return ["denoise", str(BAM), "--covariates", str(SHEET), "-m", str(model_path), "--batch-size", "4", *output]


@pytest.fixture
def dropped(monkeypatch):
    """Let a signal come and be dropped after the second call of a method, and count its calls."""

    def at(kind: type, name: str, number: int) -> list[int]:
        calls: list[int] = []
        method = getattr(kind, name)

        def called(self, *values):
            found = method(self, *values)
            calls.append(len(calls))
            if len(calls) == 2:
                send_where_it_is_dropped(number)
            return found

        monkeypatch.setattr(kind, name, called)
        return calls

    return at


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("writer", [PredictionWriter, LatentWriter])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_ends_before_its_next_window(candi, arguments, dropped, monkeypatch, tmp_path, number, writer, quiet):
    calls = dropped(writer, "add", number)
    if quiet:
        arguments.append("--quiet")
    if number == signal.SIGINT:
        assert candi(*arguments).code == 130
    else:
        with pytest.raises(SystemExit) as ended:
            candi(*arguments)
        assert ended.value.code == 143
    assert calls == [0, 1]
    assert not (tmp_path / "Z.h5").exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_no_file_gets_its_name_after_a_signal_that_came_while_the_last_one_was_written(
    candi, arguments, dropped, tmp_path
):
    calls = dropped(TrackFile, "write", signal.SIGINT)
    assert candi(*arguments, "--interval", "0.9", "-@", 1).code == 130
    assert len(calls) < 3
    assert not list(tmp_path.glob("*.bw"))


@pytest.mark.parametrize("number", ENDS)
def test_a_dropped_signal_is_raised_at_the_next_safe_point_and_a_new_block_begins_without_it(number, tmp_path):
    def work() -> None:
        with ending_on_signals():
            send_where_it_is_dropped(number)
            with replacing(tmp_path / "out") as temporary:
                temporary.write_text("all")

    with pytest.raises(ENDS[number]):
        work()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ENDS[number]):
        heed_signals()
    with ending_on_signals():
        heed_signals()


@pytest.mark.parametrize("number", ENDS)
def test_an_error_that_a_library_makes_of_a_signal_is_the_signal(number):
    def work() -> None:
        with ending_on_signals():
            try:
                signal.raise_signal(number)
            except BaseException as error:
                raise OutputError("cannot be written") from error

    with pytest.raises(ENDS[number]):
        work()


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(OutputError, match="as it was"), ending_on_signals():
        raise OutputError("as it was")


def test_interrupts_that_a_shell_has_turned_off_stay_off(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_on_signals():
            signal.raise_signal(signal.SIGINT)
            heed_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_failure_after_the_tracks_were_written_tells_of_the_parts_that_it_leaves_and_resume_uses_them(
    candi, arguments, monkeypatch, tmp_path
):
    add = LatentWriter.add

    def failing(self, biosample, region, values):
        raise OutputError(f"{tmp_path / 'Z.h5'}: the disk is full; make room on that disk, and run the command again")

    monkeypatch.setattr(LatentWriter, "add", failing)
    ran = candi(*arguments)
    assert ran.code == 1
    assert "warning: 2 of 2 parts are kept; give --resume to go on from them" in ran.err
    assert "the disk is full" in ran.errors[-1]
    track = (tmp_path / "out.bw").read_bytes()
    monkeypatch.setattr(LatentWriter, "add", add)
    monkeypatch.setattr(PredictionWriter, "add", failing)
    again = candi(*arguments, "--resume")
    assert again.code == 0, again.err
    assert {path.name for path in tmp_path.iterdir()} == {"out.bw", "Z.h5"}
    assert (tmp_path / "out.bw").read_bytes() == track
