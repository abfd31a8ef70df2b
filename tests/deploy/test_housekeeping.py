"""The SuperLink is emptied of messages after a withdrawal, and the ledger knows whether it was."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from cli.deployment import Deployment
from cli.purge import purge
from cli.train import _clear_up, attach, train
from deploy.commands import ports_of, process_names
from deploy.flower_control import FlowerControl, Node
from deploy.housekeeping import empty_superlink, tidy
from deploy.keeper import KEEPER
from deploy.layout import Layout
from deploy.residue import RunUnderWayError, residue_of
from reconsent.config import dump_consortium
from reconsent.errors import DeployError
from server.persistence import Enrolments, Ledger, Roster, StateDirectory, Withdrawals
from server.residues import purge_after, unpurged
from tests.deploy.test_residue import MARKER, crashed, files, without_messages
from tests.server.hospitals import consortium
from unlearning.withdrawal import WithdrawalState as S


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A deployment whose SuperLink still holds an update of a site whose withdrawal has completed."""
    layout = Layout(tmp_path / "state")
    with StateDirectory.open(layout.state, url="") as state:
        for number, site in enumerate(("north", "south")):
            Roster(state).enrol(site, number, "knee", 10, round=1)
        register = Withdrawals(state)
        record = register.file(["north"], reason="asked", requested_by="dpo", restrict=True)
        for step in (S.UNLEARNING, S.VERIFYING, S.PROPAGATING, S.COMPLETED):
            register.advance(record.id, step, note="")
    layout.superlink.mkdir(parents=True)
    without_messages(layout.database(insecure=False))
    crashed(layout.database(insecure=False))
    return layout


def left(layout: Layout) -> list[str]:
    """Sites of withdrawals since which the SuperLink was not emptied."""
    with StateDirectory.open(layout.state, url="", writable=False) as state:
        return [site for record in unpurged(state) for site in record.sites]


def under_way(layout: Layout) -> None:
    """Have the SuperLink's database say that a run is under way."""
    with closing(sqlite3.connect(layout.database(insecure=False))) as database, database:
        names = [row[1] for row in database.execute("PRAGMA table_info(task)") if row[3] or row[5]]
        values = ", ".join("1" for _ in names)
        database.execute(f"INSERT INTO task ({', '.join(names)}) VALUES ({values})")  # noqa: S608


def test_a_daily_purge_is_no_error_while_a_run_is_under_way(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --unless-running nothing is done and the status is 0; without it, it is an error."""
    monkeypatch.setattr("deploy.housekeeping.BUSY_SECONDS", 0.0)
    monkeypatch.setattr(empty_superlink, "__kwdefaults__", {"patience": 0.0, "stopped": False})
    under_way(layout)
    with pytest.raises(RunUnderWayError, match="A run is under way"):
        purge(layout.state)
    purge(layout.state, unless_running=True)
    assert "nothing was done" in capsys.readouterr().err
    assert MARKER[:16] in files(layout.database(insecure=False))


def test_a_purge_can_go_on_day_by_day(layout: Layout) -> None:
    """A real process does it at once and again, says what goes wrong, and ends when it is told to."""
    program = "import sys; from cli.main import main; main(sys.argv[1:])"
    options = ["purge", "--every", "0.0001", "--state", str(layout.state)]
    command = [sys.executable, "-c", program, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        process.terminate()
        assert process.wait(60) == 0
    assert said[0].startswith("Removed ")
    assert said[1].startswith("There was nothing to remove")
    assert MARKER[:16] not in files(layout.database(insecure=False))


def test_a_purge_can_wait_before_the_first_time(layout: Layout) -> None:
    """A real process does nothing before its time has come, ends at once when told to, and then does it."""
    program = "import sys; from cli.main import main; main(sys.argv[1:])"
    options = ["--not-at-once", "--state", str(layout.state)]

    def started(hours: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, "purge", "--every", hours, *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with started("24") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.terminate()
        process.wait(60)
    assert MARKER[:16] in files(layout.database(insecure=False))
    with started("0.0001") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Removed ")
        process.terminate()
        assert process.wait(60) == 0


def test_a_consortium_on_this_machine_has_a_keeper_where_time_makes_updates_too_old() -> None:
    """Only with keep-days: what rounds make too old, the run removes."""
    sites = ["north"]
    for keep, there in (({}, False), ({"keep-rounds": 3}, False), ({"keep-days": 30}, True)):
        config = consortium(contributions=keep)
        assert (KEEPER in process_names(config, sites)) is there
    assert ports_of(KEEPER) == ()


def test_a_run_that_has_ended_leaves_nothing(layout: Layout) -> None:
    """At the end of a watched run the messages go, once; the ledger says how many there were."""
    deployment = Deployment(layout, FlowerControl(layout.flower_home), consortium())
    database = layout.database(insecure=False)
    assert left(layout) == ["north"]
    assert MARKER[:16] in files(database)
    for _ in range(2):
        _clear_up(deployment)
    assert MARKER[:16] not in files(database)
    assert left(layout) == []
    with StateDirectory.open(layout.state, url="", writable=False) as state:
        (entry,) = Ledger(state).entries(["messages-purged"])
        assert entry.body == {"objects": 3, "bytes": 3 * len(MARKER)}
        (record,) = Withdrawals(state).all()
        purge = purge_after(state, record)
        assert purge is not None
        assert purge.objects == 3


def test_a_key_that_a_run_revoked_is_unregistered(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of a cooperating site is revoked by the run, which cannot tell the SuperLink: who watches does,
    and says so if it is out of reach; the next one does it then.
    """  # noqa: D205 - one sentence
    with StateDirectory.open(layout.state, url="") as state:
        enrolments = Enrolments(state)
        enrolments.enrol("north", "a" * 64, by="test")
        enrolments.enrol("north", "a" * 64, node_id=7, by="test")
        enrolments.revoke("north", "withdrawal W-1")
    told: list[int] = []
    nodes = [Node(7, "online", "a" * 64, "north")]
    monkeypatch.setattr(FlowerControl, "list_nodes", lambda _: nodes)
    monkeypatch.setattr(FlowerControl, "unregister_node", refuse)
    deployment = Deployment(layout, FlowerControl(layout.flower_home), consortium())
    _clear_up(deployment)
    assert "still lets the revoked key of north connect" in capsys.readouterr().err
    monkeypatch.setattr(FlowerControl, "unregister_node", lambda _, node_id: told.append(node_id))
    for _ in range(2):
        _clear_up(deployment)
    assert told == [7]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [attach, partial(train, 1)], ids=["attach", "train"])
def test_who_comes_after_the_end_of_a_run_clears_up(
    layout: Layout, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`attach` says that no run is under way, `train` submits one; both remove the messages first."""
    layout.consortium.parent.mkdir(parents=True, exist_ok=True)
    layout.consortium.write_text(dump_consortium(consortium()))
    monkeypatch.setattr(FlowerControl, "list_runs", lambda _: [])  # as a SuperLink without a run says
    monkeypatch.setattr(FlowerControl, "submit_run", refuse)
    with pytest.raises(DeployError, match=r"No run is under way|refused here"):
        command(state=layout.state)
    assert MARKER[:16] not in files(layout.database(insecure=False))
    assert left(layout) == []


def refuse(*_: object) -> int:
    """A SuperLink that takes no run."""
    raise DeployError("The run was refused here.")


def test_what_cannot_be_emptied_is_told(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a run is under way, whoever watched is told whose updates are still there; nothing is on record."""
    monkeypatch.setattr("cli.train.END_SECONDS", 0.1)
    database = layout.database(insecure=False)
    with closing(sqlite3.connect(database)) as connection, connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(task)") if row[3] or row[5]]
        values = ", ".join("1" for _ in names)
        connection.execute(f"INSERT INTO task ({', '.join(names)}) VALUES ({values})")  # noqa: S608
    _clear_up(Deployment(layout, FlowerControl(layout.flower_home), consortium()))
    warned = capsys.readouterr().err
    assert "updates of north" in warned
    assert "reconsent purge" in warned
    assert left(layout) == ["north"]
    tidy(layout, consortium())  # the SuperLink does not run: what it calls unfinished has died with it
    assert residue_of(database).rows == 0
    assert left(layout) == []


def test_before_the_first_start_there_is_nothing(tmp_path: Path) -> None:
    """Without a SuperLink's database nothing is done, and nothing is put on record."""
    layout = Layout(tmp_path / "state")
    assert empty_superlink(layout).rows == 0
    assert not layout.state.exists()
