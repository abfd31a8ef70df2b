"""Numbers and names as words, for readers who are no experts."""

from __future__ import annotations

from collections.abc import Sequence

_NUMBERS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``three hospitals``, ``1 round``: small counts in words, with the noun in the right number."""
    word = _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"
    return f"{word} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nobody"


def signed(decibel: float, digits: int = 2) -> str:
    """``+0.24``, ``−3.10``: always with a sign, with a true minus, and no ``−0.00``."""
    text = f"{decibel:+.{digits}f}"
    return f"{0:.{digits}f}" if not text.strip("+-0.") else text.replace("-", "−")


def percent(share: float) -> str:
    """``10 %``, ``7.4 %``: a share of one, its sign kept on the line."""
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def duration(seconds: float) -> str:
    """``48 s``, ``4 min``, ``1 h 29 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(number: int) -> str:
    """``512 B``, ``36.4 MB``, with powers of a thousand."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
