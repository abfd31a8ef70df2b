"""Bundles from before there was a manifest: what still holds of them, and what they lack.

They cannot be made whole afterwards: what is signed does not name the missing files, and whoever adds them
could add anything. So such a bundle never verifies, but it is told apart from one that was altered.
"""

from __future__ import annotations

from cli.certificate.reading import AGAIN, Bundle, shown
from reconsent.errors import SignatureError
from reconsent.files import sha256_of
from unlearning.certificate import layout
from unlearning.certificate.statement import Certificate


def is_former(certificate: Certificate) -> bool:
    """Whether it was signed when bundles had no manifest; nobody can remove one from what was signed."""
    return layout.MANIFEST not in certificate.files


def former_problem(bundle: Bundle, certificate: Certificate, *, signed: bool) -> SignatureError:
    """What is to be said of such a bundle.

    Parameters
    ----------
    bundle, certificate
        The files, and what names some of them.
    signed
        Both signatures were verified, and the place in the ledger.
    """
    found = {name: _wrong(bundle, name, digest) for name, digest in sorted(certificate.files.items())}
    wrong = [problem for problem in found.values() if problem]
    right = [name for name, problem in found.items() if not problem]
    beside = sorted(bundle.names - {*found, bundle.signed})
    ledger = "" if certificate.ledger is None else "; its last entry is proved to be in the ledger it names"
    lines = [
        "The bundle was made before bundles had a manifest, and cannot be verified as a whole.",
        f"both signatures hold on {bundle.signed}{ledger}" if signed else "",
        f"NOT AS SIGNED: {'; '.join(wrong)}" if wrong else "",
        f"as they were signed: {', '.join(right)}" if right else "",
        f"on these there is no signature, whatever they say: {', '.join(map(shown, beside))}"
        if beside
        else "",
        f"never made: {', '.join(name for name in layout.FILES if _lacks(certificate, name))}",
        "so not checked: the page and the keys, the ledger's part and its checkpoints, who took part in "
        "which round, and whether the limits were fixed before the model",
    ]
    problem = "\n  - ".join(line for line in lines if line)
    if wrong:
        return SignatureError(problem, AGAIN)
    return SignatureError(
        problem,
        "Ask the operator to issue the certificate anew (`reconsent certificate issue`), from the state "
        "if it is kept. To verify what was signed alone, give the signed file.",
    )


def _wrong(bundle: Bundle, name: str, digest: str) -> str:
    """What is wrong with a file that is signed for; empty if nothing."""
    if name not in bundle.names:
        return f"{name} is missing"
    if name in bundle.doubled:
        return f"{name} is there twice"
    try:
        return "" if sha256_of(bundle.read(name)) == digest else f"{name} was altered"
    except SignatureError as error:
        return error.problem.rstrip(".")


def _lacks(certificate: Certificate, name: str) -> bool:
    unsigned = (layout.SIGNED, layout.PAGE, layout.VERIFY, layout.RECEIPT, layout.FINDINGS)
    return name not in unsigned and name not in certificate.files
