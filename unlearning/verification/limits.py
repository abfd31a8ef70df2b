"""What each check cannot show, for reports and certificates to print."""

from __future__ import annotations

from unlearning.verification import (
    alignment,
    bootstrap,
    equivalence,
    false_structure_gap,
    function_distance,
    kolmogorov,
    likelihood_ratio,
    membership,
    oracle_gap,
    relearning,
    roc,
    without_oracle,
)

LIMITS: dict[str, str] = {
    "gap": f"{oracle_gap.LIMITS} {equivalence.LIMITS} {bootstrap.LIMITS}",
    "relearn": relearning.LIMITS,
    "continuation": relearning.LIMITS,
    "function-distance": function_distance.LIMITS,
    "membership/loss": f"{membership.LIMITS} {roc.LIMITS}",
    "membership/lira": f"{likelihood_ratio.LIMITS} {roc.LIMITS}",
    "error-distribution": kolmogorov.LIMITS,
    "alignment": alignment.LIMITS,
    "false-structure": f"{false_structure_gap.LIMITS} {equivalence.LIMITS}",
    "membership-change": f"{membership.LIMITS} {roc.LIMITS}",
    "predicted": without_oracle.LIMITS,
    "kept": without_oracle.LIMITS,
    "changed": without_oracle.LIMITS,
}
"""By name of the check, or of its family."""


def limits_of(check: str) -> str:
    """The limits of a check, by its whole name or that of its family.

    Raises
    ------
    KeyError
        If there is no such check.
    """
    return LIMITS.get(check) or LIMITS[check.partition("/")[0]]
