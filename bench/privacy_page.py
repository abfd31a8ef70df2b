"""Tables of accuracy and forgetting against ε, from the files of :mod:`bench.privacy_utility`."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reconsent.errors import DataError
from reconsent.files import write_atomically

END = "<!-- figures:end -->"

Found = dict[str, Any]
Columns = dict[str, Callable[[Found], float | None]]


def begin(consortium: str) -> str:
    """The mark before the figures of a consortium, which ends at :data:`END`."""
    command = "python -m bench.privacy_utility --page docs/privacy-utility.md"
    return f"<!-- figures:begin {consortium} ({command}) -->"


def load(directory: Path) -> dict[str, list[Found]]:
    """ε as text → what was found with each seed, least noise first.

    Raises
    ------
    DataError
        If there is nothing, or what is there cannot be compared: it differs in more than ε and seed.
    """
    found: dict[str, list[Found]] = {}
    first: dict[str, tuple[Path, Any]] = {}
    for file in sorted(directory.glob("*.json")):
        entry = json.loads(file.read_text())
        for what, setting in _settings(entry).items():
            before, expected = first.setdefault(what, (file, setting))
            if setting != expected:
                raise DataError(
                    f"{file} and {before} differ in {what}: they are not of one comparison.",
                    "Give each comparison a directory of its own (--out).",
                )
        found.setdefault(_name(float(entry["epsilon"])), []).append(entry)
    if not found:
        raise DataError(f"There are no results in {directory}.", "Run python -m bench.privacy_utility first.")
    return dict(sorted(found.items(), key=lambda item: -float(item[1][0]["epsilon"])))


def _settings(entry: Found) -> dict[str, Any]:
    """What must be alike, by the words for it; privacy and its learning rate only where there is privacy."""
    private = "with privacy" if math.isfinite(float(entry["epsilon"])) else "without privacy"
    training = {key: value for key, value in entry["training"].items() if key != "learning_rate"}
    privacy = {key: value for key, value in entry["privacy"].items() if key != "target_epsilon"}
    return {
        "consortium": entry["consortium"],
        "training": training,
        f"the learning rate {private}": entry["training"]["learning_rate"],
        f"the settings {private}": privacy,
        "the settings of the methods": {m: found["settings"] for m, found in entry["attempts"].items()},
        f"nothing, not even ε and seed ({entry['epsilon']}, {entry['seed']})": id(entry),
    }


def tables(directory: Path) -> str:
    """Markdown of all tables."""
    found = load(directory)
    every = [entry for entries in found.values() for entry in entries]
    private = [entry for entry in every if entry["spent"]]
    parts = [
        f"Consortium `{every[0]['consortium']}`, seeds {_seeds(every)}, {every[0]['training']['rounds']} "
        "rounds; mean over seeds, range in brackets where there are several.",
    ]
    if private:
        parts.append(_noise(private))
    parts += [
        "### Accuracy: PSNR in dB of G, trained with everybody, and of the oracle\n\n"
        + _table(
            found,
            {
                "G retain-test": _of("original", "retain_test"),
                "G forget-test": _of("original", "forget_test"),
                "G forget-train": _of("original", "forget_train"),
                "oracle retain-test": _of("oracle", "retain_test"),
                "oracle forget-test": _of("oracle", "forget_test"),
                "oracle forget-train": _of("oracle", "forget_train"),
            },
            sign="",
        ),
        "### What there is to forget: G minus the oracle, in dB\n\n"
        + _table(
            found,
            {
                "forget-test": _gap("forget_test"),
                "forget-train": _gap("forget_train"),
                "relearn": _relearn_of_original,
                "train − test of the leaver, G": _membership("original"),
                "the same, oracle": _membership("oracle"),
            },
        ),
        "### What the cached contribution still says\n\n"
        + _table(
            found,
            {
                "cosine, odd and even rounds": lambda e: e["direction"]["cosine_of_halves"],
                "cached: forget-train": _step("cached", "forget_train"),
                "cached: retain-test": _step("cached", "retain_test"),
                "random: forget-train": _step("random", "forget_train"),
                "random: retain-test": _step("random", "retain_test"),
            },
        ),
    ]
    for method in every[0]["attempts"]:
        parts.append(
            f"### Unlearned by `{method}`: minus the oracle of the same ε, in dB\n\n"
            + _table(
                found,
                {
                    "retain-test": _attempt(method, "gaps", "retain_test"),
                    "forget-test": _attempt(method, "gaps", "forget_test"),
                    "forget-train": _attempt(method, "gaps", "forget_train"),
                    "relearn (mean)": _attempt(method, "relearn_gaps", ""),
                    "steps taken back": lambda e, method=method: _back(e, method),
                },
            )
        )
    return "\n\n".join(parts)


def write_tables(page: Path, consortium: str, text: str) -> None:
    """Put ``text`` between the marks of a consortium on ``page``; the words around them stay.

    Raises
    ------
    DataError
        If the marks are not there.
    """
    written, mark = page.read_text(), begin(consortium)
    before, _, rest = written.partition(mark)
    if written.count(mark) != 1 or END not in rest:
        raise DataError(f"{page} lacks the marks between which its figures go.", f"Add {mark} and {END}.")
    after = rest.partition(END)[2]
    write_atomically(page, f"{before}{mark}\n{text}\n{END}{after}".encode())


def _noise(private: Sequence[Found]) -> str:
    lines = [
        "### Noise, and ε as accounted\n",
        "| ε asked for | noise multiplier | chance of a patient | steps | ε of the training | "
        "ε with one unlearning | the same by PRV |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    seen = set()
    for entry in sorted(private, key=lambda e: -e["epsilon"]):
        if entry["epsilon"] in seen:
            continue
        seen.add(entry["epsilon"])
        worst = max(entry["spent"].values(), key=lambda one: one["epsilon"])
        lines.append(
            f"| {entry['epsilon']:g} | {worst['noise_multiplier']:.2f} | {worst['sample_rate']:g} | "
            f"{worst['steps']} | {worst['epsilon_training']:.2f} | {worst['epsilon']:.2f} | "
            f"{worst['epsilon_prv']:.2f} |"
        )
    return "\n".join(lines)


def _table(found: dict[str, list[Found]], columns: Columns, sign: str = "+") -> str:
    lines = [f"| ε | {' | '.join(columns)} |", f"| --- {'| --- ' * len(columns)}|"]
    for epsilon, entries in found.items():
        cells = [_cell([column(entry) for entry in entries], sign) for column in columns.values()]
        lines.append(f"| {epsilon} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None], sign: str) -> str:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "none"
    mean = format(statistics.fmean(known), f"{sign}.2f").replace("-", "−")
    if len(known) == 1:
        return mean
    low, high = (format(value, f"{sign}.2f").replace("-", "−") for value in (min(known), max(known)))
    return f"{mean} [{low}, {high}]"


def _name(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else f"{epsilon:g}"


def _seeds(entries: Sequence[Found]) -> str:
    return ", ".join(map(str, sorted({entry["seed"] for entry in entries})))


def _of(model: str, key: str) -> Callable[[Found], float]:
    return lambda entry: float(entry[model]["psnr"][key])


def _gap(key: str) -> Callable[[Found], float]:
    return lambda entry: float(entry["original"]["psnr"][key] - entry["oracle"]["psnr"][key])


def _membership(model: str) -> Callable[[Found], float]:
    return lambda entry: float(entry[model]["psnr"]["forget_train"] - entry[model]["psnr"]["forget_test"])


def _step(way: str, key: str) -> Callable[[Found], float]:
    return lambda entry: float(entry["direction"][way][key])


def _relearn_of_original(entry: Found) -> float | None:
    after = entry["oracle"]["relearn"]
    gaps = [entry["original"]["relearn"][steps] - psnr for steps, psnr in after.items()]
    return statistics.fmean(gaps) if gaps else None


def _attempt(method: str, kind: str, key: str) -> Callable[[Found], float | None]:
    def value(entry: Found) -> float | None:
        gaps = entry["attempts"][method].get(kind)
        if not gaps:
            return None
        return float(gaps[key]) if key else statistics.fmean(gaps.values())

    return value


def _back(entry: Found, method: str) -> float | None:
    notes = entry["attempts"][method].get("notes")
    return None if notes is None else float(sum(not note["accepted"] for note in notes))
