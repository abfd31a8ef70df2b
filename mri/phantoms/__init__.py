"""Phantoms with physics: random patients of five organs, scanned by spin echoes through coil arrays."""

from mri.phantoms.synthesis import ORGANS, synthesise_volume

__all__ = ["ORGANS", "synthesise_volume"]
