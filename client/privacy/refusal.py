"""Refusals by a site because of its privacy; by themselves, since the gate must not import Opacus."""

from __future__ import annotations

from client.policy import SitePolicy
from reconsent.errors import PrivacyError
from reconsent.privacy import PrivacyConfig


class BudgetSpentError(PrivacyError):
    """A round would take the site beyond its ceiling, or be less private than it allows: it sits out.

    Its ``problem`` is told to the server, so it holds figures of privacy only.
    """


def refuse_less_privacy(privacy: PrivacyConfig, policy: SitePolicy) -> None:
    """Refuse a consortium whose privacy, whatever is spent of it, is less than a site's policy asks for.

    Raises
    ------
    BudgetSpentError
        If the policy limits what the consortium does not, or δ is larger than it allows: every ε of the site
        is told at that δ.
    """
    limits = (
        ("max-epsilon", policy.max_epsilon, privacy.by_sample),
        ("max-site-epsilon", policy.max_site_epsilon, privacy.by_site),
        ("max-delta", policy.max_delta, privacy.by_sample or privacy.by_site),
    )
    missing = [name for name, limit, used in limits if limit is not None and not used]
    if missing:
        raise BudgetSpentError(
            f"The site's policy sets {' and '.join(missing)}, and the consortium trains in mode "
            f"'{privacy.mode}', which spends without limit.",
            "Set [privacy] in the consortium file, or lift the limit.",
        )
    if policy.max_delta is not None and privacy.delta > policy.max_delta:
        raise BudgetSpentError(
            f"The site's policy allows a δ of {policy.max_delta:g} at most, and the consortium's is "
            f"{privacy.delta:g}.",
            "Lower delta in [privacy] of the consortium file, or raise max-delta in the policy.",
        )
