"""Measurements: each module is a command that measures one thing, and says how to repeat it."""

# First of all: some libraries turn deprecation warnings on, and imported after them this prints its own.
import typer  # noqa: F401
