"""A site audits a model with its own data: load, reconstruct, and reduce to one error a patient."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from client.model_digest import model_digest
from mri.dataset import SiteDataset
from mri.evaluation import reconstruct_volume
from mri.reconstructors import Reconstructor, build_reconstructor
from mri.split import split_patients
from reconsent.config import ConsortiumConfig, SamplingConfig, SiteConfig
from reconsent.errors import ConfigError, ModelError
from reconsent.files import write_atomically
from reconsent.seeds import derive_seed
from strategies import messages as msg
from unlearning.signing import SigningKey
from unlearning.verification.audit_statement import sign_audit
from unlearning.verification.exit_audit import Errors, ExitAudit, exit_audit
from unlearning.verification.function_distance import output_distance

SMALLEST_ERROR = 1e-12


@dataclass(frozen=True, slots=True)
class AuditedModel:
    """A model file that was loaded.

    Attributes
    ----------
    network
        Ready to reconstruct.
    digest
        SHA-256 over its arrays: what the server's registry and certificates call the model.
    """

    network: Reconstructor
    digest: str


@dataclass(frozen=True, slots=True)
class AuditData:
    """With which patients a site audits.

    Attributes
    ----------
    members, references
        Datasets of patients trained on, and of others; ``None`` if there are no others.
    """

    members: SiteDataset
    references: SiteDataset | None


def load_model(path: Path, consortium: ConsortiumConfig) -> AuditedModel:
    """Load a model that ``reconsent model export`` wrote.

    Parameters
    ----------
    path
        A safetensors file, or a PyTorch state dict (``.pt``, ``.pth``).
    consortium
        Its ``[model]`` says which network it is.

    Raises
    ------
    ModelError
        If the file cannot be read, or is not of that network.
    """
    try:
        if path.suffix in (".pt", ".pth"):
            state = torch.load(path, map_location="cpu", weights_only=True)
            arrays = {name: tensor.numpy() for name, tensor in state.items()}
        else:
            arrays = load_file(path)
    except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The model {path} cannot be read: {error}.",
            "Give a file that `reconsent model export` wrote.",
        ) from None
    network = build_reconstructor(consortium.model, seed=0)
    try:
        network.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    except RuntimeError as error:
        raise ModelError(
            f"The model {path} is not of the network in the consortium file: {str(error).splitlines()[0]}",
            "Give the consortium file that it was trained with (--consortium).",
        ) from None
    return AuditedModel(network, model_digest(msg.array_record(arrays)))


def audit_data(
    directory: Path,
    consortium: ConsortiumConfig,
    site: SiteConfig | None,
    sampling: SamplingConfig,
    reference: Path | None,
) -> AuditData:
    """Divide a directory into patients that were trained on and others.

    Parameters
    ----------
    directory
        fastMRI HDF5 files of the site.
    consortium
        Whose seed fixed the division while the site took part.
    site
        The site in the consortium file: its training patients are members and its test patients, which were
        held out, references. ``None``: every patient in the directory was trained on.
    sampling
        Undersampling to audit with.
    reference
        Directory of patients that nobody trained on; goes before the site's test patients.

    Raises
    ------
    DataError
        If a directory cannot be used.
    """
    members: tuple[str, ...] | None = None
    held_out: tuple[str, ...] = ()
    if site is not None:
        everyone = SiteDataset(directory, sampling, seed=0, fresh_masks=False).patients
        split = split_patients(
            [patient for patient in everyone if not site.patients or patient in site.patients],
            test_fraction=site.test_fraction,
            seed=derive_seed(consortium.seed, "split", site.name),
        )
        members, held_out = split.train, split.test

    def dataset(place: Path, patients: Sequence[str] | None) -> SiteDataset:
        return SiteDataset(place, sampling, patients=patients, seed=0, fresh_masks=False)

    others = dataset(reference, None) if reference else dataset(directory, held_out) if held_out else None
    return AuditData(dataset(directory, members), others)


def patient_errors(
    network: Reconstructor, dataset: SiteDataset, progress: Callable[[], None] = lambda: None
) -> Errors:
    """Mean NMSE of each patient's volumes, under the volumes' fixed masks.

    Raises
    ------
    ModelError
        If the network cannot take the data, or has diverged.
    DataError
        If a volume cannot be used.
    """
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for volume in dataset.volumes:
        output, target, _ = reconstruct_volume(network, dataset, volume)
        error = max(output_distance(output, target), SMALLEST_ERROR)
        found.setdefault(dataset.volume(volume).patient, []).append(error)
        progress()
    return {patient: float(np.mean(errors)) for patient, errors in found.items()}


def audit_model(
    model: AuditedModel,
    data: AuditData,
    before: AuditedModel | None = None,
    progress: Callable[[], None] = lambda: None,
) -> ExitAudit:
    """Measure one or two models on the site's data, and check.

    Raises
    ------
    ModelError, DataError
        As :func:`patient_errors`.
    """

    def errors(audited: AuditedModel | None, dataset: SiteDataset | None) -> Errors | None:
        if audited is None or dataset is None:
            return None
        return patient_errors(audited.network, dataset, progress)

    return exit_audit(
        patient_errors(model.network, data.members, progress),
        errors(model, data.references),
        members_before=errors(before, data.members),
        references_before=errors(before, data.references),
    )


def write_statement(
    path: Path,
    audit: ExitAudit,
    key: SigningKey,
    *,
    models: Mapping[str, AuditedModel],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Sign what was found and write the envelope; the only thing that is meant to leave the site.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    subjects = {name: model.digest for name, model in models.items()}
    envelope = sign_audit(audit, key, subjects=subjects, about=about, at=dt.datetime.now(dt.UTC))
    try:
        write_atomically(path, (json.dumps(envelope, indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}.", "Choose another --out.") from None
    return envelope
