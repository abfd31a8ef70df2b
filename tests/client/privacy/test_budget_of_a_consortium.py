"""Budgets over a consortium's life: rounds, a site that sits out, unlearning, restarts, a restored state.

The sites are named, as deployed ones are: their noise is the operating system's, and nothing is replayed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.gathering import _privacy as privacy_results
from cli.report.tables import all_tables
from cli.status import _privacy as status_table
from client.app import app
from client.privacy.accounting import Mechanism, epsilon_spent
from client.privacy.ledger import Expense, PrivacyLedger
from reconsent.config import ConsortiumConfig, dump_consortium
from server.bookkeeping import MAIN, Bookkeeping
from server.coordinator import Coordinator
from server.metrics import StateCollector, privacy, rounds
from server.persistence import RoundLog, StateDirectory
from server.privacy import privacy_of
from strategies import messages as msg
from strategies.local_grid import LocalGrid
from tests.cli.results_builder import build_results

SITES = ("north", "south", "west", "east")
ROUND = Mechanism(2.0, 0.5, 2)
DELTA = 1e-5
PHANTOM = {"patients": 3, "slices": 1, "coils": 1, "matrix": [32, 32]}


def epsilon(rounds_: int) -> float:
    """Of so many rounds."""
    return epsilon_spent([ROUND] * rounds_, DELTA)


CONSORTIUM = ConsortiumConfig.model_validate(
    {
        "name": "budgets",
        "sites": [{"name": name, "organ": "brain", "phantom": PHANTOM} for name in SITES],
        "model": {"name": "unet", "channels": 2, "pools": 1},
        "training": {"rounds": 3, "local-epochs": 1, "batch-size": 1, "evaluate-every": 3},
        "unlearning": {"method": "retain-ft", "rounds-fraction": 0.34},
        "withdrawals": [{"sites": ["south"]}],
        "privacy": {
            "mode": "sample",
            "noise-multiplier": ROUND.noise_multiplier,
            "sample-rate": ROUND.sample_rate,
            "ceiling": 100.0,
        },
    }
)


@dataclass
class Life:
    """What was seen at each stage: the state's word on privacy, and each site's ledger."""

    told: dict[str, list[dict[str, Any]]]
    ledgers: dict[str, dict[str, list[Expense]]]
    state: Path
    reasons: list[str]

    def of(self, stage: str, site: str) -> dict[str, Any]:
        """The one entry of a site."""
        (entry,) = (entry for entry in self.told[stage] if entry["site"] == site)
        return entry


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Three rounds, two of them for ``north``; ``south`` leaves; then the state of round 1 is restored."""
    root = tmp_path_factory.mktemp("budgets")
    file, policy, strict = root / "consortium.toml", root / "north.toml", root / "east.toml"
    file.write_text(dump_consortium(CONSORTIUM))
    policy.write_text(f"max-epsilon = {(epsilon(2) + epsilon(3)) / 2}\n")
    strict.write_text(f"max-epsilon = {epsilon(1) / 2}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SITE_POLICY", "SITE_LOG", "PRIVACY_LEDGERS", "STATE"):
            patch.delenv(f"RECONSENT_{name}", raising=False)
        patch.setenv("RECONSENT_CONSORTIUM", str(file))
        patch.setenv("RECONSENT_PHANTOMS", str(root / "data"))
        found = Life({}, {}, root / "state", [])

        def proceed(stage: str, state: Path, until: int, *leave: str) -> None:
            """A server process's life: the state is opened, and closed again."""
            nodes = {
                number: {"site": name, "ledgers": str(root / "ledgers")}
                for number, name in enumerate(SITES, 1)
            }
            nodes[1]["policy"] = str(policy)
            nodes[4]["policy"] = str(strict)
            with StateDirectory.open(state) as opened:
                coordinator = Coordinator(LocalGrid(app, nodes), CONSORTIUM, opened, simulated=True)
                coordinator.meet()
                coordinator.initialise()
                coordinator.train(until)
                if leave:
                    coordinator.withdraw(leave)
                found.told[stage] = privacy_of(RoundLog(opened))
                found.reasons = [
                    outcome.reason
                    for record in RoundLog(opened).all(MAIN)
                    for outcome in record.sites.values()
                    if outcome.outcome != "ok"
                ]
            found.ledgers[stage] = {
                name: PrivacyLedger(root / "ledgers" / f"budgets--{name}.jsonl").expenses() for name in SITES
            }

        proceed("round 1", found.state, 1)
        shutil.copytree(found.state, root / "backup")
        proceed("round 3", found.state, 3)
        reasons = None
        proceed("unlearned", found.state, 3, "south")
        reasons = list(found.reasons)
        proceed("rolled back", root / "backup", 2)
        found.reasons = reasons
        yield found


def test_each_round_is_added_up(life: Life) -> None:
    """After one round and after three, in another process of the server, ε is that of all rounds together."""
    assert life.of("round 1", "west")["spent"] == pytest.approx(epsilon(1), rel=1e-12)
    assert life.of("round 3", "west")["spent"] == pytest.approx(epsilon(3), rel=1e-12)
    assert life.of("round 3", "west")["ceiling"] == 100
    assert [e.round for e in life.ledgers["round 3"]["west"]] == [1, 2, 3]


def test_a_site_at_its_ceiling_sits_out_and_the_others_go_on(life: Life) -> None:
    """``north`` is not in the third round; its account stays at two, and the reason is on record."""
    north = life.of("round 3", "north")
    assert north["spent"] == pytest.approx(epsilon(2), rel=1e-12)
    assert (north["round"], north["sits_out_since"]) == (2, 3)
    assert len(life.ledgers["unlearned"]["north"]) == 2
    assert life.of("round 3", "west")["sits_out_since"] is None
    assert life.reasons
    assert all(reason.startswith(f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: ") for reason in life.reasons)
    assert "beyond its ceiling" in life.reasons[0]


def test_a_site_that_sits_out_from_its_first_round_is_seen(life: Life) -> None:
    """``east`` has told of no ε: what it spent is unknown; that it sits out is seen in all views."""
    east = life.of("round 3", "east")
    assert (east["spent"], east["unit"], east["round"], east["sits_out_since"]) == (None, None, None, 1)
    assert "beyond its ceiling" in east["reason"]
    assert life.of("round 3", "west")["reason"] is None
    printed = StringIO()
    console = Console(width=240, file=printed)
    console.print(status_table(life.told["round 3"]))
    (row,) = (line for line in printed.getvalue().splitlines() if "east" in line)
    assert "unknown" in row
    assert "sits out since round 1: " in row
    collector = StateCollector(life.state)
    try:
        samples = collector.samples()
    finally:
        collector.close()
    found = {site: samples.value(privacy.SITS_OUT, site) for site in SITES}
    assert found == {"north": 1, "south": None, "west": 0, "east": 1}
    assert samples.value(privacy.SPENT, "east", "patient") is None


def test_results_and_report_name_unit_and_budget(life: Life) -> None:
    """What a site told last goes into the results; who has told of no ε is there too, as planned."""
    with StateDirectory.open(life.state) as state:
        found = {account.site: account for account in privacy_results(CONSORTIUM, Bookkeeping(state))}
    assert set(found) == set(SITES)
    assert {(a.mode, a.unit, a.delta) for a in found.values()} == {("sample", "patient", DELTA)}
    west, north, east = found["west"], found["north"], found["east"]
    assert west.epsilon == life.of("unlearned", "west")["spent"] == pytest.approx(epsilon(4), rel=1e-12)
    assert (west.ceiling, west.round, west.rounds_sat_out, west.sits_out_since) == (100, 4, 0, None)
    assert (north.round, north.rounds_sat_out, north.sits_out_since) == (2, 2, 3)
    assert (east.epsilon, east.ceiling, east.rounds_sat_out, east.sits_out_since) == (None, None, 4, 1)
    assert "beyond its ceiling" in east.reason
    table = all_tables(build_results(privacy=tuple(found.values())))["privacy"]
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["west"] == ("sample", "one patient", f"{epsilon(4):.4g}", "1e-05", "100", "0")
    assert rows["east"] == ("sample", "one patient", "not told", "1e-05", "not told", "4 (since round 1)")


def test_unlearning_spends_too(life: Life) -> None:
    """The round after the withdrawal is on the account of who stays, and not of the site that left."""
    assert life.of("unlearned", "west")["spent"] == pytest.approx(epsilon(4), rel=1e-12)
    assert life.of("unlearned", "west")["round"] == 4
    assert [len(life.ledgers["unlearned"][name]) for name in ("south", "west")] == [3, 4]


def test_rolling_back_the_server_gives_nothing_back(life: Life) -> None:
    """With the state of round 1 restored, the server asks for round 2 again, and the site pays again."""
    west = life.of("rolled back", "west")
    assert west["round"] == 2
    assert west["spent"] == pytest.approx(epsilon(5), rel=1e-12)
    assert [e.round for e in life.ledgers["rolled back"]["west"]] == [1, 2, 3, 4, 2]
    assert life.of("rolled back", "north")["sits_out_since"] == 2
    assert len(life.ledgers["rolled back"]["north"]) == 2


def test_status_and_metrics_say_the_same(life: Life) -> None:
    """What `reconsent status` prints and what is exported are what the sites told last."""
    printed = StringIO()
    console = Console(width=400, file=printed)
    told = [dict(entry) for entry in life.told["unlearned"]]
    for entry in told:
        if entry["site"] == "north":
            entry["reason"] += " [red]words of a site[/red]"
    console.print(status_table(told))
    text = printed.getvalue()
    (row,) = (line for line in text.splitlines() if "north" in line)
    assert "sits out since round 3: The round would take this site to ε = " in row
    assert "[red]words of a site[/red]" in row, "a site's words are no markup"
    assert f"{epsilon(4):.4g}" in text
    collector = StateCollector(life.state)
    try:
        samples = collector.samples()
    finally:
        collector.close()
    for site in ("north", "west"):
        entry = life.of("unlearned", site)
        assert samples.value(privacy.SPENT, site, "patient") == entry["spent"]
        assert samples.value(privacy.BUDGET, site, "patient") == entry["ceiling"]
    assert samples.value(privacy.SPENT, "south", "patient") is None, "it has left"
    assert (samples.value(rounds.REPLIES, "north", "train", "refused") or 0) == 1
