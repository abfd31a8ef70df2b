"""How a request came in, in the console's forms."""

from __future__ import annotations

from cli.console.visits import Visit
from unlearning.intake import NAMES, Channel, IdentityCheck, Intake, RequesterRole


def intake_of(visit: Visit) -> Intake:
    """How the request came in, as a form says; what is left empty is not said.

    Raises
    ------
    WithdrawalError
        If a word is none of its list.
    """
    return Intake.read(**{name: visit.text(name) for name in NAMES})


def intake_choices() -> dict[str, list[tuple[str, str]]]:
    """The words of each list, with what they mean."""
    return {
        "channel": [(word.value, word.words) for word in Channel],
        "requester_role": [(word.value, word.words) for word in RequesterRole],
        "identity_check": [(word.value, word.words) for word in IdentityCheck],
    }
