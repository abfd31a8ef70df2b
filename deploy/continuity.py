"""One state directory holds one consortium's models, and has one SuperLink."""

from __future__ import annotations

from deploy.layout import Layout
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import ConfigError, DeployError, StateError
from server.persistence.lock import DirectoryLock, is_held


def check_continuity(layout: Layout, config: ConsortiumConfig) -> None:
    """Refuse a consortium file by which the models there cannot be trained on.

    Sites, rounds and rates may change from one start to the next. Another network has other arrays, and
    another seed makes training patients of those that the sites test on.

    Raises
    ------
    DeployError
        If network or seed differ from those that the models in the state directory were trained with.
    """
    models = layout.state / "models"
    if not (layout.consortium.is_file() and models.is_dir() and any(models.iterdir())):
        return
    try:
        last = load_consortium(layout.consortium)
    except ConfigError:
        # Of another release: whether it differs cannot be said.
        return
    differing = [
        what
        for what, before, now in (("[model]", last.model, config.model), ("seed", last.seed, config.seed))
        if before != now
    ]
    if differing:
        raise DeployError(
            f"{layout.state} holds models of another consortium: {' and '.join(differing)} differ from "
            f"{layout.consortium}, by which they were trained.",
            "Choose another state directory, or the consortium file of these models.",
        )


def check_no_server(layout: Layout) -> None:
    """Refuse to start a second SuperLink beside that of ``reconsent server run``.

    Raises
    ------
    DeployError
        If it runs.
    """
    if layout.root.is_dir() and is_held(layout.superlink_lock):
        raise _in_use(layout)


def hold_superlink(layout: Layout) -> None:
    """Hold the state directory for this process, and for the SuperLink that it will become.

    Raises
    ------
    DeployError
        If another SuperLink holds it.
    """
    try:
        DirectoryLock(layout.superlink_lock).survive_exec()
    except StateError:
        raise _in_use(layout) from None


def _in_use(layout: Layout) -> DeployError:
    return DeployError(
        f"`reconsent server run` runs a SuperLink in {layout.state}.",
        "One state directory has one SuperLink: stop that one first, or choose another with --state.",
    )
