"""A site's budget of privacy: what it may spend, what it has spent, and the refusal to spend more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from client.policy import SitePolicy
from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.ledger import Expense, PrivacyLedger
from client.privacy.plan import RoundPlan
from client.privacy.refusal import BudgetSpentError
from reconsent.errors import PrivacyError
from reconsent.privacy import PrivacyConfig
from strategies import messages as msg
from strategies.gaussian_mechanism import epsilon_of


@dataclass(frozen=True, slots=True)
class Spent:
    """What a site has spent in all.

    Attributes
    ----------
    epsilon
        On a patient or slice, by DP-SGD; ``None`` where that is not used.
    site_epsilon
        On the site as a whole; ``None`` where its update is not noised.
    """

    epsilon: float | None
    site_epsilon: float | None


class PrivacyBudget:
    """The budget of one site in one consortium.

    Parameters
    ----------
    privacy
        What the consortium's file says of the site.
    policy
        What the site itself allows; the lower ceiling counts.
    ledger
        What was spent.
    """

    def __init__(self, privacy: PrivacyConfig, policy: SitePolicy, ledger: PrivacyLedger) -> None:
        self.privacy = privacy
        self.ceiling = _lower(privacy.most_epsilon, policy.max_epsilon)
        self.site_ceiling = _lower(privacy.most_site_epsilon, policy.max_site_epsilon)
        self.ledger = ledger

    def spend(self, plan: RoundPlan, *, server_round: int, replay: str = "") -> Spent:
        """Write down what a round will spend, before it begins.

        Raises
        ------
        BudgetSpentError
            If that would pass a ceiling; nothing is written.
        PrivacyError
            If the ledger cannot be used, or counts another unit.
        """
        sample = plan.sample
        expense = Expense(
            unit=self.privacy.unit if sample else "",
            noise_multiplier=sample.noise_multiplier if sample else 0.0,
            sample_rate=sample.sample_rate if sample else 0.0,
            steps=sample.steps if sample else 0,
            site_noise_multiplier=plan.site_noise or 0.0,
            round=server_round,
            replay=replay,
        )
        return self._spent(self.ledger.spend(expense, self._allow))

    def spent(self) -> Spent:
        """What the ledger says."""
        return self._spent(self.ledger.expenses())

    def metrics(self, spent: Spent) -> dict[str, float]:
        """What the server is told; see :mod:`strategies.messages`."""
        told = {msg.PRIVACY_DELTA: self.privacy.delta}
        pairs = (
            (msg.EPSILON[self.privacy.unit], spent.epsilon, msg.EPSILON_CEILING, self.ceiling),
            (msg.EPSILON["site"], spent.site_epsilon, msg.SITE_EPSILON_CEILING, self.site_ceiling),
        )
        for key, epsilon, ceiling_key, ceiling in pairs:
            if epsilon is not None:
                told |= {key: epsilon} | ({ceiling_key: ceiling} if math.isfinite(ceiling) else {})
        return told

    def _allow(self, expenses: Sequence[Expense]) -> None:
        self._refuse_gaps(expenses)
        spent = self._spent(expenses)
        pairs = (
            (spent.epsilon, self.ceiling, self.privacy.unit),
            (spent.site_epsilon, self.site_ceiling, "site"),
        )
        for epsilon, ceiling, unit in pairs:
            if epsilon is not None and epsilon > ceiling:
                before = self._spent(expenses[:-1])
                now = before.site_epsilon if unit == "site" else before.epsilon
                raise BudgetSpentError(
                    f"The round would take this site to ε = {epsilon:.4g} on a {unit} (δ = "
                    f"{self.privacy.delta:g}), beyond its ceiling of {ceiling:.4g}; {now or 0:.4g} is spent.",
                    "The site sits out. Only the site can raise its ceiling, and what was spent stays spent.",
                )

    def _refuse_gaps(self, expenses: Sequence[Expense]) -> None:
        """One sum holds for one unit, and only if every round was protected in the same way."""
        new = expenses[-1]
        for old in expenses[:-1]:
            if old.unit != new.unit or bool(old.site_noise_multiplier) != bool(new.site_noise_multiplier):
                raise PrivacyError(
                    f"The site's ledger counts {_way(old)}, and this round would be {_way(new)}: no one ε "
                    "would hold for both.",
                    "Give the consortium another name for another kind of privacy, and a budget of its own.",
                )

    def _spent(self, expenses: Sequence[Expense]) -> Spent:
        mechanisms = [Mechanism(e.noise_multiplier, e.sample_rate, e.steps) for e in expenses if e.unit]
        whole = [e.site_noise_multiplier for e in expenses if e.site_noise_multiplier]
        delta = self.privacy.delta
        return Spent(
            epsilon_spent(mechanisms, delta, self.privacy.accountant) if self.privacy.by_sample else None,
            epsilon_of(whole, delta) if self.privacy.by_site else None,
        )


def _lower(configured: float, own: float | None) -> float:
    return configured if own is None else min(configured, own)


def _way(expense: Expense) -> str:
    ways = [f"DP-SGD by {expense.unit}"] if expense.unit else []
    if expense.site_noise_multiplier:
        ways.append("noise on whole updates")
    return " and ".join(ways) or "no privacy"
