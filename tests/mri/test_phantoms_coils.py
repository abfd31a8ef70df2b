"""Coil sensitivities and noise."""

import numpy as np
import pytest
import sigpy.mri
from hypothesis import given, settings
from hypothesis import strategies as st

from mri.phantoms.coils import CoilArray, loop_field
from mri.phantoms.synthesis import correlated_noise


def high_frequency_share(maps: np.ndarray) -> float:
    """Share of the maps' energy outside the central 13 × 13 of their tapered spectrum."""
    rows, columns = maps.shape[-2:]
    taper = np.hanning(rows)[:, None] * np.hanning(columns)[None, :]
    spectrum = np.fft.fftshift(np.abs(np.fft.fft2(maps * taper)) ** 2, axes=(-2, -1))
    centre = spectrum[:, rows // 2 - 6 : rows // 2 + 7, columns // 2 - 6 : columns // 2 + 7]
    return float(1.0 - centre.sum() / spectrum.sum())


@pytest.mark.parametrize("distance", [0.5, 1.0, 1.4])
def test_a_loops_field_on_its_axis_is_the_textbooks(distance: float) -> None:
    """|B| = 2πr² / (r² + d²)^{3/2} at distance d, along the axis (Biot-Savart in closed form)."""
    angle, radius = 0.7, 0.6
    centre = np.array([1.5 * np.cos(angle), 1.5 * np.sin(angle), 0.3])
    point = (1.5 - distance) * np.array([np.cos(angle), np.sin(angle)])
    field = loop_field(centre, angle, radius, point[1:], point[:1], 0.3)[0, 0]
    assert abs(field) == pytest.approx(2 * np.pi * radius**2 / (radius**2 + distance**2) ** 1.5, rel=1e-6)
    # Bx − iBy points along the loop's axis, up to the sense of the current.
    assert abs(np.sin(np.angle(field) + angle)) < 1e-6


@pytest.mark.parametrize("coils", [1, 4, 8, 16])
def test_maps_are_as_smooth_as_a_birdcages_and_cover_the_body(coils: int) -> None:
    """Hardly any energy at high frequencies, like sigpy's birdcage maps, and no holes in the coverage."""
    maps = CoilArray(np.random.default_rng(coils), coils).sensitivities(96, 96)
    assert maps.dtype == np.complex64
    reference = sigpy.mri.birdcage_maps((max(coils, 2), 96, 96))
    assert high_frequency_share(maps) < max(3.0 * high_frequency_share(reference), 2e-3)
    rss = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    inside = np.hypot(*np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))) < 0.9
    assert rss[inside].min() > 0.6
    assert rss[inside].max() < 1.8
    assert rss[47:49, 47:49].mean() == pytest.approx(1.0, rel=0.02)


def test_each_coil_sees_another_part_of_the_body() -> None:
    """Eight coils have eight different brightest quarters' directions, and independent maps."""
    maps = CoilArray(np.random.default_rng(3), 8).sensitivities(64, 64)
    flat = maps.reshape(8, -1)
    assert np.linalg.cond(flat @ flat.conj().T) < 1e4
    peaks = [divmod(int(np.argmax(np.abs(coil))), 64) for coil in maps]
    assert len(set(peaks)) == 8


def test_arrays_differ_between_patients() -> None:
    """Every patient is positioned differently in the coils."""
    first = CoilArray(np.random.default_rng(0), 4).sensitivities(48, 48)
    second = CoilArray(np.random.default_rng(1), 4).sensitivities(48, 48)
    assert np.linalg.norm(first - second) > 0.1 * np.linalg.norm(first)


@settings(max_examples=25, deadline=None)
@given(coils=st.integers(1, 16), seed=st.integers(0, 10_000))
def test_the_noise_covariance_is_one(coils: int, seed: int) -> None:
    """Hermitian, positive definite and well conditioned, mean variance 1."""
    covariance = CoilArray(np.random.default_rng(seed), coils).noise_covariance()
    assert np.allclose(covariance, covariance.conj().T)
    assert np.linalg.eigvalsh(covariance).min() > 0.05
    assert np.mean(np.diag(covariance).real) == pytest.approx(1.0)


def test_neighbours_share_more_noise_than_opposite_coils() -> None:
    """In a ring of eight, correlation falls with distance and is substantial between neighbours."""
    covariance = CoilArray(np.random.default_rng(0), 8).noise_covariance()
    deviation = np.sqrt(np.diag(covariance).real)
    correlation = np.abs(covariance) / np.outer(deviation, deviation)
    neighbour = np.mean([correlation[i, (i + 1) % 8] for i in range(8)])
    opposite = np.mean([correlation[i, (i + 4) % 8] for i in range(8)])
    assert neighbour > 0.3
    assert opposite < 0.1


def test_noise_has_the_requested_covariance_and_no_other_structure() -> None:
    """Sample covariance within 3 % of 2σ²Ψ; real and imaginary parts alike; white in space."""
    covariance = CoilArray(np.random.default_rng(5), 6).noise_covariance()
    noise = correlated_noise(np.random.default_rng(0), covariance, (2, 6, 128, 128), 0.3)
    samples = noise.transpose(1, 0, 2, 3).reshape(6, -1)
    measured = samples @ samples.conj().T / samples.shape[1]
    expected = 2 * 0.3**2 * covariance
    assert np.linalg.norm(measured - expected) < 0.03 * np.linalg.norm(expected)
    pseudo = samples @ samples.T / samples.shape[1]
    assert np.linalg.norm(pseudo) < 0.03 * np.linalg.norm(expected)
    lagged = samples[:, 1:] @ samples[:, :-1].conj().T / samples.shape[1]
    assert np.linalg.norm(lagged) < 0.03 * np.linalg.norm(expected)
