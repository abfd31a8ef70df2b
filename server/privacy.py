"""What the sites told of the privacy they have spent; each keeps the account itself, at the site."""

from __future__ import annotations

from collections import Counter
from typing import Any

from server.bookkeeping import MAIN
from server.persistence import RoundLog
from strategies import messages as msg

_SITS_OUT = f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: "


def privacy_of(rounds: RoundLog) -> list[dict[str, Any]]:
    """Newest word of each site on its budget, by site and unit.

    Returns
    -------
    Entries of ``site``; ``unit`` (``patient``, ``slice``, ``site``); ``spent`` (ε in all); ``ceiling``
    (``None`` if it has none); ``delta``; ``round`` in which it was told; ``sits_out_since``: the first
    round that it has refused since, because of its limits; and ``reason``: its words on the last
    of these. A site that has sat out from the start has told of nothing but the reason: all between is
    ``None``.
    Training and unlearning rounds alike; a restored state knows only what was told before.
    """
    told: dict[str, tuple[int, dict[str, float]]] = {}
    out: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for record in rounds.everything(MAIN):
        for site, outcome in record.sites.items():
            if outcome.privacy:
                told[site] = (record.round, dict(outcome.privacy))
            if outcome.privacy or outcome.outcome == "ok":
                out.pop(site, None)
            elif outcome.reason.startswith(_SITS_OUT):
                out.setdefault(site, record.round)
                reasons[site] = outcome.reason.removeprefix(_SITS_OUT)
    found: list[dict[str, Any]] = []
    for site in sorted(told.keys() | out.keys()):
        since = {"sits_out_since": out.get(site), "reason": reasons[site] if site in out else None}
        if site not in told:
            unknown = dict.fromkeys(("unit", "spent", "ceiling", "delta", "round"))
            found.append({"site": site, **unknown, **since})
            continue
        round_, privacy = told[site]
        for unit, key in msg.EPSILON.items():
            if key in privacy:
                limit = msg.SITE_EPSILON_CEILING if unit == "site" else msg.EPSILON_CEILING
                found.append(
                    {
                        "site": site,
                        "unit": unit,
                        "spent": privacy[key],
                        "ceiling": privacy.get(limit),
                        "delta": privacy.get(msg.PRIVACY_DELTA, 0.0),
                        "round": round_,
                        **since,
                    }
                )
    return found


def rounds_sat_out(rounds: RoundLog) -> dict[str, int]:
    """How many rounds each site has refused because of its limits; sites without such are left out."""
    refused = (
        site
        for record in rounds.everything(MAIN)
        for site, outcome in record.sites.items()
        if outcome.outcome != "ok" and outcome.reason.startswith(_SITS_OUT)
    )
    return dict(Counter(refused))
