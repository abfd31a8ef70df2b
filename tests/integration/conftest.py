"""One consortium of real processes for all tests that can share one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy import processes
from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from tests.integration.operator_at_work import Operator


@pytest.fixture(scope="session")
def config() -> ConsortiumConfig:
    """Three hospitals with one slice or two, of which nobody leaves by plan; a step a round.

    An unlearning takes so many rounds that commands can be given meanwhile.
    """
    tiny = load_consortium("tiny")
    training = tiny.training.model_copy(
        update={"local_steps": 1, "evaluate_every": 0, "join_seconds": 300.0, "timeout_seconds": 300.0}
    )
    unlearning = tiny.unlearning.model_copy(update={"rounds_fraction": 2 / 3})
    # Nothing is as old as that; but with it a process looks every day whether it is.
    kept = tiny.contributions.model_copy(update={"keep_days": 3650.0})
    changes = {"withdrawals": (), "training": training, "unlearning": unlearning, "contributions": kept}
    return tiny.model_copy(update=changes)


@pytest.fixture(scope="session")
def operator(config: ConsortiumConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Who operates a consortium that is up; the last test that uses it stops it."""
    directory = tmp_path_factory.mktemp("consortium")
    (directory / "consortium.toml").write_text(dump_consortium(config))
    typed = Operator(directory / "state")
    try:
        typed("up", str(directory / "consortium.toml"), "--no-metrics")
        yield typed
    finally:
        typed.local.down()
        assert processes.strays(str(typed.layout.root)) == []
