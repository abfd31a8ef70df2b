"""What a check of a node found."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconsent.errors import ReconsentError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    key
        The key of ``SITE.toml`` it is about.
    reason, remedy
        What is the matter, and what to do.
    """

    key: str
    reason: str
    remedy: str = ""

    @classmethod
    def of(cls, key: str, error: ReconsentError) -> Finding:
        """An error as a finding."""
        return cls(key, error.problem.strip(), error.remedy)


@dataclass(slots=True)
class NodeReport:
    """Everything that a check found.

    Attributes
    ----------
    problems
        The node would not work, or not safely.
    notes
        It works, but somebody should know.
    facts
        What is in order, by key, in words.
    """

    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
