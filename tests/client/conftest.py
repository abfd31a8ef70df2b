"""Hospitals for the tests of the client."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import ArrayRecord

from tests.client.hospital import Hospital


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """A hospital without a policy or a log."""
    for name in ("CONSORTIUM", "PHANTOMS", "STATE", "SITE_POLICY", "SITE_LOG", "PRIVACY_LEDGERS", "DEVICE"):
        monkeypatch.delenv(f"RECONSENT_{name}", raising=False)
    return Hospital.built(tmp_path)


@pytest.fixture
def model(hospital: Hospital) -> ArrayRecord:
    """The untrained model, from the site itself."""
    reply = hospital.ask("query.initialise")
    return reply.content.array_records["arrays"]
