"""Checks an evidence bundle, offline: first every byte, then whether the files agree with each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.certificate.bundle import signed_name, statement_name
from cli.certificate.former import former_problem, is_former
from cli.certificate.page import bundle_page
from cli.certificate.reading import AGAIN, Bundle, shown
from reconsent.errors import LedgerError, ReconsentError, SignatureError
from reconsent.files import sha256_of
from unlearning.certificate import layout
from unlearning.certificate.claim import ClaimLevel
from unlearning.certificate.participants import participants_root
from unlearning.certificate.receipt import agrees, read_receipt
from unlearning.certificate.signed import verify
from unlearning.certificate.statement import Certificate, payload_of
from unlearning.ledger.slices import Slice, read_slice
from unlearning.signing import PublicKey

ALONE = "the signed file alone was given: nothing is said of the other files of its bundle"
"""What there is to say where no bundle was checked."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A bundle that holds.

    Attributes
    ----------
    certificate
        What was signed.
    files
        How many files there are.
    part
        The part of the ledger; ``None`` if there was none when the certificate was made.
    receipts
        How many sites speak for themselves.
    """

    certificate: Certificate
    files: int
    part: Slice | None
    receipts: int

    @property
    def words(self) -> list[str]:
        """What was found, in sentences."""
        found = [f"{self.files} files of the bundle are as they were signed; none is missing, none was added"]
        if self.part is not None:
            size, count = self.part.checkpoints[-1].size, len(self.part.checkpoints)
            withheld = self.part.withheld
            others = f"; {withheld} that name other sites are given by their hash" if withheld else ""
            shown = len(self.part.entries)
            found.append(f"{shown} entries are proved to be in the ledger, which had {size} then{others}")
            found.append(f"{count} signed checkpoints, from before the request on, continue each other")
        found.append(
            "the site's own receipt is signed by its node's key, and the ledger it saw is this one"
            if self.receipts
            else "the site has given no receipt: the evidence is what the operator's server recorded"
        )
        return found


def check_bundle(bundle: Bundle, keys: Sequence[PublicKey]) -> Checked:
    """Check the signatures, every file, and what the files prove.

    Raises
    ------
    SignatureError
        If anything is wrong, with the names of the files.
    """
    content = bundle.read(bundle.signed)
    try:
        certificate = verify(content, keys)
    except ReconsentError as error:
        raise SignatureError(f"{bundle.signed}: {error.problem}", error.remedy) from None
    return check_files(bundle, certificate)


def check_files(bundle: Bundle, certificate: Certificate, *, signed: bool = True) -> Checked:
    """Compare all files with what the certificate says of them, whoever signed it.

    Parameters
    ----------
    bundle, certificate
        The files, and what names them.
    signed
        Whether its signatures were verified before; for what is said of a bundle of a former release.

    Raises
    ------
    SignatureError
        If one is missing, was altered or was added, says something else than the certificate, or if the
        bundle is from before there was a manifest.
    """
    if is_former(certificate):
        raise former_problem(bundle, certificate, signed=signed)
    statement = statement_name(certificate)
    there = bundle.names
    wanted = {*certificate.files, signed_name(certificate), statement}
    problems = [f"{shown(name)} is missing" for name in sorted(wanted - there)]
    problems += [f"{shown(name)} was added" for name in sorted({*(there - wanted), *bundle.doubled})]
    contents: dict[str, bytes] = {}
    for name in sorted(certificate.files.keys() & there):
        try:
            contents[name] = bundle.read(name)
        except SignatureError as error:
            problems.append(error.problem.rstrip("."))
            continue
        if sha256_of(contents[name]) != certificate.files[name]:
            problems.append(f"{name} was altered")
    if statement in there and bundle.read(statement) != payload_of(certificate):
        problems.append(f"{statement} was altered")
    if problems:
        raise SignatureError(f"The bundle is not as it was signed: {'; '.join(problems)}.", AGAIN)
    # From here on the bytes are those that were signed; do they agree with each other, too?
    try:
        _check_manifest(contents, certificate)
        operator = _check_keys(contents, certificate)
        _check_lineage(contents, certificate)
        part = _check_slice(contents, certificate, operator)
        receipts = _check_receipts(contents, certificate, part)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SignatureError(
            f"A file of the bundle was signed in a form that is none: {type(error).__name__}: {error}.",
            "Ask the operator for a new certificate.",
        ) from None
    return Checked(certificate, len(wanted), part, receipts)


def check_page(bundle: Bundle, certificate: Certificate) -> None:
    """Refuse a page to read that does not say what would be signed.

    Raises
    ------
    SignatureError
        If it is not the page that this release writes for the certificate.
    """
    if bundle.read(layout.PAGE) != bundle_page(certificate):
        raise SignatureError(
            f"{layout.PAGE} is not the page of this certificate, or another release of Reconsent wrote it.",
            "Read what would be signed with `reconsent certificate show`, and ask the operator. Use the "
            "operator's release to sign.",
        )


def _check_manifest(contents: Mapping[str, bytes], certificate: Certificate) -> None:
    manifest = _json(contents, layout.MANIFEST)
    others = {name: digest for name, digest in certificate.files.items() if name != layout.MANIFEST}
    if manifest.get("files") != others or manifest.get("certificate") != certificate.certificate_id:
        raise _contradiction(layout.MANIFEST, "it does not list the files that were signed")
    # Manifests of earlier releases do not have them.
    signers = certificate.signers.model_dump()
    for entry in manifest.get("signers", []):
        if signers[entry["role"].replace("-", "_")] != entry["key_id"]:
            raise _contradiction(layout.MANIFEST, f"another key is said to be that of the {entry['role']}")


def _check_keys(contents: Mapping[str, bytes], certificate: Certificate) -> PublicKey:
    signers = certificate.signers
    found = {}
    for name, wanted in ((layout.OPERATOR, signers.operator), (layout.OFFICER, signers.privacy_officer)):
        if name not in contents:
            raise _contradiction(name, "it was never there")
        found[name] = PublicKey.from_pem(contents[name], name)
        if found[name].key_id != wanted:
            raise _contradiction(name, "it is not the key that signed")
    return found[layout.OPERATOR]


def _check_lineage(contents: Mapping[str, bytes], certificate: Certificate) -> None:
    lineage = _json(contents, "lineage.json")
    leavers = {site.pseudonym for site in certificate.sites}
    for version in [*lineage["versions"], *lineage["touched"]]:
        if participants_root(version["shares"]) != version["participants_root"]:
            raise _contradiction("lineage.json", f"the root of {version['version']} is another one")
    edges = sum(bool(leavers & version["shares"].keys()) for version in lineage["versions"])
    if certificate.lineage is not None and edges != certificate.lineage.edges:
        raise _contradiction("lineage.json", f"{edges} versions have an update of the site")
    if certificate.claim_level is ClaimLevel.EXACT_RETRAIN and edges:
        raise _contradiction("lineage.json", "the claimed retraining has updates of the site")


def _check_slice(
    contents: Mapping[str, bytes], certificate: Certificate, operator: PublicKey
) -> Slice | None:
    place = certificate.ledger
    if place is None or certificate.consortium.ledger is None:
        return None
    if layout.SLICE not in contents:
        raise _contradiction(layout.SLICE, "it was never there")
    try:
        part = read_slice(
            contents[layout.SLICE],
            operator,
            ledger=certificate.consortium.ledger,
            size=place.size,
            root=place.root,
        )
    except (LedgerError, SignatureError) as error:
        raise SignatureError(f"{layout.SLICE}: {error.problem}", error.remedy) from None
    if place.entry not in [entry.number for entry in part.entries]:
        raise _contradiction(layout.SLICE, "the entry that the certificate names is not in it")
    if certificate.method is not None and certificate.model_after is not None:
        _check_order(part, certificate.method.policy_sha256, certificate.model_after.sha256)
    return part


def _check_order(part: Slice, policy: str, model: str) -> None:
    """The limits were on record before the model that is judged by them."""
    fixed = [e.number for e in part.entries if e.body.get("act") == "policy" and e.body["sha256"] == policy]
    made = [e.number for e in part.entries if e.kind == "model-registered" and e.body["sha256"] == model]
    if not fixed or not made or min(fixed) > min(made):
        raise _contradiction(layout.SLICE, "the limits were not on record before the new model")


def _check_receipts(contents: Mapping[str, bytes], certificate: Certificate, part: Slice | None) -> int:
    keys = {key for site in certificate.sites for key in site.key_fingerprints}
    found = [name for name in contents if name.startswith("site-receipt")]
    for name in found:
        try:
            receipt = read_receipt(contents[name])
        except SignatureError as error:
            raise SignatureError(f"{name}: {error.problem}", error.remedy) from None
        if receipt.fingerprint not in keys:
            raise _contradiction(name, "it was signed by a key that is none of the site's")
        if not agrees(receipt, () if part is None else part.checkpoints):
            raise _contradiction(name, "the ledger that the site saw is not the beginning of this one")
    return len(found)


def _json(contents: Mapping[str, bytes], name: str) -> Any:
    if name not in contents:
        raise _contradiction(name, "it was never there")
    return json.loads(contents[name])


def _contradiction(name: str, problem: str) -> SignatureError:
    return SignatureError(
        f"{name} contradicts the certificate: {problem}.",
        "It was signed like that: do not rely on the certificate, and ask who signed it.",
    )
