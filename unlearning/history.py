"""Sums over single cached updates, damped or of one round, where a running sum is not what is wanted."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from reconsent.errors import ContributionError
from unlearning.contributions import ContributionCache
from unlearning.folding import specific_contribution
from unlearning.parameters import Vector

_REMEDY = "Train with contributions.history-every = 1, or use a method that needs no history."


def damped_sum(cache: ContributionCache, sites: Iterable[str], *, damping: float) -> Vector:
    """What ``sites`` added to the path of the model, damped by what the others repaired since, ``(P,)``.

    U ← (1 − α (1 − pᵤ)) U + pᵤ Δᵤᵗ, round by round, with pᵤ = 0 in rounds that the site missed; with α = 0 it
    is Σₜ pᵤᵗ Δᵤᵗ. This is Fast-FedUL's recursion (Huynh et al., ECML-PKDD 2024, eq. 12 there up to the sign)
    with one scalar for the others' pull. Where only one update in k is kept it stands for k rounds. Several
    leavers add up.

    Parameters
    ----------
    cache
        Where the single updates are.
    sites
        The withdrawn sites.
    damping
        α ≥ 0, per round.

    Raises
    ------
    ContributionError
        If a site left no single update.
    """
    now = cache.last_round()
    total: Vector | None = None
    for site in sorted(sites):
        part: Vector | None = None
        # An update that was not kept is as large as the next one that was.
        last, stands, shares = 0, _spacing(cache, site), cache.shares(site)
        for round_, share, update in cache.updates(site):
            step: Vector = np.float32(stands * share) * update
            part = step if part is None else np.float32(_left(shares, damping, last, round_)) * part + step
            last = round_
        if part is None:
            raise ContributionError(f"No single update of site '{site}' is kept.", _REMEDY)
        part = np.float32(_left(shares, damping, last, now)) * part
        total = part if total is None else total + part
    if total is None:
        raise ContributionError("No withdrawn site was named, so there is nothing to subtract.")
    return total


def damped_specific(
    cache: ContributionCache, sites: Collection[str], *, damping: float, until: int | None = None
) -> Vector:
    """The damped specific contribution of ``sites`` together, from the history, ``(P,)``.

    d ← (1 − a (1 − P)) d + P/(1 − P) (Δ_S − Δ̄), where P = Σ pᵤ and Δ_S = Σ pᵤ Δᵤ / P over the leaving
    sites: a first-order model of "trained with them minus trained without them", exact for quadratic losses
    of one curvature h if a (1 − P) = η h. Unlike the running sums, the damping is chosen afterwards and
    several leavers are exact.

    Parameters
    ----------
    cache
        With every update of every site.
    sites
        The withdrawn sites.
    damping
        a ≥ 0, per round.
    until
        Last round to count; ``None`` for all.

    Raises
    ------
    ContributionError
        If an update of a round in which they took part was not kept.
    """
    last = cache.last_round() if until is None else until
    rounds = sorted({t for site in sites for t in cache.shares(site) if t <= last})
    if not rounds:
        raise ContributionError(f"{', '.join(sorted(sites))} left no contribution up to round {last}.")
    total: Vector | None = None
    before = rounds[0]
    for round_ in rounds:
        step, share = _specific_of(cache, sites, round_)
        missed = max(0, round_ - before - 1)
        decay = (1 - damping) ** missed * (1 - damping * (1 - share))
        total = step if total is None else np.float32(decay) * total + step
        before = round_
    assert total is not None  # noqa: S101 - there is at least one round
    rest: Vector = np.float32((1 - damping) ** (last - before)) * total
    return rest


def specific_of_last_round(cache: ContributionCache, sites: Collection[str]) -> Vector:
    """What ``sites`` added beyond the others in the last round that had any of them, ``(P,)``.

    P/(1 − P) (Δ_S − Δ̄) = Δ̄ − Δ̄₍without them₎: without it the model stands where the others alone would have
    taken it in that round.

    Raises
    ------
    ContributionError
        If an update of that round was not kept.
    """
    rounds = [t for site in sites for t in cache.shares(site)]
    if not rounds:
        raise ContributionError(f"{', '.join(sorted(sites))} left no contribution.")
    return _specific_of(cache, sites, max(rounds))[0]


def mean_of_round(cache: ContributionCache, sites: Collection[str], round_: int) -> tuple[Vector, float]:
    """Weighted mean of the updates of ``sites`` in a round, ``(P,)``, and their shares together.

    Raises
    ------
    ContributionError
        If one of them took part and its update was not kept, or none took part.
    """
    total: Vector | None = None
    together = 0.0
    for site in sorted(sites):
        share = cache.shares(site).get(round_)
        if share is None:
            continue
        step: Vector = np.float32(share) * cache.update_of(site, round_)
        total = step if total is None else total + step
        together += share
    if total is None:
        raise ContributionError(f"None of {', '.join(sorted(sites))} took part in round {round_}.")
    mean: Vector = total / np.float32(together)
    return mean, together


def _specific_of(cache: ContributionCache, sites: Collection[str], round_: int) -> tuple[Vector, float]:
    theirs, share = mean_of_round(cache, sites, round_)
    others = [site for site in cache.sites() if site not in sites and round_ in cache.shares(site)]
    if not others:
        return theirs, 1.0
    rest, rest_share = mean_of_round(cache, others, round_)
    if abs(share + rest_share - 1) > 1e-6:
        raise ContributionError(
            f"The updates of round {round_} that are kept have shares of {share + rest_share:.3g} in all, so "
            "their average cannot be computed: a site of that round was erased.",
            "Use the running specific contribution (leave damping empty).",
        )
    mean: Vector = np.float32(share) * theirs + np.float32(rest_share) * rest
    return specific_contribution(theirs, mean, share), share


def _left(shares: Mapping[int, float], damping: float, after: int, until: int) -> float:
    """What damping leaves at ``until`` of a sum ``after`` a round; p = 0 in rounds the site missed."""
    rounds = range(after + 1, until + 1)
    return math.prod(max(0.0, 1 - damping * (1 - shares.get(t, 0.0))) for t in rounds)


def _spacing(cache: ContributionCache, site: str) -> float:
    kept = len(cache.kept_rounds(site))
    return len(cache.shares(site)) / kept if kept else 1.0
