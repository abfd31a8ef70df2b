"""The consortium that the console shows: its state, opened once, and looked up again when it was replaced."""

from __future__ import annotations

import threading
from pathlib import Path

from cli.register import consortium_of
from deploy.admission import open_beside_server
from reconsent.config import ConsortiumConfig
from reconsent.errors import StateError
from server.persistence import StateDirectory
from server.persistence.state import DATABASE


class OpenState:
    """A state directory for short reads and writes, beside a server or without one.

    Parameters
    ----------
    path
        The state directory, of a deployment or of a simulation.

    Raises
    ------
    StateError
        If there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if not self.path.is_dir():
            raise StateError(
                f"There is no state directory {self.path}.",
                "Name it with --state, or set one up with `reconsent up`.",
            )
        self._lock = threading.Lock()
        self._state: StateDirectory | None = None
        self._stamp: object = None

    def state(self) -> StateDirectory:
        """The state; opened anew if its database was replaced, as by a restored backup.

        Raises
        ------
        StateError
            If it cannot be used.
        """
        with self._lock:
            stamp = self._present()
            if self._state is None or stamp != self._stamp:
                self.close()
                self._state = open_beside_server(self.path)
                self._stamp = self._present()
            return self._state

    def consortium(self) -> ConsortiumConfig:
        """Its consortium, as its file says now.

        Raises
        ------
        ConfigError
            If there is no file, or it is wrong.
        """
        return consortium_of(self.path)

    def close(self) -> None:
        """Close the database."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _present(self) -> object:
        try:
            found = (self.path / DATABASE).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
