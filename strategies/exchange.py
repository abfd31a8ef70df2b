"""Send to chosen nodes only, and take the replies one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flwr.app import Message
from flwr.serverapp import Grid

from reconsent.errors import SiteError

ReplyStatus = Literal["ok", "app_error", "node_unavailable", "message_unavailable", "timeout"]

# flwr.common.constant.ErrorCode: 3 and 4 are lost messages, 5 a node that left.
_ERROR_STATUS: dict[int, ReplyStatus] = {
    3: "message_unavailable",
    4: "message_unavailable",
    5: "node_unavailable",
}


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
        ``ok``, or how it failed.
    reason
        In words; empty if ok.
    message
        The reply; ``None`` unless ok.
    """

    node_id: int
    site: str
    status: ReplyStatus
    reason: str
    message: Message | None


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    allowed: Mapping[int, str],
    *,
    timeout: float,
    poll_seconds: float = 0.05,
) -> Iterator[Reply]:
    """Push ``messages`` and yield each reply as it comes, then a timeout for each that did not.

    One reply is in memory at a time. Flower's own ``send_and_receive`` gathers all of them first and polls
    every three seconds over gRPC.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    messages
        One for each node.
    allowed
        Node id → site of those that may be asked at all. The last guard before the send: a message to
        anybody else is an error, and nothing is sent.
    timeout
        Seconds to wait for replies.
    poll_seconds
        Seconds between two looks.

    Raises
    ------
    SiteError
        If a message is addressed to a node outside ``allowed``.
    """
    for message in messages:
        if message.metadata.dst_node_id not in allowed:
            raise SiteError(
                f"A {message.metadata.message_type} message was addressed to node "
                f"{message.metadata.dst_node_id}, which is not on the list of active sites; nothing sent.",
                "This is a fault of the program: a withdrawn or unknown node must never be asked.",
            )
    grid.push_messages(messages)
    pending = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    del messages
    deadline = time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        arrived = False
        for message_id in list(pending):
            for reply in grid.pull_messages([message_id]):
                arrived = True
                node_id = pending.pop(reply.metadata.reply_to_message_id)
                yield _judge(node_id, allowed[node_id], reply)
        if not arrived:
            time.sleep(poll_seconds)
    for node_id in pending.values():
        yield Reply(node_id, allowed[node_id], "timeout", f"no answer within {timeout:g} s", None)


def _judge(node_id: int, site: str, reply: Message) -> Reply:
    if reply.has_error():
        status = _ERROR_STATUS.get(reply.error.code, "app_error")
        return Reply(node_id, site, status, reply.error.reason or f"error {reply.error.code}", None)
    return Reply(node_id, site, "ok", "", reply)
