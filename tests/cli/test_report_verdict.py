"""What the report says of a run: honest about the numbers, and about what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.report import Pictures, render_report
from cli.report.limits import limits_of
from cli.report.render import page
from cli.report.verdict import Verdict, judge
from cli.results import Results
from tests.cli.report_page import Page, page_of
from tests.cli.results_builder import STEPS, build_pictures, build_results


def _judged(**gaps: float) -> Verdict:
    """Verdict for given gaps of the unlearned model, all others zero."""
    relearn = gaps.pop("relearn", 0.0)
    gap = {"retain_test": 0.0, "forget_test": 0.0, "forget_train": 0.0} | gaps
    relearn_gap = {"cached-ascent": dict.fromkeys(STEPS, 0.0) | {8: relearn}}
    return judge(build_results(oracle_gap={"cached-ascent": gap}, relearn_gap=relearn_gap))


def _without_oracle() -> Results:
    results = build_results().model_dump()
    accuracy = {name: value for name, value in results["accuracy"].items() if name != "oracle"}
    return build_results(accuracy=accuracy, original_gap=None, oracle_gap={}, relearn={}, relearn_gap={})


def _nobody_left() -> Results:
    results = build_results().model_dump()
    stay = {"withdrawn": False, "withdrawn_at_round": None}
    original = results["accuracy"]["original"] | {"forget_test": None, "forget_train": None}
    return build_results(
        sites=[site | stay for site in results["sites"]],
        rounds=results["rounds"][:60],
        models={"original": results["models"]["original"]},
        accuracy={"original": original},
        volumes=(),
        original_gap=None,
        oracle_gap={},
        relearn={},
        relearn_gap={},
        cost={},
        unlearning=None,
        timing={"train_seconds": 10.0, "total_seconds": 12.0},
        withdrawals=(),
    )


def test_headline_of_a_run_that_forgets() -> None:
    """All gaps within their tolerance: the model behaves as if the hospital had never taken part."""
    parsed = Page(page(build_results("forgets"), build_pictures()))
    verdict = judge(build_results("forgets"))
    assert verdict.outcome == "within"
    assert verdict.tone == "good"
    assert "as if hospital knee had never taken part" in verdict.headline
    assert verdict.headline in parsed.text
    findings = " ".join(verdict.findings).replace("\u00a0", " ")
    assert "within 0.21 dB on all three accuracies" in findings
    assert "as fast as the oracle (largest difference +0.60 dB" in findings
    assert "gained 0.73 dB" in findings
    assert "✗" not in parsed.text.replace("✗ taken back", "")


def test_headline_of_a_run_that_does_not_forget() -> None:
    """Accuracy left on the withdrawn organ: the page says so, in the headline, words and marks."""
    verdict = judge(build_results("remembers"))
    assert verdict.outcome == "remembers"
    assert verdict.tone == "bad"
    text = page_of("remembers").text
    assert "still shows what it learned from hospital knee" in text
    assert "+2.55 dB ✗ still known" in text
    assert "never taken part" not in text
    assert "+2.60 dB ✗ comes back faster" in text


def test_headline_of_a_ruined_model() -> None:
    """Remaining hospitals far below the oracle: that is the headline, although everything is forgotten."""
    verdict = judge(build_results("ruined"))
    assert verdict.outcome == "ruined"
    text = page_of("ruined").text
    assert "Taking out hospital knee ruined the model for the three remaining hospitals" in text
    assert "−6.15 dB ✗ worse than the oracle" in text
    assert "lost 5.50" in text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("gaps", "outcome"),
    [
        ({}, "within"),
        ({"retain_test": -0.5, "forget_test": 0.5, "forget_train": -0.5, "relearn": 0.75}, "within"),
        ({"forget_test": 0.51}, "remembers"),
        ({"forget_train": 0.51}, "remembers"),
        ({"forget_train": 0.51, "retain_test": -0.6}, "remembers"),
        ({"forget_test": -0.51}, "overshoots"),
        ({"retain_test": -0.51}, "harmed"),
        ({"retain_test": 0.51}, "gained"),
        ({"retain_test": -3.01, "forget_test": 2.0}, "ruined"),
        ({"relearn": 0.76}, "hidden"),
        ({"relearn": -0.76}, "relearns slowly"),
    ],
)
def test_thresholds(gaps: dict[str, float], outcome: str) -> None:
    """Each check decides at its tolerance, in both directions, and the gravest finding leads."""
    assert _judged(**gaps).outcome == outcome


def test_the_consortiums_own_margins_decide() -> None:
    """What lies within the margins of the run's own consortium file is within, and the words name them."""
    gaps = {"retain_test": 0.0, "forget_test": 0.8, "forget_train": 0.0}
    assert judge(build_results(oracle_gap={"cached-ascent": gaps})).outcome == "remembers"
    wide = {"name": "demo", "compliance": {"accuracy-margin-db": 0.9}}
    verdict = judge(build_results(oracle_gap={"cached-ascent": gaps}, consortium=wide))
    assert verdict.outcome != "remembers"
    assert any("tolerance 0.9" in sentence for sentence in verdict.findings)


def test_only_within_is_called_good() -> None:
    """No outcome but all gaps within tolerance is shown as a success."""
    for gaps in ({"forget_test": 1.0}, {"relearn": 1.0}, {"retain_test": -1.0}, {"retain_test": 1.0}):
        assert _judged(**gaps).tone != "good"
    assert judge(build_results()).tone == "good"


def test_a_comparison_that_could_not_fail_is_no_success() -> None:
    """If the original itself lies within the tolerances, the verdict is that nothing can be told."""
    gap = {"retain_test": 0.1, "forget_test": 0.2, "forget_train": 0.3}
    curves = dict.fromkeys(("original", "oracle", "unlearned"), dict.fromkeys(STEPS, 20.0))
    zero = dict.fromkeys(STEPS, 0.0)
    results = build_results(
        original_gap=gap,
        oracle_gap={"cached-ascent": gap},
        relearn=curves,
        relearn_gap={"cached-ascent": zero},
    )
    verdict = judge(results)
    assert verdict.outcome == "nothing to find"
    assert verdict.tone == "open"


def test_relearning_not_measured_is_no_success() -> None:
    """Without the relearn gap, knowledge may be hidden, and the headline says that it is unknown."""
    results = build_results(relearn={}, relearn_gap={})
    assert judge(results).outcome == "relearning not measured"
    assert judge(results).tone == "open"
    assert any("Relearning was not measured" in limit for limit in limits_of(results))


def test_run_without_an_oracle(tmp_path: Path) -> None:
    """Without an oracle there is a report, without gaps and without a claim."""
    results = _without_oracle()
    assert judge(results).outcome == "no oracle"
    render_report(results, None, tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text()).text
    assert "whether this is forgotten was not measured" in text
    assert "✓ within" not in text


def test_run_in_which_nobody_withdrew() -> None:
    """A plain training run has a report of what there is."""
    results = _nobody_left()
    assert judge(results).outcome == "no withdrawal"
    text = Page(page(results, None)).text
    assert "Four hospitals trained one model together; nobody withdrew" in text
    assert "How it was taken out" not in text


def test_smallest_run() -> None:
    """One round, one relearning step and no pictures make a report without a warning."""
    results = build_results().model_dump()
    curves = {model: {1: curve[4]} for model, curve in results["relearn"].items()}
    rounds = [record for record in results["rounds"] if record["round"] in (60, 66)]
    tiny = build_results(rounds=rounds, relearn=curves, relearn_gap={"cached-ascent": {1: -0.5}}, volumes=())
    text = Page(page(tiny, Pictures(rows=()))).text
    assert "Four hospitals trained one model to reconstruct MR images for one round" in text
    assert "Reconstructions" not in text


def test_other_methods_stand_beside() -> None:
    """A further method has its own row with its own gaps, and does not change the verdict."""
    results = build_results().model_dump()
    tuned = build_results("remembers").model_dump()
    accuracy = results["accuracy"] | {"fine-tuning": tuned["accuracy"]["unlearned"]}
    gaps = results["oracle_gap"] | {"fine-tuning": tuned["oracle_gap"]["cached-ascent"]}
    both = build_results(accuracy=accuracy, oracle_gap=gaps)
    assert judge(both) == judge(build_results())
    text = Page(page(both, None)).text
    assert "fine-tuning another method" in text
    assert "+2.55 dB ✗ still known" in text
