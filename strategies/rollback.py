"""Go back to a model from before the site mattered, and train on without it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from pydantic import Field

from reconsent.config import Settings
from reconsent.errors import ContributionError
from strategies.members import RoundConfig
from strategies.needs import ANCHORS, Needs
from strategies.retain_fine_tuning import RetainFineTuning, RetainFineTuningSettings
from strategies.unlearning_strategy import Departure
from unlearning.contributions import ContributionCache


class RollbackSettings(RetainFineTuningSettings):
    """Settings of rollback; those of the rounds count with ``to = "anchor"`` only."""

    to: Literal["joined", "anchor"] = Field(
        default="joined",
        description="the last kept model from before the site took part: exact, and as many rounds as are "
        "lost; or an anchor by which it had added little, within the budget of rounds",
    )
    residue: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description="to = anchor: largest share of the site's whole sensitivity that it may have had there",
    )


def round_before(departure: Departure, cache: ContributionCache) -> int:
    """The newest round of which a model is kept that nothing of the leaving sites is in; 0 is the initial.

    Before the first contribution that is kept, which need not be their first: those before a withdrawal of
    some of a site's patients were erased. So the model's lineage is asked, too.
    """
    joined = min(
        (min(cache.shares(site)) for site in departure.contributors if cache.shares(site)), default=0
    )
    return max((t for t in departure.models if t < joined and t not in departure.touched), default=0)


def round_of_residue(departure: Departure, cache: ContributionCache, residue: float) -> int:
    """SIFU's choice without its noise: the newest anchor with Ψ(t) ≤ q Ψ(T), over the leaving sites together.

    Ψ(t) = Σ pᵤ/(1 − pᵤ) ‖Δᵤ − Δ̄‖ up to t (Fraboni et al., AISTATS 2024), recorded as the cache grows.

    Raises
    ------
    ContributionError
        If no anchor but the initial model lies that far back.
    """
    last = max(departure.models)

    def psi(t: int) -> float:
        return sum(cache.sensitivity(site, t) for site in departure.contributors)

    found = [t for t in departure.models if 0 < t < last and psi(t) <= residue * psi(last)]
    if not found:
        kept = ", ".join(f"{t} ({psi(t) / psi(last):.0%})" for t in sorted(departure.models) if 0 < t < last)
        raise ContributionError(
            f"By no anchor had the site added {residue:.0%} or less of all it added; kept are rounds "
            f"{kept or 'none'}.",
            f"Raise residue, use to = 'joined', or keep earlier ones. {ANCHORS}",
        )
    return max(found)


class Rollback(RetainFineTuning):
    """Take up a former model, and train on from there with the remaining sites.

    ``to = "joined"``: θ ← θ^{t₀} with t₀ before the site's first round, then the T − t₀ rounds that are lost,
    as they were, without the site. Nothing of it was ever in that path: exact, and the oracle itself if the
    model of the round before it joined is kept (it always is). For a site that was in from the start, t₀ = 0,
    this is retraining.

    ``to = "anchor"``: θ ← θ^{t₀} with the newest t₀ by which the site's sensitivity was Ψ(t₀) ≤ q Ψ(T), as
    SIFU chooses it (Fraboni et al., Sequential Informed Federated Unlearning, AISTATS 2024) but without the
    noise that its guarantee needs, then retain-only rounds within the budget. What the site had added up to
    t₀ stays, so this is empirical.
    """

    name: ClassVar[str] = "rollback"
    summary_line: ClassVar[str] = "go back to before the site joined (exact), or to an anchor, and train on"
    source: ClassVar[str] = (
        "Fraboni et al., Sequential Informed Federated Unlearning, AISTATS 2024 (without its noise)"
    )
    cost_line: ClassVar[str] = "the rounds since the site joined; to an anchor, the budget of rounds"
    claim_level: ClassVar[str] = "exact_retrain"
    settings_type: ClassVar[type[Settings]] = RollbackSettings
    plans: ClassVar[bool] = True
    changing: ClassVar[tuple[str, ...]] = (*RetainFineTuning.changing, "_back")
    settings: RollbackSettings

    def __init__(self, departure: Departure, settings: RollbackSettings, **kwargs: Any) -> None:
        own: RoundConfig = kwargs.get("round_config") or (lambda _round: {})
        super().__init__(departure, settings, **kwargs)
        self._back: int | None = None
        if self._exact:
            self.round_config = lambda t: own(self.told_round(t))

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        """When the site took part; and anchors, to go back to one."""
        assert isinstance(settings, RollbackSettings)  # noqa: S101 - checked by the registry
        return Needs(contributions=True, anchors=settings.to == "anchor")

    @property
    def _exact(self) -> bool:
        return self.settings.to == "joined"

    @property
    def start_round(self) -> int:
        """t₀."""
        if self._back is None:
            self.check()
            assert self.cache is not None  # noqa: S101 - checked
            if self._exact:
                self._back = round_before(self.departure, self.cache)
            else:
                self._back = round_of_residue(self.departure, self.cache, self.settings.residue)
        return self._back

    @property
    def num_rounds(self) -> int:
        """Those that are lost, or the budget."""
        lost = max(self.departure.models, default=self.departure.trained_rounds) - self.start_round
        return lost if self._exact else self.departure.budget_rounds

    def told_round(self, server_round: int) -> int:
        """That of the training, if it is repeated: with the same batches, only the site is missing."""
        return self.start_round + self.index(server_round) if self._exact else server_round

    def begin(self, grid: Grid, arrays: ArrayRecord) -> ArrayRecord:
        """The model of round t₀."""
        del grid, arrays
        if self.start_round == 0:
            return self.departure.initial()
        return self.departure.models[self.start_round]()
