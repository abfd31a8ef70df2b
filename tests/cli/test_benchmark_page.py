"""The benchmark's page: what it says of records made by hand, and that the committed one is of its files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.benchmark.figures import pareto, radar_rows, side_by_side
from cli.benchmark.page import render, write_page
from cli.benchmark.plan import Plan, load_plan
from cli.benchmark.run import Benchmark
from cli.benchmark.score import GAPS, Row, row
from cli.benchmark.searching import at_edge, tried
from cli.benchmark.standing import compared, standing
from cli.benchmark.store import Record, Stage, Store
from cli.benchmark.summary import Summary, as_json, summarise
from cli.gauge import Figures
from cli.trials import Attempt

ROOT = Path(__file__).parents[2]

SEARCHED = "tiny-7-brain"
KNEE, ABDOMEN = ("tiny-0-knee", "tiny-1-knee"), ("tiny-0-abdomen", "tiny-1-abdomen")

PLAN = """
title = "Toy"
limits = ["A limit of this plan."]
[report]
consortium = "tiny"
seeds = [0, 1]
withdrawn = ["knee", "abdomen"]
[search]
consortium = "tiny"
seeds = [7]
withdrawn = ["brain"]
[methods.cached-ascent]
alpha = [1.0, 2.0, 3.0]
effort = [3]
[methods.retain-ft]
[methods.full-ft]
[methods.rollback]
[methods.nl-ft]
"""

ORACLE = Figures(dict.fromkeys(GAPS, 20.0), dict.fromkeys(GAPS, 0.7), {"4": 19.0})
ORIGINAL = Figures(
    {"retain_test": 19.0, "forget_test": 23.0, "forget_train": 25.0}, dict.fromkeys(GAPS, 0.8), {"4": 23.0}
)


def attempt(*gaps: float, relearn: float = 0.0, slices: float = 0.2) -> Attempt:
    """An attempt with the three gaps, or with the same three times."""
    three = dict(zip(GAPS, gaps * (3 if len(gaps) == 1 else 1), strict=True))
    figures = Figures(
        {n: 20 + gap for n, gap in three.items()}, dict.fromkeys(GAPS, 0.69), {"4": 19 + relearn}
    )
    costs = {"slices": slices, "client_seconds": 0.5, "rounds": 0.1, "bytes": 0.08}
    return Attempt(figures, three, {"4": relearn}, costs)


def record(
    method: str,
    case: str,
    found: Attempt | None,
    *,
    stage: Stage = "report",
    settings: Mapping[str, float] | None = None,
) -> Record:
    """A record of a case."""
    error = "" if found else "The model diverged."
    return Record(stage, case, method, settings or {}, ORIGINAL, ORACLE, found, error)


def reported(method: str, distances: Mapping[str, float | None], **more: float) -> list[Record]:
    """Records of one search and of the cases with these distances from the oracle."""
    settings = {"alpha": 2.0, "effort": 3} if method == "cached-ascent" else {}
    found = [record(method, SEARCHED, attempt(0.1), stage="search", settings=settings)]
    for case, distance in distances.items():
        made = None if distance is None else attempt(distance, **more)
        found.append(record(method, case, made, settings=settings))
    return found


def everywhere(*distances: float | None) -> dict[str, float | None]:
    """Two with the knee leaving, then two with the abdomen."""
    return dict(zip((*KNEE, *ABDOMEN), distances, strict=True))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "toy.toml"
    path.write_text(PLAN)
    return load_plan(str(path))


def benchmark(plan: Plan, path: Path, *records: Record) -> Benchmark:
    """A benchmark with a file of these records."""
    store = Store(path / "attempts.jsonl")
    for each in records:
        store.add(each)
    return Benchmark(plan, path / "work", Store(store.path), workers=0)


def rows(*records: list[Record]) -> list[Row]:
    """A row for each method, of what it reported."""
    found = [row(each[0].method, [r for r in each if r.stage == "report"]) for each in records]
    return [r for r in found if r is not None]


def section(page: str, title: str) -> str:
    """What stands under a heading, down to the next of its level or above."""
    level = title.split(" ")[0]
    text = page.split(f"\n{title}\n", 1)[1]
    return text.split(f"\n{level} ", 1)[0]


@pytest.fixture(scope="module")
def found(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, str]:
    """The summary and the page of a whole toy benchmark, in which rollback failed once and full-ft always."""
    ours = {"alpha": 3.0, "effort": 3}
    records = [
        *reported("cached-ascent", everywhere(0.3, -0.3, 0.3, -0.3)),
        record("cached-ascent", SEARCHED, attempt(0.4), stage="search", settings=ours),
        record("cached-ascent", SEARCHED, None, stage="search", settings={"effort": 3}),
        record("cached-ascent", SEARCHED, attempt(0.6), stage="search", settings={"alpha": 0.5, "effort": 3}),
        *reported("retain-ft", everywhere(0.5, 0.5, 0.2, 0.2), slices=0.201),
        *reported("full-ft", everywhere(None, None, None, None)),
        *reported("rollback", everywhere(0.05, 0.05, None, 0.05)),
        *reported("nl-ft", everywhere(0.01, 0.03, 0.01, 0.03)),
    ]
    made = benchmark(plan, tmp_path_factory.mktemp("found"), *records)
    summary = summarise(made)
    return summary, render(plan, summary, Path("docs/benchmark.md"), "reconsent bench --preset toy")


def test_kinds_of_methods_have_tables_of_their_own(found: tuple[Summary, str]) -> None:
    """What asks the leaving site is not ranked among what does not, and beats none of it."""
    page = section(found[1], "## All cases")
    alone = section(page, "### Methods that leave the withdrawn site alone")
    asked = section(page, "### Methods that need the withdrawn site")
    assert "cached-ascent" in alone and "nl-ft" not in alone
    assert "**nl-ft**" in asked and "cached-ascent" not in asked
    assert "| **cached-ascent** |" in alone, "the only one nearer is nl-ft; rollback failed in a case"


def test_gaps_are_shown_with_and_without_sign(found: tuple[Summary, str]) -> None:
    """By hand: 0.3, −0.3, 0.3, −0.3 have mean 0, deviation 0.35, and 0.3 without their signs."""
    assert "| **cached-ascent** | 4/4 | 0.30 ± 0.00 | +0.00 ± 0.35 (0.30) |" in found[1]


def test_failures_are_told_and_ranked_last(found: tuple[Summary, str]) -> None:
    """rollback is the nearest where it succeeded; full-ft succeeded nowhere, and is there all the same."""
    table = section(section(found[1], "## All cases"), "### Methods that leave the withdrawn site alone")
    order = [line.split("|")[1].strip(" *") for line in table.splitlines() if line.startswith("|")][2:]
    assert order[2:] == ["cached-ascent", "retain-ft", "rollback", "full-ft"]
    assert "| **rollback** | 3/4 |" in table and "| full-ft | 0/4 | failed |" in table
    failures = section(found[1], "### Failures")
    assert "- `rollback`, once: The model diverged." in failures
    assert "- `full-ft`, 4 times: The model diverged." in failures


def test_nothing_done_and_retrained_are_rows(found: tuple[Summary, str]) -> None:
    """By hand: G's gaps −1, +3, +5 and relearn gap 4 are 7 dB; retraining has none, and fewer slices."""
    page = found[1]
    for title in ("## All cases", "## `knee` leaves", "## `abdomen` leaves"):
        assert "| (nothing done: G) | " in section(page, title)
        assert "| 7.00 ± 0.00 | -1.00 ± 0.00 (1.00) | +3.00" in section(page, title)
    retrained = next(line for line in section(page, "## `knee` leaves").splitlines() if "`retrain`" in line)
    assert retrained.split("|")[3].strip() == "0.00 ± 0.00"
    assert 0 < float(retrained.split("|")[-2].strip(" %")) < 100
    costs = section(page, "### Costs of every kind, and SSIM")
    assert "| cached-ascent | 20 % | 50 % | 10 % | 8 % | -0.010 | -0.010 | -0.010 |" in costs


def test_the_standing_is_judged_case_by_case_and_leaver_by_leaver(found: tuple[Summary, str]) -> None:
    """retain-ft is nearer with one leaver and farther with the other: together nobody is nearer."""
    told = section(found[1], "## Where `cached-ascent` stands")
    together, knee, abdomen = (
        section(told, t) for t in ("### All cases", "### `knee` leaves", "### `abdomen` leaves")
    )
    assert "| retain-ft | 20 % | +0.05 | -0.10 to +0.20 | 2/4 | indistinguishable |" in together
    assert "| retain-ft | 20 % | +0.20 | +0.20 to +0.20 | 2/2 | farther |" in knee
    assert "| retain-ft | 20 % | -0.10 | -0.10 to -0.10 | 0/2 | **nearer** |" in abdomen
    assert "**Nearer in every case at equal or lower cost: `retain-ft`, `rollback`.**" in abdomen
    assert "| nl-ft | 20 % |" in knee and "**nearer** |" in knee
    assert "is 0.30 dB (0.30, 0.30, 0.30)" in together, "not the mean of the signed ones, which is 0"
    assert "That of this benchmark's `nl-ft`, which asks the leaving site, is 0.02 dB" in together


def test_what_costs_more_does_not_beat_ours() -> None:
    """A dearer method is told as such; 1 % more is not dearer."""
    ours = reported("cached-ascent", everywhere(0.3, 0.3, 0.3, 0.3), slices=0.2)
    dear = reported("retain-ft", everywhere(0.1, 0.1, 0.1, 0.1), slices=0.21)
    same = reported("full-ft", everywhere(0.1, 0.1, 0.1, 0.1), slices=0.202)
    told = standing({"All": rows(ours, dear)}, {"All": 4})
    assert "**No other method that leaves the site alone is nearer in every case" in told
    assert "Nearer in every case at a higher cost: `retain-ft`." in told
    told = standing({"All": rows(ours, same)}, {"All": 4})
    assert "**Nearer in every case at equal or lower cost: `full-ft`.**" in told
    [(_, pair)] = compared(*[rows(ours)[0], rows(ours, same)])
    assert pair.differences == pytest.approx((-0.2,) * 4) and pair.wins == 0


def test_all_tried_settings_are_shown(found: tuple[Summary, str], plan: Plan) -> None:
    """The chosen one, an edge of the range, a failure, and what an earlier plan tried."""
    table = section(found[1], "## Settings tried")
    assert "| cached-ascent | `alpha = 2` | 0.10 | **chosen** |" in table
    assert "`alpha = 0.5` | 0.60 | not in the plan |" in table
    assert "`alpha = 1.85` | failed |  |" in table
    assert at_edge(3.0, [1.0, 2.0, 3.0]) and not at_edge(2.0, [1.0, 2.0, 3.0])
    assert not at_edge(3.0, [3.0, 3.0]) and not at_edge(True, [True, False]) and not at_edge("a", ["a", "b"])


def test_a_chosen_value_at_the_edge_is_marked(plan: Plan, tmp_path: Path) -> None:
    """The largest alpha that was tried is the best: a larger one might be better still."""
    settings = [{"alpha": alpha, "effort": 3} for alpha in (1.0, 2.0, 3.0)]
    records = [
        record("cached-ascent", SEARCHED, attempt(0.5 - 0.1 * n), stage="search", settings=s)
        for n, s in enumerate(settings)
    ]
    [chosen] = [t for t in tried(benchmark(plan, tmp_path, *records), "cached-ascent") if t.chosen]
    assert chosen.values == {"alpha": 3.0, "effort": 3} and chosen.edges == ("alpha",)


def test_a_method_that_failed_in_search_leaves_nothing_unfinished(plan: Plan, tmp_path: Path) -> None:
    """Its reports can never be made; those of a method that is still searched can."""
    made = benchmark(plan, tmp_path)
    before = made.unfinished
    assert before == 4 + 4 + 5 * 4, "four settings of ours, one of each other, five methods on four cases"
    made.store.add(record("full-ft", SEARCHED, None, stage="search"))
    assert made.unfinished == before - 1 - 4
    made.store.add(record("retain-ft", SEARCHED, attempt(0.1), stage="search"))
    assert made.unfinished == before - 1 - 4 - 1


def test_the_page_tells_what_was_compared_and_its_limits(found: tuple[Summary, str]) -> None:
    """Sizes, seeds, the limits of every benchmark and those of the plan, and the command."""
    page = found[1]
    assert "    reconsent bench --preset toy\n" in page and "with seeds 0, 1, leaving in turn: `knee`" in page
    assert " parameters; 6 rounds" in page and "| knee | knee |" in page
    assert "One oracle was trained for each case" in page and "[evidence](evidence.md)" in page
    assert "- A limit of this plan." in page and "searched on one case only" in page
    json.dumps(as_json(found[0]))


def test_figures_stay_legible() -> None:
    """A collapsed method does not squash the others, and the radar chart shows six with ours among them."""
    names = ["retain-ft", "full-ft", "rollback", "federaser", "fast-fedul", "pga-cached", "nl-ft"]
    others = [reported(name, everywhere(*[0.01 * n] * 4)) for n, name in enumerate(names[1:], 1)]
    far = [reported("cached-ascent", everywhere(*[9.0] * 4)), reported("retain-ft", everywhere(*[19.0] * 4))]
    made = rows(*others, *far)
    shown = [r.method for r in radar_rows(made)]
    assert shown == ["full-ft", "rollback", "federaser", "fast-fedul", "cached-ascent", "retain-ft"]
    drawn = pareto(made)
    assert ">0.01<" in drawn and ">10<" in drawn, "ticks of a logarithmic axis"
    places = side_by_side(made)
    assert sorted(places, key=lambda name: places[name]) == [row.method for row in made], "of one cost"
    assert len(set(places.values())) == len(made)
    middle = statistics.geometric_mean(places.values())
    assert middle == pytest.approx(100 * made[0].cost.mean), "about which they stand"


@pytest.mark.parametrize(("name", "page"), [("small", "benchmark.md"), ("fresh", "benchmark-fresh.md")])
def test_the_committed_page_is_written_from_the_committed_attempts(name: str, page: str) -> None:
    """Every figure of a page is that of the file in the repository, character for character."""
    attempts, place = ROOT / "bench" / "results" / name / "attempts.jsonl", ROOT / "docs" / page
    made = Benchmark(load_plan(name), ROOT / "runs", Store(attempts), workers=0)
    command = f"reconsent bench --preset {name} --page docs/{page}"
    assert place.read_text() == render(made.plan, summarise(made), place, command)
    for figure in ("pareto", "radar"):
        assert (place.parent / "images" / f"benchmark-{name}-{figure}.svg").exists()


def test_what_is_tried_on_fresh_seeds_is_what_was_chosen(tmp_path: Path) -> None:
    """The plan `fresh` has each method with the settings that `small` chose for it."""
    chosen = Benchmark(
        load_plan("small"), tmp_path, Store(ROOT / "bench/results/small/attempts.jsonl"), workers=0
    )
    fresh = load_plan("fresh")
    for method in fresh.config.methods:
        assert fresh.candidates(method) == [chosen.chosen(method)]


def test_a_page_without_reports_says_so(plan: Plan, tmp_path: Path) -> None:
    """Written at once, before anything was made."""
    write_page(benchmark(plan, tmp_path), tmp_path / "page.md", "reconsent bench")
    page = (tmp_path / "page.md").read_text()
    assert "Nothing has been reported yet." in page and "**Unfinished: 28 attempts" in page
