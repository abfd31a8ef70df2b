"""What a site remembers of the server's ledger, so that the server cannot tell it another history later.

With each round's training message comes the newest checkpoint of the ledger and a proof that the ledger goes
on from the one before. The site keeps the last checkpoint beside its log, and refuses to train for a server
whose ledger does not go on from it: entries were rewritten or cut off, or the site is shown another ledger
than the others. The idea is that of the witnesses of transparency logs (RFC 9162, §8.3).

It proves nothing about what is in the entries, or about a server that never had another ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.policy import Refusal
from reconsent.errors import LedgerError, SignatureError
from reconsent.files import write_atomically
from strategies import messages as msg

# Their imports take a tenth of a second, which each message would pay for where nothing is to be checked.
if TYPE_CHECKING:
    from unlearning.ledger.checkpoints import Checkpoint
    from unlearning.signing import PublicKey

Told = Mapping[str, object]

_REMEDY = "Ask the operator; if the new history is right, remove the site's witness file."


def witness_path(log: Path) -> Path:
    """Beside the site's log: ``policy.log.jsonl`` has ``policy.witness.json``."""
    return log.with_name(re.sub(r"(\.log)?\.jsonl$", "", log.name) + ".witness.json")


@dataclass(frozen=True, slots=True)
class _Kept:
    checkpoint: Checkpoint
    key: PublicKey


class Witness:
    """The newest checkpoint a site was sent.

    Parameters
    ----------
    path
        Where it is kept; in the form that ``reconsent ledger verify --checkpoint`` reads. Removing the file
        makes the site begin afresh. What contradicts it is kept beside it, as ``….contradiction``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> int | None:
        """Entries of the checkpoint that is kept; ``None`` if there is none.

        Raises
        ------
        LedgerError
            If the file cannot be read.
        SignatureError
            If it was altered.
        """
        kept = self._kept()
        return None if kept is None else kept.checkpoint.size

    def refusal(self, told: Told, *, pinned: str | None = None) -> Refusal | None:
        """Check what a training message says of the ledger, and keep it if all is well.

        Parameters
        ----------
        told
            The message's configuration.
        pinned
            Id of the key that must have signed; ``None`` to trust the first that is seen.

        Returns
        -------
        Why the message is not worked; ``None`` if the ledger goes on from what the site knew.
        """
        try:
            kept = self._kept()
        except (LedgerError, SignatureError):
            return Refusal("witness-unreadable", "The site's witness file is damaged, so nothing is allowed.")
        if msg.CHECKPOINT not in told:
            if kept is None and pinned is None:
                return None  # a server of an older release, or a test
            return Refusal("ledger-missing", f"This site was sent no checkpoint of the ledger. {_REMEDY}")
        try:
            key, envelope, newest = self._received(told, kept, pinned)
        except (LedgerError, SignatureError, ValueError, TypeError, RecursionError):
            return Refusal(
                "ledger-key",
                "The checkpoint of the ledger is not signed by the key that this site trusts. If the "
                "operator has a new key, compare its fingerprint by telephone and name it in the policy "
                "(ledger-key).",
            )
        if kept is not None and (refusal := _contradiction(kept.checkpoint, newest, told)) is not None:
            if refusal.code != "ledger-unproven":
                self._keep(self.path.with_name(self.path.name + ".contradiction"), envelope, key)
            return refusal
        return self._keep(self.path, envelope, key)

    def _kept(self) -> _Kept | None:
        if not self.path.exists():
            return None
        from unlearning.ledger.checkpoints import read_checkpoint
        from unlearning.ledger.exports import read_checkpoint_file

        found = read_checkpoint_file(self.path)
        return _Kept(read_checkpoint(found.envelope, [found.key]), found.key)

    @staticmethod
    def _received(
        told: Told, kept: _Kept | None, pinned: str | None
    ) -> tuple[PublicKey, dict[str, Any], Checkpoint]:
        from unlearning.ledger.checkpoints import read_checkpoint
        from unlearning.signing import PublicKey

        key = PublicKey.from_hex(str(told.get(msg.CHECKPOINT_KEY, "")))
        trusted = pinned or (key.key_id if kept is None else kept.key.key_id)
        if key.key_id != trusted:
            raise SignatureError("another key")
        envelope = json.loads(str(told[msg.CHECKPOINT]))
        return key, envelope, read_checkpoint(envelope, [key])

    @staticmethod
    def _keep(path: Path, envelope: Mapping[str, Any], key: PublicKey) -> Refusal | None:
        from unlearning.ledger.checkpoints import read_checkpoint
        from unlearning.ledger.exports import checkpoint_file

        try:
            write_atomically(path, checkpoint_file(read_checkpoint(envelope, [key]), envelope, key))
        except OSError:
            return Refusal("witness-unwritable", "The site's witness file cannot be written.")
        return None


def _contradiction(kept: Checkpoint, newest: Checkpoint, told: Told) -> Refusal | None:
    from unlearning.ledger.checkpoints import follows

    if newest.ledger != kept.ledger:
        return Refusal("ledger-other", f"This is not the ledger that this site knew before. {_REMEDY}")
    if newest.size < kept.size:
        return Refusal(
            "ledger-shorter",
            f"The ledger has {newest.size} entries, and had {kept.size} when this site last saw it: its end "
            f"was cut off, or an older backup was restored. {_REMEDY}",
        )
    try:
        proofs = json.loads(str(told.get(msg.CHECKPOINT_PROOFS, "{}")))
        proof = [] if newest.size == kept.size else proofs.get(str(kept.size))
    except (ValueError, AttributeError, RecursionError):
        proof = None
    if not isinstance(proof, list):
        # The server learns from this sentence where the site stands, and sends the right proof next time.
        return Refusal("ledger-unproven", msg.unproven_sentence(kept.size))
    if not follows(kept, newest, proof):
        return Refusal(
            "ledger-forked",
            f"The ledger of {newest.size} entries does not begin with the {kept.size} that this site saw: "
            f"entries were rewritten, or this site is shown another ledger than others. {_REMEDY}",
        )
    return None
