"""Who received a model that a withdrawn site shaped (GDPR Art. 19)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from server.persistence import (
    Exports,
    ModelRegistry,
    ModelVersion,
    RoundLog,
    RoundRecord,
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
    return [
        version
        for version in versions
        if any(version.depends_on(site) for site in record.sites)
        and not (record.site_stays and set(record.marks) <= set(version.forgotten))
    ]


def recipients_of(state: StateDirectory, record: WithdrawalRecord) -> list[Recipient]:
    """Everybody who received one of :func:`shaped_versions`, by name.

    Sites, by the messages to train or to measure that went out to them, whether or not they answered and
    whatever became of the round, the withdrawn ones included; and whoever was named when a version was
    exported.
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
    log, versions = RoundLog(state), ModelRegistry(state).all()
    parents = {version.id: version.parent for version in versions}
    for line in log.lines():
        for record in log.all(line):
            if record.model_version is None or record.created_at is None:
                continue
            # A round that was taken back ends with the version it began with.
            kept = bool(record.metrics.get("accepted", True))
            began = parents[record.model_version] if kept else record.model_version
            measured: set[str] = {*(record.metrics.get("evaluation") or {})}
            asked = {
                site
                for site, bytes_ in record.metrics.get("moved", {}).get("evaluate", {}).items()
                if bytes_["down"]
            }
            for site in _sent(record):
                if began is not None:
                    yield f"site:{site}", record.created_at, began
            for site in measured | asked:
                yield f"site:{site}", record.created_at, record.model_version
            if record.kind != "train" and began is not None:
                # Around a step of unlearning, sites are asked for their loss of what it begins with.
                for site in asked:
                    yield f"site:{site}", record.created_at, began
        for record in log.failed(line):
            version = _newest(versions, record)
            if version is not None and record.created_at is not None:
                for site in _sent(record):
                    yield f"site:{site}", record.created_at, version.id


def _sent(record: RoundRecord) -> list[str]:
    """The sites to whom a message of the round went out, whatever came of it."""
    return [site for site, told in record.sites.items() if told.outcome == "ok" or told.bytes_down]


def _newest(versions: Iterable[ModelVersion], failed: RoundRecord) -> ModelVersion | None:
    """The version that a failed round began with: the newest of its line at that time."""
    assert failed.created_at is not None  # noqa: S101 - set by the log
    # An unlearning that was cancelled leaves versions behind that no training goes on from.
    kinds = {"train", "unlearned", "initial"} if failed.kind == "train" else None
    found = None
    for version in versions:
        known = version.line == failed.line and version.created_at <= failed.created_at
        if known and (kinds is None or version.kind in kinds):
            found = version
    return found


def _by_exports(state: StateDirectory) -> Iterator[tuple[str, dt.datetime, str]]:
    for export in Exports(state).all():
        yield export.recipient, export.at, export.version
