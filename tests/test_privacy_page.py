"""docs/privacy-utility.md shows what is in the files of its benchmark, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.privacy_page import END, begin, load, tables, write_tables
from bench.privacy_utility import EPSILONS, results_of
from reconsent.errors import DataError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "privacy_utility"
CONSORTIA = ("privacy-utility", "demo")


@pytest.mark.parametrize("consortium", CONSORTIA)
def test_the_page_is_written_from_the_files(consortium: str) -> None:
    """Its figures are those of the files in the repository, character for character."""
    page = (ROOT / "docs" / "privacy-utility.md").read_text()
    shown = page.partition(begin(consortium))[2].partition(END)[0]
    assert shown.strip() == tables(ROOT / results_of(consortium))


@pytest.mark.parametrize("consortium", CONSORTIA)
def test_every_private_result_kept_to_its_epsilon(consortium: str) -> None:
    """Every ε is there; what the ledgers say of training and unlearning is within it, and near it."""
    found = load(ROOT / results_of(consortium))
    assert {float(entries[0]["epsilon"]) for entries in found.values()} == set(EPSILONS)
    for entries in found.values():
        for entry in entries:
            for spent in entry["spent"].values():
                assert spent["epsilon_training"] < spent["epsilon"] <= entry["epsilon"]
                assert spent["epsilon"] > entry["epsilon"] - 0.02


@pytest.mark.parametrize(
    ("part", "key", "words"),
    [
        (None, "consortium", "consortium"),
        ("training", "rounds", "training"),
        ("training", "learning_rate", "the learning rate with privacy"),
        ("privacy", "max_grad_norm", "the settings with privacy"),
        (None, "seed", ""),
        ("privacy", "target_epsilon", ""),
    ],
)
def test_results_of_other_settings_are_not_averaged(
    tmp_path: Path, part: str | None, key: str, words: str
) -> None:
    """Files that differ in more than ε and seed, or in nothing, make no table, and it is said in what."""
    entry = json.loads((RESULTS / "privacy-utility-8-0.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(entry))
    again = json.loads(json.dumps(entry)) | {"seed": 1}
    where = again[part] if part else again
    where[key] = "other" if key == "consortium" else 7
    (tmp_path / "b.json").write_text(json.dumps(again))
    if not words:
        assert len(load(tmp_path)["8"]) == 2
        (tmp_path / "c.json").write_text(json.dumps(entry))
        words = "nothing, not even"
    with pytest.raises(DataError, match=f"differ in {words}"):
        load(tmp_path)


def test_every_consortium_has_results_of_its_own() -> None:
    """The page's are where they were; another consortium's go elsewhere by default."""
    assert results_of("privacy-utility") == RESULTS.relative_to(ROOT)
    assert results_of("demo") != results_of("other")


def test_words_around_the_figures_stay(tmp_path: Path) -> None:
    """Writing the tables again leaves the discussion alone; a page without its marks is refused."""
    page = tmp_path / "page.md"
    one, two = begin("one"), begin("two")
    page.write_text(f"before\n{one}\nold\n{END}\nbetween\n{two}\nold\n{END}\nafter\n")
    write_tables(page, "two", "| new |")
    assert page.read_text() == f"before\n{one}\nold\n{END}\nbetween\n{two}\n| new |\n{END}\nafter\n"
    for broken in ("no marks", f"{one}\nno end", f"{one}\n{END}\n{one}\n{END}"):
        page.write_text(broken)
        with pytest.raises(DataError, match="lacks the marks"):
            write_tables(page, "one", "| new |")
    with pytest.raises(DataError, match="no results"):
        tables(tmp_path)
