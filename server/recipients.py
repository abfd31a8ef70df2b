"""Who received a model that a withdrawn site shaped (GDPR Art. 19)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.persistence import (
    Exports,
    ModelRegistry,
    ModelVersion,
    RoundLog,
    StateDirectory,
    WithdrawalActs,
    WithdrawalRecord,
)
from unlearning.withdrawal import WithdrawalState


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Somebody who received versions that are, or will be, revoked.

    Attributes
    ----------
    name
        ``site:NAME`` for a site, else as given when the model was exported.
    versions
        Ids of the versions, oldest first.
    first_at, last_at
        When the first and the last was given; UTC.
    notified_at, how
        When and how the recipient was told of the withdrawal, after the last copy was given; ``None`` if not
        yet, or not since.
    """

    name: str
    versions: tuple[str, ...]
    first_at: dt.datetime
    last_at: dt.datetime
    notified_at: dt.datetime | None = None
    how: str | None = None


def shaped_versions(state: StateDirectory, record: WithdrawalRecord) -> list[ModelVersion]:
    """The versions that a withdrawal has revoked, or would revoke now; oldest first."""
    versions = ModelRegistry(state).all()
    erasures = WithdrawalActs(state).of(record.id, "erasure")
    revoked = {entry["version"] for act in erasures for entry in act.body["revoked"]}
    if revoked or record.state is WithdrawalState.COMPLETED:
        return [version for version in versions if version.id in revoked]
    return [version for version in versions if any(version.depends_on(site) for site in record.sites)]


def recipients_of(state: StateDirectory, record: WithdrawalRecord) -> list[Recipient]:
    """Everybody who received one of :func:`shaped_versions`, by name.

    Sites, by the rounds they were asked to train in or to measure, whether or not they answered, the
    withdrawn ones included; and whoever was named when a version was exported.
    """
    shaped = {version.id for version in shaped_versions(state, record)}
    given: dict[str, list[tuple[dt.datetime, str]]] = {}
    for name, at, version in (*_by_rounds(state), *_by_exports(state)):
        if version in shaped:
            given.setdefault(name, []).append((at, version))
    told = {act.body["recipient"]: act for act in WithdrawalActs(state).of(record.id, "notice")}
    found = []
    for name, entries in sorted(given.items()):
        entries.sort()
        notice = told.get(name)
        if notice is not None and notice.at < entries[-1][0]:
            notice = None  # of a copy that was given afterwards nobody has told them
        found.append(
            Recipient(
                name=name,
                versions=tuple(dict.fromkeys(version for _, version in entries)),
                first_at=entries[0][0],
                last_at=entries[-1][0],
                notified_at=None if notice is None else notice.at,
                how=None if notice is None else str(notice.body["how"]),
            )
        )
    return found


def _by_rounds(state: StateDirectory) -> Iterator[tuple[str, dt.datetime, str]]:
    log, registry = RoundLog(state), ModelRegistry(state)
    parents = {version.id: version.parent for version in registry.all()}
    for line in log.lines():
        for record in log.all(line):
            if record.model_version is None or record.created_at is None:
                continue
            # A round that was taken back ends with the version it began with.
            kept = bool(record.metrics.get("accepted", True))
            sent = parents[record.model_version] if kept else record.model_version
            measured: Mapping[str, object] = record.metrics.get("evaluation") or {}
            for site in record.sites:
                if sent is not None:
                    yield f"site:{site}", record.created_at, sent
            for site in measured:
                yield f"site:{site}", record.created_at, record.model_version


def _by_exports(state: StateDirectory) -> Iterator[tuple[str, dt.datetime, str]]:
    for export in Exports(state).all():
        yield export.recipient, export.at, export.version
