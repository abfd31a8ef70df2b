"""Directions of ascent from cached contributions, and projections against them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt

from reconsent.errors import ContributionError
from unlearning.contributions import ContributionCache
from unlearning.folding import specific_contribution
from unlearning.parameters import Vector, dot, norm

Basis = npt.NDArray[np.float32]
"""Orthonormal directions, one a row, ``(K, P)``."""


def weighted_contribution(
    cache: ContributionCache,
    sites: Collection[str],
    *,
    kind: str,
    recency: float = 1.0,
    at_round: int | None = None,
) -> Vector:
    """Sum of what ``sites`` contributed, d = Σᵤ Σₜ λ^(T−t) pᵤᵗ Δᵤᵗ ``(P,)``, in the direction of training.

    With λ = 1 one running vector a site is enough. With λ < 1 recent rounds count more, and the cache must
    hold a history.

    The sums of several sites add up. Their specific contributions were each taken as if that site alone had
    left, with the weight pᵤ/(1 − pᵤ), while together they weigh pᵤ/(1 − P) each, P = Σ pᵤ: what is returned
    is Σᵤ (1 − pᵤ)/(1 − P) cᵤ. That is exact if the shares stay the same and nothing was damped. Where they
    change, it is the mean factor of the site's rounds, weighted by its shares; and what was damped was so at
    each site's own rate, a (1 − pᵤ) for a (1 − P).

    Parameters
    ----------
    cache
        Where the contributions are.
    sites
        The withdrawn sites.
    kind
        ``sum``: the updates themselves; ``specific``: what they added beyond the other sites'.
    recency
        λ, 0 < λ ≤ 1, per round.
    at_round
        Count what they contributed up to this anchor round; ``None`` for all.

    Raises
    ------
    ContributionError
        If a site left nothing, or λ < 1 without a history, or λ < 1 with ``specific``.
    """
    total: Vector | None = None
    for site in sorted(sites):
        if recency >= 1.0:
            part = cache.running(site, "specific" if kind == "specific" else "sum", at_round=at_round)
        else:
            part = _recent(cache, site, kind, recency, at_round)
        if kind == "specific" and len(sites) > 1:
            part = np.float32(_weight_together(cache, site, sites, at_round)) * part
        total = part if total is None else total + part
    if total is None:
        raise ContributionError("No withdrawn site was named, so there is no direction to ascend.")
    return total


def _weight_together(
    cache: ContributionCache, site: str, sites: Collection[str], at_round: int | None
) -> float:
    """What a site's specific contribution weighs where all of ``sites`` leave: (1 − pᵤ)/(1 − P)."""
    shares = [cache.shares(one) for one in sites]
    total = weight = 0.0
    for round_, share in cache.shares(site).items():
        # A round in which nobody else took part has no others to be compared with.
        others = 1 - sum(theirs.get(round_, 0.0) for theirs in shares)
        if (at_round is None or round_ <= at_round) and others > 1e-6:
            total += share * (1 - share) / others
            weight += share
    return total / weight if weight else 1.0


def _recent(cache: ContributionCache, site: str, kind: str, recency: float, at_round: int | None) -> Vector:
    if kind == "specific":
        raise ContributionError(
            "A recency below 1 weighs single updates, and of the specific contribution only the running "
            "sum is kept.",
            "Use direction = 'sum' with recency, or recency = 1.",
        )
    total: Vector | None = None
    last = max((t for t in cache.shares(site) if at_round is None or t <= at_round), default=0)
    for round_, share, update in cache.updates(site):
        if round_ > last:
            break
        weighted: Vector = np.float32(recency ** (last - round_) * share) * update
        total = weighted if total is None else total + weighted
    if total is None:
        raise ContributionError(
            f"A recency below 1 needs single updates of site '{site}', and none were kept.",
            "Train with contributions.history-every > 0, or use recency = 1.",
        )
    return total


def unit(vector: Vector) -> Vector:
    """``vector / ‖vector‖``.

    Raises
    ------
    ContributionError
        If it is zero or not finite: such contributions hold no direction.
    """
    size = norm(vector)
    if not np.isfinite(size) or size == 0.0:
        raise ContributionError(
            f"The cached contribution has norm {size}: it gives no direction to ascend.",
            "The site's updates were zero or damaged; use a method that needs no cache.",
        )
    result: Vector = vector / np.float32(size)
    return result


def orthonormal_basis(vectors: Iterable[Vector], *, tolerance: float = 1e-4) -> Basis:
    """Orthonormalise ``vectors`` by modified Gram-Schmidt with reorthogonalisation.

    Parameters
    ----------
    vectors
        Directions ``(P,)``; taken one at a time.
    tolerance
        A vector whose remainder is below this share of its norm adds no direction.

    Returns
    -------
    Basis
        ``(K, P)``, K ≤ number of vectors; memory is K models.
    """
    rows: list[Vector] = []
    size = 0
    for vector in vectors:
        size = vector.size
        original = norm(vector)
        if original == 0.0:
            continue
        remainder = vector.astype(np.float32, copy=True)
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            for row in rows:
                remainder -= np.float32(dot(row, remainder)) * row
        left = norm(remainder)
        if left > tolerance * original:
            rows.append(remainder / np.float32(left))
    return np.stack(rows) if rows else np.zeros((0, size), dtype=np.float32)


def project_out(vector: Vector, basis: Basis) -> Vector:
    """``(I − BᵀB) vector``: what of ``vector`` ``(P,)`` lies outside the span of ``basis`` ``(K, P)``."""
    if basis.shape[0] == 0:
        return vector
    result: Vector = (vector - (basis @ vector) @ basis).astype(np.float32, copy=False)
    return result


def remove_return(update: Vector, displacement: Vector) -> Vector:
    """Take from ``update`` only what leads back against ``displacement``.

    g ← g − min(0, ⟨g, s⟩/‖s‖²) s, a one-sided form of FedOSD's post-training projection (Pan et al. 2025):
    going further away stays allowed.

    Parameters
    ----------
    update
        A retain-only update g ``(P,)``.
    displacement
        s = the current model minus the original one, ``(P,)``.
    """
    length = dot(displacement, displacement)
    if length == 0.0:
        return update
    back = min(0.0, dot(update, displacement) / length)
    result: Vector = update - np.float32(back) * displacement
    return result


def ascend(parameters: Vector, direction: Vector, length: float) -> Vector:
    """One ascent step θ − length · d.

    −Δᵤ is a pseudo-gradient of the site's loss, so leaving along −d, the way the site came, climbs it.

    Parameters
    ----------
    parameters
        θ ``(P,)``.
    direction
        Unit direction d of the site's contribution ``(P,)``.
    length
        α R: a share α of R, the size of one of the site's updates.
    """
    result: Vector = parameters - np.float32(length) * direction
    return result


__all__ = [
    "Basis",
    "ascend",
    "orthonormal_basis",
    "project_out",
    "remove_return",
    "specific_contribution",
    "unit",
    "weighted_contribution",
]
