"""Makes the evidence bundle of a certificate: every file, and a manifest to which what is signed commits."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from cli.certificate.page import bundle_page
from reconsent.errors import SignatureError
from reconsent.files import AtomicWrites, sha256_of
from server.certifying import Draft
from unlearning.certificate import layout
from unlearning.certificate.signed import SignedCertificate
from unlearning.certificate.statement import Certificate, payload_of
from unlearning.signing import PublicKey

_VERIFY = """# To verify this certificate
{notice}
Needed: the public keys of the operator and of the privacy officer, had from them in person or compared with
them by telephone, and Reconsent on any machine. No network, no server:

    reconsent certificate verify . --key OPERATOR.pub --key OFFICER.pub

The fingerprints to compare (also: `openssl pkey -pubin -in FILE -outform DER | sha256sum`) are

    operator         {operator}
    privacy officer  {officer}

Both keys are in `keys/`, which proves nothing about whose they are: whoever forged the bundle would have put
their own there.

The command checks both signatures of `{signed}`, that every file is as it was when they
were made, that none is missing and none was added, and that the proofs in `audit/slice.jsonl` hold.

Without Reconsent:

- `{signed}` is a DSSE envelope (payload type `application/vnd.in-toto+json`) with two
  Ed25519 signatures; its payload, an in-toto Statement, is `{statement}`, byte for byte.
- `predicate.files` in it has the SHA-256 of every file but these two. `MANIFEST.json` is among them, and has
  the same list of the others; `sha256sum -c` takes what this prints:

      python3 -c 'import json
      for f, d in json.load(open("MANIFEST.json"))["files"].items(): print(d, "", f)'

- `audit/slice.jsonl` has Merkle proofs as in RFC 9162: a leaf is SHA-256(0x00, `content`), a node
  SHA-256(0x01, left, right); entry N is leaf N - 1 of the tree of the last checkpoint.

The files:

{files}
"""


def directory_name(certificate: Certificate) -> str:
    """Name of the directory of a certificate's bundle."""
    return target_name(certificate.request.id, simulation=certificate.simulation)


def target_name(withdrawal: str, *, simulation: bool) -> str:
    """The withdrawal's id, and what everybody must see of a simulation."""
    return f"{withdrawal}.{layout.SIMULATED}" if simulation else withdrawal


def signed_name(certificate: Certificate) -> str:
    """Name of the signed file."""
    return layout.named(layout.SIGNED, simulation=certificate.simulation)


def statement_name(certificate: Certificate) -> str:
    """Name of the statement in clear."""
    return layout.named(layout.STATEMENT, simulation=certificate.simulation)


def completed(
    draft: Draft, operator: PublicKey, officer: PublicKey, receipts: Mapping[str, bytes] | None = None
) -> Draft:
    """Add what a bundle needs beside the evidence: the page, the keys, how to verify, and the manifest.

    Parameters
    ----------
    draft
        The certificate and its evidence.
    operator, officer
        The keys that will sign.
    receipts
        What sites signed themselves, by the name of the file.
    """
    certificate = draft.certificate
    files = {
        **draft.files,
        **(receipts or {}),
        layout.OPERATOR: operator.pem(),
        layout.OFFICER: officer.pem(),
        layout.PAGE: bundle_page(certificate),
    }
    files[layout.VERIFY] = _verify_text(certificate, files).encode()
    return draft.with_files({**files, layout.MANIFEST: _manifest(certificate, files)})


def bundle_files(signed: SignedCertificate, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Every file of a bundle by name, the signed one last."""
    certificate = signed.certificate
    return {
        **files,
        statement_name(certificate): payload_of(certificate),
        signed_name(certificate): signed.content,
    }


def write_bundle(directory: Path, signed: SignedCertificate, files: Mapping[str, bytes]) -> Path:
    """Write everything, over a former bundle if there is one; returns the signed file.

    Raises
    ------
    OSError
        If it cannot be written; nothing is there then.
    """
    every = bundle_files(signed, files)
    with AtomicWrites() as writes:
        for name, content in every.items():
            writes.write(directory / name, [content])
    # What an earlier bundle had and this one has not would count as added.
    for name in _files_in(directory):
        if name not in every and layout.belongs(name):
            (directory / name).unlink(missing_ok=True)
    return directory / signed_name(signed.certificate)


def check_target(directory: Path) -> None:
    """Refuse to write a bundle where files are that are none of a bundle.

    Raises
    ------
    SignatureError
        If there are.
    """
    for name in _files_in(directory):
        if not layout.belongs(name):
            raise SignatureError(
                f"{directory / name} does not belong to a bundle, so the new one would not verify.",
                "Move it away, or choose another --out.",
            )


def _files_in(directory: Path) -> list[str]:
    found = sorted(directory.rglob("*")) if directory.is_dir() else []
    return [
        path.relative_to(directory).as_posix() for path in found if path.is_symlink() or not path.is_dir()
    ]


def zipped(directory: str, files: Mapping[str, bytes]) -> bytes:
    """A bundle as one archive, in a directory of that name; the same files give the same bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{directory}/{name}")
            entry.external_attr = 0o644 << 16
            file.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def _verify_text(certificate: Certificate, files: Mapping[str, bytes]) -> str:
    there = {*files, layout.SIGNED, layout.STATEMENT, layout.VERIFY, layout.MANIFEST}
    listed = [
        f"- `{layout.named(name, simulation=certificate.simulation)}`: {words}"
        for name, words in layout.FILES.items()
        if name in there
    ]
    return _VERIFY.format(
        notice=f"\n**{certificate.notice}**\n" if certificate.notice else "",
        signed=signed_name(certificate),
        statement=statement_name(certificate),
        operator=certificate.signers.operator,
        officer=certificate.signers.privacy_officer,
        files="\n".join(listed),
    )


def _manifest(certificate: Certificate, files: Mapping[str, bytes]) -> bytes:
    listed = {
        "certificate": certificate.certificate_id,
        "notice": certificate.notice,
        "signers": [
            {"role": "operator", "key": layout.OPERATOR, "key_id": certificate.signers.operator},
            {"role": "privacy-officer", "key": layout.OFFICER, "key_id": certificate.signers.privacy_officer},
        ],
        "files": {name: sha256_of(content) for name, content in sorted(files.items())},
    }
    return (json.dumps(listed, indent=1) + "\n").encode()
