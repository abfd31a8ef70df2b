"""What a node can say of its privacy budget before it starts: its limits, its ledger, what is spent."""

from __future__ import annotations

import math
import os

from client.node.findings import Finding, NodeReport
from client.node.settings import NodeSettings
from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger, ledger_path
from client.privacy.refusal import BudgetSpentError, refuse_less_privacy
from client.settings_file import read_settings
from reconsent.config import ConsortiumConfig, SiteConfig
from reconsent.errors import ConfigError, PrivacyError


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
    node = {"policy": settings.policy, "log": settings.log_file}
    try:
        path = ledger_path(
            {key: str(value) for key, value in node.items() if value}, consortium.name, site.name
        )
        there = next(place for place in (path, *path.parents) if place.exists())
        if not os.access(there, os.W_OK):
            raise PrivacyError(
                f"{there} is not writable.", "Mend its permissions: without it nothing is trained."
            )
        # Opacus takes a second to import: only where there is privacy.
        from client.privacy.budget import PrivacyBudget

        budget = PrivacyBudget(privacy, policy, PrivacyLedger(path))
        spent = budget.spent()
    except PrivacyError as error:
        report.problems.append(Finding.of("privacy", error))
        return
    pairs = ((spent.epsilon, budget.ceiling, privacy.unit), (spent.site_epsilon, budget.site_ceiling, "site"))
    told = [
        f"ε = {epsilon:.4g} of {_limit(ceiling)} spent on a {unit}"
        for epsilon, ceiling, unit in pairs
        if epsilon is not None
    ]
    report.facts["privacy"] = f"{', '.join(told)} at δ = {privacy.delta:g}, by {path}"


def _limit(ceiling: float) -> str:
    return "no limit" if math.isinf(ceiling) else f"{ceiling:.4g}"
