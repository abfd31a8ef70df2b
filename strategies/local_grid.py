"""A Flower grid in one process: runs a ClientApp without SuperLink, Ray or network.

For trials, notebooks and tests of strategies; the messages and the apps are the real ones.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from reconsent.workers import worker_pool
from strategies import messages as msg

SERVER_NODE_ID = 1
CLIENT_APP_RAISED = 2  # flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION


class LocalGrid(Grid):
    """Runs each message's ClientApp here when its reply is pulled, or in a pool of worker processes.

    Parameters
    ----------
    client_app
        The app itself, or where it is, as ``module:attribute`` (needed for worker processes).
    nodes
        Node id → its node configuration.
    workers
        Worker processes; 0 runs everything in this one.
    """

    def __init__(
        self, client_app: ClientApp | str, nodes: Mapping[int, Mapping[str, Any]], *, workers: int = 0
    ) -> None:
        if workers and not isinstance(client_app, str):
            raise TypeError("worker processes load the app themselves: give it as 'module:attribute'")
        _pose_as_a_run()
        self._app = client_app
        self._nodes = {node_id: dict(config) for node_id, config in nodes.items()}
        self._pool: ProcessPoolExecutor | None = None
        if isinstance(client_app, str) and workers:
            self._pool = worker_pool(workers, client_app.partition(":")[0])
        self._replies: dict[str, tuple[Message, int] | Future[Message]] = {}
        self.sent: list[Message] = []
        """Metadata and configuration of every message, without its models, in the order of sending."""

    def close(self) -> None:
        """Stop the worker processes."""
        if self._pool is not None:
            self._pool.shutdown()

    def set_run(self, run: Run) -> None:
        """There are no runs here."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return Run.create_empty(run_id=0)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build a message (deprecated in Flower)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Every node."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand each message to its node."""
        identifiers = []
        for message in messages:
            identifier = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = identifier
            node_id = message.metadata.dst_node_id
            if node_id not in self._nodes:
                continue
            config = self._nodes[node_id]
            if self._pool is None:
                self._replies[identifier] = message, node_id
            else:
                self._replies[identifier] = self._pool.submit(_answer, self._app, message, node_id, config)
            told = msg.content(config=msg.config_of(message)) if message.has_content() else RecordDict()
            self.sent.append(Message(told, node_id, message.metadata.message_type))
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there."""
        ready = []
        for identifier in message_ids:
            waiting = self._replies.get(identifier)
            if waiting is None or (isinstance(waiting, Future) and not waiting.done()):
                continue
            del self._replies[identifier]
            if isinstance(waiting, Future):
                ready.append(waiting.result())
            else:
                message, node_id = waiting
                ready.append(_answer(self._app, message, node_id, self._nodes[node_id]))
        return ready

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and wait for every reply."""
        waiting = self.push_messages(messages)
        for identifier in waiting:
            reply = self._replies[identifier]
            if isinstance(reply, Future):
                reply.result(timeout)
        return self.pull_messages(waiting)


def _pose_as_a_run() -> None:
    """Messages can only be made within a run; outside of Flower's own processes there is none."""
    if TaskIdentity._run_id is None:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = 1
        TaskIdentity.node_id = SERVER_NODE_ID


def _answer(app: ClientApp | str, message: Message, node_id: int, node_config: Mapping[str, Any]) -> Message:
    _pose_as_a_run()
    if isinstance(app, str):
        module, _, attribute = app.partition(":")
        loaded: ClientApp = getattr(import_module(module), attribute)
    else:
        loaded = app
    context = Context(
        run_id=0, node_id=node_id, node_config=dict(node_config), state=RecordDict(), run_config={}
    )
    try:
        return loaded(message, context)
    except Exception as error:  # noqa: BLE001 - what the app raises becomes an error reply, as in Flower
        reason = f"{type(error).__name__}: {error}"
        return Message(Error(code=CLIENT_APP_RAISED, reason=reason), reply_to=message)
