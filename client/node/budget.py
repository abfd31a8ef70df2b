"""What a node can say of its privacy budget before it starts: its limits, its ledger, what is spent."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from client.node.findings import Finding, NodeReport
from client.node.settings import NodeSettings
from client.policy import SitePolicy
from client.privacy.account import SiteAccount
from client.privacy.refusal import BudgetSpentError, refuse_less_privacy
from client.settings_file import read_settings
from reconsent.config import ConsortiumConfig, SiteConfig
from reconsent.errors import ConfigError, PrivacyError

if TYPE_CHECKING:
    from client.privacy.budget import Spent


def check_privacy(
    settings: NodeSettings, consortium: ConsortiumConfig, site: SiteConfig, report: NodeReport
) -> None:
    """Check that the site's limits can be kept, and say what of them is spent.

    A policy that cannot be read is somebody else's finding.
    """
    try:
        policy = (
            SitePolicy() if settings.policy is None else read_settings(settings.policy, SitePolicy, "policy")
        )
    except ConfigError:
        return
    privacy = consortium.privacy_of(site)
    try:
        refuse_less_privacy(privacy, policy)
    except BudgetSpentError as error:
        reason = f"{error.problem} So all training will be refused."
        report.problems.append(Finding("policy", reason, error.remedy))
        return
    if privacy.mode == "none":
        return
    if privacy.by_sample and privacy.unit == "patient":
        _note_nameless(settings.data or site.data, report)
    node = {"policy": settings.policy, "log": settings.log_file}
    try:
        account = SiteAccount.of(
            {key: str(value) for key, value in node.items() if value}, consortium.name, site.name
        )
        path = account.ledger.path
        there = next(place for place in (path, *path.parents) if place.exists())
        if not os.access(there, os.W_OK):
            raise PrivacyError(
                f"{there} is not writable.", "Mend its permissions: without it nothing is trained."
            )
        # Opacus takes a second to import: only where there is privacy.
        from client.privacy.budget import PrivacyBudget

        budget = PrivacyBudget(privacy, policy, account)
        budget.refuse_mixture()
        spent = budget.spent()
        others = sorted(account.elsewhere())
        together = budget.spent_together() if others and budget.limited else spent
    except PrivacyError as error:
        report.problems.append(Finding.of("privacy", error))
        return
    if budget.limited and (strange := account.of_other_names()):
        report.notes.append(
            Finding(
                "privacy",
                f"{', '.join(strange)} in {path.parent}: what a site of another name spent is not counted in "
                "the limits of this policy, even if it is this hospital.",
                f"Be called '{site.name}' in every consortium; else lower the limits by what was spent.",
            )
        )
    told = _told(spent, (budget.ceiling, budget.site_ceiling), privacy.unit)
    report.facts["privacy"] = f"{told} at δ = {privacy.delta:g}, by {path}"
    if others:
        report.facts["other ledgers"] = f"{', '.join(others)} in {path.parent}" + (
            f"; together with this one {_told(together, budget.own_ceilings, privacy.unit)}"
            if budget.limited
            else ": what they spent is not counted here, as the policy sets no limit"
        )


def _note_nameless(directory: Path | None, report: NodeReport) -> None:
    """Files that do not say whose they are: each counts as a patient, so that ε would be that of a file."""
    import h5py

    nameless, files = 0, 0
    for path in sorted(directory.glob("*.h5")) if directory is not None else ():
        try:
            with h5py.File(path) as file:
                nameless += not file.attrs.get("patient_id")
                files += 1
        except OSError:
            continue  # What cannot be read is a finding about the data.
    if nameless:
        report.notes.append(
            Finding(
                "privacy",
                f"{nameless} of {files} files in {directory} have no patient_id: each counts as a patient "
                "of its own, so a patient with several files is protected less than ε says.",
                "Write patient_id into them, as `reconsent data import` does.",
            )
        )


def _told(spent: Spent, ceilings: tuple[float, float], unit: str) -> str:
    pairs = ((spent.epsilon, ceilings[0], unit), (spent.site_epsilon, ceilings[1], "site"))
    return ", ".join(
        f"ε = {epsilon:.4g} of {_limit(most)} spent on a {whom}"
        for epsilon, most, whom in pairs
        if epsilon is not None
    )


def _limit(ceiling: float) -> str:
    return "no limit" if math.isinf(ceiling) else f"{ceiling:.4g}"
