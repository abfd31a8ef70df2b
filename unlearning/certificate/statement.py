"""What a certificate says: an in-toto Statement (https://in-toto.io/Statement/v1) about model files."""

from __future__ import annotations

import json
import unicodedata
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from reconsent.errors import SignatureError
from unlearning.certificate.claim import ClaimLevel
from unlearning.certificate.evidence import About

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:reconsent:erasure-certificate:v1"
SIMULATION = "SIMULATION: not evidence"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FILE = r"([a-z]{1,20}/)?[a-z0-9][a-z0-9-]{0,60}(\.[a-z0-9]{1,8}){1,2}"
FileName = Annotated[str, Field(pattern=rf"^({_FILE}|MANIFEST\.json|VERIFY\.md)$")]
"""Of a file in the bundle, at most one directory down: it can lead nowhere else."""
Count = Annotated[int, Field(ge=0)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z_-]{0,15}$")]
Words = Annotated[str, Field(pattern=r"\S")]
Outcome = Literal["granted", "granted_in_part", "refused", "cancelled", "legal_hold", "pending"]


class Part(BaseModel):
    """Base of every part: frozen, no unknown fields, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Consortium(Part):
    """Who issues it."""

    name: str
    ledger: str | None = Field(description="id of its ledger, drawn when it began")
    controller: str = Field(description="who answers for the processing")
    privacy_officer: str = Field(description="whom to ask")


class Request(Part):
    """What was asked for; without names of people."""

    id: str
    ground: str
    ground_words: str
    scope: Literal["site", "patients"]
    patients: Count | None
    time_zone: str
    received_at: AwareDatetime
    filed_at: AwareDatetime
    due_at: AwareDatetime
    extended_at: AwareDatetime | None
    restricted_at: AwareDatetime | None
    closed_at: AwareDatetime | None
    late: bool
    documents: tuple[Digest, ...] = Field(description="SHA-256 of the documents on record")
    held_until: date | None = Field(
        default=None, description="day on which a legal hold shall be looked at again"
    )
    # Certificates of earlier releases do not have these.
    channel: Word | None = Field(default=None, description="how it came in")
    agreement: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="number of the agreement with the site"
    )
    requester_role: Word | None = Field(default=None, description="what the requester is to the site")
    identity_check: Word | None = Field(default=None, description="how the requester's authority was checked")
    words: dict[Word, str] = Field(default_factory=dict, description="the four above, for a reader")
    not_recorded: tuple[str, ...] = Field(default=(), description="which of them nobody has put on record")


class Site(Part):
    """Who left."""

    pseudonym: str = Field(description="HMAC of its name with a secret of the consortium")
    key_fingerprints: tuple[str, ...] = Field(description="of the keys it spoke with")
    identity: Literal["authenticated", "self-declared", "simulated"]
    first_round: int | None
    last_round: int | None
    rounds: Count = Field(description="rounds in which an update of it was averaged")


class Decision(Part):
    """A step or decision, with its reason."""

    at: AwareDatetime
    what: str
    reason: str


class Bound(Part):
    """Of a certified removal: without it the level says nothing."""

    epsilon: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(ge=0, lt=1)]
    mechanism: Words = Field(description="whose bound it is")
    assumptions: Words = Field(description="under which it holds")
    accountant: Words = Field(description="what computed it, with its version")


class Model(Part):
    """A model version."""

    version: str
    round: int
    sha256: Digest = Field(description="of the arrays: names, types, shapes and values")


class Lineage(Part):
    """How the new model came about."""

    versions: Count = Field(description="from the initial model to the new one")
    edges: Count = Field(description="of them, made with an update of the site")
    method_reads_history: bool = Field(description="the method used updates computed before the withdrawal")


class Method(Part):
    """What was done, as fixed before it began."""

    name: str
    settings: dict[str, JsonValue]
    fixed_at: AwareDatetime
    policy_sha256: Digest = Field(description="of the canonical JSON of what was fixed: policy.json")
    reconsent: str
    code_sha256: Digest = Field(description="of the source files that ran")
    packages: dict[str, str]
    # Certificates of earlier releases do not have these.
    git_commit: str = Field(default="", description="of the checkout that ran, or that it is not recorded")
    fab_sha256: str = Field(default="", description="of the bundle that Flower shipped, or the same")


class Interval(Part):
    """Percentile bootstrap over patients: chance in their choice, not in the training."""

    low: float
    high: float
    level: float = Field(description="confidence, 0 to 1")
    patients: Count


class EvidenceItem(Part):
    """A measurement, and the limit that was fixed for it beforehand."""

    name: str
    about: About
    value: float | None = Field(description="null if it was not a number")
    unit: str
    before: float | None = Field(description="the same of the model before")
    limit_low: float | None
    limit_high: float | None
    passed: bool
    words: str
    limits: str = Field(description="what it cannot show")
    # Certificates of earlier releases do not have these.
    interval: Interval | None = Field(default=None, description="of the value; the limit is for the value")
    uncertainty: str = Field(default="", description="the interval in words, or why there is none")


class Erasure(Part):
    """What was erased."""

    contributions: Count
    bytes: Count
    list_sha256: Digest = Field(description="of residuals.json, which lists them")
    remaining: Count
    how: str


class Recipients(Part):
    """Who had received the models (GDPR Art. 19)."""

    total: Count
    notified: Count
    pending: Count


class LedgerPosition(Part):
    """Where the ledger stood, and the entry of this withdrawal's last step in it."""

    size: Count
    root: Digest
    entry: Count
    entry_content: str
    inclusion: tuple[Digest, ...]


class Signers(Part):
    """Ids of the two keys that must have signed."""

    operator: Digest
    privacy_officer: Digest


class Superseded(Part):
    """The certificate of the same withdrawal that was issued before."""

    certificate_id: str
    issued_at: AwareDatetime
    payload_sha256: Digest = Field(description="of what was signed")


class Certificate(Part):
    """The predicate: the claim first, then what it rests on."""

    claim_level: ClaimLevel
    claim: str
    claim_reasons: tuple[str, ...]
    simulation: bool
    notice: str
    outcome: Outcome
    certificate_id: str
    issued_at: AwareDatetime
    consortium: Consortium
    request: Request
    sites: tuple[Site, ...]
    decisions: tuple[Decision, ...]
    model_before: Model | None
    model_after: Model | None
    lineage: Lineage | None
    method: Method | None
    evidence: tuple[EvidenceItem, ...]
    not_shown: tuple[str, ...]
    erasure: Erasure | None
    revoked: tuple[Model, ...]
    recipients: Recipients
    ledger: LedgerPosition | None
    exceptions: tuple[str, ...] = Field(description="what is left, and why")
    environment: dict[str, str]
    files: dict[FileName, Digest] = Field(description="of the bundle, by name")
    signers: Signers
    # The first certificate of a withdrawal, and those of earlier releases, do not have it.
    supersedes: Superseded | None = Field(default=None, description="the one it takes the place of")
    # Where no bound was computed it is not there.
    bound: Bound | None = Field(default=None, description="of certified_eps_delta, and of no other level")

    @model_validator(mode="after")
    def _bound_with_its_claim(self) -> Self:
        if (self.claim_level is ClaimLevel.CERTIFIED) != (self.bound is not None):
            raise ValueError(
                f"{self.claim_level.value} and a bound of removal go together, or neither is there"
            )
        return self


def payload_of(certificate: Certificate) -> bytes:
    """The statement's bytes: what is signed. Its subjects are the model after, or those that are revoked."""
    models = [certificate.model_after] if certificate.model_after else list(certificate.revoked)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"model {m.version}", "digest": {"sha256": m.sha256}} for m in models],
        "predicateType": PREDICATE_TYPE,
        # What an earlier release did not write stays away, so that its certificates keep their bytes.
        "predicate": certificate.model_dump(mode="json", exclude_unset=True),
    }
    text = json.dumps(statement, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def read_payload(payload: bytes) -> Certificate:
    """The certificate in a statement.

    Raises
    ------
    SignatureError
        If it is not one of this release's layout, subjects and content contradict each other, or it holds
        characters that would deceive whoever reads it.
    """
    try:
        statement: dict[str, Any] = json.loads(payload)
        _check_shown(statement)
        if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise SignatureError(
                f"This is a statement of type '{statement['predicateType']}', not a certificate of erasure.",
                "Give the right file.",
            )
        certificate = Certificate.model_validate(statement["predicate"])
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise SignatureError(
            f"The file was altered, or is no certificate of this release ({ascii(problem)[1:-1]}).",
            "Get the file again.",
        ) from None
    if payload_of(certificate) != payload:
        raise SignatureError("The statement is not in the form in which certificates are signed.")
    if (certificate.notice == SIMULATION) != certificate.simulation:
        raise SignatureError("The certificate does not say what kind of run it is about.")
    return certificate


def _check_shown(value: object) -> None:
    """Refuse texts that control a terminal or turn the direction of writing: all must read the same in it."""
    if isinstance(value, str):
        for character in value:
            if unicodedata.category(character)[0] == "C" and character not in "\n\t":
                raise SignatureError(
                    f"The certificate holds the character U+{ord(character):04X}, which cannot be shown.",
                    "If you issue it: remove the character from the figures. Else do not trust who did.",
                )
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_shown(key)
            _check_shown(item)
    elif isinstance(value, list):
        for item in value:
            _check_shown(item)
