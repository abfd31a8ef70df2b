"""Receipts of sites, taken into a bundle: of those that withdraw only, and if their ledger is this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconsent.errors import SignatureError
from server.persistence import Enrolments, Ledger, StateDirectory, WithdrawalRecord
from unlearning.certificate import layout
from unlearning.certificate.receipt import Receipt, read_receipt


@dataclass(frozen=True, slots=True)
class Given:
    """Receipts that fit, and their files by the name each has in a bundle."""

    receipts: list[Receipt] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


def receipts_of(state: StateDirectory, withdrawal: WithdrawalRecord, paths: Sequence[Path]) -> Given:
    """Read the receipts for a withdrawal's certificate.

    Raises
    ------
    SignatureError
        If a file cannot be read, is no receipt, is not of a site that withdraws, or the ledger that the site
        saw is not the beginning of this one.
    """
    known = {e.fingerprint for e in Enrolments(state).all() if e.site in withdrawal.sites}
    found = Given()
    for number, path in enumerate(paths, start=1):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SignatureError(
                f"The receipt {path} cannot be read: {error.strerror}.", "Check the path."
            ) from None
        receipt = read_receipt(content)
        if receipt.fingerprint not in known:
            raise SignatureError(
                f"{path} was signed by the key {receipt.fingerprint[:16]}…, which is none of "
                f"{', '.join(withdrawal.sites)}.",
                "Is it the receipt of another site?",
            )
        _check_ledger(Ledger(state), path, receipt)
        found.receipts.append(receipt)
        found.files[layout.receipt_name(number)] = content
    return found


def _check_ledger(ledger: Ledger, path: Path, receipt: Receipt) -> None:
    seen = receipt.checkpoint
    if seen is None:
        return
    own = ledger.checkpoint(seen.size) if seen.size <= ledger.size() else None
    if own is None or (own.ledger, own.root) != (seen.ledger, seen.root):
        raise SignatureError(
            f"The ledger here does not begin with the {seen.size} entries that the site of {path} saw.",
            "It was altered, cut off, or restored from a backup: `reconsent ledger verify`. Certify nothing "
            "until that is explained.",
        )
