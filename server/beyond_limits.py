"""What of an unlearning is beyond a limit that was fixed before it, in words for who runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unlearning.certificate.evidence import About, Evidence, Figure, Limit, judge


def beyond_limits(figures: Iterable[Mapping[str, Any]], policy: Mapping[str, Any]) -> list[str]:
    """Each figure on record that does not meet its limit of the policy on record, in words."""
    judged = judge(
        [Figure(**{**entry, "about": About(entry["about"])}) for entry in figures],
        {name: Limit(**limit) for name, limit in policy["limits"].items()},
    )
    return [_words(item) for item in judged if not item.passed]


def notice_of(withdrawal: str, beyond: list[str]) -> str:
    """What happens now, and what can be done.

    What the other sites lose is no reason to keep what was asked to be erased, so it goes on.
    """
    return (
        f"The unlearning for withdrawal {withdrawal} is beyond a limit that was fixed before it: "
        f"{'; '.join(beyond)}. The withdrawal goes on all the same; the figures stay on record, and its "
        "certificate says so and claims less. Train on to repair the model; for the next withdrawal, compare "
        "methods and settings with `reconsent bench`."
    )


def _words(item: Evidence) -> str:
    value = f"{item.name} is {item.figure.value:.2f} {item.figure.unit}"
    if item.limit is None or item.limit.high is None:
        return f"{value}, and no limit was fixed"
    return f"{value}, and may be {item.limit.high:g}"
