"""The directory a certificate comes in: the signed file, the page to read, and the files it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cli.certificate.page import page_of
from reconsent.errors import SignatureError
from reconsent.files import AtomicWrites, sha256_of
from unlearning.certificate.signed import SignedCertificate
from unlearning.certificate.statement import Certificate

SIGNED = "certificate.dsse.json"
PAGE = "certificate.html"
SIMULATED = "SIMULATION-not-evidence"

_VERIFY = """# To verify this certificate

Needed: the public keys of the operator and of the privacy officer, had from them in person or compared with
them by telephone (not from this directory), and Reconsent on any machine. No network, no server:

    reconsent certificate verify . --key OPERATOR.pub --key OFFICER.pub

The signed file is `{signed}`: a DSSE envelope around an in-toto Statement, with two Ed25519 signatures. The
page `{page}` shows its content and proves nothing. The other files are named, with their SHA-256, in
what was signed.
"""


def directory_name(certificate: Certificate) -> str:
    """Name of the directory: the withdrawal's id, and what everybody must see of a simulation."""
    mark = f".{SIMULATED}" if certificate.simulation else ""
    return f"{certificate.request.id}{mark}"


def signed_name(certificate: Certificate) -> str:
    """Name of the signed file."""
    return f"certificate.{SIMULATED}.dsse.json" if certificate.simulation else SIGNED


def bundle_files(signed: SignedCertificate, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Every file of a bundle by name, the signed one last."""
    name = signed_name(signed.certificate)
    return {
        **files,
        "VERIFY.md": _VERIFY.format(signed=name, page=PAGE).encode(),
        PAGE: page_of(signed).encode(),
        name: signed.content,
    }


def write_bundle(directory: Path, signed: SignedCertificate, files: Mapping[str, bytes]) -> Path:
    """Write everything; returns the signed file.

    Raises
    ------
    OSError
        If it cannot be written; nothing is there then.
    """
    with AtomicWrites() as writes:
        for name, content in bundle_files(signed, files).items():
            writes.write(directory / name, [content])
    return directory / signed_name(signed.certificate)


def find_signed(path: Path) -> Path:
    """The signed file at ``path``: itself, or the one in that directory.

    Raises
    ------
    SignatureError
        If there is none.
    """
    if path.is_dir():
        found = sorted(path.glob("certificate*.dsse.json"))
        if len(found) == 1:
            return found[0]
        raise SignatureError(f"{path} holds {len(found)} certificates.", "Name the file.")
    if not path.is_file():
        raise SignatureError(f"There is no certificate {path}.", "Check the path.")
    return path


def check_files(directory: Path, certificate: Certificate) -> int:
    """Compare the files of a bundle with the hashes that were signed; returns how many there are.

    Raises
    ------
    SignatureError
        If one is missing or altered.
    """
    for name, digest in certificate.files.items():
        # The name was signed, but by whom is for the reader to judge: it must not lead elsewhere.
        if Path(name).name != name:
            raise SignatureError(f"The certificate names a file outside of its directory: {name!r}.")
        try:
            content = (directory / name).read_bytes()
        except OSError as error:
            raise SignatureError(f"The file {name} of the bundle cannot be read: {error.strerror}.") from None
        if sha256_of(content) != digest:
            raise SignatureError(f"The file {name} of the bundle was altered.", "Get the whole bundle again.")
    return len(certificate.files)
