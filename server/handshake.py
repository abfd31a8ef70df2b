"""Find out which connected node is which site."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from logging import WARNING

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import SiteError
from server.events import Event, announce
from server.persistence import Roster, SiteStatus
from server.terms import broken_terms
from strategies import messages as msg
from strategies.exchange import SHORTEST_POLL_SECONDS
from strategies.replies import Reply, readable
from strategies.underway import Underway

_BARRED = "its site has withdrawn or is withdrawing"
_NO_KEY = "its key is enrolled for no site, or was revoked"

KeyHolder = Callable[[int], str | None]
"""Which site the key of a node speaks for; ``None`` if for none."""

LONGEST_ORGAN = 64


@dataclass(frozen=True, slots=True)
class Welcome:
    """Who may be let in at this moment.

    Attributes
    ----------
    expected
        Sites of the consortium that are not withdrawn.
    leaving
        Sites that are withdrawing and still answer. They are enrolled no more; the roster keeps them barred
        from every round.
    key_holder
        Which site a node's key speaks for; ``None`` where nodes are not authenticated.
    """

    expected: Collection[str]
    leaving: Collection[str] = ()
    key_holder: KeyHolder | None = None


class Handshake:
    """Asks nodes who they are, and enrols them or refuses them.

    The one message that goes to nodes which are not on the list of active sites yet; it carries nothing.
    A node that contradicts the roster (a site claimed twice, another organ, a barred site) is left out, and
    so is one that contradicts its own key or the consortium file; a node whose key speaks for no welcome
    site is not even asked.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    roster
        Where sites are enrolled.
    consortium
        What they must agree with, see :mod:`server.terms`.
    answer_seconds
        A node's time to answer; it may have to read its data for that.

    Attributes
    ----------
    members
        Node id → site of those that were let in.
    refused
        Node id → why it was not. Those in it are not asked again before they have gone offline, or were taken
        out.
    """

    def __init__(
        self, grid: Grid, roster: Roster, consortium: ConsortiumConfig, *, answer_seconds: float
    ) -> None:
        self._grid = grid
        self._roster = roster
        self._consortium = consortium
        self._answer_seconds = answer_seconds
        self._underway = Underway(grid, answer_seconds)
        self.members: dict[int, str] = {}
        self.refused: dict[int, str] = {}

    def has_news(self) -> bool:
        """Whether :meth:`ask` would have somebody to ask, or to hear."""
        return bool(self._underway) or bool(self._strangers())

    def ask(
        self, round_: int, who_is_welcome: Callable[[], Welcome], *, seconds: float | None = None
    ) -> list[tuple[str, Message]]:
        """Ask every node that is not known, and let in those that answer as they should.

        Parameters
        ----------
        round_
            Current round, for the roster.
        who_is_welcome
            Says who may be let in, before they are asked and again when they have answered: that may take
            minutes.
        seconds
            To wait for the answers; what comes later is heard at the next call. ``None`` waits until each
            has answered or has had its time.

        Returns
        -------
        The sites that were let in, and their answers.
        """
        questions, to, welcome = [], {}, who_is_welcome()
        for node_id in self._strangers():
            holder = None if welcome.key_holder is None else welcome.key_holder(node_id)
            if welcome.key_holder is not None and holder not in {*welcome.expected, *welcome.leaving}:
                self.refused[node_id] = _NO_KEY if holder is None else _BARRED
                log(WARNING, "handshake: node %d is not asked: %s", node_id, self.refused[node_id])
                continue
            to[node_id] = f"node-{node_id}"
            questions.append(
                Message(
                    msg.content(config={msg.SERVER_ROUND: round_}),
                    dst_node_id=node_id,
                    message_type=msg.IDENTIFY,
                    ttl=self._answer_seconds,
                    group_id="handshake",
                )
            )
        answers = self._underway.send(questions, to)
        deadline = time.monotonic() + (self._answer_seconds if seconds is None else seconds)
        while True:
            answers += self._underway.answers()
            if not self._underway or time.monotonic() >= deadline:
                break
            time.sleep(SHORTEST_POLL_SECONDS)
        # In the order of the nodes, not of their answers: if two claim one site, the result must not depend
        # on who was faster.
        answers.sort(key=lambda reply: reply.node_id)
        welcome = who_is_welcome() if answers else welcome
        return [admitted for reply in answers if (admitted := self._admit(reply, round_, welcome))]

    def _strangers(self) -> list[int]:
        """Nodes to ask: online, and neither let in, refused nor asked already."""
        online = set(self._grid.get_node_ids())
        # Whoever has gone is asked again when it is back.
        self.refused = {node_id: why for node_id, why in self.refused.items() if node_id in online}
        return sorted(online.difference(self.members, self.refused, self._underway.nodes))

    def _admit(self, reply: Reply, round_: int, welcome: Welcome) -> tuple[str, Message] | None:
        if reply.message is None:
            problem: str = f"{reply.status}: {reply.reason}"
        else:
            problem = self._enrol(reply.node_id, reply.message, round_, welcome)
            if not problem:
                return self.members[reply.node_id], reply.message
        self.refused[reply.node_id] = problem
        log(WARNING, "handshake: node %d refused: %s", reply.node_id, problem)
        if problem != _BARRED:
            announce(Event("notice", f"Node {reply.node_id} is refused: {problem}"))
        return None

    def _enrol(self, node_id: int, message: Message, round_: int, welcome: Welcome) -> str:
        """Enrol one node; returns the reason of a refusal, or nothing."""
        roster, members = self._roster, self.members
        told = msg.config_of(message)
        site, organ = readable(str(told.get(msg.SITE, ""))), readable(str(told.get(msg.ORGAN, "")))
        holder = None if welcome.key_holder is None else welcome.key_holder(node_id)
        if holder is not None and site != holder:
            roster.identity_refused(node_id, site, holder)
            return f"it says it is site '{site}', but its key is enrolled for site '{holder}'"
        if welcome.key_holder is not None and holder is None:
            return _NO_KEY  # revoked since it was asked
        if site in welcome.leaving and site not in members.values():
            members[node_id] = site
            return ""
        if site in {entry.site for entry in roster.all() if entry.status is not SiteStatus.ACTIVE}:
            return _BARRED
        if site not in welcome.expected:
            return f"it says it is site '{site}', which is not expected"
        if site in members.values():
            roster.identity_refused(node_id, site, holder)
            return f"it says it is site '{site}', which another node is already"
        examples = told.get(msg.NUM_EXAMPLES, 0)
        if not isinstance(examples, int) or examples < 0:
            return f"'{msg.NUM_EXAMPLES}' must be a whole number, got {examples!r:.40}"
        if (broken := broken_terms(self._consortium, site, told, examples)) is not None:
            roster.site_refused(node_id, site, broken.kind, broken.parts)
            return broken.text
        if len(organ) > LONGEST_ORGAN:
            return f"its organ has a name of {len(organ)} characters"
        before = next((e.num_examples for e in roster.all() if e.site == site and e.first_round), examples)
        try:
            if holder is not None:
                # The key says who it is: a node with a former key of the site speaks for it no more.
                roster.supersede(site, node_id)
            roster.enrol(site, node_id, organ, examples, round=round_)
        except SiteError as error:
            return str(error)
        if examples > before:
            # Its weight in the average grows with it, so somebody should know.
            grown = f"Site {site} enrols with {examples} training examples; it had {before} before."
            announce(Event("notice", grown))
        members[node_id] = site
        return ""
