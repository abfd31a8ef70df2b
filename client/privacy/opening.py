"""Whether a training message spends privacy, and from which budget; imports Opacus only if it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flwr.app import Message

from client.policy import SitePolicy
from client.privacy.account import SiteAccount
from client.privacy.ledger import PrivacyLedgerError
from client.privacy.refusal import BudgetSpentError, refuse_less_privacy
from client.site import Site
from strategies import messages as msg

if TYPE_CHECKING:
    from client.privacy.budget import PrivacyBudget

_ENGINES = frozenset({"ray", "strategies.local_grid"})


def opened_budget(
    site: Site,
    message: Message,
    node_config: Mapping[str, object],
    policy: SitePolicy,
    environment: Mapping[str, str] = os.environ,
) -> PrivacyBudget | None:
    """The budget that a training message spends from; ``None`` if the site trains without privacy.

    Raises
    ------
    BudgetSpentError
        If the site's policy wants more privacy than the consortium has, or the site has trained with privacy
        in this consortium and now would train without, which spends without limit.
    PrivacyLedgerError
        If the site has no usable place for its ledger.
    """
    privacy = site.privacy
    refuse_less_privacy(privacy, policy)
    simulated = in_simulation(node_config)
    told = str(msg.config_of(message).get(msg.ACCOUNT, "")) if simulated else ""
    try:
        account = SiteAccount.of(
            node_config, site.consortium.name, site.name, told, environment, simulated=simulated
        )
    except PrivacyLedgerError:
        if privacy.mode == "none":
            return None
        raise
    if privacy.mode == "none":
        if account.expenses():
            raise BudgetSpentError(
                f"The site has trained with differential privacy in consortium '{site.consortium.name}', and "
                "this round would have none: it would spend without limit.",
                "Keep [privacy], or give the consortium another name.",
            )
        return None
    from client.privacy.budget import PrivacyBudget

    return PrivacyBudget(privacy, policy, account)


def in_simulation(node_config: Mapping[str, object]) -> bool:
    """Whether this is a simulated site: counted instead of named, in a worker of a simulation engine.

    Only there may noise come from a seed. A deployed node is started in neither way, and nothing that a
    server sends can make it one.
    """
    counted = "partition-id" in node_config and "site" not in node_config
    return counted and not _ENGINES.isdisjoint(sys.modules)
