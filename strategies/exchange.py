"""Send to chosen nodes only, and take the replies one by one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from strategies.messages import let_go
from strategies.replies import Reply
from strategies.underway import Underway, check_addressees

SHORTEST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 0.5
BARRED_LOOK_SECONDS = 1.0
"""Between two looks at who has been barred, while nothing comes."""
POLL_SHARE = 0.03
"""An interval between two looks, over the time nothing has come: nobody waits 3 % longer than he must."""


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
        Node id → site of those that may be asked at all; a message to anybody else is an error, and nothing
        is sent.
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
    check_addressees(messages, allowed)
    waiting = deque(messages)
    del messages
    underway = Underway(grid, timeout)
    arrived_at = looked_at = time.monotonic()
    gone: Collection[str] = ()
    while waiting or underway:
        room = len(waiting) if window is None else max(window, 1) - len(underway)
        sending = waiting and room > 0
        if sending or time.monotonic() >= looked_at + BARRED_LOOK_SECONDS:
            gone, looked_at = barred(), time.monotonic()
        if sending:
            group = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            yield from underway.send(group, allowed, gone)
            del group
        before = len(underway)
        yield from underway.answers(gone, barred)
        if len(underway) < before:
            arrived_at = time.monotonic()
        elif underway:
            pause = min(
                poll_seconds(time.monotonic() - arrived_at), underway.next_deadline - time.monotonic()
            )
            time.sleep(max(pause, 0.0))


def let_go_of_each(replies: Iterable[Reply], *, sent: ArrayRecord) -> Iterator[Reply]:
    """The replies to ``sent``, none of whose models stays in memory when the next is asked for."""
    for reply in replies:
        yield reply
        if reply.message is not None:
            let_go(reply.message, sent)
        del reply


def poll_seconds(quiet_seconds: float) -> float:
    """Seconds until the next look, when nothing has come for ``quiet_seconds``.

    Three hundredths of the wait so far, within 0.1 s and 0.5 s: short rounds are hardly slowed down, and the
    SuperLink, which is asked for each message by itself, is not kept busy with answering that there is none.
    """
    return min(max(SHORTEST_POLL_SECONDS, POLL_SHARE * quiet_seconds), LONGEST_POLL_SECONDS)
