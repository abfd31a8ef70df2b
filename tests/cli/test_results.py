"""results.json: what is written is read back, and what is wrong is refused."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cli import results as module
from cli.results import Quality, Results, json_schema
from cli.results_reference import reference
from reconsent.errors import ConfigError
from tests.cli.results_builder import build_results

ROOT = Path(__file__).parents[2]
finite = st.floats(allow_nan=False, allow_infinity=False)


def _edited(path: Path, **changes: Any) -> Path:
    table = json.loads(path.read_text())
    path.write_text(json.dumps(table | changes))
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A results file as a run leaves it."""
    path = tmp_path / "results.json"
    build_results().save(path)
    return path


def test_round_trip(saved: Path) -> None:
    """Reading gives back an equal object, and saving it again the same bytes."""
    results = build_results()
    assert Results.load(saved) == results
    first = saved.read_bytes()
    Results.load(saved).save(saved)
    assert saved.read_bytes() == first


@settings(max_examples=25, deadline=None)
@given(psnr=finite, ssim=st.floats(-1, 1), nmse=st.floats(0, 1e6), hfen=st.floats(0, 1e6))
def test_numbers_survive_exactly(psnr: float, ssim: float, nmse: float, hfen: float) -> None:
    """Every finite number comes back to the last bit."""
    quality = Quality(psnr=psnr, ssim=ssim, nmse=nmse, hfen=hfen)
    again = Quality.model_validate(json.loads(json.dumps(quality.model_dump(mode="json"))))
    assert again == quality


def test_keys_are_plain_json(saved: Path) -> None:
    """Another program finds the documented keys: steps as strings, times in ISO 8601 with UTC."""
    table = json.loads(saved.read_text())
    assert table["schema_version"] == 1
    assert table["simulation"] is True
    assert list(table["relearn"]["unlearned"]) == ["4", "8", "16", "32"]
    assert datetime.datetime.fromisoformat(table["created"]).utcoffset() == datetime.timedelta(0)
    assert table["rounds"][22]["sites"]["abdomen"]["outcome"] == "refused"


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_unknown_version_is_refused(saved: Path, version: object) -> None:
    """A file of any other schema version is refused, and the message names both versions."""
    with pytest.raises(ConfigError, match=r"schema version .*reads version 1"):
        Results.load(_edited(saved, schema_version=version))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_is_refused_when_built(value: float) -> None:
    """No result can be built with a number that JSON does not have, not even in the configuration."""
    with pytest.raises(ValidationError):
        Quality(psnr=value, ssim=0.5, nmse=0.1, hfen=0.1)
    with pytest.raises(ValidationError, match="finite number"):
        build_results(consortium={"training": {"rates": [0.1, value]}})
    with pytest.raises(ValidationError):
        build_results(relearn={"original": {4: value}})


def test_nan_is_refused_when_read(saved: Path) -> None:
    """A file with a bare NaN, which Python would accept, is refused."""
    saved.write_text(saved.read_text().replace('"seed": 0', '"seed": NaN'))
    with pytest.raises(ConfigError, match="NaN is not allowed"):
        Results.load(saved)


def test_every_problem_is_named(saved: Path) -> None:
    """A file that does not fit is refused with the place of each problem."""
    with pytest.raises(ConfigError) as caught:
        Results.load(_edited(saved, seed=-1, colour="blue", sites=[]))
    assert all(place in caught.value.problem for place in ("- seed:", "- colour:", "- sites:"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_no_results_at_all(tmp_path: Path, text: str) -> None:
    """A file that is no JSON, or not an object, is refused without a traceback of the parser."""
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"results\.json"):
        Results.load(path)


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is reported as such."""
    with pytest.raises(ConfigError, match="cannot be read"):
        Results.load(tmp_path / "nothing.json")


def test_contradictions_are_refused() -> None:
    """Withdrawals must agree with the sites, and names must differ."""
    results = build_results().model_dump()
    with pytest.raises(ValidationError, match="which is no site"):
        build_results(withdrawals=[results["withdrawals"][0] | {"sites": ["heart"]}])
    with pytest.raises(ValidationError, match="not those of the withdrawals"):
        build_results(withdrawals=[])
    with pytest.raises(ValidationError, match="same name"):
        build_results(sites=[*results["sites"], results["sites"][0]])
    with pytest.raises(ValidationError, match="withdrawn_at_round"):
        build_results(sites=[results["sites"][0] | {"withdrawn": True}])


def test_results_cannot_be_changed() -> None:
    """Results are frozen: what was measured is not edited."""
    with pytest.raises(ValidationError, match="frozen"):
        build_results().seed = 3  # type: ignore[misc]


def test_a_failed_save_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails while saving, the old results stay whole and no part is left behind."""
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        build_results("ruined").save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_documentation_is_current() -> None:
    """docs/results.md is what the models say now."""
    current = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert current == reference(), "run: python -m cli.results_reference > docs/results.md"


def test_every_field_is_described() -> None:
    """Every field of every object has a description, in the reference and in the JSON Schema."""
    models = [m for m in vars(module).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    records = [m for m in models if m.__module__ == module.__name__]
    assert len(records) >= 14
    missing = [f"{m.__name__}.{n}" for m in records for n, f in m.model_fields.items() if not f.description]
    assert not missing
    text = reference()
    assert all(f"## {m.__name__}\n" in text for m in records if m is not module.Record)
    schema = json_schema()
    assert schema["properties"].keys() == Results.model_fields.keys()
    assert schema["additionalProperties"] is False
