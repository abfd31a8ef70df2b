"""What a hospital learns of its own privacy budget before its node starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from client.node.budget import check_privacy
from client.node.findings import NodeReport
from client.node.settings import NodeSettings
from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.ledger import Expense, PrivacyLedger, PrivacyLedgerError, ledger_path
from reconsent.config import ConsortiumConfig

SAMPLE = {"mode": "sample", "noise-multiplier": 2.0, "ceiling": 9.0}
BY_SLICE = {**SAMPLE, "unit": "slice"}
WHOLE = {"mode": "site", "site-noise-multiplier": 2.0, "site-ceiling": 99.0}


def check(
    root: Path, privacy: dict[str, Any], policy: str, log: Path | None = None, data: Path | None = None
) -> NodeReport:
    """Check a node whose consortium has ``privacy``."""
    consortium = ConsortiumConfig.model_validate(
        {"name": "two", "sites": [{"name": n, "organ": "brain"} for n in ("a", "b")], "privacy": privacy}
    )
    file = root / "policy" / "policy.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(policy)
    settings = NodeSettings.model_validate(
        {
            "name": "a",
            "superlink": "host:1",
            **{key: root / key for key in ("ca", "key", "consortium")},
            "policy": file,
            "log": log or root / "log" / "site.jsonl",
            "data": data,
        }
    )
    report = NodeReport()
    check_privacy(settings, consortium, consortium.site("a"), report)
    return report


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SITE_POLICY", "SITE_LOG", "PRIVACY_LEDGERS"):
        monkeypatch.delenv(f"RECONSENT_{name}", raising=False)


def test_spending_is_told_from_the_sites_own_ledger(tmp_path: Path) -> None:
    """ε spent, the lower of both ceilings, δ, and where the ledger is."""
    ledger = PrivacyLedger(tmp_path / "log" / "privacy" / "two--a.jsonl")
    ledger.spend(Expense("patient", 2.0, 0.5, 3), lambda _: None)
    told = check(tmp_path, SAMPLE, "max-epsilon = 5.0\n").facts["privacy"]
    epsilon = epsilon_spent([Mechanism(2.0, 0.5, 3)], 1e-5)
    assert told == f"ε = {epsilon:.4g} of 5 spent on a patient at δ = 1e-05, by {ledger.path}"


def test_other_ledgers_of_the_site_are_told(tmp_path: Path) -> None:
    """What the site spent under other names is listed, and added up where the policy limits the whole."""
    directory = tmp_path / "log" / "privacy"
    assert "other ledgers" not in check(tmp_path, SAMPLE, "max-epsilon = 5.0\n").facts
    for name in ("two--a", "three--a", "two--b"):
        PrivacyLedger(directory / f"{name}.jsonl").spend(Expense("patient", 2.0, 0.5, 3), lambda _: None)
    facts = check(tmp_path, SAMPLE, "max-epsilon = 5.0\n").facts
    together = epsilon_spent([Mechanism(2.0, 0.5, 6)], 1e-5)
    assert facts["other ledgers"] == (
        f"three--a in {directory}; together with this one ε = {together:.4g} of 5 spent on a patient"
    )
    assert f"ε = {epsilon_spent([Mechanism(2.0, 0.5, 3)], 1e-5):.4g} of 5" in facts["privacy"]
    assert "not counted here" in check(tmp_path, SAMPLE, "").facts["other ledgers"]
    (directory / "three--a.jsonl").write_text('{"number": 2, "unit": "patient"}\n')
    assert "lacks an entry" in check(tmp_path, SAMPLE, "max-epsilon = 5.0\n").problems[0].reason


def test_ledgers_of_another_name_are_noted(tmp_path: Path) -> None:
    """A hospital that is called otherwise elsewhere is told that its limits do not reach there."""
    directory = tmp_path / "log" / "privacy"
    for name in ("two--a", "three--a", "three--clinic-a"):
        PrivacyLedger(directory / f"{name}.jsonl").spend(Expense("patient", 2.0, 0.5, 3), lambda _: None)
    report = check(tmp_path, SAMPLE, "max-epsilon = 50.0\n")
    assert [note.reason.partition(":")[0] for note in report.notes] == [f"three--clinic-a in {directory}"]
    assert not report.problems
    assert not check(tmp_path, SAMPLE, "").notes, "without a limit there is none to reach"


def test_files_that_do_not_say_whose_they_are_are_noted(tmp_path: Path) -> None:
    """Where the patient is the unit, a file without patient_id counts as a patient: that must be known."""
    data = tmp_path / "scans"
    data.mkdir()
    for number in range(3):
        with h5py.File(data / f"{number}.h5", "w") as file:
            if number:
                file.attrs["patient_id"] = "p"
    (data / "broken.h5").write_bytes(b"no HDF5")
    (note,) = check(tmp_path, SAMPLE, "", data=data).notes
    assert note.reason.startswith(f"1 of 3 files in {data} have no patient_id")
    assert not check(tmp_path, BY_SLICE, "", data=data).notes
    assert not check(tmp_path, WHOLE, "", data=data).notes
    with h5py.File(data / "0.h5", "a") as file:
        file.attrs["patient_id"] = "q"
    assert not check(tmp_path, SAMPLE, "", data=data).notes


def test_a_limit_that_would_stop_all_training_is_a_problem(tmp_path: Path) -> None:
    """A policy with a limit in a consortium without privacy is found before the first round is refused."""
    (problem,) = check(tmp_path, {"mode": "none"}, "max-epsilon = 5.0\n").problems
    assert (problem.key, "all training will be refused" in problem.reason) == ("policy", True)
    assert not check(tmp_path, {"mode": "none"}, "").problems


@pytest.mark.parametrize(
    ("privacy", "policy", "reason"),
    [
        (SAMPLE, "max-delta = 1e-5\n", ""),
        (SAMPLE, "max-delta = 9e-6\n", "a δ of 9e-06 at most, and the consortium's is 1e-05"),
        ({"mode": "none"}, "max-delta = 0.5\n", "sets max-delta, and the consortium trains in mode 'none'"),
        (SAMPLE, "max-site-epsilon = 5.0\nmax-delta = 0.5\n", "sets max-site-epsilon, and the consortium"),
        (BY_SLICE, "max-epsilon = 5.0\n", "limits ε on a patient, and the consortium's is on a slice"),
        (BY_SLICE, 'max-epsilon = 5.0\nunit = "slice"\n', ""),
        (SAMPLE, 'max-epsilon = 5.0\nunit = "slice"\n', ""),
        (BY_SLICE, "max-delta = 1e-5\n", ""),
        (
            {**SAMPLE, "delta": 0.9},
            "max-epsilon = 5.0\n",
            "a δ of 1e-05 at most, and the consortium's is 0.9",
        ),
        ({**SAMPLE, "delta": 1e-4}, "max-epsilon = 5.0\nmax-delta = 1e-3\n", ""),
        ({**SAMPLE, "delta": 0.9}, "", ""),
        ({**WHOLE, "delta": 1e-4}, "max-site-epsilon = 5.0\n", "a δ of 1e-05 at most"),
        (WHOLE, "max-site-epsilon = 5.0\n", ""),
        ({**WHOLE, "noise-at": "server"}, "max-site-epsilon = 5.0\n", "the server who would add the noise"),
        ({**WHOLE, "noise-at": "server"}, "max-site-epsilon = 5.0\ntrust-server = true\n", ""),
        ({**WHOLE, "noise-at": "server"}, "max-delta = 1e-5\n", ""),
    ],
)
def test_less_privacy_than_the_policy_asks_for_is_a_problem(
    tmp_path: Path, privacy: dict[str, Any], policy: str, reason: str
) -> None:
    """A larger δ, a kind of limit the consortium cannot keep, a weaker unit, a server to be trusted."""
    found = check(tmp_path, privacy, policy)
    assert [problem.key for problem in found.problems] == (["policy"] if reason else [])
    assert all(reason in problem.reason for problem in found.problems)
    assert ("privacy" in found.facts) is not bool(reason)


def test_a_ledger_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    """A ledger with a missing line is found at the check."""
    ledger = tmp_path / "log" / "privacy" / "two--a.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text('{"number": 2, "unit": "patient"}\n')
    (problem,) = check(tmp_path, SAMPLE, "").problems
    assert "lacks an entry" in problem.reason


@pytest.mark.parametrize("privacy", [BY_SLICE, WHOLE, {**WHOLE, "noise-at": "server"}])
def test_a_ledger_of_another_kind_is_a_problem(tmp_path: Path, privacy: dict[str, Any]) -> None:
    """That the file has another unit or kind of noise than the ledger is found before the first round."""
    ledger = PrivacyLedger(tmp_path / "log" / "privacy" / "two--a.jsonl")
    ledger.spend(Expense("patient", 2.0, 0.5, 3), lambda _: None)
    assert not check(tmp_path, SAMPLE, "").problems
    (problem,) = check(tmp_path, privacy, "").problems
    assert problem.reason.startswith("The site's ledger counts DP-SGD by patient, and this round would be")


def test_a_damaged_line_gives_nothing_back(tmp_path: Path) -> None:
    """Only a line without an end, or right before the next number, counts as torn; others are refused."""
    ledger = PrivacyLedger(tmp_path / "two--a.jsonl")
    for number in (1, 2):
        ledger.spend(Expense("patient", 2.0, 0.5, 3, round=number), lambda _: None)
    first, second = ledger.path.read_bytes().splitlines(keepends=True)
    torn = second[:20]

    def rounds(content: bytes) -> list[int]:
        ledger.path.write_bytes(content)
        return [expense.round for expense in ledger.expenses()]

    assert rounds(first + torn) == [1]
    assert rounds(first + torn + b"\n" + second) == [1, 2]
    for content in (
        first + b"#" + second[1:],
        b"#" + first[1:] + second,
        first + torn + b"\n",
        first + torn + b"\n" + torn,
        first + b"#" + second[1:] + torn + b"\n" + second,
    ):
        with pytest.raises(PrivacyLedgerError, match=r"damaged|lacks an entry"):
            rounds(content)


def test_ledgers_lie_beside_the_log_not_beside_a_policy_elsewhere(tmp_path: Path) -> None:
    """A policy often lies where the node cannot write; with neither there is no place for a ledger."""
    node = {"policy": "/etc/reconsent/policy.toml", "log": str(tmp_path / "site.jsonl")}
    assert ledger_path(node, "two", "a", environment={}) == tmp_path / "privacy" / "two--a.jsonl"
    alone = ledger_path({"policy": str(tmp_path / "policy.toml")}, "two", "a", environment={})
    assert alone == tmp_path / "privacy" / "two--a.jsonl"
    with pytest.raises(PrivacyLedgerError, match="no place for its privacy ledger"):
        ledger_path({}, "two", "a", environment={})


def test_an_old_state_and_two_servers_at_once_cannot_overspend(tmp_path: Path) -> None:
    """Two rounds asked for at the same time are added up one after the other: only one fits."""
    from concurrent.futures import ThreadPoolExecutor

    ledger = PrivacyLedger(tmp_path / "two--a.jsonl")

    def allow(expenses: object) -> None:
        if len(expenses) > 1:  # type: ignore[arg-type]
            raise ValueError

    def spend(number: int) -> bool:
        try:
            ledger.spend(Expense("patient", 2.0, 0.5, 3, round=number), allow)
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 1
    assert len(ledger.expenses()) == 1
