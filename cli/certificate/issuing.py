"""Issues certificates and takes them back countersigned: for the command line, and for the console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.certificate.bundle import bundle_files, completed
from cli.certificate.figures import figures_of_file, figures_of_results
from cli.certificate.further import further_of_results
from cli.certificate.receipts import receipts_of
from cli.results import Results
from reconsent.config import ConsortiumConfig
from reconsent.errors import SignatureError
from reconsent.files import write_atomically
from server.certifying import Draft, Further, draft
from server.on_record import record_on
from server.persistence import (
    Certificates,
    KeptCertificate,
    Ledger,
    ModelRegistry,
    PrivacyDesk,
    StateDirectory,
    Withdrawals,
)
from server.persistence.ledger_entries import OFFICER_KEY, officer_body
from server.persistence.state import explaining_os_errors
from server.signing_terms import OFFICER, officer_in_force, signing_terms
from unlearning.certificate.evidence import Figure
from unlearning.certificate.pseudonym import load_or_create_secret
from unlearning.certificate.signed import SignedCertificate, read_unverified
from unlearning.certificate.signed import issue as sign
from unlearning.certificate.statement import Certificate, Signers
from unlearning.certificate.terms import verify_by_terms
from unlearning.signing import PublicKey

OPERATOR = "operator.pub"
"""Name under which the console hands out the public key of the operator."""
SECRET = "pseudonym.key"  # noqa: S105 - the name of a file
"""File in the state directory: the secret of the pseudonyms."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that the operator has signed.

    Attributes
    ----------
    draft, signed, operator
        What was assembled, that with the signature, and the key it was signed with.
    left_out
        Which figures are not in it, and why, in words; empty if none were left out.
    """

    draft: Draft
    signed: SignedCertificate
    operator: PublicKey
    left_out: str = ""


def issue_certificate(
    state: StateDirectory,
    consortium: ConsortiumConfig,
    withdrawal: str,
    *,
    officer: PublicKey,
    actor: str,
    evidence: Sequence[Path] = (),
    receipts: Sequence[Path] = (),
) -> Issued:
    """Assemble the certificate of a withdrawal, sign it as the operator, keep it, and put that on record.

    Parameters
    ----------
    state, consortium, withdrawal
        What it is about; open for writing, and the withdrawal's whole id.
    officer
        The key that will countersign.
    actor
        Who issues it.
    evidence
        Files with figures that were measured elsewhere.
    receipts
        Files that the sites signed (``reconsent site receipt``).

    Raises
    ------
    SignatureError
        If operator and officer have the same key, or a receipt is not one of these sites or contradicts the
        ledger.
    ConfigError
        If a file with figures is none, or the results beside the state are of another model.
    """
    operator = Ledger(state).signing_key()
    record = Withdrawals(state).get(withdrawal)
    after = record_on(state, record).after
    given = receipts_of(state, record, receipts)
    figures, further, left_out = _figures(state, evidence, None if after is None else after.digest)
    made = draft(
        state,
        consortium,
        record,
        signers=Signers(operator=operator.key_id, privacy_officer=officer.key_id),
        secret=load_or_create_secret(state.path / SECRET),
        figures=figures,
        further=further,
        witnessed=[r.checkpoint.size for r in given.receipts if r.checkpoint is not None],
    )
    made = completed(made, operator.public, officer, given.files)
    signed = sign(made.certificate, operator)
    with state.session() as session:
        id_ = made.certificate.certificate_id
        Certificates(state).keep(id_, record.id, signed.content, made.files, session=session)
        PrivacyDesk(state, actor).issued(record.id, id_, signed.content)
    return Issued(made, signed, operator.public, left_out)


def accept_countersigned(state: StateDirectory, content: bytes, *, actor: str) -> KeptCertificate:
    """Keep a certificate that came back from the privacy officer, if it is the one that was issued here.

    From then on it holds also when the officer's key is replaced: that it was signed before is on record.

    Raises
    ------
    SignatureError
        If it was not issued here, was altered, a signature is missing or wrong, or a key is not in force any
        more.
    """
    certificate = verify_here(state, content)
    register = Certificates(state)
    kept = register.get(certificate.certificate_id)
    if kept is None or read_unverified(kept.content).certificate != certificate:
        raise SignatureError(
            f"The certificate {certificate.certificate_id} was not issued here.", "Give the one from here."
        )
    if kept.countersigned_at is not None:
        return kept
    with state.session() as session:
        register.countersigned(kept.id, content, session=session)
        PrivacyDesk(state, actor).countersigned(kept.withdrawal, kept.id, content)
    found = register.get(kept.id)
    assert found is not None  # noqa: S101 - it was there a moment ago, and none is ever removed
    return found


def verify_here(state: StateDirectory, content: bytes) -> Certificate:
    """What a certificate of this consortium says, if each key was in force for its role when it signed.

    Raises
    ------
    SignatureError
        If it does not hold; see :func:`~unlearning.certificate.terms.verify_by_terms`.
    """
    certificate = read_unverified(content).certificate
    kept = Certificates(state).get(certificate.certificate_id)
    issued_here = kept is not None and read_unverified(kept.content).certificate == certificate
    checkpoint = Ledger(state).checkpoint()
    return verify_by_terms(
        content,
        None if checkpoint is None else checkpoint.ledger,
        signing_terms(state),
        issued_here=issued_here,
        countersigned_at=kept.countersigned_at if kept is not None and issued_here else None,
    )


def keep_officer_key(state: StateDirectory, key: PublicKey, *, actor: str, replace: bool = False) -> None:
    """Keep the privacy officer's public key, and put that on record; nothing is done if it is kept already.

    Parameters
    ----------
    state
        Open for writing.
    key
        The key.
    actor
        Who keeps it.
    replace
        Also if another one is kept; that one signs no more, and what it is on record to have signed still
        holds.

    Raises
    ------
    SignatureError
        If another one is kept and is not to be replaced, or what is kept is no key.
    StateError
        If it cannot be written; nothing is on record then.
    """
    file, known = state.path / OFFICER, officer_in_force(state)
    before = None if known is None else known.key_id
    if before == key.key_id:
        return
    if before is not None and not replace:
        raise SignatureError(
            f"The privacy officer's key kept here is another one ({before[:16]}…, not {key.key_id[:16]}…).",
            "Compare it with the officer's. If the officer has a new one: --replace-officer.",
        )
    with state.session() as session, explaining_os_errors(f"The file {file}"):
        Ledger(state).append(OFFICER_KEY, officer_body(key, before, actor), session=session)
        # Last, so that no key is kept that is not on record.
        write_atomically(file, key.pem())


def officer_key(state: StateDirectory) -> PublicKey:
    """The privacy officer's public key that is in force.

    Raises
    ------
    SignatureError
        If none is known.
    """
    found = officer_in_force(state)
    if found is None:
        raise SignatureError(
            "It is not known which key the privacy officer signs with.",
            "The officer makes one (`reconsent certificate key FILE`); give FILE.pub with --officer.",
        )
    return found


def kept_bundle(kept: KeptCertificate) -> dict[str, bytes]:
    """Every file of the bundle of a kept certificate, by name."""
    return bundle_files(read_unverified(kept.content), kept.files)


def _figures(
    state: StateDirectory, files: Sequence[Path], after: str | None
) -> tuple[list[Figure], Further | None, str]:
    """The figures for a withdrawal that ended with the model ``after``.

    Then what further checks of it found, and which figures were left out, in words.
    """
    found: list[Figure] = []
    further: Further | None = None
    left_out = ""
    results = state.path.parent / "results.json"
    if results.is_file() and (state.path.parent / "consortium.toml").is_file() and after is not None:
        if _of_another_withdrawal(state, results, after):
            left_out = (
                f"The figures of {results} are not in it: they are of the model that another withdrawal of "
                "this simulation ended with."
            )
        else:
            found += figures_of_results(results, after)
            further = further_of_results(results)
    for file in files:
        found += figures_of_file(file)
    return found, further, left_out


def _of_another_withdrawal(state: StateDirectory, results: Path, after: str) -> bool:
    """Whether results are of this state, but of a model that another of its unlearnings ended with."""
    measured = Results.load(results).models.get("unlearned")
    if measured is None or measured.sha256 == after:
        return False
    unlearned = {version.digest for version in ModelRegistry(state).all() if version.kind == "unlearned"}
    return measured.sha256 in unlearned
