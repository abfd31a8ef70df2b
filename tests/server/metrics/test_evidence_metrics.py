"""What the server's exporter shows of the evidence that is on record."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from server.accountability import PSNR_LOST
from server.certifying import draft
from server.metrics import StateCollector, evidence
from server.metrics import catalogue as names
from server.persistence import Certificates, Ledger, StateDirectory, Withdrawals
from server.persistence.withdrawal_acts import WithdrawalActs
from tests.server.hospitals import consortium, opened
from tests.server.metrics.scrapes import exposed
from unlearning.certificate.evidence import About, Figure
from unlearning.certificate.signed import issue
from unlearning.certificate.statement import Signers
from unlearning.signing import SigningKey
from unlearning.withdrawal import WithdrawalState


def test_evidence_of_the_last_unlearning_has_its_limit(tmp_path: Path) -> None:
    """The newest figures are shown beside the limit of their own policy; certificates are counted."""
    with opened(tmp_path, consortium()) as run:
        run.coordinator.meet()
        register, acts = run.coordinator.withdrawals, WithdrawalActs(run.coordinator.state)
        now = dt.datetime.now(dt.UTC)
        for site, lost, limit in (("gamma", 0.1, 0.5), ("delta", 0.4, 0.3)):
            filed = register.file([site], reason="leaves", requested_by="officer")
            acts.add(filed.id, "policy", {"limits": {PSNR_LOST: {"high": limit}}}, at=now, actor="server")
            figure = {"name": f"{PSNR_LOST}/alpha", "value": lost}
            acts.add(filed.id, "figures", {"figures": [figure]}, at=now, actor="server")
        acts.add(filed.id, "certificate", {"certificate": "c", "sha256": "0"}, at=now, actor="server")
    collector = StateCollector(tmp_path / "state")
    samples = collector.samples()
    collector.close()
    assert samples.value(evidence.LOST, "alpha") == 0.4
    assert samples.value(evidence.LIMIT) == 0.3
    assert samples.value(evidence.AT) == pytest.approx(now.timestamp())
    assert samples.value(evidence.CERTIFICATES) == 1


def test_gaps_are_those_of_the_newest_certificate_with_figures(tmp_path: Path) -> None:
    """Both gaps with their limits, and whether each family holds; no other names become labels."""
    config = consortium(training={"rounds": 1}, withdrawals=[{"sites": ["gamma"], "at-round": 1}])
    with opened(tmp_path, config) as run:
        run.coordinator.run()
    limits = config.compliance
    given = {
        **{f"oracle-gap/{part}": 0.1 for part in evidence.PARTS},
        "oracle-gap/Anna": 0.2,
        **{f"relearn-gap/{number}-steps": number / 10 for number in range(1, 11)},
        "relearn-gap/32-steps": limits.relearn_margin_db + 1,
        "membership/Anna": 0.5,
    }
    figures = [
        Figure(name=name, about=About.FORGETTING, value=value, unit="dB") for name, value in given.items()
    ]
    collector = StateCollector(tmp_path / "state")
    assert collector.samples().value(evidence.ORACLE, "forget-test") is None
    with StateDirectory.open(tmp_path / "state") as opened_state:
        for chosen in (figures[:1], figures):
            key = Ledger(opened_state).signing_key()
            (withdrawal,) = Withdrawals(opened_state).all()
            made = draft(
                opened_state,
                config,
                withdrawal,
                signers=Signers(operator=key.key_id, privacy_officer=SigningKey.generate().key_id),
                secret=bytes(32),
                figures=chosen,
            ).certificate
            content = issue(made, key).content
            Certificates(opened_state).keep(made.certificate_id, withdrawal.id, content, {})
            samples = collector.samples()
            assert samples.value(evidence.ORACLE, evidence.PARTS[0]) == 0.1
    text = exposed(collector)
    assert "Anna" not in text
    assert {part: samples.value(evidence.ORACLE, part) for part in evidence.PARTS} == dict.fromkeys(
        evidence.PARTS, 0.1
    )
    assert samples.value(evidence.RELEARN, "3") == 0.3
    assert text.count("reconsent_evidence_relearn_gap_decibels{") == evidence.MOST_STEPS
    assert samples.value(evidence.GAP_LIMIT, "oracle-gap") == limits.accuracy_margin_db
    assert samples.value(evidence.GAP_LIMIT, "relearn-gap") == limits.relearn_margin_db
    held = [samples.value(evidence.PASSED, family) for family in ("oracle-gap", "relearn-gap", "other")]
    assert held == [1, 0, 0], "one is beyond its limit, and one never had any"
    assert samples.value(evidence.CLAIM, made.claim_level.value, "yes") == 1
    assert samples.value(evidence.ISSUED_AT) == made.issued_at.timestamp()
    with StateDirectory.open(tmp_path / "state") as opened_state:
        key = Ledger(opened_state).signing_key()
        refused = Withdrawals(opened_state).file(["delta"], reason="leaves", requested_by="officer")
        Withdrawals(opened_state).advance(refused.id, WithdrawalState.REFUSED, note="no such right")
        drafted = draft(
            opened_state,
            config,
            Withdrawals(opened_state).get(refused.id),
            signers=Signers(operator=key.key_id, privacy_officer=SigningKey.generate().key_id),
            secret=bytes(32),
        ).certificate
        content = issue(drafted, key).content
        Certificates(opened_state).keep(drafted.certificate_id, refused.id, content, {})
    samples = collector.samples()
    assert samples.value(evidence.ISSUED_AT) == drafted.issued_at.timestamp()
    held = [samples.value(evidence.PASSED, family) for family in ("oracle-gap", "relearn-gap", "other")]
    assert held == [1, 0, 0], "that of a refused request says nothing of the unlearning"
    with StateDirectory.open(tmp_path / "state") as opened_state:
        Certificates(opened_state).keep("C-unreadable", withdrawal.id, b"{}", {})
    samples = collector.samples()
    assert samples.value(evidence.ISSUED_AT) is None
    assert samples.value(names.READABLE) == 1
    collector.close()
