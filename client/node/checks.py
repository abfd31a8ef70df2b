"""Everything that can be checked before a node starts; every problem at once, not one a try."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from client.code_digest import code_digest
from client.device import usable_device
from client.node.budget import check_privacy
from client.node.command import quoted, supernode_program
from client.node.findings import Finding, NodeReport
from client.node.keys import fingerprint, read_private_key
from client.node.settings import NodeSettings
from client.node.tls import check_certificates, check_connection
from client.policy import SitePolicy
from client.settings_file import read_settings
from mri.directory import check_directory
from reconsent.config import ConsortiumConfig, SiteConfig, load_consortium
from reconsent.errors import ConfigError, DataError
from reconsent.log_lines import FORMAT_VARIABLE, wanted_format

Progress = Callable[[int, int], None]


def check_node(
    settings: NodeSettings, *, progress: Progress | None = None, read_data: bool = True, connect: bool = True
) -> NodeReport:
    """Check files, keys, certificates, data, policy, log, ports and the way to the SuperLink.

    Parameters
    ----------
    settings
        Of the node.
    progress
        Called with the number of volumes read and of all volumes.
    read_data
        Read every volume completely, as ``reconsent data check`` does; otherwise only whether the directory
        is there.
    connect
        Try to reach the SuperLink, and compare its certificate with ``ca``.
    """
    report = NodeReport()
    check_certificates(settings.ca, report)
    _check_key(settings.key, report)
    consortium, site = _check_consortium(settings, report)
    _check_data(settings, consortium, site, report, progress if read_data else None, read_data=read_data)
    _check_policy(settings, report)
    _check_log(settings, report)
    _check_log_format(report)
    if consortium is not None and site is not None:
        check_privacy(settings, consortium, site, report)
    _check_ports(settings, report)
    _check_program(settings, report)
    if connect and not any(problem.key == "ca" for problem in report.problems):
        check_connection(settings, report)
    return report


def _check_key(path: Path, report: NodeReport) -> None:
    try:
        report.facts["key"] = f"fingerprint {fingerprint(read_private_key(path).public_key())}"
    except ConfigError as error:
        report.problems.append(Finding.of("key", error))


def _check_consortium(
    settings: NodeSettings, report: NodeReport
) -> tuple[ConsortiumConfig | None, SiteConfig | None]:
    try:
        consortium = load_consortium(settings.consortium)
    except ConfigError as error:
        report.problems.append(Finding.of("consortium", error))
        return None, None
    try:
        site = consortium.site(settings.name)
    except ConfigError as error:
        report.problems.append(Finding.of("name", error))
        return consortium, None
    if settings.organ is not None and settings.organ != site.organ:
        report.problems.append(
            Finding(
                "organ",
                f"The consortium file says that site '{site.name}' has organ '{site.organ}', not "
                f"'{settings.organ}'.",
                "Ask the operator which of them is right.",
            )
        )
    report.facts["consortium"] = f"'{consortium.name}', {len(consortium.sites)} sites; this is '{site.name}'"
    return consortium, site


def _check_data(
    settings: NodeSettings,
    consortium: ConsortiumConfig | None,
    site: SiteConfig | None,
    report: NodeReport,
    progress: Progress | None,
    *,
    read_data: bool,
) -> None:
    directory = settings.data or (site.data if site is not None else None)
    if directory is None:
        if consortium is not None:
            report.notes.append(
                Finding("data", "No data are named: this node will train on phantoms.", "Set data.")
            )
        return
    if not read_data:
        if directory.is_dir():
            report.facts["data"] = f"{directory}, not read now"
        else:
            report.problems.append(Finding("data", f"There is no directory {directory}.", "Check the path."))
        return
    try:
        found = check_directory(directory, progress=progress)
    except DataError as error:
        report.problems.append(Finding.of("data", error))
        return
    report.problems += [Finding("data", f"{p.name}: {p.reason}", p.remedy) for p in found.problems]
    _check_withdrawn_patients(settings, found.patients, report)
    report.facts["data"] = f"{len(found.patients)} patients, {found.slices} slices in {directory}"
    if site is not None and (foreign := sorted(set(found.organs) - {site.organ, ""})):
        report.notes.append(
            Finding(
                "data",
                f"Volumes there show {', '.join(foreign)}, and the site's organ is '{site.organ}'.",
                "Check that it is the right directory.",
            )
        )
    if site is not None and (missing := sorted(set(site.patients) - set(found.patients))):
        report.problems.append(
            Finding(
                "data",
                f"The consortium file names patients that are not there: {', '.join(missing)}.",
                "Mend `patients` there; `reconsent data check` lists the patients of a directory.",
            )
        )


def _check_withdrawn_patients(settings: NodeSettings, found: Collection[str], report: NodeReport) -> None:
    """Whoever is misspelt in the policy is trained on: nothing else would ever tell."""
    try:
        policy = (
            SitePolicy() if settings.policy is None else read_settings(settings.policy, SitePolicy, "policy")
        )
    except ConfigError:
        return  # _check_policy says so.
    if unknown := sorted(set(policy.withdrawn_patients) - set(found)):
        report.notes.append(
            Finding(
                "policy",
                f"withdrawn-patients names {', '.join(unknown)}, who are not among the data: misspelt, or "
                "removed already.",
                "`reconsent data check` lists the patients of a directory; who is misspelt is trained on.",
            )
        )


def _check_policy(settings: NodeSettings, report: NodeReport) -> None:
    if settings.policy is None:
        report.notes.append(
            Finding(
                "policy",
                "There is no policy: the server may ask for any work.",
                "`reconsent site init` has one.",
            )
        )
        return
    try:
        policy = read_settings(settings.policy, SitePolicy, "policy")
    except ConfigError as error:
        report.problems.append(Finding.of("policy", error))
        return
    report.facts["policy"] = str(settings.policy)
    if policy.withdrawn:
        report.notes.append(Finding("policy", "The site has withdrawn: its node refuses every message."))
    if policy.trusted_code and code_digest() not in policy.trusted_code:
        report.notes.append(
            Finding(
                "policy",
                f"The code installed here, {code_digest()}, is not among trusted-code.",
                "If the operator sends the same version, all work will be refused.",
            )
        )
    if stat.S_IMODE(settings.policy.stat().st_mode) & 0o022:
        report.notes.append(
            Finding("policy", "Others than its owner can change the policy.", f"chmod go-w {settings.policy}")
        )


def _check_log(settings: NodeSettings, report: NodeReport) -> None:
    path = settings.log_file
    if path is None:
        report.notes.append(Finding("log", "This site keeps no log of its own.", "Set log."))
        return
    there = path if path.exists() else path.parent
    if path.is_symlink() or (path.exists() and not path.is_file()):
        report.problems.append(Finding("log", f"{path} is not a plain file.", "Name another."))
    elif not there.exists():
        report.problems.append(Finding("log", f"There is no directory {there}.", "Make it."))
    elif not os.access(there, os.W_OK):
        report.problems.append(Finding("log", f"{there} is not writable.", "Mend its permissions."))
    else:
        report.facts["log"] = str(path)


def _check_log_format(report: NodeReport) -> None:
    try:
        wanted_format()
    except ConfigError as error:
        report.problems.append(Finding.of(FORMAT_VARIABLE, error))


def _check_ports(settings: NodeSettings, report: NodeReport) -> None:
    ports = {"runtime-port": settings.runtime_port, "health-port": settings.health_port}
    if settings.runtime_port == settings.health_port:
        report.problems.append(Finding("health-port", "It is the same as runtime-port.", "Choose another."))
        return
    for key, port in ports.items():
        if port is None:
            continue
        with socket.socket() as candidate:
            # As servers do: connections of a server that has just ended do not count.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError as error:
                report.problems.append(
                    Finding(
                        key,
                        f"Port {port} of this machine cannot be used: {error.strerror}.",
                        f"Is a node running already? If it is another one, give this one its own {key}.",
                    )
                )


def _check_program(settings: NodeSettings, report: NodeReport) -> None:
    if not os.access(supernode_program(), os.X_OK):
        report.problems.append(
            Finding("program", f"There is no {supernode_program()}.", "Install Reconsent again.")
        )
    if settings.code == "received":
        report.notes.append(
            Finding("code", "The node runs whatever code the server sends.", 'Set code = "installed".')
        )
    if settings.data is not None:
        try:
            quoted(str(settings.data))
        except ConfigError as error:
            report.problems.append(Finding.of("data", error))
    try:
        usable_device(settings.device)
    except ConfigError as error:
        report.problems.append(Finding.of("device", error))
    report.facts["code"] = code_digest()
