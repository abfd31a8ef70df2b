"""A site's budget of privacy: what it may spend, what it has spent, and the refusal to spend more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from client.policy import SitePolicy
from client.privacy.account import SiteAccount
from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.ledger import Expense
from client.privacy.plan import RoundPlan
from client.privacy.refusal import BudgetSpentError
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
    """The budget of one site in one consortium, which is part of what the site allows itself in all.

    Parameters
    ----------
    privacy
        What the consortium's file says of the site; its ceilings are for this consortium alone.
    policy
        What the site itself allows, in all of its consortia together.
    account
        What was spent.
    """

    def __init__(self, privacy: PrivacyConfig, policy: SitePolicy, account: SiteAccount) -> None:
        self.privacy = privacy
        self.policy = policy
        self.ceiling = _lower(privacy.most_epsilon, policy.max_epsilon)
        self.site_ceiling = _lower(privacy.most_site_epsilon, policy.max_site_epsilon)
        own = (policy.max_epsilon, policy.max_site_epsilon)
        self.limited = own != (None, None)
        """Whether the site's policy has a limit, for all consortia together."""
        self.own_ceilings = (_lower(math.inf, own[0]), _lower(math.inf, own[1]))
        """Its limits on ε of a unit, and of the site as a whole."""
        self.account = account

    def spend(self, plan: RoundPlan, *, server_round: int, replay: str = "") -> Spent:
        """Write down what a round will spend, before it begins.

        Raises
        ------
        BudgetSpentError
            If that would pass a ceiling, or the ledger counts another unit or kind; nothing is written.
        PrivacyError
            If the ledger cannot be used.
        """
        sample = plan.sample
        expense = replace(
            self._kind(),
            noise_multiplier=sample.noise_multiplier if sample else 0.0,
            sample_rate=sample.sample_rate if sample else 0.0,
            steps=sample.steps if sample else 0,
            site_noise_multiplier=plan.site_noise or 0.0,
            round=server_round,
            replay=replay,
        )
        return self._spent(self.account.spend(expense, self._allow))

    def refuse_mixture(self) -> None:
        """Refuse, before any round is asked for, to add to a ledger what has no one ε with what is in it.

        Raises
        ------
        BudgetSpentError
            If the consortium's file has another unit or kind of noise than when the ledger was begun.
        """
        self._refuse_gaps([*self.account.expenses(), self._kind()])

    def spent(self) -> Spent:
        """What the ledger says."""
        return self._spent(self.account.expenses())

    def spent_together(self) -> Spent:
        """In all consortia of the site, as the limits of its policy count it.

        Mechanisms of different consortia are added up as those of one are, by the accountant and at the δ of
        this one: that their rounds take turns changes nothing, as with any adaptive composition.

        Raises
        ------
        BudgetSpentError
            If another ledger counts what cannot be added to this one.
        """
        return self._spent([*self._flat(self._elsewhere()), *self.account.expenses()])

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

    def _kind(self) -> Expense:
        """Of what kind each round is, whatever it spends."""
        return Expense(
            unit=self.privacy.unit if self.privacy.by_sample else "",
            site_noise_multiplier=float(self.privacy.by_site),
            at_server=self.privacy.by_site and self.privacy.noise_at == "server",
        )

    def _allow(self, expenses: Sequence[Expense]) -> None:
        self._refuse_gaps(expenses)
        self._refuse_beyond(expenses, (self.privacy.most_epsilon, self.privacy.most_site_epsilon))
        if self.limited:
            together = [*self._flat(self._elsewhere()), *expenses]
            where = " in all its consortia together" if len(together) > len(expenses) else ""
            self._refuse_beyond(together, self.own_ceilings, where)

    def _refuse_beyond(
        self, expenses: Sequence[Expense], ceilings: tuple[float, float], where: str = ""
    ) -> None:
        ceiling, site_ceiling = ceilings
        spent, unit = self._spent(expenses), self.privacy.unit
        for epsilon, most, whom in (
            (spent.epsilon, ceiling, unit),
            (spent.site_epsilon, site_ceiling, "site"),
        ):
            if epsilon is not None and epsilon > most:
                before = self._spent(expenses[:-1])
                now = before.site_epsilon if whom == "site" else before.epsilon
                raise BudgetSpentError(
                    f"The round would take this site to ε = {epsilon:.4g} on a {whom}{where} (δ = "
                    f"{self.privacy.delta:g}), beyond its ceiling of {most:.4g}; {now or 0:.4g} is spent.",
                    "The site sits out. Only the site can raise its ceiling, and what was spent stays spent.",
                )

    def _elsewhere(self) -> dict[str, list[Expense]]:
        found = self.account.elsewhere()
        by_unit, by_site = self.policy.max_epsilon is not None, self.policy.max_site_epsilon is not None
        trusted = self.policy.trust_server
        for name, expenses in found.items():
            for old in expenses:
                unnoised = not old.site_noise_multiplier or (old.at_server and not trusted)
                if (by_unit and old.unit != self.privacy.unit) or (by_site and unnoised):
                    raise BudgetSpentError(
                        "The site's policy limits ε in all its consortia together, and in another one it has "
                        f"trained by {_way(old)}: no one ε would hold for all.",
                        f"See its ledger {name}. Lift the limit, or train in one of the two.",
                    )
        return found

    @staticmethod
    def _flat(ledgers: Mapping[str, Sequence[Expense]]) -> list[Expense]:
        return [expense for expenses in ledgers.values() for expense in expenses]

    def _refuse_gaps(self, expenses: Sequence[Expense]) -> None:
        """One sum holds for one unit, and only if every round was protected in the same way."""
        new = expenses[-1]
        for old in expenses[:-1]:
            if not _alike(old, new):
                raise BudgetSpentError(
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


def _alike(old: Expense, new: Expense) -> bool:
    """Whether one ε of each kind holds for both."""
    by_site = bool(old.site_noise_multiplier), bool(new.site_noise_multiplier)
    return (
        old.unit == new.unit
        and by_site[0] == by_site[1]
        and (old.at_server is None or old.at_server == new.at_server)
    )


def _way(expense: Expense) -> str:
    ways = [f"DP-SGD by {expense.unit}"] if expense.unit else []
    if expense.site_noise_multiplier:
        ways.append("noise on whole updates" + (", added by the server" if expense.at_server else ""))
    return " and ".join(ways) or "no privacy"
