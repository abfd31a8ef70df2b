"""Checks an evidence bundle, offline: a directory, or the archive it came in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cli.certificate.bundle import signed_name, statement_name
from cli.certificate.page import bundle_page
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

LARGEST = 256 * 2**20
"""Bytes of a file that are read: more than any has, less than would fill the memory."""
_AGAIN = "Get the whole bundle again from whoever issued it."


class Bundle:
    """The files of a bundle, by their names in it; read when they are wanted.

    Parameters
    ----------
    path
        Directory, or zip archive with the directory in it.

    Raises
    ------
    SignatureError
        If there is no such thing, or no certificate in it, or several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inside: dict[str, zipfile.ZipInfo] = {}
        self.doubled: list[str] = []
        every = self._listed()
        found = [name for name in every if PurePosixPath(name).match("certificate*.dsse.json")]
        found = [name for name in found if name.count("/") <= (0 if path.is_dir() else 1)]
        if len(found) != 1:
            raise SignatureError(
                f"{path} holds {len(found)} signed certificates (certificate.dsse.json).",
                _AGAIN if not found else "A bundle holds one.",
            )
        # An archive holds the directory; whatever lies beside it was added.
        above = found[0].rpartition("/")[0]
        self._names = {_inner(name, above): name for name in every}
        self.signed = found[0].rpartition("/")[2]

    @property
    def names(self) -> set[str]:
        """Of all files that are there."""
        return set(self._names)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises
        ------
        SignatureError
            If it cannot be read, or is no regular file, or larger than any is.
        """
        inner = self._names[name]
        try:
            if self._inside:
                if self._inside[inner].file_size > LARGEST:
                    raise OSError(f"it says it has {self._inside[inner].file_size} bytes")
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(inner)
            file = self.path / inner
            if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST:
                raise OSError("it is a link, no regular file, or too large")
            return file.read_bytes()
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
            raise SignatureError(f"{name} cannot be read: {error}.", _AGAIN) from None

    def _listed(self) -> list[str]:
        if self.path.is_dir():
            found = sorted(path for path in self.path.rglob("*") if path.is_symlink() or not path.is_dir())
            return [path.relative_to(self.path).as_posix() for path in found]
        try:
            with zipfile.ZipFile(self.path) as archive:
                for entry in archive.infolist():
                    if entry.is_dir():
                        continue
                    if entry.filename in self._inside:
                        self.doubled.append(entry.filename)
                    self._inside[entry.filename] = entry
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise SignatureError(f"{self.path} is no readable bundle: {error}.", _AGAIN) from None
        return sorted(self._inside)


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


def _inner(name: str, above: str) -> str:
    if not above:
        return name
    return name.removeprefix(f"{above}/") if name.startswith(f"{above}/") else f"../{name}"


def find_signed(path: Path) -> Path:
    """The signed file at ``path``: itself, or the one in that directory.

    Raises
    ------
    SignatureError
        If there is none.
    """
    if path.is_dir():
        return path / Bundle(path).signed
    if not path.is_file():
        raise SignatureError(f"There is no certificate {path}.", "Check the path.")
    if zipfile.is_zipfile(path):
        raise SignatureError(f"{path} is an archive.", "Unpack it, and give the directory in it.")
    return path


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a directory or an archive, and no signed file alone."""
    return path.is_dir() or (path.is_file() and zipfile.is_zipfile(path))


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


def check_files(bundle: Bundle, certificate: Certificate) -> Checked:
    """Compare all files with what the certificate says of them, whoever signed it.

    Raises
    ------
    SignatureError
        If one is missing, was altered or was added, or says something else than the certificate.
    """
    signed, statement = signed_name(certificate), statement_name(certificate)
    there = bundle.names
    wanted = {*certificate.files, signed, statement}
    problems = [f"{_shown(name)} is missing" for name in sorted(wanted - there)]
    problems += [f"{_shown(name)} was added" for name in sorted({*(there - wanted), *bundle.doubled})]
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
        raise SignatureError(f"The bundle is not as it was signed: {'; '.join(problems)}.", _AGAIN)
    # From here on the bytes are those that were signed; do they agree with each other, too?
    _check_manifest(contents, certificate)
    operator = _check_keys(contents, certificate)
    _check_lineage(contents, certificate)
    part = _check_slice(contents, certificate, operator)
    receipts = _check_receipts(contents, certificate, part)
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


def _shown(name: str) -> str:
    """A file's name as a terminal may show it, whoever chose it."""
    return name if name.isprintable() else ascii(name)


def _json(contents: Mapping[str, bytes], name: str) -> Any:
    if name not in contents:
        raise _contradiction(name, "it was never there")
    return json.loads(contents[name])


def _contradiction(name: str, problem: str) -> SignatureError:
    return SignatureError(
        f"{name} contradicts the certificate: {problem}.",
        "It was signed like that: do not rely on the certificate, and ask who signed it.",
    )
