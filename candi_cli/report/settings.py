"""Settings of the drawing library that do not depend on the user's own."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def own_settings() -> Iterator[None]:
    """Draw with the library's defaults, and to the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.style import context

    with ExitStack() as settings:
        settings.enter_context(context("default"))
        settings.enter_context(rc_context({"svg.hashsalt": "candi", "svg.fonttype": "path"}))
        yield
