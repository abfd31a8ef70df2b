"""What comes back from a node, and what it amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flwr.app import Message

from strategies.messages import REFUSED_BY_SITE, model_bytes

ReplyStatus = Literal[
    "ok", "app_error", "refused", "node_unavailable", "message_unavailable", "timeout", "withdrawn"
]

# flwr.common.constant.ErrorCode: 3 and 4 are lost messages, 5 a node that left, 6 a mod of the site that
# would not let the message through.
_ERROR_STATUS: dict[int, ReplyStatus] = {
    3: "message_unavailable",
    4: "message_unavailable",
    5: "node_unavailable",
    6: "refused",
}

LONGEST_REASON = 1000
"""Characters of an error that a site sends; who sends a novel may not fill the logs."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from one node, or why nothing did.

    Attributes
    ----------
    node_id
        The node the message was sent to (errors made by the SuperLink carry another source).
    site
        Its site.
    status
        ``ok``, or how it failed; ``refused`` is the site's own decision, and says nothing of the model.
    reason
        In words; empty if ok.
    message
        The reply; ``None`` unless ok.
    sent
        Whether the message went out at all: not where the site was barred before its turn, or the SuperLink
        did not take it.
    received
        Bytes of models that came, of use or not.
    """

    node_id: int
    site: str
    status: ReplyStatus
    reason: str
    message: Message | None
    sent: bool = True
    received: int = 0


def readable(text: str) -> str:
    """What a site says, fit for logs and databases: its beginning, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST_REASON])


def as_reply(message: Message, node_id: int, site: str) -> Reply:
    """What a message that came back from ``site`` amounts to."""
    if not message.has_error():
        return Reply(node_id, site, "ok", "", message, received=model_bytes(message))
    reason = readable(message.error.reason or f"error {message.error.code}")
    status = _ERROR_STATUS.get(message.error.code, "app_error")
    if reason.startswith(f"{REFUSED_BY_SITE}:"):
        status = "refused"
    elif status == "refused":
        # A gate that is not ours: who reads the reason shall know it for a refusal all the same.
        reason = f"{REFUSED_BY_SITE}: {reason}"
    return Reply(node_id, site, status, reason, None)
