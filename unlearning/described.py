"""Closed lists of words, each with what it means in a sentence."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Described(StrEnum):
    """An enumeration whose members are written ``NAME = "word", "what it means"``.

    Attributes
    ----------
    words
        What the member means, for a reader; its value is what is typed and kept.
    """

    words: str

    def __new__(cls, value: str, words: str = "") -> Self:
        """A member; it is looked up by its value alone."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.words = words
        return member
