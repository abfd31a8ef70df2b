"""What may be said in a withdrawal request, and when it is due."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from reconsent.errors import WithdrawalError
from unlearning.request import (
    LONGEST_TEXT,
    MOST_PATIENTS,
    Ground,
    RequestDetails,
    attachment_of,
    checked_receipt,
    checked_text,
    time_zone,
)
from unlearning.withdrawal import deadline

NOW = dt.datetime(2027, 3, 1, tzinfo=dt.UTC)


def test_attachments_are_known_by_name_hash_and_size(tmp_path: Path) -> None:
    """The hash is that of the content; the directory is not kept."""
    file = tmp_path / "Brief an die Klinik é.pdf"
    file.write_bytes(b"abc")
    found = attachment_of(file)
    assert (found.name, found.bytes) == (file.name, 3)
    assert found.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", ["a\nb.pdf", "\x1b[2Jx", "fdp.\u202exe", "x\x7f", "\u200bx"])
def test_hostile_file_names_are_refused(tmp_path: Path, name: str) -> None:
    """Control characters, terminal escapes and reversed writing are refused, with the character named."""
    file = tmp_path / name
    file.write_bytes(b"x")
    with pytest.raises(WithdrawalError, match=r"character U\+[0-9A-F]{4}, which cannot be shown"):
        attachment_of(file)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A name of bytes that are no UTF-8 is refused rather than kept as something else."""
    path = os.fsencode(tmp_path) + b"/\xff.pdf"
    Path(os.fsdecode(path)).touch()
    with pytest.raises(WithdrawalError, match=r"U\+DCFF"):
        attachment_of(Path(os.fsdecode(path)))


def test_only_regular_readable_files_are_attached(tmp_path: Path) -> None:
    """A directory, a missing file and a pipe are refused; a pipe does not block."""
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "no regular"),
        (tmp_path / "pipe", "no regular"),
        (tmp_path / "x", "cannot be"),
    ):
        with pytest.raises(WithdrawalError, match=words):
            attachment_of(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  ", "is empty"),
        ("x" * (LONGEST_TEXT + 1), "at most 4000"),
        ("a\x00b", "U\\+0000"),
        ("a\rb", "U\\+000D"),
    ],
)
def test_texts_that_cannot_be_kept_are_refused(text: str, words: str) -> None:
    """Empty, endless, and with characters that cannot be shown."""
    with pytest.raises(WithdrawalError, match=words):
        checked_text(text, "The note")
    assert checked_text(" two\n\tlines ", "The note") == "two\n\tlines"


@pytest.mark.parametrize(
    ("received", "words"),
    [
        (NOW + dt.timedelta(seconds=1), "after now"),
        (NOW.replace(tzinfo=None), "no time zone"),
        (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))), "over 10 years"),
    ],
)
def test_impossible_times_of_receipt_are_refused(received: dt.datetime, words: str) -> None:
    """The future, a moment without a zone, and the year 1 are no times of receipt."""
    with pytest.raises(WithdrawalError, match=words):
        checked_receipt(received, NOW)


def test_details_are_checked_together() -> None:
    """Scope and number of patients must agree, the zone must exist, receipt is turned to UTC."""
    berlin = dt.datetime(2027, 2, 28, 23, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert RequestDetails(received_at=berlin).checked(NOW).received_at == berlin
    for wrong in (
        RequestDetails(scope="patients"),
        RequestDetails(patients=3),
        RequestDetails(scope="patients", patients=0),
        RequestDetails(zone="Europe/Atlantis"),
        RequestDetails(zone="../../etc/passwd"),
    ):
        with pytest.raises(WithdrawalError):
            wrong.checked(NOW)


def test_a_number_of_patients_that_cannot_be_kept_is_refused() -> None:
    """Up to the largest whole number of a database; more, as an identifier typed by mistake, is an error."""
    RequestDetails(scope="patients", patients=MOST_PATIENTS).checked(NOW)
    for many in (MOST_PATIENTS + 1, 10**20, 10**5000):
        with pytest.raises(WithdrawalError, match="number of patients is more than 2147483647"):
            RequestDetails(scope="patients", patients=many).checked(NOW)


def test_deadlines_keep_the_time_of_day_of_their_zone() -> None:
    """1 March, 00:30 in Berlin is due on 1 April, 00:30 there: in summer time, 22:30 UTC the day before."""
    berlin = time_zone("Europe/Berlin")
    received = dt.datetime(2027, 3, 1, 0, 30, tzinfo=berlin)
    due = deadline(received, zone=berlin)
    assert due == dt.datetime(2027, 3, 31, 22, 30, tzinfo=dt.UTC)
    assert deadline(received) == dt.datetime(2027, 3, 28, 23, 30, tzinfo=dt.UTC)


def test_every_ground_has_words() -> None:
    """No ground is without the article it rests on."""
    assert all(ground.words for ground in Ground)
