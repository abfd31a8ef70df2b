"""What a method of unlearning must find: said before anything starts, with the way to get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reconsent.config import ContributionConfig

if TYPE_CHECKING:
    from strategies.unlearning_strategy import Departure
    from unlearning.contributions import ContributionCache

HISTORY = "Train with contributions.history-every = 1 in the consortium file; nobody can keep it afterwards."
ANCHORS = "Train with contributions.anchors = [0.2, 0.4] in the consortium file, or as you like."
COOPERATION = (
    "Ask the site to stay online until its part is done, and file the withdrawal as cooperating "
    "(cooperating = true in [[withdrawals]], or `reconsent withdraw --cooperating`)."
)
PATIENTS = (
    "It works with the contribution of a site as a whole, in which that of single patients cannot be told "
    "from the others'. For patients of a site that stays take a method that asks the site (ga-l1-ft, nl-ft, "
    'or pga with centre = "model"), or retain-ft, full-ft or retrain.'
)
OTHERWISE = "Methods that need nothing are retain-ft, full-ft and retrain."


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method needs beside the model and the remaining sites.

    Attributes
    ----------
    contributions
        Running sums of the withdrawn sites.
    history
        Single updates: ``some`` or ``every`` one of the withdrawn sites, or of all sites (``all``).
    anchors
        Models of former rounds, with the contributions up to them.
    cooperation
        The leaving sites still answer.
    """

    contributions: bool = False
    history: Literal["none", "some", "every", "all"] = "none"
    anchors: bool = False
    cooperation: bool = False

    @property
    def of_whole_sites(self) -> bool:
        """Whether something is needed that is kept of whole sites only."""
        return self.contributions or self.history != "none" or self.anchors

    def missing_in_plan(
        self, kept: ContributionConfig, *, cooperating: bool, patients: bool = False
    ) -> list[str]:
        """What a consortium file does not provide, in words with their remedies; empty if all is there.

        With ``patients`` only some patients leave, and their site stays.
        """
        if patients and self.of_whole_sites:
            return [PATIENTS]
        problems = []
        if self.history != "none" and kept.history_every == 0:
            problems.append(f"It needs single updates, and none are kept. {HISTORY}")
        if self.history in ("every", "all") and kept.history_every > 1:
            problems.append(
                f"It needs every single update, and one in {kept.history_every} is kept. {HISTORY}"
            )
        if self.anchors and not kept.anchors:
            problems.append(f"It goes back to a former model, and none are kept. {ANCHORS}")
        if self.cooperation and not cooperating:
            problems.append(f"Its part at the leaving site needs that site, which leaves gone. {COOPERATION}")
        return problems

    def missing_in(self, cache: ContributionCache | None, departure: Departure) -> list[str]:
        """What is not there now, in words with their remedies; empty if all is there."""
        if departure.staying and self.of_whole_sites:
            return [PATIENTS]
        problems = []
        if cache is None and (self.contributions or self.history != "none"):
            problems.append(f"It needs the contribution cache, and none is kept. Train with one. {OTHERWISE}")
        elif cache is not None and (self.contributions or self.history != "none"):
            for site in departure.contributors:
                problems += _missing_of(cache, site, self.history)
            if self.history == "all" and not problems:
                problems += _missing_of_others(cache, departure)
        if self.anchors and not set(departure.models) - {0, max(departure.models, default=0)}:
            problems.append(f"It goes back to a former model, and none is kept. {ANCHORS}")
        silent = sorted(departure.sites - departure.bystanders - departure.cooperating)
        if self.cooperation and silent:
            problems.append(
                f"Its part at the leaving site needs {', '.join(silent)}, which left gone. {COOPERATION}"
            )
        return problems


def _missing_of(cache: ContributionCache, site: str, history: str) -> list[str]:
    took_part, kept = set(cache.shares(site)), set(cache.kept_rounds(site))
    if not took_part:
        return [f"No contribution of site '{site}' is kept. {OTHERWISE}"]
    if history != "none" and not kept:
        return [f"It needs single updates of site '{site}', and none were kept. {HISTORY}"]
    if history in ("every", "all") and took_part - kept:
        return [
            f"It needs every update of site '{site}', and {len(took_part - kept)} of {len(took_part)} were "
            f"not kept. {HISTORY}"
        ]
    return []


def _missing_of_others(cache: ContributionCache, departure: Departure) -> list[str]:
    found = []
    for site in cache.sites():
        if site not in departure.sites:
            found += _missing_of(cache, site, "all")
    return found
