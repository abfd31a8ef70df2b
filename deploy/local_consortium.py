"""A whole consortium on this machine: one SuperLink, and one SuperNode a site."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy import commands, exporters, processes, readiness
from deploy.admission import Admission, admit
from deploy.certificates import AUTHORITY, check_certificates, make_certificates
from deploy.component import Component, Report, silent
from deploy.continuity import check_continuity, check_no_server
from deploy.flower_control import FlowerControl
from deploy.housekeeping import tidy
from deploy.keeper import KEEPER, keeper_command, keeper_names
from deploy.keys import node_key
from deploy.layout import SUPERLINK, Layout, supernode
from deploy.ports import find_ports
from deploy.processes import ProcessRecord, ProcessTable
from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from reconsent.errors import DeployError, StateError
from reconsent.files import write_atomically
from server.persistence.lock import DirectoryLock

START_SECONDS = 120.0
"""Time for a process to be ready; a busy machine needs many seconds to start Python alone."""

ANSWER_SECONDS = 30.0
"""Time for running processes to answer before they count as hung; patient, as a run may be under way."""


@dataclass(slots=True)
class _Start:
    """What one ``up`` has done so far."""

    running: dict[str, psutil.Process] = field(default_factory=dict)
    started: dict[str, psutil.Process] = field(default_factory=dict)
    metrics: bool = False


class LocalConsortium:
    """SuperLink and SuperNodes on this machine, under one state directory.

    It guarantees that :meth:`up` may be repeated at any time, and after any crash, and that no process is
    ever ended that it did not start. It does not watch the processes: one that dies stays dead until the next
    :meth:`up`.

    Parameters
    ----------
    state
        The state directory; everything lies in its ``deployment/``.
    """

    def __init__(self, state: Path) -> None:
        self.layout = Layout(Path(state).resolve())
        self.control = FlowerControl(self.layout.flower_home)
        self._mark = str(self.layout.root)

    def config(self) -> ConsortiumConfig | None:
        """The consortium that was started here last; ``None`` if none ever was."""
        path = self.layout.consortium
        return load_consortium(path) if path.is_file() else None

    def up(
        self,
        config: ConsortiumConfig,
        *,
        insecure: bool = False,
        metrics: bool = False,
        report: Report = silent,
    ) -> list[Component]:
        """Start what does not run yet, and wait until all of it is ready.

        Parameters
        ----------
        config
            The consortium.
        insecure
            Without TLS and without authentication of the nodes.
        metrics
            Also an exporter for Prometheus at the server and at each site; those that run already are stopped
            if not.
        report
            Told of each step, and of what deserves attention.

        Raises
        ------
        DeployError
            If a process does not start (what was started is stopped again), a certificate has expired,
            another consortium runs here or trained the models, ``reconsent server run`` has the state, or
            another ``up`` or ``down`` is at work.
        StateError
            If the state directory cannot be used.
        """
        self.layout.make()
        with self._locked():
            table = ProcessTable.load(self.layout.processes)
            now = _Start(running=self._running(table), metrics=metrics)
            check_no_server(self.layout)
            self._check_same(config, table, now.running, insecure=insecure)
            check_continuity(self.layout, config)
            self._stop_silent(now.running, table, report)
            self._end_strays(now.running, report)
            if not insecure:
                make_certificates(self.layout.tls)
                for warning in check_certificates(self.layout.tls):
                    report(warning, warning=True)
            write_atomically(self.layout.consortium, dump_consortium(config).encode())
            table.insecure = insecure
            try:
                admissions = self._start_all(config, table, now, report)
            except BaseException:
                self._undo(table, now)
                raise
            return self._describe(table, admissions)

    def down(self, report: Report = silent) -> list[str]:
        """Stop every SuperNode, then the SuperLink, then leftovers; returns the names of what ran.

        Raises
        ------
        DeployError
            If another ``up`` or ``down`` is at work.
        """
        if not self.layout.root.is_dir():
            return []
        with self._locked():
            table = ProcessTable.load(self.layout.processes)
            running = self._running(table)
            nodes = [name for name in running if name != SUPERLINK]
            for names in (nodes, [SUPERLINK] if SUPERLINK in running else []):
                if names:
                    report(f"Stopping {', '.join(names)}")
                    processes.stop([running[name] for name in names])
            left = self._end_strays({}, report)
            for name, record in table.processes.items():
                table.processes[name] = record.stopped()
            table.save(self.layout.processes)
            return [*nodes, *([SUPERLINK] if SUPERLINK in running else []), *left]

    def describe(self) -> list[Component]:
        """What runs at present; an empty list if nothing was ever started here."""
        return self._describe(ProcessTable.load(self.layout.processes), {})

    # ---- starting ---------------------------------------------------------------------------------------

    def _start_all(
        self, config: ConsortiumConfig, table: ProcessTable, now: _Start, report: Report
    ) -> dict[str, Admission]:
        sites = [site.name for site in config.sites]
        self._assign_ports(config, table, sites, now)
        link = table.processes[SUPERLINK]
        if SUPERLINK not in now.running:
            report("Starting the SuperLink")
            tidy(self.layout, config)
            command = commands.superlink_command(self.layout, link.ports, insecure=table.insecure)
            self._start(SUPERLINK, command, commands.superlink_environment(self.layout), table, now)
        authority = None if table.insecure else self.layout.tls / AUTHORITY
        self.control.connect(commands.address(link.ports, commands.API), authority)
        self._wait(now, [SUPERLINK], lambda: readiness.link_is_ready(link))
        admissions = {site: Admission(site, None) for site in sites}
        if not table.insecure:
            report("Registering the sites' keys")
            keys = {site: node_key(self.layout.private_key(site), comment=site) for site in sites}
            admissions = admit(self.control, self.layout.state, keys, by="reconsent up")
        admitted = [site for site in sites if not admissions[site].refusal]
        for site in sites:
            if admissions[site].refusal:
                report(f"Site '{site}' is kept out: {admissions[site].refusal}", warning=True)
        self._stop_nodes_without_place(config, table, admitted, now, report)
        nodes = {site: admissions[site].node_id for site in admitted}
        dead = {site: node_id for site, node_id in nodes.items() if supernode(site) not in now.running}
        # All ports are on this machine, so that a node of a site that does not run here runs nowhere.
        readiness.release(self.layout.database(insecure=table.insecure), dead)
        readiness.await_release(self.control, dead, report)
        self._start_nodes(table, admitted, link, now, report)
        names = [supernode(site) for site in admitted]
        records = {site: table.processes[supernode(site)] for site in admitted}
        ready = readiness.nodes_are_ready
        self._wait(
            now, [SUPERLINK, *names], lambda: ready(self.control, records, nodes, insecure=table.insecure)
        )
        self._start_exporters(table, admitted, now, report)
        self._start_keeper(config, table, now)
        return admissions

    def _start_nodes(
        self, table: ProcessTable, sites: list[str], link: ProcessRecord, now: _Start, report: Report
    ) -> None:
        fleet = commands.address(link.ports, commands.FLEET)
        for site in sites:
            name = supernode(site)
            ports = table.processes[name].ports
            command = commands.supernode_command(self.layout, site, ports, fleet, insecure=table.insecure)
            record = table.processes[name]
            if name in now.running and (record.command != command or self._has_new_key(site, record)):
                # The SuperLink had to move to other ports while this node went on running, or its key was
                # replaced: with the former one it will not be let in any more.
                processes.stop([now.running.pop(name)])
            if name not in now.running:
                report(f"Starting the SuperNode of {site}")
                self._start(name, command, commands.supernode_environment(self.layout, site), table, now)

    def _has_new_key(self, site: str, record: ProcessRecord) -> bool:
        """Whether the site's key was replaced since its node was started; clocks may differ by seconds."""
        key = self.layout.private_key(site)
        return record.started is not None and key.is_file() and key.stat().st_mtime > record.started + 5.0

    def _start_exporters(self, table: ProcessTable, sites: list[str], now: _Start, report: Report) -> None:
        names = exporters.exporter_names(sites) if now.metrics else []
        missing = [name for name in names if name not in now.running]
        if missing:
            report("Starting the exporters of metrics")
        for name in missing:
            ports = table.processes[name].ports
            command = exporters.exporter_command(self.layout, name, ports, insecure=table.insecure)
            self._start(name, command, exporters.exporter_environment(self.layout), table, now)
        self._wait(now, names, lambda: all(exporters.answers(table.processes[name]) for name in names))
        exporters.write_targets(self.layout, table.processes)

    def _start_keeper(self, config: ConsortiumConfig, table: ProcessTable, now: _Start) -> None:
        for name in keeper_names(config):
            if name not in now.running:
                # Of the server: it needs the keys and the database that its runs use.
                environment = commands.superlink_environment(self.layout)
                self._start(name, keeper_command(self.layout), environment, table, now)

    def _start(
        self,
        name: str,
        command: tuple[str, ...],
        environment: dict[str, str],
        table: ProcessTable,
        now: _Start,
    ) -> None:
        ports = table.processes[name].ports
        record = processes.start(name, command, environment, self.layout.log(name))
        table.processes[name] = record.model_copy(update={"ports": ports})
        table.save(self.layout.processes)
        if record.pid is not None:
            with suppress(psutil.NoSuchProcess):
                now.started[name] = psutil.Process(record.pid)

    def _assign_ports(
        self, config: ConsortiumConfig, table: ProcessTable, sites: list[str], now: _Start
    ) -> None:
        names = commands.process_names(config, sites, metrics=now.metrics)
        for name in set(table.processes) - {*names, *now.running}:
            del table.processes[name]
        wanted = []
        for name in names:
            record = table.processes.setdefault(name, ProcessRecord(name=name))
            usual = exporters.SERVER_PORT if name == exporters.METRICS else None
            if name not in now.running:
                purposes = commands.ports_of(name)
                wanted += [(name, purpose, record.ports.get(purpose, usual)) for purpose in purposes]
        taken = {port for name in now.running for port in table.processes[name].ports.values()}
        found = find_ports([port for _, _, port in wanted], taken=taken)
        chosen: dict[str, dict[str, int]] = {}
        for (name, purpose, _), port in zip(wanted, found, strict=True):
            chosen.setdefault(name, {})[purpose] = port
        for name, ports in chosen.items():
            table.processes[name] = table.processes[name].stopped().model_copy(update={"ports": ports})
        table.save(self.layout.processes)

    def _stop_nodes_without_place(
        self, config: ConsortiumConfig, table: ProcessTable, sites: list[str], now: _Start, report: Report
    ) -> None:
        """A site that was barred while its node ran must not stay connected."""
        wanted = set(commands.process_names(config, sites, metrics=now.metrics))
        for name in sorted(set(now.running) - wanted):
            report(f"Stopping {name}")
            processes.stop([now.running.pop(name)])
            table.processes[name] = table.processes[name].stopped()
        table.save(self.layout.processes)

    def _undo(self, table: ProcessTable, now: _Start) -> None:
        nodes = [process for name, process in now.started.items() if name != SUPERLINK]
        processes.stop(nodes)
        processes.stop([process for name, process in now.started.items() if name == SUPERLINK])
        processes.stop(processes.strays(self._mark, now.running.values()))
        for name in now.started:
            table.processes[name] = table.processes[name].stopped()
        with suppress(OSError):
            table.save(self.layout.processes)

    # ---- waiting ----------------------------------------------------------------------------------------

    def _wait(self, now: _Start, names: list[str], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            for name in names:
                process = now.started.get(name) or now.running.get(name)
                if process is None or not processes.is_alive(process):
                    raise self._failure(name, "ended at once")
            if ready():
                return
            if time.monotonic() > deadline:
                raise self._failure(self._slowest(names), f"was not ready after {START_SECONDS:g} s")
            time.sleep(0.2)

    def _slowest(self, names: list[str]) -> str:
        table = ProcessTable.load(self.layout.processes)
        return next((name for name in names if not readiness.serves(table.processes[name])), names[-1])

    def _failure(self, name: str, what: str) -> DeployError:
        log = self.layout.log(name)
        last = processes.tail(log) or "(nothing)"
        return DeployError(
            f"{name} {what}. The last lines of {log}:\n{last}\n",
            "Mend what it complains of, and repeat `reconsent up`; nothing that it started is left running.",
        )

    # ---- recognising ------------------------------------------------------------------------------------

    def _running(self, table: ProcessTable) -> dict[str, psutil.Process]:
        found = {name: processes.find(record, self._mark) for name, record in table.processes.items()}
        return {name: process for name, process in found.items() if process is not None}

    def _check_same(
        self,
        config: ConsortiumConfig,
        table: ProcessTable,
        running: dict[str, psutil.Process],
        *,
        insecure: bool,
    ) -> None:
        if not running:
            return
        remedy = "Stop it first: `reconsent down`."
        if insecure != table.insecure:
            how = "without TLS" if table.insecure else "with TLS"
            raise DeployError(f"The consortium in {self.layout.state} runs {how}.", remedy)
        if self.config() != config:
            raise DeployError(f"Another consortium runs in {self.layout.state}.", remedy)

    def _stop_silent(self, running: dict[str, psutil.Process], table: ProcessTable, report: Report) -> None:
        """Forget what dies at this moment, and end what runs but has long ceased to answer."""
        deadline = time.monotonic() + ANSWER_SECONDS
        for name, process in list(running.items()):
            while not readiness.serves(table.processes[name]):
                if not processes.is_alive(process):
                    del running[name]
                    break
                if time.monotonic() > deadline:
                    report(f"{name} runs but does not answer, and is started again", warning=True)
                    processes.stop([running.pop(name)])
                    break
                time.sleep(0.2)

    def _end_strays(self, running: dict[str, psutil.Process], report: Report) -> list[str]:
        left = processes.strays(self._mark, running.values())
        names = [f"process {process.pid}" for process in left]
        if left:
            report(f"Ending {len(left)} leftover processes of a run that was killed", warning=True)
            processes.stop(left, patience=5.0)
        return names

    def _describe(self, table: ProcessTable, admissions: dict[str, Admission]) -> list[Component]:
        running = self._running(table)
        components = []
        for name, record in table.processes.items():
            site = "" if name in (SUPERLINK, KEEPER) else name.removeprefix(supernode(""))
            if exporters.is_exporter(name):
                site = name.removeprefix(exporters.METRICS).removeprefix("-")
            refusal = admissions[site].refusal if site in admissions else ""
            process = running.get(name)
            status = "kept out" if refusal else "stopped"
            if process is not None:
                status = "running" if readiness.serves(record) else "not serving"
            pid = None if process is None else process.pid
            components.append(
                Component(name, site, status, pid, record.ports, self.layout.log(name), refusal)
            )
        return components

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = DirectoryLock(self.layout.lock)
        except StateError as error:
            raise DeployError(
                f"Another `reconsent up` or `reconsent down` is at work: {error.problem}",
                "Wait until it is done.",
            ) from None
        try:
            yield
        finally:
            lock.release()
