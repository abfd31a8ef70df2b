"""Every check must fail what has not forgotten, and pass another oracle: else it proves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.unlearning.verification.forgetful_case import Case, federate, network, vector
from unlearning.verification.finding import Finding, with_control
from unlearning.verification.limits import limits_of
from unlearning.verification.oracle_gap import oracle_gap
from unlearning.verification.without_oracle import change, membership_alone

CONTROLS = ("doing nothing", "fine-tuning alone", "random direction", "wrong sign", "collapsed")
CHECKS = (
    "gap/forget-test",
    "gap/forget-train",
    "relearn",
    "continuation",
    "function-distance",
    "membership/loss",
    "membership/lira",
    "error-distribution",
    "alignment",
)


@pytest.fixture(scope="session")
def case() -> Iterator[Case]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Case()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def found(case: Case) -> dict[str, dict[str, Finding]]:
    """Control → check → finding; and ``another oracle``."""
    table = {name: case.check(theta) for name, theta in case.controls().items()}
    another, _ = federate(vector(network(555)), case.sites, seed=555)
    table["another oracle"] = case.check(another, other=case.same_start)
    return table


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("check", CHECKS)
def test_each_check_fails_each_control(
    found: dict[str, dict[str, Finding]], check: str, control: str
) -> None:
    """No control passes any check of forgetting, and none is left undecided."""
    assert found[control][check].verdict == "failed"


def test_retain_accuracy_fails_the_collapsed_model(found: dict[str, dict[str, Finding]]) -> None:
    """The remaining sites' accuracy is no matter of forgetting, but a ruined model fails it."""
    assert found["collapsed"]["gap/retain-test"].verdict == "failed"
    assert found["fine-tuning alone"]["gap/retain-test"].verdict == "passed"


@pytest.mark.parametrize("check", ("gap/retain-test", *CHECKS))
def test_each_check_passes_another_oracle(found: dict[str, dict[str, Finding]], check: str) -> None:
    """A model retrained with another seed passes every check."""
    assert found["another oracle"][check].verdict == "passed"


def test_nothing_that_is_checked_speaks_against_another_oracle(found: dict[str, dict[str, Finding]]) -> None:
    """Not one check, of those above or besides, fails another oracle or leaves it undecided."""
    assert {finding.verdict for finding in found["another oracle"].values()} == {"passed"}


def test_every_check_has_limits(found: dict[str, dict[str, Finding]]) -> None:
    """Whatever is checked comes with what it cannot show."""
    assert all(len(limits_of(check)) > 100 for check in found["another oracle"])


def test_without_an_oracle_doing_nothing_still_fails(case: Case) -> None:
    """Change and membership alone fail the model that nothing was done to, and pass the oracle."""
    from tests.unlearning.verification.forgetful_case import accuracy
    from unlearning.verification.roc import roc

    cut = len(case.members)
    for theta, verdict in ((case.original, "failed"), (case.oracle, "passed")):
        before, after = (accuracy(m, case.held_out) for m in (case.original, theta))
        assert change("forget-test", before, after, case.held_out.patients).forgotten().verdict == verdict
    members = {name: case.statistic(m) for name, m in (("G", case.original), ("oracle", case.oracle))}
    attack = membership_alone(roc(members["G"][:cut], members["G"][cut:]))
    assert attack.verdict == "failed"
    guessing = membership_alone(roc(members["oracle"][:cut], members["oracle"][cut:]))
    assert guessing.verdict != "failed"


def test_a_gap_of_chance_is_no_pass_with_few_patients(case: Case) -> None:
    """One patient decides nothing, however small the gap."""
    single = oracle_gap("forget-test", [3.0, 3.1], [[3.0, 3.1]], ["p", "p"], margin=0.5)
    assert single.finding().verdict == "undecided"


def test_a_check_that_the_original_passes_too_decides_nothing(
    found: dict[str, dict[str, Finding]],
) -> None:
    """Passing is undecided where doing nothing passes as well, except for what the remaining sites keep."""
    passed, failed = found["another oracle"], found["doing nothing"]
    for check in CHECKS:
        assert with_control(passed[check], failed[check]).verdict == "passed"
        assert with_control(passed[check], passed[check]).verdict == "undecided"
        assert with_control(failed[check], passed[check]).verdict == "failed"
    kept = passed["gap/retain-test"]
    assert with_control(kept, kept).verdict == "passed"
