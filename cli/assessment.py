"""What a simulation measures after the consortium has run: with every site's data, outside the protocol.

In a real consortium nobody could: here the observer holds the withdrawn site's data too, and the oracle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import numpy as np
import torch

from cli.report.pictures import PictureRow, Pictures
from client.site import Site, site_directory
from client.training import train_locally
from mri.dataset import SiteDataset
from mri.evaluation import evaluate, reconstruct_volume
from mri.quality import mean_quality
from mri.reconstructors import Reconstructor, build_reconstructor
from mri.site_data import synthesise_directory
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import ReconsentError
from reconsent.seeds import derive_seed
from reconsent.workers import worker_pool
from server.persistence import ModelRegistry, ModelVersion
from server.persistence.registry import read_version
from unlearning.parameters import Arrays

T = TypeVar("T")
P = ParamSpec("P")
Split = Literal["train", "test"]
Later = Callable[[], T]
"""Waits for what is being worked on, and returns it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Quality of one model on one volume (PSNR in dB; SSIM, NMSE, HFEN without unit)."""

    model: str
    site: str
    split: Split
    patient: str
    volume: str
    psnr: float
    ssim: float
    nmse: float
    hfen: float


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where a worker finds a model."""

    path: Path
    version: ModelVersion


Model = Arrays | _Stored


class Observer:
    """Measures models on any site's data, several at once in worker processes.

    What is asked for is begun in that order, before anybody waits; the answer is a function that waits for
    it. So of what is asked for together, the longest comes first. Workers read stored models themselves.

    Parameters
    ----------
    consortium
        Path of the resolved consortium file; workers read it again.
    registry
        Where the models are; revoked ones are measured too, for comparison. Not needed for arrays.
    workers
        Processes; 0 does everything in this one.
    """

    def __init__(self, consortium: Path, registry: ModelRegistry | None = None, *, workers: int) -> None:
        self.source = str(consortium)
        self._registry = registry
        self._pool: Executor
        if workers == 0:
            self._pool = _Here()
            return
        self._pool = worker_pool(workers, __name__)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def quality(
        self,
        wanted: Sequence[tuple[str, ModelVersion | Arrays, str, Split]],
        progress: Callable[[], None] = lambda: None,
    ) -> Later[list[Measured]]:
        """Quality of each ``(name of model, version, site, split)``, volume by volume."""
        tasks = [
            self._pool.submit(_measure, self.source, name, self._model(model), site, split)
            for name, model, site, split in wanted
        ]
        return lambda: [row for rows in _finished(tasks, progress) for row in rows]

    def relearn(
        self,
        models: Mapping[str, ModelVersion | Arrays],
        sites: Sequence[str],
        progress: Callable[[], None] = lambda: None,
    ) -> Later[dict[str, dict[int, float]]]:
        """PSNR on the withdrawn organs' test volumes after fine-tuning on fresh patients of them.

        Returns
        -------
        Model → steps → dB, mean over ``sites``; empty if a site has no patient to spare.
        """
        tasks = {
            (name, site): self._pool.submit(_relearn, self.source, self._model(model), site)
            for name, model in models.items()
            for site in sites
        }

        def finished() -> dict[str, dict[int, float]]:
            curves = dict(zip(tasks, _finished(list(tasks.values()), progress), strict=True))
            if not all(curves.values()):
                return {}
            return {
                name: {
                    steps: float(np.mean([curves[name, site][steps] for site in sites]))
                    for steps in curves[name, sites[0]]
                }
                for name in models
            }

        return finished

    def pictures(
        self,
        models: Mapping[str, ModelVersion],
        withdrawn: Sequence[str],
        progress: Callable[[], None] = lambda: None,
    ) -> Later[Pictures]:
        """One slice of every site, reconstructed by each model."""
        consortium = load_consortium(self.source)
        stored = {name: self._model(version) for name, version in models.items()}
        tasks = [
            self._pool.submit(_picture, self.source, stored, site.name, site.name in withdrawn)
            for site in consortium.sites
        ]
        return lambda: Pictures(rows=tuple(_finished(tasks, progress)))

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have any function done in a worker process."""
        return self._pool.submit(work, *args, **kwargs)

    def _model(self, model: ModelVersion | Arrays) -> Model:
        """A version's file, revoked or not: models that wait for their turn need not be in memory."""
        if not isinstance(model, ModelVersion):
            return model
        if self._registry is None:
            raise ValueError("an observer without a registry measures arrays only")
        return _Stored(self._registry.path(model), model)


class _Here(Executor):
    """Does at once, in this process, whatever is submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """A future that is done; what ``fn`` raises is raised by its result."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future holds it, as an executor's does
            future.set_exception(error)
        return future


def spare_patients(site: Site) -> tuple[SiteDataset, SiteDataset] | None:
    """Fresh patients of a site's organ to fine-tune on, and the patients to measure on.

    Phantoms: patients nobody has trained on are made. Imported data: half of the test patients are spared;
    ``None`` if there is only one.
    """
    test = observed_dataset(site, "test")
    seed = derive_seed(site.consortium.seed, "relearn", site.name)
    if site.config.data is None:
        wanted = site.consortium.assessment.relearn_patients
        directory = site_directory(site.consortium.seed, site.config).with_name(f"{site.name}-fresh")
        phantom = site.config.phantom.model_copy(update={"patients": wanted})
        synthesise_directory(directory, site.config.organ, phantom, seed=seed, prefix="fresh")
        return SiteDataset(directory, site.config.sampling, seed=seed, fresh_masks=True), test
    patients = list(test.patients)
    if len(patients) < 2:
        return None
    half = len(patients) // 2
    directory, sampling = site_directory(site.consortium.seed, site.config), site.config.sampling
    fresh = SiteDataset(directory, sampling, patients=patients[:half], seed=seed, fresh_masks=True)
    masks = derive_seed(site.consortium.seed, "masks", site.name)
    rest = SiteDataset(directory, sampling, patients=patients[half:], seed=masks, fresh_masks=False)
    return fresh, rest


def observed(site: Site, split: str) -> Site:
    """A site as it counts in what is measured.

    Of one that some patients leave, those are its training patients: it is they who are to be forgotten.
    """
    left = site.without(site.consortium.patients_leaving(site.name))
    return left.forget_set() if split == "train" and left.withdrawn else left


def observed_dataset(site: Site, split: str) -> SiteDataset:
    """Its volumes of ``test`` or ``train``, as they are measured: training volumes under the gate's masks."""
    return observed(site, split).dataset("test" if split == "test" else "gate")


# ---- in the workers -----------------------------------------------------------------------------------


def _measure(source: str, name: str, given: Model, site_name: str, split: Split) -> list[Measured]:
    site, model = _open(source, given, site_name)
    dataset = observed_dataset(site, split)
    return [
        Measured(
            name,
            site_name,
            split,
            result.patient,
            result.volume,
            result.quality.psnr,
            result.quality.ssim,
            result.quality.nmse,
            result.quality.hfen,
        )
        for result in evaluate(model, dataset)
    ]


def _relearn(source: str, given: Model, site_name: str) -> dict[int, float]:
    site, model = _open(source, given, site_name)
    datasets = spare_patients(site)
    if datasets is None:
        return {}
    fresh, test = datasets
    assessment = site.consortium.assessment
    curve: dict[int, float] = {}

    def measure(step: int) -> None:
        if step in assessment.relearn_steps:
            curve[step] = mean_quality([result.quality for result in evaluate(model, test)]).psnr

    train_locally(
        model,
        fresh,
        site.consortium.training.model_copy(update={"local_steps": max(assessment.relearn_steps)}),
        learning_rate=assessment.relearn_learning_rate,
        seed=derive_seed(site.consortium.seed, "relearn-order", site_name),
        after_step=measure,
    )
    return curve


def _picture(source: str, models: Mapping[str, Model], site_name: str, withdrawn: bool) -> PictureRow:
    images: dict[str, np.ndarray] = {}
    truth: np.ndarray | None = None
    volume, index = "", 0
    for name, given in models.items():
        site, model = _open(source, given, site_name)
        dataset = observed_dataset(site, "test")
        volume = dataset.volumes[0]
        output, target, zero_filled = reconstruct_volume(model, dataset, volume)
        index = target.shape[0] // 2
        truth = target[index]
        images.setdefault("zero_filled", zero_filled[index])
        images[name] = output[index]
    if truth is None:
        raise ValueError("pictures need at least one model")
    return PictureRow(
        site=site_name,
        organ=site.config.organ,
        withdrawn=withdrawn,
        volume=volume,
        slice=index,
        truth=truth,
        images=images,
    )


def _open(source: str, given: Model, site_name: str) -> tuple[Site, Reconstructor]:
    torch.set_num_threads(1)
    arrays = read_version(given.path, given.version) if isinstance(given, _Stored) else given
    consortium: ConsortiumConfig = load_consortium(source)
    model = build_reconstructor(consortium.model, seed=0)
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return Site(consortium, consortium.site(site_name)), model


def _finished(tasks: list[Future[T]], progress: Callable[[], None]) -> Iterator[T]:
    for task in tasks:
        yield result_of(task)
        progress()


def result_of(task: Future[T]) -> T:
    """What a worker process has found.

    Raises
    ------
    ReconsentError
        If the process was killed.
    """
    try:
        return task.result()
    except BrokenProcessPool:
        raise ReconsentError(
            "A process that measures models was killed, most likely because memory ran out.",
            "Repeat the command with a smaller --workers; what was trained is kept.",
        ) from None


def default_workers() -> int:
    """One a core this process may use."""
    # macOS and Windows cannot say which cores a process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
