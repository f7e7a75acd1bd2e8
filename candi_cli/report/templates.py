"""What the pages share: one frame, one look, and how numbers are written."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

NOT_KNOWN = "not known"


def templates() -> "Environment":
    """Return where templates of this room are found and rendered: what is put into them is text, never markup."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    loader = FunctionLoader(lambda name: files("candi_cli.report").joinpath(name).read_text(encoding="utf-8"))
    return Environment(autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def readable(value: Any) -> str:
    """Return a value as people read it: numbers with four digits, or whole ones with all of theirs."""
    if value is None:
        return NOT_KNOWN
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
