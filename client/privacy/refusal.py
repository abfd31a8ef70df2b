"""The refusal of a site whose privacy budget is spent; by itself, since the gate must not import Opacus."""

from __future__ import annotations

from reconsent.errors import PrivacyError


class BudgetSpentError(PrivacyError):
    """A round would take the site beyond its ceiling: it sits out.

    Its ``problem`` is told to the server, so it holds figures of privacy only.
    """
