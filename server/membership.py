"""Who is here: which node speaks for which site, and whether enough of them are online."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from flwr.serverapp import Grid

from reconsent.config import ConsortiumConfig
from reconsent.errors import RoundError, SiteError
from server.events import Event, announce
from server.handshake import Handshake, Told, Welcome
from server.node_keys import fingerprint
from server.persistence import Enrolments, Roster, StateDirectory, Withdrawals
from strategies.exchange import poll_seconds

SIMULATED_PATIENCE_SECONDS = 5.0
"""Simulated nodes are all registered within a moment; who is not there then never will be."""

LOOK_SECONDS = 1.0
"""Between two looks at who has come online, while too few are."""

GREETING_SECONDS = 5.0
"""How long newcomers are waited for when they are asked who they are; who takes longer joins a later round. A
node that comes, is asked and goes again must not hold everybody up for the time it has to answer."""

ASK_AGAIN_SECONDS = 600.0
"""A node that was asked who it is and did not answer, or was refused for what may pass without the server
being told (data that cannot be read, another consortium file), is asked again after so long."""


class _Node(Protocol):
    node_id: int
    public_key: bytes
    last_activated_at: str


class _Circumstances(NamedTuple):
    """What decides who is let in."""

    expected: frozenset[str]
    leaving: frozenset[str]
    keys: Mapping[str, str] | None
    present: frozenset[int]
    """Of the nodes that were let in: each keeps others from being its site."""

    def may_let_in_more_than(self, before: _Circumstances | None) -> bool:
        """Whether somebody who was refused before may be welcome now."""
        return before is None or self[:3] != before[:3] or not before.present <= self.present


class Membership:
    """Keeps the list of nodes that may be asked, and waits for those that are missing.

    Over gRPC with authenticated nodes a node is bound to a site by its key (see
    :class:`~server.persistence.Enrolments`), and what it says of itself must agree. Without keys it is
    believed what it says, as in a simulation.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    consortium
        Which sites are expected, and how long they are waited for.
    state
        Where roster and enrolments are.
    roster
        The roster in it.
    simulated
        Whether the nodes are simulated: then nobody comes or goes.

    Attributes
    ----------
    heard
        Called with each site that is let in, and what it tells of itself; nobody, unless it is set.
    """

    def __init__(
        self,
        grid: Grid,
        consortium: ConsortiumConfig,
        state: StateDirectory,
        roster: Roster,
        *,
        simulated: bool,
    ) -> None:
        self._grid = grid
        self._consortium = consortium
        self._roster = roster
        self._enrolments = Enrolments(state)
        self._withdrawals = Withdrawals(state)
        self._simulated = simulated
        self.heard: Callable[[str, Told], None] | None = None
        self._handshake = self._new_handshake()
        # What there was to know when nodes were refused, and when it was.
        self._known: _Circumstances | None = None
        self._asked_at = 0.0
        # Fingerprints of the keys of nodes seen so far: one that is offline now is still judged by its own.
        self._marks: dict[int, str] = {}
        self._keys = False

    def meet(self, round_: int) -> None:
        """Find out which node is which site, at the beginning of a run.

        Raises
        ------
        RoundError
            If too few sites are there when the time to join is up.
        """
        self._roster.start_run(ephemeral=not self._authenticated())
        self._handshake = self._new_handshake()
        self._asked_at = time.monotonic()
        training = self._consortium.training
        patience, at_least = training.join_seconds, training.min_sites
        greeting = 0.0
        remedy = "Start the missing SuperNodes, or lower training.min-sites."
        if self._simulated:
            # Nobody is late in a simulation, so a site that is missing is a mistake. But answers may be: the
            # first message starts the clients' processes.
            patience, at_least = min(patience, SIMULATED_PATIENCE_SECONDS), len(self._expected())
            greeting = training.timeout_seconds
            sites = len(self._consortium.sites)
            remedy = f"Simulate one node a site: --federation-config 'num-supernodes={sites}'."
        began = time.monotonic()
        while True:
            # Deployed, nobody is kept waiting for another's answer: who comes is asked at the next look.
            self._greet(round_, seconds=greeting)
            missing, waited = self.missing(), time.monotonic() - began
            if not missing and not self._a_leaver_may_answer():
                return
            if waited >= patience:
                break
            time.sleep(min(LOOK_SECONDS, poll_seconds(waited), patience - waited))
        if not missing:
            return
        if (there := len(self.active())) >= at_least:
            announce(Event("notice", f"Going on without {', '.join(missing)}."))
            return
        silent = dict.fromkeys(self._handshake.silent(), "it has not answered yet")
        reasons = " ".join(
            f"Node {node_id}: {why.rstrip('.')}."
            for node_id, why in sorted((silent | self._handshake.refused).items())
        )
        raise RoundError(
            f"Only {there} of {len(self._expected())} sites are there after {patience:g} s; missing: "
            f"{', '.join(missing)}." + (f" Not let in: {reasons}" if reasons else ""),
            remedy,
        )

    def active(self) -> dict[int, str]:
        """Node id → site of the sites that are online and not withdrawn, those with most data first.

        A node whose key was revoked since it joined is none of them. In a simulation fewer clients run at
        once than there are sites: the longest first wastes least.
        """
        size = {entry.site: entry.num_examples for entry in self._roster.active()}
        nodes = [(n, site) for n, site in self._present(self._look()) if site in size]
        return dict(sorted(nodes, key=lambda node: (-size[node[1]], node[1])))

    def leaving(self) -> dict[int, str]:
        """Node id → site of those online that withdraw and still answer, for their part of the unlearning."""
        look = self._look()
        return {n: site for n, site in self._present(look) if site in look.leaving}

    def cooperating(self) -> frozenset[str]:
        """Sites of withdrawals under way that still answer."""
        under_way = self._withdrawals.open()
        return frozenset(site for record in under_way if record.cooperating for site in record.sites)

    def _barred_but_heard(self) -> frozenset[str]:
        """Of those, the ones that take no other part; a site that only patients leave is like any other."""
        return self.cooperating() & self.barred()

    def barred(self) -> frozenset[str]:
        """Sites that are withdrawn or withdrawing at this moment."""
        return self._roster.barred()

    def refused_now(self) -> frozenset[str]:
        """Sites whose replies may not be used any more: barred, or of a node whose key was revoked."""
        if (keys := self._valid_keys()) is None:
            return self.barred()
        members = self._handshake.members
        return self.barred() | {s for n, s in members.items() if keys.get(self._marks.get(n, "")) != s}

    def enrolled_examples(self, site: str) -> int | None:
        """Training examples that ``site`` enrolled with; ``None`` if it never did."""
        return next((e.num_examples for e in self._roster.all() if e.site == site), None)

    def missing(self) -> list[str]:
        """Sites that should be there and are not online."""
        return sorted(self._expected() - set(self.active().values()))

    def refresh(self, round_: int) -> None:
        """Ask nodes that have come since who they are; called before every round, and cheap if none has."""
        if self._simulated:
            return
        for site in self._greet(round_, seconds=GREETING_SECONDS):
            announce(Event("notice", f"Site {site} has joined."))

    def wait(self, round_: int) -> None:
        """Wait until enough sites are online for a round, and say so while waiting.

        Raises
        ------
        RoundError
            If they do not come within ``training.wait-seconds``.
        """
        needed = self._consortium.training.min_sites
        limit = self._consortium.training.wait_seconds
        if (there_are := len(self._expected())) < needed:
            raise RoundError(
                f"Only {there_are} sites remain, and a round needs {needed} (training.min-sites).",
                "Lower training.min-sites in the consortium file, or admit another site; then run "
                "`reconsent resume`.",
            )
        began, told = time.monotonic(), -1
        while True:
            self.refresh(round_)
            there = self.active()
            waited = time.monotonic() - began
            if len(there) >= needed:
                if waited < limit and self._a_leaver_may_answer():
                    time.sleep(LOOK_SECONDS)
                    continue
                if told >= 0:
                    announce(Event("notice", f"{len(there)} sites are online; going on."))
                return
            names = ", ".join(sorted(self._expected() - set(there.values()))) or "none"
            if self._simulated or waited >= limit:
                raise RoundError(
                    f"Only {len(there)} sites were online for {waited:.0f} s, and a round needs {needed} "
                    f"(training.min-sites). Missing: {names}.",
                    "Bring the sites online and run `reconsent resume`; everything up to here is kept.",
                )
            if len(there) != told:
                told = len(there)
                announce(
                    Event(
                        "notice",
                        f"Waiting for sites: {told} of the {needed} needed are online, missing {names}. "
                        f"Giving up after {limit:.0f} s.",
                    )
                )
            time.sleep(min(LOOK_SECONDS, limit))

    def enough(self) -> bool:
        """Whether a round could begin now."""
        return len(self.active()) >= self._consortium.training.min_sites

    def _new_handshake(self) -> Handshake:
        answer = self._consortium.training.timeout_seconds if self._simulated else ASK_AGAIN_SECONDS
        return Handshake(self._grid, self._roster, self._consortium, answer_seconds=answer)

    def _greet(self, round_: int, *, seconds: float) -> list[str]:
        """Ask who is not known, and wait for so long; returns the sites let in."""
        known = self._reconsider()
        before = set(self._handshake.members)
        let_in = self._handshake.ask(round_, self._look, seconds=seconds)
        # Not what holds now: what has changed meanwhile shall be noticed.
        self._known = known._replace(present=known.present | (set(self._handshake.members) - before))
        for site, told in let_in.items():
            if self.heard is not None:
                self.heard(site, told)
        return sorted(let_in)

    def _reconsider(self) -> _Circumstances:
        """Forget refusals whose reason may be gone: they would keep out a site that is welcome now."""
        look = self._look()
        present = frozenset(self._handshake.members.keys() & look.online.keys())
        known = _Circumstances(look.expected, look.leaving, look.keys, present)
        if known.may_let_in_more_than(self._known):
            self._handshake.forget_refusals()
        elif time.monotonic() > self._asked_at + ASK_AGAIN_SECONDS:
            self._asked_at = time.monotonic()
            self._handshake.forget_refusals(passing=True)
        return known

    def _look(self) -> Welcome:
        """Who is there and who may be let in, by one question to the SuperLink."""
        nodes: Iterable[_Node] = self._grid.get_nodes()
        online = {}
        for node in nodes:
            online[node.node_id] = node.last_activated_at
            with suppress(SiteError):
                self._marks[node.node_id] = fingerprint(bytes(node.public_key))
        return Welcome(self._expected(), self._barred_but_heard(), online, self._valid_keys(), self._marks)

    def _present(self, look: Welcome) -> list[tuple[int, str]]:
        """Node id and site of the members that are online and have their site's key."""
        members = [(n, site) for n, site in self._handshake.members.items() if n in look.online]
        return [(n, site) for n, site in members if look.keys is None or look.holder(n) == site]

    def _a_leaver_may_answer(self) -> bool:
        """Whether a site that withdraws and is to do its part may be one of those that were just asked."""
        asked = self._handshake.silent(self._consortium.training.join_seconds)
        return bool(asked) and bool(self._barred_but_heard() - set(self.leaving().values()))

    def _expected(self) -> frozenset[str]:
        return frozenset(site.name for site in self._consortium.sites) - self.barred()

    def _authenticated(self) -> bool:
        # What was enrolled once is never deleted.
        self._keys = self._keys or (not self._simulated and self._enrolments.any())
        return self._keys

    def _valid_keys(self) -> dict[str, str] | None:
        """Fingerprint → site; ``None`` where nodes are not authenticated."""
        if not self._authenticated():
            return None
        return {e.fingerprint: e.site for e in self._enrolments.all() if e.revoked_at is None}
