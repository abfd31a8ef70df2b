"""Find out which connected node is which site."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import NamedTuple

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import SiteError
from server.events import Event, announce
from server.persistence import Roster, SiteStatus
from server.terms import broken_terms
from strategies import messages as msg
from strategies.exchange import poll_seconds
from strategies.replies import readable
from strategies.underway import Underway

_BARRED = "its site has withdrawn or is withdrawing"
_NO_KEY = "its key is enrolled for no site, or was revoked"
_SAYS = "it says it is site"
_LASTING = (_BARRED, _NO_KEY, _SAYS)
"""How reasons begin that the server would know to be gone: by who is barred, by the keys, by who else is
there, or by the node's being activated anew."""

Told = Mapping[str, int | float | str | bool]
"""What a node says of itself."""

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
    online
        Node id → when it was last activated, as the SuperLink tells; empty if it does not.
    keys
        Fingerprint → site of the keys that are valid; ``None`` where nodes are not authenticated.
    marks
        Node id → the fingerprint of its key, of every node that was seen.
    """

    expected: frozenset[str]
    leaving: frozenset[str]
    online: Mapping[int, str]
    keys: Mapping[str, str] | None
    marks: Mapping[int, str]

    def holder(self, node_id: int) -> str | None:
        """Which site the key of a node speaks for; ``None`` if for none, or where nodes have none."""
        return None if self.keys is None else self.keys.get(self.marks.get(node_id, ""))


class _Answer(NamedTuple):
    """What a node said, without whatever else came with it; or what became of the question."""

    node_id: int
    told: Told | None
    problem: str


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
        A node's time to answer; it may have to read its data for that. What came until somebody looks again
        counts, however late that is.

    Attributes
    ----------
    members
        Node id → site of those that were let in.
    refused
        Node id → why it was not. Those in it are not asked again before they were offline or activated anew,
        or the refusal is forgotten.
    """

    def __init__(
        self, grid: Grid, roster: Roster, consortium: ConsortiumConfig, *, answer_seconds: float
    ) -> None:
        self._grid = grid
        self._roster = roster
        self._consortium = consortium
        self._underway = Underway(grid, answer_seconds)
        self.members: dict[int, str] = {}
        self.refused: dict[int, str] = {}
        # Members that were let in as sites that leave: nothing of what they told was looked at.
        self._leavers: set[int] = set()
        self._activated: Mapping[int, str] = {}

    def silent(self, seconds: float = math.inf) -> frozenset[int]:
        """Nodes that were asked, no longer ago than so many seconds, and have not answered yet."""
        return self._underway.sent_within(seconds)

    def forget_refusals(self, *, passing: bool = False) -> None:
        """Ask those again who were refused; with ``passing`` none that could not but be refused again."""
        self.refused = {n: w for n, w in self.refused.items() if passing and w.startswith(_LASTING)}

    def ask(self, round_: int, look: Callable[[], Welcome], *, seconds: float) -> dict[str, Told]:
        """Ask every node that is not known, and let in those that answer as they should.

        Parameters
        ----------
        round_
            Current round, for the roster.
        look
            Says who is there and who may be let in, before they are asked and again when there are answers:
            that may take minutes.
        seconds
            To wait for those that are asked now; what comes later is heard at a later call.

        Returns
        -------
        The sites that were let in, and what they told.
        """
        welcome = look()
        self._let_go_of_cancelled_leavers(welcome)
        strangers = self._strangers(welcome)
        asked = self._send(round_, strangers, welcome) if strangers else frozenset()
        answers = self._listen(asked, seconds)
        if not answers:
            return {}
        welcome = look()
        self._let_go_of_who_left(welcome)
        let_in = {}
        # In the order of the nodes, not of their answers: if two of those that have answered by now claim
        # one site, the result does not depend on who was faster.
        for answer in sorted(answers, key=lambda a: a.node_id):
            if answer.told is None:
                self._refuse(answer.node_id, answer.problem)
            elif answer.node_id not in welcome.online:
                continue  # Who said it is gone; it is asked again when it is back.
            elif problem := self._enrol(answer.node_id, answer.told, round_, welcome):
                self._refuse(answer.node_id, problem)
            else:
                let_in[self.members[answer.node_id]] = answer.told
        return let_in

    def _strangers(self, welcome: Welcome) -> list[int]:
        """Nodes to ask: online, and neither let in, refused nor asked already."""
        online, before = welcome.online, self._activated
        # Whoever has gone, or was gone between two looks, is asked again when it is back: it may answer
        # otherwise now, and the question it took may have ended with its process.
        other = {n for n in {*self.refused, *self.silent()} if online.get(n) != before.get(n, online.get(n))}
        self.refused = {n: why for n, why in self.refused.items() if n not in other}
        self._underway.forget(other)
        self._activated = dict(online)
        return sorted(online.keys() - self.members.keys() - self.refused.keys() - self.silent())

    def _send(self, round_: int, strangers: Sequence[int], welcome: Welcome) -> frozenset[int]:
        """Ask those of the strangers that may be somebody; returns whom."""
        self._let_go_of_who_left(welcome)
        to = {}
        for node_id in strangers:
            holder = welcome.holder(node_id)
            if welcome.keys is None or holder in welcome.expected | welcome.leaving:
                to[node_id] = f"node-{node_id}"
            else:
                self.refused[node_id] = _NO_KEY if holder is None else _BARRED
                log(WARNING, "handshake: node %d is not asked: %s", node_id, self.refused[node_id])
        content = {msg.SERVER_ROUND: round_}
        questions = [
            Message(
                msg.content(config=content), dst_node_id=n, message_type=msg.IDENTIFY, group_id="handshake"
            )
            for n in to
        ]
        for unsent in self._underway.send(questions, to):
            self._refuse(unsent.node_id, f"{unsent.status}: {unsent.reason}")
        return frozenset(to)

    def _listen(self, asked: frozenset[int], seconds: float) -> list[_Answer]:
        """The answers that are there, when all of those asked have answered or they were waited for."""
        answers: list[_Answer] = []
        began = time.monotonic()
        while True:
            for reply in self._underway.answers():
                told = None if reply.message is None else msg.config_of(reply.message)
                answers.append(_Answer(reply.node_id, told, f"{reply.status}: {reply.reason}"))
                del reply
            waited = time.monotonic() - began
            if waited >= seconds or not asked & self.silent():
                return answers
            time.sleep(min(poll_seconds(waited), seconds - waited))

    def _let_go_of_cancelled_leavers(self, welcome: Welcome) -> None:
        """A site that stays after all is enrolled like any other."""
        self._leavers &= self.members.keys()
        stays = {n for n in self._leavers if self.members[n] in welcome.expected}
        self._leavers -= stays
        self.members = {n: site for n, site in self.members.items() if n not in stays}

    def _let_go_of_who_left(self, welcome: Welcome) -> None:
        """Keep no site from the node that speaks for it now."""
        if welcome.keys is not None:
            self.members = {n: site for n, site in self.members.items() if welcome.holder(n) == site}
            return
        # Without keys a restarted node has a new id, and its site must be free for it.
        for node_id in self.members.keys() - welcome.online.keys():
            del self.members[node_id]
            self._roster.release(node_id)

    def _refuse(self, node_id: int, problem: str) -> None:
        self.refused[node_id] = problem
        log(WARNING, "handshake: node %d refused: %s", node_id, problem)
        if problem != _BARRED:
            announce(Event("notice", f"Node {node_id} is refused: {problem}"))

    def _enrol(self, node_id: int, told: Told, round_: int, welcome: Welcome) -> str:
        """Enrol one node; returns the reason of a refusal, or nothing."""
        roster, members = self._roster, self.members
        site, organ = readable(str(told.get(msg.SITE, ""))), readable(str(told.get(msg.ORGAN, "")))
        holder = welcome.holder(node_id)
        if holder is not None and site != holder:
            roster.identity_refused(node_id, site, holder)
            return f"{_SAYS} '{site}', but its key is enrolled for site '{holder}'"
        if welcome.keys is not None and holder is None:
            return _NO_KEY  # revoked since it was asked
        if site in welcome.leaving and site not in members.values():
            members[node_id] = site
            self._leavers.add(node_id)
            return ""
        if site in {entry.site for entry in roster.all() if entry.status is not SiteStatus.ACTIVE}:
            return _BARRED
        if site not in welcome.expected:
            return f"{_SAYS} '{site}', which is not expected"
        if site in members.values():
            roster.identity_refused(node_id, site, holder)
            return f"{_SAYS} '{site}', which another node is already"
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
