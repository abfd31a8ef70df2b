"""The pages for operators name commands and files that exist."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from reconsent.config import load_consortium
from server.persistence.state import DATABASE
from tests.deploy.deployment_files import DEPLOY, ROOT, parse_command, reconsent_lines

PAGES = [ROOT / "docs" / "operations.md", ROOT / "docs" / "threat-model.md"]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_command_in_a_block_is_one() -> None:
    """Each `reconsent` line can be parsed as it stands: command, options, and what must be given."""
    lines = reconsent_lines(read(PAGES[0]))
    assert len(lines) > 15
    for words in lines:
        parse_command(words)


def test_a_wrong_command_is_found() -> None:
    """The check above can fail."""
    for words in (["trian"], ["train"], ["train", "--rouns", "3"], ["site", "add", "north"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing"):
            parse_command(words)


def test_the_life_of_a_consortium_is_told_whole() -> None:
    """From certificates to withdrawal and resuming, no command that an operator needs is left out."""
    text = read(PAGES[0])
    for command in (
        "certs make",
        "certs renew",
        "server run",
        "site key",
        "site run",
        "site add",
        "site readmit",
        "site replace-key",
        "train",
        "attach",
        "withdraw",
        "unlearn",
        "resume",
        "status",
        "model export",
        "backup",
        "restore",
        "purge",
        "keys rotate",
        "up",
    ):
        assert f"reconsent {command}" in text, command


def test_names_of_the_walk_through_are_those_of_the_example() -> None:
    """The hospitals of the page are those of the example consortium, and files keep their names."""
    text = read(PAGES[0])
    for site in load_consortium(DEPLOY / "compose" / "consortium.toml").sites:
        assert f"reconsent site add {site.name} " in text
    assert f"`{DATABASE}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    """A link to a part of a page has a heading there."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", read(page)):
        other = read(page.parent / target if target else page)
        headings = re.findall(r"^#+ (.+)$", other, flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors, (target, anchor)


def test_the_statements_against_residue_leave_none(tmp_path: Path) -> None:
    """After the statements of the page, in their order, nothing of a deleted message is in the files."""
    (text,) = re.findall(r'state\.db" \\\n\s+"([^"]+)"', read(PAGES[0]))
    marker = b"an update of the withdrawn site" * 400
    database = tmp_path / "state.db"

    def residue() -> list[str]:
        return [path.name for path in tmp_path.iterdir() if marker[:31] in path.read_bytes()]

    with sqlite3.connect(database, isolation_level=None) as connection:
        for statement in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=OFF"):
            connection.execute(f"PRAGMA {statement}")
        for table in ("objects", "message_ins", "message_res"):
            connection.execute(f"CREATE TABLE {table} (content BLOB)")
        connection.execute("INSERT INTO objects VALUES (?)", (marker,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("DELETE FROM objects")
        assert residue()
        *first, last = (part.strip() for part in text.split(";") if part.strip())
        for statement in first:
            connection.execute(statement).fetchall()
        assert residue(), "the last statement would not be needed"
        connection.execute(last).fetchall()
        assert not residue()
    connection.close()


def test_the_readme_leads_to_the_pages() -> None:
    """Both are in the README's list."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"(docs/{page.name})" in readme
