"""Sampling masks are fastMRI's, acquire what they promise, and are refused where they cannot work."""

from __future__ import annotations

import fastmri.data.subsample as subsample
import pytest
import torch
from fastmri.data.transforms import apply_mask
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mri.masks import make_mask
from reconsent.config import SamplingConfig
from reconsent.errors import ConfigError

KINDS = {
    "random": subsample.RandomMaskFunc,
    "equispaced": subsample.EquiSpacedMaskFunc,
    "equispaced-fraction": subsample.EquispacedMaskFractionFunc,
    "magic": subsample.MagicMaskFunc,
    "magic-fraction": subsample.MagicMaskFractionFunc,
}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    columns=st.integers(32, 400),
    acceleration=st.integers(2, 10),
    centre=st.floats(0.02, 0.3),
    seed=st.integers(0, 2**63 - 1),
    cut=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_mask_is_fastmris_own(
    kind: str, columns: int, acceleration: int, centre: float, seed: int, cut: tuple[int, int]
) -> None:
    """Every accepted mask equals what fastMRI's class and apply_mask give for the same seed and padding."""
    config = SamplingConfig(mask=kind, acceleration=acceleration, center_fraction=centre)
    padding = (cut[0], columns - cut[1])
    try:
        made = make_mask(config, columns, seed=seed, padding=padding)
    except ConfigError:
        assume(False)
    function = KINDS[kind]([centre], [acceleration])
    _, expected, low = apply_mask(
        torch.ones(1, 4, columns, 2), function, seed=(seed % 2**32, seed // 2**32), padding=padding
    )
    assert torch.equal(made.mask, expected.reshape(columns))
    assert made.num_low_frequencies == low
    start = (columns - low + 1) // 2
    assert made.mask[start : start + low].all()
    assert made.num_low_frequencies >= 2
    assert 0 < made.mask.sum() < columns


@pytest.mark.parametrize("kind", ["random", "equispaced-fraction", "magic-fraction"])
@pytest.mark.parametrize(
    ("columns", "acceleration", "centre"), [(320, 4, 0.08), (368, 8, 0.04), (640, 6, 0.06)]
)
def test_acceleration_and_centre_fraction_are_met_on_average(
    kind: str, columns: int, acceleration: int, centre: float
) -> None:
    """Averaged over seeds, 1/acceleration of the columns is acquired and the centre has its share."""
    config = SamplingConfig(mask=kind, acceleration=acceleration, center_fraction=centre)
    masks = [make_mask(config, columns, seed=seed) for seed in range(60)]
    share = sum(float(made.mask.mean()) for made in masks) / len(masks)
    assert share == pytest.approx(1 / acceleration, rel=0.12)
    assert masks[0].num_low_frequencies == round(columns * centre)
    assert masks[0].acceleration == pytest.approx(columns / float(masks[0].mask.sum()))


def test_seed_alone_decides() -> None:
    """The same seed gives the same mask, others differ, and global generators are not touched."""
    config = SamplingConfig(mask="random")
    state = torch.get_rng_state()
    one, again, other = (make_mask(config, 128, seed=seed) for seed in (2**40 + 1, 2**40 + 1, 1))
    assert torch.equal(one.mask, again.mask)
    assert not torch.equal(one.mask, other.mask)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("config", "columns", "padding", "words"),
    [
        (SamplingConfig(center_fraction=0.02), 64, None, "at least 2"),
        (SamplingConfig(acceleration=10, center_fraction=0.1), 100, None, "allows only 10.0"),
        (
            SamplingConfig(mask="magic-fraction", acceleration=10, center_fraction=0.1),
            96,
            None,
            "allows only",
        ),
        (SamplingConfig(mask="random", acceleration=8, center_fraction=0.3), 64, None, "allows only 8.0"),
        (SamplingConfig(), 64, (31, 64), "not all acquired"),
        (SamplingConfig(), 64, (0, 33), "not all acquired"),
        (SamplingConfig(mask="equispaced", acceleration=2, center_fraction=0.995), 64, None, "acquires all"),
    ],
)
def test_impossible_masks_are_refused(
    config: SamplingConfig, columns: int, padding: tuple[int, int] | None, words: str
) -> None:
    """A centre that is too small, too large or not acquired, or a full mask, is refused with its reason."""
    with pytest.raises(ConfigError, match=words):
        make_mask(config, columns, seed=0, padding=padding)
