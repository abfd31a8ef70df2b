"""Which site this process is, and where its data are."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from client.device import CPU, chosen_device
from mri.directory import MIN_PATIENTS, list_volumes
from mri.fastmri_file import VolumeHeader, read_header
from mri.split import Split, split_patients
from reconsent.config import ConsortiumConfig, SiteConfig, load_consortium
from reconsent.environment import consortium_source, phantoms_path
from reconsent.errors import ConfigError, DataError
from reconsent.privacy import PrivacyConfig
from reconsent.seeds import derive_seed

# Over gRPC each message is a process of its own: who only says who he is must not wait for torch.
if TYPE_CHECKING:
    from mri.dataset import SiteDataset


@dataclass(frozen=True, slots=True)
class Site:
    """A site and the consortium it is part of."""

    consortium: ConsortiumConfig
    config: SiteConfig
    phantoms: Path = field(default_factory=lambda: phantoms_path({}))
    device: str = CPU
    withdrawn: frozenset[str] = frozenset()
    """Patients who withdrew from this site, which stays: nothing is trained or tested on them."""
    forgetting: bool = False
    """Whether it works on those of them alone that it has trained on, to have them forgotten."""

    @property
    def name(self) -> str:
        """The site's name."""
        return self.config.name

    @property
    def privacy(self) -> PrivacyConfig:
        """Differential privacy of its training."""
        return self.consortium.privacy_of(self.config)

    def dataset(self, split: str, *, share: float = 1.0) -> SiteDataset:
        """The slices of ``train``, ``test`` or ``gate`` (training patients under fixed masks).

        With a ``share`` below 1 only that share of the patients, one at least and always the same.
        """
        if self.forgetting and not self._remaining().train:
            raise DataError(
                f"Site '{self.name}' is asked to forget patients, and has none that withdrew and had been "
                "trained on.",
                "Name them in `withdrawn-patients` of the site's policy, and keep their files until the "
                "withdrawal is completed.",
            )
        return _dataset(self.consortium.seed, self.config, self._remaining(), split, self.phantoms, share)

    def without(self, patients: Collection[str]) -> Site:
        """The same site when ``patients``, as many as it has of them, have withdrawn."""
        return replace(self, withdrawn=frozenset(patients))

    def forget_set(self) -> Site:
        """The same site when its training data are those of the patients who withdrew, and no others."""
        return replace(self, forgetting=True)

    def training_slices(self) -> int:
        """How many slices ``dataset("train")`` has, from the headers of the files alone."""
        headers = _headers(self.consortium.seed, self.config, self.phantoms)
        train = frozenset(self._remaining().train)
        return sum(header.slices for header in headers if header.patient in train)

    def identifiers(self) -> frozenset[str]:
        """What must never leave the site in words: its file names, without ending, and its patients.

        Raises
        ------
        DataError
            If its directory or a file cannot be read.
        """
        paths = list_volumes(site_directory(self.consortium.seed, self.config, root=self.phantoms))
        return frozenset(name for path in paths for name in (path.stem, read_header(path).patient))

    def split(self) -> Split:
        """Which patients train and which test; fixed by the seed, whoever has withdrawn since."""
        return _known_split(self.consortium.seed, self.config, self.phantoms, self.withdrawn)

    def left_out(self) -> frozenset[str]:
        """Those of the patients who withdrew whom there still are data of."""
        return self.withdrawn & _known_patients(self.consortium.seed, self.config, self.phantoms)

    def _remaining(self) -> Split:
        """Of the split, who is still there; or, to have them forgotten, who was trained on and is not.

        Raises
        ------
        DataError
            If nobody remains to train or test on.
        """
        split = self.split()
        test = tuple(p for p in split.test if p not in self.withdrawn)
        if self.forgetting:
            return Split(train=tuple(p for p in split.train if p in self.left_out()), test=test)
        train = tuple(p for p in split.train if p not in self.withdrawn)
        if not (train and test):
            raise DataError(
                f"All patients that site '{self.name}' {'tests' if train else 'trains'} on have withdrawn.",
                "Withdraw the site as a whole.",
            )
        return Split(train=train, test=test)


def identify_site(
    node_config: Mapping[str, object], run_config: Mapping[str, object], environment: Mapping[str, str]
) -> Site:
    """Find out which site this node is.

    A deployed SuperNode says so in its node configuration (``site``, and ``data`` if its directory is not
    the one in the consortium file); in a simulation the partition number counts the consortium's sites. The
    environment or the node configuration may name a ``device``.

    Raises
    ------
    ConfigError
        If neither is given, the site is not in the consortium, or the device is unknown.
    """
    consortium = _consortium(consortium_source(run_config, environment))
    if "site" in node_config:
        config = consortium.site(str(node_config["site"]))
        if "data" in node_config:
            config = config.model_copy(update={"data": Path(str(node_config["data"]))})
    elif "partition-id" in node_config:
        partition = int(str(node_config["partition-id"]))
        if not 0 <= partition < len(consortium.sites):
            raise ConfigError(
                f"Simulated node {partition} has no site: the consortium has {len(consortium.sites)}.",
                f"Simulate {len(consortium.sites)} nodes.",
            )
        config = consortium.sites[partition]
    else:
        raise ConfigError(
            "This node does not say which site it is.",
            "Start the SuperNode with --node-config 'site=\"NAME\"'.",
        )
    device = chosen_device(node_config, environment)
    return Site(consortium, config, phantoms_path(run_config, environment), device)


def site_directory(
    seed: int,
    config: SiteConfig,
    progress: Callable[[int, int], None] | None = None,
    *,
    root: Path | None = None,
) -> Path:
    """The site's data directory; phantoms are made on the spot for a site that has none.

    Raises
    ------
    DataError
        If the directory named in the configuration does not exist.
    """
    if config.data is not None:
        if not config.data.is_dir():
            raise DataError(
                f"The data directory of site '{config.name}' does not exist: {config.data}.",
                "Correct its path, or leave data out to use phantoms.",
            )
        return config.data
    from mri.site_data import synthesise_directory

    directory = (root or phantoms_path({})) / config.name
    synthesise_directory(
        directory,
        config.organ,
        config.phantom,
        seed=derive_seed(seed, "phantoms", config.name),
        prefix=config.name,
        progress=progress,
    )
    return directory


def site_split(seed: int, config: SiteConfig, *, root: Path | None = None) -> Split:
    """Training and test patients of a site, fixed by the consortium's seed and the site's name."""
    return _split(seed, config, _headers(seed, config, root), root)


def _headers(seed: int, config: SiteConfig, root: Path | None) -> list[VolumeHeader]:
    return [read_header(path) for path in list_volumes(site_directory(seed, config, root=root))]


def _split(
    seed: int,
    config: SiteConfig,
    headers: list[VolumeHeader],
    root: Path | None,
    withdrawn: frozenset[str] = frozenset(),
) -> Split:
    patients = sorted({header.patient for header in headers} | withdrawn)
    if config.patients:
        missing = sorted(set(config.patients) - set(patients))
        if missing:
            raise DataError(
                f"Site '{config.name}' names patients that are not in "
                f"{site_directory(seed, config, root=root)}: {', '.join(missing)}.",
                "`reconsent data check` lists the patients of a directory.",
            )
        patients = sorted(config.patients)
    if len(patients) < MIN_PATIENTS:
        count = f"{len(patients)} patient{'s' * (len(patients) != 1)}"
        raise DataError(
            f"Site '{config.name}' has {count} in {site_directory(seed, config, root=root)}; "
            f"training and testing need {MIN_PATIENTS} at least.",
            "Add volumes of other patients. For a trial with one person's examination, "
            "`reconsent data import --slabs N` cuts it into parts that count as patients.",
        )
    return split_patients(
        patients,
        test_fraction=config.test_fraction,
        seed=derive_seed(seed, "split", config.name),
    )


@lru_cache(maxsize=4)
def _consortium(source: str) -> ConsortiumConfig:
    return load_consortium(source)


@lru_cache(maxsize=64)
def _known_split(seed: int, config: SiteConfig, root: Path, withdrawn: frozenset[str]) -> Split:
    # Whoever withdrew keeps a place in it when the files are gone: or others would change sides.
    return _split(seed, config, _headers(seed, config, root), root, withdrawn)


@lru_cache(maxsize=64)
def _known_patients(seed: int, config: SiteConfig, root: Path) -> frozenset[str]:
    return frozenset(header.patient for header in _headers(seed, config, root))


# Simulated sites share a process, so what is cached must be read-only and keyed by the site. The volumes are
# not kept here but in the one memory of all datasets.
@lru_cache(maxsize=64)
def _dataset(
    seed: int, config: SiteConfig, chosen: Split, split: str, root: Path, share: float
) -> SiteDataset:
    from mri.dataset import SiteDataset

    patients = chosen.test if split == "test" else chosen.train
    if share < 1:
        order = random.Random(derive_seed(seed, "share", config.name)).sample(patients, len(patients))
        patients = tuple(sorted(order[: max(1, round(share * len(patients)))]))
    return SiteDataset(
        site_directory(seed, config, root=root),
        config.sampling,
        patients=patients,
        seed=derive_seed(seed, "masks", config.name),
        fresh_masks=split == "train",
    )
