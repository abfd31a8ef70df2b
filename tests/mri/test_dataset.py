"""Datasets give every slice once, undersampled as promised, and never mix patients or shapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import fastmri
import numpy as np
import pytest
import torch

from mri.batch import Batch
from mri.dataset import SiteDataset
from mri.fastmri_file import write_volume
from mri.masks import make_mask
from mri.phantoms import synthesise_volume
from mri.split import split_patients
from mri.volume import Volume
from mri.volume_memory import VolumeMemory
from reconsent.config import PhantomConfig, SamplingConfig
from reconsent.errors import ConfigError, DataError
from reconsent.seeds import derive_seed

SAMPLING = SamplingConfig(acceleration=4, center_fraction=0.1)


@lru_cache
def _volume(name: str, matrix: tuple[int, int] = (32, 32), coils: int = 2, slices: int = 3) -> Volume:
    config = PhantomConfig(matrix=matrix, coils=coils, slices=slices)
    return synthesise_volume("brain", config, seed=0, name=name)


def _edited(volume: Volume, **changes: object) -> Volume:
    values = {field: getattr(volume, field) for field in Volume.__slots__}
    return Volume(**(values | changes))  # type: ignore[arg-type]


def _dataset(*volumes: Volume, **options: object) -> SiteDataset:
    defaults: dict[str, object] = {"seed": 0, "fresh_masks": False}
    return SiteDataset.from_volumes(volumes, SAMPLING, **(defaults | options))  # type: ignore[arg-type]


MIXED = (
    _volume("a"),
    _volume("b", (32, 48)),
    _volume("c", (48, 32)),
    _volume("d", (32, 32), 3),
    _volume("e", slices=5),
)


def _slices(batches: list[Batch]) -> Counter[tuple[str, int]]:
    return Counter(key for batch in batches for key in zip(batch.volumes, batch.slices, strict=True))


def _same(one: Batch, other: Batch) -> bool:
    return (
        one.volumes == other.volumes
        and one.slices == other.slices
        and torch.equal(one.mask, other.mask)
        and torch.equal(one.masked_kspace, other.masked_kspace)
    )


@pytest.mark.parametrize("memory_limit_bytes", [2**31, 150_000, 1])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_slice_comes_once_in_homogeneous_batches(memory_limit_bytes: int, shuffle: bool) -> None:
    """Whatever is held in memory, an epoch holds every slice once, and no batch mixes shapes."""
    dataset = _dataset(*MIXED, memory=VolumeMemory(memory_limit_bytes))
    batches = list(dataset.batches(2, seed=1, shuffle=shuffle))
    assert _slices(batches) == Counter((v.name, i) for v in MIXED for i in range(len(v.kspace)))
    assert len(dataset) == sum(len(volume.kspace) for volume in MIXED)
    shapes = {volume.name: volume.kspace.shape[1:] for volume in MIXED}
    for batch in batches:
        assert 1 <= len(batch) <= 2
        assert {shapes[name] for name in batch.volumes} == {tuple(batch.masked_kspace.shape[1:4])}
        assert batch.mask.dtype == torch.bool
        assert batch.mask.shape == (len(batch), 1, 1, batch.masked_kspace.shape[3], 1)
        assert batch.crop == batch.target.shape[1:]


def test_a_batch_holds_what_the_volume_holds() -> None:
    """Masked k-space, target and data range are the volume's, over one scale, and zero where not acquired."""
    dataset = _dataset(*MIXED)
    for batch in dataset.batches(2, seed=0):
        for i, (name, position) in enumerate(zip(batch.volumes, batch.slices, strict=True)):
            volume = next(v for v in MIXED if v.name == name)
            scale = dataset.volume(name).scale
            kspace = torch.view_as_complex(batch.masked_kspace[i]).numpy() * scale
            acquired = batch.mask[i, 0, 0, :, 0].numpy()
            np.testing.assert_allclose(
                kspace[..., acquired], volume.kspace[position][..., acquired], rtol=1e-5
            )
            assert not kspace[..., ~acquired].any()
            np.testing.assert_allclose(batch.target[i] * scale, volume.target[position], rtol=1e-5)
            assert float(batch.data_range[i]) * scale == pytest.approx(volume.maximum)
            assert batch.patients[i] == volume.patient


def test_fixed_masks_follow_from_the_name_alone() -> None:
    """A volume keeps its mask over slices, epochs and seeds; another name gives another mask."""
    renamed = [_edited(MIXED[0], name=f"b{i}") for i in range(8)]
    one = _dataset(MIXED[0], *renamed, seed=0)
    other = _dataset(MIXED[0], *renamed, seed=99)
    other.set_epoch(5)
    expected = make_mask(SAMPLING, 32, seed=derive_seed(0, "fixed mask", "a")).mask.bool()
    for dataset in (one, other):
        for index in range(3):
            assert torch.equal(dataset[index].mask[0, 0, :, 0], expected)
    assert len({tuple(one.volume(name).mask.mask.tolist()) for name in one.volumes}) > 1


def test_fresh_masks_change_with_slice_epoch_and_seed_and_repeat_with_them() -> None:
    """Training masks are new for each slice and epoch, and one seed gives one sequence of batches."""
    sampling = SamplingConfig(mask="random", acceleration=4, center_fraction=0.1)

    def run(seed: int, epoch: int, order: int = 0) -> list[Batch]:
        dataset = SiteDataset.from_volumes(MIXED, sampling, seed=seed, fresh_masks=True)
        dataset.set_epoch(epoch)
        return list(dataset.batches(3, seed=order))

    def masks(batches: list[Batch]) -> dict[tuple[str, int], torch.Tensor]:
        return {
            (batch.volumes[i], batch.slices[i]): batch.mask[i].flatten()
            for batch in batches
            for i in range(len(batch))
        }

    first = run(0, 0)
    assert all(_same(a, b) for a, b in zip(first, run(0, 0), strict=True))
    base = masks(first)
    assert not torch.equal(base["a", 0], base["a", 1])
    for other in (run(0, 1), run(1, 0)):
        assert sum(torch.equal(mask, base[key]) for key, mask in masks(other).items()) < len(base) / 2
    reordered = masks(run(0, 0, order=1))
    assert all(torch.equal(reordered[key], mask) for key, mask in base.items())


def test_order_depends_on_its_seed() -> None:
    """Equal seeds shuffle alike, others differently, and without shuffling volumes stay in order."""
    dataset = _dataset(*MIXED)
    orders = [
        [(b.volumes, b.slices) for b in dataset.batches(2, seed=seed, shuffle=shuffle)]
        for seed, shuffle in [(0, True), (0, True), (1, True), (0, False), (7, False)]
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[3] == orders[4]


def test_split_patients_share_no_slice() -> None:
    """Datasets of a split's two sides have no patient in common and together hold everything."""
    volumes = [_edited(volume, patient=f"p{i // 2}") for i, volume in enumerate(MIXED)]
    split = split_patients([v.patient for v in volumes], test_fraction=0.34, seed=3)
    train, test = (_dataset(*volumes, patients=side) for side in (split.train, split.test))
    seen = [
        {patient for batch in dataset.batches(4, seed=0) for patient in batch.patients}
        for dataset in (train, test)
    ]
    assert seen == [set(split.train), set(split.test)]
    assert not seen[0] & seen[1]
    assert len(train) + len(test) == sum(len(volume.kspace) for volume in volumes)


def test_scale_is_that_of_the_undersampled_image() -> None:
    """The zero-filled image's maximum becomes 1; what was not acquired does not influence the scale."""
    volume = MIXED[0]
    dataset = _dataset(volume)
    prepared = dataset.volume("a")
    batch = next(dataset.volume_batches("a", 8))
    image = fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(batch.masked_kspace)), dim=1)
    assert float(image.max()) == pytest.approx(1, rel=1e-5)
    tampered = volume.kspace.copy()
    tampered[..., prepared.mask.mask.numpy() == 0] *= 50
    assert _dataset(_edited(volume, kspace=tampered)).volume("a").scale == pytest.approx(prepared.scale)


def test_units_of_the_file_do_not_matter() -> None:
    """k-space and target times 1000 give the same batches in normalised units."""
    volume = MIXED[0]
    louder = _edited(volume, kspace=volume.kspace * 1000, target=volume.target * 1000)
    one, other = (next(_dataset(v).volume_batches("a", 8)) for v in (volume, louder))
    torch.testing.assert_close(one.masked_kspace, other.masked_kspace)
    torch.testing.assert_close(one.target, other.target)
    torch.testing.assert_close(one.data_range, other.data_range)


def test_silent_coils_and_empty_slices_are_left_out() -> None:
    """A coil without signal is dropped from its slice alone, and a slice without any is not trained on."""
    kspace, target = MIXED[4].kspace.copy(), MIXED[4].target.copy()
    kspace[1, 0] = 0
    kspace[3] = 0
    dataset = _dataset(_edited(MIXED[4], kspace=kspace, target=target))
    batches = list(dataset.batches(8, seed=0))
    assert _slices(batches) == Counter(("e", i) for i in (0, 1, 2, 4))
    coils = {i: batch.masked_kspace.shape[1] for batch in batches for i in batch.slices}
    assert coils == {0: 2, 1: 1, 2: 2, 4: 2}
    assert (dataset.examples, len(dataset)) == (4, 5)


def test_columns_outside_the_padding_are_never_acquired() -> None:
    """Phase encodes that the scanner did not acquire are not in any mask."""
    volume = _edited(MIXED[0], padding=(3, 28))
    dataset = _dataset(volume, fresh_masks=True)
    for epoch in range(5):
        dataset.set_epoch(epoch)
        for batch in dataset.batches(3, seed=0):
            assert not batch.mask[:, :, :, :3].any()
            assert not batch.mask[:, :, :, 28:].any()


def test_targets_wider_than_the_image_are_cropped() -> None:
    """A target that is larger than the reconstructed image is cut to it around the centre."""
    wide = np.pad(MIXED[0].target, ((0, 0), (0, 0), (4, 4)))
    batch = next(_dataset(_edited(MIXED[0], target=wide)).volume_batches("a", 8))
    assert batch.crop == (32, 32)
    torch.testing.assert_close(batch.target, next(_dataset(MIXED[0]).volume_batches("a", 8)).target)


def test_memory_limit_is_kept(tmp_path: Path) -> None:
    """Of a directory larger than the limit, only what fits is held, and the epoch is complete."""
    volumes = [_volume(name) for name in "fghij"]
    for volume in volumes:
        write_volume(tmp_path / f"{volume.name}.h5", volume)
    one = volumes[0].kspace.nbytes + volumes[0].target.nbytes
    memory = VolumeMemory(2 * one)
    dataset = SiteDataset(tmp_path, SAMPLING, seed=0, fresh_masks=True, memory=memory)
    seen: list[Batch] = []
    for batch in dataset.batches(2, seed=4):
        seen.append(batch)
        assert len(memory) <= 2
        assert memory.held_bytes <= 2 * one
    assert _slices(seen) == Counter((v.name, i) for v in volumes for i in range(3))
    assert dataset.volumes == ("f", "g", "h", "i", "j")


def test_a_batch_moves_whole() -> None:
    """Every tensor of a batch goes to the device asked for; one that is there is not copied."""
    batch = next(_dataset(MIXED[0]).batches(2, seed=0))
    moved = batch.to(torch.device("meta"))
    tensors = [value for value in (getattr(moved, f.name) for f in fields(moved)) if torch.is_tensor(value)]
    assert len(tensors) == 4
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.slices, moved.num_low_frequencies) == (batch.slices, batch.num_low_frequencies)
    assert batch.to(torch.device("cpu")) is batch


def test_datasets_share_one_budget(tmp_path: Path) -> None:
    """Datasets of the same files hold a volume once, and all together no more than the budget."""
    volumes = [_volume(name) for name in "fgh"]
    for volume in volumes:
        write_volume(tmp_path / f"{volume.name}.h5", volume)
    one = volumes[0].kspace.nbytes + volumes[0].target.nbytes
    memory = VolumeMemory(2 * one)
    train, gate, narrow = (
        SiteDataset(tmp_path, sampling, seed=seed, fresh_masks=fresh, memory=memory)
        for sampling, seed, fresh in (
            (SAMPLING, 0, True),
            (SAMPLING, 1, False),
            (SAMPLING.model_copy(update={"center_fraction": 0.2}), 0, True),
        )
    )
    first = train.volume("f")
    assert gate.volume("f") is first
    assert len(memory) == 1
    assert narrow.volume("f") is not first, "another sampling, another mask and scale"
    gate.volume("f")
    train.volume("g")
    assert memory.held_bytes == 2 * one
    assert train.volume("f") is first, "what was used last stays"
    write_volume(tmp_path / "f.h5", _edited(volumes[0], kspace=volumes[0].kspace * 2))
    again = SiteDataset(tmp_path, SAMPLING, seed=0, fresh_masks=False, memory=memory)
    assert again.volume("f") is not first, "a file that was replaced is read anew"


def test_a_directory_gives_what_its_volumes_give(tmp_path: Path) -> None:
    """Batches from files are those of the same volumes in memory, bit for bit."""
    (tmp_path / ".DS_Store").write_bytes(b"x")
    for volume in MIXED:
        write_volume(tmp_path / f"{volume.name}.h5", volume)
    from_files = SiteDataset(tmp_path, SAMPLING, seed=2, fresh_masks=True)
    in_memory = _dataset(*MIXED, seed=2, fresh_masks=True)
    for one, other in zip(from_files.batches(2, seed=0), in_memory.batches(2, seed=0), strict=True):
        assert _same(one, other)
    assert from_files.patients == ("a", "b", "c", "d", "e")


def test_unusable_input_is_refused(tmp_path: Path) -> None:
    """An empty or missing directory, unknown patients, twins, no signal and NaN are named."""
    with pytest.raises(DataError, match="no volume"):
        SiteDataset(tmp_path, SAMPLING, seed=0, fresh_masks=False)
    with pytest.raises(DataError, match="does not exist"):
        SiteDataset(tmp_path / "absent", SAMPLING, seed=0, fresh_masks=False)
    with pytest.raises(DataError, match=r"no patient x, y .*a, b"):
        _dataset(MIXED[0], MIXED[1], patients=["y", "a", "x"])
    with pytest.raises(DataError, match="same name"):
        _dataset(MIXED[0], MIXED[0])
    with pytest.raises(DataError, match="no volume 'zz'"):
        _dataset(MIXED[0]).volume("zz")
    with pytest.raises(DataError, match="no signal"):
        _dataset(_edited(MIXED[0], kspace=MIXED[0].kspace * 0)).volume("a")
    with pytest.raises(DataError, match="NaN"):
        _dataset(_edited(MIXED[0], kspace=MIXED[0].kspace * np.complex64(np.nan))).volume("a")
    with pytest.raises(DataError, match="shape"):
        _dataset(_edited(MIXED[0], target=MIXED[0].target[:1])).volume("a")
    narrow = SamplingConfig(center_fraction=0.01)
    with pytest.raises(ConfigError, match="at least 2"):
        SiteDataset.from_volumes([MIXED[0]], narrow, seed=0, fresh_masks=False).volume("a")
    with pytest.raises(ConfigError, match="batch"):
        next(_dataset(MIXED[0]).batches(0, seed=0))
