"""Find out which connected node is which site."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from logging import WARNING

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import RoundError, SiteError
from server.events import Event, announce
from server.persistence import Roster, SiteStatus
from server.terms import broken_terms
from strategies import messages as msg
from strategies.exchange import exchange, readable

_BARRED = "its site has withdrawn or is withdrawing"
_NO_KEY = "its key is enrolled for no site, or was revoked"

KeyHolder = Callable[[int], str | None]
"""Which site the key of a node speaks for; ``None`` if for none."""

LONGEST_ORGAN = 64

ANSWER_SECONDS = 120.0
"""A node's time to say who it is; it may have to read its data for that."""


def identify_sites(
    grid: Grid,
    roster: Roster,
    expected: Collection[str],
    consortium: ConsortiumConfig,
    *,
    round_: int,
    patience: float,
    at_least: int,
    remedy: str,
    answer_seconds: float = ANSWER_SECONDS,
    known: Mapping[int, str] | None = None,
    key_holder: KeyHolder | None = None,
    quiet: bool = False,
    refused: dict[int, str] | None = None,
    heard: Callable[[str, Message], None] | None = None,
    leaving: Collection[str] = (),
) -> dict[int, str]:
    """Ask every connected node who it is, and enrol it.

    The one message that goes to nodes which are not on the list of active sites yet; it carries nothing.
    A node that contradicts the roster (a site claimed twice, another organ, a barred site) is left out, and
    so is one that contradicts its own key or the consortium file; a node whose key speaks for no active site
    is not even asked.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    roster
        Where sites are enrolled.
    expected
        Sites of the consortium that are not withdrawn; waiting ends when all of them are there.
    consortium
        What they must agree with, see :mod:`server.terms`.
    round_
        Current round, for the roster.
    patience
        Seconds to wait for sites that are not there yet.
    at_least
        Fewest sites to go on with.
    remedy
        What to do if there are fewer.
    answer_seconds
        A node's time to answer.
    known
        Nodes that have said who they are already.
    key_holder
        Which site a node's key speaks for, where nodes are authenticated.
    quiet
        Do not mention sites that are missing.
    refused
        Node id → why it is not let in; those in it are not asked again, new ones are added, and those that
        have gone offline taken out.
    heard
        Called with each site that is let in, and its answer.
    leaving
        Sites that are withdrawing and still answer. They are not waited for, and enrolled no more; the roster
        keeps them barred from every round.

    Returns
    -------
    Node id → site.

    Raises
    ------
    RoundError
        If fewer than ``at_least`` sites are there when time is up.
    """
    deadline = time.monotonic() + patience
    members: dict[int, str] = dict(known or {})
    refused = {} if refused is None else refused
    while True:
        online = sorted(grid.get_node_ids())
        for node_id in set(refused).difference(online):
            # Whoever has gone is asked again when it is back.
            del refused[node_id]
        unknown = [n for n in online if n not in members and n not in refused]
        if key_holder is not None:
            for node_id in unknown:
                holder = key_holder(node_id)
                if holder not in expected and holder not in leaving:
                    refused[node_id] = _NO_KEY if holder is None else _BARRED
                    log(WARNING, "handshake: node %d is not asked: %s", node_id, refused[node_id])
            unknown = [node_id for node_id in unknown if node_id not in refused]
        asked = {node_id: f"node-{node_id}" for node_id in unknown}
        messages = [
            Message(
                msg.content(config={msg.SERVER_ROUND: round_}),
                dst_node_id=node_id,
                message_type=msg.IDENTIFY,
                ttl=answer_seconds,
                group_id="handshake",
            )
            for node_id in unknown
        ]
        if messages:
            # In the order of the nodes, not of their answers: if two claim one site, the result must not
            # depend on who was faster.
            replies = sorted(exchange(grid, messages, asked, timeout=answer_seconds), key=lambda r: r.node_id)
            for reply in replies:
                holder = None if key_holder is None else key_holder(reply.node_id)
                problem = _enrol(
                    roster,
                    reply.node_id,
                    reply.message,
                    expected,
                    round_,
                    members,
                    holder,
                    leaving,
                    consortium,
                )
                if problem:
                    refused[reply.node_id] = problem if reply.message else f"{reply.status}: {reply.reason}"
                    log(WARNING, "handshake: node %d refused: %s", reply.node_id, refused[reply.node_id])
                    if problem != _BARRED:
                        told = f"Node {reply.node_id} is refused: {refused[reply.node_id]}"
                        announce(Event("notice", told))
                elif heard is not None and reply.message is not None:
                    heard(members[reply.node_id], reply.message)
        if set(members.values()) >= set(expected):
            return members
        if time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    reasons = " ".join(f"Node {node_id}: {why.rstrip('.')}." for node_id, why in sorted(refused.items()))
    missing = sorted(set(expected) - set(members.values()))
    if len(members) >= at_least:
        if not quiet:
            announce(Event("notice", f"Going on without {', '.join(missing)}."))
        return members
    raise RoundError(
        f"Only {len(members)} of {len(expected)} sites are there after {patience:g} s; missing: "
        f"{', '.join(missing)}." + (f" Refused: {reasons}" if reasons else ""),
        remedy,
    )


def _enrol(
    roster: Roster,
    node_id: int,
    message: Message | None,
    expected: Collection[str],
    round_: int,
    members: dict[int, str],
    holder: str | None,
    leaving: Collection[str],
    consortium: ConsortiumConfig,
) -> str:
    """Enrol one node; returns the reason of a refusal, or nothing."""
    if message is None:
        return "no answer"
    told = msg.config_of(message)
    site, organ = readable(str(told.get(msg.SITE, ""))), readable(str(told.get(msg.ORGAN, "")))
    if holder is not None and site != holder:
        roster.identity_refused(node_id, site, holder)
        return f"it says it is site '{site}', but its key is enrolled for site '{holder}'"
    if site in leaving and site not in members.values():
        members[node_id] = site
        return ""
    if site in {entry.site for entry in roster.all() if entry.status is not SiteStatus.ACTIVE}:
        return _BARRED
    if site not in expected:
        return f"it says it is site '{site}', which is not expected"
    if site in members.values():
        roster.identity_refused(node_id, site, holder)
        return f"it says it is site '{site}', which another node is already"
    examples = told.get(msg.NUM_EXAMPLES, 0)
    if not isinstance(examples, int) or examples < 0:
        return f"'{msg.NUM_EXAMPLES}' must be a whole number, got {examples!r:.40}"
    if (broken := broken_terms(consortium, site, told, examples)) is not None:
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
