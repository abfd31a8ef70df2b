"""Predicts, by simulation on phantoms, which oracle gap a consortium's settings leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cli.results_record import Record
from reconsent.config import ConsortiumConfig, PhantomConfig, SiteConfig, parse_consortium
from reconsent.errors import ConfigError
from reconsent.files import write_atomically
from unlearning.verification.without_oracle import Calibration

if TYPE_CHECKING:
    from cli.results import Results

GAPS = ("retain-test", "forget-test", "forget-train", "relearn")

NOTICE = (
    "Predicted from simulations on phantoms with the consortium's network, training and unlearning settings. "
    "Phantoms are simpler than patients: on real data the gaps may be larger. It is no evidence about any "
    "real model."
)


class CalibrationRun(Record):
    """One simulation: who left, with which seed, and the gaps that were left."""

    sites: tuple[str, ...] = Field(description="who left, together")
    seed: int = Field(description="of the simulation")
    original: dict[str, float] = Field(description="gap of the original model: what there was to forget, dB")
    gaps: dict[str, float] = Field(description="gap of the unlearned model to the oracle by set, in dB")


class CalibrationResult(Record):
    """What ``reconsent calibrate`` found: ``calibration.json``."""

    notice: str = Field(default=NOTICE, description="what it is worth")
    method: str = Field(description="of unlearning")
    settings: dict[str, bool | int | float | str] = Field(description="of the method")
    margins: dict[str, float] = Field(description="by set, in dB, as in [compliance]")
    runs: tuple[CalibrationRun, ...] = Field(min_length=1, description="in order")

    def calibration(self) -> Calibration:
        """The gaps of all simulations by set."""
        names = [name for name in GAPS if all(name in run.gaps for run in self.runs)]
        return Calibration({name: tuple(run.gaps[name] for run in self.runs) for name in names})

    @classmethod
    def load(cls, path: Path) -> CalibrationResult:
        """Read ``calibration.json``.

        Raises
        ------
        ConfigError
            If it is missing or is no calibration.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} is no calibration: {str(error).splitlines()[0]}.", "Run `reconsent calibrate`."
            ) from None

    def save(self, path: Path) -> None:
        """Write it; a crash leaves the old file or the new one, never a part."""
        write_atomically(path, (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode())


def on_phantoms(
    consortium: ConsortiumConfig, leaving: Sequence[str], *, seed: int, patients: Mapping[str, int]
) -> ConsortiumConfig:
    """The consortium as it would be simulated: phantoms in place of every site's data.

    Parameters
    ----------
    consortium
        Of the deployment; network, training and unlearning stay as they are.
    leaving
        Who withdraws, at the end.
    seed
        Of the simulation.
    patients
        Site → how many patients its phantoms shall be, where its own table does not say.

    Raises
    ------
    ConfigError
        If a leaving site is none of the consortium's, or nobody would remain.
    """
    table = consortium.model_dump(mode="python", by_alias=True)
    table["sites"] = [_phantom_site(site, patients.get(site.name)) for site in consortium.sites]
    table["withdrawals"] = [{"sites": list(leaving)}]
    table["seed"] = seed
    table["continue-rounds"] = 0
    table["assessment"] = {
        **table["assessment"],
        "oracle": True,
        "membership": "none",
        "function-distance": False,
        "hallucination": False,
        "alignment": False,
        "noise-floor-seeds": 0,
        "continuation": False,
        "query-model": False,
    }
    return parse_consortium(table, where="The calibration", base=Path())


def _phantom_site(site: SiteConfig, patients: int | None) -> dict[str, Any]:
    phantom: PhantomConfig = site.phantom
    if patients is not None and site.data is not None:
        phantom = phantom.model_copy(update={"patients": max(2, patients)})
    bare = site.model_copy(update={"data": None, "patients": (), "phantom": phantom})
    return bare.model_dump(mode="python", by_alias=True, exclude={"data", "patients"})


def calibrate(
    consortium: ConsortiumConfig,
    leaving: Sequence[Sequence[str]],
    seeds: Sequence[int],
    simulate: Callable[[ConsortiumConfig], Results],
    *,
    patients: Mapping[str, int] | None = None,
) -> CalibrationResult:
    """Simulate each group of leavers with each seed, and collect the gaps.

    Parameters
    ----------
    consortium
        Of the deployment.
    leaving
        Groups of sites that leave together, one simulation each.
    seeds
        One simulation each.
    simulate
        Runs a consortium and gives its results.
    patients
        See :func:`on_phantoms`.

    Raises
    ------
    ConfigError
        If there is nothing to simulate, or a simulation had no oracle.
    """
    runs = []
    for sites in leaving:
        for seed in seeds:
            results = simulate(on_phantoms(consortium, sites, seed=seed, patients=patients or {}))
            runs.append(_run(results, sites, seed))
    if not runs:
        raise ConfigError("There is nothing to calibrate with.", "Name a site that leaves (--withdraw).")
    margins = consortium.compliance
    return CalibrationResult(
        method=consortium.unlearning.method,
        settings=dict(consortium.unlearning.settings),
        margins=dict.fromkeys(GAPS[:3], margins.accuracy_margin_db) | {"relearn": margins.relearn_margin_db},
        runs=tuple(runs),
    )


def _run(results: Results, sites: Sequence[str], seed: int) -> CalibrationRun:
    gap, original = results.oracle_gap.get(results.method or ""), results.original_gap
    if gap is None or original is None:
        raise ConfigError(
            f"The simulation in which {', '.join(sites)} left has no oracle to compare with.",
            "The sites must take part in the training before they leave.",
        )
    gaps = {name: getattr(gap, name.replace("-", "_")) for name in GAPS[:3]}
    before = {name: getattr(original, name.replace("-", "_")) for name in GAPS[:3]}
    if relearn := results.relearn_gap.get(results.method or ""):
        gaps["relearn"] = max(relearn.values(), key=abs)
    return CalibrationRun(sites=tuple(sites), seed=seed, original=before, gaps=gaps)
