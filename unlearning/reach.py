"""How far to ascend, by what the remaining sites feel of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from reconsent.errors import ContributionError


def length_of_reach(
    loss_at: Callable[[float], float],
    *,
    trained: float,
    untrained: float,
    reach: float,
    longest: float,
    tolerance: float = 0.03,
    probes: int = 6,
) -> float:
    """Length of ascent that carries the remaining sites a given share of the way back to the untrained model.

    Solves (ℓ(s) − ℓ(0)) / (ℓ_untrained − ℓ(0)) = reach for s, where ℓ(s) is the remaining sites' loss after
    an ascent of length s, before any repair. Brackets by doubling from 2, then interpolates (Illinois variant
    of regula falsi; Dowell and Jarratt, BIT 11, 1971), because each probe costs a message to every site.

    Parameters
    ----------
    loss_at
        ℓ(s) of s > 0 (any unit of length); may be infinite or NaN where the model is ruined.
    trained, untrained
        ℓ(0), and the loss of the model that training began with.
    reach
        Share of the way, 0 < reach < 1.
    longest
        Largest s that is tried; the result is at most that.
    tolerance
        How far the share may be off.
    probes
        Most calls of ``loss_at``.

    Returns
    -------
    s, in (0, longest].

    Raises
    ------
    ContributionError
        If the untrained model is no worse for the remaining sites than the trained one: there is no scale.
    """
    way = untrained - trained
    if not (math.isfinite(way) and way > 0):
        raise ContributionError(
            f"The remaining sites' loss is {trained:.4g} with the trained model and {untrained:.4g} with the "
            "untrained one, so the length of the ascent cannot be measured against them.",
            "Give the length yourself: set alpha.",
        )

    def excess(length: float) -> float:
        value = loss_at(length)
        share = (value - trained) / way if math.isfinite(value) else 1.0
        return min(share, 1.0) - reach

    low, at_low = 0.0, -reach
    high = min(2.0, longest)
    at_high = excess(high)
    used = 1
    while at_high < -tolerance and high < longest and used < probes:
        low, at_low = high, at_high
        high = min(2 * high, longest)
        at_high = excess(high)
        used += 1
    if at_high <= tolerance:
        return high
    kept = 0
    while used < probes:
        # Where the model is as bad as untrained the loss is flat, and says nothing of where it rose.
        flat = kept == 0 and at_high > 0.95 - reach
        middle = (low + high) / 2 if flat else (low * at_high - high * at_low) / (at_high - at_low)
        found = excess(middle)
        used += 1
        if abs(found) <= tolerance:
            return middle
        if found < 0:
            low, at_low = middle, found
            at_high = at_high / 2 if kept < 0 else at_high
            kept = -1
        else:
            high, at_high = middle, found
            at_low = at_low / 2 if kept > 0 else at_low
            kept = 0 if flat else 1
    return (low * at_high - high * at_low) / (at_high - at_low)
