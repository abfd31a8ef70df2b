"""The console on a disk that is full."""

from __future__ import annotations

import shutil
from pathlib import Path

from server.persistence import StateDirectory, Withdrawals
from tests.cli.console.console_at_work import Visitor, entries, hidden_fields, serving, start, text_of
from tests.small_disk import fill, small_disk


def test_a_request_is_filed_when_there_is_room_again(trained: Path, tmp_path: Path) -> None:
    """Said on the page, nothing filed or on record, pages are read; the same confirmation files it later."""
    with small_disk(tmp_path / "disk", 8 * 2**20) as disk:
        shutil.copytree(trained, disk / "run")
        state = disk / "run" / "state"
        with serving(start(state)) as url:
            officer = Visitor(url)
            officer.log_in("officer")
            page = officer.file("delta")
            before = entries(state)
            filler = fill(disk)
            confirmation = hidden_fields(page.text, "/withdrawals")
            refused = officer.client.post("/withdrawals", data=confirmation)
            assert refused.status_code == 503
            assert "space" in text_of(refused), text_of(refused)
            officer.get("/")
            assert "File a withdrawal" in text_of(officer.get("/withdrawals/new"))
            filler.unlink()
            assert entries(state) == before
            with StateDirectory.open(state, url="", writable=False) as directory:
                assert Withdrawals(directory).all() == []
            officer.confirm(page)
            with StateDirectory.open(state, url="", writable=False) as directory:
                assert [record.sites for record in Withdrawals(directory).all()] == [("delta",)]
            assert "Every entry is as it was written" in text_of(
                officer.send("/ledger", "/ledger/verify", status=200)
            )
