"""Each check on cases that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reconsent.errors import ConfigError, ContributionError, DataError
from unlearning.verification.alignment import alignment
from unlearning.verification.bootstrap import bootstrap_mean
from unlearning.verification.equivalence import equivalence_test
from unlearning.verification.function_distance import function_distance, output_distance
from unlearning.verification.kolmogorov import error_distributions, ks_distance, rho
from unlearning.verification.likelihood_ratio import balanced_memberships, likelihood_ratio_scores
from unlearning.verification.membership import compare_attacks, loss_scores, patient_means
from unlearning.verification.oracle_gap import oracle_gap
from unlearning.verification.relearning import relearn_gap
from unlearning.verification.roc import roc
from unlearning.verification.without_oracle import Calibration, change

numbers = st.lists(st.floats(-50, 50, allow_nan=False), min_size=2, max_size=20)


def test_bootstrap_resamples_patients_not_volumes() -> None:
    """Copying each patient's volume ten times does not narrow the interval."""
    values = [1.0, 2.0, 3.0, 7.0, 9.0]
    once = bootstrap_mean(values, list("abcde"))
    often = bootstrap_mean(np.repeat(values, 10), [name for name in "abcde" for _ in range(10)])
    assert often.mean == pytest.approx(once.mean)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert bootstrap_mean(np.repeat(values, 10)).high - bootstrap_mean(np.repeat(values, 10)).low < 0.5 * (
        once.high - once.low
    )


@given(numbers)
def test_bootstrap_interval_holds_the_mean(values: list[float]) -> None:
    """The interval lies within the values and holds their mean."""
    found = bootstrap_mean(values, resamples=50)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.low <= found.mean <= found.high <= max(values) + slack


def test_equivalence_is_two_one_sided_t_tests() -> None:
    """The p-value is the larger of two t-tests, and the interval within the margin says the same."""
    differences = np.array([0.1, -0.2, 0.3, 0.05, 0.12, -0.07])
    found = equivalence_test(differences, margin=0.3)
    upper = stats.ttest_1samp(differences, 0.3, alternative="less").pvalue
    lower = stats.ttest_1samp(differences, -0.3, alternative="greater").pvalue
    assert found.p_value == pytest.approx(max(upper, lower))
    assert found.equivalent == (found.low > -0.3 and found.high < 0.3)
    assert found.equivalent
    assert not equivalence_test(differences, margin=0.1).equivalent


def test_equivalence_is_two_sided() -> None:
    """Too good and too bad are different alike, and neither is equivalent."""
    for sign in (1, -1):
        found = equivalence_test(sign * np.array([2.0, 2.1, 1.9]), margin=0.5)
        assert found.different
        assert not found.equivalent


def test_absence_of_a_difference_is_no_equivalence() -> None:
    """Scattered differences about zero are neither different nor equivalent."""
    found = equivalence_test([3.0, -3.0, 2.5, -2.5], margin=0.5)
    assert not found.different
    assert not found.equivalent
    with pytest.raises(ConfigError, match="not positive"):
        equivalence_test([0.0, 0.1], margin=0.0)


def test_a_gap_that_cannot_be_told_is_undecided() -> None:
    """Gaps scattered about the margin neither pass nor fail."""
    scattered = oracle_gap("forget-test", [13.0, 7.0, 12.5, 7.5], [[10.0] * 4], margin=0.5)
    assert scattered.finding().verdict == "undecided"
    equal = oracle_gap("forget-test", [10.1, 9.9, 10.05, 9.95], [[10.0] * 4], margin=0.5)
    assert equal.finding().verdict == "passed"


def test_noise_floor_is_the_spread_of_the_oracles() -> None:
    """The floor is the standard deviation of the oracles' means, the gap is to their mean."""
    gap = oracle_gap("retain-test", [10.0, 12.0], [[10.0, 12.0], [11.0, 13.0], [12.0, 14.0]], margin=0.5)
    assert gap.gap == pytest.approx(-1.0)
    assert gap.floor == pytest.approx(1.0)
    assert gap.chance == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(4 / 3))
    with pytest.raises(DataError, match="same volumes"):
        oracle_gap("retain-test", [1.0], [[1.0, 2.0]], margin=1.0)


def test_relearn_gap_keeps_the_sign_of_the_largest() -> None:
    """The largest gap by size decides, and coming back too slowly fails as well."""
    fast = relearn_gap({4: 12.0, 8: 13.0}, {4: 10.0, 8: 12.9}, margin=0.75)
    assert fast.largest == pytest.approx(2.0)
    assert "hidden" in fast.finding().words
    slow = relearn_gap({4: 9.0}, {4: 10.0}, {4: 10.4}, margin=0.75)
    assert slow.floor == pytest.approx(0.2)
    assert slow.finding().verdict == "failed"
    with pytest.raises(DataError, match="same steps"):
        relearn_gap({4: 1.0}, {8: 1.0}, margin=1.0)


def test_output_distance_is_relative_energy() -> None:
    """‖a − b‖²/‖b‖² of complex or real arrays."""
    assert output_distance([3.0, 0.0], [0.0, 4.0]) == pytest.approx(25 / 16)
    assert output_distance([0.0], [0.0]) == 0.0
    assert output_distance([1j], [1.0]) == pytest.approx(2.0)
    found = function_distance([0.2, 0.4], [0.6, 0.6], [[0.2, 0.2], [0.1, 0.1]])
    assert found.remaining == pytest.approx(0.5)
    assert found.floor == pytest.approx(0.2)
    assert found.finding(factor=1.5).verdict == "passed"
    assert found.finding(factor=1.4).verdict == "failed"
    assert function_distance([0.2]).finding().verdict == "undecided"


def test_roc_of_four_scores() -> None:
    """Area, curve and true-positive rates of a case small enough to draw."""
    found = roc([3.0, 1.0], [2.0, 0.0])
    assert found.auc == pytest.approx(0.75)
    assert found.false_positive_rates == (0.0, 0.0, 0.5, 0.5, 1.0)
    assert found.true_positive_rates == (0.0, 0.5, 0.5, 1.0, 1.0)
    assert found.tpr_at_1_percent == 0.5


@given(numbers, numbers)
def test_area_is_the_rank_statistic(members: list[float], others: list[float]) -> None:
    """The area is the Mann-Whitney statistic over the number of pairs, ties counting half."""
    expected = stats.mannwhitneyu(members, others, method="asymptotic").statistic / (
        len(members) * len(others)
    )
    found = roc(members, others, resamples=10)
    assert found.auc == pytest.approx(expected)
    trapezoid = np.trapezoid(found.true_positive_rates, found.false_positive_rates)
    assert trapezoid == pytest.approx(expected)
    assert found.low <= found.auc <= found.high


def test_true_positive_rate_at_a_low_false_positive_rate() -> None:
    """Of a thousand others two score above four, fifty more above three: 0.2 % and 5.2 % are alarms."""
    others = np.concatenate([[5.0, 5.0], np.full(50, 3.5), np.zeros(948)])
    members = np.array([9.0, 4.0, 4.0, 3.0, -1.0])
    found = roc(members, others, resamples=10)
    assert found.tpr_at_1_percent == pytest.approx(0.6)
    assert found.tpr_at_01_percent == pytest.approx(0.2)


def test_likelihood_ratio_of_two_normals() -> None:
    """With means ±1 and a common variance s², the score is 2φ/s²."""
    shadows = np.array([[1.1, 1.2], [0.9, 0.8], [-1.1, -1.2], [-0.9, -0.8]])
    inside = np.array([[True, True], [True, True], [False, False], [False, False]])
    variance = (4 * 0.01 + 4 * 0.04) / 4
    found = likelihood_ratio_scores([0.5, -0.25], shadows, inside)
    assert found == pytest.approx(np.array([2 * 0.5, 2 * -0.25]) / variance)
    with pytest.raises(DataError, match="fewer than two"):
        likelihood_ratio_scores([0.5], [[1.0], [2.0], [3.0]], [[True], [False], [False]])


def test_each_patient_is_in_half_of_the_shadow_models() -> None:
    """Memberships are balanced, and pairs of models complement each other."""
    table = balanced_memberships(7, 8, seed=1)
    assert (table.sum(axis=0) == 4).all()
    assert (table[0::2] == ~table[1::2]).all()
    with pytest.raises(DataError, match="even number"):
        balanced_memberships(7, 5, seed=1)


def test_attack_without_a_shift_of_area_is_still_told_from_ruin() -> None:
    """A model whose losses are all ten times the oracle's has the oracle's area, and fails."""
    oracle = loss_scores(np.linspace(0.1, 0.2, 20))
    ruined = loss_scores(10 * np.linspace(0.1, 0.2, 20))
    found = compare_attacks("loss", (ruined[::2], ruined[1::2]), (oracle[::2], oracle[1::2]))
    assert found.auc_gap == 0.0
    assert found.finding().verdict == "failed"
    same = compare_attacks("loss", (oracle[::2], oracle[1::2]), (oracle[::2], oracle[1::2]))
    assert same.finding().verdict == "passed"
    few = compare_attacks("loss", (oracle[:2], oracle[2:4]), (oracle[:2], oracle[2:4]))
    assert few.finding().verdict == "undecided"


def test_patient_means_follow_the_names() -> None:
    """One mean a patient, in the order of names."""
    assert list(patient_means([1.0, 5.0, 3.0], ["b", "a", "b"]).items()) == [("a", 5.0), ("b", 2.0)]
    with pytest.raises(DataError, match="not positive"):
        loss_scores([0.0])


@given(numbers, numbers)
def test_ks_distance_is_scipys(first: list[float], second: list[float]) -> None:
    """The distance is that of scipy's two-sample test."""
    assert ks_distance(first, second) == pytest.approx(
        stats.ks_2samp(first, second, method="asymp").statistic
    )


def test_rho_is_one_for_the_calibration_model_and_less_for_a_remembering_one() -> None:
    """ρ of the oracle is 1, of a model half way to the query model less, and of the query model 0."""
    query, oracle = np.arange(10.0), np.arange(10.0) + 8.0
    assert rho(oracle, query, oracle) == pytest.approx(1.0)
    assert rho(query, query, oracle) == 0.0
    assert 0.0 < rho(query + 4.0, query, oracle) < 1.0
    with pytest.raises(DataError, match="not defined"):
        rho(oracle, query, query)


def test_ks_needs_enough_patients_to_pass() -> None:
    """Equal errors of three patients decide nothing, of eight they pass; another distribution fails."""
    errors = np.linspace(-3, -2, 8)
    assert error_distributions(errors[:3], errors[:3] + 1e-3).finding().verdict == "undecided"
    assert error_distributions(errors, errors + 1e-3).finding().verdict == "passed"
    assert error_distributions(errors, errors + 2.0).finding().verdict == "failed"


def test_alignment_in_the_plane() -> None:
    """The share of the way is a ratio of projections, and the span's share is a ratio of norms."""
    found = alignment([1.0, 1.0], [2.0, 0.0], [0.0, 0.0], [[1.0, 0.0], [3.0, 0.0]], oracle=[0.4, 5.0])
    assert found.remaining == pytest.approx(0.5)
    assert found.oracle == pytest.approx(0.2)
    assert found.in_span == pytest.approx(np.sqrt(0.5))
    assert found.cosine == pytest.approx(np.sqrt(0.5))
    assert found.finding().verdict == "failed"
    with pytest.raises(ContributionError, match="no update"):
        alignment([1.0], [1.0], [0.0], [])


def test_calibration_predicts_with_an_interval() -> None:
    """One simulation gives no bounds; several give the prediction interval of the next."""
    one = Calibration({"forget-test": (0.2,)})
    assert one.finding("forget-test", 0.5).verdict == "undecided"
    several = Calibration({"forget-test": (0.1, 0.2, 0.3)})
    mean, low, high = several.predicted("forget-test")
    assert mean == pytest.approx(0.2)
    assert high - mean == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 * np.sqrt(4 / 3))
    assert (low + high) / 2 == pytest.approx(0.2)
    assert several.finding("forget-test", 1.0).verdict == "passed"
    assert Calibration({"a": (5.0, 5.1)}).finding("a", 1.0).verdict == "failed"
    with pytest.raises(DataError, match="no gap"):
        several.predicted("relearn")


def test_a_remaining_site_may_not_lose_more_than_the_margin() -> None:
    """A loss beyond the margin fails, one within it passes, and one patient decides nothing."""
    before = np.array([30.0, 31.0, 32.0])
    assert change("retain-test", before, before - 0.2).retained(1.0).verdict == "passed"
    assert change("retain-test", before, before - 2.0).retained(1.0).verdict == "failed"
    assert change("retain-test", before[:1], before[:1]).retained(1.0).verdict == "undecided"
