"""Certificates from what a server recorded: the claim that its records bear, and no other."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.certificate.page import bundle_page
from reconsent.config import ConsortiumConfig
from reconsent.files import sha256_of
from reconsent.privacy import PrivacyConfig
from server.accountability import FRESH_METHODS, policy_digest, site_figures
from server.certifying import Draft, draft
from server.code_version import NOT_RECORDED, git_commit
from server.persistence import (
    Certificates,
    ModelRegistry,
    PrivacyDesk,
    RoundLog,
    RoundRecord,
    SiteOutcome,
    StateDirectory,
    WithdrawalActs,
    Withdrawals,
)
from server.processing_record import TO_FILL_IN, markdown, record_of_processing
from server.residues import note_purge
from server.status import status_of
from strategies import messages as msg
from strategies.methods import METHODS, method_settings
from tests.server.hospitals import consortium, opened
from unlearning.certificate.claim import Certified, ClaimLevel
from unlearning.certificate.evidence import About, Figure
from unlearning.certificate.layout import PRIVACY, SLICE
from unlearning.certificate.signed import countersign, issue, verify
from unlearning.certificate.statement import SIMULATION, Signers, payload_of, read_payload
from unlearning.signing import SigningKey

OPERATOR, OFFICER = SigningKey.generate(), SigningKey.generate()
SIGNERS = Signers(operator=OPERATOR.key_id, privacy_officer=OFFICER.key_id)
GAP = Figure(name="oracle-gap/forget-test", about=About.FORGETTING, value=0.1, unit="dB", before=3.0)


def drafted(state: StateDirectory, config: ConsortiumConfig, **kwargs: Any) -> Draft:
    """The certificate of the only withdrawal."""
    (record,) = Withdrawals(state).all()
    return draft(state, config, record, signers=SIGNERS, secret=b"s" * 32, **kwargs)


def carried_out(path: Path, method: str, **settings: object) -> tuple[StateDirectory, ConsortiumConfig]:
    """A consortium from which delta was withdrawn, by ``method``; the state is open."""
    config = consortium(
        withdrawals=({"sites": ("delta",)},),
        unlearning={"method": method, "settings": settings},
        assessment={"oracle": False},
    )
    with opened(path, config) as run:
        run.coordinator.run()
    return StateDirectory.open(path / "state", url=""), config


@pytest.fixture(scope="module")
def ascended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StateDirectory, ConsortiumConfig]]:
    """A consortium from which delta was withdrawn by ascent; only looked at."""
    state, config = carried_out(tmp_path_factory.mktemp("ascended"), "cached-ascent", alpha=0.5)
    with state:
        yield state, config


Ascended = tuple[StateDirectory, ConsortiumConfig]


def test_retraining_is_claimed_where_the_lineage_shows_it(tmp_path: Path) -> None:
    """`retrain` is exact: every version from the initial one is listed, none with an update of the site."""
    state, config = carried_out(tmp_path, "retrain")
    with state:
        made = drafted(state, config).certificate
        assert made.claim_level is ClaimLevel.EXACT_RETRAIN
        assert made.lineage is not None
        assert (made.lineage.edges, made.lineage.method_reads_history) == (0, False)
        assert (made.simulation, made.notice) == (True, SIMULATION)
        assert made.sites[0].rounds == 6
        # Its contributions were erased when the retraining began, and are listed all the same.
        assert made.erasure is not None
        assert (made.erasure.contributions, made.erasure.remaining) == (7, 0)
        # The same with one edge of the site put into the way: no longer exact.
        registry = ModelRegistry(state)
        after = registry.latest("main", kinds=("unlearned",))
        assert after is not None
        assert made.model_after is not None
        assert made.model_after.sha256 == after.digest
        with state.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE models SET sites = '{\"delta\": 0.1}' WHERE id = ?", (after.parent,)
            )
        assert drafted(state, config).certificate.claim_level is ClaimLevel.PARTICIPATION_ENDED


def test_ascent_claims_only_what_was_measured(ascended: Ascended) -> None:
    """No evidence: participation ended. Figures within limits fixed before: empirical. Beyond them: not."""
    state, config = ascended
    bare = drafted(state, config).certificate
    assert bare.claim_level is ClaimLevel.PARTICIPATION_ENDED
    assert "Nothing was measured" in bare.claim_reasons[-1]
    assert bare.lineage is not None
    assert (bare.lineage.edges, bare.lineage.method_reads_history) == (6, True)
    assert drafted(state, config, figures=[GAP]).certificate.claim_level is ClaimLevel.EMPIRICAL
    for wrong in ({"value": 0.6}, {"name": "unheard-of"}, {"before": 0.2}):
        fields = {name: getattr(GAP, name) for name in GAP.__slots__} | wrong
        level = drafted(state, config, figures=[Figure(**fields)]).certificate.claim_level
        assert level is ClaimLevel.PARTICIPATION_ENDED
    bound = Certified(
        epsilon=1.25, delta=1e-6, mechanism="noisy descent", assumptions="convex", accountant="rdp 1"
    )
    certified = drafted(state, config, certified=bound).certificate
    assert certified.claim_level is ClaimLevel.CERTIFIED
    page = bundle_page(certified).decode()
    for shown in ("1.25", "1e-06", "noisy descent", "convex", "rdp 1"):
        assert shown in certified.claim
        assert shown in page
    assert read_payload(payload_of(certified)) == certified


def test_privacy_settings_and_what_was_spent_are_in_the_bundle(tmp_path: Path) -> None:
    """What each site told last, also in a round that failed; where it told nothing: not recorded."""
    state, config = carried_out(tmp_path, "retrain")
    told = {msg.EPSILON["patient"]: 1.5, msg.PRIVACY_DELTA: 1e-5, msg.EPSILON_CEILING: 4.0}
    with state:
        outcome = SiteOutcome(outcome="ok", privacy=told)
        RoundLog(state).append_failed(
            RoundRecord(line="main", kind="train", round=9, sites={"delta": outcome})
        )
        private = config.model_copy(
            update={"privacy": PrivacyConfig(mode="sample", noise_multiplier=1.0, ceiling=4.0)}
        )
        made = drafted(state, private)
        shown = {entry["site"]: entry for entry in json.loads(made.files[PRIVACY])["sites"]}
        leaver = shown.pop(made.certificate.sites[0].pseudonym)
        assert leaver["spent"] == [
            {"unit": "patient", "spent": 1.5, "delta": 1e-5, "ceiling": 4.0, "round": 9}
        ]
        assert leaver["settings"]["noise-multiplier"] == 1.0
        assert [entry["spent"] for entry in shown.values()] == ["not recorded"] * 3


def test_the_commit_is_that_of_a_checkout_and_of_no_other(tmp_path: Path) -> None:
    """Clean, changed, and code that lies in somebody else's checkout: then it is not recorded."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")

    def run(*arguments: str) -> str:
        command = [git, "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()  # type: ignore[arg-type]

    run("init", "-q")
    (tmp_path / "code.py").write_text("1")
    run("add", ".")
    run("commit", "-qm", "first")
    commit = run("rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "code.py").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"
    (tmp_path / "site-packages").mkdir()
    assert git_commit(tmp_path / "site-packages") == NOT_RECORDED


def test_only_known_methods_count_as_fresh() -> None:
    """Each is a method, and none needs contributions, except rollback, to find the round."""
    assert METHODS.keys() >= FRESH_METHODS
    needs = {name: METHODS[name].needs(method_settings(name, {})) for name in FRESH_METHODS - {"rollback"}}
    assert not any(
        need.contributions or need.history != "none" or need.cooperation for need in needs.values()
    )


def test_limits_are_on_record_before_the_unlearning(ascended: Ascended) -> None:
    """The policy, its hash and the figures of the remaining sites; limits changed afterwards do not count."""
    state, config = ascended
    (record,) = Withdrawals(state).all()
    (policy,) = WithdrawalActs(state).of(record.id, "policy")
    made = drafted(state, config)
    certificate = made.certificate
    assert certificate.method is not None
    assert certificate.model_after is not None
    assert certificate.method.policy_sha256 == policy_digest(policy.body) == certificate.files["policy.json"]
    assert policy.at < ModelRegistry(state).get(certificate.model_after.version).created_at
    lax = config.model_copy(
        update={"compliance": config.compliance.model_copy(update={"accuracy_margin_db": 99.0})}
    )
    figure = Figure(name="oracle-gap/forget-test", about=About.FORGETTING, value=9.0, unit="dB")
    assert drafted(state, lax, figures=[figure]).certificate.claim_level is ClaimLevel.PARTICIPATION_ENDED
    names = {entry["name"] for entry in site_figures(state, record)}
    assert names <= {"psnr-lost/alpha", "psnr-lost/beta", "psnr-lost/gamma"}


def test_what_is_erased_and_revoked_is_listed(ascended: Ascended) -> None:
    """Hashes of the contributions, the revoked versions and the recipients; sites under pseudonyms only."""
    state, config = ascended
    made = drafted(state, config)
    certificate = made.certificate
    assert certificate.erasure is not None
    assert (certificate.erasure.contributions > 0, certificate.erasure.remaining) == (True, 0)
    assert {model.version for model in certificate.revoked} == {
        version.id for version in ModelRegistry(state).all() if version.status.value == "revoked"
    }
    assert certificate.recipients.total == certificate.recipients.pending == 4
    assert certificate.ledger is not None
    content = countersign(issue(certificate, OPERATOR).content, OFFICER).content
    assert verify(content, [OPERATOR.public, OFFICER.public]) == certificate
    for name, written in made.files.items():
        # The ledger's own entries name the site that left, as they were written; no other.
        for site in (b"beta", b"gamma") if name == SLICE else (b"beta", b"gamma", b"delta"):
            assert site not in written, name


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A consortium that has trained; to be copied."""
    path = tmp_path_factory.mktemp("template")
    with opened(path, consortium()) as run:
        run.coordinator.run()
    return path


@pytest.mark.parametrize("exit_", ["refuse", "cancel", "hold"])
def test_what_is_not_carried_out_claims_nothing(template: Path, tmp_path: Path, exit_: str) -> None:
    """A refusal, a cancellation and a hold are certified with their reason, and claim nothing."""
    config = consortium()
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    with StateDirectory.open(tmp_path / "state", url="") as state:
        record = Withdrawals(state).file(["delta"], reason="asked", requested_by="dpo", restrict=True)
        until = (dt.date(2028, 1, 1),) if exit_ == "hold" else ()
        getattr(PrivacyDesk(state, "officer"), exit_)(record.id, "because of §1", *until)
        certificate = drafted(state, config).certificate
        assert certificate.request.held_until == next(iter(until), None)
        assert ("1 January 2028, when the legal hold" in bundle_page(certificate).decode()) == bool(until)
        (shown,) = status_of(state, config)["withdrawals"]
        assert shown["held_until"] == ("2028-01-01" if until else None)
        assert certificate.claim_level is ClaimLevel.NONE
        assert (
            certificate.outcome == {"refuse": "refused", "cancel": "cancelled", "hold": "legal_hold"}[exit_]
        )
        assert certificate.decisions[-1].reason == "because of §1"
        assert certificate.erasure is None
        assert not certificate.notice


def test_a_grant_in_part_keeps_the_models(template: Path, tmp_path: Path) -> None:
    """No unlearning, no revocation; the contributions are gone, and that is all that is claimed."""
    plan = consortium(withdrawals=({"sites": ("delta",)},), assessment={"oracle": False})
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    with opened(tmp_path, consortium()) as run:
        record = run.coordinator.withdrawals.file(
            ["delta"], reason="asked", requested_by="dpo", restrict=True
        )
        PrivacyDesk(run.coordinator.state, "officer").grant_in_part(record.id, "Art. 17(3)(d)")
    with opened(tmp_path, plan) as run:
        run.coordinator.run()
        assert "delta" not in run.coordinator.cache.sites()
    with StateDirectory.open(tmp_path / "state", url="") as state:
        certificate = drafted(state, plan).certificate
        assert (certificate.outcome, certificate.claim_level) == (
            "granted_in_part",
            ClaimLevel.PARTICIPATION_ENDED,
        )
        assert not certificate.revoked
        assert {v.status.value for v in ModelRegistry(state).all("main")} <= {"active", "superseded"}
        assert any("kept and used" in text for text in certificate.exceptions)
        # Nobody has looked yet at what Flower itself still holds.
        assert any("SuperLink was not emptied" in text for text in certificate.exceptions)
        assert "SuperLink was not emptied" in certificate.claim_reasons[0]
        assert "were erased" not in certificate.claim
        assert "supersedes" not in certificate.model_fields_set
        note_purge(state, 3, 1000)
        first = issue(certificate, OPERATOR)
        Certificates(state).keep(certificate.certificate_id, record.id, first.content, {})
        certificate = drafted(state, plan).certificate
        assert certificate.supersedes is not None
        assert certificate.supersedes.certificate_id == first.certificate.certificate_id
        assert certificate.supersedes.payload_sha256 == sha256_of(payload_of(first.certificate))
        assert certificate.supersedes.certificate_id in bundle_page(certificate).decode()
        assert not any("SuperLink" in text for text in (*certificate.exceptions, *certificate.claim_reasons))
        assert "were erased" in certificate.claim
        assert certificate.erasure is not None
        assert "SuperLink's database emptied" in certificate.erasure.how


def test_the_record_of_processing_says_whose_privacy_it_is(tmp_path: Path) -> None:
    """Tables of single sites are listed beside the consortium's, none is lost, and none is called none."""
    whole = {"mode": "sample", "target-epsilon": 8.0}
    sites = [{"name": "alpha", "organ": "brain", "privacy": whole}, {"name": "beta", "organ": "brain"}]
    told = []
    with StateDirectory.open(tmp_path / "state") as state:
        for changes in ({}, {"privacy": whole}, {"sites": sites}):
            record = record_of_processing(state, consortium(**changes), dt.datetime.now(dt.UTC))
            told.append(record["sections"]["Security (Art. 30(1)(g), 32)"]["Differential privacy"])
    none, everybody, single = told
    assert none == "none"
    assert "mode = sample, unit = patient, target-epsilon = 8.0, delta = 1e-05" in everybody
    assert single == [f"alpha: {everybody}", "the other sites: none"]


def test_the_record_of_processing_marks_what_it_cannot_know(tmp_path: Path) -> None:
    """What the state and the configuration say is filled in; the rest is marked, in both forms."""
    state, config = carried_out(tmp_path, "retain-ft")
    with state:
        named = config.model_copy(
            update={"compliance": config.compliance.model_copy(update={"controller": "Hospital | North"})}
        )
        record = record_of_processing(state, named, dt.datetime.now(dt.UTC))
        who = record["sections"]["Who (Art. 30(1)(a))"]
        assert who["Controller"] == "Hospital | North"
        assert who["Data protection officer"] == TO_FILL_IN
        assert "delta (withdrawn)" in who["Sites"]
        text = markdown(record)
        assert "Hospital \\| North" in text
        assert "SIMULATION: not evidence" in text
        assert text.count(TO_FILL_IN) >= 10
