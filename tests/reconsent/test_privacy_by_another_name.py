"""`dp` and `privacy` are one table, of a consortium and of a site."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from reconsent.config import ConsortiumConfig, dump_consortium, parse_consortium
from reconsent.errors import ConfigError

ROW = 'dp = {mode = "sample", target-epsilon = 8, delta = 1e-5, max-grad-norm = 1.0}'
SITE = '[[sites]]\nname = "{0}"\norgan = "knee"\n'


def parsed(consortium: str = "", site: str = "") -> ConsortiumConfig:
    text = f"{consortium}\n{SITE.format('a')}{site}\n{SITE.format('b')}"
    return parse_consortium(tomllib.loads(text), where="a.toml", base=Path())


@pytest.mark.parametrize("place", ["consortium", "site"])
def test_dp_is_privacy(place: str) -> None:
    """Both names give equal objects at both places, and what is written back is called privacy."""
    found = parsed(**{place: ROW})
    assert found == parsed(**{place: ROW.replace("dp", "privacy", 1)})
    own = found.privacy_of(found.site("a"))
    assert (own.mode, own.target_epsilon, own.delta, own.max_grad_norm) == ("sample", 8, 1e-5, 1)
    assert found.privacy_of(found.site("b")).by_sample is (place == "consortium")
    written = tomllib.loads(dump_consortium(found))
    where = written if place == "consortium" else written["sites"][0]
    assert where["privacy"]["target-epsilon"] == 8
    assert "dp" not in where
    assert parse_consortium(written, where="b.toml", base=Path()) == found


@pytest.mark.parametrize("place", ["consortium", "site"])
def test_both_names_are_one_too_many(place: str) -> None:
    """A table under each of the names is refused, even if they say the same."""
    both = f"{ROW}\n{ROW.replace('dp', 'privacy', 1)}"
    with pytest.raises(ConfigError, match="'dp' is another name of 'privacy', and both are given") as caught:
        parsed(**{place: both})
    assert ("sites.0:" in caught.value.problem) is (place == "site")


def test_a_slip_in_it_is_named() -> None:
    """A wrong key in a `dp` table is refused with the nearest one, as in `privacy`."""
    with pytest.raises(
        ConfigError, match=r"unknown key 'privacy\.target-epsilom'; did you mean 'target-epsilon'"
    ):
        parsed(consortium=ROW.replace("target-epsilon", "target-epsilom"))
