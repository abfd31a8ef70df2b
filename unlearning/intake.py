"""How a request came in: its channel, the agreement it refers to, who asked, and how that was checked.

Each is optional: a request is never kept waiting for a form to be complete. What was left out is named in
its certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from reconsent.errors import WithdrawalError
from unlearning.described import Described

_Word = TypeVar("_Word", bound=Described)


class Channel(Described):
    """How a request came in."""

    LETTER = "letter", "by letter"
    EMAIL = "e-mail", "by e-mail"
    PHONE = "phone", "by telephone"
    IN_PERSON = "in-person", "in person"
    PORTAL = "portal", "through a portal"
    REGULATOR = "regulator", "through a supervisory authority"
    OTHER = "other", "in another way"


class RequesterRole(Described):
    """What whoever asks is to the site; no name."""

    SITE = "site", "the site itself"
    DATA_SUBJECT = "data-subject", "a data subject"
    REPRESENTATIVE = "representative", "a representative of the site or of data subjects"
    AUTHORITY = "authority", "a supervisory authority or a court"
    CONSORTIUM = "consortium", "another member of the consortium"
    OTHER = "other", "somebody else"


class IdentityCheck(Described):
    """How it was checked that the requester is who they say, and may speak for the site."""

    CALL_BACK = "call-back", "called back at a number that was on record before"
    KNOWN_CONTACT = "known-contact", "it came from a contact that was on record before"
    SIGNATURE = "signature", "a signature was compared or verified"
    DOCUMENT = "document", "a document that shows the authority was seen"
    LOGIN = "login", "an authenticated log-in"
    IN_PERSON = "in-person", "in person, with a proof of identity"
    OTHER = "other", "in another way"
    NOT_CHECKED = "not-checked", "it was not checked"


NAMES = {
    "channel": "how the request was received",
    "agreement": "the number of the agreement with the site",
    "requester_role": "what the requester is to the site",
    "identity_check": "how it was checked that the requester may speak for the site",
}
"""Of each fact, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What is on record of how a request came in; ``None`` where nobody has said it.

    Attributes
    ----------
    channel
        How it came.
    agreement
        Number of the agreement with the site; in the certificate, so no number of a person.
    requester_role
        What whoever asks is to the site.
    identity_check
        How identity and authority of the requester were checked.
    """

    channel: Channel | None = None
    agreement: str | None = None
    requester_role: RequesterRole | None = None
    identity_check: IdentityCheck | None = None

    @classmethod
    def read(
        cls,
        *,
        channel: str | None = None,
        agreement: str | None = None,
        requester_role: str | None = None,
        identity_check: str | None = None,
    ) -> Intake:
        """From words as somebody typed them, or as they are kept; an empty one is one that was left out.

        Raises
        ------
        WithdrawalError
            If a word is none of its list.
        """
        return cls(
            channel=_word(Channel, channel, "channel"),
            agreement=agreement or None,
            requester_role=_word(RequesterRole, requester_role, "role of the requester"),
            identity_check=_word(IdentityCheck, identity_check, "check of identity"),
        )

    @property
    def table(self) -> dict[str, str | None]:
        """Every fact by name; ``None`` where nobody has said it."""
        return {name: getattr(self, name) and str(getattr(self, name)) for name in NAMES}

    @property
    def stated(self) -> dict[str, str]:
        """What was said, by name."""
        return {name: value for name, value in self.table.items() if value is not None}

    @property
    def words(self) -> dict[str, str]:
        """What was said, by name, for a reader."""
        found = {name: getattr(self, name) for name in self.stated}
        return {name: value if name == "agreement" else value.words for name, value in found.items()}

    @property
    def closed_words(self) -> dict[str, str | bool]:
        """For the ledger, which outlives everything: words of closed lists; of a number that there is one."""
        return {name: True if name == "agreement" else value for name, value in self.stated.items()}

    @property
    def missing(self) -> tuple[str, ...]:
        """What nobody has said, in words."""
        return tuple(words for name, words in NAMES.items() if name not in self.stated)


def _word(kind: type[_Word], text: str | None, what: str) -> _Word | None:
    if not text:
        return None
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise WithdrawalError(f"There is no {what} {text[:80]!a}.", f"There are: {known}.") from None


NOTHING_SAID = Intake()
"""Of a request of which nobody has said how it came in."""
