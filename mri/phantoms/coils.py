"""Receive coils: sensitivities of circular loops around the body, and the covariance of their noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RectBivariateSpline

Reals = npt.NDArray[np.float64]

_SEGMENTS = 24
_KNOTS = 24
_NORMALISATION = 0.8


class CoilArray:
    """Loops on a cylinder around the body, each a little misplaced.

    Up to eight loops form one ring; more form two rings, side by side along the body's axis.

    Parameters
    ----------
    rng
        Source of the array's rotation and of the loops' misplacement.
    coils
        Number of loops, 1 to 16.
    """

    def __init__(self, rng: np.random.Generator, coils: int) -> None:
        rings = 1 if coils <= 8 else 2
        ring = np.arange(coils) % rings
        place = np.arange(coils) // rings
        per_ring = np.array([np.count_nonzero(ring == r) for r in range(rings)])[ring]
        start = rng.uniform(0.0, 2.0 * np.pi)
        # The second ring is turned by half a loop, so that the loops interlock.
        angle = start + 2.0 * np.pi * (place + 0.5 * ring) / per_ring + rng.normal(0.0, 0.06, coils)
        radius = 1.45 * rng.normal(1.0, 0.03, coils)
        height = (ring - 0.5 * (rings - 1)) * 0.9 + rng.normal(0.0, 0.05, coils)
        self.centres = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
        self.loop_radii = np.clip(np.pi * 1.45 / per_ring, 0.45, 0.95) * rng.normal(1.0, 0.04, coils)
        self.angles = angle
        self.gains = rng.normal(1.0, 0.06, coils).clip(0.8, 1.2)
        self.phases = rng.uniform(0.0, 2.0 * np.pi, coils)

    def sensitivities(self, rows: int, columns: int, z: float = 0.0) -> npt.NDArray[np.complex64]:
        """Complex sensitivities in one slice.

        Each loop's transverse field B⁻ = Bx − iBy by the Biot-Savart law, one straight piece of wire
        after another (Roemer et al., Magn Reson Med 16:192, 1990). The root sum of squares is then
        flattened to its 0.2th power, as a scanner's intensity normalisation does; phases and relative
        magnitudes of the coils stay.

        Parameters
        ----------
        rows, columns
            Matrix of the image.
        z
            Slice position along the axis of the cylinder, −1 to 1.

        Returns
        -------
        array
            complex64, ``(coils, rows, columns)``; the root sum of squares is 1 in the centre of the slice.
        """
        half_y, half_x = rows / min(rows, columns), columns / min(rows, columns)
        # The body does not reach beyond 1.2, and loops are at 1.45: outside, sensitivities are held.
        y = np.linspace(-min(half_y, 1.1), min(half_y, 1.1), _KNOTS)
        x = np.linspace(-min(half_x, 1.1), min(half_x, 1.1), _KNOTS)
        field = self._biot_savart(y, x, z)
        rss = np.sqrt(np.sum(np.abs(field) ** 2, axis=0))
        field /= rss**_NORMALISATION
        # An even number of knots has no centre; the four around it stand for it.
        middle = slice(_KNOTS // 2 - 1, _KNOTS // 2 + 1)
        field /= np.mean(rss[middle, middle] ** (1.0 - _NORMALISATION))
        fine_y = np.clip((np.arange(rows) + 0.5 - rows / 2) * (2.0 / min(rows, columns)), y[0], y[-1])
        fine_x = np.clip((np.arange(columns) + 0.5 - columns / 2) * (2.0 / min(rows, columns)), x[0], x[-1])
        maps = np.empty((len(field), rows, columns), dtype=np.complex64)
        for coil, values in enumerate(field):
            maps[coil].real = RectBivariateSpline(y, x, values.real)(fine_y, fine_x)
            maps[coil].imag = RectBivariateSpline(y, x, values.imag)(fine_y, fine_x)
        return maps

    def noise_covariance(self) -> npt.NDArray[np.complex128]:
        """Covariance Ψ of the coils' noise, Hermitian and positive definite, of mean variance 1.

        Coils see the same tissue, so that neighbours' noise is correlated: |Ψᵢⱼ| falls off with the
        squared distance of the loops, and its phase is the difference of the loops' positions.
        """
        apart = np.linalg.norm(self.centres[:, None] - self.centres[None, :], axis=-1)
        # A Gaussian kernel is positive definite, and so is its Schur product with a rank-one matrix.
        magnitude = 0.75 * np.exp(-0.5 * (apart / 1.1) ** 2) + 0.25 * np.eye(len(apart))
        weight = self.gains * np.exp(1j * self.angles)
        covariance: npt.NDArray[np.complex128] = magnitude * weight[:, None] * weight[None, :].conj()
        return covariance / np.mean(np.diag(covariance).real)

    def _biot_savart(self, y: Reals, x: Reals, z: float) -> npt.NDArray[np.complex128]:
        weights = self.gains * np.exp(1j * self.phases)
        fields = [
            weight * loop_field(centre, angle, radius, y, x, z)
            for weight, centre, angle, radius in zip(
                weights, self.centres, self.angles, self.loop_radii, strict=True
            )
        ]
        return np.stack(fields)


def loop_field(
    centre: Reals, angle: float, radius: float, y: Reals, x: Reals, z: float
) -> npt.NDArray[np.complex128]:
    """Transverse field B⁻ = Bx − iBy of a circular loop that faces the z-axis, by the Biot-Savart law.

    Parameters
    ----------
    centre
        Of the loop, ``(x, y, z)``.
    angle
        Direction of the loop's centre seen from the axis, in radians.
    radius
        Of the loop, in the unit of the coordinates.
    y, x, z
        Coordinates of the plane's rows ``(rows,)`` and columns ``(columns,)``, and the plane's position.

    Returns
    -------
    array
        complex128, ``(rows, columns)``, for a current with µ₀I/4π = 1: on the loop's own axis, at
        distance d, its magnitude is 2πr² / (r² + d²)^{3/2}.
    """
    turn = (np.arange(_SEGMENTS) + 0.5) * (2.0 * np.pi / _SEGMENTS)
    cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
    # The loop's plane is spanned by the axis and by the tangent of the ring of loops.
    tangent = np.array([-np.sin(angle), np.cos(angle), 0.0])
    axis = np.array([0.0, 0.0, 1.0])
    wire = centre + radius * (cosine * tangent + sine * axis)
    flow = (2.0 * np.pi / _SEGMENTS) * radius * (cosine * axis - sine * tangent)
    rx = x[None, None, :] - wire[:, 0, None, None]
    ry = y[None, :, None] - wire[:, 1, None, None]
    rz = z - wire[:, 2, None, None]
    cubed = (rx**2 + ry**2 + rz**2) ** 1.5
    bx = np.sum((flow[:, 1, None, None] * rz - flow[:, 2, None, None] * ry) / cubed, axis=0)
    by = np.sum((flow[:, 2, None, None] * rx - flow[:, 0, None, None] * rz) / cubed, axis=0)
    field: npt.NDArray[np.complex128] = bx - 1j * by
    return field
