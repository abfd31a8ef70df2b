"""What a server must find again after it was killed: one directory, one database, files beside it."""

from server.persistence.certificates import Certificates, KeptCertificate
from server.persistence.console_users import ConsoleUser, ConsoleUsers, Role
from server.persistence.desk import PrivacyDesk
from server.persistence.enrolments import Enrolment, Enrolments
from server.persistence.exports import Export, Exports
from server.persistence.ledger import Ledger
from server.persistence.progress import RunProgress
from server.persistence.registry import ModelRegistry
from server.persistence.roster import Roster, RosterEntry, SiteStatus
from server.persistence.round_records import RoundCost, RoundRecord, SiteOutcome
from server.persistence.rounds import RoundLog
from server.persistence.run_events import RunEvent, RunEvents
from server.persistence.state import StateDirectory
from server.persistence.versions import ModelVersion, RoundSpan, VersionStatus
from server.persistence.withdrawal_acts import WithdrawalAct, WithdrawalActs
from server.persistence.withdrawal_records import WithdrawalEvent, WithdrawalRecord
from server.persistence.withdrawals import Withdrawals

__all__ = [
    "Certificates",
    "ConsoleUser",
    "ConsoleUsers",
    "Enrolment",
    "Enrolments",
    "Export",
    "Exports",
    "KeptCertificate",
    "Ledger",
    "ModelRegistry",
    "ModelVersion",
    "PrivacyDesk",
    "Role",
    "Roster",
    "RosterEntry",
    "RoundCost",
    "RoundLog",
    "RoundRecord",
    "RoundSpan",
    "RunEvent",
    "RunEvents",
    "RunProgress",
    "SiteOutcome",
    "SiteStatus",
    "StateDirectory",
    "VersionStatus",
    "WithdrawalAct",
    "WithdrawalActs",
    "WithdrawalEvent",
    "WithdrawalRecord",
    "Withdrawals",
]
