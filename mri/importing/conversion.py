"""One examination's images or k-space made into k-space to train on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mri.fourier import reconstruct
from mri.importing.coil_maps import resample_maps
from mri.importing.examination import MagnitudeImages, MultiCoilKspace
from mri.importing.options import ImportOptions
from mri.importing.retrospective import crop_kspace, crop_or_pad, images_to_kspace, pad_to_proportions
from mri.volume import Volume
from mri.volume_checks import UndersampledError, centre_crop, check_kspace
from reconsent.errors import DataError

DEFAULT_COILS = 4


def scan_images(
    loaded: MagnitudeImages,
    options: ImportOptions,
    maps: npt.NDArray[np.complex64] | None,
    *,
    seed: int,
    where: str,
) -> MultiCoilKspace:
    """Retrospective k-space of magnitude images; see :func:`~mri.importing.retrospective.images_to_kspace`.

    Parameters
    ----------
    loaded
        Images.
    options
        Crop, matrix, coils and noise.
    maps
        complex64, ``(coils, rows, columns)`` of any matrix, or ``None`` to simulate coils.
    seed
        Of this examination.
    where
        The examination, for messages.

    Raises
    ------
    DataError
        If the matrix is larger than the images.
    """
    images = loaded.images if options.crop is None else crop_or_pad(loaded.images, options.crop)
    if not images.any():
        raise DataError(f"Nothing is left of {where} within the crop.", "Choose a larger crop.")
    matrix = options.matrix or (images.shape[1], images.shape[2])
    images = pad_to_proportions(images, matrix)
    kspace = images_to_kspace(
        images,
        matrix=matrix,
        coils=options.coils or DEFAULT_COILS,
        maps=None if maps is None else resample_maps(maps, *images.shape[1:]),
        noise=options.noise,
        seed=seed,
        where=where,
    )
    notes = {
        **loaded.notes,
        "coil_maps": "simulated" if maps is None else "file",
        "noise": options.noise,
        "seed": options.seed,
    }
    for key, have, want in zip(("pixel_rows_mm", "pixel_columns_mm"), images.shape[1:], matrix, strict=True):
        if key in notes:
            notes[key] = float(notes[key]) * have / want
    return MultiCoilKspace(
        kspace=kspace, image_shape=matrix, provenance="retrospective", notes=notes, remarks=loaded.remarks
    )


def refine_kspace(loaded: MultiCoilKspace, options: ImportOptions, *, where: str) -> MultiCoilKspace:
    """Drop empty coils if asked to, check the rest, and cut it to the matrix.

    Raises
    ------
    DataError
        If k-space is undersampled, not centred, has empty slices or coils, or is smaller than the matrix.
    """
    kspace = loaded.kspace
    remarks = loaded.remarks
    if options.drop_empty:
        live = kspace.any(axis=(2, 3)).all(axis=0)
        if not live.any():
            raise DataError(f"Every coil of {where} is empty in some slice.", "Leave it out.")
        if not live.all():
            remarks = (*remarks, f"{where}: {int(np.count_nonzero(~live))} empty coils were left out")
            kspace = kspace[:, live]
    _check_reference(kspace, where)
    shape = loaded.image_shape
    if options.matrix is not None:
        rows, columns = kspace.shape[2:]
        if options.matrix[0] > rows or options.matrix[1] > columns:
            raise DataError(
                f"The k-space of {where} has {rows} rows and {columns} columns, fewer than the matrix "
                f"{options.matrix[0]}x{options.matrix[1]}.",
                "Choose a smaller matrix.",
            )
        kspace = crop_kspace(kspace, options.matrix)
        shape = (
            max(1, round(shape[0] * options.matrix[0] / rows)),
            max(1, round(shape[1] * options.matrix[1] / columns)),
        )
    return replace(loaded, kspace=kspace, image_shape=shape, remarks=remarks)


def make_volume(scan: MultiCoilKspace, options: ImportOptions, *, name: str, patient: str) -> Volume:
    """The volume with its target, the root sum of squares."""
    kspace = np.ascontiguousarray(scan.kspace)
    return Volume(
        name=name,
        patient=patient,
        organ=options.organ,
        acquisition=options.acquisition or scan.acquisition or options.acquisition_name,
        kspace=kspace,
        target=np.ascontiguousarray(centre_crop(reconstruct(kspace), scan.image_shape)),
        padding=check_kspace(kspace, where=name),
        provenance=scan.provenance,
        notes=scan.notes,
    )


def _check_reference(kspace: npt.NDArray[np.complex64], where: str) -> None:
    try:
        check_kspace(kspace, where=where)
    except UndersampledError as error:
        raise DataError(
            error.problem,
            "Without a fully sampled reference nothing can be trained or measured on it. Its coils can "
            "still serve: estimate their sensitivities from the sampled centre (ESPIRiT, in BART or sigpy) "
            "and give them with --coil-maps when you import images.",
        ) from None
