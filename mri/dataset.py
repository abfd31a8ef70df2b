"""A site's slices, undersampled and normalised, in batches a reconstructor can take."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from mri.batch import Batch, Sample
from mri.directory import list_volumes
from mri.fastmri_file import read_header, read_volume
from mri.masks import SamplingMask, make_mask
from mri.prepared import PreparedVolume, prepare_volume
from mri.volume import Volume
from mri.volume_memory import SHARED, VolumeMemory
from reconsent.config import SamplingConfig
from reconsent.errors import ConfigError, DataError
from reconsent.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class _Source:
    """A volume that can be loaded, and what is known of it before."""

    name: str
    patient: str
    slices: int
    size_bytes: int
    load: Callable[[], Volume]
    key: Hashable


class SiteDataset:
    """The slices of a site's patients.

    A set that fits into its memory is read once and stays there while other datasets leave it the room; of a
    larger one only as many volumes are held as fit, and slices are shuffled among those.

    Parameters
    ----------
    directory
        Directory of fastMRI HDF5 files.
    sampling
        Undersampling to apply.
    patients
        Pseudonyms to keep; ``None`` keeps all.
    seed
        Of the fresh masks.
    fresh_masks
        Draw a mask for every slice and epoch (training). Otherwise each volume keeps one mask, which
        depends on its name alone, as in fastMRI: every model is evaluated on the same measurements.
    memory
        Where read volumes are kept, and how many; by default shared by all datasets of the process.

    Raises
    ------
    DataError
        If the directory has no usable volume, or a patient is not in it.
    """

    def __init__(
        self,
        directory: Path,
        sampling: SamplingConfig,
        *,
        patients: Sequence[str] | None = None,
        seed: int,
        fresh_masks: bool,
        memory: VolumeMemory = SHARED,
    ) -> None:
        self._set_up(_sources_of(directory), str(directory), sampling, patients, seed, fresh_masks, memory)

    @classmethod
    def from_volumes(
        cls,
        volumes: Sequence[Volume],
        sampling: SamplingConfig,
        *,
        patients: Sequence[str] | None = None,
        seed: int,
        fresh_masks: bool,
        memory: VolumeMemory | None = None,
    ) -> Self:
        """Make a dataset of volumes in memory, prepared in one of its own; else as the class."""
        sources = [_source_of(volume, partial(_itself, volume)) for volume in volumes]
        dataset = cls.__new__(cls)
        own = VolumeMemory() if memory is None else memory
        dataset._set_up(sources, "memory", sampling, patients, seed, fresh_masks, own)
        return dataset

    def _set_up(
        self,
        sources: Sequence[_Source],
        place: str,
        sampling: SamplingConfig,
        patients: Sequence[str] | None,
        seed: int,
        fresh_masks: bool,
        memory: VolumeMemory,
    ) -> None:
        if patients is not None:
            known = {source.patient for source in sources}
            unknown = sorted(set(patients) - known)
            if unknown:
                raise DataError(
                    f"There is no patient {', '.join(unknown)} in {place}.",
                    f"Patients are: {', '.join(sorted(known)) or 'none'}.",
                )
            sources = [source for source in sources if source.patient in set(patients)]
        if not sources:
            raise DataError(f"There is no volume to use in {place}.", "Check the directory and the patients.")
        self._sources = {source.name: source for source in sorted(sources, key=lambda s: s.name)}
        if len(self._sources) < len(sources):
            raise DataError(f"Two volumes in {place} have the same name.", "Rename one of the files.")
        self.sampling = sampling
        self.seed = seed
        self.fresh_masks = fresh_masks
        self.epoch = 0
        self._memory = memory
        # Of the volumes read so far: how many slices have signal.
        self._usable: dict[str, int] = {}
        self._slices = [(name, i) for name, source in self._sources.items() for i in range(source.slices)]

    @property
    def volumes(self) -> tuple[str, ...]:
        """Names of the volumes, sorted."""
        return tuple(self._sources)

    @property
    def patients(self) -> tuple[str, ...]:
        """Pseudonyms of the patients, sorted."""
        return tuple(sorted({source.patient for source in self._sources.values()}))

    def __len__(self) -> int:
        """Number of slices, empty ones included."""
        return len(self._slices)

    @property
    def examples(self) -> int:
        """Number of slices that have signal; a volume that was not read yet counts with all of its slices."""
        return sum(self._usable.get(name, source.slices) for name, source in self._sources.items())

    def __getitem__(self, index: int) -> Sample:
        name, position = self._slices[index]
        return self._sample(self.volume(name), position, fresh=self.fresh_masks)

    def set_epoch(self, epoch: int) -> None:
        """Choose which fresh masks are drawn from now on."""
        self.epoch = epoch

    def volume(self, name: str) -> PreparedVolume:
        """Load a volume, or take it from memory.

        Raises
        ------
        DataError
            If there is no such volume, or it cannot be used.
        """
        if name not in self._sources:
            raise DataError(f"There is no volume '{name}'.", f"Volumes are: {', '.join(self._sources)}.")
        source = self._sources[name]
        # Of what is prepared nothing depends on the dataset but the sampling.
        key = (source.key, self.sampling)
        volume = self._memory.get(
            key, source.size_bytes, lambda: prepare_volume(source.load(), self.sampling)
        )
        if name not in self._usable:
            self._usable[name] = len(volume.usable_slices)
        return volume

    def batches(self, batch_size: int, *, seed: int, shuffle: bool = True) -> Iterator[Batch]:
        """One pass over all slices that have signal.

        Parameters
        ----------
        batch_size
            Slices a batch; the last one of each shape may be smaller.
        seed
            Of the order. The masks depend on the dataset's seed and epoch instead.
        shuffle
            Mix slices of all volumes held at a time; otherwise keep volumes and slices in order.

        Raises
        ------
        ConfigError
            If the batch size is not positive.
        """
        if batch_size < 1:
            raise ConfigError(f"The batch size is {batch_size}.", "Use 1 or more.")
        rng = np.random.default_rng(derive_seed(seed, "order"))
        for names in self._windows(rng if shuffle else None):
            groups: dict[tuple[int, ...], list[tuple[str, int]]] = {}
            for name in names:
                volume = self.volume(name)
                for position in volume.usable_slices:
                    groups.setdefault(volume.sample_shape(position), []).append((name, position))
            parts: list[list[tuple[str, int]]] = []
            for group in groups.values():
                if shuffle:
                    rng.shuffle(group)
                parts += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
            if shuffle:
                rng.shuffle(parts)
            for part in parts:
                yield Batch.of([self._sample(self.volume(n), i, fresh=self.fresh_masks) for n, i in part])

    def volume_batches(self, name: str, batch_size: int) -> Iterator[Batch]:
        """One volume's slices that have signal, in order, under the volume's own fixed mask."""
        volume = self.volume(name)
        pending: list[Sample] = []
        for position in volume.usable_slices:
            sample = self._sample(volume, position, fresh=False)
            if pending and (
                len(pending) == batch_size or pending[0].masked_kspace.shape != sample.masked_kspace.shape
            ):
                yield Batch.of(pending)
                pending = []
            pending.append(sample)
        if pending:
            yield Batch.of(pending)

    def units(self, unit: str) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The slices with signal, ``(volume, position)``, of each ``patient``, or each ``slice`` alone.

        A patient without such a slice, or a slice without signal, is a unit without slices: how many units
        there are depends on no image. Of patients no volume is kept in memory that does not fit; the order is
        that of their names.
        """
        if unit == "slice":
            usable = {name: frozenset(self.volume(name).usable_slices) for name in self._sources}
            return tuple(((name, i),) if i in usable[name] else () for name, i in self._slices)
        of: dict[str, list[tuple[str, int]]] = {patient: [] for patient in self.patients}
        for name, source in self._sources.items():
            of[source.patient] += [(name, position) for position in self.volume(name).usable_slices]
        return tuple(tuple(slices) for slices in of.values())

    def batches_of(self, slices: Sequence[tuple[str, int]], batch_size: int) -> Iterator[Batch]:
        """Chosen slices, ``(volume, position)``, in batches of equal shape, under the masks of the epoch."""
        groups: dict[tuple[object, ...], list[Sample]] = {}
        for name, position in slices:
            sample = self._sample(self.volume(name), position, fresh=self.fresh_masks)
            shape = tuple(sample.masked_kspace.shape), tuple(sample.target.shape), sample.num_low_frequencies
            groups.setdefault(shape, []).append(sample)
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                yield Batch.of(group[start : start + batch_size])

    def _windows(self, rng: np.random.Generator | None) -> Iterator[list[str]]:
        """Groups of volumes that fit into memory together."""
        names = list(self._sources)
        if rng is not None:
            names = [names[i] for i in rng.permutation(len(names))]
        window: list[str] = []
        size = 0
        for name in names:
            needed = self._sources[name].size_bytes
            if window and size + needed > self._memory.limit_bytes:
                yield window
                window, size = [], 0
            window.append(name)
            size += needed
        yield window

    def _sample(self, volume: PreparedVolume, position: int, *, fresh: bool) -> Sample:
        sampling = self._fresh_mask(volume, position) if fresh else volume.mask
        kspace = volume.live_kspace(position)
        line = sampling.mask.view(1, 1, -1, 1)
        return Sample(
            masked_kspace=kspace * line,
            mask=line.to(torch.bool),
            num_low_frequencies=sampling.num_low_frequencies,
            target=volume.target[position],
            data_range=volume.data_range,
            volume=volume.name,
            patient=volume.patient,
            slice=position,
        )

    def _fresh_mask(self, volume: PreparedVolume, position: int) -> SamplingMask:
        seed = derive_seed(self.seed, "mask", self.epoch, volume.name, position)
        return make_mask(self.sampling, volume.kspace.shape[3], seed=seed, padding=volume.padding)


def _itself(volume: Volume) -> Volume:
    return volume


def _source_of(volume: Volume, load: Callable[[], Volume]) -> _Source:
    return _Source(
        name=volume.name,
        patient=volume.patient,
        slices=volume.kspace.shape[0],
        size_bytes=volume.kspace.nbytes + volume.target.nbytes,
        load=load,
        key=object(),
    )


def _sources_of(directory: Path) -> list[_Source]:
    sources = []
    for path in list_volumes(directory):
        header = read_header(path)
        found = path.stat()
        # A file that was replaced, as phantoms of other parameters are, is another volume.
        key = (path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns)
        sources.append(
            _Source(
                header.name, header.patient, header.slices, header.size_bytes, partial(read_volume, path), key
            )
        )
    return sources
