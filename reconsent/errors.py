"""The one tree of errors.

::

    ReconsentError
    ├── ConfigError            a consortium file, an option or a setting is wrong
    ├── DataError              a file or directory with MR data cannot be used
    ├── ModelError             a reconstructor cannot be built, or cannot take this input
    ├── ContributionError      the contribution cache is missing, altered or truncated
    ├── EncryptionError        a key of the contributions is missing or wrong
    ├── StateError             the state directory cannot be used
    ├── SiteError              a site is unknown, barred, or contradicts the roster
    │   └── BarredError        a site was barred while a round with its update was running
    ├── GuardError             a message was addressed to a node that must not be asked
    ├── WithdrawalError        a withdrawal cannot be accepted or carried on
    ├── RoundError             a round cannot be completed
    │   └── TooFewRepliesError a round got fewer usable replies than it needs (strategies/outcomes.py)
    ├── PrivacyError           a guarantee of differential privacy cannot be kept
    ├── SignatureError         a key cannot be used, or a signature does not hold
    ├── LedgerError            the ledger, or a checkpoint of it, does not hold
    └── DeployError            a process, certificate or key of a deployment cannot be used
        └── RunUnderWayError   what must wait until no run is under way (deploy/residue.py)

A message says what is wrong, where (file, site, round), and what to do.
"""

from __future__ import annotations


class ReconsentError(Exception):
    """Base of every error a user can cause.

    Parameters
    ----------
    problem
        What is wrong and where.
    remedy
        What to do about it; printed after the problem.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())


class ConfigError(ReconsentError):
    """A consortium file, an option or a setting is wrong."""


class DataError(ReconsentError):
    """A file or directory with MR data cannot be used."""


class ModelError(ReconsentError):
    """A reconstructor cannot be built, or cannot take this input."""


class ContributionError(ReconsentError):
    """The contribution cache is missing, altered or truncated."""


class EncryptionError(ReconsentError):
    """A key of the contributions is missing or wrong."""


class StateError(ReconsentError):
    """The state directory cannot be used."""


class SiteError(ReconsentError):
    """A site is unknown, barred, or contradicts the roster."""


class BarredError(SiteError):
    """A site was barred while a round with its update was running; the round is to be done again."""


class GuardError(ReconsentError):
    """A message was addressed to a node that must not be asked: a fault of the program, never repeated."""


class WithdrawalError(ReconsentError):
    """A withdrawal cannot be accepted or carried on."""


class RoundError(ReconsentError):
    """A round cannot be completed."""


class PrivacyError(ReconsentError):
    """A guarantee of differential privacy cannot be kept."""


class SignatureError(ReconsentError):
    """A key cannot be used, or a signature does not hold."""


class LedgerError(ReconsentError):
    """The ledger, or a checkpoint of it, does not hold."""


class DeployError(ReconsentError):
    """A process, certificate or key of a deployment cannot be used."""
