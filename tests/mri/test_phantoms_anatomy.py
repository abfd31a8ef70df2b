"""Anatomy: what is painted, how it varies, and how organs differ in texture."""

from functools import cache

import numpy as np
import pytest

from mri.phantoms import ORGANS, synthesise_volume
from mri.phantoms.anatomy import Anatomy
from mri.phantoms.canvas import Grid
from mri.phantoms.fields import RandomField, Streams
from mri.phantoms.synthesis import ANATOMIES
from mri.phantoms.tissues import Tissue
from reconsent.config import PhantomConfig
from reconsent.seeds import derive_seed

EXPECTED = {
    "brain": {Tissue.WHITE_MATTER, Tissue.GREY_MATTER, Tissue.CSF, Tissue.DEEP_GREY, Tissue.FAT},
    "knee": {Tissue.MARROW, Tissue.CORTICAL_BONE, Tissue.CARTILAGE, Tissue.MENISCUS, Tissue.MUSCLE},
    "abdomen": {Tissue.LIVER, Tissue.SPLEEN, Tissue.KIDNEY_CORTEX, Tissue.KIDNEY_MEDULLA, Tissue.BLOOD},
    "heart": {Tissue.MYOCARDIUM, Tissue.BLOOD, Tissue.LUNG, Tissue.LIVER, Tissue.MARROW},
    "prostate": {Tissue.PERIPHERAL_ZONE, Tissue.CENTRAL_GLAND, Tissue.FLUID, Tissue.MUSCLE, Tissue.MARROW},
}


def anatomy(organ: str, seed: int, size: int = 64) -> Anatomy:
    """One patient's organ."""
    return ANATOMIES[organ](Streams(seed), Grid.for_matrix(size, size))


@cache
def images(organ: str, patient: int) -> np.ndarray:
    """Three slices of a patient, normalised; the same contrast for every organ."""
    config = PhantomConfig(contrast="T2w", noise=0.005, slices=3)
    volume = synthesise_volume(organ, config, seed=11, name=f"{organ}-{patient}")
    return volume.target / np.quantile(volume.target, 0.99)


def texture(image: np.ndarray) -> np.ndarray:
    """Six statistics of the inner half of an image, which holds no outline of the body."""
    inner = image[16:48, 16:48]
    dy, dx = np.gradient(inner)
    vertical, horizontal = np.abs(dy).mean(), np.abs(dx).mean()
    gradient = np.hypot(dx, dy)
    laplacian = np.abs(
        4 * inner[1:-1, 1:-1] - inner[:-2, 1:-1] - inner[2:, 1:-1] - inner[1:-1, :-2] - inner[1:-1, 2:]
    )
    return np.array(
        [
            np.log(horizontal / vertical),
            np.log(gradient.mean()),
            np.log(laplacian.mean() / gradient.mean()),
            gradient.std() / gradient.mean(),
            np.median(inner),
            inner.std(),
        ]
    )


def test_organs_are_told_apart_by_texture() -> None:
    """Nearest class mean on six texture statistics names the organ of at least 85 % of unseen patients."""
    patients = 6
    features = np.array(
        [
            [np.mean([texture(image) for image in images(o, p)], axis=0) for p in range(patients)]
            for o in ORGANS
        ]
    )
    right = 0
    for held_out in range(patients):
        train = np.delete(features, held_out, axis=1)
        within = (train - train.mean(axis=1, keepdims=True)).reshape(-1, 6)
        precision = np.linalg.inv(np.cov(within.T) + 1e-6 * np.eye(6))
        for index in range(len(ORGANS)):
            away = features[index, held_out] - train.mean(axis=1)
            right += int(np.argmin(np.einsum("ij,jk,ik->i", away, precision, away)) == index)
    assert right >= 0.85 * patients * len(ORGANS)


def test_the_knee_has_straight_lines_where_the_brain_has_folds() -> None:
    """Gradients of a knee gather around the axes (cos 4φ > 0); a brain's have all directions."""

    def axial_share(stack: np.ndarray) -> float:
        dy, dx = np.gradient(stack[:, 16:48, 16:48], axis=(1, 2))
        weight = np.hypot(dx, dy)
        return float(np.sum(weight * np.cos(4 * np.arctan2(dy, dx))) / weight.sum())

    knee = np.array([axial_share(images("knee", p)) for p in range(6)])
    brain = np.array([axial_share(images("brain", p)) for p in range(6)])
    assert knee.mean() - brain.mean() > 3 * np.sqrt((knee.var(ddof=1) + brain.var(ddof=1)) / 6)


@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_patient_has_the_organs_tissues(organ: str, seed: int) -> None:
    """All of an organ's typical tissues are painted in some slice, whatever the patient."""
    patient = anatomy(organ, seed)
    painted = set()
    for z in np.linspace(-0.8, 0.8, 5):
        painted |= {Tissue(label) for label in np.unique(patient.slice_at(float(z)).labels)}
    assert EXPECTED[organ] <= painted


@pytest.mark.parametrize("organ", ORGANS)
def test_patients_differ_more_than_neighbouring_slices(organ: str) -> None:
    """Labels agree better between adjacent slices than between patients at the same position."""
    first, second = anatomy(organ, 0), anatomy(organ, 1)
    here = first.slice_at(0.1).labels
    next_slice = np.mean(here != first.slice_at(0.13).labels)
    next_patient = np.mean(here != second.slice_at(0.1).labels)
    assert next_slice < 0.6 * next_patient
    assert next_patient > 0.1


@pytest.mark.parametrize("organ", ORGANS)
def test_slices_change_through_the_body(organ: str) -> None:
    """The two ends of a patient are different slices, of a body of similar size."""
    patient = anatomy(organ, 4)
    low, high = patient.slice_at(-0.8).labels, patient.slice_at(0.8).labels
    assert np.mean(low != high) > 0.1
    assert 0.4 < np.mean(low > 0) / np.mean(high > 0) < 2.5


@pytest.mark.parametrize("organ", ORGANS)
def test_a_patient_keeps_the_anatomy_at_any_matrix(organ: str) -> None:
    """A 128 × 128 image, averaged down, resembles the 64 × 64 image of the same patient."""
    small, large = (
        synthesise_volume(organ, PhantomConfig(matrix=(n, n), slices=1, noise=0.0, coils=1), seed=0, name="p")
        for n in (64, 128)
    )
    shrunk = large.target[0].reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(shrunk.ravel(), small.target[0].ravel())[0, 1] > 0.85


def test_brain_contrast_in_the_images_themselves() -> None:
    """In finished images, pixels of pure CSF outshine pure white matter in T2w, and not in T1w."""
    grid = Grid.for_matrix(128, 128)
    config = PhantomConfig(matrix=(128, 128), slices=1, coils=4)
    streams = Streams(derive_seed(0, "p"))
    offset = streams("offset").uniform(-0.12, 0.12)
    labels = ANATOMIES["brain"](streams, grid).slice_at(0.85 * offset).labels
    blocks = labels.reshape(128, 3, 128, 3)
    ratio = {}
    for contrast in ("T1w", "T2w"):
        changed = config.model_copy(update={"contrast": contrast})
        image = synthesise_volume("brain", changed, seed=0, name="p").target[0]
        pure = {
            tissue: image[(blocks == tissue).all(axis=(1, 3))].mean()
            for tissue in (Tissue.CSF, Tissue.WHITE_MATTER)
        }
        ratio[contrast] = pure[Tissue.CSF] / pure[Tissue.WHITE_MATTER]
    assert ratio["T2w"] > 2.0
    assert ratio["T1w"] < 0.8


def test_fat_saturation_darkens_the_rim_of_the_knee() -> None:
    """Subcutaneous fat is the brightest part of a PDw knee and nearly vanishes in PDw-FS."""
    shares = {}
    for contrast in ("PDw", "PDw-FS"):
        config = PhantomConfig(contrast=contrast, noise=0.0, slices=3)
        image = synthesise_volume("knee", config, seed=0, name="p").target
        shares[contrast] = np.quantile(image[image > 0.02 * image.max()], 0.5) / image.max()
    assert shares["PDw-FS"] < 0.5 * shares["PDw"]


@pytest.mark.parametrize("ring", [False, True])
def test_random_fields_have_unit_variance_and_their_wavelength(ring: bool) -> None:
    """Averaged over seeds the variance is 1, and a ring's spectrum peaks at its wavelength."""
    axis = np.linspace(-1, 1, 128, endpoint=False, dtype=np.float32)
    stack = np.stack(
        [RandomField(np.random.default_rng(s), 0.2, ring=ring).on(axis, axis) for s in range(12)]
    )
    assert stack.std() == pytest.approx(1.0, abs=0.12)
    assert abs(stack.mean()) < 0.15
    if ring:
        power = np.mean(np.abs(np.fft.fft2(stack)) ** 2, axis=0)
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 2 / 128), np.fft.fftfreq(128, 2 / 128)))
        assert np.sum(power * frequency) / power.sum() == pytest.approx(5.0, rel=0.1)


def test_random_fields_are_functions_of_position() -> None:
    """The same point has the same value in any grid, and values change gradually along z."""
    field = RandomField(np.random.default_rng(0), (0.1, 0.4), ring=True, angle=0.3)
    fine = np.linspace(-1, 1, 41, dtype=np.float32)
    whole, part = field.on(fine, fine, 0.2), field.on(fine[::4], fine[1::5], 0.2)
    np.testing.assert_allclose(part, whole[::4, 1::5], atol=1e-4)
    near, far = field.on(fine, fine, 0.25), field.on(fine, fine, 1.7)
    assert np.abs(near - whole).mean() < 0.1
    assert np.abs(far - whole).mean() > 0.5


def test_downsampling_is_the_mean_of_each_pixels_points() -> None:
    """Partial volume: every pixel is the average of its supersampled points."""
    grid = Grid.for_matrix(40, 50)
    values = np.random.default_rng(0).normal(size=(grid.y.size, grid.x.size)).astype(np.float32)
    factor = grid.supersampling
    expected = values.reshape(40, factor, 50, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(grid.downsample(values), expected, atol=1e-6)
