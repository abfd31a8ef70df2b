"""A real consortium whose state is in a real PostgreSQL: rounds, a server that is killed, a withdrawal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from deploy import processes
from reconsent.config import ConsortiumConfig, dump_consortium
from reconsent.environment import DATABASE_VARIABLE
from server.persistence.state import DATABASE
from tests.integration.operator_at_work import Operator
from tests.server.postgres import running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def beside_postgresql(
    config: ConsortiumConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Operator]:
    """Who operates a consortium that is up; skips where PostgreSQL is not installed."""
    (tmp_path / "consortium.toml").write_text(dump_consortium(config))
    with running_cluster() as url:
        monkeypatch.setenv(DATABASE_VARIABLE, url)
        typed = Operator(tmp_path / "state", url)
        try:
            typed("up", str(tmp_path / "consortium.toml"), "--insecure", "--no-metrics")
            yield typed
        finally:
            typed.local.down()
            assert processes.strays(str(typed.layout.root)) == []


def test_training_a_killed_server_and_a_withdrawal(beside_postgresql: Operator) -> None:
    """The run goes on where the ServerApp was killed, the site is unlearned, and no SQLite is there."""
    operator = beside_postgresql
    # Enough rounds that some are left when it is looked at, on a machine that is busy otherwise too.
    operator("train", "--rounds", "16", "--detach")
    operator.wait(lambda found: found["round"] >= 1)
    server_app = operator.server_app()
    server_app.kill()
    psutil.wait_procs([server_app], timeout=20)
    assert operator.status()["run"]["status"] == "interrupted"
    operator("resume")
    operator("withdraw", "knee", "--reason", "consent withdrawn", "--requested-by", "dpo@example.org")
    operator("unlearn")
    found = operator.status()
    assert found["run"]["status"] == "completed" and found["round"] == found["target"] == 16
    assert [(w["site"], w["state"]) for w in found["withdrawals"]] == [("knee", "completed")]
    assert found["model"]["forgotten"] == ["knee"]
    assert found["contributions"]["sites"] == ["abdomen", "brain"]
    engine = create_engine(operator.url)
    with engine.connect() as connection:
        counted = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608
            for table in ("rounds", "withdrawals", "sites", "ledger")
        }
    engine.dispose()
    assert counted["rounds"] == len(operator.records()) > 16
    assert counted["sites"] == 3 and counted["withdrawals"] == 1 and counted["ledger"] > 3
    assert not (operator.state / DATABASE).exists()
