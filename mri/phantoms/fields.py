"""Smooth random fields: the same patient's field at any matrix, changing gradually from slice to slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from reconsent.seeds import derive_seed

Array = npt.NDArray[np.floating[Any]]
"""Real numbers at points; float32 all the way, which type checkers cannot follow through arithmetic."""

_HALF_WIDTH = 1.25  # fields repeat beyond this; the field of view's shorter side spans −1 to 1


class Streams:
    """Independent random generators of one patient, by name.

    Each structure draws from its own stream, so that adding or refining one leaves the others alone.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, name: str) -> np.random.Generator:
        """A fresh generator; the same name gives the same numbers again."""
        return np.random.default_rng(derive_seed(self._seed, name))


class RandomField:
    """A stationary Gaussian field of unit variance over the image plane and the slice position.

    Coefficients of cubic B-splines are drawn on a periodic lattice, with a Gaussian spectrum or one
    confined to a ring (which gives labyrinths and stripes rather than blobs), and are evaluated
    separably: the values do not depend on the matrix, and there is no library call whose rounding
    depends on the number of threads. Along the slice axis the field is cos(ωz)·f₁ + sin(ωz)·f₂.

    Parameters
    ----------
    rng
        Source of the coefficients.
    wavelength
        Dominant wavelength, in units of half the field of view; two numbers for an anisotropic field:
        across and along ``angle``.
    ring
        Confine the spectrum to a ring (band-pass) instead of a Gaussian (low-pass).
    angle
        Direction of the second wavelength against the column axis, in radians.
    evolution
        ω, in radians per unit of slice position.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        wavelength: float | tuple[float, float],
        *,
        ring: bool = False,
        angle: float = 0.0,
        evolution: float = 1.0,
    ) -> None:
        across, along = (wavelength, wavelength) if isinstance(wavelength, float | int) else wavelength
        size = scipy.fft.next_fast_len(max(8, int(np.ceil(8.0 * _HALF_WIDTH / min(across, along)))))
        self._size = size
        self._evolution = evolution
        frequency = np.fft.fftfreq(size, d=2.0 * _HALF_WIDTH / size).astype(np.float32)
        fy, fx = frequency[:, None], frequency[None, :]
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        radius = np.hypot((c * fy - s * fx) * across, (c * fx + s * fy) * along)
        spectrum = np.exp(-0.5 * ((radius - 1.0) / 0.22) ** 2) if ring else np.exp(-2.0 * radius**2)
        # Evaluation multiplies the spectrum by that of the B-spline, so it is divided out here.
        spline = np.maximum(np.sinc(frequency * (2.0 * _HALF_WIDTH / size)), 0.3) ** 4
        power = np.sqrt(np.sum(spectrum**2))
        noise = rng.standard_normal((size, size, 2), dtype=np.float32).view(np.complex64)[..., 0]
        noise *= (spectrum / (power * spline[:, None] * spline[None, :]) * size).astype(np.float32)
        # A real symmetric spectrum makes the real and imaginary parts independent fields; the ring at
        # an angle is symmetric too, because (fy, fx) and (−fy, −fx) have equal radii.
        pair = scipy.fft.ifft2(noise, norm="ortho")
        self._first = np.ascontiguousarray(pair.real)
        self._second = np.ascontiguousarray(pair.imag)

    def on(self, y: Array, x: Array, z: float = 0.0) -> Array:
        """Values on a regular grid.

        Parameters
        ----------
        y, x
            Coordinates of the rows ``(rows,)`` and columns ``(columns,)``.
        z
            Slice position.

        Returns
        -------
        array
            float32, ``(rows, columns)``.
        """
        phase = self._evolution * z
        lattice = np.float32(np.cos(phase)) * self._first + np.float32(np.sin(phase)) * self._second
        half = _evaluate(lattice, y)
        return np.ascontiguousarray(_evaluate(np.ascontiguousarray(half.T), x).T)


def _evaluate(lattice: Array, coordinate: Array) -> Array:
    """Cubic B-spline sum along the first axis of ``lattice``, ``(size, n)`` to ``(len(coordinate), n)``."""
    size = lattice.shape[0]
    position = (coordinate.astype(np.float64) + _HALF_WIDTH) * (size / (2.0 * _HALF_WIDTH))
    cell = np.floor(position).astype(np.intp)
    t = (position - cell).astype(np.float32)[:, None]
    weights = (
        (1.0 - t) ** 3 / 6.0,
        (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0,
        (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0,
        t**3 / 6.0,
    )
    total: Array = weights[0] * lattice[(cell - 1) % size]
    for tap in (1, 2, 3):
        total += weights[tap] * lattice[(cell - 1 + tap) % size]
    return total
