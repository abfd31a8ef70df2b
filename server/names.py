"""Names under which things lie in the state, for those who only look and need nothing of Flower."""

from __future__ import annotations

MAIN = "main"
"""The line of models that the consortium trains and uses."""
ORACLE = "oracle"
"""The line of the model retrained without who left; simulations only."""

TARGET = "training-target"
"""Progress key: how many training rounds there shall be."""
RUN = "run"
"""Progress key: the last run, what it was asked, and how it ended."""

SERVER = "server"
"""Who acted, where it was the server itself."""
