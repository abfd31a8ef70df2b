"""Certificates: issue, read, download, take back countersigned, verify."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from starlette.responses import Response

from cli.certificate.bundle import directory_name, signed_name, zipped
from cli.certificate.checking import ALONE, check_files
from cli.certificate.issuing import (
    OPERATOR,
    accept_countersigned,
    issue_certificate,
    keep_officer_key,
    kept_bundle,
    officer_key,
    verify_here,
)
from cli.certificate.page import LEVELS, OUTCOMES, page_of
from cli.certificate.reading import Bundle, is_archive
from cli.console.guard import POLICY
from cli.console.visits import Visit, see_other
from reconsent.errors import SignatureError
from server.persistence import Certificates, Enrolments, KeptCertificate, Ledger, Withdrawals
from server.signing_terms import officer_in_force, signing_terms
from unlearning.certificate.signed import read_unverified, verify
from unlearning.signing import PublicKey


def certificates(visit: Visit) -> Response:
    """Every certificate that was issued here, and a form to verify any other."""
    kept = [(entry, read_unverified(entry.content)) for entry in Certificates(visit.state).all()]
    return visit.page("certificates.html.j2", kept=kept, levels=LEVELS, outcomes=OUTCOMES, result=None)


def certificate(visit: Visit) -> Response:
    """What one says, in short."""
    return _show(visit, _kept(visit))


def whole(visit: Visit) -> Response:
    """The page of the bundle, as it is; its style is allowed by its hash."""
    page = page_of(read_unverified(_kept(visit).content))
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = POLICY.replace("style-src 'self'", f"style-src 'sha256-{digest}'")
    return Response(page, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})


def pdf(visit: Visit) -> Response:
    """The same as PDF."""
    from cli.certificate.pdf import pdf_of  # it reads fonts, which takes its time

    kept = _kept(visit)
    signed = read_unverified(kept.content)
    visit.record("certificate-download", kept.id)
    return _download(pdf_of(signed), f"{directory_name(signed.certificate)}.pdf", "application/pdf")


def signed_file(visit: Visit) -> Response:
    """The signed file."""
    kept = _kept(visit)
    name = f"{kept.withdrawal}-{signed_name(read_unverified(kept.content).certificate)}"
    visit.record("certificate-download", kept.id)
    return _download(kept.content, name, "application/json")


def bundle(visit: Visit) -> Response:
    """Everything, in one archive."""
    kept = _kept(visit)
    directory = directory_name(read_unverified(kept.content).certificate)
    archive = zipped(directory, kept_bundle(kept))
    visit.record("certificate-download", kept.id)
    return _download(archive, f"{directory}.zip", "application/zip")


def issue(visit: Visit) -> Response:
    """Assemble one and sign it as the operator."""
    id_ = visit.request.path_params["id"]
    state = visit.state
    record = Withdrawals(state).get(id_)
    officer = officer_key(state)
    with state.session() as session:
        issued = issue_certificate(
            state, visit.console.opened.consortium(), record.id, officer=officer, actor=visit.who.name
        )
        made = issued.draft.certificate.certificate_id
        visit.record("certificate-issue", made, state=state, session=session)
    if issued.left_out:
        visit.say(issued.left_out, "note")
    visit.say("Signed as the operator. It is valid once the privacy officer has signed it too.")
    return see_other(f"/certificates/{made}")


def countersigned(visit: Visit) -> Response:
    """Take one back from the privacy officer, whose key never comes here."""
    state = visit.state
    content = _one_upload(visit, "certificate", "the countersigned certificate")
    with state.session() as session:
        kept = accept_countersigned(state, content, actor=visit.who.name)
        visit.record("certificate-countersigned", kept.id, state=state, session=session)
    visit.say("Both signatures hold. The certificate is valid.")
    return see_other(f"/certificates/{kept.id}")


def verify_kept(visit: Visit) -> Response:
    """Verify one that is kept here."""
    kept = _kept(visit)
    files = Bundle.of_files(kept_bundle(kept), f"The certificate {kept.id}")
    result = _verified(visit, files)
    visit.record("certificate-verify", kept.id, outcome="holds" if result["holds"] else "fails")
    return _show(visit, kept, result)


def verify_upload(visit: Visit) -> Response:
    """Verify any signed file or archive, by this consortium's keys or by those that come with it."""
    content = _one_upload(visit, "certificate", "a certificate")
    given = [PublicKey.from_pem(upload.content, "the key") for upload in visit.uploads.get("keys", [])]
    result = _verified(visit, content, given)
    visit.record("certificate-verify", outcome="holds" if result["holds"] else "fails")
    kept = [(entry, read_unverified(entry.content)) for entry in Certificates(visit.state).all()]
    return visit.page("certificates.html.j2", kept=kept, levels=LEVELS, outcomes=OUTCOMES, result=result)


def keys(visit: Visit) -> Response:
    """The public keys: of the ledger and the operator, of the privacy officer, of the sites."""
    state = visit.state
    return visit.page(
        "keys.html.j2",
        operator=Ledger(state).public_key(),
        officer=officer_in_force(state),
        terms=list(reversed(signing_terms(state))),
        sites=Enrolments(state).all(),
    )


def operator_key(visit: Visit) -> Response:
    """The operator's public key, to be handed on."""
    key = Ledger(visit.state).public_key()
    if key is None:
        return visit.error(404, "There is no key yet", "The ledger has no entry yet.")
    return _download(key.pem(), OPERATOR, "application/x-pem-file")


def set_officer_key(visit: Visit) -> Response:
    """Keep the privacy officer's public key."""
    state = visit.state
    content = _one_upload(visit, "key", "the public key")
    found = PublicKey.from_pem(content, "the file")
    with state.session() as session:
        visit.record("officer-key", found.key_id, state=state, session=session)
        keep_officer_key(state, found, actor=visit.who.name, replace=True)
    visit.say("The public key is kept. Compare its fingerprint with the one you were shown when you made it.")
    return see_other("/keys")


def _show(visit: Visit, kept: KeptCertificate, result: dict[str, object] | None = None) -> Response:
    signed = read_unverified(kept.content)
    return visit.page(
        "certificate.html.j2",
        kept=kept,
        c=signed.certificate,
        signatures=signed.signatures,
        level=LEVELS[signed.certificate.claim_level.value],
        outcome=OUTCOMES[signed.certificate.outcome],
        result=result,
    )


def _verified(visit: Visit, given: bytes | Bundle, keys: Sequence[PublicKey] = ()) -> dict[str, object]:
    """Whether a signed file, an archive or a bundle holds, in words.

    By the keys given, or by those that were in force here.
    """
    try:
        if isinstance(given, bytes) and is_archive(given):
            given = Bundle.of_archive(given)
        content = given if isinstance(given, bytes) else given.read(given.signed)
        found = verify(content, keys) if keys else verify_here(visit.state, content)
        words = [ALONE] if isinstance(given, bytes) else check_files(given, found).words
    except SignatureError as error:
        return {"holds": False, "problem": f"{error.problem} {error.remedy}", "c": None}
    own = Ledger(visit.state).checkpoint()
    here = own is not None and found.consortium.ledger == own.ledger
    return {"holds": True, "problem": "", "c": found, "here": here, "words": words}


def _kept(visit: Visit) -> KeptCertificate:
    id_ = visit.request.path_params["id"]
    kept = Certificates(visit.state).get(id_)
    if kept is None:
        raise SignatureError(f"The certificate {id_[:40]!r} was not issued here.", "See the list.")
    return kept


def _one_upload(visit: Visit, name: str, what: str) -> bytes:
    uploads = visit.uploads.get(name, [])
    if len(uploads) != 1:
        raise SignatureError(f"There is no file with {what}.", "Choose one file.")
    return uploads[0].content


def _download(content: bytes, name: str, kind: str) -> Response:
    return Response(
        content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
