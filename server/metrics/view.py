"""What one scrape looks at: the state at one moment, and the consortium it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from reconsent.config import ConsortiumConfig
from server.persistence import StateDirectory


@dataclass(frozen=True, slots=True)
class View:
    """The state at one moment.

    Attributes
    ----------
    state
        Open for reading.
    session
        A consistent view of its database: every family of a scrape is of the same moment.
    consortium
        The consortium's file, if the exporter was told of it.
    """

    state: StateDirectory
    session: Session
    consortium: ConsortiumConfig | None

    def organs(self) -> dict[str, str]:
        """Site → organ, of the consortium's file."""
        return {site.name: site.organ for site in self.consortium.sites} if self.consortium else {}
