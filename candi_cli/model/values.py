"""Values of a model card as they come from a file, of which nothing is known yet."""

import reprlib

_LARGEST = 1e300  # JSON has whole numbers that are too large for any float


def is_whole(value: object, low: float, high: float) -> bool:
    """Return whether a value is an integer within limits; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float = -_LARGEST, high: float = _LARGEST) -> bool:
    """Return whether a value is a finite number within limits; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def shorten(value: object) -> str:
    """Return a value on one short line, whatever a file holds."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
