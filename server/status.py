"""Where a consortium stands, from its state directory alone: for the command line, and whoever else asks."""

from __future__ import annotations

import datetime as dt
from typing import Any

from reconsent.config import ConsortiumConfig
from server.bookkeeping import MAIN
from server.persistence import (
    Enrolments,
    ModelRegistry,
    Roster,
    RoundLog,
    RunProgress,
    StateDirectory,
    Withdrawals,
)
from server.persistence.lock import is_held
from server.persistence.state import LOCK
from server.privacy import privacy_of
from server.residues import unpurged
from server.safekeeping import cache_policy
from server.service import RUN, TARGET
from server.withdrawal_view import held_until
from strategies.messages import REFUSED_BY_SITE
from unlearning.contributions import ContributionCache
from unlearning.request import time_zone


def status_of(state: StateDirectory, consortium: ConsortiumConfig) -> dict[str, Any]:
    """Everything about a consortium that its state knows, as JSON values.

    Returns
    -------
    ``consortium``; ``round`` and ``target`` (training rounds done, and asked for); ``run`` (the last one:
    ``id``, ``task``, ``status``, ``error``); ``model`` (current version); ``sites`` (``name``, ``organ``,
    ``status``, ``node_id``, ``num_examples``, ``first_round``, ``last_round``, ``key``); ``withdrawals``
    (one entry a site: ``id``, ``site``, ``state``, ``reason``, ``requested_by``, ``received_at``,
    ``due_at``, ``due_local``, ``overdue``, ``ground``, ``owner``, ``channel``,
    ``agreement``, ``requester_role``, ``identity_check``, ``note``); ``refused_replies`` (site →
    count of replies that were of no use); ``unpurged`` (sites that have withdrawn, and of which the
    SuperLink may still hold messages);
    ``failed_rounds`` (``count`` of those with too few usable replies, and the ``last``: ``round``, ``kind``,
    ``at``, ``repeated`` if it was completed since, ``sites`` with each ``outcome`` and ``reason``);
    ``refusals`` (site → ``count`` and ``last``: what the site itself would not do, and why in its own words);
    ``privacy`` (see :func:`server.privacy.privacy_of`); ``contributions`` (``sites``, ``bytes``).
    """
    rounds = RoundLog(state)
    latest = ModelRegistry(state).latest(MAIN)
    progress = RunProgress(state)
    done = rounds.count(MAIN, "train")
    cache = ContributionCache(state.contributions_dir, state.reading, cache_policy(consortium), line=MAIN)
    return {
        "consortium": consortium.name,
        "round": done,
        "target": max(done, int(progress.get(TARGET, 0))),
        "run": run_of(state),
        "model": None
        if latest is None
        else {
            "version": latest.id,
            "round": latest.round,
            "kind": latest.kind,
            "sha256": latest.digest,
            "status": latest.status.value,
            "sites": sorted(latest.lineage),
            "forgotten": sorted(latest.forgotten),
        },
        "sites": _sites(state, consortium),
        "withdrawals": _withdrawals(state),
        "unpurged": sorted({site for record in unpurged(state) for site in record.sites}),
        "refused_replies": _refused(rounds),
        "failed_rounds": _failed(rounds),
        "refusals": _refusals(rounds),
        "privacy": privacy_of(rounds),
        "contributions": {"sites": cache.sites(), "bytes": cache.size_bytes()},
    }


def run_of(state: StateDirectory) -> dict[str, Any] | None:
    """The last run: ``id``, ``task``, ``status``, ``error``; ``None`` if there was none.

    One that is on record as running while no server holds the state was killed: it is ``interrupted``.
    """
    run: dict[str, Any] | None = RunProgress(state).get(RUN)
    if run is not None and run["status"] == "running" and not is_held(state.path / LOCK):
        return {**run, "status": "interrupted"}
    return run


def _sites(state: StateDirectory, consortium: ConsortiumConfig) -> list[dict[str, Any]]:
    roster = {entry.site: entry for entry in Roster(state).all()}
    keys = {enrolment.site: enrolment for enrolment in Enrolments(state).all()}
    organs = {site.name: site.organ for site in consortium.sites}
    found = []
    for name in sorted(roster.keys() | organs.keys()):
        entry, key = roster.get(name), keys.get(name)
        found.append(
            {
                "name": name,
                "organ": entry.organ if entry else organs[name],
                "status": entry.status.value if entry else "active",
                "node_id": None if key is None or key.node_id is None else str(key.node_id),
                "num_examples": entry.num_examples if entry else None,
                "first_round": entry.first_round if entry else None,
                "last_round": entry.last_round if entry else None,
                "key": None
                if key is None
                else {"fingerprint": key.fingerprint, "revoked": key.revoked_at is not None},
            }
        )
    return found


def _withdrawals(state: StateDirectory) -> list[dict[str, Any]]:
    register = Withdrawals(state)
    return [
        {
            "id": record.id,
            "site": site,
            "state": record.state.value,
            "reason": record.reason,
            "requested_by": record.requested_by,
            "received_at": record.received_at.isoformat(),
            "due_at": record.due_at.isoformat(),
            "due_local": record.due_at.astimezone(time_zone(record.zone)).isoformat(),
            "overdue": record.overdue(dt.datetime.now(dt.UTC)),
            "ground": record.ground.value,
            "owner": record.owner,
            "held_until": held_until(state, record),
            **record.intake.table,
            "note": register.events(record.id)[-1].note,
        }
        for record in register.all()
        for site in record.sites
    ]


def _refused(rounds: RoundLog) -> dict[str, int]:
    """How often each site's reply was not accepted, for whatever reason; in failed rounds, too."""
    counts: dict[str, int] = {}
    for record in rounds.everything(MAIN):
        for site, outcome in record.sites.items():
            if outcome.outcome != "ok":
                counts[site] = counts.get(site, 0) + 1
    return counts


def _failed(rounds: RoundLog) -> dict[str, Any]:
    """Rounds of which nothing was kept, as too few replies were usable."""
    failed = rounds.failed(MAIN)
    if not failed:
        return {"count": 0, "last": None}
    last, kept = failed[-1], rounds.all(MAIN)
    at = last.created_at
    assert at is not None  # noqa: S101 - read from the log
    return {
        "count": len(failed),
        "last": {
            "round": last.round,
            "kind": last.kind,
            "at": at.isoformat(),
            "repeated": bool(kept) and kept[-1].round >= last.round,
            "sites": {
                site: {"outcome": outcome.outcome, "reason": outcome.reason}
                for site, outcome in last.sites.items()
            },
        },
    }


def _refusals(rounds: RoundLog) -> dict[str, dict[str, Any]]:
    """How often each site itself refused the work, and why the last time."""
    prefix = f"{REFUSED_BY_SITE}: "
    found: dict[str, dict[str, Any]] = {}
    for record in rounds.everything(MAIN):
        for site, outcome in record.sites.items():
            if outcome.outcome == "refused" and outcome.reason.startswith(prefix):
                count = found.get(site, {"count": 0})["count"] + 1
                found[site] = {"count": count, "last": outcome.reason.removeprefix(prefix)}
    return found
