"""Puts on record, at the moment it happens, what a certificate will rest on.

Before an unlearning: settings, code and limits. After it: what the remaining sites measured. Before the
erasure: the list of what is erased and revoked.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

import reconsent
from reconsent.config import ConsortiumConfig
from server.beyond_limits import beyond_limits
from server.code_version import NOT_RECORDED, git_commit
from server.names import MAIN, SERVER
from server.on_record import unlearned_since
from server.persistence import (
    ModelRegistry,
    ModelVersion,
    RoundLog,
    StateDirectory,
    WithdrawalActs,
    WithdrawalRecord,
)
from strategies.methods import method_settings
from unlearning.database import ContributionRow
from unlearning.ledger.canonical import canonical

PSNR_LOST = "psnr-lost"
"""Figure: what a remaining site's test PSNR lost by the unlearning, in dB."""
ORACLE_GAP, RELEARN_GAP = "oracle-gap", "relearn-gap"
"""Figures: how far the unlearned model is from the retrained one, and after both were fine-tuned, in dB."""

FRESH_METHODS = frozenset(
    {"retrain", "rapid-retrain", "rollback", "retain-ft", "full-ft", "retain-ft-momentum"}
)
"""Methods that compute with nothing but a model they start from and what sites answer after the withdrawal.

Named one by one: any other is taken to use former updates, and can never be claimed to be exact.
Rollback looks up in the cache *when* a site took part; where it starts from, the lineage shows.
"""

_PACKAGES = ("flwr", "torch", "numpy", "fastmri", "sqlalchemy", "cryptography")
CODE = ("reconsent", "mri", "unlearning", "strategies", "client", "server", "deploy", "cli")
"""All packages: also those that no site runs file requests, erase, sign and purge."""


def limits_of(consortium: ConsortiumConfig) -> dict[str, dict[str, float | None]]:
    """The limits of every figure that may be measured: name or family to ``low`` and ``high``."""
    margins = consortium.compliance

    def both(margin: float) -> dict[str, float | None]:
        return {"low": -margin, "high": margin}

    return {
        PSNR_LOST: {"low": None, "high": margins.retain_margin_db},
        ORACLE_GAP: both(margins.accuracy_margin_db),
        RELEARN_GAP: both(margins.relearn_margin_db),
    }


def code_digest() -> str:
    """SHA-256 over the packages' source files, by their paths: which code ran, also where there is no git.

    A package that is not installed here, as the command line in a bundle that Flower ships, has no files.
    """
    digest = hashlib.sha256()
    for package in CODE:
        spec = find_spec(package)
        for directory in map(Path, (spec and spec.submodule_search_locations) or ()):
            for path in sorted(directory.rglob("*.py")):
                name = f"{package}/{path.relative_to(directory).as_posix()}"
                digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def policy_of(consortium: ConsortiumConfig, before: ModelVersion, fab_sha256: str = "") -> dict[str, Any]:
    """What is fixed before an unlearning: method, settings, limits, code, and the model it starts from.

    Parameters
    ----------
    consortium, before
        Whose settings, and which model.
    fab_sha256
        Hash of the bundle that Flower ships to the sites; empty: it is not known.
    """
    unlearning = consortium.unlearning
    settings = method_settings(unlearning.method, unlearning.settings)
    return {
        "method": unlearning.method,
        "settings": settings.model_dump(mode="json", by_alias=True),
        "rounds_fraction": unlearning.rounds_fraction,
        "reads_history": unlearning.method not in FRESH_METHODS,
        "limits": limits_of(consortium),
        "model_before": {"version": before.id, "sha256": before.digest, "round": before.round},
        "reconsent": reconsent.__version__,
        "code_sha256": code_digest(),
        "git_commit": git_commit(),
        "fab_sha256": fab_sha256 or NOT_RECORDED,
        "python": platform.python_version(),
        "packages": _packages(),
    }


def policy_digest(policy: Mapping[str, Any]) -> str:
    """SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical(policy)).hexdigest()


class Accountability:
    """Writes the acts of the server itself.

    Parameters
    ----------
    state
        Open for writing.
    consortium
        Whose withdrawals they are.
    fab_sha256
        Hash of the bundle that Flower ships to the sites; empty: it is not known.
    """

    def __init__(self, state: StateDirectory, consortium: ConsortiumConfig, *, fab_sha256: str = "") -> None:
        self._fab_sha256 = fab_sha256
        self._state = state
        self._consortium = consortium
        self._acts = WithdrawalActs(state)

    def fix_policy(self, record: WithdrawalRecord, before: ModelVersion) -> None:
        """Record the policy before the unlearning; the same one again (after a crash) is not repeated."""
        policy = policy_of(self._consortium, before, self._fab_sha256)
        known = self._acts.of(record.id, "policy")
        if not known or dict(known[-1].body) != policy:
            self._acts.add(record.id, "policy", policy, at=_now(), actor=SERVER)

    def note_figures(self, record: WithdrawalRecord) -> list[str]:
        """Record what the remaining sites measured before and after; once.

        Returns
        -------
        The figures that are beyond the limit fixed before, in words.
        """
        known = self._acts.of(record.id, "figures")
        figures = known[-1].body["figures"] if known else site_figures(self._state, record)
        if figures and not known:
            self._acts.add(record.id, "figures", {"figures": figures}, at=_now(), actor=SERVER)
        policies = self._acts.of(record.id, "policy")
        return beyond_limits(figures, policies[-1].body) if policies else []

    def note_erasure(
        self, record: WithdrawalRecord, revoked: list[ModelVersion], session: Session, *, after: int = 0
    ) -> None:
        """Record what is about to be erased, and what was revoked, in the transaction that does so.

        A method that begins anew, or goes back to an earlier model, erases before the withdrawal comes to it:
        what came ``after`` that round.
        """
        query = select(ContributionRow).where(
            ContributionRow.site.in_(record.sites), ContributionRow.round > after
        )
        rows = session.scalars(
            query.order_by(ContributionRow.site, ContributionRow.round, ContributionRow.kind)
        )
        files = [
            {"site": r.site, "round": r.round, "kind": r.kind, "sha256": r.sha256, "bytes": r.bytes}
            for r in rows
        ]
        body = {
            "files": files,
            "revoked": [{"version": v.id, "sha256": v.digest, "round": v.round} for v in revoked],
        }
        if files or revoked or not self._acts.of(record.id, "erasure", session=session):
            self._acts.add(record.id, "erasure", body, at=_now(), actor=SERVER, session=session)


def site_figures(state: StateDirectory, record: WithdrawalRecord) -> list[dict[str, Any]]:
    """What each remaining site's test PSNR lost by the unlearning, where it was measured before and after.

    Returns
    -------
    One figure a site, as :class:`unlearning.certificate.evidence.Figure` takes it, with the site's name
    after the slash.
    """
    log, policies = RoundLog(state), WithdrawalActs(state).of(record.id, "policy")
    if not policies:
        return []
    start = policies[-1].at
    unlearned = unlearned_since(ModelRegistry(state), record, start)
    if unlearned is None:
        return []
    first = unlearned.parent
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for entry in log.all(MAIN):
        measured = entry.metrics.get("evaluation") or entry.metrics.get("incoming") or {}
        found = {site: float(values["psnr"]) for site, values in measured.items() if "psnr" in values}
        if entry.created_at is not None and entry.created_at <= start:
            before |= found
        elif entry.model_version == first and entry.metrics.get("evaluation"):
            after |= found
    return [
        {
            "name": f"{PSNR_LOST}/{site}",
            "about": "utility",
            "value": before[site] - after[site],
            "unit": "dB",
            "words": f"Test PSNR {before[site]:.2f} dB before and {after[site]:.2f} dB after.",
            "limits": "Measured by the site itself on its own test data. It shows what the unlearning cost "
            "the site, and nothing about forgetting.",
        }
        for site in sorted(before.keys() & after.keys())
        if record.site_stays or site not in record.sites
    ]


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
