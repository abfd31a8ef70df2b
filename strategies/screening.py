"""What a reply must satisfy before it may touch the model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message

from strategies.messages import NUM_EXAMPLES, arrays_of, metrics_of, viewed_arrays
from unlearning.parameters import Arrays, ParameterLayout, Vector, norm

MOST_EXAMPLES = 2**53
"""No site has more; beyond, floating-point numbers do not count any more."""

OWN_NORMS = 3
"""Accepted updates of a site from which it is known what is usual for it."""


@dataclass(frozen=True, slots=True)
class Screened:
    """An acceptable update.

    Attributes
    ----------
    update
        Δ = what the site sent minus what it was sent, ``(P,)``.
    examples
        Training examples behind it.
    norm
        ‖Δ‖.
    remark
        What was corrected, in words; mostly empty.
    """

    update: Vector
    examples: int
    norm: float
    remark: str = ""


@dataclass(slots=True)
class UpdateScreen:
    """Refuses updates that cannot be right: foreign shapes, values that are not finite, huge norms.

    It protects against faults and clumsy attacks, not against a site that sends a plausible lie.

    Attributes
    ----------
    max_norm_ratio
        An update larger than this times the median of the site's last accepted ones is refused; needs
        three of them. Before, see :meth:`outliers`.
    max_norm
        Absolute limit on ‖Δ‖.
    enrolled
        Training examples that a site enrolled with; ``None`` if that is not known. One that claims more is
        weighed with these: its weight is not its own to raise in the middle of a run.
    first_norm_ratio
        In a site's first three rounds, an update larger than this times the median of the other sites' is
        refused. It is generous: honest sites differ in size, organ, and the steps that they take.
    peers
        Only sites for which this gives the same are compared with each other: noise that a site adds to its
        whole update can be a thousand times as long as what it hides.
    """

    max_norm_ratio: float = 20.0
    max_norm: float | None = None
    enrolled: Callable[[str], int | None] = lambda _site: None
    first_norm_ratio: float = 100.0
    peers: Callable[[str], object] = lambda _site: None
    _norms: dict[str, list[float]] = field(default_factory=dict)

    def screen(self, site: str, message: Message, layout: ParameterLayout, sent: Arrays) -> Screened | str:
        """Check one reply.

        Parameters
        ----------
        site
            Whose reply it is.
        message
            The reply to a training message.
        layout
            Layout of the model that was sent.
        sent
            Its arrays.

        Returns
        -------
        The update, or the reason of its refusal in words.
        """
        examples = metrics_of(message).get(NUM_EXAMPLES)
        if examples is None or not 1 <= examples < MOST_EXAMPLES or examples != int(examples):
            return f"'{NUM_EXAMPLES}' must be a whole number above zero, got {examples}"
        most = self.enrolled(site)
        if most == 0:
            return f"'{NUM_EXAMPLES}' must be what the site enrolled with, which is none, got {examples:g}"
        record = arrays_of(message)
        if record is None:
            return "the reply does not carry exactly one model"
        try:
            arrays = viewed_arrays(record)
        except ValueError as error:
            return f"the arrays cannot be decoded ({error})"
        problem = layout.mismatch(arrays)
        if problem:
            return problem
        update = layout.difference(arrays, sent)
        size = norm(update)
        if not math.isfinite(size) or not np.isfinite(update).all():
            return "the update has values that are not finite (NaN or infinity)"
        limit = self._limit(site)
        if size > limit:
            return f"the update's norm {size:.4g} exceeds the limit {limit:.4g}"
        history = self._norms.setdefault(site, [])
        history.append(size)
        del history[:-20]
        if most is not None and examples > most:
            remark = f"claims {examples:g} examples, enrolled with {most}: weighed with {most}"
            return Screened(update, most, size, remark)
        return Screened(update, int(examples), size)

    def outliers(self, sites: Iterable[str]) -> dict[str, str]:
        """Updates of this round that are out of all proportion to the other sites'.

        Only sites of which it is not known yet what is usual for them are judged, each by the median over the
        others of what is usual for those, this round's updates included. To be asked when all replies have
        been screened, so that the order in which they came does not matter. With fewer than two others that
        have ever changed the model nothing can be told apart, and nobody is judged.

        Parameters
        ----------
        sites
            Those whose updates are to be averaged.

        Returns
        -------
        Site → the reason of its refusal in words. These updates are forgotten here, and no measure of others.
        """
        usual = {site: statistics.median(norms) for site, norms in self._norms.items() if any(norms)}
        found = {}
        for site in sites:
            history, group = self._norms.get(site, []), self.peers(site)
            others = [size for o, size in usual.items() if o != site and size > 0 and self.peers(o) == group]
            if not 0 < len(history) <= OWN_NORMS or len(others) < 2:
                continue
            limit = self.first_norm_ratio * statistics.median(others)
            if history[-1] > limit:
                found[site] = (
                    f"the update's norm {history[-1]:.4g} exceeds the limit {limit:.4g}, which is "
                    f"{self.first_norm_ratio:g} times the other sites' median"
                )
        for site in found:
            self._norms[site].pop()
        return found

    def recall(self, norms: dict[str, list[float]]) -> None:
        """Take up the norms of earlier rounds, after a restart."""
        self._norms = {site: values[-20:] for site, values in norms.items()}

    def _limit(self, site: str) -> float:
        limit = self.max_norm if self.max_norm is not None else math.inf
        history = self._norms.get(site, [])
        if len(history) >= OWN_NORMS:
            limit = min(limit, self.max_norm_ratio * statistics.median(history))
        return limit
