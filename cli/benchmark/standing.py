"""Where one method stands beside others, judged case by case."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cli.benchmark.score import GAPS, Row, dearer

OURS = "cached-ascent"

PAPER = {"retain_test": -1.1, "forget_test": -0.6, "forget_train": 0.0}
"""Of NL-FT in table 1 of Xue et al. 2024, in dB."""

PAPER_GAP = statistics.fmean(map(abs, PAPER.values()))


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences between two methods in the cases that both were reported on, in dB.

    Attributes
    ----------
    differences
        The other's distance minus ours, case by case: above zero, ours is nearer to the oracle.
    """

    differences: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the differences."""
        return statistics.median(self.differences)

    @property
    def wins(self) -> int:
        """Cases in which ours is nearer."""
        return sum(difference > 0 for difference in self.differences)

    @property
    def verdict(self) -> str:
        """Who is nearer; nobody if the differences have both signs."""
        if all(difference > 0 for difference in self.differences):
            return "farther"
        if all(difference < 0 for difference in self.differences):
            return "nearer"
        return "indistinguishable"


def paired(ours: Mapping[str, float], other: Mapping[str, float]) -> Paired | None:
    """Compare case by case; ``None`` if no case is common to both.

    Parameters
    ----------
    ours, other
        Case → distance.
    """
    common = [case for case in ours if case in other]
    return Paired(tuple(other[case] - ours[case] for case in common)) if common else None


def compared(ours: Row, rows: Sequence[Row]) -> list[tuple[Row, Paired]]:
    """Every other row beside ours, with its differences."""
    pairs = [(row, paired(ours.scores, row.scores)) for row in rows if row.method != ours.method]
    return [(row, pair) for row, pair in pairs if pair is not None]


def standing(groups: Mapping[str, Sequence[Row]], expected: Mapping[str, int]) -> str:
    """The section about ours, in Markdown.

    Parameters
    ----------
    groups
        What is judged by itself, by its title → the rows of all methods there.
    expected
        The same title → how many cases there are.
    """
    said = [
        "Judged case by case, by the difference of the distances (the other's minus that of "
        f"`{OURS}`, in dB): above zero, `{OURS}` is nearer to the oracle. Where the differences of the cases "
        "have both signs, the two are called indistinguishable. Costs within 2 % of each other are equal."
    ]
    for title, rows in groups.items():
        ours = next((r for r in rows if r.method == OURS), None)
        if ours is None:
            said.append(f"### {title}\n\n`{OURS}` has not been reported there.")
            continue
        gone = compared(ours, [r for r in rows if not r.cooperating])
        asked = compared(ours, [r for r in rows if r.cooperating])
        said += [f"### {title}", _verdict(ours, gone, expected[title]), _table(ours, gone)]
        if asked:
            said += ["With the leaving site's help:", _table(ours, asked)]
        said.append(_beside_nl_ft(ours, asked))
    return "\n\n".join(said)


def _verdict(ours: Row, others: Sequence[tuple[Row, Paired]], expected: int) -> str:
    if not others:
        return "No other method of those that need nothing of the leaving site has been reported."

    def cheap(row: Row) -> bool:
        return not dearer(row.cost.mean, ours.cost.mean)

    nearer = [row.method for row, pair in others if pair.verdict == "nearer" and cheap(row)]
    tied = [row.method for row, pair in others if pair.verdict == "indistinguishable" and cheap(row)]
    dear = [row.method for row, pair in others if pair.verdict == "nearer" and not cheap(row)]
    means = [row.method for row, _ in others if row.score.mean < ours.score.mean and cheap(row)]
    told = (
        f"**Nearer in every case at equal or lower cost: {_listed(nearer)}.**"
        if nearer
        else "**No other method that leaves the site alone is nearer in every case at equal or lower cost.**"
    )
    rest = [
        f"Indistinguishable at equal or lower cost: {_listed(tied) or 'none'}.",
        f"Nearer by the mean distance alone, at equal or lower cost: {_listed(means) or 'none'}.",
        f"Nearer in every case at a higher cost: {_listed(dear) or 'none'}.",
    ]
    if ours.cases < expected or ours.failures:
        rest.append(f"Of {expected} cases `{OURS}` has figures of {ours.succeeded}.")
    return " ".join([told, *rest])


def _table(ours: Row, others: Sequence[tuple[Row, Paired]]) -> str:
    lines = [
        f"| beside | cost (`{OURS}`: {percent(ours.cost.mean)}) | median | range | `{OURS}` nearer in | so "
        "it is |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row, pair in others:
        low, high = min(pair.differences), max(pair.differences)
        verdict = f"**{pair.verdict}**" if pair.verdict == "nearer" else pair.verdict
        lines.append(
            f"| {row.method} | {percent(row.cost.mean)} | {pair.median:+.2f} | {low:+.2f} to {high:+.2f} | "
            f"{pair.wins}/{len(pair.differences)} | {verdict} |"
        )
    return "\n".join(lines)


def _beside_nl_ft(ours: Row, asked: Sequence[tuple[Row, Paired]]) -> str:
    own = next((row for row, _ in asked if row.method == "nl-ft"), None)
    here = (
        "The `nl-ft` of this benchmark has not been reported beside it."
        if own is None
        else f"That of this benchmark's `nl-ft`, which asks the leaving site, is {own.mean_gap.mean:.2f} dB."
    )
    said = ", ".join(f"{ours.absolute[name].mean:.2f}" for name in GAPS)
    nearer = [name.replace("_", "-") for name in GAPS if ours.absolute[name].mean < abs(PAPER[name])]
    return (
        f"The mean of its three absolute gaps, taken case by case, is {ours.mean_gap.mean:.2f} dB ({said}). "
        f"{here} That of NL-FT in the paper, which had the forget set in hand, is {PAPER_GAP:.2f} dB (−1.1, "
        f"−0.6, 0.0): `{OURS}` is {'below' if ours.mean_gap.mean < PAPER_GAP else 'not below'} it in that "
        f"mean, and of the three gaps nearer on {', '.join(nearer) or 'none'}. The "
        "paper's were measured on other data and another model: this compares orders of magnitude only."
    )


def percent(share: float) -> str:
    """A cost in per cent of the training's."""
    return f"{100 * share:.0f} %"


def _listed(values: Sequence[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)
