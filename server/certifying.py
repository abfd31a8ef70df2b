"""Assembles the certificate of a withdrawal, and the files that go with it, from the state alone."""

from __future__ import annotations

import datetime as dt
import platform
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from reconsent.config import ConsortiumConfig
from reconsent.errors import WithdrawalError
from reconsent.files import sha256_of
from server.accountability import PSNR_LOST, policy_digest
from server.certificate_parts import (
    decisions_of,
    exceptions_of,
    how_erased,
    ledger_position,
    not_shown,
    outcome_of,
)
from server.code_version import NOT_RECORDED
from server.evidence_files import evidence_files, recipients_without_names, residuals
from server.ledger_slice import slice_of
from server.names import MAIN
from server.on_record import Record, record_on
from server.persistence import (
    Certificates,
    Enrolments,
    Ledger,
    ModelRegistry,
    ModelVersion,
    StateDirectory,
    WithdrawalActs,
    WithdrawalRecord,
)
from server.residues import unfinished
from server.withdrawal_view import held_until
from unlearning.certificate import statement as said
from unlearning.certificate.claim import Certified, Facts, claim_of
from unlearning.certificate.evidence import About, Evidence, Figure, Limit, judge
from unlearning.certificate.layout import FINDINGS, SLICE
from unlearning.certificate.pseudonym import pseudonym
from unlearning.certificate.signed import read_unverified
from unlearning.withdrawal import WithdrawalState


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate to be signed, and the files whose hashes it names."""

    certificate: said.Certificate
    files: Mapping[str, bytes]

    def with_files(self, files: Mapping[str, bytes]) -> Draft:
        """The same with more files."""
        every = {**self.files, **files}
        digests = {name: sha256_of(content) for name, content in sorted(every.items())}
        return Draft(self.certificate.model_copy(update={"files": digests}), every)


@dataclass(frozen=True, slots=True)
class Further:
    """What was found by checks that no limit was fixed for: a claim never rests on it.

    Attributes
    ----------
    content
        Of the file that has it.
    words
        How the checks came out, and what each cannot show.
    """

    content: bytes
    words: tuple[str, ...]


def draft(
    state: StateDirectory,
    consortium: ConsortiumConfig,
    withdrawal: WithdrawalRecord,
    *,
    signers: said.Signers,
    secret: bytes,
    figures: Sequence[Figure] = (),
    certified: Certified | None = None,
    witnessed: Collection[int] = (),
    further: Further | None = None,
) -> Draft:
    """Assemble a certificate.

    Parameters
    ----------
    state, consortium, withdrawal
        What it is about.
    signers
        The keys that will sign.
    secret
        The consortium's, for pseudonyms.
    figures
        Measurements beside those of the remaining sites, which are in the state.
    certified
        A bound of removal, if there is one.
    witnessed
        Sizes of the ledger that sites say they have seen.
    further
        What other checks found; it is told, and changes nothing of the claim.

    Raises
    ------
    LedgerError
        If the ledger was altered, or never had one of these sizes.
    WithdrawalError
        If only patients left, and their site stays.
    """
    if withdrawal.site_stays:
        raise WithdrawalError(
            f"There is no certificate of {withdrawal.id}: it would say what became of a site, and this is "
            f"about {withdrawal.whom}.",
            "`reconsent withdrawals show` says what was done, `reconsent ledger verify` that nothing of it "
            "was altered; the site itself can say of which patients.",
        )
    record = record_on(state, withdrawal)
    ledger = Ledger(state)
    checkpoint = ledger.checkpoint()
    ledger_id = None if checkpoint is None else checkpoint.ledger

    def alias(site: str) -> str:
        return pseudonym(secret, ledger_id or consortium.name, site)

    evidence = _evidence(state, record, figures, alias)
    claim = claim_of(_facts(state, record, evidence, certified))
    outcome = outcome_of(withdrawal)
    recipients = recipients_without_names(state, withdrawal, alias)
    told = sum(entry["notified_at"] is not None for entry in recipients)
    now, simulated = dt.datetime.now(dt.UTC), withdrawal.simulated
    how = how_erased(state, withdrawal)
    listed = residuals(state, record, how, alias, now)
    bound = {} if claim.bound is None else {"bound": said.Bound(**asdict(claim.bound))}
    certificate = said.Certificate(
        **bound,
        claim_level=claim.level,
        claim=claim.sentence,
        claim_reasons=claim.reasons,
        simulation=simulated,
        notice=said.SIMULATION if simulated else "",
        outcome=outcome,
        certificate_id=f"C-{uuid.uuid4().hex[:12]}",
        issued_at=now,
        consortium=said.Consortium(
            name=consortium.name,
            ledger=ledger_id,
            controller=consortium.compliance.controller,
            privacy_officer=consortium.compliance.privacy_officer,
        ),
        request=_request(state, withdrawal),
        sites=tuple(_site(state, withdrawal, site, alias) for site in withdrawal.sites),
        decisions=decisions_of(state, withdrawal),
        model_before=_model(record.before),
        model_after=_model(record.after),
        lineage=_lineage(record),
        method=_method(record),
        evidence=tuple(_item(item) for item in evidence),
        not_shown=(
            *not_shown(claim.level, evidence, simulated=simulated),
            *(() if further is None else further.words),
        ),
        erasure=_erasure(record, how, listed),
        revoked=tuple(
            said.Model(version=entry["version"], round=entry["round"], sha256=entry["sha256"])
            for entry in record.revoked
        ),
        recipients=said.Recipients(total=len(recipients), notified=told, pending=len(recipients) - told),
        ledger=ledger_position(ledger, withdrawal, checkpoint),
        exceptions=exceptions_of(state, withdrawal, [e["version"] for e in record.revoked], recipients),
        environment={
            "kind": "simulation" if simulated else "deployment",
            "platform": platform.system(),
            "python": platform.python_version(),
        },
        files={},
        signers=signers,
    )
    if (former := _superseded(state, withdrawal)) is not None:
        certificate = certificate.model_copy(update={"supersedes": former})
    files = {
        **evidence_files(state, consortium, record, certificate, recipients, alias),
        "residuals.json": listed,
    }
    if further is not None:
        files[FINDINGS] = further.content
    if checkpoint is not None:
        after = None if record.after is None else record.after.id
        files[SLICE] = slice_of(
            ledger, withdrawal, checkpoint, after=after, notice=certificate.notice, witnessed=witnessed
        )
    return Draft(certificate, {}).with_files(files)


def _superseded(state: StateDirectory, withdrawal: WithdrawalRecord) -> said.Superseded | None:
    issued = Certificates(state).all(withdrawal.id)
    if not issued:
        return None
    former = read_unverified(issued[0].content).certificate
    return said.Superseded(
        certificate_id=former.certificate_id,
        issued_at=former.issued_at,
        payload_sha256=sha256_of(said.payload_of(former)),
    )


def _facts(
    state: StateDirectory, record: Record, evidence: Sequence[Evidence], certified: Certified | None
) -> Facts:
    withdrawal = record.withdrawal
    return Facts(
        completed=withdrawal.state is WithdrawalState.COMPLETED,
        in_part=withdrawal.in_part,
        contributions_left=record.left,
        changed=record.after is not None,
        lineage_clean=record.ancestry is not None and record.ancestry.free_of(withdrawal.sites),
        fresh_only=record.policy is not None and not record.policy["reads_history"],
        fixed_before=record.policy is not None,
        evidence=evidence,
        certified=certified,
        unfinished=unfinished(state, withdrawal),
    )


def _evidence(
    state: StateDirectory, record: Record, figures: Sequence[Figure], alias: Callable[[str], str]
) -> tuple[Evidence, ...]:
    found = list(figures)
    for act in WithdrawalActs(state).of(record.withdrawal.id, "figures"):
        for entry in act.body["figures"]:
            family, _, part = str(entry["name"]).partition("/")
            name = f"{family}/{alias(part)}" if family == PSNR_LOST else entry["name"]
            found.append(Figure(**{**entry, "name": name, "about": About(entry["about"])}))
    known = {} if record.policy is None else record.policy["limits"]
    return judge(found, {name: Limit(**limit) for name, limit in known.items()})


def _item(item: Evidence) -> said.EvidenceItem:
    figure, limit = item.figure, item.limit
    value, interval = figure.value, figure.interval
    return said.EvidenceItem(
        name=figure.name,
        about=figure.about,
        value=value if value - value == 0 else None,
        unit=figure.unit,
        before=figure.before,
        limit_low=None if limit is None else limit.low,
        limit_high=None if limit is None else limit.high,
        passed=item.passed,
        words=figure.words,
        limits=figure.limits,
        interval=None
        if interval is None
        else said.Interval(
            low=interval.low, high=interval.high, level=interval.level, patients=interval.patients
        ),
        uncertainty=figure.uncertainty,
    )


def _request(state: StateDirectory, withdrawal: WithdrawalRecord) -> said.Request:
    documents, intake = WithdrawalActs(state).of(withdrawal.id, "attachment"), withdrawal.intake
    return said.Request(
        id=withdrawal.id,
        ground=withdrawal.ground.value,
        ground_words=withdrawal.ground.words,
        scope="site" if withdrawal.scope == "site" else "patients",
        patients=withdrawal.patients,
        time_zone=withdrawal.zone,
        received_at=withdrawal.received_at,
        filed_at=withdrawal.filed_at,
        due_at=withdrawal.due_at,
        extended_at=withdrawal.extended_at,
        restricted_at=withdrawal.restricted_at,
        closed_at=withdrawal.closed_at,
        late=withdrawal.late,
        documents=tuple(str(act.body["sha256"]) for act in documents),
        held_until=None if (until := held_until(state, withdrawal)) is None else dt.date.fromisoformat(until),
        **intake.table,
        words=intake.words,
        not_recorded=intake.missing,
    )


def _site(
    state: StateDirectory, withdrawal: WithdrawalRecord, site: str, alias: Callable[[str], str]
) -> said.Site:
    keys = [enrolment.fingerprint for enrolment in Enrolments(state).all() if enrolment.site == site]
    rounds = [version.round for version in ModelRegistry(state).all(MAIN) if site in version.sites]
    return said.Site(
        pseudonym=alias(site),
        key_fingerprints=tuple(keys),
        identity="simulated" if withdrawal.simulated else "authenticated" if keys else "self-declared",
        first_round=min(rounds, default=None),
        last_round=max(rounds, default=None),
        rounds=len(rounds),
    )


def _model(version: ModelVersion | None) -> said.Model | None:
    if version is None:
        return None
    return said.Model(version=version.id, round=version.round, sha256=version.digest)


def _lineage(record: Record) -> said.Lineage | None:
    if record.ancestry is None or record.policy is None:
        return None
    return said.Lineage(
        versions=len(record.ancestry.versions),
        edges=len(record.ancestry.edges(record.withdrawal.sites)),
        method_reads_history=bool(record.policy["reads_history"]),
    )


def _method(record: Record) -> said.Method | None:
    policy = record.policy
    if policy is None or record.fixed_at is None:
        return None
    return said.Method(
        name=policy["method"],
        settings=policy["settings"],
        fixed_at=record.fixed_at,
        policy_sha256=policy_digest(policy),
        reconsent=policy["reconsent"],
        code_sha256=policy["code_sha256"],
        git_commit=policy.get("git_commit", NOT_RECORDED),
        fab_sha256=policy.get("fab_sha256", NOT_RECORDED),
        packages=policy["packages"],
    )


def _erasure(record: Record, how: str, listed: bytes) -> said.Erasure | None:
    if record.withdrawal.state is not WithdrawalState.COMPLETED:
        return None
    return said.Erasure(
        contributions=sum(1 for entry in record.erased if entry["sha256"]),
        bytes=sum(int(entry["bytes"]) for entry in record.erased),
        list_sha256=sha256_of(listed),
        remaining=record.left,
        how=how,
    )
