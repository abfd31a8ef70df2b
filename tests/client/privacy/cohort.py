"""A few patients of a small site, and small reconstructors of both kinds."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from mri.batch import Batch
from mri.dataset import SiteDataset
from mri.phantoms import synthesise_volume
from mri.reconstructors import Reconstructor, build_reconstructor
from mri.volume import Volume
from reconsent.config import PhantomConfig, ReconstructorConfig, SamplingConfig

UNET = ReconstructorConfig(name="unet", channels=2, pools=1)
VARNET = ReconstructorConfig(
    name="varnet", cascades=2, channels=2, pools=1, sensitivity_channels=2, sensitivity_pools=1
)
NETWORKS = {"unet": UNET, "varnet": VARNET}


SAMPLING = SamplingConfig(acceleration=4, center_fraction=0.15)


@lru_cache
def volumes_of(patients: int = 3) -> tuple[Volume, ...]:
    """Patients of two slices and two coils; the first has a second volume, with one coil."""
    volumes = [
        synthesise_volume("brain", PhantomConfig(matrix=(32, 32), coils=2, slices=2), seed=n, name=f"p-{n}")
        for n in range(patients)
    ]
    again = synthesise_volume(
        "brain", PhantomConfig(matrix=(32, 32), coils=1, slices=2), seed=99, name="p-0-again"
    )
    volumes.append(replace(again, patient=volumes[0].patient))
    return tuple(volumes)


@lru_cache
def cohort(patients: int = 3) -> SiteDataset:
    """A site of these patients."""
    return SiteDataset.from_volumes(volumes_of(patients), SAMPLING, seed=1, fresh_masks=True)


def batches_of(unit: int, *, size: int = 4, dataset: SiteDataset | None = None) -> list[Batch]:
    """All slices of one patient."""
    data = dataset or cohort()
    return list(data.batches_of(data.units("patient")[unit], size))


def network(name: str) -> Reconstructor:
    """A small reconstructor, always the same."""
    return build_reconstructor(NETWORKS[name], seed=3)
