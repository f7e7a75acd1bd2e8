"""How a command should have ended, for the tests of several commands."""

from typing import Any


def one_line(ran: Any, *parts: object, code: int = 1) -> None:
    """Assert that a command failed with one line that holds a fact, a remedy, and `parts`."""
    assert ran.code == code, ran.err
    (line,) = ran.errors
    assert line.startswith("candi ")
    assert "; " in line, "no remedy"
    for part in parts:
        assert str(part) in line
