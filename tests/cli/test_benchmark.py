"""The benchmark: its plan, its store, its arithmetic, and one whole run on a toy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.benchmark.plan import load_plan, select
from cli.benchmark.score import best, cost, dearer, dominated, row, score
from cli.benchmark.store import Record, Store
from cli.gauge import Figures
from cli.main import app
from cli.trials import Attempt
from reconsent.errors import ConfigError, DataError

PLAN = """
title = "Toy"
budget = 3
[report]
consortium = "tiny"
seeds = [0, 1]
withdrawn = ["knee", "abdomen"]
[search]
consortium = "tiny"
seeds = [7]
withdrawn = ["brain"]
[methods.cached-ascent]
alpha = [0.5, 1.0, 2.0]
rate = [1.0, 2.0]
[methods.pga-cached]
[methods.retain-ft]
"""

FIGURES = Figures({"retain_test": 25.0, "forget_test": 22.0, "forget_train": 21.0}, {}, {"4": 23.0})


def attempt(gap: float, *, relearn: float = 0.0, cost: float = 0.1) -> Attempt:
    """An attempt with the same gap three times."""
    gaps = dict.fromkeys(("retain_test", "forget_test", "forget_train"), gap)
    return Attempt(FIGURES, gaps, {"4": relearn, "8": -relearn}, {"client_seconds": 7.0, "slices": cost})


def record(
    found: Attempt | None,
    *,
    case: str = "a",
    method: str = "retain-ft",
    settings: dict[str, float] | None = None,
) -> Record:
    """A record of the search stage."""
    failed = "" if found else "it diverged"
    return Record("search", case, method, settings or {}, FIGURES, FIGURES, found, failed)


def test_a_plan_is_cases_times_methods(tmp_path: Path) -> None:
    """Every seed and leaver is a case; candidates begin with the defaults and stay within the budget."""
    path = tmp_path / "toy.toml"
    path.write_text(PLAN)
    plan = load_plan(str(path))
    assert [case.name for case in plan.report] == [
        "tiny-0-knee",
        "tiny-0-abdomen",
        "tiny-1-knee",
        "tiny-1-abdomen",
    ]
    assert [w.sites for w in plan.report[1].consortium.withdrawals] == [("abdomen",)]
    assert plan.candidates("retain-ft") == [{}]
    tried = plan.candidates("cached-ascent")
    assert tried[0] == {} and len(tried) == 3
    path.write_text(PLAN + "effort = [3]\nrate = [1.0, 2.0]\n")
    assert load_plan(str(path)).candidates("retain-ft") == [{"effort": 3}, {"effort": 3, "rate": 2.0}], (
        "one value holds in every trial, and the default is not tried twice"
    )
    path.write_text(PLAN)
    assert all(set(settings) == {"alpha", "rate"} for settings in tried[1:]) and tried[1] != tried[2]
    assert load_plan(str(path)).candidates("cached-ascent") == tried
    fewer = select(plan, ["retain-ft"], 1)
    assert list(fewer.config.methods) == ["retain-ft"] and len(fewer.report) == 2
    both = '[ablation]\nmethods = ["cached-ascent", "retain-ft"]\nsetting = "share"\nvalues = [0.5]\n'
    path.write_text(PLAN.replace("[methods.cached-ascent]", f"{both}[methods.cached-ascent]"))
    varied = select(load_plan(str(path)), ["retain-ft", "pga-cached"], None).config.ablation
    assert varied is not None and varied.methods == ("retain-ft",), "only what is compared is varied"
    assert select(load_plan(str(path)), ["pga-cached"], None).config.ablation is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [7]", "seeds = [1]", "searched and reported"),
        ("[methods.retain-ft]", "[methods.retain-tf]", "retain-tf"),
        ("alpha = [0.5", "alpa = [0.5", "no setting 'alpa'"),
        ("alpha = [0.5", "alpha = [-0.5", "alpha"),
        ('"brain"', '"spleen"', "spleen"),
        ("budget = 3", "budgets = 3", "budgets"),
        ("title", "title =", "cannot be read"),
        ("budget", "history-every = 2\nbudget", "cannot be used as things are"),
        (
            "[report]",
            '[ablation]\nmethods = ["full-ft"]\nsetting = "share"\nvalues = [0.5]\n[report]',
            "method full-ft is not compared",
        ),
        (
            "[report]",
            '[ablation]\nmethods = ["retain-ft"]\nsetting = "shares"\nvalues = [0.5]\n[report]',
            "no setting 'shares'",
        ),
    ],
)
def test_a_wrong_plan_is_refused_by_what_is_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Searching where it reports, unknown methods, settings, sites and keys are named at once."""
    path = tmp_path / "toy.toml"
    path.write_text(PLAN.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        load_plan(str(path))


def test_shipped_plans_load() -> None:
    """Every plan that is shipped fits the methods there are."""
    for name in ("tiny", "small", "fresh", "paper"):
        assert load_plan(name).report
    small, paper = load_plan("small"), load_plan("paper")
    assert set(paper.config.methods) == set(small.config.methods)
    assert {c.consortium.site(c.withdrawn).organ for c in paper.search} == {"prostate"}
    assert {case.consortium.contributions.history_every for case in paper.report} == {1}


def test_the_papers_plan_can_be_tried_dry(tmp_path: Path) -> None:
    """It says what there is to do at the paper's sizes, and does nothing."""
    arguments = ["bench", "--preset", "paper", "--out", str(tmp_path / "out"), "--dry-run"]
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    said = " ".join(found.output.split())
    plan = load_plan("paper")
    assert f"{len(plan.search) + len(plan.report)} oracles to train" in said
    assert f"{len(plan.config.methods) * len(plan.report)} attempts to report" in said
    kinds = ("settings to try", "attempts to report", "with a setting varied", "further oracles")
    counts = [int(said.split(f" {kind}")[0].split()[-1]) for kind in (*kinds, "attempts are still")]
    assert sum(counts[:-1]) == counts[-1] and all(counts[:3]), "whatever is to be made is counted"
    assert not (tmp_path / "out").exists()


def test_score_counts_both_directions() -> None:
    """Forgetting 0.4 dB too much is as far from the oracle as 0.4 dB too little; relearning adds."""
    assert score(attempt(-0.4)) == pytest.approx(0.4)
    assert score(attempt(0.4, relearn=0.2)) == pytest.approx(0.6)


def test_best_settings_have_the_lowest_mean_and_never_failed() -> None:
    """The mean over cases decides, and a setting that failed once is out."""
    records = [
        record(attempt(0.1), case="a", settings={"alpha": 1}),
        record(attempt(0.9), case="b", settings={"alpha": 1}),
        record(attempt(0.4), case="a", settings={"alpha": 2}),
        record(attempt(0.4), case="b", settings={"alpha": 2}),
        record(attempt(0.0), case="a", settings={"alpha": 3}),
        record(None, case="b", settings={"alpha": 3}),
    ]
    found = best(records)
    assert found is not None and found.settings == {"alpha": 2}
    assert best([record(None)]) is None


def test_a_row_has_means_deviations_and_the_worst() -> None:
    """By hand: gaps 0.1 and −0.3 have mean −0.1, deviation 0.2828, worst 0.3."""
    found = row("retain-ft", [record(attempt(0.1, relearn=0.2), case="a"), record(attempt(-0.3), case="b")])
    assert found is not None
    assert found.gaps["retain_test"].mean == pytest.approx(-0.1)
    assert found.gaps["retain_test"].deviation == pytest.approx(0.28284271)
    assert found.worst == pytest.approx(0.3) and found.worst_relearn == pytest.approx(0.2)
    assert found.absolute["retain_test"].mean == pytest.approx(0.2), "gaps of both signs do not cancel"
    assert found.mean_gap.mean == pytest.approx(0.2)
    assert found.score.mean == pytest.approx((0.1 + 0.2 + 0.3) / 2)
    assert found.scores == {"a": pytest.approx(0.3), "b": pytest.approx(0.3)}
    assert row("retain-ft", [record(None)]) is None
    failed = row("retain-ft", [record(attempt(0.1)), record(None, case="b"), record(None, case="c")])
    assert failed is not None and (failed.succeeded, failed.cases) == (1, 3)


def test_what_was_not_relearned_has_no_score() -> None:
    """Without relearn gaps the distance would be smaller than with any; it is an error."""
    with pytest.raises(DataError, match="no relearn gaps"):
        score(Attempt(FIGURES, attempt(0.1).gaps, {}, {"slices": 0.1}))


def test_cost_is_slices_or_else_seconds() -> None:
    """Slices do not depend on how busy the machine was; records of before they were counted have seconds."""
    assert cost(attempt(0.1, cost=0.2)) == 0.2
    assert cost(Attempt(FIGURES, {}, {}, {"client_seconds": 0.3})) == 0.3
    assert not dearer(0.102, 0.1) and not dearer(0.1, 0.102) and dearer(0.103, 0.1)


def test_dominated_needs_nearer_and_cheaper() -> None:
    """A method is beaten by one that is as near and cheaper, not by a nearer but dearer one."""
    rows = [
        row("retain-ft", [record(attempt(0.1, cost=0.2))]),
        row("full-ft", [record(attempt(0.5, cost=0.05))]),
        row("cached-ascent", [record(attempt(0.5, cost=0.1))]),
        row("rollback", [record(attempt(0.09, cost=0.21)), record(None, case="b")]),
        row("federaser", [record(attempt(0.2, cost=0.198))]),
        row("nl-ft", [record(attempt(0.01, cost=0.01))]),
    ]
    assert dominated([r for r in rows if r is not None]) == {"cached-ascent", "federaser"}, (
        "1 % cheaper is not cheaper; what asks the leaving site, or failed somewhere, beats nothing else"
    )


def test_a_store_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    """What a killed run left unfinished is dropped; damage anywhere else is named."""
    path = tmp_path / "attempts.jsonl"
    store = Store(path)
    store.add(record(attempt(0.1), settings={"alpha": 1.5}))
    store.add(record(None, case="b"))
    with path.open("a") as file:
        file.write('{"stage": "search", "ca')
    again = Store(path)
    assert again.records == store.records
    again.add(record(attempt(0.2), case="c"))
    assert len(Store(path).records) == 3
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(DataError, match="Line 1"):
        Store(path)


def test_a_record_of_another_consortium_is_not_used(tmp_path: Path) -> None:
    """Another digest is another consortium of the same name; no digest is from before there were any."""
    store = Store(tmp_path / "attempts.jsonl")
    made = record(attempt(0.1))
    store.add(replace(made, digest="old", versions={"torch": "1"}))
    assert store.find("search", made.key, "new") is None and store.foreign({"a": "new"}) == 1
    assert store.find("search", made.key, "old") == store.records[0]
    store.add(made)
    again = Store(store.path)
    assert again.find("search", made.key, "new") == made and again.foreign({"a": "new"}) == 1
    assert again.records[0].versions == {"torch": "1"}
    table = json.loads(store.path.read_text().splitlines()[1])
    del table["digest"], table["versions"]
    store.path.write_text(json.dumps(table) + "\n")
    assert Store(store.path).find("search", made.key, "new") == made


def test_a_case_has_the_digest_of_all_its_consortium(tmp_path: Path) -> None:
    """Who leaves, the seed and what is kept are in it; reading the plan again changes nothing."""
    path = tmp_path / "toy.toml"
    path.write_text(PLAN)
    digests = [case.digest for case in load_plan(str(path)).report]
    assert len(set(digests)) == 4 and digests == [case.digest for case in load_plan(str(path)).report]
    path.write_text("anchors = [0.5]\n" + PLAN)
    assert not set(digests) & {case.digest for case in load_plan(str(path)).report}


def test_a_benchmark_from_plan_to_page(tmp_path: Path) -> None:
    """A toy benchmark trains, searches, reports and writes its page; the second time it does nothing."""
    consortium = (Path("reconsent/presets") / "tiny.toml").read_text()
    consortium = consortium.replace("rounds = 6", "rounds = 2").replace("local-steps = 3", "local-steps = 1")
    consortium = consortium.replace("rounds-fraction = 0.34", "rounds-fraction = 0.5")
    (tmp_path / "toy-consortium.toml").write_text(consortium)
    plan = tmp_path / "toy.toml"
    plan.write_text(
        'title = "Toy"\nbudget = 2\nother-oracles = 2\n'
        '[report]\nconsortium = "toy-consortium.toml"\nseeds = [0]\nwithdrawn = ["knee"]\n'
        '[search]\nconsortium = "toy-consortium.toml"\nseeds = [1]\nwithdrawn = ["abdomen"]\n'
        '[ablation]\nmethods = ["cached-ascent", "retain-ft"]\nsetting = "share"\nvalues = [0.5]\n'
        "[methods.cached-ascent]\nalpha = [0.5, 1.0]\n[methods.retain-ft]\n[methods.nl]\n"
    )
    arguments = ["bench", "--preset", str(plan), "--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
    done = CliRunner().invoke(app, [*arguments, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert "| **cached-ascent** | 1/1 |" in page and "Unfinished" not in page
    assert "| **nl** | 1/1 |" in page, "which the leaving site has a part in, and so a table of its own"
    assert f"    reconsent bench --preset {plan} --out {tmp_path}/out\n" in page
    assert "Made with: fastmri" in page
    by_method = page.split("## `share`, varied")[1].split("\n## ")[0].split("### ")[1:]
    assert [part.split("`")[1] for part in by_method] == ["cached-ascent", "retain-ft"]
    for method, part in zip(("cached-ascent", "retain-ft"), by_method, strict=True):
        whole = next(
            line for line in page.splitlines() if line.startswith((f"| **{method}**", f"| *{method}*"))
        )
        assert part.count("| **as chosen** |") + part.count("| *as chosen* |") == 1
        assert whole.split("|")[3] == part.split("as chosen")[1].split("|")[2], "its own, not another's"
        assert "share = 0.5" in part
    assert (tmp_path / "out" / "images" / "benchmark-toy-pareto.svg").read_text().startswith("<svg")
    attempts = (tmp_path / "out" / "attempts.jsonl").read_text()
    assert len(attempts.splitlines()) == 3 + 1 + 2 + 2 + 3, (
        "searched, with another share, nl, oracles, retain-ft"
    )
    others = [json.loads(line) for line in attempts.splitlines() if '"floor"' in line]
    assert len({json.dumps(other["attempt"]["figures"]) for other in others}) == 2, "each is another one"
    assert all(min(map(abs, other["attempt"]["gaps"].values())) > 0 for other in others)
    assert "| (another oracle) | 2/2 |" in page and "### How far two oracles are apart" in page
    assert "One oracle was trained for each case" not in page
    elsewhere = ["--work", f"{tmp_path}/nowhere", "--page", f"{tmp_path}/page.md"]
    found = CliRunner().invoke(app, [*arguments, *elsewhere, "--as-it-is"], catch_exceptions=False)
    assert found.exit_code == 0 and not (tmp_path / "nowhere").exists(), "nothing is trained"
    assert "## `share`, varied" in (tmp_path / "page.md").read_text()
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert again.exit_code == 0
    assert (tmp_path / "out" / "attempts.jsonl").read_text() == attempts
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"], catch_exceptions=False)
    assert "0 attempts are still to be made" in " ".join(dry.output.split())
