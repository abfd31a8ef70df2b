"""What a withdrawal request says: its ground, its scope, and whatever text or file comes with it."""

from __future__ import annotations

import datetime as dt
import hashlib
import stat
import unicodedata
import zoneinfo
from dataclasses import dataclass, replace
from pathlib import Path

from reconsent.errors import WithdrawalError
from unlearning.described import Described
from unlearning.intake import NOTHING_SAID, Intake

LONGEST_TEXT = 4000
"""Characters of a reason or note."""
LONGEST_NAME = 255
"""Characters of a person's name or address, bytes of a file's name."""
LONGEST_NUMBER = 128
"""Bytes of the number of a request or of an agreement."""
PATIENTS_ONLY = "patients-only"
"""Scope of a request after which the site stays, without the patients who asked."""
MOST_PATIENTS = 2**31 - 1
"""Patients of a site that a request may be about: what every database keeps."""
OLDEST_YEARS = 10
"""A request is not received longer ago than that: more likely a mistyped year."""


class Ground(Described):
    """Why somebody withdraws."""

    CONSENT_WITHDRAWN = (
        "consent-withdrawn",
        "consent was withdrawn (GDPR Art. 7(3), 17(1)(b); HIPAA 164.508(b)(5))",
    )
    NO_LONGER_NECESSARY = "no-longer-necessary", "the data are no longer necessary (GDPR Art. 17(1)(a))"
    OBJECTION = "objection", "objection to the processing (GDPR Art. 17(1)(c), 21)"
    UNLAWFUL = "unlawful", "the data were processed unlawfully (GDPR Art. 17(1)(d))"
    LEGAL_OBLIGATION = "legal-obligation", "a legal obligation to erase (GDPR Art. 17(1)(e))"
    CONTRACT_ENDED = "contract-ended", "the contract ended (GDPR Art. 28(3)(g); HIPAA 164.504(e)(2)(ii)(J))"
    REGULATOR = "regulator", "order of a supervisory authority (GDPR Art. 58(2)(g))"
    DATA_SUBJECTS = "data-subjects", "requests of data subjects, handed on by the site (GDPR Art. 17)"
    OPT_OUT = "opt-out", "opt-out from secondary use (Regulation (EU) 2025/327, Art. 71)"
    UNSTATED = "unstated", "not stated"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document that belongs to a withdrawal, known by its hash; the document itself is not kept.

    Attributes
    ----------
    name
        The file's name without its directory.
    sha256
        Of its content, hexadecimal.
    bytes
        Its size.
    """

    name: str
    sha256: str
    bytes: int


def attachment_of(path: Path) -> Attachment:
    """Hash a file.

    Raises
    ------
    WithdrawalError
        If it is no regular file, cannot be read, or has a name that could deceive whoever reads it.
    """
    name = checked_text(path.name, "The name of the attached file", longest=LONGEST_NAME, lines=False)
    digest, size = hashlib.sha256(), 0
    try:
        # Asked before it is opened: opening a named pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise WithdrawalError(f"{path} is no regular file.", "Attach a document.")
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise WithdrawalError(
            f"The attachment {path} cannot be read: {error.strerror}.", "Check the path."
        ) from None
    return Attachment(name, digest.hexdigest(), size)


def checked_text(text: str, what: str, *, longest: int = LONGEST_TEXT, lines: bool = True) -> str:
    """``text`` without blanks around it, if it can be shown to people as it is.

    Parameters
    ----------
    text
        What somebody typed.
    what
        What it is, for the message; begins it.
    longest
        Most characters, and for one line most bytes.
    lines
        Whether it may have several lines.

    Raises
    ------
    WithdrawalError
        If it is empty or too long, or holds characters that control a terminal, turn the direction of
        writing, or are no characters at all: a record must read the same to everybody.
    """
    trimmed = text.strip()
    if not trimmed:
        raise WithdrawalError(f"{what} is empty.", "Say it in words.")
    allowed = {"\n", "\t"} if lines else set()
    for character in trimmed:
        if unicodedata.category(character)[0] == "C" and character not in allowed:
            raise WithdrawalError(
                f"{what} holds the character U+{ord(character):04X}, which cannot be shown.",
                "Remove it; for a file, rename it.",
            )
    size = len(trimmed) if lines else len(trimmed.encode())
    if size > longest:
        raise WithdrawalError(f"{what} is {size} long; at most {longest} is kept.", "Shorten it.")
    return trimmed


def checked_intake(intake: Intake) -> Intake:
    """``intake`` with the number of the agreement trimmed.

    Raises
    ------
    WithdrawalError
        As of :func:`checked_text`.
    """
    if intake.agreement is None:
        return intake
    what = "The number of the agreement"
    number = checked_text(intake.agreement, what, longest=LONGEST_NUMBER, lines=False)
    return replace(intake, agreement=number)


def checked_receipt(received: dt.datetime, now: dt.datetime) -> dt.datetime:
    """``received`` in UTC, if a request can have been received then.

    Raises
    ------
    WithdrawalError
        If it has no time zone, lies in the future, or more than :data:`OLDEST_YEARS` years back.
    """
    if received.tzinfo is None:
        raise WithdrawalError(f"{received} has no time zone.", "Write it as 2027-01-31T09:30+01:00.")
    try:
        moment = received.astimezone(dt.UTC)
    except OverflowError:
        moment = dt.datetime.min.replace(tzinfo=dt.UTC)
    if moment > now:
        raise WithdrawalError(
            f"The request was received at {received.isoformat()}, which is after now ({now.isoformat()}).",
            "Correct --received-at, or this machine's clock.",
        )
    if now.year - moment.year > OLDEST_YEARS:
        raise WithdrawalError(
            f"The request was received at {received.isoformat()}, over {OLDEST_YEARS} years ago.",
            "Correct --received-at.",
        )
    return moment


def time_zone(name: str) -> dt.tzinfo:
    """The time zone called ``name``, as ``Europe/Berlin``.

    Raises
    ------
    WithdrawalError
        If there is none.
    """
    if name == "UTC":
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise WithdrawalError(
            f"There is no time zone '{name}' on this machine.",
            "Name one as Europe/Berlin; where the system has none at all, install the package tzdata.",
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDetails:
    """What is known of a request beyond who leaves and why.

    Attributes
    ----------
    ground
        On which it rests.
    scope, patients
        ``site``: everything the site contributed. ``patients``: that of so many of its patients, who are
        taken out with the whole site; it may come back afterwards with the data of the others.
        ``patients-only``: that of so many patients, whose site knows them and stays.
    received_at
        When it reached whoever is responsible; ``None`` for now. The period for the answer begins here.
    zone
        Time zone in which the period is counted.
    owner
        Who attends to it.
    request_id
        The requester's own number for it: what arrives twice under one number is one request.
    intake
        How it came in.
    """

    ground: Ground = Ground.UNSTATED
    scope: str = "site"
    patients: int | None = None
    received_at: dt.datetime | None = None
    zone: str = "UTC"
    owner: str | None = None
    request_id: str | None = None
    intake: Intake = NOTHING_SAID

    def checked(self, now: dt.datetime) -> RequestDetails:
        """The same with trimmed texts and a moment in UTC.

        Raises
        ------
        WithdrawalError
            If a part of it cannot be right.
        """
        if (self.scope in ("patients", PATIENTS_ONLY)) != (self.patients is not None) or (
            self.patients is not None and self.patients < 1
        ):
            raise WithdrawalError(
                f"The scope is '{self.scope}' with {self.patients} patients.",
                "Name a number of patients, 1 or more, or none for the whole site.",
            )
        if self.patients is not None and self.patients > MOST_PATIENTS:
            raise WithdrawalError(
                f"The number of patients is more than {MOST_PATIENTS}.",
                "Say how many patients of the site ask; never an identifier.",
            )
        time_zone(self.zone)
        return replace(
            self,
            received_at=None if self.received_at is None else checked_receipt(self.received_at, now),
            owner=None
            if self.owner is None
            else checked_text(self.owner, "The owner", longest=LONGEST_NAME, lines=False),
            request_id=None
            if self.request_id is None
            else checked_text(
                self.request_id, "The number of the request", longest=LONGEST_NUMBER, lines=False
            ),
            intake=checked_intake(self.intake),
        )
