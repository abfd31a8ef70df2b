"""The evidence in the report: words, tables and limits come from the results alone."""

from __future__ import annotations

from typing import Any

from cli.report.evidence import section
from cli.report.render import page
from cli.report.verdict import judge
from cli.results_evidence import Evidence
from tests.cli.results_builder import build_results


def evidence(**changes: Any) -> Evidence:
    """Two checks on two models, an attack, and hallucinations."""
    finding = {
        "unit": "dB", "accepted_low": -0.5, "accepted_high": 0.5, "reference": 0.12, "low": -0.3, "high": 0.1,
    }  # fmt: skip
    attack = {
        "attack": "loss", "auc": 0.6, "low": 0.4, "high": 0.8,
        "tpr_at_1_percent": 0.1, "tpr_at_01_percent": 0.1,
        "members": 12, "others": 4, "false_positive_rates": (0, 0, 1), "true_positive_rates": (0, 0.1, 1),
    }  # fmt: skip
    table = {
        "oracles": 3,
        "findings": [
            {"model": "original", "check": "gap/forget-test", "verdict": "failed", "value": 3.89,
             "words": "On forget-test it is more accurate (+3.89 dB).", **finding},
            {"model": "unlearned", "check": "gap/forget-test", "verdict": "passed", "value": -0.21,
             "words": "On forget-test it is as accurate (-0.21 dB).", **finding},
            {"model": "unlearned", "check": "alignment", "verdict": "undecided", "value": 0.31, "unit": "",
             "words": "31 % is left <b>."},
        ],
        "attacks": [{"model": model, **attack} for model in ("original", "unlearned", "oracle")],
        "hallucination": [
            {"model": model, "set": "retain_test", "measured": 0.01, "null": null, "false_structure": 0.02,
             "missing_structure": 0.1}
            for model, null in (("original", 0.10), ("unlearned", 0.08), ("oracle", 0.09))
        ],
        "limits": {"gap": "Gaps are averages."},
        "not_measured": ["continuation: not asked for"],
    }  # fmt: skip
    return Evidence.model_validate(table | changes)


def test_words_count_what_was_found() -> None:
    """The summary counts verdicts of the unlearned model, and how many checks the original failed."""
    found = section(build_results(evidence=evidence()))
    assert found is not None
    text = " ".join(found.summary)
    assert "Two checks ask" in text
    assert "Three retrained models are the yardstick" in text
    assert "passes one of them, fails none, and one of them cannot be decided" in text
    assert "One check did notice" in text
    assert [mark for mark, _ in found.sentences] == ["✓", "○"]
    assert "(−0.21\u00a0dB)" in found.sentences[0][1]


def test_rows_hold_both_models_and_what_would_pass() -> None:
    """A row has the number and verdict of each model, the oracle's, and the accepted range."""
    found = section(build_results(evidence=evidence()))
    assert found is not None
    row = found.rows[0]
    assert row.original is not None
    assert row.unlearned is not None
    assert row.original.value.startswith("+3.89")
    assert row.original.tone == "no"
    assert row.unlearned.verdict == "✓ passed"
    assert row.accepted == "−0.50 to 0.50"
    assert found.rows[1].original is None


def test_hallucination_is_told_against_the_original_and_the_oracle() -> None:
    """The sentence gives the change of what was made up, and the oracle's."""
    found = section(build_results(evidence=evidence()))
    assert found is not None
    assert "changed by −20\u00a0%" in found.hallucination_words
    assert "the oracle: −10\u00a0%" in found.hallucination_words


def test_page_shows_the_section_only_where_there_is_evidence() -> None:
    """The section is in the page with its limits, escaped; without evidence there is none."""
    html = page(build_results(evidence=evidence()), None)
    assert 'id="h-evidence"' in html
    assert "What each check cannot show" in html
    assert "Gaps are averages." in html
    assert "&lt;b&gt;" in html
    assert "Not measured: continuation: not asked for." in html
    assert 'id="h-evidence"' not in page(build_results(), None)


def test_without_an_oracle_the_summary_says_so() -> None:
    """No retrained model: the section says that it shows change, not equality."""
    found = section(build_results(evidence=evidence(oracles=0, attacks=[], hallucination=[])))
    assert found is not None
    assert any("show change, not equality" in sentence for sentence in found.summary)
    assert found.roc is None
    assert found.hallucination is None


def test_verdict_tells_what_a_check_holds_against_the_model() -> None:
    """Gaps within their tolerances are not all: a failed check of the unlearned model stands beside them."""
    assert "further check" not in " ".join(judge(build_results(evidence=evidence())).findings)
    failed = list(evidence().model_dump()["findings"])
    failed[2] |= {"verdict": "failed", "words": "Its errors are spread differently."}
    verdict = judge(build_results(evidence=evidence(findings=failed)))
    assert verdict.outcome == "within"
    assert verdict.findings[-1] == (
        "One further check still tells it from the oracle: its errors are spread differently."
    )
