"""Send to chosen nodes only, and take the replies one by one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import Literal

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from reconsent.errors import GuardError
from reconsent.log_lines import belongs_to, tell
from strategies.messages import (
    CONFIG,
    CORRELATION,
    IDENTIFY,
    REFUSED_BY_SITE,
    SERVER_ROUND,
    config_of,
    let_go,
    model_bytes,
)

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

SHORTEST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 0.5
BARRED_LOOK_SECONDS = 1.0
"""Between two looks at who has been barred, while nothing comes."""
_WITHDRAWN = "the site was barred while the round ran; its reply is refused"
_NOT_ASKED = "the site was barred while the round ran; it was not asked any more"
_NOT_TAKEN = "the message was not taken: its node has left, or it is too large for the SuperLink"
LONGEST_REASON = 1000
"""Characters of an error that a site sends; who sends a novel may not fill the logs."""
POLL_SHARE = 0.03
"""An interval between two looks, over the time nothing has come: nobody waits 3 % longer than he must."""


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


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    allowed: Mapping[int, str],
    *,
    timeout: float,
    window: int | None = None,
    barred: Callable[[], Collection[str]] = frozenset,
) -> Iterator[Reply]:
    """Push ``messages`` and yield each reply as it comes, and a timeout for each that does not.

    One reply is in memory at a time. Flower's own ``send_and_receive`` gathers all of them first and polls
    every three seconds over gRPC. Asking for all pending replies at once would be one request instead of one
    each, but whatever is there comes back together; so they are asked for in turn, at intervals that grow
    while nothing comes (see :func:`poll_seconds`).

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
        Seconds each node has to reply, from when its message is sent.
    window
        Most messages underway at once; the next is sent when a reply has been dealt with. Whatever passes
        on the messages then never holds more replies than this. Worth setting where fewer clients run at once
        than there are nodes, as in a simulation; ``None`` sends everything at once, so that all sites work at
        the same time.
    barred
        Sites that may no longer take part, asked again every second: they are not waited for, and what still
        comes from them is refused.

    Raises
    ------
    GuardError
        If a message is addressed to a node outside ``allowed``.
    """
    for message in messages:
        if message.metadata.dst_node_id not in allowed:
            raise GuardError(
                f"A {message.metadata.message_type} message was addressed to node "
                f"{message.metadata.dst_node_id}, which is not on the list of active sites; nothing sent.",
                "This is a fault of the program: a withdrawn or unknown node must never be asked.",
            )
    _say_what_for(messages)
    about = {m.metadata.dst_node_id: _about(m) for m in messages}
    waiting = deque(messages)
    del messages
    pending: dict[str, tuple[int, float, float]] = {}
    arrived_at = looked_at = time.monotonic()
    gone: Collection[str] = ()
    while waiting or pending:
        room = len(waiting) if window is None else max(window, 1) - len(pending)
        sending = waiting and room > 0
        if sending or time.monotonic() >= looked_at + BARRED_LOOK_SECONDS:
            gone, looked_at = barred(), time.monotonic()
        if sending:
            group = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            late_leavers = [m.metadata.dst_node_id for m in group if allowed[m.metadata.dst_node_id] in gone]
            sent, lost = _push(
                grid, [m for m in group if m.metadata.dst_node_id not in late_leavers], timeout
            )
            pending |= sent
            for message_id, (node_id, _, _) in sent.items():
                tell(INFO, "asked", "", site=allowed[node_id], message=message_id, **about[node_id])
            for node_id in lost:
                not_taken = Reply(node_id, allowed[node_id], "node_unavailable", _NOT_TAKEN, None, sent=False)
                yield _told(not_taken, about)
            for node_id in late_leavers:
                not_asked = Reply(node_id, allowed[node_id], "withdrawn", _NOT_ASKED, None, sent=False)
                yield _told(not_asked, about)
        anything = False
        for message_id, (node_id, deadline, expiry) in list(pending.items()):
            late = time.monotonic() >= deadline
            found = _pull(grid, message_id, node_id, allowed[node_id])
            if allowed[node_id] in (gone if found is None else barred()):
                came = 0 if found is None else found.received
                found = Reply(node_id, allowed[node_id], "withdrawn", _WITHDRAWN, None, received=came)
            missing = found is not None and found.status == "message_unavailable"
            if (late and found is None) or (missing and (late or time.time() >= expiry)):
                # A message that has outlived its time is called unavailable; Flower counts by the clock on
                # the wall, which may be ahead of this one.
                found = Reply(node_id, allowed[node_id], "timeout", f"no answer within {timeout:g} s", None)
            if found is not None:
                del pending[message_id]
                anything = True
                yield _told(found, about)
                found = None  # or it would be in memory while the next one comes
        if anything:
            arrived_at = time.monotonic()
        elif pending:
            next_deadline = min(deadline for _, deadline, _ in pending.values())
            pause = min(poll_seconds(time.monotonic() - arrived_at), next_deadline - time.monotonic())
            time.sleep(max(pause, 0.0))


def let_go_of_each(replies: Iterable[Reply], *, sent: ArrayRecord) -> Iterator[Reply]:
    """The replies to ``sent``, none of whose models stays in memory when the next is asked for."""
    for reply in replies:
        yield reply
        if reply.message is not None:
            let_go(reply.message, sent)
        del reply


def _say_what_for(messages: Sequence[Message]) -> None:
    """Let the sites' log lines name what the work is done for, as this side's do."""
    correlation = belongs_to("correlation")
    for message in messages:
        record = message.content.config_records.get(CONFIG)
        if correlation is not None and record is not None and message.metadata.message_type != IDENTIFY:
            record[CORRELATION] = correlation


def _about(message: Message) -> dict[str, object]:
    return {"type": message.metadata.message_type, "round": config_of(message).get(SERVER_ROUND)}


def _told(reply: Reply, about: Mapping[int, Mapping[str, object]]) -> Reply:
    level = INFO if reply.status == "ok" else WARNING
    tell(level, "answered", reply.reason, site=reply.site, outcome=reply.status, **about[reply.node_id])
    return reply


def poll_seconds(quiet_seconds: float) -> float:
    """Seconds until the next look, when nothing has come for ``quiet_seconds``.

    Three hundredths of the wait so far, within 0.1 s and 0.5 s: short rounds are hardly slowed down, and the
    SuperLink, which is asked for each message by itself, is not kept busy with answering that there is none.
    """
    return min(max(SHORTEST_POLL_SECONDS, POLL_SHARE * quiet_seconds), LONGEST_POLL_SECONDS)


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


def _push(
    grid: Grid, group: list[Message], timeout: float
) -> tuple[dict[str, tuple[int, float, float]], list[int]]:
    """Send a group; returns message id → (node id, deadline, expiry), and nodes that were not sent theirs.

    The deadline is of the monotonic clock, the expiry, which is Flower's, of the wall's.
    """
    deadline, expiry = time.monotonic() + timeout, time.time() + timeout
    for message in group:
        # A message's time to live counts from here, not from when it was made: it may have waited its turn.
        message.metadata.created_at = time.time()
    taken = set(grid.push_messages(group))
    sent = {m.metadata.message_id: (m.metadata.dst_node_id, deadline, expiry) for m in group}
    lost = [m.metadata.dst_node_id for m in group if m.metadata.message_id not in taken]
    return {message_id: where for message_id, where in sent.items() if message_id in taken}, lost


def _pull(grid: Grid, message_id: str, node_id: int, site: str) -> Reply | None:
    for reply in grid.pull_messages([message_id]):
        return as_reply(reply, node_id, site)
    return None
