"""Who belongs to the consortium, and which node speaks for whom."""

from __future__ import annotations

import pytest

from reconsent.errors import SiteError
from server.persistence import Roster, RosterEntry, SiteStatus, StateDirectory


@pytest.fixture
def roster(state: StateDirectory) -> Roster:
    """A roster with one site."""
    roster = Roster(state)
    roster.enrol("north", 11, "knee", 40, round=1)
    return roster


def test_enrolment_is_kept_and_repeatable(roster: Roster) -> None:
    """Enrolling the same again changes nothing but the number of examples."""
    roster.enrol("north", 11, "knee", 44, round=7)
    entry = RosterEntry("north", 11, "knee", 44, None, None, SiteStatus.ACTIVE, 1)
    assert roster.all() == [entry]
    assert roster.get("north") == entry


def test_node_ids_are_64_bit_unsigned(roster: Roster) -> None:
    """The largest id that Flower gives comes back unchanged."""
    roster.enrol("south", 2**64 - 1, "brain", 1, round=1)
    assert roster.get("south").node_id == 2**64 - 1


def test_two_nodes_cannot_be_one_site(roster: Roster) -> None:
    """The second node is refused by name, and the first stays."""
    with pytest.raises(SiteError, match="Nodes 11 and 12 both claim to be site 'north'"):
        roster.enrol("north", 12, "knee", 40, round=1)
    assert roster.get("north").node_id == 11


def test_one_node_cannot_be_two_sites(roster: Roster) -> None:
    """A node that claims another site than before is refused, and the other site is not enrolled."""
    with pytest.raises(SiteError, match="bound to site 'north'"):
        roster.enrol("south", 11, "knee", 40, round=1)
    assert [entry.site for entry in roster.all()] == ["north"]


def test_a_site_keeps_its_organ(roster: Roster) -> None:
    """A site that comes back with another organ is refused, also in a new run."""
    roster.start_run()
    with pytest.raises(SiteError, match="'brain', but it enrolled with 'knee'"):
        roster.enrol("north", 21, "brain", 40, round=1)


def test_a_new_run_forgets_ephemeral_nodes_only(roster: Roster) -> None:
    """With ephemeral nodes a new run may bind another node; with authenticated ones it may not."""
    roster.start_run(ephemeral=False)
    with pytest.raises(SiteError, match="both claim"):
        roster.enrol("north", 12, "knee", 40, round=3)
    roster.start_run()
    assert roster.get("north").node_id is None
    roster.enrol("north", 12, "knee", 40, round=3)
    roster.enrol("south", 11, "brain", 40, round=3)
    assert [entry.node_id for entry in roster.all()] == [12, 11]


def test_a_node_that_is_gone_can_be_replaced(roster: Roster) -> None:
    """After its release a site may come back with a new node; an unknown node is no error."""
    roster.release(11)
    roster.release(99)
    roster.enrol("north", 12, "knee", 40, round=1)
    assert roster.get("north").node_id == 12


def test_a_barred_site_takes_part_in_nothing(roster: Roster) -> None:
    """A barred site is not active, cannot enrol again, and cannot enter a model."""
    roster.enrol("south", 12, "brain", 40, round=1)
    roster.bar(["north"])
    roster.bar(["north"])
    assert [entry.site for entry in roster.active()] == ["south"]
    with pytest.raises(SiteError, match="barred: it is withdrawing"):
        roster.enrol("north", 11, "knee", 40, round=2)
    with pytest.raises(SiteError, match="barred while round 2"):
        roster.took_part(["south", "north"], 2)
    assert roster.get("south").last_round is None, "half of a refused round was noted"


def test_withdrawn_is_for_good(roster: Roster) -> None:
    """Readmission lifts a restriction, but nothing lifts a withdrawal."""
    roster.bar(["north"])
    roster.readmit(["north"])
    assert roster.get("north").status is SiteStatus.ACTIVE
    roster.withdraw(["north"])
    assert roster.get("north").status is SiteStatus.ACTIVE, "withdrawn without being barred first"
    roster.bar(["north"])
    roster.withdraw(["north"])
    roster.readmit(["north"])
    roster.bar(["north"])
    assert roster.get("north").status is SiteStatus.WITHDRAWN
    roster.start_run()
    with pytest.raises(SiteError, match="it has withdrawn"):
        roster.enrol("north", 31, "knee", 40, round=9)


def test_first_and_last_round_span_the_participation(roster: Roster) -> None:
    """They are the first and last round it took part in, not the one it enrolled in."""
    for round_ in (3, 5, 4):
        roster.took_part(["north"], round_)
    entry = roster.get("north")
    assert (entry.enrolled_round, entry.first_round, entry.last_round) == (1, 3, 5)


def test_an_unknown_site_is_named_with_the_nearest(roster: Roster) -> None:
    """A misspelt name is answered with the one that was meant."""
    with pytest.raises(SiteError, match=r"no site 'nroth'.*Did you mean 'north'"):
        roster.get("nroth")
