"""Names of users in figures: on one line, not too long, and in letters that the font has."""

from functools import cache

from candi_cli.report.appearance import one_line

_NO_PICTURE = "\N{WHITE SQUARE}"


def drawable(text: str, longest: int | None = None) -> str:
    """Return a text on one line in which a square stands for each letter that the font cannot draw.

    The drawing library would warn of those letters, and draw a box of its own.
    """
    return "".join(letter if _has_picture(letter) else _NO_PICTURE for letter in one_line(text, longest))


@cache
def _has_picture(letter: str) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = (get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight))) for weight in ("normal", "bold"))
    return all(font.get_char_index(ord(letter)) for font in fonts)
