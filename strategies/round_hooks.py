"""The places in federated averaging where a method of unlearning may step in."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from strategies.screening import Screened
from unlearning.parameters import Vector


class RoundHooks(Strategy):
    """What a method of unlearning may change; as they are here, they change nothing."""

    min_sites: int

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """Make ready before the first round; returns the model to begin with (for unlearning, from G)."""
        del grid
        return arrays

    def finish(self, arrays: ArrayRecord) -> ArrayRecord:
        """Change the model after the last round."""
        return arrays

    def prepare(self, server_round: int, parameters: Vector) -> tuple[Vector, dict[str, float]]:
        """Change the model before it is sent; returns it and notes for the record."""
        del server_round
        return parameters, {}

    def combine(self, server_round: int, start: Vector, update: Vector) -> Vector:
        """Change the averaged update Δ̄ ``(P,)`` before it is added to ``start`` ``(P,)``."""
        del server_round, start
        return update

    def accept(self, server_round: int, site: str, screened: Screened) -> Screened | None:
        """Change an acceptable update before it is kept and averaged; ``None`` keeps it out of both."""
        del server_round, site
        return screened

    def bytes_besides(self, server_round: int) -> int:
        """Bytes that a training message carries beside the model."""
        del server_round
        return 0

    def enough(self, weights: Mapping[str, float]) -> bool:
        """Whether the sites in ``weights`` make a round."""
        return len(weights) >= max(self.min_sites, 1)

    def told_round(self, server_round: int) -> int:
        """The number sites are told for ``server_round``; they draw their batches by it."""
        return server_round
