"""The gate every message passes before a site works it, and every reply before it leaves.

A Flower mod: it asks the site's policy, keeps the site's log, and lets no identifier out with an error.

It holds against any server where the site runs its own installed app, as ``reconsent site run`` makes it do
(:mod:`client.node.own_code`). Where the app comes from the server, as Flower does by itself, a server that
means harm could send one without this gate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode

from client.code_digest import code_digest
from client.model_digest import model_digest
from client.policy import UNLOGGED, UNREADABLE, Refusal, current_policy, refusal_of
from client.privacy.refusal import BudgetSpentError
from client.reasons import is_simulated, new_reference, simulated_reason, told_reason, where_it_failed
from client.site import identify_site
from client.site_log import DAY_SECONDS, LogError, SiteLog, log_path
from client.witness import Witness, witness_path
from reconsent.errors import ConfigError, ReconsentError
from reconsent.log_lines import belonging, plain, start_logging, tell
from strategies import messages as msg


def site_gate(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Refuse, or work and log, one message; never raises, so that no exception's text reaches the server.

    A refusal is an error reply whose reason begins with ``refused-by-site: CODE:`` (see
    :class:`client.policy.Refusal`), a failure one that begins with ``failed-at-site: CLASS:``.
    """
    # In a simulation the sites' lines would come between the pictures of the progress.
    default = "" if is_simulated(context.node_config) else "human"
    try:
        start_logging(default=default)
    except ConfigError as error:
        # A log in another form than was wanted is no reason to let an exception out.
        start_logging({}, default="human")
        tell(WARNING, "log", f"{error} Until then lines are for people.")
    try:
        path = log_path(context.node_config, os.environ)
        entry = _entry(message, context)
    except Exception as error:  # noqa: BLE001 - as in _passed: its text would reach the server
        return _fail(message, context, error, None, {})
    told = {field: entry[field] for field in ("correlation", "run", "round", "site", "type", "message")}
    with belonging(**told):
        return _passed(message, context, call_next, path, entry)


def _passed(
    message: Message,
    context: Context,
    call_next: Callable[[Message, Context], Message],
    path: Path | None,
    entry: dict[str, Any],
) -> Message:
    began = time.perf_counter()
    site_log = SiteLog(path) if path is not None else None
    try:
        refusal = _refusal(message, context, site_log)
        if refusal is None and site_log is not None:
            # Before the work: a site that cannot log must not train.
            entry |= _model(message, "received")
            site_log.append("received", entry)
        if refusal is None:
            tell(INFO, "received")
            reply = call_next(message, context)
            _say_witnessed(reply, path)
            if site_log is not None:
                sent = _model(reply, "sent") | {"bytes-sent": msg.model_bytes(reply)}
                site_log.append("worked", entry | sent | {"seconds": _since(began)})
            tell(INFO, "worked", seconds=_since(began))
            return reply
    except LogError as error:
        tell(ERROR, "log", str(error))
        refusal = UNLOGGED
    except BudgetSpentError as error:
        tell(WARNING, "log", str(error))
        refusal = Refusal(msg.BUDGET_SPENT, error.problem)
    except Exception as error:  # noqa: BLE001 - whatever it is, Flower would send its text to the server
        return _fail(message, context, error, site_log, entry | {"seconds": _since(began)})
    return _refuse(message, refusal, site_log, entry)


def _refusal(message: Message, context: Context, site_log: SiteLog | None) -> Refusal | None:
    try:
        policy = current_policy(context.node_config, os.environ)
    except ReconsentError as error:
        tell(ERROR, "log", str(error))
        return UNREADABLE
    refusal = refusal_of(
        policy,
        message.metadata.message_type,
        code=code_digest,
        trained_today=lambda: (
            None if site_log is None else site_log.trainings(since=time.time() - DAY_SECONDS)
        ),
    )
    if refusal is not None or site_log is None or message.metadata.message_type != msg.TRAIN:
        return refusal
    return Witness(witness_path(site_log.path)).refusal(msg.config_of(message), pinned=policy.ledger_key)


def _say_witnessed(reply: Message, log_file: Path | None) -> None:
    """Add to a reply how much of the ledger this site has seen, so that the server can prove the rest."""
    metrics = reply.content.metric_records.get(msg.METRICS) if reply.has_content() else None
    if log_file is not None and metrics is not None and reply.metadata.message_type == msg.TRAIN:
        entries = Witness(witness_path(log_file)).entries()
        if entries is not None:
            metrics[msg.WITNESSED] = entries


def _refuse(message: Message, refusal: Refusal, site_log: SiteLog | None, entry: dict[str, Any]) -> Message:
    tell(WARNING, "refused", refusal.sentence, reason=refusal.code)
    if site_log is not None:
        try:
            site_log.append("refused", entry | {"reason": refusal.code})
        except LogError as error:
            tell(ERROR, "log", str(error))
    return _error(message, ErrorCode.MOD_FAILED_PRECONDITION, _said(refusal))


def _fail(
    message: Message, context: Context, error: Exception, site_log: SiteLog | None, entry: dict[str, Any]
) -> Message:
    reference = new_reference()
    names = _names(context)
    tell(ERROR, "failed", where_it_failed(error, names), reference=reference, reason=type(error).__name__)
    if is_simulated(context.node_config):
        reason = simulated_reason(error)
    else:
        reason = told_reason(error, reference=reference, names=names)
    if site_log is not None:
        try:
            # The class alone: the log may be handed to others.
            site_log.append("failed", entry | {"reason": type(error).__name__, "reference": reference})
        except LogError as unwritable:
            tell(ERROR, "log", str(unwritable))
    return _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{msg.FAILED_AT_SITE}: {reason}")


def _names(context: Context) -> Collection[str] | None:
    """File names and patients of the site; ``None`` if they cannot be found out."""
    try:
        return identify_site(context.node_config, context.run_config, os.environ).identifiers()
    except Exception:  # noqa: BLE001 - the failure itself may have been of this kind
        return None


def _entry(message: Message, context: Context) -> dict[str, Any]:
    metadata = message.metadata
    config = msg.config_of(message) if message.has_content() else {}
    return {
        # Of the server's words only what can be nothing but a name.
        "correlation": plain(config.get(msg.CORRELATION)),
        "site": str(context.node_config.get("site", context.node_config.get("partition-id", ""))),
        "run": str(metadata.run_id),
        "message": metadata.message_id,
        "type": metadata.message_type,
        "round": config.get(msg.SERVER_ROUND),
        "bytes-received": msg.model_bytes(message),
    }


def _model(message: Message, way: str) -> dict[str, Any]:
    record = msg.received_model(message) if message.has_content() else None
    return {f"model-{way}": None if record is None else model_digest(record)}


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _said(refusal: Refusal) -> str:
    return f"{msg.REFUSED_BY_SITE}: {refusal.code}: {refusal.sentence}"


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
