"""Whom a strategy asks in a round, and what it tells them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from strategies import messages as msg
from strategies.exchange import exchange
from strategies.members import Members
from strategies.replies import Reply, as_reply
from strategies.round_hooks import RoundHooks


class Correspondence(RoundHooks):
    """The messages of a round, to the sites that may be asked, and their replies.

    Parameters are those of :class:`~strategies.averaging.ContributionAveraging`.
    """

    def __init__(
        self,
        *,
        members: Members,
        barred: Iterable[str],
        site_config: Callable[[str], Mapping[str, int | float | str | bool]] | None,
        timeout: float,
        window: int | None,
        barred_now: Callable[[], Collection[str]],
        patients_left: Callable[[], Collection[str]],
    ) -> None:
        self.members = members
        self.barred = frozenset(barred)
        self.site_config = site_config
        self.timeout = timeout
        self.window = window
        self.barred_now = barred_now
        self.patients_left = patients_left
        self._asked: dict[int, str] = {}

    def active(self, grid: Grid) -> dict[int, str]:
        """Node id → site of those that may be asked now."""
        return {n: site for n, site in self.members(grid).items() if site not in self.barred}

    def _messages(
        self,
        message_type: str,
        server_round: int,
        arrays: ArrayRecord,
        config: Mapping[str, object],
        grid: Grid,
    ) -> list[Message]:
        self._asked = self.active(grid)
        return self._messages_to(self._asked, message_type, server_round, arrays, config)

    def _messages_to(
        self,
        nodes: Mapping[int, str],
        message_type: str,
        server_round: int,
        arrays: ArrayRecord,
        config: Mapping[str, object],
    ) -> list[Message]:
        number = self.told_round(server_round)
        told: dict[str, Any] = {**config, msg.SERVER_ROUND: number}
        own = self.site_config if message_type == msg.TRAIN else None
        without = self.patients_left()
        return [
            Message(
                msg.content(
                    arrays=arrays,
                    config={
                        **told,
                        **({} if own is None else own(site)),
                        **({msg.PATIENTS_LEFT: True} if site in without else {}),
                    },
                ),
                dst_node_id=node_id,
                message_type=message_type,
                ttl=self.timeout,
                group_id=str(number),
            )
            for node_id, site in nodes.items()
        ]

    def _exchange(self, grid: Grid, to_send: list[Message]) -> Iterator[Reply]:
        return exchange(
            grid, to_send, self._asked, timeout=self.timeout, window=self.window, barred=self.barred_now
        )

    def _as_reply(self, reply: Message) -> Reply:
        node_id = reply.metadata.src_node_id
        return as_reply(reply, node_id, self._asked.get(node_id, f"node-{node_id}"))
