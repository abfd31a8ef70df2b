"""Which differences between two copies of the consortium file matter between server and site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconsent.agreement import shared_parts
from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from reconsent.errors import ConfigError


def consortium(**tables: Any) -> ConsortiumConfig:
    """Two hospitals; ``tables`` replace those of the file, and ``north`` and ``south`` extend a site's."""
    sites = [{"name": n, "organ": "brain", **tables.pop(n, {})} for n in ("north", "south")]
    return ConsortiumConfig.model_validate({"sites": sites, **tables})


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"seed": 1}, {"seed"}),
        ({"model": {"cascades": 5}}, {"model"}),
        ({"training": {"local-epochs": 3}}, {"training"}),
        ({"training": {"gradient-clip": 0.5}}, {"training"}),
        ({"north": {"sampling": {"acceleration": 4}}}, {"sampling"}),
        ({"privacy": {"mode": "sample", "target-epsilon": 8}}, {"privacy"}),
        ({"north": {"privacy": {"mode": "sample", "target-epsilon": 8}}}, {"privacy"}),
        ({"model": {"cascades": 3}}, set()),
        ({"training": {"rounds": 9, "learning-rate": 0.1, "timeout-seconds": 5, "min-sites": 2}}, set()),
        ({"north": {"data": "/scans", "test-fraction": 0.5, "max-examples": 9}}, set()),
        ({"south": {"sampling": {"acceleration": 4}}}, set()),
        ({"screening": {"max-norm": 1.0}}, set()),
        ({"privacy": {"gradients": "loop"}}, set()),
    ],
)
def test_only_what_both_must_share_is_compared(changed: dict[str, Any], parts: set[str]) -> None:
    """Each part has a digest of its own; where the data lie and what only the server reads has none."""
    usual, other = shared_parts(consortium(), "north"), shared_parts(consortium(**changed), "north")
    assert {part for part in usual if usual[part] != other[part]} == parts


@pytest.mark.parametrize("preset", ["tiny", "demo", "paper"])
def test_a_copy_with_every_default_spelled_out_agrees(preset: str, tmp_path: Path) -> None:
    """The server's resolved file and a hospital's short one have the same digests."""
    config = load_consortium(preset)
    copy = tmp_path / "consortium.toml"
    copy.write_text(dump_consortium(config), encoding="utf-8")
    for site in config.sites:
        assert shared_parts(load_consortium(copy), site.name) == shared_parts(config, site.name)


def test_a_site_that_is_not_there() -> None:
    """A name of no site is refused by name."""
    with pytest.raises(ConfigError, match="no site 'east'"):
        shared_parts(consortium(), "east")
