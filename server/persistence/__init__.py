"""What a server must find again after it was killed: one directory, one database, files beside it."""

from server.persistence.progress import RunProgress
from server.persistence.registry import ModelRegistry
from server.persistence.roster import Roster, RosterEntry, SiteStatus
from server.persistence.round_records import RoundCost, RoundRecord, SiteOutcome
from server.persistence.rounds import RoundLog
from server.persistence.state import StateDirectory, default_state_path
from server.persistence.versions import ModelVersion, RoundSpan, VersionStatus
from server.persistence.withdrawal_records import WithdrawalEvent, WithdrawalRecord
from server.persistence.withdrawals import Withdrawals

__all__ = [
    "ModelRegistry",
    "ModelVersion",
    "Roster",
    "RosterEntry",
    "RoundCost",
    "RoundLog",
    "RoundRecord",
    "RoundSpan",
    "RunProgress",
    "SiteOutcome",
    "SiteStatus",
    "StateDirectory",
    "VersionStatus",
    "WithdrawalEvent",
    "WithdrawalRecord",
    "Withdrawals",
    "default_state_path",
]
