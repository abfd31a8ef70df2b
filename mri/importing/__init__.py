"""Import of DICOM, NIfTI, NumPy, ISMRMRD and fastMRI data into a site's directory."""

from mri.importing.importer import import_directory
from mri.importing.options import ACQUISITIONS, Axis, ImportOptions, ImportReport, Kind

__all__ = ["ACQUISITIONS", "Axis", "ImportOptions", "ImportReport", "Kind", "import_directory"]
