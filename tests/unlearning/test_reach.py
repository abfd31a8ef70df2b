"""The length of an ascent by what the remaining sites feel of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconsent.errors import ContributionError
from unlearning.reach import length_of_reach


@given(
    steepness=st.floats(0.1, 3.0),
    power=st.floats(0.7, 3.0),
    trained=st.floats(0.01, 1.0),
    way=st.floats(0.1, 10.0),
    reach=st.floats(0.2, 0.8),
)
def test_the_length_found_has_the_reach_asked_for(
    steepness: float, power: float, trained: float, way: float, reach: float
) -> None:
    """On a loss that saturates, the closed-form length is found to the tolerance, in eight probes."""
    calls = []

    def loss(length: float) -> float:
        calls.append(length)
        return trained + way * (1 - math.exp(-((steepness * length) ** power)))

    found = length_of_reach(
        loss, trained=trained, untrained=trained + way, reach=reach, longest=64.0, probes=12
    )
    share = 1 - math.exp(-((steepness * found) ** power))
    assert share == pytest.approx(reach, abs=0.05)
    assert len(calls) <= 12


def test_the_length_is_bounded_where_the_loss_hardly_rises() -> None:
    """If the remaining sites feel nothing, the ascent is as long as it may be, and no longer."""
    assert (
        length_of_reach(lambda s: 1 + 1e-6 * s, trained=1.0, untrained=2.0, reach=0.6, longest=10.0) == 10.0
    )


def test_a_ruined_model_counts_as_untrained() -> None:
    """Where the loss is no number the step is too long, and a shorter one is found."""
    found = length_of_reach(
        lambda s: math.nan if s > 0.5 else 1 + s, trained=1.0, untrained=2.0, reach=0.4, longest=10.0
    )
    assert 0.3 < found <= 0.5


def test_without_a_scale_there_is_no_length() -> None:
    """A trained model that is no better than the untrained one gives an error, not a number."""
    with pytest.raises(ContributionError, match="set alpha"):
        length_of_reach(lambda s: 1 + s, trained=1.0, untrained=0.9, reach=0.6, longest=10.0)
