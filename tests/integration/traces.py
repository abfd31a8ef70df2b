"""Bytes of a site's update as Flower's SuperLink holds them, to be looked for in every file."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress

from tests.integration.operator_at_work import Operator

REPLY = """
    WITH RECURSIVE part(id) AS (
        SELECT message_id FROM message_res WHERE src_node_id = ?
        UNION SELECT child_id FROM object_children JOIN part ON parent_id = id
    )
    SELECT content FROM objects JOIN part ON object_id = id ORDER BY length(content) DESC LIMIT 1
"""
LEAST_BYTES = 10_000
"""A reply with a model is larger, and no other is."""
PIECES, PIECE_BYTES = 12, 480
"""Of 120 parameters each: Adam's first step moves each by the learning rate, up or down, so that of a dozen
in a row an average over sites can be the same as one site's.
"""


def pieces_of_an_update(operator: Operator, site: str) -> list[bytes]:
    """Pieces of an update of ``site`` that are in the SuperLink's files now; its pages divide some others.

    The ServerApp is held meanwhile, so that it does not fetch the reply, and goes on afterwards.
    """
    node = int(operator.site(site)["node_id"])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        held = operator.server_app()
        held.suspend()
        try:
            until = time.monotonic() + 8
            while time.monotonic() < until:
                update = _reply(operator, node)
                if len(update) >= LEAST_BYTES:
                    step = len(update) // (PIECES + 1)
                    pieces = [update[i * step :][:PIECE_BYTES] for i in range(1, PIECES + 1)]
                    there = found(operator, pieces)
                    assert len(there) > PIECES // 2, "what the database holds is in its files"
                    return list(there)
                time.sleep(0.1)
        finally:
            held.resume()
        time.sleep(0.5)  # It was held before the site was asked.
    raise AssertionError(f"no update of {site} has come")


def found(operator: Operator, pieces: list[bytes]) -> dict[bytes, list[str]]:
    """Those that are in files of the state directory, the SuperLink's among them, and in which."""
    where: dict[bytes, list[str]] = {}
    for path in sorted(operator.state.rglob("*")):
        if path.is_file():
            with suppress(FileNotFoundError):
                content = path.read_bytes()
                for piece in pieces:
                    if (at := content.find(piece)) >= 0:
                        where.setdefault(piece, []).append(f"{path} at {at} of {len(content)}")
    return where


def _reply(operator: Operator, node: int) -> bytes:
    signed = node - 2**64 if node >= 2**63 else node  # as SQLite has it
    with closing(sqlite3.connect(operator.layout.database(insecure=False), timeout=30)) as database:
        row = database.execute(REPLY, (signed,)).fetchone()
    return bytes(row[0]) if row and row[0] else b""
