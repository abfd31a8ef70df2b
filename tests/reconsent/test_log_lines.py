"""Log lines: what they say, in which form, and what never gets into them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconsent.errors import ConfigError
from reconsent.log_lines import (
    FIELDS,
    FORMAT_VARIABLE,
    belonging,
    belongs_to,
    new_correlation,
    plain,
    start_logging,
    tell,
)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No handler of another test before, and none of this one after."""
    logger = logging.getLogger("reconsent")
    before, logger.handlers = logger.handlers, []
    yield
    logger.handlers = before


def test_json_lines_say_what_they_belong_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields of the blocks around a line and its own are in it; those of a block that ended are not."""
    start_logging({FORMAT_VARIABLE: "json"})
    with belonging(run="12", correlation="R-1"):
        with belonging(withdrawal="W-1", correlation="W-1"):
            tell(logging.INFO, "answered", "two\nlines", site="knee", round=3, outcome="ok")
        assert belongs_to("correlation") == "R-1"
        tell(logging.WARNING, "notice", "a word")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert {key: first[key] for key in ("run", "withdrawal", "correlation", "site", "round", "outcome")} == {
        "run": "12",
        "withdrawal": "W-1",
        "correlation": "W-1",
        "site": "knee",
        "round": 3,
        "outcome": "ok",
    }
    assert first["event"] == "answered" and first["level"] == "info" and first["words"] == "two lines"
    assert second["correlation"] == "R-1" and "withdrawal" not in second
    assert second["at"].endswith("+00:00")


def test_none_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where lines were written before; and they can be wanted again."""
    start_logging({})
    start_logging({FORMAT_VARIABLE: "none"})
    tell(logging.WARNING, "notice", "unwanted")
    start_logging({})
    tell(logging.WARNING, "notice", "wanted")
    said = capsys.readouterr().err
    assert "wanted" in said and "unwanted" not in said


def test_another_librarys_set_up_does_not_silence_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger that was switched off by a logging configuration of others writes again."""
    logging.getLogger("reconsent").disabled = True
    start_logging({})
    tell(logging.INFO, "answered", "still here")
    assert "still here" in capsys.readouterr().err


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """One line an event: time, level, event, words, then key=value."""
    start_logging({})
    tell(logging.WARNING, "answered", "it was late\x1b[31m", site="knee", round=3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line[8:] == " WARNING answered it was late [31m round=3 site=knee"


def test_fields_are_names_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """Free text is left out of a field, and a field that nobody declared is a fault of the program."""
    start_logging({FORMAT_VARIABLE: "json"})
    tell(logging.INFO, "answered", site="Anna Mueller", type="a\nb", message="m-1", round=None)
    line = json.loads(capsys.readouterr().err)
    assert set(line) & set(FIELDS) == {"message"}
    with pytest.raises(ValueError, match="patient"):
        tell(logging.INFO, "answered", patient="p-1")
    given = ("a/b", "a" * 81, True, 1.5, "x.y-z")
    assert [plain(value) for value in given] == [None, None, None, 1.5, "x.y-z"]


def test_an_exception_tells_its_class_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of Flower take the same form, and of an exception nothing but the class is written."""
    flower = logging.getLogger("flwr")
    handler = logging.StreamHandler()
    before, flower.handlers = flower.handlers, [handler]
    flower.disabled = True  # As Flower's database leaves it.
    try:
        start_logging({FORMAT_VARIABLE: "json"})
        try:
            raise OSError("/data/Mueller_Anna.h5")
        except OSError:
            with belonging(run="9"):
                flower.error("it failed", exc_info=True)
    finally:
        flower.handlers = before
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["words"], line["run"]) == ("flwr", "it failed (OSError)", "9")


def test_nothing_is_written_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a format and without a default there are no lines; an unknown format is refused by name."""
    start_logging({}, default="")
    tell(logging.ERROR, "failed", "aloud")
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="'xml'"):
        start_logging({FORMAT_VARIABLE: "xml"})


def test_correlations_differ() -> None:
    """Two requests of one second have two names, and each may stand in a line."""
    first, second = new_correlation(), new_correlation()
    assert first != second and plain(first) == first


def test_a_file_gets_the_same_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go to the file as to standard error; a file that cannot be written stops nothing."""
    start_logging({}, file=tmp_path / "server.log")
    tell(logging.INFO, "round", "one")
    assert (tmp_path / "server.log").read_text(encoding="utf-8") == capsys.readouterr().err
    logging.getLogger("reconsent").handlers = []
    start_logging({}, file=tmp_path / "missing" / "server.log")
    tell(logging.INFO, "round", "two")
    assert "two" in capsys.readouterr().err


def test_every_field_is_explained() -> None:
    """The table of docs/logs.md names each field that a line may have, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {word for cell in cells for word in re.findall(r"`([a-z]+)`", cell)}
    assert named == {*FIELDS, "at", "level", "logger", "event", "words"}
