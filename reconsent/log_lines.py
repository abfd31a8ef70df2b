"""Log lines that say what they belong to: run, round, site, withdrawal; for people, or as JSON.

Nothing of a line but its words is free text: the fields are a closed set, and their values names and numbers.
The words come from the program and from what a site let out with an error, which its gate has cleaned of
patients, files and paths (:mod:`client.reasons`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from reconsent.errors import ConfigError

FORMAT_VARIABLE = "RECONSENT_LOG_FORMAT"
NOTHING = "none"
FORMATS = ("human", "json", NOTHING)

FIELDS = (
    "correlation",
    "run",
    "withdrawal",
    "round",
    "site",
    "type",
    "message",
    "outcome",
    "reason",
    "seconds",
    "reference",
    "stage",
    "user",
    "request",
)
"""Everything that a line may say beside its words, in this order."""

_VALUE = re.compile(r"[\w.:@+-]{1,80}")
_BELONGING: ContextVar[Mapping[str, str | int | float]] = ContextVar("belonging", default={})  # noqa: B039 - never changed
_LOGGER = logging.getLogger("reconsent")
_LOGGER.addHandler(logging.NullHandler())
# Not a root logger's business either: one line, once.
_LOGGER.propagate = False


def new_correlation() -> str:
    """A name for what somebody asked for; every line of whatever is done about it has it.

    A withdrawal needs none: its own number is the correlation of all that is done about it.
    """
    return f"R-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}"


def plain(value: object) -> str | int | float | None:
    """A value that may stand in a line: a number, or one word of letters, digits and ``. : @ + -``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) and _VALUE.fullmatch(value) else None


@contextmanager
def belonging(**fields: object) -> Iterator[None]:
    """Lines told within the block have these fields, beside those of blocks around it."""
    token = _BELONGING.set({**_BELONGING.get(), **_admitted(fields)})
    try:
        yield
    finally:
        _BELONGING.reset(token)


def belongs_to(field: str) -> str | int | float | None:
    """The present value of a field; ``None`` if there is none."""
    return _BELONGING.get().get(field)


def tell(level: int, event: str, words: str = "", **fields: object) -> None:
    """Write one line.

    Parameters
    ----------
    level
        As in :mod:`logging`.
    event
        One word that says what happened: what a machine looks for.
    words
        The same for people; free text.
    fields
        Of :data:`FIELDS`; values that are neither numbers nor one word are left out.

    Raises
    ------
    ValueError
        If a field is not one of :data:`FIELDS`.
    """
    if _LOGGER.isEnabledFor(level):
        found = {**_BELONGING.get(), **_admitted(fields)}
        _LOGGER.log(level, "%s", words, extra={"event": event, "belonging": found})


def wanted_format(environment: Mapping[str, str] = os.environ) -> str:
    """The format of lines that ``RECONSENT_LOG_FORMAT`` names; empty if none.

    Raises
    ------
    ConfigError
        If it names an unknown one.
    """
    wanted = environment.get(FORMAT_VARIABLE, "")
    if wanted and wanted not in FORMATS:
        raise ConfigError(
            f"{FORMAT_VARIABLE} is '{wanted}', which is no format of logs.", f"Known: {', '.join(FORMATS)}."
        )
    return wanted


def start_logging(
    environment: Mapping[str, str] = os.environ, *, default: str = "human", file: Path | None = None
) -> None:
    """Write this process's lines to standard error, in the format that ``RECONSENT_LOG_FORMAT`` names.

    Flower's own lines in this process take the same form if it is JSON. May be called again and again.

    Parameters
    ----------
    environment
        Where the variable is looked up.
    default
        Format if it names none; empty to write nothing then.
    file
        Append the lines to this file too; it is put aside (``.1`` to ``.4``) when it is 10 MB large.

    Raises
    ------
    ConfigError
        If it names an unknown one.
    """
    wanted = wanted_format(environment) or default
    if not wanted:
        return
    if wanted == NOTHING:
        _LOGGER.disabled = True
        return
    # Whoever sets logging up by a file, as Flower's database does, switches off all loggers there were.
    _LOGGER.disabled = logging.getLogger("flwr").disabled = False
    ours = next((h for h in _LOGGER.handlers if isinstance(h, _StandardError)), None)
    if ours is None:
        ours = _StandardError()
        _LOGGER.addHandler(ours)
        _LOGGER.setLevel(logging.INFO)
    if file is not None and not any(isinstance(h, _File) for h in _LOGGER.handlers):
        _LOGGER.addHandler(_File(file, maxBytes=10_000_000, backupCount=4, delay=True, encoding="utf-8"))
    for handler in _LOGGER.handlers:
        handler.setFormatter(JsonLines() if wanted == "json" else HumanLines())
    if wanted == "json":
        for handler in logging.getLogger("flwr").handlers:
            handler.setFormatter(JsonLines())


class _StandardError(logging.Handler):
    """To whatever standard error is at that moment: Flower puts another in its place while a run goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a log that cannot be written stops no work."""
        with suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """A log that cannot be written, as on a full disk, stops no work, and is said nowhere else."""


class JsonLines(logging.Formatter):
    """One JSON object a line: ``at``, ``level``, ``logger``, ``event``, ``words``, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without a line break in it; of an exception its class and no words."""
        entry: dict[str, object] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "log"),
            **_ordered(getattr(record, "belonging", _BELONGING.get())),
        }
        if words := _words(record):
            entry["words"] = words
        return json.dumps(entry, ensure_ascii=False)


class HumanLines(logging.Formatter):
    """Time, level, event, words, then ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; control characters of the words are replaced."""
        fields = _ordered(getattr(record, "belonging", {}))
        parts = [_at(record)[11:19], f"{record.levelname:<7}", getattr(record, "event", "log")]
        parts += [words] if (words := _words(record)) else []
        parts += [f"{key}={value}" for key, value in fields.items()]
        return " ".join(parts)


def _words(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        # Its words may name files and patients; who raises it tells what may be told.
        text = f"{text} ({record.exc_info[0].__name__})"
    return "".join(c if c.isprintable() or c == "\t" else " " for c in text).strip()


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _admitted(fields: Mapping[str, object]) -> dict[str, str | int | float]:
    if unknown := fields.keys() - set(FIELDS):
        raise ValueError(f"No field of a log line: {', '.join(sorted(unknown))}.")
    return {key: value for key, given in fields.items() if (value := plain(given)) is not None}


def _ordered(fields: Mapping[str, str | int | float]) -> dict[str, str | int | float]:
    return {key: fields[key] for key in FIELDS if key in fields}
