"""What a simulation found: ``results.json``, one documented and versioned object.

Every number of ``report.html`` comes from here, so that a reader can compute with what the report
shows. ``docs/results.md`` documents each field and is generated from the descriptions below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    PositiveInt,
    ValidationError,
    model_validator,
)

from cli.results_evidence import Evidence
from cli.results_privacy import PrivacyResult
from cli.results_record import Count, Record
from mri.volume import Provenance
from reconsent.errors import ConfigError
from reconsent.files import write_atomically

SCHEMA_VERSION = 1

Seconds = Annotated[float, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Versions(Record):
    """Software that produced the results."""

    reconsent: str = Field(description="this software")
    flwr: str = Field(description="Flower, the federation")
    torch: str = Field(description="PyTorch")
    fastmri: str = Field(description="fastMRI, reconstructors and masks")
    numpy: str = Field(description="NumPy")
    python: str = Field(description="the interpreter")


class SiteResult(Record):
    """A hospital of the consortium and its data."""

    name: str = Field(min_length=1, description="name in the consortium file")
    organ: str = Field(description="organ it images")
    provenance: dict[Provenance, Count] = Field(
        description="its volumes by origin of their k-space: acquired by a scanner, retrospective (computed "
        "back from magnitude images), or phantom"
    )
    train_patients: Count = Field(description="patients it trains on")
    test_patients: Count = Field(description="patients held out for testing")
    train_slices: Count = Field(description="slices of the training patients")
    test_slices: Count = Field(description="slices of the test patients")
    withdrawn: bool = Field(default=False, description="whether it, or patients of it, left during the run")
    patients_left: Count | None = Field(
        default=None,
        description="how many of its training patients left while it stayed; null: none, or the whole site",
    )
    withdrawn_at_round: Count | None = Field(default=None, description="last training round before it left")
    active: bool | None = Field(
        default=None, description="whether it takes part at the end of the run, as one that came back does"
    )
    first_round: Count | None = Field(
        default=None,
        description="first round whose model has an update of it; of one that came back, since it did",
    )
    contributions_from: Count | None = Field(
        default=None, description="first round of which the server keeps a contribution of it; null: of none"
    )

    @property
    def standing(self) -> str:
        """Its name, and what left of it."""
        if not self.withdrawn:
            return self.name
        left = "withdrawn"
        if self.patients_left is not None:
            left = f"{self.patients_left} patient{'s' * (self.patients_left != 1)} withdrawn"
        return f"{self.name} ({left})"

    @model_validator(mode="after")
    def _withdrawn_somewhen(self) -> Self:
        if self.withdrawn != (self.withdrawn_at_round is not None):
            raise ValueError("withdrawn_at_round must be given for a withdrawn site, and only for one")
        return self


class RoundQuality(Record):
    """Image quality at a site after a round, a mean over its test volumes."""

    psnr: float = Field(description="peak signal-to-noise ratio in dB, data range = maximum of the volume")
    ssim: float = Field(le=1, description="structural similarity, 7 × 7 uniform window")
    nmse: float = Field(ge=0, description="normalised mean squared error of the volume")


class Quality(RoundQuality):
    """Image quality of a model on a set, a mean over volumes."""

    hfen: float = Field(ge=0, description="high-frequency error norm: loss of edges and fine structure")


class SiteRound(Record):
    """A site's part in a round."""

    num_examples: Count = Field(description="slices it trained on: its weight in the average")
    train_loss: float | None = Field(default=None, description="mean loss of its local training")
    update_norm: float | None = Field(default=None, ge=0, description="Euclidean norm of its update")
    seconds: Seconds = Field(default=0.0, description="time of its local training")
    bytes_up: Count = Field(default=0, description="of models sent by the site to be averaged")
    bytes_down: Count = Field(default=0, description="of models sent to the site to be trained")
    outcome: str = Field(description="what the server did with its reply, such as accepted or refused")
    reason: str = Field(default="", description="why, where the reply was not accepted")


class RoundResult(Record):
    """One round at the server."""

    line: Literal["main", "oracle"] = Field(description="the consortium itself, or the retraining")
    kind: Literal["train", "retain"] = Field(
        description="training with every active site; a round in which only the remaining sites train"
    )
    round: Count = Field(description="number of the round in its line")
    sites: dict[str, SiteRound] = Field(default_factory=dict, description="by site")
    evaluation: dict[str, RoundQuality] | None = Field(
        default=None, description="image quality after the round by site; null where not evaluated"
    )


class ModelVersion(Record):
    """A model the run kept."""

    version: str = Field(description="identifier in the registry")
    sha256: Digest = Field(description="of the parameter file")
    rounds: Count = Field(description="rounds that went into it, counted from the initial model")


class Accuracy(Record):
    """Image quality of a model: the paper's BTA, KTA and UA, and every site by itself."""

    retain_test: Quality = Field(description="test volumes of the remaining sites (BTA)")
    forget_test: Quality | None = Field(
        default=None, description="test volumes of the withdrawn organ (KTA); null without a withdrawal"
    )
    forget_train: Quality | None = Field(
        default=None, description="the withdrawn sites' own training volumes (UA); null without a withdrawal"
    )
    per_site: dict[str, Quality] = Field(default_factory=dict, description="test volumes of each site")


class VolumeResult(Quality):
    """Image quality of a model on one volume."""

    model: str = Field(description="key of `accuracy`")
    set: Literal["retain_test", "forget_test", "forget_train"] = Field(description="field of `accuracy`")
    site: str = Field(description="whose volume it is")
    patient: str = Field(description="pseudonym of the patient")
    volume: str = Field(description="name of the volume, unique within the site")


class Gap(Record):
    """Difference in PSNR from the oracle on the three sets, in dB; zero is perfect in both directions."""

    retain_test: float = Field(description="on the remaining sites' test volumes")
    forget_test: float = Field(description="on the withdrawn organ's test volumes")
    forget_train: float = Field(description="on the withdrawn sites' own training volumes")


class Cost(Record):
    """What a method cost, beside the training it undoes (the paper's RTE)."""

    rounds_fraction: float = Field(ge=0, description="its rounds over the training's")
    client_seconds_fraction: float = Field(ge=0, description="the sites' computing time over the training's")
    bytes_fraction: float = Field(
        ge=0,
        description="bytes both ways over the training's: of models in the messages of the rounds, and of "
        "those in which the remaining sites are asked what an ascent step cost; without those of messages "
        "that only measure image quality",
    )
    rounds: Count = Field(description="rounds, ascent steps included")
    client_seconds: Seconds = Field(description="computing time of all sites together")
    bytes_up: Count = Field(description="of those sent by the sites")
    bytes_down: Count = Field(description="of those sent to the sites")


class UnlearningStep(Record):
    """One ascent step, with the check of the remaining sites that kept it or took it back."""

    round: Count = Field(description="number of the round in the main line")
    alpha: float = Field(
        description="length of the step taken, in units of R, the size of one of the site's updates, or of "
        "the site's whole contribution if the method's `unit` is `contribution`"
    )
    step_norm: float = Field(ge=0, description="Euclidean norm of the change of the parameters")
    accepted: bool = Field(description="false: taken back, and tried again with a smaller step")
    retain_loss_before: float | None = Field(default=None, description="remaining sites' mean loss before")
    retain_loss_after: float | None = Field(
        default=None, description="the same after the step and its fine-tuning round"
    )


class UnlearningResult(Record):
    """How G_U was made."""

    method: str = Field(description="name as in `reconsent methods`; key of `oracle_gap` and `cost`")
    settings: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="of the method, as in the consortium file"
    )
    steps: tuple[UnlearningStep, ...] = Field(
        default=(), description="of cached ascent; empty for other methods"
    )


class Timing(Record):
    """Wall time in seconds; of rounds, from the first message to the last reply."""

    train_seconds: Seconds = Field(description="rounds of the training")
    unlearn_seconds: Seconds | None = Field(
        default=None, description="rounds of the unlearning; null without a withdrawal"
    )
    oracle_seconds: Seconds | None = Field(
        default=None, description="rounds of the retraining; null without an oracle"
    )
    total_seconds: Seconds = Field(description="these rounds, and the measuring of the models after them")


class WithdrawalResult(Record):
    """A request and what became of it."""

    sites: tuple[str, ...] = Field(min_length=1, description="who left, together")
    patients: Count | None = Field(
        default=None,
        description="how many patients asked, while their site stayed; null: the whole site left",
    )
    at_round: Count = Field(description="last training round before it")
    state: str = Field(description="state of the request at the end of the run")
    received_at: AwareDatetime = Field(description="when the request was received")
    deadline: AwareDatetime = Field(description="when it must be carried out")


class Results(Record):
    """Everything a simulation measured."""

    schema_version: Literal[1] = Field(default=1, description="of this file's layout")
    simulation: Literal[True] = Field(default=True, description="SIMULATION: not evidence")
    created: AwareDatetime = Field(description="end of the run, UTC")
    versions: Versions = Field(description="software that produced the results")
    seed: Count = Field(description="the seed every random stream comes from")
    consortium: dict[str, JsonValue] = Field(
        description="the resolved configuration, every default filled in"
    )
    sites: tuple[SiteResult, ...] = Field(min_length=1, description="the hospitals, withdrawn ones too")
    rounds: tuple[RoundResult, ...] = Field(default=(), description="in the order in which they ran")
    models: dict[str, ModelVersion] = Field(
        description="`original` (G), `oracle` (Ĝ), `unlearned` (G_U), `continued` (G_U trained further)"
    )
    accuracy: dict[str, Accuracy] = Field(
        description="by model: `original`, `oracle`, `unlearned`, `continued`, and the name of each further "
        "method that was compared"
    )
    volumes: tuple[VolumeResult, ...] = Field(default=(), description="the same, volume by volume")
    original_gap: Gap | None = Field(
        default=None,
        description="PSNR of G minus Ĝ: what is to be forgotten; null without an oracle, and where several "
        "withdrawals one after the other leave no G that was trained as long as Ĝ",
    )
    oracle_gap: dict[str, Gap] = Field(
        default_factory=dict, description="by method, PSNR of its model minus Ĝ; empty without an oracle"
    )
    noise_floor: Gap | None = Field(
        default=None, description="PSNR of a second oracle with another seed minus Ĝ, where one was trained"
    )
    relearn: dict[str, dict[PositiveInt, float]] = Field(
        default_factory=dict,
        description="by model, then by steps of fine-tuning on fresh data of the withdrawn organ: PSNR in dB",
    )
    relearn_gap: dict[str, dict[PositiveInt, float]] = Field(
        default_factory=dict, description="by method, then by steps: PSNR of its model minus Ĝ in dB"
    )
    evidence: Evidence | None = Field(
        default=None, description="checks beyond the accuracies; null without a withdrawal"
    )
    cost: dict[str, Cost] = Field(default_factory=dict, description="by method")
    unlearning: UnlearningResult | None = Field(default=None, description="null without a withdrawal")
    privacy: tuple[PrivacyResult, ...] = Field(
        default=(), description="by site and unit; empty without differential privacy"
    )
    timing: Timing = Field(description="wall time")
    withdrawals: tuple[WithdrawalResult, ...] = Field(default=(), description="in the order of their rounds")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = {site.name for site in self.sites}
        if len(names) < len(self.sites):
            raise ValueError("two sites have the same name")
        requested = {name for withdrawal in self.withdrawals for name in withdrawal.sites}
        if unknown := requested - names:
            raise ValueError(f"withdrawal of {', '.join(sorted(unknown))}, which is no site of this run")
        if requested != {site.name for site in self.withdrawn}:
            raise ValueError("the sites marked as withdrawn are not those of the withdrawals")
        return self

    @property
    def withdrawn(self) -> tuple[SiteResult, ...]:
        """The sites that left, or that patients left."""
        return tuple(site for site in self.sites if site.withdrawn)

    @property
    def remaining(self) -> tuple[SiteResult, ...]:
        """The sites that stayed, with all their patients."""
        return tuple(site for site in self.sites if not site.withdrawn)

    @property
    def method(self) -> str | None:
        """Name of the method that made G_U, ``None`` without a withdrawal."""
        return self.unlearning.method if self.unlearning else None

    def save(self, path: Path) -> None:
        """Write the results as JSON; a crash leaves the old file or the new one, never a part.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read results that :meth:`save` wrote.

        Raises
        ------
        ConfigError
            If the file is missing, is no JSON, holds NaN, has a schema version this release does not
            know, or does not fit the schema; every problem is listed with its place.
        """
        try:
            table = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except OSError as error:
            raise ConfigError(
                f"The results file {path} cannot be read: {error}.", "Check the path."
            ) from None
        except ValueError as error:
            raise ConfigError(
                f"{path} is not valid JSON: {error}.",
                "Was it edited? Run the simulation again.",
            ) from None
        version = table.get("schema_version") if isinstance(table, dict) else None
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise ConfigError(
                f"{path} has schema version {version!r}; this release reads version {SCHEMA_VERSION}.",
                "Read it with the release of reconsent that wrote it.",
            )
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            problems = "\n".join(
                f"  - {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            )
            raise ConfigError(f"{path} does not hold the results of a simulation:\n{problems}\n") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``results.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Results.model_json_schema()}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")
