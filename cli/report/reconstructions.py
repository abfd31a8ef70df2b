"""Example slices as pictures: magnitude images and error maps on one common scale."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from cli.report.pictures import ZERO_FILLED, Image, PictureRow, Pictures
from cli.report.words import percent

# Bytes all pictures may take before base64, so that the report stays easy to send by mail.
BUDGET_BYTES = 3_600_000
_ERRORS = "magma"
_WORDS = {
    ZERO_FILLED: "zero-filled",
    "original": "original G",
    "unlearned": "unlearned Gᵤ",
    "oracle": "oracle Ĝ",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture with its alternative text and caption."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One slice: columns of an image and its error map, the truth first, which has none."""

    title: str
    columns: tuple[tuple[Cell, Cell | None], ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """All strips with the one scale of their error maps.

    Attributes
    ----------
    scale
        Upper end of the error scale in words.
    bar
        ``data:`` address of the colour bar.
    reduced
        Whether pictures were made smaller to keep the report small.
    """

    strips: tuple[Strip, ...]
    scale: str
    bar: str
    reduced: bool


def gallery(pictures: Pictures) -> Gallery | None:
    """Prepare the reconstructions, the withdrawn sites first; ``None`` if there is none."""
    rows = sorted(pictures.rows, key=lambda row: not row.withdrawn)
    if not rows:
        return None
    scale = pictures.error_scale()
    names = [name for name in _WORDS if any(name in row.images for row in rows)]
    edge = int(min(256, (BUDGET_BYTES / (len(rows) * (2 * len(names) + 1))) ** 0.5))
    strips = tuple(_strip(row, [name for name in names if name in row.images], scale, edge) for row in rows)
    return Gallery(
        strips,
        percent(scale),
        _bar(),
        reduced=any(max(row.truth.shape) > edge for row in rows),
    )


def _strip(row: PictureRow, names: list[str], scale: float, edge: int) -> Strip:
    top = row.truth.max()
    where = f"{row.organ}, site {row.site}"
    truth = Cell(_grey(row.truth / top, edge), f"Fully sampled reference: {where}.", "truth")
    columns: list[tuple[Cell, Cell | None]] = [(truth, None)]
    for name in names:
        word, psnr = _WORDS[name], f"{row.psnr(name):.1f} dB"
        seen = f"{word} reconstruction: {where}, {psnr}."
        image = Cell(_grey(row.images[name] / top, edge), f"{seen[0].upper()}{seen[1:]}", word)
        error = Cell(_coloured(row.error(name) / scale, edge), f"Error of the {seen}", psnr)
        columns.append((image, error))
    left = ", withdrawn" if row.withdrawn else ""
    site = row.site if row.site == row.organ else f"{row.site} ({row.organ})"
    return Strip(f"{site}{left}: volume {row.volume}, slice {row.slice}", tuple(columns))


def _grey(image: Image, edge: int) -> str:
    return _png(Pillow.fromarray(_eight_bit(_reduced(image, edge))))


def _coloured(share: Image, edge: int) -> str:
    levels = _eight_bit(_reduced(share, edge))
    picture = Pillow.frombytes("P", (levels.shape[1], levels.shape[0]), levels.tobytes())
    table = mpl.colormaps[_ERRORS](np.arange(256), bytes=True)[:, :3]
    picture.putpalette(np.asarray(table).tobytes())
    return _png(picture)


def _reduced(image: Image, edge: int) -> Image:
    if max(image.shape) <= edge:
        return image
    factor = edge / max(image.shape)
    shape = tuple(max(1, round(side * factor)) for side in image.shape)
    small = Pillow.fromarray(image.astype(np.float32)).resize((shape[1], shape[0]), Pillow.Resampling.BOX)
    return np.asarray(small)


def _eight_bit(share: Image) -> npt.NDArray[np.uint8]:
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _png(picture: Pillow.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bar() -> str:
    return _coloured(np.linspace(0, 1, 256)[None, :].repeat(2, axis=0), 256)
