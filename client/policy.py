"""A site's own policy: what the server may ask of it, whatever the server says.

The file is the hospital's. It is read anew for every message, so an edit takes effect at once, also in the
middle of a run; and a policy that is named but missing or malformed forbids everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from client.settings_file import read_settings
from reconsent.config import Settings
from reconsent.privacy import PrivacyUnit

POLICY_VARIABLE = "RECONSENT_SITE_POLICY"
USUAL_DELTA = 1e-5
"""Largest δ of a site that limits ε and says nothing of δ: at a δ near 1 any ε is empty."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class SitePolicy(Settings):
    """What a site allows. Without a policy file everything is allowed, as in a simulation."""

    withdrawn: bool = Field(default=False, description="refuse every message; the operator is told why")
    may_train: bool = Field(default=True, description="train on this site's data, in any kind of round")
    may_be_evaluated: bool = Field(default=True, description="measure models on this site's data")
    withdrawn_patients: tuple[str, ...] = Field(
        default=(),
        description="pseudonyms of patients who withdrew while the site stays: nothing is trained or tested "
        "on them from now on, but what unlearns them",
    )
    max_rounds_a_day: int | None = Field(
        default=None, ge=0, description="most trainings in 24 hours, counted in the site's log; empty: any"
    )
    max_epsilon: float | None = Field(
        default=None, gt=0, description="most ε this site spends on one patient; empty: as agreed"
    )
    unit: PrivacyUnit = Field(
        default="patient", description="whom max-epsilon is about; slice is weaker, and also accepts patient"
    )
    max_site_epsilon: float | None = Field(
        default=None, gt=0, description="most ε it spends as a whole; empty: as agreed"
    )
    trust_server: bool = Field(
        default=False, description="max-site-epsilon also holds where the server adds the noise"
    )
    max_delta: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="largest δ at which ε may be told; empty: 1e-5 where there is a limit on ε",
    )
    ledger_key: Sha256 | None = Field(
        default=None,
        description="fingerprint of the key the server's ledger is signed with; empty: the first",
    )
    trusted_code: tuple[Sha256, ...] = Field(
        default=(), description="digests of the code that may run here; empty: any"
    )

    @property
    def most_delta(self) -> float | None:
        """Largest δ at which the site trains; ``None`` if it does not care."""
        if self.max_delta is not None:
            return self.max_delta
        return None if self.max_epsilon is None and self.max_site_epsilon is None else USUAL_DELTA


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is not worked.

    Attributes
    ----------
    code
        Stable, for programs: ``withdrawn``, ``not-allowed``, ``untrusted-code``, ``too-many-rounds``,
        ``policy-unreadable``, ``log-unwritable``, ``budget-spent``, or of the ledger (see
        :class:`client.witness.Witness`) ``ledger-missing``, ``ledger-key``, ``ledger-other``,
        ``ledger-shorter``, ``ledger-forked``, ``ledger-unproven``, ``witness-unreadable`` or
        ``witness-unwritable``.
    sentence
        The same for people; it names no path and no patient.
    """

    code: str
    sentence: str


UNREADABLE = Refusal(
    "policy-unreadable", "The site's policy file is missing or malformed, so nothing is allowed."
)
UNLOGGED = Refusal("log-unwritable", "The site's log cannot be written, and no work goes unlogged.")


def policy_path(node_config: Mapping[str, object], environment: Mapping[str, str]) -> Path | None:
    """Where the site's policy is: ``RECONSENT_SITE_POLICY``, or ``policy`` of its node configuration.

    Both are set at the site. The run configuration, which the server sends, is never asked.
    """
    named = environment.get(POLICY_VARIABLE) or node_config.get("policy")
    return Path(str(named)) if named else None


def current_policy(
    node_config: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> SitePolicy:
    """The policy as it is on the disk now.

    Raises
    ------
    ConfigError
        If a file is named and is missing or malformed: nothing is allowed then.
    """
    path = policy_path(node_config, environment)
    return SitePolicy() if path is None else read_settings(path, SitePolicy, "policy")


def refusal_of(
    policy: SitePolicy,
    message_type: str,
    *,
    code: Callable[[], str],
    trained_today: Callable[[], int | None],
) -> Refusal | None:
    """Why the policy forbids a message; ``None`` if it does not.

    Parameters
    ----------
    policy
        The site's.
    message_type
        Flower's, such as ``train`` or ``query.identify``; what is not known is judged by the part before
        the dot, and an unknown part is refused.
    code
        Gives the digest of the running code; asked only if the policy names digests.
    trained_today
        Gives the number of trainings in the last 24 hours, ``None`` if there is no log to count in; asked
        only if the policy has a limit.
    """
    if policy.withdrawn:
        return Refusal("withdrawn", "This site has withdrawn; it takes no further part.")
    if policy.trusted_code and code() not in policy.trusted_code:
        return Refusal("untrusted-code", f"This site has not accepted the code with digest {code()}.")
    kind = message_type.partition(".")[0]
    if kind not in ("train", "evaluate", "query"):
        return Refusal("not-allowed", "This site knows no such kind of message.")
    if kind == "evaluate" and not policy.may_be_evaluated:
        return Refusal("not-allowed", "This site does not let models be evaluated on its data.")
    if kind == "train":
        return _refusal_of_training(policy, trained_today)
    return None


def _refusal_of_training(policy: SitePolicy, trained_today: Callable[[], int | None]) -> Refusal | None:
    if not policy.may_train:
        return Refusal("not-allowed", "This site does not train.")
    limit = policy.max_rounds_a_day
    if limit is None:
        return None
    done = trained_today()
    if done is None:
        return Refusal("log-unwritable", "This site limits its rounds a day but keeps no log to count in.")
    if done >= limit:
        return Refusal("too-many-rounds", f"This site trains at most {limit} rounds in 24 hours.")
    return None
