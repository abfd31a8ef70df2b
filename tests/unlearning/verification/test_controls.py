"""Every check must fail what has not forgotten, and pass another oracle: else it proves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.unlearning.verification.forgetful_case import (
    Case,
    Data,
    Vector,
    accuracy,
    federate,
    network,
    vector,
)
from tests.unlearning.verification.wired_case import wired
from unlearning.verification.exit_audit import exit_audit
from unlearning.verification.finding import Finding, with_control
from unlearning.verification.limits import limits_of
from unlearning.verification.oracle_gap import oracle_gap
from unlearning.verification.roc import roc
from unlearning.verification.without_oracle import Change, change, membership_alone

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
def controls(case: Case) -> dict[str, Vector]:
    """Control → model."""
    return case.controls()


@pytest.fixture(scope="session")
def found(case: Case, controls: dict[str, Vector]) -> dict[str, dict[str, Finding]]:
    """Control → check → finding; and ``another oracle``."""
    table = {name: case.check(theta) for name, theta in controls.items()}
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


NEEDS_NO_ORACLE = (
    "changed/forget-test",
    "changed/forget-train",
    "membership/loss",
    "audit/changed/members",
    "audit/membership/loss",
    "audit/membership-change/loss",
)
ALONE = {
    "doing nothing": "failed failed failed failed failed failed",
    "fine-tuning alone": "passed passed failed passed failed failed",
    "random direction": "passed passed undecided passed undecided passed",
    "wrong sign": "passed passed undecided passed undecided passed",
    "collapsed": "passed passed passed passed passed passed",
    "oracle": "passed passed undecided passed undecided passed",
}
"""What these checks can and cannot tell: a ruined model passes all of them, and they do not know the oracle
from a random direction. What the remaining sites keep has to tell the ruined one."""


def alone(case: Case, theta: Vector) -> dict[str, Finding]:
    """Every check that needs no oracle, of one model; those of the exit audit under ``audit/``."""
    cut = len(case.members)
    scores = case.statistic(theta)
    found = [
        membership_alone(roc(scores[:cut], scores[cut:])),
        _change(case, theta, "retain-test", case.retain_test).retained(0.5),
        _change(case, theta, "forget-test", case.held_out).forgotten(),
        _change(case, theta, "forget-train", case.forget).forgotten(),
    ]
    audit = exit_audit(
        case.errors(theta, case.forget),
        case.errors(theta, case.held_out),
        members_before=case.errors(case.original, case.forget),
        references_before=case.errors(case.original, case.held_out),
    )
    return {finding.check: finding for finding in found} | {
        f"audit/{finding.check}": finding for finding in audit.findings
    }


def _change(case: Case, theta: Vector, name: str, data: Data) -> Change:
    return change(name, accuracy(case.original, data), accuracy(theta, data), data.patients)


@pytest.mark.parametrize("name", (*CONTROLS, "oracle"))
def test_what_can_be_told_without_an_oracle(case: Case, controls: dict[str, Vector], name: str) -> None:
    """Each control's verdicts are those of the table: what is ruined passes but for what is kept."""
    found = alone(case, case.oracle if name == "oracle" else controls[name])
    assert [found[check].verdict for check in NEEDS_NO_ORACLE] == ALONE[name].split()
    kept = {"doing nothing": "passed", "collapsed": "failed"}
    assert found["kept/retain-test"].verdict == kept.get(name, found["kept/retain-test"].verdict)


@pytest.mark.parametrize("name", ("fine-tuning alone", "collapsed"))
def test_a_simulation_hands_each_check_what_it_is_about(
    case: Case, controls: dict[str, Vector], name: str
) -> None:
    """The checks as a simulation wires them find, figure by figure, what the checks find when called here."""
    expected = case.check(controls[name])
    found = {finding.check: finding for finding in wired(case, controls[name]).findings("unlearned")}
    assert set(found) == set(expected)
    for check, finding in expected.items():
        for field in ("value", "low", "high", "reference", "accepted_low", "accepted_high"):
            assert getattr(found[check], field) == pytest.approx(getattr(finding, field), abs=1e-6), check
        assert found[check].verdict == finding.verdict, check


def test_without_an_oracle_it_hands_them_the_same(case: Case, controls: dict[str, Vector]) -> None:
    """The checks that need no oracle, wired by a simulation, find what they find when called here."""
    theta = controls["collapsed"]
    expected = alone(case, theta)
    found = {finding.check: finding for finding in wired(case, theta, oracle=False).findings("unlearned")}
    for check in ("changed/forget-test", "changed/forget-train", "kept/retain-test", "membership/loss"):
        assert found[check].value == pytest.approx(expected[check].value, abs=1e-6), check
    assert found["kept/retain-test"].accepted_low == -1.0


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
