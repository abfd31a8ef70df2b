"""What may be claimed, from which facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unlearning.certificate.claim import SENTENCES, Certified, ClaimLevel, Facts, claim_of
from unlearning.certificate.evidence import About, Evidence, Figure, Limit, judge

L = ClaimLevel


def measured(value: float = 0.1, *, about: About = About.FORGETTING, before: float | None = 3.0) -> Evidence:
    """A figure against a limit of ±0.5."""
    figure = Figure(name="gap/x", about=about, value=value, unit="dB", before=before)
    return Evidence(figure=figure, limit=Limit(-0.5, 0.5))


DONE = Facts(
    completed=True, in_part=False, contributions_left=0, changed=True, lineage_clean=False, fresh_only=True,
    fixed_before=True,
)  # fmt: skip
BOUND = Certified(
    epsilon=1.5, delta=1e-5, mechanism="noisy descent", assumptions="convex loss", accountant="rdp 1.0"
)
PASSED = (measured(),)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, L.PARTICIPATION_ENDED),
        ({"lineage_clean": True}, L.EXACT_RETRAIN),
        ({"lineage_clean": True, "fresh_only": False}, L.PARTICIPATION_ENDED),
        ({"lineage_clean": True, "fresh_only": False, "evidence": PASSED}, L.EMPIRICAL),
        ({"lineage_clean": True, "fixed_before": False}, L.PARTICIPATION_ENDED),
        ({"lineage_clean": True, "completed": False}, L.NONE),
        ({"lineage_clean": True, "contributions_left": 1}, L.NONE),
        ({"lineage_clean": True, "in_part": True}, L.PARTICIPATION_ENDED),
        ({"lineage_clean": True, "changed": False}, L.PARTICIPATION_ENDED),
        ({"certified": BOUND}, L.CERTIFIED),
        ({"certified": replace(BOUND, assumptions=" ")}, L.PARTICIPATION_ENDED),
        ({"certified": replace(BOUND, mechanism="")}, L.PARTICIPATION_ENDED),
        ({"certified": replace(BOUND, epsilon=float("inf"))}, L.PARTICIPATION_ENDED),
        ({"evidence": PASSED}, L.EMPIRICAL),
        ({"evidence": PASSED, "fixed_before": False}, L.PARTICIPATION_ENDED),
        ({"evidence": (measured(about=About.UTILITY),)}, L.PARTICIPATION_ENDED),
        ({"evidence": (*PASSED, measured(0.6))}, L.PARTICIPATION_ENDED),
        ({"evidence": (*PASSED, measured(0.6, about=About.UTILITY))}, L.PARTICIPATION_ENDED),
        ({"evidence": (measured(before=0.4),)}, L.PARTICIPATION_ENDED),
        ({"evidence": (measured(before=None),)}, L.EMPIRICAL),
        ({"evidence": (replace(PASSED[0], limit=None),)}, L.PARTICIPATION_ENDED),
        ({"evidence": (measured(float("nan")),)}, L.PARTICIPATION_ENDED),
    ],
)
def test_the_level_follows_from_the_facts(changes: dict[str, object], level: ClaimLevel) -> None:
    """Each missing fact lowers the claim; nothing that is asked for is written without its facts."""
    claim = claim_of(replace(DONE, **changes))  # type: ignore[arg-type]
    assert claim.level is level
    assert claim.reasons
    assert (claim.bound is not None) == (level is L.CERTIFIED)
    if level is not L.CERTIFIED:
        assert claim.sentence == SENTENCES[level]


@pytest.mark.parametrize("unfinished", [(), ("One copy of the key is left.",)])
def test_a_bound_is_written_with_its_numbers(unfinished: tuple[str, ...]) -> None:
    """ε, δ, of what, by what and under which assumptions: in the sentence that may be written."""
    claim = claim_of(replace(DONE, certified=BOUND, unfinished=unfinished))
    for words in ("ε = 1.5", "δ = 1e-05", "noisy descent", "convex loss", "rdp 1.0"):
        assert words in claim.sentence
    assert claim.bound == BOUND
    assert claim.whole is not bool(unfinished)


def test_limits_are_found_by_name_then_by_family() -> None:
    """A limit for all sets of a check serves each of them; one of its own goes first; none is none."""
    figures = [Figure(name=n, about=About.UTILITY, value=1.0, unit="dB") for n in ("a/x", "a/y", "b/x")]
    found = judge(figures, {"a": Limit(None, 2.0), "a/y": Limit(None, 0.5)})
    assert [item.passed for item in found] == [True, False, False]
    assert found[2].limit is None


def test_limits_include_their_bounds() -> None:
    """A value on the bound is admitted, one beyond it or that is no number is not."""
    assert Limit(-1.0, 1.0).admits(1.0)
    assert Limit(-1.0, 1.0).admits(-1.0)
    assert not Limit(-1.0, 1.0).admits(1.0000001)
    assert Limit(None, 1.0).admits(-1e9)
    assert not Limit(None, None).admits(float("inf"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"in_part": True},
        {"changed": False},
        {"lineage_clean": True},
        {"certified": BOUND},
        {"evidence": PASSED},
    ],
)
def test_no_sentence_says_that_an_unfinished_erasure_is_done(changes: dict[str, object]) -> None:
    """The level, which is about the model, stays; sentence and reasons name what is not done."""
    facts = replace(DONE, **changes)  # type: ignore[arg-type]
    whole, open_ = claim_of(facts), claim_of(replace(facts, unfinished=("A copy is left.",)))
    assert open_.level is whole.level
    assert open_.reasons == ("A copy is left.", *whole.reasons)
    assert "contributions were erased" not in open_.sentence
    assert "not whole" in open_.sentence
    assert "not whole" not in whole.sentence
    not_done = replace(facts, unfinished=open_.reasons, completed=False)
    assert claim_of(not_done) == claim_of(replace(not_done, unfinished=()))
