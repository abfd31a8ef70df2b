"""Synthesised volumes: shapes, conventions, determinism, noise."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import fastmri
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri.phantoms import ORGANS, synthesise_volume
from mri.phantoms.coils import CoilArray
from mri.phantoms.fields import Streams
from mri.phantoms.synthesis import fft2c, ifft2c
from mri.volume import Volume
from reconsent.config import PhantomConfig
from reconsent.errors import ConfigError
from reconsent.seeds import derive_seed

ROOT = Path(__file__).parents[2]


def digest(volume: Volume) -> str:
    """Hash of all arrays."""
    assert volume.truth is not None
    content = volume.kspace.tobytes() + volume.target.tobytes() + volume.truth.tobytes()
    return hashlib.sha256(content).hexdigest()


def as_torch(values: np.ndarray) -> torch.Tensor:
    """FastMRI's layout: real and imaginary part in the last axis."""
    return torch.view_as_real(torch.from_numpy(values))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 33), columns=st.integers(1, 33), seed=st.integers(0, 99))
def test_the_transform_is_fastmris(rows: int, columns: int, seed: int) -> None:
    """fft2c and ifft2c agree with fastmri's for odd and even sizes, and leave their input alone."""
    rng = np.random.default_rng(seed)
    images = (rng.normal(size=(2, rows, columns)) + 1j * rng.normal(size=(2, rows, columns))).astype(
        np.complex64
    )
    before = images.copy()
    np.testing.assert_allclose(as_torch(fft2c(images)), fastmri.fft2c(as_torch(images)), atol=1e-5)
    np.testing.assert_allclose(as_torch(ifft2c(images)), fastmri.ifft2c(as_torch(images)), atol=1e-5)
    assert np.array_equal(images, before)


@settings(max_examples=25, deadline=None)
@given(
    organ=st.sampled_from(ORGANS),
    rows=st.integers(32, 48),
    columns=st.integers(32, 48),
    coils=st.integers(1, 16),
    slices=st.integers(1, 3),
    contrast=st.sampled_from(["T1w", "T2w", "PDw", "PDw-FS", "T2w-FS"]),
    field_strength=st.floats(0.3, 7.0),
    seed=st.integers(0, 1000),
)
def test_any_configuration_gives_a_valid_volume(
    organ: str,
    rows: int,
    columns: int,
    coils: int,
    slices: int,
    contrast: str,
    field_strength: float,
    seed: int,
) -> None:
    """Shapes, types, finiteness, scaling, and target = RSS of the k-space by fastmri's own functions."""
    config = PhantomConfig(
        matrix=(rows, columns),
        coils=coils,
        slices=slices,
        contrast=contrast,  # type: ignore[arg-type]
        field_strength=field_strength,
    )
    volume = synthesise_volume(organ, config, seed=seed, name="anyone")
    assert volume.kspace.shape == (slices, coils, rows, columns)
    assert volume.kspace.dtype == np.complex64
    assert volume.truth is not None
    for images in (volume.target, volume.truth):
        assert images.shape == (slices, rows, columns)
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
    assert volume.maximum * (1 + 1e-6) >= 0.5e-3
    assert volume.maximum <= 1.5e-3 * (1 + 1e-6)
    assert volume.padding == (0, columns)
    assert volume.provenance == "phantom"
    assert volume.notes["contrast"] == contrast
    reference = fastmri.rss_complex(fastmri.ifft2c(as_torch(volume.kspace)), dim=1)
    np.testing.assert_allclose(volume.target, reference, rtol=1e-4, atol=1e-4 * volume.maximum)


@pytest.mark.parametrize("matrix", [(32, 200), (200, 32)])
def test_long_fields_of_view_are_served(matrix: tuple[int, int]) -> None:
    """A field of view far longer than wide has the body in its middle and air (or leg) around."""
    config = PhantomConfig(matrix=matrix, slices=1, coils=3, noise=0.0)
    volume = synthesise_volume("brain", config, seed=0, name="long")
    energy = volume.target[0].sum(axis=int(matrix[0] > matrix[1]))
    middle = slice(84, 116)
    assert energy[middle].sum() > 0.99 * energy.sum()


@pytest.mark.parametrize("organ", ORGANS)
def test_the_same_seed_gives_the_same_bits(organ: str) -> None:
    """Two calls agree bit for bit; another seed, or another name, is another patient."""
    config = PhantomConfig(slices=2)
    first = synthesise_volume(organ, config, seed=1, name="a")
    assert digest(first) == digest(synthesise_volume(organ, config, seed=1, name="a"))
    for seed, name in ((2, "a"), (1, "b")):
        other = synthesise_volume(organ, config, seed=seed, name=name)
        assert digest(other) != digest(first)


def test_another_process_with_other_threads_gives_the_same_bits() -> None:
    """Nothing depends on hash randomisation or on the number of BLAS threads."""
    script = (
        "import hashlib\n"
        "from mri.phantoms import synthesise_volume\n"
        "from reconsent.config import PhantomConfig\n"
        "v = synthesise_volume('knee', PhantomConfig(coils=5), seed=4, name='p')\n"
        "content = v.kspace.tobytes() + v.target.tobytes() + v.truth.tobytes()\n"
        "import sys; sys.stdout.write(hashlib.sha256(content).hexdigest())\n"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    volume = synthesise_volume("knee", PhantomConfig(coils=5), seed=4, name="p")
    assert output == digest(volume)


@pytest.mark.parametrize("organ", ORGANS)
def test_without_noise_the_target_is_the_truth(organ: str) -> None:
    """Truth and target differ by noise alone, so that they agree when there is none."""
    volume = synthesise_volume(organ, PhantomConfig(noise=0.0, slices=2), seed=0, name="clean")
    assert volume.truth is not None
    np.testing.assert_allclose(volume.target, volume.truth, atol=1e-5 * volume.maximum)


@pytest.mark.parametrize("noise", [0.005, 0.03])
def test_the_images_noise_is_the_requested_one(noise: float) -> None:
    """With one coil, target − truth has the standard deviation noise × maximum where signal is strong."""
    config = PhantomConfig(noise=noise, coils=1, matrix=(128, 128))
    volume = synthesise_volume("abdomen", config, seed=0, name="noisy")
    assert volume.truth is not None
    strong = volume.truth > 12 * noise * volume.truth.max()
    error = (volume.target - volume.truth)[strong]
    deviation = noise * float(volume.truth.max())
    assert error.std() == pytest.approx(deviation, rel=0.05)
    assert abs(error.mean()) < 0.1 * deviation


def test_the_backgrounds_covariance_is_the_coil_arrays() -> None:
    """Where there is only air, the coil images' sample covariance is 2σ²Ψ."""
    config = PhantomConfig(noise=0.02, coils=5, matrix=(128, 128))
    volume = synthesise_volume("brain", config, seed=3, name="air")
    assert volume.truth is not None
    images = ifft2c(volume.kspace).transpose(1, 0, 2, 3)
    air = images[:, volume.truth < 1e-6 * volume.truth.max()].astype(np.complex128)
    assert air.shape[1] > 10_000
    measured = air @ air.conj().T / air.shape[1]
    deviation = 0.02 * float(volume.truth.max())
    array = CoilArray(Streams(derive_seed(3, "air"))("coils"), 5)
    expected = 2 * deviation**2 * array.noise_covariance()
    assert np.linalg.norm(measured - expected) < 0.04 * np.linalg.norm(expected)


@pytest.mark.parametrize("organ", ORGANS)
def test_anatomy_does_not_depend_on_noise_or_coils(organ: str) -> None:
    """The same patient in a noisier scan with more coils is the same object, up to shading and scale."""
    few = synthesise_volume(organ, PhantomConfig(noise=0.0, coils=2, slices=1), seed=0, name="p").truth
    many = synthesise_volume(organ, PhantomConfig(noise=0.05, coils=8, slices=1), seed=0, name="p").truth
    assert few is not None
    assert many is not None
    assert np.corrcoef(few.ravel(), many.ravel())[0, 1] > 0.97


def test_an_unknown_organ_is_refused_by_name() -> None:
    """The message names the organ and the known ones."""
    with pytest.raises(ConfigError, match=r"'spine'.*brain, knee"):
        synthesise_volume("spine", PhantomConfig(), seed=0, name="p")
