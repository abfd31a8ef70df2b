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
        If the policy limits what the consortium does not, or would count something weaker: slices in place of
        patients, a noise that the server is trusted to add, or an ε at a larger δ than is allowed.
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
    if policy.max_epsilon is not None and policy.unit == "patient" and privacy.unit != "patient":
        raise BudgetSpentError(
            f"The site's policy limits ε on a patient, and the consortium's is on a {privacy.unit}, of which "
            "a patient has many.",
            'Set unit = "patient" in [privacy] of the consortium file, or unit = "slice" in the policy.',
        )
    if policy.max_site_epsilon is not None and privacy.noise_at == "server" and not policy.trust_server:
        raise BudgetSpentError(
            "The site's policy limits ε on the site as a whole, and it is the server who would add the "
            "noise: towards the server there would be none.",
            'Set noise-at = "site" in [privacy] of the consortium file, or trust-server in the policy.',
        )
    most = policy.most_delta
    if most is not None and privacy.delta > most:
        raise BudgetSpentError(
            f"The site's policy allows a δ of {most:g} at most, and the consortium's is {privacy.delta:g}.",
            "Lower delta in [privacy] of the consortium file, or set max-delta in the policy.",
        )
