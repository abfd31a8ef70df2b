"""What the sites spent under differential privacy, in ``results.json``; ``docs/privacy.md`` explains it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cli.results_record import Count, Record


class PrivacyResult(Record):
    """The account of one site for one unit of privacy, as the site told of it last."""

    site: str = Field(description="whose account")
    mode: Literal["none", "sample", "site", "both"] = Field(description="`mode` of the site's `privacy`")
    unit: Literal["patient", "slice", "site"] = Field(description="whom ε protects as one")
    epsilon: float | None = Field(
        default=None, ge=0, description="ε spent in all; null where the site has told of none"
    )
    delta: float = Field(ge=0, lt=1, description="the δ at which ε is counted")
    ceiling: float | None = Field(
        default=None, gt=0, description="most ε it may spend in this consortium; null: no limit, or not told"
    )
    round: Count | None = Field(default=None, description="main line's round in which it told so; or null")
    rounds_sat_out: Count = Field(
        default=0, description="rounds of the main line it refused because of its limits"
    )
    sits_out_since: Count | None = Field(
        default=None, description="first round that it has refused since; null if it takes part"
    )
    reason: str = Field(default="", description="its words on the last refusal, where it sits out")
