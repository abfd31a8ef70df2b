"""The look of the models: one name, colour, marker and line in every figure and table.

Colours are Okabe and Ito's (told apart with any colour vision), darkened for contrast on white; since
colour alone must never carry a meaning, each model has its own marker and line style too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INK = "#1c2430"
MUTED = "#5b6673"
RULE = "#d5dae0"
GOOD = "#00664b"
BAD = "#a8320a"
SHADE = "#e8eef6"


@dataclass(frozen=True, slots=True)
class ModelStyle:
    """How a model is drawn and named.

    Attributes
    ----------
    label, symbol
        Name in words and in the paper's notation.
    colour
        CSS colour with a contrast of at least 4.5 : 1 on white.
    marker, line
        matplotlib's marker and line style.
    """

    label: str
    symbol: str
    colour: str
    marker: str
    line: str

    @property
    def title(self) -> str:
        """Label and symbol: ``oracle Ĝ``."""
        return f"{self.label} {self.symbol}".strip()

    @property
    def face(self) -> str:
        """Fill of the marker: the oracle, as the reference, is an open frame that others show through."""
        return "none" if self.label == "oracle" else self.colour


_STYLES = {
    "original": ModelStyle("original", "G", "#b84a00", "o", ":"),
    "oracle": ModelStyle("oracle", "Ĝ", INK, "s", "--"),
    "unlearned": ModelStyle("unlearned", "Gᵤ", "#0068a8", "D", "-"),
    "continued": ModelStyle("continued", "Gᵤ⁺", "#00775a", "^", "-."),
}

MODELS = tuple(_STYLES)
"""The models every report knows, in the order in which they are shown."""


def style_of(model: str) -> ModelStyle:
    """Style of a model; a further method that was compared goes by its own name, in purple."""
    return _STYLES.get(model) or ModelStyle(model, "", "#8a3f73", "v", "-.")


def ordered(models: Iterable[str]) -> list[str]:
    """``models`` in the order in which they are shown: the known ones, then the others as they come."""
    names = list(models)
    return [name for name in MODELS if name in names] + [name for name in names if name not in MODELS]
