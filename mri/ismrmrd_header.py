"""The ISMRMRD header inside a fastMRI file: sizes of k-space and image, and the acquired phase encodes.

In it x is the readout, which is the rows of k-space, and y the phase encodes, the columns. fastMRI
derives the acquired columns from ``kspace_encoding_step_1``: the first is ``y // 2 - center``, and
``maximum + 1`` columns follow.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from ismrmrd import xsd

from reconsent.errors import DataError

NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"
GYROMAGNETIC_RATIO = 42_577_478.518
"""Of the proton, in hertz per tesla (CODATA 2018, γ / 2π)."""

_REMEDY = (
    "Write it with the classes of the ismrmrd package (ismrmrd.xsd.ismrmrdHeader), or import the raw data "
    "with `reconsent data import`."
)


@dataclass(frozen=True, slots=True)
class EncodingGeometry:
    """Sizes that fastMRI takes from the header.

    Attributes
    ----------
    rows, columns
        Matrix of the encoded space: readout samples and phase encodes.
    image_rows, image_columns
        Matrix of the reconstructed space, to which the image is cropped around its centre.
    padding
        First and one-past-last acquired phase encode.
    """

    rows: int
    columns: int
    image_rows: int
    image_columns: int
    padding: tuple[int, int]


def compose_header(
    geometry: EncodingGeometry,
    *,
    slices: int,
    coils: int,
    notes: Mapping[str, str | float | int],
) -> bytes:
    """Write a header that is valid under ISMRMRD's XML schema.

    Parameters
    ----------
    geometry
        Matrix sizes and acquired phase encodes.
    slices, coils
        Of the volume.
    notes
        Of the volume; ``field_strength_tesla``, ``repetition_time_ms``, ``echo_time_ms``,
        ``pixel_rows_mm``, ``pixel_columns_mm`` and ``slice_mm`` go into the header's own fields.
        Where they are missing, the obligatory fields are filled with 3 T and 1 mm.

    Returns
    -------
    bytes
        UTF-8 encoded XML. It holds nothing about the patient.
    """
    known = {key: float(value) for key, value in notes.items() if isinstance(value, int | float)}
    pixel = (known.get("pixel_rows_mm", 1.0), known.get("pixel_columns_mm", 1.0), known.get("slice_mm", 1.0))
    first, last = geometry.padding
    header = xsd.ismrmrdHeader(
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=known.get("field_strength_tesla"), receiverChannels=coils
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(known.get("field_strength_tesla", 3.0) * GYROMAGNETIC_RATIO)
        ),
        encoding=[
            xsd.encodingType(
                encodedSpace=_space(geometry.rows, geometry.columns, pixel),
                reconSpace=_space(geometry.image_rows, geometry.image_columns, pixel),
                encodingLimits=xsd.encodingLimitsType(
                    kspace_encoding_step_0=xsd.limitType(
                        minimum=0, maximum=geometry.rows - 1, center=geometry.rows // 2
                    ),
                    kspace_encoding_step_1=xsd.limitType(
                        minimum=0, maximum=last - first - 1, center=geometry.columns // 2 - first
                    ),
                    slice=xsd.limitType(minimum=0, maximum=slices - 1, center=slices // 2),
                ),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
        sequenceParameters=_sequence(known),
    )
    document: str = xsd.ToXML(header, encoding="utf-8")
    return document.encode("utf-8")


def parse_header(document: bytes, *, where: str) -> EncodingGeometry:
    """Read the sizes, as leniently as fastMRI does: only the fields it uses must be there.

    Raises
    ------
    DataError
        If the document is not XML, or one of those fields is missing or no whole number; ``where``
        names the file.
    """
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        # Entities could expand without bound, and no ISMRMRD header has any.
        raise DataError(f"The ISMRMRD header of {where} declares XML entities.", _REMEDY)
    try:
        root = ET.fromstring(document)  # noqa: S314  entities were refused above
    except ET.ParseError as error:
        raise DataError(f"The ISMRMRD header of {where} is not XML: {error}.", _REMEDY) from None
    columns = _number(root, "encodedSpace/matrixSize/y", where)
    first = columns // 2 - _number(root, "encodingLimits/kspace_encoding_step_1/center", where)
    return EncodingGeometry(
        rows=_number(root, "encodedSpace/matrixSize/x", where),
        columns=columns,
        image_rows=_number(root, "reconSpace/matrixSize/x", where),
        image_columns=_number(root, "reconSpace/matrixSize/y", where),
        padding=(first, first + _number(root, "encodingLimits/kspace_encoding_step_1/maximum", where) + 1),
    )


def _number(root: ET.Element, place: str, where: str) -> int:
    # Only the first encoding counts; a second one, if any, describes a calibration scan.
    path = "/".join(f"{NAMESPACE}{part}" for part in ["encoding", *place.split("/")])
    text = root.findtext(path)
    if text is None:
        raise DataError(f"The ISMRMRD header of {where} has no encoding/{place}.", _REMEDY)
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"The ISMRMRD header of {where} has '{text}' as encoding/{place}, which is no whole number.",
            _REMEDY,
        ) from None


def _space(rows: int, columns: int, pixel: tuple[float, float, float]) -> xsd.encodingSpaceType:
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=rows, y=columns, z=1),
        fieldOfView_mm=xsd.fieldOfViewMm(x=rows * pixel[0], y=columns * pixel[1], z=pixel[2]),
    )


def _sequence(known: Mapping[str, float]) -> xsd.sequenceParametersType | None:
    repetition, echo = known.get("repetition_time_ms"), known.get("echo_time_ms")
    if repetition is None and echo is None:
        return None
    return xsd.sequenceParametersType(
        TR=[] if repetition is None else [repetition], TE=[] if echo is None else [echo]
    )
