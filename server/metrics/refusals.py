"""Why a reply was of no use, as one of a few codes: sentences differ from round to round, labels may not."""

from __future__ import annotations

from strategies import messages as msg

PRIVACY_BUDGET = "privacy_budget"
REASONS = (
    "not_finite",
    "norm",
    "shape",
    "examples",
    "no_model",
    "undecodable",
    "refused_by_site",
    PRIVACY_BUDGET,
    "failed_at_site",
    "unreachable",
    "timeout",
    "withdrawn",
    "other",
)

# How the screen's sentences read; a test screens real replies of each kind.
_SCREEN = (
    ("not finite", "not_finite"),
    ("update's norm", "norm"),
    (f"'{msg.NUM_EXAMPLES}' must", "examples"),
    ("does not carry exactly one model", "no_model"),
    ("cannot be decoded", "undecodable"),
)
_FAILURE = (
    (msg.REFUSED_BY_SITE, "refused_by_site"),
    (msg.FAILED_AT_SITE, "failed_at_site"),
    ("node_unavailable", "unreachable"),
    ("message_unavailable", "unreachable"),
    ("app_error", "failed_at_site"),
)


def reason_code(outcome: str, sentence: str) -> str:
    """The code of what became of a reply that was not averaged.

    Parameters
    ----------
    outcome
        As in :class:`server.persistence.SiteOutcome`; not ``ok``.
    sentence
        Its reason in words.
    """
    if outcome in ("timeout", "withdrawn"):
        return outcome
    if f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}" in sentence:
        return PRIVACY_BUDGET
    if msg.REFUSED_BY_SITE in sentence:
        return "refused_by_site"
    if outcome == "refused":
        # What is not among the sentences is the layout's, which names the array.
        return next((code for part, code in _SCREEN if part in sentence), "shape")
    return next((code for part, code in _FAILURE if part in sentence), "other")
