"""Numbers as people read them: sizes in the unit that fits, and how many there are of a thing."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(n_bytes: float) -> str:
    """Return a size such as 12.3 MB."""
    amount, units = float(n_bytes), iter(_UNITS)
    unit = next(units)
    for larger in units:
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:,.0f} B" if unit == "B" else f"{amount:,.1f} {unit}"


def counted(n: int, noun: str) -> str:
    """Return a number and its noun, such as `1 part` or `2 parts`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
