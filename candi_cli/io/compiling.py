"""Loops compiled by numba; where that is not installed, `COMPILES` is false."""

from collections.abc import Callable

try:
    from numba import njit
except ImportError:  # numba lags behind new versions of Python
    njit = None  # type: ignore[assignment]

COMPILES = njit is not None


def compiled(function: Callable) -> Callable:
    """Compile a loop, keeping the result on disk where there is a place for it; without numba it stays as it is.

    What a compiled loop calls must be in its own file: numba's cache is renewed when that file changes, and only then.
    """
    if njit is None:
        return function
    try:
        return njit(function, nogil=True, cache=True)
    except RuntimeError:  # no folder can be written: compiled anew in each process
        return njit(function, nogil=True)
