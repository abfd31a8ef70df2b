"""What a consortium's state and configuration say for a record of processing activities."""

from __future__ import annotations

import datetime as dt
from typing import Any

from reconsent.config import ConsortiumConfig
from reconsent.privacy import PrivacyConfig
from server.names import MAIN
from server.persistence import (
    Enrolments,
    Exports,
    Ledger,
    ModelRegistry,
    Roster,
    StateDirectory,
    VersionStatus,
    Withdrawals,
)

TO_FILL_IN = "TO BE FILLED IN BY THE ORGANISATION"

Section = dict[str, Any]


def record_of_processing(
    state: StateDirectory, consortium: ConsortiumConfig, now: dt.datetime
) -> dict[str, Any]:
    """The record as JSON values.

    Returns
    -------
    ``title``, ``made_at``, ``notice``, ``to_fill_in`` (the mark of open fields), ``simulated``, and
    ``sections``: title to label to a text, a number, a list of texts, or the mark.
    """
    simulated = any(withdrawal.simulated for withdrawal in Withdrawals(state).all())
    return {
        "title": f"Record of processing: consortium {consortium.name}",
        "made_at": now.isoformat(timespec="seconds"),
        "notice": "A draft from what the software knows. It is no legal advice, and not complete before the "
        "marked fields are filled in and somebody who answers for the processing has checked it.",
        "to_fill_in": TO_FILL_IN,
        "simulated": simulated,
        "sections": {
            "Who (Art. 30(1)(a))": _who(state, consortium),
            "Purpose and legal basis (Art. 30(1)(b))": _purpose(consortium),
            "People and data (Art. 30(1)(c))": _data(state, consortium),
            "Recipients and transfers (Art. 30(1)(d), (e))": _recipients(state),
            "Retention (Art. 30(1)(f))": _retention(state, consortium),
            "Security (Art. 30(1)(g), 32)": _security(state, consortium),
            "Requests of withdrawal (Art. 12, 17, 19)": _requests(state, now),
            "Impact assessment (Art. 35)": _assessment(consortium),
        },
    }


def markdown(record: dict[str, Any]) -> str:
    """The same as Markdown; open fields are bold."""
    lines = [f"# {record['title']}", "", f"Made {record['made_at']}. {record['notice']}", ""]
    if record["simulated"]:
        lines += ["**SIMULATION: not evidence.** The state is that of a simulation.", ""]
    for title, fields in record["sections"].items():
        lines += [f"## {title}", "", "| | |", "| --- | --- |"]
        lines += [f"| {label} | {_cell(value)} |" for label, value in fields.items()]
        lines.append("")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value == TO_FILL_IN:
        return f"**{TO_FILL_IN}**"
    text = "<br>".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _who(state: StateDirectory, consortium: ConsortiumConfig) -> Section:
    known = consortium.compliance
    roster = {entry.site: entry.status.value for entry in Roster(state).all()}
    return {
        "Controller": known.controller or TO_FILL_IN,
        "Joint controllers, and their arrangement (Art. 26)": TO_FILL_IN,
        "Processors, and their contracts (Art. 28)": TO_FILL_IN,
        "Data protection officer": known.privacy_officer or TO_FILL_IN,
        "Sites": [f"{site.name} ({roster.get(site.name, 'not joined yet')})" for site in consortium.sites],
    }


def _purpose(consortium: ConsortiumConfig) -> Section:
    return {
        "Purpose": consortium.compliance.purpose,
        "Legal basis (Art. 6 and 9)": consortium.compliance.legal_basis or TO_FILL_IN,
        "Approval of an ethics committee": TO_FILL_IN,
    }


def _data(state: StateDirectory, consortium: ConsortiumConfig) -> Section:
    examples = {entry.site: entry.num_examples for entry in Roster(state).all()}
    total = sum(examples.values())
    return {
        "People": f"patients whose MR examinations the sites train on; {TO_FILL_IN}: how many",
        "Data that stays at each site": "raw MR data (k-space) and images, with the headers of their files",
        "What leaves a site": [
            "the parameters of the model after local training (its update)",
            "numbers: examples, loss, image quality (PSNR, SSIM), working time",
            "its name, by its node's key",
        ],
        "What never leaves a site": "images, k-space, names of files and patients",
        "Could updates be personal data?": "Yes, and they are treated as such: training data might be "
        "reconstructed from them, and no proof to the contrary is known.",
        "Organs": [f"{site.name}: {site.organ}" for site in consortium.sites],
        "Examples (slices) the sites reported": total if examples else "none yet",
    }


def _recipients(state: StateDirectory) -> Section:
    exports = Exports(state).all()
    return {
        "The model goes to": "every active site, in every round",
        "Exports": [f"{e.at:%Y-%m-%d}: version {e.version} to {e.recipient}" for e in exports],
        "Transfers to third countries, with their safeguards (Art. 44 to 49)": TO_FILL_IN,
    }


def _retention(state: StateDirectory, consortium: ConsortiumConfig) -> Section:
    # Commands and paths say where keys are; a record is read by many.
    hidden = {"wrap_command", "unwrap_command", "master_key"} & type(
        consortium.contributions
    ).model_fields.keys()
    kept = consortium.contributions.model_dump(mode="json", by_alias=True, exclude=hidden)
    versions = ModelRegistry(state).all(MAIN)
    revoked = sum(version.status is VersionStatus.REVOKED for version in versions)
    return {
        "Contributions of sites (configured)": [
            f"{key} = {value}" for key, value in kept.items() if value not in (None, "", [])
        ],
        "Contributions after a withdrawal": "erased when it completes; the list with hashes is kept",
        "Model versions": f"{len(versions)} on record, {revoked} revoked; files of old ones are removed",
        "Records of rounds, withdrawals, and the ledger": "kept with the state; they hold no patients",
        "Time limits of the organisation (HIPAA: six years; AI Act, providers: ten)": TO_FILL_IN,
        "Backups, and how an erasure reaches them": TO_FILL_IN,
    }


def _security(state: StateDirectory, consortium: ConsortiumConfig) -> Section:
    keys = [enrolment for enrolment in Enrolments(state).all() if enrolment.revoked_at is None]
    checkpoint = Ledger(state).checkpoint()
    contributions = consortium.contributions.model_dump(mode="json", by_alias=True)
    return {
        "Transport": "gRPC over TLS; each site's node proves itself by its own key"
        if keys
        else "no keys are enrolled: a simulation, or not deployed yet",
        "Keys in use": len(keys),
        "Contributions at rest": f"encryption: {contributions.get('encryption', 'not configured')}",
        "Differential privacy": _privacy(consortium),
        "Screening of updates": ", ".join(
            f"{key} = {value}" for key, value in consortium.screening.model_dump(by_alias=True).items()
        ),
        "Log that cannot be rewritten unnoticed": "none yet"
        if checkpoint is None
        else f"{checkpoint.size} entries, root {checkpoint.root}",
        "Access to the servers, and who has it": TO_FILL_IN,
    }


def _privacy(consortium: ConsortiumConfig) -> str | list[str]:
    """The consortium's table, for the sites without one of their own, and each of theirs."""

    def said(privacy: PrivacyConfig) -> str:
        if privacy.mode == "none":
            return "none"
        table = privacy.model_dump(mode="json", by_alias=True, exclude_none=True)
        return ", ".join(f"{key} = {value}" for key, value in table.items())

    own = [f"{site.name}: {said(site.privacy)}" for site in consortium.sites if site.privacy]
    if not own:
        return said(consortium.privacy)
    others = [f"the other sites: {said(consortium.privacy)}"] if len(own) < len(consortium.sites) else []
    return own + others


def _requests(state: StateDirectory, now: dt.datetime) -> Section:
    records = Withdrawals(state).all()
    return {
        "Requests": [
            f"{r.id}: {r.state.value}, received {r.received_at:%Y-%m-%d}, due {r.due_at:%Y-%m-%d}"
            + (", OVERDUE" if r.overdue(now) else "")
            + (", closed late" if r.late else "")
            for r in records
        ],
        "How long they took (days)": [
            f"{r.id}: {(r.closed_at - r.received_at).total_seconds() / 86400:.1f}"
            for r in records
            if r.closed_at
        ],
        "Who answers requesters, and how": TO_FILL_IN,
    }


def _assessment(consortium: ConsortiumConfig) -> Section:
    unlearning = consortium.unlearning
    return {
        "What is new about it": "a model is trained across hospitals; a hospital's contribution is taken out "
        "again when it withdraws",
        "Why the data need not be moved": "training takes place at the sites; only updates leave them",
        "Is the model anonymous?": "It is not assumed to be (EDPB Opinion 28/2024): whoever claims it must "
        "show by tests that extraction is insignificantly likely.",
        "Method of unlearning": f"{unlearning.method}; see the certificates for what it was shown to do",
        "Known risks": [
            "training data might be reconstructed from updates or contributions at the server",
            "membership of a patient might be inferred from the model",
            "an approximate unlearning leaves traces; models given out before keep everything",
            "one who has the server's disk and keys can read contributions",
        ],
        "Necessity and proportionality": TO_FILL_IN,
        "Views of the people concerned (Art. 35(9))": TO_FILL_IN,
        "Residual risk, and who accepts it": TO_FILL_IN,
    }
