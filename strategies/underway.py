"""Messages on their way: sent to chosen nodes only, and looked after until each is answered or overdue."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import Message
from flwr.serverapp import Grid

from reconsent.errors import GuardError
from reconsent.log_lines import belongs_to, tell
from strategies.messages import CONFIG, CORRELATION, IDENTIFY, SERVER_ROUND, config_of
from strategies.replies import Reply, as_reply

_WITHDRAWN = "the site was barred while the round ran; its reply is refused"
_NOT_ASKED = "the site was barred while the round ran; it was not asked any more"
_NOT_TAKEN = "the message was not taken: its node has left, or it is too large for the SuperLink"


@dataclass(frozen=True, slots=True)
class _Sent:
    node_id: int
    site: str
    at: float
    """When, by the monotonic clock."""
    deadline: float
    """By the monotonic clock."""
    expiry: float
    """By the wall's, which is Flower's."""
    about: Mapping[str, object]


class Underway:
    """Messages that were sent and have not come back; nothing here waits.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    timeout
        Seconds each node has to reply, from when its message is sent.
    """

    def __init__(self, grid: Grid, timeout: float) -> None:
        self._grid = grid
        self._timeout = timeout
        self._sent: dict[str, _Sent] = {}

    def __len__(self) -> int:
        """Messages that are neither answered nor overdue yet."""
        return len(self._sent)

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes that have one of them."""
        return frozenset(sent.node_id for sent in self._sent.values())

    @property
    def next_deadline(self) -> float:
        """When the first of them will be overdue, by the monotonic clock; infinite if there is none."""
        return min((sent.deadline for sent in self._sent.values()), default=float("inf"))

    def send(
        self, messages: Sequence[Message], allowed: Mapping[int, str], gone: Collection[str] = ()
    ) -> list[Reply]:
        """Send messages, each to its node.

        Parameters
        ----------
        messages
            One for each node.
        allowed
            See :func:`check_addressees`.
        gone
            Sites that are barred by now: theirs are not sent.

        Returns
        -------
        Those that were not sent, and why.

        Raises
        ------
        GuardError
            If one is addressed to a node outside ``allowed``; nothing is sent then.
        """
        check_addressees(messages, allowed)
        group = [m for m in messages if allowed[m.metadata.dst_node_id] not in gone]
        about = {m.metadata.dst_node_id: _about(m) for m in messages}
        now, expiry = time.monotonic(), time.time() + self._timeout
        for message in group:
            _say_what_for(message)
            # A message's time to live counts from here, not from when it was made: it may have waited.
            message.metadata.created_at = time.time()
        taken = set(self._grid.push_messages(group)) if group else set()
        unsent = []
        for message in messages:
            node_id, message_id = message.metadata.dst_node_id, message.metadata.message_id
            site = allowed[node_id]
            if site in gone:
                unsent.append(Reply(node_id, site, "withdrawn", _NOT_ASKED, None, sent=False))
            elif message_id not in taken:
                unsent.append(Reply(node_id, site, "node_unavailable", _NOT_TAKEN, None, sent=False))
            else:
                self._sent[message_id] = _Sent(
                    node_id, site, now, now + self._timeout, expiry, about[node_id]
                )
                tell(INFO, "asked", "", site=site, message=message_id, **about[node_id])
        for reply in unsent:
            _tell_of(reply, about[reply.node_id])
        return unsent

    def sent_within(self, seconds: float) -> frozenset[int]:
        """Of the nodes that have one of them, those whose was sent no longer ago than so many seconds."""
        since = time.monotonic() - seconds
        return frozenset(sent.node_id for sent in self._sent.values() if sent.at >= since)

    def forget(self, nodes: Collection[int]) -> None:
        """Wait no more for the messages of these nodes."""
        self._sent = {m: sent for m, sent in self._sent.items() if sent.node_id not in nodes}

    def answers(
        self, gone: Collection[str] = (), barred: Callable[[], Collection[str]] = frozenset
    ) -> Iterator[Reply]:
        """Look once for each message: the replies that are there, and a timeout for each that is overdue.

        One reply is in memory at a time.

        Parameters
        ----------
        gone
            Sites that are barred by now, and not waited for.
        barred
            Asked at each reply that comes: one of such a site is refused.
        """
        for message_id, sent in list(self._sent.items()):
            late = time.monotonic() >= sent.deadline
            found = self._pull(message_id, sent)
            if sent.site in (gone if found is None else barred()):
                came = 0 if found is None else found.received
                found = Reply(sent.node_id, sent.site, "withdrawn", _WITHDRAWN, None, received=came)
            missing = found is not None and found.status == "message_unavailable"
            if (late and found is None) or (missing and (late or time.time() >= sent.expiry)):
                # A message that has outlived its time is called unavailable; Flower counts by the clock on
                # the wall, which may be ahead of this one.
                overdue = f"no answer within {self._timeout:g} s"
                found = Reply(sent.node_id, sent.site, "timeout", overdue, None)
            if found is not None:
                del self._sent[message_id]
                _tell_of(found, sent.about)
                yield found
                found = None  # or it would be in memory while the next one comes

    def _pull(self, message_id: str, sent: _Sent) -> Reply | None:
        for reply in self._grid.pull_messages([message_id]):
            return as_reply(reply, sent.node_id, sent.site)
        return None


def check_addressees(messages: Sequence[Message], allowed: Mapping[int, str]) -> None:
    """The last guard before a send: only those on the list of active sites may be asked at all.

    Parameters
    ----------
    messages
        What is to be sent.
    allowed
        Node id → site of those that may be asked.

    Raises
    ------
    GuardError
        If a message is addressed to anybody else.
    """
    for message in messages:
        if message.metadata.dst_node_id not in allowed:
            raise GuardError(
                f"A {message.metadata.message_type} message was addressed to node "
                f"{message.metadata.dst_node_id}, which is not on the list of active sites; nothing sent.",
                "This is a fault of the program: a withdrawn or unknown node must never be asked.",
            )


def _say_what_for(message: Message) -> None:
    """Let the sites' log lines name what the work is done for, as this side's do."""
    correlation = belongs_to("correlation")
    record = message.content.config_records.get(CONFIG)
    if correlation is not None and record is not None and message.metadata.message_type != IDENTIFY:
        record[CORRELATION] = correlation


def _about(message: Message) -> dict[str, object]:
    return {"type": message.metadata.message_type, "round": config_of(message).get(SERVER_ROUND)}


def _tell_of(reply: Reply, about: Mapping[str, object]) -> None:
    level = INFO if reply.status == "ok" else WARNING
    tell(level, "answered", reply.reason, site=reply.site, outcome=reply.status, **about)
