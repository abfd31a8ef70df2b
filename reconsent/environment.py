"""Names of environment variables, and how consortium and state directory are found by them.

Server, sites and command line must look in the same places; each variable is described in
``docs/configuration.md``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from reconsent.errors import ConfigError

CONSORTIUM_VARIABLE = "RECONSENT_CONSORTIUM"
STATE_VARIABLE = "RECONSENT_STATE"
PHANTOMS_VARIABLE = "RECONSENT_PHANTOMS"
LEDGERS_VARIABLE = "RECONSENT_PRIVACY_LEDGERS"
DATABASE_VARIABLE = "RECONSENT_DATABASE_URL"
DEVICE_VARIABLE = "RECONSENT_DEVICE"

DEFAULT_STATE = "reconsent-state"


def consortium_source(run_config: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> str:
    """The consortium's file or preset: ``RECONSENT_CONSORTIUM``, else the run configuration's ``consortium``.

    Raises
    ------
    ConfigError
        If neither says so.
    """
    source = environment.get(CONSORTIUM_VARIABLE) or run_config.get("consortium")
    if not source:
        raise ConfigError(
            "It is not said which consortium this is.",
            f"Set consortium in the run configuration, or {CONSORTIUM_VARIABLE} in the environment.",
        )
    return str(source)


def state_path(given: object = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The server's state directory: ``given``, else ``RECONSENT_STATE``, else ``./reconsent-state``.

    Empty counts as not given.
    """
    return Path(str(given or environment.get(STATE_VARIABLE) or DEFAULT_STATE)).resolve()


def phantoms_path(run_config: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> Path:
    """Where phantoms of sites without data are, one directory a site.

    ``RECONSENT_PHANTOMS``, or below the state directory that the server would use.
    """
    if environment.get(PHANTOMS_VARIABLE):
        return Path(environment[PHANTOMS_VARIABLE]).absolute()
    return state_path(run_config.get("state"), environment) / "phantoms"
