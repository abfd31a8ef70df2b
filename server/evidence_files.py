"""The files of evidence that go with a certificate: what the state has on the withdrawal, without names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reconsent.config import ConsortiumConfig
from server.accountability import policy_digest
from server.code_version import NOT_RECORDED
from server.names import MAIN
from server.on_record import Record
from server.persistence import (
    Ledger,
    ModelRegistry,
    ModelVersion,
    RoundLog,
    RoundRecord,
    RunEvents,
    StateDirectory,
    WithdrawalRecord,
    Withdrawals,
)
from server.persistence.ledger_entries import MODEL_REGISTERED, role
from server.privacy import privacy_of
from server.residues import backups_before, keys_destroyed, purge_after
from server.withdrawal_view import recipients_shown
from unlearning.certificate import statement as said
from unlearning.certificate.layout import PRIVACY
from unlearning.certificate.participants import participants_root
from unlearning.ledger.canonical import canonical
from unlearning.withdrawal import WithdrawalState

Alias = Callable[[str], str]


def evidence_files(
    state: StateDirectory,
    consortium: ConsortiumConfig,
    record: Record,
    certificate: said.Certificate,
    recipients: list[dict[str, Any]],
    alias: Alias,
) -> dict[str, bytes]:
    """Name to content of every file but the list of what was erased and the part of the ledger.

    Parameters
    ----------
    state, consortium, record
        What it is about.
    certificate
        What will be signed; its list of files is still empty.
    recipients
        Who received revoked models.
    alias
        Site to pseudonym.
    """
    files = {
        "decisions.jsonl": b"".join(
            canonical(item.model_dump(mode="json")) + b"\n" for item in certificate.decisions
        ),
        "lineage.json": canonical(_lineage(state, record, alias)),
        "recipients.json": canonical(recipients),
        "request.json": canonical(_request(state, record.withdrawal, certificate)),
        "verification.json": canonical(_verification(record, certificate)),
    }
    files[PRIVACY] = canonical(_privacy(state, consortium, record, alias))
    if record.policy is not None:
        files["policy.json"] = canonical(record.policy)
        files["unlearning.json"] = canonical(_unlearning(state, consortium, record, alias))
    return files


def recipients_without_names(
    state: StateDirectory, withdrawal: WithdrawalRecord, alias: Alias
) -> list[dict[str, Any]]:
    """Who received which revoked models, and when they were told; sites under their pseudonyms."""
    registry = ModelRegistry(state)

    def named(name: str) -> str:
        return alias(name.removeprefix("site:")) if name.startswith("site:") else name

    def model(version: str) -> dict[str, str]:
        return {"version": version, "sha256": registry.get(version).digest}

    return [
        {
            **entry,
            "recipient": named(entry["recipient"]),
            "versions": [model(version) for version in entry["versions"]],
            "how": None,
        }
        for entry in recipients_shown(state, withdrawal)
    ]


def residuals(state: StateDirectory, record: Record, how: str, alias: Alias, at: dt.datetime) -> bytes:
    """Each place where something of the site was or may be, and what was erased, by hash.

    Parameters
    ----------
    state, record, alias
        As of :func:`evidence_files`.
    how
        In which way contributions were erased.
    at
        When what is left was counted.
    """
    # Of a round whose update was not kept there was no file: its share and norm were erased.
    erased = [
        {**entry, "site": alias(entry["site"]), "sha256": entry["sha256"] or None} for entry in record.erased
    ]
    completed = record.withdrawal.state is WithdrawalState.COMPLETED
    places = _places(state, record, how, at) if completed else []
    return canonical({"erased": erased, "places": places})


def _places(state: StateDirectory, record: Record, how: str, at: dt.datetime) -> list[dict[str, Any]]:
    registry = ModelRegistry(state)
    counted = f"counted in the server's state on {at.isoformat(timespec='seconds')}"
    files = sum(1 for entry in record.erased if entry["sha256"])
    models = sum(not registry.get(entry["version"]).pruned for entry in record.revoked)
    purge = purge_after(state, record.withdrawal)
    purged = "not emptied since the withdrawal completed"
    if record.withdrawal.simulated:
        purged = "a simulation has none"
    elif purge is not None:
        purged = f"emptied of messages on {purge.at.isoformat(timespec='seconds')}: {purge.objects} objects"

    def place(
        what: str, before: int | None, after: int | None, method: str, checked: str | None
    ) -> dict[str, Any]:
        return {"what": what, "before": before, "after": after, "method": method, "checked": checked}

    unlisted = len(record.erased) - files
    known: list[dict[str, Any]] = []
    keys = keys_destroyed(state, record.withdrawal.id)
    if keys is not None:
        tried = f"tried last on {keys.at.isoformat(timespec='seconds')}"
        words = "overwritten, or declared destroyed; left are those not reached"
        known.append(place("copies of the keys", keys.copies, keys.unreached, words, tried))
    if plain := backups_before(state, record.withdrawal).plain:
        words = "not encrypted, not reached: to be destroyed"
        known.append(place("backups by reconsent backup", plain, None, words, None))
    return [
        place("contributions of the site, files", files, record.left, how, counted),
        place("shares and norms of rounds whose update was not kept", unlisted, 0, how, counted),
        place("files of revoked model versions", len(record.revoked), models, "refused for use", counted),
        *known,
        place("database of Flower's SuperLink", None, None, purged, None),
        place("copies that recipients have", None, None, "out of the operator's reach; see recipients", None),
        place("backups by other means, swap space, dumps", None, None, "not covered by this software", None),
    ]  # fmt: skip


def _request(
    state: StateDirectory, withdrawal: WithdrawalRecord, certificate: said.Certificate
) -> dict[str, Any]:
    events = Withdrawals(state).events(withdrawal.id)
    return {
        **certificate.request.model_dump(mode="json"),
        "notice": certificate.notice,
        # The name of whoever it was stays in the register.
        "filed_by": role(events[0].actor) if events else None,
        "sites": [site.model_dump(mode="json") for site in certificate.sites],
    }


def _lineage(state: StateDirectory, record: Record, alias: Alias) -> dict[str, Any]:
    places = {str(entry.body["version"]): entry.number for entry in Ledger(state).entries([MODEL_REGISTERED])}

    def shown(version: ModelVersion) -> dict[str, Any]:
        shares = {alias(site): share for site, share in version.sites.items()}
        return {
            "version": version.id,
            "parent": version.parent,
            "kind": version.kind,
            "round": version.round,
            "sha256": version.digest,
            "shares": shares,
            "participants_root": participants_root(shares),
            "ledger_entry": places.get(version.id),
        }

    base = record.base
    return {
        "base": None if base is None else {"version": base.id, "round": base.round, "sha256": base.digest},
        "touched": [shown(version) for version in record.touched],
        "versions": [shown(version) for version in record.versions],
    }


def _unlearning(
    state: StateDirectory, consortium: ConsortiumConfig, record: Record, alias: Alias
) -> dict[str, Any]:
    policy = record.policy or {}
    rounds = list(_rounds(state, record))
    retained = {site for entry in rounds for site, outcome in entry.sites.items() if outcome.outcome == "ok"}
    return {
        "policy_sha256": policy_digest(policy),
        "fixed_at": None if record.fixed_at is None else record.fixed_at.isoformat(),
        "method": policy["method"],
        "settings": policy["settings"],
        "git_commit": policy.get("git_commit", NOT_RECORDED),
        "fab_sha256": policy.get("fab_sha256", NOT_RECORDED),
        "consortium_seed": consortium.seed,
        "withdrawn": [alias(site) for site in record.withdrawal.sites],
        "retained": sorted(alias(site) for site in retained - set(record.withdrawal.sites)),
        "runs": sorted(_runs(state, record)),
        "rounds": [_round(entry, alias) for entry in rounds],
    }


def _privacy(
    state: StateDirectory, consortium: ConsortiumConfig, record: Record, alias: Alias
) -> dict[str, Any]:
    """Differential privacy: what the consortium file asks of each site, and what each has told of it."""
    told: dict[str, list[dict[str, Any]]] = {}
    for entry in privacy_of(RoundLog(state)):
        if entry["spent"] is not None:
            words = {key: entry[key] for key in ("unit", "spent", "delta", "ceiling", "round")}
            told.setdefault(entry["site"], []).append(words)

    def shown(name: str) -> dict[str, Any]:
        site = next((site for site in consortium.sites if site.name == name), None)
        settings = consortium.privacy if site is None else consortium.privacy_of(site)
        used = settings.mode != "none" or name in told
        return {
            "site": alias(name),
            "withdrawn": name in record.withdrawal.sites,
            "settings": settings.model_dump(mode="json", by_alias=True) if used else "none",
            "spent": told.get(name, NOT_RECORDED) if used else "none",
        }

    return {
        "notice": "Settings are those of the consortium file now; spent is what each site told last, in all: "
        "the account is kept at the site.",
        "sites": [shown(name) for name in sorted({site.name for site in consortium.sites} | told.keys())],
    }


def _rounds(state: StateDirectory, record: Record) -> Iterable[RoundRecord]:
    """The rounds of the unlearning, those that were taken back included."""
    for entry in RoundLog(state).all(MAIN):
        if entry.created_at is not None and _during(record, entry.created_at):
            yield entry


def _runs(state: StateDirectory, record: Record) -> set[str]:
    return {event.run for event in RunEvents(state).after(0) if _during(record, event.at)}


def _during(record: Record, at: dt.datetime) -> bool:
    if record.fixed_at is None:
        return False
    return at >= record.fixed_at and (record.after is None or at <= record.after.created_at)


def _round(entry: RoundRecord, alias: Alias) -> dict[str, Any]:
    def outcome(site: str) -> dict[str, Any]:
        found = entry.sites[site]
        return {
            "outcome": found.outcome,
            "examples": found.num_examples,
            "update_norm": found.update_norm,
        }

    taken: Mapping[str, Any] = entry.metrics
    return {
        "round": entry.round,
        "kind": entry.kind,
        "accepted": bool(taken.get("accepted", True)),
        "version": entry.model_version,
        "seconds": entry.seconds,
        "sites": {alias(site): outcome(site) for site in entry.sites},
    }


def _verification(record: Record, certificate: said.Certificate) -> dict[str, Any]:
    return {
        "notice": certificate.notice,
        "claim_level": certificate.claim_level.value,
        "claim_reasons": list(certificate.claim_reasons),
        "policy_sha256": None if record.policy is None else policy_digest(record.policy),
        "fixed_at": None if record.fixed_at is None else record.fixed_at.isoformat(),
        "limits": {} if record.policy is None else record.policy["limits"],
        "model_before": None if record.before is None else record.before.digest,
        "model_after": None if record.after is None else record.after.digest,
        "tests": [item.model_dump(mode="json") for item in certificate.evidence],
        "not_shown": list(certificate.not_shown),
    }
