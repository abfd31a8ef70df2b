"""From a patient's anatomy to noisy multi-coil k-space."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.fft
from threadpoolctl import threadpool_limits

from mri.phantoms.abdomen import Abdomen
from mri.phantoms.anatomy import Anatomy
from mri.phantoms.brain import Brain
from mri.phantoms.canvas import Grid
from mri.phantoms.coils import CoilArray
from mri.phantoms.faults import break_coil, false_stripes, spike
from mri.phantoms.fields import RandomField, Streams
from mri.phantoms.heart import Heart
from mri.phantoms.knee import Knee
from mri.phantoms.prostate import Prostate
from mri.phantoms.sequences import acquisition_for, sequence_for, tissue_signals
from mri.volume import Volume
from reconsent.config import PhantomConfig
from reconsent.errors import ConfigError
from reconsent.seeds import derive_seed

ANATOMIES: dict[str, type[Anatomy]] = {
    "brain": Brain,
    "knee": Knee,
    "abdomen": Abdomen,
    "heart": Heart,
    "prostate": Prostate,
}
"""Which class paints which organ."""

ORGANS: tuple[str, ...] = tuple(ANATOMIES)
"""Organs that can be synthesised."""


def synthesise_volume(organ: str, config: PhantomConfig, *, seed: int, name: str) -> Volume:
    """Synthesise one patient's examination.

    The anatomy is drawn from ``seed`` and ``name``; it does not depend on contrast, field strength,
    coils or noise, and on the matrix only in the textures that would be lost in a pixel. Its signal is
    the spin echo's (:func:`~mri.phantoms.sequences.spin_echo`); k-space is the centred orthonormal FFT
    of the object seen by each coil, plus complex Gaussian noise whose real and imaginary parts have,
    averaged over the coils, standard deviation ``config.noise`` times the image's maximum.

    Parameters
    ----------
    organ
        One of :data:`ORGANS`.
    config
        Matrix, slices, coils, contrast, field strength and noise.
    seed, name
        Together they are the patient.

    Returns
    -------
    Volume
        ``kspace`` complex64 ``(slices, coils, rows, columns)``; ``target`` and ``truth`` float32
        ``(slices, rows, columns)``. The target's maximum lies between 5e-4 and 1.5e-3, another one for
        each patient, as scanners scale arbitrarily.

    Raises
    ------
    ConfigError
        If there is no such organ.
    """
    if organ not in ANATOMIES:
        raise ConfigError(f"There is no phantom of organ '{organ}'.", f"Organs are: {', '.join(ORGANS)}.")
    streams = Streams(derive_seed(seed, name))
    rows, columns = config.matrix
    sequence = sequence_for(organ, config.contrast)
    array = CoilArray(streams("coils"), config.coils)
    images = np.empty((config.slices, config.coils, rows, columns), dtype=np.complex64)
    for index, (z, image) in enumerate(object_slices(organ, config, streams)):
        np.multiply(array.sensitivities(rows, columns, 0.5 * z), image, out=images[index])
    truth = root_sum_of_squares(images)
    kspace = fft2c(images)
    deviation = config.noise * float(truth.max())
    kspace += correlated_noise(streams("noise"), array.noise_covariance(), images.shape, deviation)
    if config.fault == "noisy-coil":
        kspace = break_coil(kspace, deviation, streams("fault"))
    elif config.fault == "spike":
        kspace = spike(kspace)
    target = root_sum_of_squares(ifft2c(kspace))
    scale = np.float32(1e-3 * streams("scale").uniform(0.5, 1.5) / float(target.max()))
    kspace *= scale
    if config.fault == "false-stripes":
        target = false_stripes(target)
    return Volume(
        name=name,
        patient=name,
        organ=organ,
        acquisition=acquisition_for(organ, config.contrast),
        kspace=kspace,
        target=target * scale,
        truth=truth * scale,
        padding=(0, columns),
        provenance="phantom",
        notes={
            "contrast": config.contrast,
            "field_strength_tesla": config.field_strength,
            "repetition_time_ms": sequence.tr,
            "echo_time_ms": sequence.te,
            "noise": config.noise,
            "seed": seed,
            **({"fault": config.fault} if config.fault != "none" else {}),
        },
    )


def object_slices(
    organ: str, config: PhantomConfig, streams: Streams
) -> Iterator[tuple[float, npt.NDArray[np.complex64]]]:
    """The transverse magnetisation of each slice, before any coil sees it.

    Yields
    ------
    float, array
        Slice position, −1 to 1, and complex64 ``(rows, columns)``.
    """
    grid = Grid.for_matrix(*config.matrix)
    anatomy = ANATOMIES[organ](streams, grid)
    sequence = sequence_for(organ, config.contrast)
    signals = tissue_signals(sequence, config.field_strength, streams("relaxation"))
    phase = RandomField(streams("phase"), 2.2, evolution=0.5)
    offset = streams("offset").uniform(-0.12, 0.12)
    row, column = (
        grid.y[grid.supersampling // 2 :: grid.supersampling],
        grid.x[grid.supersampling // 2 :: grid.supersampling],
    )
    for position in slice_positions(config.slices):
        z = float(np.clip(anatomy.span * (position + offset), -1.0, 1.0))
        canvas = anatomy.slice_at(z)
        magnitude = grid.downsample(signals[canvas.labels] * canvas.texture)
        # B0 inhomogeneity and eddy currents leave a smooth phase that a spin echo does not refocus fully.
        yield z, magnitude * np.exp(1j * phase.on(row, column, z)).astype(np.complex64)


def slice_positions(slices: int) -> npt.NDArray[np.float64]:
    """Evenly spaced positions between −1 and 1; the middle for a single slice."""
    return np.linspace(-1.0, 1.0, slices) if slices > 1 else np.zeros(1)


def correlated_noise(
    rng: np.random.Generator,
    covariance: npt.NDArray[np.complex128],
    shape: tuple[int, ...],
    deviation: float,
) -> npt.NDArray[np.complex64]:
    """Complex Gaussian noise, white in space and correlated between coils, E[n nᴴ] = 2·deviation²·Ψ.

    Parameters
    ----------
    rng
        Source.
    covariance
        Ψ, ``(coils, coils)``, Hermitian and positive definite.
    shape
        ``(slices, coils, rows, columns)``.
    deviation
        Standard deviation of the real (and of the imaginary) part for Ψ = 1.
    """
    slices, coils = shape[:2]
    colour = (deviation * np.linalg.cholesky(covariance)).astype(np.complex64)
    white = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    # On some processors OpenBLAS' result depends on how many threads share the work.
    with threadpool_limits(1, "blas"):
        noise = np.matmul(colour, white.reshape(slices, coils, -1))
    return np.ascontiguousarray(noise.reshape(shape))


def fft2c(images: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    """Centred orthonormal 2-D Fourier transform over the last two axes, as ``fastmri.fft2c``."""
    shifted = scipy.fft.ifftshift(images, axes=(-2, -1))
    kspace: npt.NDArray[np.complex64] = scipy.fft.fftshift(
        scipy.fft.fft2(shifted, norm="ortho", overwrite_x=True), axes=(-2, -1)
    )
    return kspace


def ifft2c(kspace: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    """Inverse of :func:`fft2c`, as ``fastmri.ifft2c``."""
    shifted = scipy.fft.ifftshift(kspace, axes=(-2, -1))
    images: npt.NDArray[np.complex64] = scipy.fft.fftshift(
        scipy.fft.ifft2(shifted, norm="ortho", overwrite_x=True), axes=(-2, -1)
    )
    return images


def root_sum_of_squares(images: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    """Root sum of squares over the coils, the second of four axes."""
    result: npt.NDArray[np.float32] = np.sqrt(np.sum(images.real**2 + images.imag**2, axis=1))
    return result
