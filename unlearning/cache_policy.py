"""What the contribution cache keeps, and how it damps."""

from __future__ import annotations

from dataclasses import dataclass

from unlearning.vector_files import VectorType


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What is kept.

    Attributes
    ----------
    damping
        a of the specific contribution; 0 keeps it undamped.
    history_every
        Keep each k-th update by itself; 0 keeps none.
    history_dtype
        ``float32`` or ``bfloat16``.
    anchor_rounds
        Rounds after which a copy of the running pair stays.
    keep_rounds, keep_days
        Single updates older than the last so many rounds of the line, or than so many days, are removed;
        their numbers stay. ``None``: no limit.
    """

    damping: float = 0.0
    history_every: int = 0
    history_dtype: VectorType = "bfloat16"
    anchor_rounds: frozenset[int] = frozenset()
    keep_rounds: int | None = None
    keep_days: float | None = None

    def decay(self, missed: int) -> float:
        """What is left of a specific contribution after rounds the site missed.

        It added nothing in them, but the others went on pulling (p = 0).
        """
        return (1 - self.damping) ** missed
